"""Guardrails whose truth lies just at the margin: how often they are said to be kept, which is to be no more than alpha."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from llmrank.evaluation.measures.statistics import Floats
from llmrank.experiment.statistics.always_noninferiority import always_non_inferiority
from llmrank.experiment.statistics.noninferiority import NonInferiority, coverage_non_inferiority, non_inferiority
from simulations.rows import Row, share
from simulations.users import effect_of, ndcg, true_difference

RESAMPLES = 500
"""Of a bound: the library has 2,000 by default."""

USERS, LOOKS = 400, (50, 100, 150, 200, 250, 300, 350, 400)
"""Of an experiment that is looked at."""


def at_the_margin(experiments: int, seed: int) -> list[Row]:
    """False ``kept`` in a world that is worse by just the margin."""
    effect = effect_of(-0.03)

    def relevance(generator: np.random.Generator, draw: int) -> NonInferiority:
        values = ndcg(generator, (200,), (0.0, effect))
        return non_inferiority(values[:, 1], values[:, 0], margin=0.03, worse="lower", resamples=RESAMPLES, seed=draw)

    def cost(generator: np.random.Generator, draw: int) -> NonInferiority:
        control = generator.lognormal(0.0, 0.5, 200)
        value = control * 1.1 * generator.lognormal(-0.02, 0.2, 200)
        return non_inferiority(value, control, margin=0.1, relative=True, resamples=RESAMPLES, seed=draw)

    def latency(generator: np.random.Generator, draw: int) -> NonInferiority:
        shared = generator.normal(0.0, 0.4, 400)
        control, value = (np.exp(shared + generator.normal(0.0, 0.3, 400)) * factor for factor in (1.0, 1.1))
        return non_inferiority(value, control, margin=0.1, relative=True, statistic="p95", resamples=RESAMPLES, seed=draw)

    made: list[tuple[str, Callable[[np.random.Generator, int], NonInferiority], str]] = [
        ("NDCG@10, 200 users, 0.03 lower, margin 0.03", relevance, "about 5 %"),
        ("cost, 200 users, 10 % higher, margin 10 %", cost, "about 5 %"),
        ("p95 latency, 400 users, 10 % higher, margin 10 %", latency, "<= 5 %"),
    ]
    rows = []
    for what, draw, expected in made:
        generator = np.random.default_rng(seed)
        rows.append(share(f"{what}: kept", [draw(generator, at).verdict == "kept" for at in range(experiments)], expected))
    return rows


def failures(experiments: int, seed: int) -> list[Row]:
    """Failures, which are rare: the score interval, and beside it the bootstrap, for which no failure is no uncertainty."""
    rows = []
    for users, rate, worse in ((100, 0.0, 0.02), (200, 0.01, 0.02), (500, 0.02, 0.02)):
        generator = np.random.default_rng(seed + users)
        counts = {"rate": 0, "mean": 0}
        for at in range(experiments):
            chance = generator.random(users)
            # Prompts that fail the control mostly fail the variant, too.
            control, value = (
                chance < rate,
                np.where(generator.random(users) < 0.5, chance, generator.random(users)) < rate + worse,
            )
            for statistic in counts:
                found = non_inferiority(value, control, margin=worse, statistic=statistic, resamples=RESAMPLES, seed=at)
                counts[statistic] += found.verdict == "kept"
        what = (
            f"failures, {users} users, {100 * rate:g} % and {100 * worse:g} points more, margin {100 * worse:g} points: kept, "
        )
        for statistic, name, expected in (
            ("rate", "score", "<= 5 %"),
            ("mean", "bootstrap", "more: why rates have a method of their own"),
        ):
            rows.append(share(what + f"by the {name}", np.arange(experiments) < counts[statistic], expected))
    return rows


def catalogue(experiments: int, seed: int) -> list[Row]:
    """Catalogue coverage of a variant that shows popular items more: the expected coverages are known from many draws."""
    generator = np.random.default_rng(seed)
    items, users, shown = 400, 100, 5
    popularity = 1.0 / (10 + np.arange(items))

    def lists(exponent: float, count: int) -> np.ndarray:
        # The `shown` best of exponential races are a draw without replacement.
        races = generator.exponential(size=(count, users, items)).astype(np.float32) / (popularity**exponent).astype(np.float32)
        return np.argpartition(races, shown, axis=2)[..., :shown]

    def covered(made: np.ndarray) -> float:
        return float(np.mean([len(np.unique(each)) for each in made])) / items

    margin = covered(lists(1.0, 500)) - covered(lists(1.2, 500))
    kept = []
    for start in range(0, experiments, 100):
        count = min(100, experiments - start)
        for value, control in zip(lists(1.2, count), lists(1.0, count), strict=True):
            ours, theirs = ([set(map(str, each)) for each in made.tolist()] for made in (value, control))
            kept.append(coverage_non_inferiority(ours, theirs, catalogue=items, margin=margin).verdict == "kept")
    what = f"catalogue coverage, {users} users, {margin:.3f} lower, margin {margin:.3f}: kept, by the jackknife"
    return [share(what, kept, "<= 5 %")]


def under_looks(experiments: int, seed: int) -> list[Row]:
    """False ``kept`` at any look of an experiment that is looked at, in a world that is worse by just the margin."""
    effect = effect_of(-0.03)
    worse_by = -true_difference(effect)

    def relevance(generator: np.random.Generator) -> tuple[Floats, Floats]:
        values = ndcg(generator, (USERS,), (0.0, effect))
        return values[:, 1], values[:, 0]

    def failed(generator: np.random.Generator) -> tuple[Floats, Floats]:
        chance = generator.random(USERS)
        again = np.where(generator.random(USERS) < 0.5, chance, generator.random(USERS))
        return (again < 0.03).astype(float), (chance < 0.01).astype(float)

    def cost(generator: np.random.Generator) -> tuple[Floats, Floats]:
        control = generator.lognormal(0.0, 0.5, USERS)
        return control * 1.1 * generator.lognormal(-0.02, 0.2, USERS), control

    def latency(generator: np.random.Generator) -> tuple[Floats, Floats]:
        shared = generator.normal(0.0, 0.4, USERS)
        control, value = (np.exp(shared + generator.normal(0.0, 0.3, USERS)) * factor for factor in (1.0, 1.1))
        return value, control

    made: list[tuple[str, Callable[[np.random.Generator], tuple[Floats, Floats]], dict[str, Any], dict[str, Any]]] = [
        ("NDCG@10, 0.03 lower, margin 0.03, bets", relevance, {"margin": worse_by, "worse": "lower"}, {"bounded": True}),
        ("failures, 1 % and 2 points more, margin 2 points, bets", failed, {"margin": 0.02}, {"bounded": True}),
        ("cost, 10 % higher, margin 10 %, mixture", cost, {"margin": 0.1, "relative": True}, {}),
        ("cost, 0.113 higher, margin 0.113, mixture", cost, {"margin": 0.1 * float(np.exp(0.125))}, {}),
        ("median latency, 10 % higher, margin 10 %, order", latency, {"margin": 0.1, "relative": True, "statistic": "p50"}, {}),
        ("p95 latency, 10 % higher, margin 10 %, order", latency, {"margin": 0.1, "relative": True, "statistic": "p95"}, {}),
    ]
    what = f"{len(LOOKS)} looks up to {USERS} users: "
    rows = []
    for said, draw, asked, more in made:
        generator = np.random.default_rng(seed)
        kept = []
        for _ in range(experiments):
            value, control = draw(generator)
            found = (always_non_inferiority(value[:n], control[:n], expected_n=USERS, **asked, **more) for n in LOOKS)
            kept.append(any(each.verdict == "kept" for each in found))
        rows.append(share(f"{what}{said}: ever kept", kept, "<= 5 %"))
    generator = np.random.default_rng(seed)
    kept = []
    for at in range(experiments):
        value, control = relevance(generator)
        bounds = (
            non_inferiority(value[:n], control[:n], margin=worse_by, worse="lower", resamples=RESAMPLES, seed=at) for n in LOOKS
        )
        kept.append(any(each.verdict == "kept" for each in bounds))
    rows.append(share(f"{what}NDCG@10, 0.03 lower, margin 0.03, by a fixed sample's bound: ever kept", kept, "too often"))
    return rows
