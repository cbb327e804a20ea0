"""Guardrails that hold at all looks: bounds by bets, by the mixture and by order statistics, against second computations."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import integrate, stats

from llmrank.errors import ConfigError, InputError
from llmrank.experiment.analysis import _method
from llmrank.experiment.guarding import guardrails, undecided
from llmrank.experiment.spec import SequentialOptions
from llmrank.experiment.statistics import always_noninferiority as module
from llmrank.experiment.statistics.always_noninferiority import always_non_inferiority
from llmrank.experiment.statistics.asymptotic import one_sided_reach
from llmrank.experiment.statistics.betting import MOST, BoundedSequence
from llmrank.experiment.statistics.noninferiority import NonInferiority
from llmrank.experiment.statistics.quantile_bounds import quantile_bounds
from llmrank.experiment.stopping import stopped_at
from tests.unit.test_experiment_offline import rankings, spec, table


def drawn(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Values from 0 to 1 of a variant and its control, which go together."""
    generator = np.random.default_rng(seed)
    control = generator.beta(2, 2, n)
    return (control + generator.normal(-0.02, 0.1, n)).clip(0, 1), control


def judge(value: Any, control: Any, users: Any = None, **options: Any) -> NonInferiority:
    return always_non_inferiority(value, control, users, **{"margin": 0.05, "expected_n": 200, **options})


def test_bets_are_those_of_the_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its stake, either bound is that of a confidence sequence with the confidence 1 - 2 alpha, but for its grid."""
    monkeypatch.setattr(module, "STAKE", MOST)
    for n in (10, 60, 300):
        value, control = drawn(n)
        sequence = BoundedSequence(-1, 1, confidence=0.9)
        sequence.extend(value - control)
        found = judge(value, control, bounded=True, worse="lower")
        assert found.low == pytest.approx(sequence.low, abs=0.002)
        assert found.high == pytest.approx(sequence.high, abs=0.002)
        assert found.bound == found.low
        assert (found.method, found.n, found.clusters) == ("bets", n, n)


@pytest.mark.parametrize("relative", [False, True])
def test_the_verdict_of_bets_is_that_of_the_margin(relative: bool) -> None:
    """The margin at which a guardrail begins to be kept is the bound that is told."""
    value, control = drawn(300)
    bound = -judge(value, control, bounded=True, relative=relative, worse="lower", margin=0.5).low
    assert 0.02 < bound < 0.3
    for margin, verdict in ((0.98 * bound, "unclear"), (1.02 * bound, "kept")):
        assert judge(value, control, bounded=True, relative=relative, worse="lower", margin=margin).verdict == verdict


def test_nobody_failed() -> None:
    """Bets on rare failures: a margin of 2 points is shown by about 170 users without one; a failure asks for more."""
    kept = [judge(np.zeros(n), np.zeros(n), margin=0.02, bounded=True).verdict == "kept" for n in (100, 150, 200)]
    assert kept == [False, False, True]
    failed = np.zeros(200)
    failed[10] = 1
    assert judge(failed, np.zeros(200), margin=0.02, bounded=True).verdict == "unclear"
    assert judge(np.ones(20), np.zeros(20), margin=0.02, bounded=True).verdict == "broken"


def test_what_was_shown_stays_shown() -> None:
    """Bets keep what an earlier user ruled out, so that a look in between changes nothing."""
    value, control = drawn(400)
    for relative in (False, True):
        highs = [judge(value[:n], control[:n], bounded=True, relative=relative).high for n in (120, 200, 300, 400)]
        assert all(later <= earlier + 1e-3 for earlier, later in pairwise(highs))


def test_the_mixture_by_hand() -> None:
    """At its first moment, a hundred users: the mean difference and the paper's factor times its standard error."""
    value, control = drawn(100)
    gaps = value - control
    rho = (-2 * math.log(0.1) + math.log(1 - 2 * math.log(0.1))) / 200
    factor = math.sqrt(2 * (100 * rho + 1) / (100 * rho) * math.log(1 + math.sqrt(100 * rho + 1) / 0.1))
    assert float(one_sided_reach(100, alpha=0.05, expected_n=200)) == pytest.approx(factor)
    found = judge(value, control)
    error = gaps.std(ddof=1) / 10
    assert (found.low, found.high) == pytest.approx((gaps.mean() - factor * error, gaps.mean() + factor * error))
    assert found.method == "mixture"
    few = judge(value[:99], control[:99])
    assert math.isnan(few.low)
    assert math.isnan(few.high)
    assert few.verdict == "unclear"


