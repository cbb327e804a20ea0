"""Experiments that are looked at again and again: false alarms, coverage at all times, and what being allowed to look costs."""

from __future__ import annotations

import numpy as np

from llmrank.evaluation.measures.statistics import Floats
from llmrank.experiment.statistics.needed import scipy_module
from llmrank.experiment.statistics.sequential import BoundedSequence, asymptotic_p_values, bounded_p_values
from simulations.rows import Row, mean, share
from simulations.users import effect_of, ndcg, true_difference

ALPHA = 0.05
LOOKS = np.arange(10, 201, 5)
"""Users at each of 39 looks."""

BLOCK = 500


def naive_p_values(gaps: Floats, looks: np.ndarray) -> Floats:
    """The paired t-test's p values at each look, shape (experiments, looks): valid at any one of them, not at all."""
    stats = scipy_module("scipy.stats")
    with np.errstate(invalid="ignore", divide="ignore"):  # no difference at all so far: no p value
        return np.column_stack([stats.ttest_1samp(gaps[:, :look], 0.0, axis=1).pvalue for look in looks])


def false_alarms(experiments: int, seed: int) -> list[Row]:
    """A/A, offline: who stops at the first p <= 0.05 of 39 looks."""
    generator = np.random.default_rng(seed)
    naive, bounded, free = [], [], []
    for start in range(0, experiments, BLOCK):
        values = ndcg(generator, (min(BLOCK, experiments - start), int(LOOKS[-1])), (0.0, 0.0))
        gaps = values[..., 1] - values[..., 0]
        naive.append((naive_p_values(gaps, LOOKS) <= ALPHA).any(axis=1))
        bounded.append(bounded_p_values(gaps, -1, 1)[:, -1] <= ALPHA)
        free.append(asymptotic_p_values(gaps, expected_n=200, least=50)[:, -1] <= ALPHA)
    what = f"A/A, {len(LOOKS)} looks from {LOOKS[0]} to {LOOKS[-1]} users: "
    return [
        share(what + "t-test at each look ever <= 0.05", np.concatenate(naive), "about 30 %"),
        share(what + "always-valid p (bets) ever <= 0.05, at any user", np.concatenate(bounded), "<= 5 %"),
        share(what + "always-valid p (normal mixture, from 50 users) ever <= 0.05", np.concatenate(free), "<= 5 %"),
    ]


def false_alarms_online(experiments: int, seed: int) -> list[Row]:
    """A/A, online: two groups of users who spend something rarely, and much when they do."""
    generator = np.random.default_rng(seed)
    users = 4000
    looks = np.linspace(100, users, 39).astype(int)
    naive, valid = [], []
    for start in range(0, experiments, 250):
        shape = (2, min(250, experiments - start), users)
        spent = np.where(generator.random(shape) < 0.2, generator.lognormal(0.0, 1.0, shape), 0.0)
        counts = np.arange(1, users + 1)
        sums, squares = np.cumsum(spent, axis=2)[..., looks - 1], np.cumsum(spent**2, axis=2)[..., looks - 1]
        errors = (squares - sums**2 / counts[looks - 1]) / (counts[looks - 1] - 1) / counts[looks - 1]
        z = (sums[0] - sums[1]) / counts[looks - 1] / np.sqrt(errors.sum(axis=0))
        naive.append((np.abs(z) > 1.96).any(axis=1))
        valid.append(asymptotic_p_values(spent[0], spent[1], expected_n=users)[:, -1] <= ALPHA)
    # The mean of one group with very long tails, against its true mean: where a limit is too far away.
    tails = np.random.default_rng(seed + 1).lognormal(0.0, 1.5, (experiments, 1000))
    missed = asymptotic_p_values(tails, expected_n=users, null=float(np.exp(1.5**2 / 2)))[:, -1] <= ALPHA
    what = f"A/A online, up to {users:,} users a group, revenue: "
    return [
        share(what + f"z-test at {len(looks)} looks ever <= 0.05", np.concatenate(naive), "about 30 %"),
        share(what + "always-valid p ever <= 0.05, at any user", np.concatenate(valid), "<= 5 %"),
        share("one mean, very long tails (lognormal, sigma 1.5), 1,000 users: always-valid p <= 0.05", missed, "too many"),
    ]


def coverage(experiments: int, seed: int) -> list[Row]:
    """Whether a confidence sequence ever misses a true difference of 0.05, up to 1,000 users."""
    generator = np.random.default_rng(seed)
    effect = effect_of(0.05)
    bounded, free = [], []
    for start in range(0, experiments, BLOCK):
        values = ndcg(generator, (min(BLOCK, experiments - start), 1000), (0.0, effect))
        gaps = values[..., 1] - values[..., 0]
        bounded.append(bounded_p_values(gaps, -1, 1, null=true_difference(effect))[:, -1] > ALPHA)
        free.append(asymptotic_p_values(gaps, expected_n=500, null=true_difference(effect))[:, -1] > ALPHA)
    what = "true difference 0.05: held at all times up to 1,000 users, "
    return [
        share(what + "by bets", np.concatenate(bounded), ">= 95 %"),
        share(what + "by the normal mixture, from 100 users", np.concatenate(free), ">= 95 % in the limit"),
    ]


def price(experiments: int, seed: int) -> list[Row]:
    """What being allowed to look costs: width at the end of a fixed sample, and users until a difference is found."""
    generator = np.random.default_rng(seed)
    effect = effect_of(0.05)
    ratios = []
    for _ in range(min(100, experiments)):
        values = ndcg(generator, (200,), (0.0, effect))
        gaps = values[:, 1] - values[:, 0]
        sequence = BoundedSequence(-1, 1)
        sequence.extend(gaps)
        ratios.append((sequence.high - sequence.low) / (2 * 1.96 * gaps.std(ddof=1) / 200**0.5))
    stops = []
    for start in range(0, experiments, BLOCK):
        values = ndcg(generator, (min(BLOCK, experiments - start), 2000), (0.0, effect_of(0.08)))
        rejected = bounded_p_values(values[..., 1] - values[..., 0], -1, 1) <= ALPHA
        stops.append(np.where(rejected.any(axis=1), rejected.argmax(axis=1) + 1, 2000))
    pilot = ndcg(generator, (200_000,), (0.0, effect_of(0.08)))
    needed = (2.8016 * (pilot[:, 1] - pilot[:, 0]).std() / 0.08) ** 2
    found = np.concatenate(stops)
    what = "true difference 0.08: users until bets find it, "
    return [
        mean("200 users: width of the sequence by bets / width of a fixed interval", ratios, "above 1", digits=2),
        Row(what + "80th percentile", float(np.quantile(found, 0.8)), expected="", percent=False, digits=0),
        Row(what + "median", float(np.median(found)), expected="", percent=False, digits=0),
        Row("true difference 0.08: users of a fixed sample (power 80 %)", float(needed), percent=False, digits=0),
    ]
