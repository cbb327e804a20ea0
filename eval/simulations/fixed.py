"""Offline experiments of a fixed sample: false positives of one and of many tests, coverage of intervals, power."""

from __future__ import annotations

import numpy as np

from llmrank.evaluation.measures.statistics import (
    Difference,
    Floats,
    bootstrap_means,
    holm,
    minimum_detectable_effect,
    paired_differences,
)
from llmrank.experiment.statistics.multiplicity import benjamini_hochberg
from simulations.rows import Row, share
from simulations.users import GAINS, effect_of, ndcg, places, true_difference

ALPHA = 0.05
FLIPS, RESAMPLES = 999, 1000
"""Of the test and of the interval: the library has 9,999 and 2,000 by default."""

BATCH = 50
"""Experiments that share the random flips or resamples (a seed); the next ones have others."""


def differences(value: Floats, control: Floats, seed: int, *, resamples: int = 100) -> list[Difference]:
    """The library's test of each column, an experiment or a comparison each; `BATCH` of them with one seed."""
    found: list[Difference] = []
    for start in range(0, value.shape[1], BATCH):
        some = slice(start, start + BATCH)
        found += paired_differences(
            value[:, some], control[:, some], resamples=resamples, permutations=FLIPS, seed=seed + start
        )
    return found


def false_positives(experiments: int, seed: int) -> list[Row]:
    """A/A: two equal variants, one sign-flip test; five times as many experiments of the plain case, for the figure is narrow."""
    rows = []
    for users in (50, 200):
        values = ndcg(np.random.default_rng(seed + users), (users, 5 * experiments), (0.0, 0.0))
        ps = np.array([each.p for each in differences(values[..., 1], values[..., 0], seed)])
        rows.append(share(f"A/A, {users} users: p <= 0.05", ps <= ALPHA, "4 to 6 %"))
    # Repeats: each user three times, alike in most; whole users are flipped, or cases as if each were a user of its own.
    generator = np.random.default_rng(seed)
    users, repeats = 100, 3
    own = ndcg(generator, (users, experiments), (0.0, 0.0))
    again = [np.where(generator.random((users, experiments, 1)) < 0.7, own, ndcg(generator, (users, experiments), (0.0, 0.0)))]
    again += [np.where(generator.random((users, experiments, 1)) < 0.7, own, ndcg(generator, (users, experiments), (0.0, 0.0)))]
    cases = np.concatenate([own, *again])
    by_user, by_case = [], []
    for start in range(0, experiments, BATCH):
        value, control = cases[:, start : start + BATCH, 1], cases[:, start : start + BATCH, 0]
        options = {"resamples": 100, "permutations": FLIPS, "seed": seed + start}
        by_user += [each.p for each in paired_differences(value, control, np.tile(np.arange(users), repeats), **options)]
        by_case += [each.p for each in paired_differences(value, control, **options)]
    what = f"A/A, {users} users with {repeats} repeats, "
    rows.append(share(what + "users flipped whole: p <= 0.05", np.array(by_user) <= ALPHA, "4 to 6 %"))
    rows.append(share(what + "repeats taken for users: p <= 0.05", np.array(by_case) <= ALPHA, "far too many"))
    return rows


def many_variants(experiments: int, seed: int) -> list[Row]:
    """Eight variants against one control: the chance of any false finding, without and with Holm's adjustment."""
    users, variants = 200, 8
    rows = []
    for better in (0, 3):
        effects = np.zeros(variants + 1)
        effects[1 : 1 + better] = effect_of(0.06)
        generator = np.random.default_rng(seed + better)
        plain, adjusted, found = [], [], []
        for start in range(0, experiments, 500):
            count = min(500, experiments - start)
            values = ndcg(generator, (users, count), effects)
            control = np.repeat(values[..., :1], variants, axis=2).reshape(users, -1)
            tests = differences(values[..., 1:].reshape(users, -1), control, seed + start)
            ps = np.array([each.p for each in tests]).reshape(count, variants)
            strict = np.array([holm(row.tolist()) for row in ps])
            plain.append((ps[:, better:] <= ALPHA).any(axis=1))
            adjusted.append((strict[:, better:] <= ALPHA).any(axis=1))
            found.append((strict[:, :better] <= ALPHA).mean(axis=1) if better else np.zeros(count))
        what = (
            f"{variants} variants, {better} of them 0.06 better: " if better else f"{variants} variants, all as the control: "
        )
        rows.append(share(what + "any false finding without adjustment", np.concatenate(plain), "far more than 5 %"))
        rows.append(share(what + "any false finding by Holm", np.concatenate(adjusted), "<= 5.5 %"))
        if better:
            rows.append(share(what + "better ones found by Holm", np.concatenate(found), "the price of it"))
    return rows