def test_a_ratio_s_bound_is_where_its_difference_may_be_nothing() -> None:
    """Fieller: the bound is the ratio r at which the bound of the mean of value - r control is 0."""
    value, control = (10 * each for each in drawn(100))
    found = judge(value, control, relative=True)
    for bound, side in ((found.low, 0), (found.high, 1)):
        left = judge(value - (1 + bound) * control, np.zeros(100))
        assert (left.low, left.high)[side] == pytest.approx(0.0, abs=1e-9)
    assert found.difference == pytest.approx(value.mean() / control.mean() - 1)


def test_what_never_differs_has_no_width() -> None:
    """Equal costs are equal, once there are enough; later ones that differ open the bound again."""
    same = np.full(150, 3.0)
    assert judge(same, same, relative=True).verdict == "kept"
    assert judge(same, same, margin=0.01).high == 0.0
    assert judge(same[:50], same[:50]).verdict == "unclear"
    nothing = np.zeros(150)
    for statistic in ("mean", "p95"):
        assert judge(nothing, nothing, relative=True, statistic=statistic).verdict == "kept"
    other = same.copy()
    other[120:] += np.random.default_rng(1).normal(0, 1, 30)
    opened = judge(other, same)
    assert opened.low < opened.difference - 0.05 < opened.difference + 0.05 < opened.high


def test_a_user_counts_once() -> None:
    """Three rankings a user with the same values say what one says; users stand in the order of their numbers."""
    value, control = drawn(150)
    users = np.arange(150)
    for options in ({"bounded": True}, {"relative": True}, {"statistic": "p50"}):
        one = judge(value, control, users, **options)
        three = judge(np.repeat(value, 3), np.repeat(control, 3), np.repeat(users, 3), **options)
        assert (three.low, three.high, three.clusters, three.n) == pytest.approx((one.low, one.high, 150, 450))


def test_a_quantile_s_bounds_against_an_integral() -> None:
    """The evidence of so many hits is the mean of the likelihood ratio over the prior, cut to larger chances."""
    values = np.arange(1.0, 101.0)
    low, high = quantile_bounds(values, np.ones(100), 0.5, alpha=0.05, expected_n=100)
    reach = -2 * math.log(0.05)
    strength = 100 / (reach + math.log(reach + 1))
    prior = stats.beta(strength / 2, strength / 2)

    def capital(hits: int) -> float:
        def part(chance: float) -> float:
            return float((chance / 0.5) ** hits * ((1 - chance) / 0.5) ** (100 - hits) * prior.pdf(chance) / prior.sf(0.5))

        return float(integrate.quad(part, 0.5, 1.0, limit=200)[0])

    needed = next(hits for hits in range(101) if capital(hits) >= 20)
    assert high == values[needed - 1]
    assert low == values[100 - needed]
    assert 60 < needed < 75


def test_quantile_bounds_mirror_and_wait() -> None:
    """Bounds of the negated values are the negated bounds; too few users bound nothing; ties are one value."""
    values = np.random.default_rng(2).lognormal(0, 1, 300)
    low, high = quantile_bounds(values, np.ones(300), 0.9, alpha=0.05, expected_n=300)
    mirrored = quantile_bounds(-values, np.ones(300), 0.1, alpha=0.05, expected_n=300)
    assert mirrored == (-high, -low)
    assert low < np.quantile(values, 0.9) < high
    assert quantile_bounds(values[:20], np.ones(20), 0.95, alpha=0.05, expected_n=300)[1] == math.inf
    assert quantile_bounds(np.full(300, 2.0), np.ones(300), 0.5, alpha=0.05, expected_n=300) == (2.0, 2.0)
    assert quantile_bounds([], [], 0.5, alpha=0.05, expected_n=300) == (-math.inf, math.inf)
    with pytest.raises(InputError, match="weights"):
        quantile_bounds([1.0], [], 0.5, alpha=0.05, expected_n=300)
    with pytest.raises(ConfigError, match="share"):
        quantile_bounds([1.0], [1.0], 1.0, alpha=0.05, expected_n=300)


