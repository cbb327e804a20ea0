"""Online experiments: A/A of the groups' tests, CUPED, the sample ratio, and interleaving against A/B."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from llmrank.evaluation.measures.statistics import Floats, Integers, sample_size
from llmrank.experiment.online.interleaving import credit, team_draft
from llmrank.experiment.statistics.groups import conversion_difference, mean_difference, ratio_difference
from llmrank.experiment.statistics.preference import interleaving_preference
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM, sample_ratio_mismatch
from simulations.rows import Row, mean, share

ALPHA = 0.05
ITEMS, RELEVANT, SHOWN = 20, 3, 10
POOL = 30_000
"""Impressions that are simulated; experiments draw their users from the users who have them."""


def groups(experiments: int, seed: int) -> list[Row]:
    """A/A of each kind of metric, and a real effect with a covariate."""
    generator = np.random.default_rng(seed)
    users = 400
    found: dict[str, list[bool]] = {"mean": [], "ratio": [], "naive": [], "rate": [], "cuped": []}
    reductions, held = [], []
    for _ in range(experiments):
        taste = generator.beta(2, 8, (2, users))
        shown = generator.geometric(0.1, (2, users))
        clicks = generator.binomial(shown, taste)
        before = generator.binomial(20, taste)
        spent = np.where(generator.random((2, users)) < 0.3, generator.lognormal(0, 1, (2, users)), 0.0)
        found["mean"].append(mean_difference(spent[0], spent[1]).p <= ALPHA)
        found["ratio"].append(ratio_difference((clicks[0], shown[0]), (clicks[1], shown[1])).p <= ALPHA)
        sums = [(int(clicks[group].sum()), int(shown[group].sum())) for group in (0, 1)]
        found["naive"].append(conversion_difference(*sums).p <= ALPHA)
        hits = [(int((clicks[group] > 3).sum()), users) for group in (0, 1)]
        found["rate"].append(conversion_difference(*hits).p <= ALPHA)
        rates = clicks / shown
        adjusted = mean_difference(rates[0] + 0.02, rates[1], before=(before[0], before[1]))
        found["cuped"].append(mean_difference(rates[0], rates[1], before=(before[0], before[1])).p <= ALPHA)
        held.append(adjusted.low <= 0.02 <= adjusted.high)
        reductions.append(adjusted.reduction)
    what = f"A/A, {users} users a group, "
    return [
        share(what + "revenue (Welch): p <= 0.05", found["mean"], "4 to 6 %"),
        share(what + "conversion (score test): p <= 0.05", found["rate"], "4 to 6 %"),
        share(what + "clicks per impression (delta method): p <= 0.05", found["ratio"], "4 to 6 %"),
        share(what + "impressions taken for independent: p <= 0.05", found["naive"], "far too many"),
        share(what + "click rate with CUPED: p <= 0.05", found["cuped"], "4 to 6 %"),
        share("click rate 0.02 higher, CUPED: the 95 % interval holds it", held, "93 to 97 %"),
        mean("the same: variance that CUPED takes away", reductions, "", percent=True, digits=1),
    ]


def sample_ratio(experiments: int, seed: int) -> list[Row]:
    """False alarms of the check at its usual level, and how often it sees that a part of one group is missing."""
    generator = np.random.default_rng(seed)
    rows = []
    many = 25 * experiments
    counts = generator.multinomial(20_000, [0.5, 0.25, 0.25], many).tolist()
    alarms = [sample_ratio_mismatch(each, [2, 1, 1]) < SAMPLE_RATIO_ALARM for each in counts]
    rows.append(share(f"20,000 users, weights 2:1:1, none missing ({many:,} experiments): alarm", alarms, "0.1 %", digits=3))
    for users, lost in ((20_000, 0.02), (20_000, 0.05), (200_000, 0.02)):
        control = generator.binomial(users, 0.5, experiments)
        value = generator.binomial(users - control, 1 - lost)
        alarms = [
            sample_ratio_mismatch(each, [1, 1]) < SAMPLE_RATIO_ALARM for each in np.column_stack([value, control]).tolist()
        ]
        rows.append(
            share(f"{users:,} users, 1:1, {100 * lost:g} % of one group missing: alarm", alarms, "the more users, the surer")
        )
    return rows


@dataclass(frozen=True, slots=True)
class World:
    """What rankers and users are like.

    Attributes:
        name: For people.
        common: The part of the rankers' noise that both have in common: the more, the more alike their lists are.
        differ: Whether users differ: from seldom to daily (impressions are geometric, 4 on average), and from clicking on
            nothing to clicking on all that they like. Else each has one impression and likes to click as much as all others.
    """

    name: str
    common: float
    differ: bool


class Clicks:
    """Users before the lists of two rankers, and before both lists interleaved.

    Of 20 items 3 are relevant. A ranker sees an item's relevance with noise. A user examines place k with the chance 1 / k, and
    clicks on what is relevant with 0.6 (where users differ, with a chance of their own) and else with a twelfth of that.
    """

    def __init__(self, world: World, quality: tuple[float, float], seed: int) -> None:
        generator = np.random.default_rng(seed)
        coins = random.Random(seed)  # noqa: S311  # no secret
        impressions = generator.geometric(0.25, POOL // 4) if world.differ else np.ones(POOL, dtype=np.intp)
        self.users = len(impressions)
        user = np.repeat(np.arange(self.users), impressions)
        appetite = generator.beta(0.5, 0.5, self.users)[user] if world.differ else np.full(len(user), 0.6)
        size = len(user), ITEMS
        relevance = np.zeros(size)
        relevance[:, :RELEVANT] = 1.0
        shared = world.common**0.5 * generator.normal(size=size)
        orders = []
        self.ab: list[Floats] = []  # clicks of each user who sees one ranker's lists
        for each in quality:
            scores = each * relevance + shared + (1 - world.common) ** 0.5 * generator.normal(size=size)
            orders.append(np.argsort(-scores, axis=1)[:, :SHOWN])
            self.ab.append(np.bincount(user, _clicked(generator, orders[-1], appetite).sum(axis=1)))
        # Items are named by numbers; the draft and the credit are the library's.
        names = np.array([str(item) for item in range(ITEMS)])
        pairs = zip(*(names[order].tolist() for order in orders), strict=True)
        drafts = [team_draft(a, b, k=SHOWN, rng=coins) for a, b in pairs]
        lists = np.array([[int(item) for item in draft.items] for draft in drafts])
        self.credit = np.array(
            [
                credit(draft, [draft.items[place] for place in np.flatnonzero(row).tolist()])
                for draft, row in zip(drafts, _clicked(generator, lists, appetite), strict=True)
            ]
        )
        self.user = user
        self._starts, self._impressions = np.cumsum(impressions) - impressions, impressions

    def outcomes(self) -> Floats:
        """Impressions won less those lost, of each user: what the test of interleaving flips."""
        return np.bincount(self.user, np.sign(self.credit[:, 0] - self.credit[:, 1]))

    def drawn(self, generator: np.random.Generator, users: int) -> tuple[Integers, Integers]:
        """The credits (a row an impression) of so many users, and whose each row is."""
        some = generator.integers(0, self.users, users)
        counts = self._impressions[some]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.credit[np.repeat(self._starts[some], counts) + within], np.repeat(np.arange(users), counts)


def _clicked(generator: np.random.Generator, order: Integers, appetite: Floats) -> np.ndarray:
    examined = generator.random(order.shape) < 1 / np.arange(1, order.shape[1] + 1)
    chance = np.where(order < RELEVANT, 1.0, 1 / 12) * appetite[:, None]
    clicked: np.ndarray = examined & (generator.random(order.shape) < chance)
    return clicked


def interleaving(experiments: int, seed: int) -> list[Row]:
    """Users that either method needs for a power of 80 %, and the power that it then has."""
    rows = []
    alike, differ = "users alike", "users who differ"
    worlds = (World(f"{alike}, rankers less so", 0.5, False), World(f"{alike}, rankers too", 0.9, False))
    worlds += (World(f"{differ}, rankers as well", 0.5, True), World(f"{differ}, rankers alike", 0.9, True))
    for world in worlds:
        pool = Clicks(world, (1.5, 1.3), seed)
        outcomes = pool.outcomes()
        needed = sample_size(float(outcomes.std()), float(outcomes.mean()))
        gap = float(pool.ab[0].mean() - pool.ab[1].mean())
        group = sample_size(float(pool.ab[0].var() + pool.ab[1].var()) ** 0.5, gap)
        seen = {"interleaving": 0, "A/B": 0}
        generator = np.random.default_rng(seed + 1)
        for at in range(experiments):
            some, users = pool.drawn(generator, needed)
            seen["interleaving"] += preferred(some, users, at)
            value, control = (clicks[generator.integers(0, pool.users, group)] for clicks in pool.ab)
            seen["A/B"] += mean_difference(value, control).p <= ALPHA
        what = f"{world.name}, clicks {100 * gap / float(pool.ab[1].mean()):.0f} % more: "
        rows += [
            Row(what + "users for A/B, both groups", 2 * group, percent=False, digits=0),
            Row(what + "users for interleaving", needed, percent=False, digits=0),
            Row(what + "times fewer", 2 * group / needed, percent=False),
            share(what + "power of A/B with as many", np.arange(experiments) < seen["A/B"], "about 80 %"),
            share(what + "power of interleaving with as many", np.arange(experiments) < seen["interleaving"], "about 80 %"),
        ]
    equal = Clicks(worlds[2], (1.5, 1.5), seed + 2)
    generator = np.random.default_rng(seed + 3)
    false = [preferred(*equal.drawn(generator, 200), at) for at in range(experiments)]
    return [*rows, share("two equal rankers, 200 users who differ: p <= 0.05", false, "4 to 6 %")]


def preferred(some: Integers, users: Integers, seed: int) -> bool:
    """Whether the library's test of interleaving finds a difference."""
    test = interleaving_preference(some[:, 0], some[:, 1], users.tolist(), resamples=100, permutations=499, seed=seed)
    return test.p <= ALPHA