def many_measures(experiments: int, seed: int) -> list[Row]:
    """Four variants, one of them better, in five measures each: the share of false ones among the findings."""
    users, variants = 200, 4
    effects = np.zeros(variants + 1)
    effects[1] = effect_of(0.06)
    generator = np.random.default_rng(seed)
    cutoffs = [np.where(np.arange(len(GAINS)) < k, 1.0, 0.0) for k in (1, 5, 10)]
    measures = np.array([GAINS, GAINS * cutoffs[1], *cutoffs])  # NDCG@10, NDCG@5, hits at 1, 5, 10
    parts, plain = [], []
    for start in range(0, experiments, 250):
        count = min(250, experiments - start)
        values = measures.T[places(generator, (users, count), effects)]  # users, experiments, variants, measures
        control = np.broadcast_to(values[:, :, :1], values[:, :, 1:].shape)
        tests = differences(values[:, :, 1:].reshape(users, -1), control.reshape(users, -1), seed + start)
        ps = np.array([each.p for each in tests]).reshape(count, variants, len(measures))
        for part, found in (
            (plain, ps <= ALPHA),
            (parts, np.array([benjamini_hochberg(row.ravel().tolist()) for row in ps]).reshape(ps.shape) <= ALPHA),
        ):
            false = found[:, 1:].sum(axis=(1, 2))
            part.append(false / np.maximum(found.sum(axis=(1, 2)), 1))
    what = f"{variants} variants x {len(measures)} measures, one variant 0.06 better: false ones among the findings, "
    return [
        Row(what + text, float(np.concatenate(part).mean()), float(np.concatenate(part).std() / experiments**0.5), expected)
        for text, part, expected in (("without adjustment", plain, "more"), ("by Benjamini and Hochberg", parts, "<= 5 %"))
    ]


def coverage(experiments: int, seed: int) -> list[Row]:
    """How often the 95 % BCa interval of a paired difference holds the true one, which is not 0."""
    rows = []
    effect = effect_of(0.05)
    for users in (50, 200):
        values = ndcg(np.random.default_rng(seed + users), (users, experiments), (0.0, effect))
        gaps = values[..., 1] - values[..., 0]
        held = []
        for start in range(0, experiments, BATCH):
            found = bootstrap_means(gaps[:, start : start + BATCH], resamples=RESAMPLES, seed=seed + start)
            held.append((found.low <= true_difference(effect)) & (true_difference(effect) <= found.high))
        rows.append(
            share(f"{users} users, true difference 0.05: the 95 % interval holds it", np.concatenate(held), "93 to 97 %")
        )
    return rows


def power(experiments: int, seed: int) -> list[Row]:
    """How often the test finds the difference that was forecast to be found with 80 %."""
    rows = []
    pilot = ndcg(np.random.default_rng(seed), (400_000,), (0.0, effect_of(0.05)))
    sd = float((pilot[:, 1] - pilot[:, 0]).std())
    for users in (100, 200, 400):
        wanted = minimum_detectable_effect(sd, users)
        values = ndcg(np.random.default_rng(seed + users), (users, experiments), (0.0, effect_of(wanted)))
        ps = np.array([each.p for each in differences(values[..., 1], values[..., 0], seed)])
        rows.append(share(f"{users} users, true difference {wanted:.3f} (forecast): found", ps <= ALPHA, "about 80 %"))
    return rows