def test_a_quantile_is_rarely_missed_at_any_look() -> None:
    """The p90 of 400 experiments with 8 looks each: either bound fails in 5 % of them at most."""
    generator = np.random.default_rng(3)
    missed = np.zeros(2)
    for _ in range(400):
        values = generator.exponential(size=400)
        bounds = [quantile_bounds(values[:n], np.ones(n), 0.9, alpha=0.05, expected_n=400) for n in range(50, 401, 50)]
        missed += [any(low > math.log(10) for low, _ in bounds), any(high < math.log(10) for _, high in bounds)]
    assert (missed / 400 <= 0.05).all()


def test_percentiles_take_a_bound_of_either() -> None:
    """Of a difference and of a ratio; the margin is kept where even the worst of both is within it."""
    generator = np.random.default_rng(4)
    control = generator.lognormal(0, 0.3, 400)
    value = control * generator.lognormal(0, 0.1, 400)
    ends = [quantile_bounds(each, np.ones(400), 0.5, alpha=0.025, expected_n=200) for each in (value, control)]
    plain = judge(value, control, statistic="p50")
    assert (plain.low, plain.high) == pytest.approx((ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]))
    ratio = judge(value, control, statistic="p50", relative=True, margin=0.3)
    assert ratio.high == pytest.approx(ends[0][1] / ends[1][0] - 1)
    assert (ratio.verdict, ratio.method) == ("kept", "order")
    assert judge([], [], statistic="p95").verdict == "unclear"


@pytest.mark.parametrize("relative", [False, True])
def test_bets_at_the_margin(relative: bool) -> None:
    """Worse by just the margin: in 200 experiments that are looked at after every user, kept in 5 % at most."""
    generator = np.random.default_rng(5)
    kept = 0
    for _ in range(200):
        control = generator.random(200)
        value = control * (generator.random(200) < 0.9)  # a tenth of what it was is lost
        margin = 0.1 if relative else 0.05
        found = judge(value, control, bounded=True, worse="lower", margin=margin, relative=relative)
        kept += found.verdict == "kept"  # what was ruled out at any user stays ruled out
    assert kept / 200 <= 0.05


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"margin": -1.0}, ConfigError),
        ({"alpha": 0.5}, ConfigError),
        ({"expected_n": 0}, ConfigError),
        ({"statistic": "median"}, ConfigError),
        ({"value": [0.1, math.inf]}, InputError),
        ({"value": [0.1]}, InputError),
        ({"control": [-0.1, 0.2], "relative": True}, InputError),
        ({"value": [3.0, 0.5], "bounded": True}, InputError),
    ],
)
def test_mistakes(change: dict[str, Any], error: type[Exception]) -> None:
    """What cannot be judged is refused."""
    with pytest.raises(error):
        judge(**{"value": [0.1, 0.2], "control": [0.2, 0.2], **change})


def looked_at(n: int, **changes: Any) -> tuple[Any, Any]:
    """An experiment whose variant is much better, with guardrails, and what was measured of its first users."""
    watched = spec(sequential=SequentialOptions(), **changes)
    generator = np.random.default_rng(6)
    control = generator.random(n) * 0.2
    both = {"plain": rankings(control.tolist()), "bold": rankings((control + 0.7).tolist())}
    return watched, table([*range(n)], **both)


def test_an_experiment_goes_on_until_its_guardrails_are_decided() -> None:
    """Who is better after 50 users is not shipped before the failures are known to be few; one that is broken ends it."""
    watched, few = looked_at(50, guardrails={"failures": 0.02})
    assert undecided(watched, few, "bold") == ("failures",)
    assert stopped_at(watched, few) is None
    watched, many = looked_at(300, guardrails={"failures": 0.02})
    assert undecided(watched, many, "bold") == ()
    assert "bold is better" in (stopped_at(watched, many) or "")
    few.variants["bold"].failed[:] = True
    assert undecided(watched, few, "bold") == ()
    assert "bold is better" in (stopped_at(watched, few) or "")


def test_coverage_is_read_once_and_said_so() -> None:
    """It does not hold up the end, and its guardrail says how it was read."""
    watched, few = looked_at(50, guardrails={"coverage@3": 0.5, "failures": 0.5})
    for each in few.variants.values():
        object.__setattr__(each, "tops", tuple(("a", "b", "c") for _ in range(50)))
    found = {each.name: each.reading for each in guardrails(watched, few, 10)}
    assert found == {"Coverage@3": "fixed sample", "failures": "always valid"}
    assert stopped_at(watched, few) is not None
    assert any("coverage is read once" in sentence for sentence in _method(watched, few, ("bold",), ()))
