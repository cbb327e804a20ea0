"""A number a case goes in; means with intervals, differences with p values, and sample sizes come out.

Cases of one user are not independent, so users ("clusters"), not cases, are what is drawn and flipped here; where every case
has a user of its own this is the plain method. All draws are seeded. The result for a column (a measure) depends on that
column alone, whatever stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrank.errors import ConfigError, InputError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.intp]

CHUNK = 1 << 19
"""How many draws are held in memory at once (8 bytes each)."""

SAME = 1e-12
"""Numbers that differ by less than this part of their size differ by rounding only."""


@dataclass(frozen=True, slots=True, eq=False)
class Intervals:
    """Means with bootstrap intervals, one a column; each array has the shape (m,).

    Attributes:
        mean: NaN for a column without a value.
        low, high: The interval's ends; NaN with fewer than two clusters, both the mean where all clusters have the same mean.
        error: The standard error (jackknife over clusters; with one case a cluster, the sample's deviation / sqrt(n)).
        n: How many values the mean is of.
        clusters: How many clusters have any of them.
    """

    mean: Floats
    low: Floats
    high: Floats
    error: Floats
    n: Integers
    clusters: Integers


@dataclass(frozen=True, slots=True)
class Difference:
    """What a has beyond b, paired.

    Attributes:
        mean: The mean of a - b.
        low, high: Its interval's ends; NaN with fewer than two clusters.
        error: Its standard error.
        p: Two-sided p value of the sign-flip test; NaN without a pair.
        wins, ties, losses: In how many cases a is larger than b, equal, smaller.
        n: How many pairs.
        clusters: How many clusters have any.
    """

    mean: float
    low: float
    high: float
    error: float
    p: float
    wins: int
    ties: int
    losses: int
    n: int
    clusters: int

    @property
    def sd(self) -> float:
        """The standard deviation of a cluster's difference, for `sample_size` and `minimum_detectable_effect`."""
        return self.error * math.sqrt(self.clusters)


@dataclass(frozen=True, slots=True)
class Spread:
    """How far apart the means of several columns are.

    Attributes:
        value: The largest mean minus the smallest; above 0 even where all columns have the same true mean.
        by_chance: What it would be on average if the column did not matter.
        p: The p value of the permutation test.

    All are NaN without a case.
    """

    value: float
    by_chance: float
    p: float


def bootstrap_means(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """Means with BCa bootstrap intervals (Efron 1987, "Better bootstrap confidence intervals"), by drawing whole clusters.

    A column's mean is that over its values, so a cluster with more of them weighs more. Acceleration comes from the jackknife
    over clusters, in closed form; a resample whose mean equals the sample's counts half below it, half above.

    Args:
        values: Shape (n, m): one row a case, one column a measure. NaN: not defined for that case, left out of that column.
        clusters: Shape (n,): whose case it is, any ids; None for each case a cluster of its own.
        confidence: The part of such intervals that is to hold the true mean.
        resamples: How many resamples are drawn.
        seed: Of the draws.

    Returns:
        The intervals, one a column.

    Raises:
        ConfigError: `confidence` or `resamples` is out of range.
        InputError: the shapes do not fit, or a value is infinite.
    """
    _check(confidence, resamples)
    table = np.asarray(values, dtype=np.float64)
    codes, n_clusters = _codes(table, clusters)
    sums, counts = _per_cluster(table, codes, n_clusters)
    return _intervals(sums, counts, counts, confidence, resamples, seed)


def bootstrap_ratios(
    numerators: ArrayLike,
    denominators: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Intervals:
    """The sums of the numerators over those of the denominators, with BCa bootstrap intervals: as `bootstrap_means`, whose
    means are such ratios, too. A resample draws both together, so what they have in common cancels.

    Args:
        numerators: Shape (n, m): one row a case, one column a measure.
        denominators: The same cases; 0 or more. A pair with NaN is left out of its column.
        clusters, confidence, resamples, seed: As there.

    Returns:
        The ratios in place of the means. All are NaN where the denominators sum to 0; the interval and the error also where
        all of that sum is one cluster's, or a resample has none of it.

    Raises:
        ConfigError: `confidence` or `resamples` is out of range.
        InputError: the shapes do not fit, a value is infinite, or a denominator is negative.
    """
    _check(confidence, resamples)
    above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if above.shape != below.shape:
        fix = f"give pairs: numerators has {above.shape}"
        raise InputError("must have the shape of numerators", field="denominators", value=below.shape, fix=fix)
    if (below < 0).any():
        fix = "a ratio to a sum of both signs says nothing"
        raise InputError("must be 0 or more", field="denominators", value=float(np.nanmin(below)), fix=fix)
    missing = np.isnan(above) | np.isnan(below)
    codes, n_clusters = _codes(above, clusters)
    _codes(below, clusters)
    sums, counts = _per_cluster(np.where(missing, np.nan, above), codes, n_clusters)
    sizes, _ = _per_cluster(np.where(missing, np.nan, below), codes, n_clusters)
    return _intervals(sums, sizes, counts, confidence, resamples, seed)


def paired_differences(
    a: ArrayLike,
    b: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    permutations: int = 9999,
    seed: int = 0,
) -> list[Difference]:
    """The mean differences a - b with BCa intervals and the p values of sign-flip tests.

    Under the hypothesis that a and b are exchangeable, a cluster's differences might as well have had the other sign: the test
    asks how rarely a mean as far from 0 comes about when the signs of whole clusters are flipped at random. Where all ways to
    flip are no more than `permutations` + 1, each is counted once and p is exact; else p is (b + 1) / (permutations + 1), which
    is never 0 (Phipson and Smyth 2010, "Permutation p-values should never be zero").

    Args:
        a: Shape (n, m): one row a case, one column a measure. A pair with NaN is left out of its column.
        b: The same cases in the same order.
        clusters: Shape (n,): whose case it is; None for each case a cluster of its own.
        confidence: The part of such intervals that is to hold the true difference.
        resamples: How many resamples the interval takes.
        permutations: How many ways to flip are drawn.
        seed: Of both.

    Returns:
        One Difference a column.

    Raises:
        ConfigError: `confidence`, `resamples` or `permutations` is out of range.
        InputError: the shapes do not fit, or a value is infinite.
    """
    _check_permutations(permutations)
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if left.shape != right.shape:
        raise InputError("must have the shape of a", field="b", value=right.shape, fix=f"give pairs: a has {left.shape}")
    # What differs by rounding only is a tie.
    gap = left - right
    gap[np.abs(gap) <= SAME * np.maximum(np.abs(left), np.abs(right))] = 0.0
    intervals = bootstrap_means(gap, clusters, confidence=confidence, resamples=resamples, seed=seed)
    codes, n_clusters = _codes(gap, clusters)
    sums, _ = _per_cluster(gap, codes, n_clusters)
    ps = _sign_flip_p(sums, permutations, seed)
    return [
        Difference(
            mean=float(intervals.mean[column]),
            low=float(intervals.low[column]),
            high=float(intervals.high[column]),
            error=float(intervals.error[column]),
            p=float(ps[column]) if intervals.n[column] else math.nan,
            wins=int((gap[:, column] > 0).sum()),
            ties=int((gap[:, column] == 0).sum()),
            losses=int((gap[:, column] < 0).sum()),
            n=int(intervals.n[column]),
            clusters=int(intervals.clusters[column]),
        )
        for column in range(gap.shape[1])
    ]


def spread_of_means(values: ArrayLike, clusters: ArrayLike | None = None, *, permutations: int = 9999, seed: int = 0) -> Spread:
    """How much the same cases differ between conditions: the largest mean minus the smallest.

    If the condition does not matter, a cluster's conditions might as well have been named in another order. So they are
    shuffled, the same way for all of its cases: the mean of the shuffled tables' spreads is what comes about by chance, and p
    is (b + 1) / (permutations + 1), for b of them that are as large as the one seen (Phipson and Smyth 2010). There is no
    interval: a largest minus a smallest mean is never below 0 and too large on average, more so in resamples, so that a
    bootstrap interval misses a true spread of 0.

    Args:
        values: Shape (n, m): one row a case, one column a condition. No NaN: every case has every condition.
        clusters: Shape (n,): whose case it is; None for each case a cluster of its own.
        permutations: How often the conditions are shuffled.
        seed: Of the shuffles.

    Raises:
        ConfigError: `permutations` is out of range.
        InputError: the shapes do not fit, or a value is not finite.
    """
    _check_permutations(permutations)
    table = np.asarray(values, dtype=np.float64)
    codes, n_clusters = _codes(table, clusters)
    if np.isnan(table).any():
        raise InputError("must be a number for every case", field="values", value=math.nan, fix="leave such cases out")
    if not len(table):
        return Spread(math.nan, math.nan, math.nan)
    sums, _ = _per_cluster(table, codes, n_clusters)
    value = float(np.ptp(sums.sum(axis=0))) / len(table)
    scale = SAME * float(np.abs(sums).sum()) / len(table)
    if value <= scale:  # by rounding only
        value = 0.0
    generator = np.random.default_rng(seed)
    drawn = np.empty(permutations)
    for start, stop in _chunks(permutations, sums.size):
        shuffled = generator.permuted(np.broadcast_to(sums, (stop - start, *sums.shape)), axis=2)
        drawn[start:stop] = np.ptp(shuffled.sum(axis=1), axis=1) / len(table)
    drawn[drawn <= scale] = 0.0
    return Spread(value, float(drawn.mean()), (int((drawn >= value - scale).sum()) + 1) / (permutations + 1))


def holm(ps: Sequence[float]) -> list[float]:
    """P values adjusted for their number, so that the chance of any false finding stays below the level (Holm 1979).

    Args:
        ps: In any order. NaN stays NaN and does not count.

    Returns:
        The adjusted p values, in the order given.
    """
    adjusted = [math.nan] * len(ps)
    order = sorted((place for place, p in enumerate(ps) if not math.isnan(p)), key=lambda place: ps[place])
    largest = 0.0
    for step, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - step) * ps[place]))
        adjusted[place] = largest
    return adjusted


def paired_sd(sd: float, correlation: float = 0.5) -> float:
    """The standard deviation of the difference of two measurements of one case, each with deviation `sd`.

    Args:
        sd: Of either.
        correlation: Between the two. 0 also serves for two groups of different users, of n each.
    """
    return sd * math.sqrt(2 * (1 - correlation))


def minimum_detectable_effect(sd: float, n: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided test finds with the chance `power` (normal approximation).

    Args:
        sd: The standard deviation of a case's difference: `paired_sd` before, `Difference.sd` after.
        n: How many independent differences: users, if cases of one user are alike.
        alpha: The level of the test.
        power: The chance of finding it.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not n > 0:
        raise ConfigError("must be above 0", field="n", value=n, fix="count the cases")
    return _reach(sd, alpha, power) / math.sqrt(n)


def sample_size(sd: float, effect: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """How many independent differences it takes to find a true difference of `effect`: the way back from
    `minimum_detectable_effect`, whose arguments these are.

    Raises:
        ConfigError: an argument is out of range.
    """
    if not effect > 0:
        raise ConfigError("must be above 0", field="effect", value=effect, fix="name the smallest difference that matters")
    # The part taken off is rounding: without it, the size for the effect of 300 cases could come out as 301.
    return max(2, math.ceil((_reach(sd, alpha, power) / effect) ** 2 * (1 - SAME)))


def _reach(sd: float, alpha: float, power: float) -> float:
    """The effect that one single difference would show."""
    if not (sd >= 0 and math.isfinite(sd)):
        raise ConfigError("must be a number, 0 or more", field="sd", value=sd, fix="give a standard deviation")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise ConfigError("must be between 0 and 1", field=name, value=value, fix="0.05 and 0.8 are usual")
    return (NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)) * sd


def _check(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ConfigError("must be between 0 and 1", field="confidence", value=confidence, fix="0.95 is usual")
    if resamples < 100:
        raise ConfigError("must be at least 100", field="resamples", value=resamples, fix="2000 is usual")


def _check_permutations(permutations: int) -> None:
    if permutations < 1:
        raise ConfigError("must be at least 1", field="permutations", value=permutations, fix="9999 is usual")


def _codes(table: Floats, clusters: ArrayLike | None) -> tuple[Integers, int]:
    """Each row's cluster as a number from 0, and how many there are."""
    if table.ndim != 2:
        fix = "one row a case, one column a measure"
        raise InputError("must have two dimensions", field="values", value=table.shape, fix=fix)
    if np.isinf(table).any():
        raise InputError("must be finite", field="values", value=math.inf, fix="write NaN where a value is not defined")
    if clusters is None:
        return np.arange(len(table)), len(table)
    given = np.asarray(clusters)
    if given.shape != (len(table),):
        fix = f"give one for each of the {len(table)} cases"
        raise InputError("must be one a case", field="clusters", value=given.shape, fix=fix)
    names, codes = np.unique(given, return_inverse=True)
    return codes, len(names)


def _per_cluster(table: Floats, codes: Integers, n_clusters: int) -> tuple[Floats, Floats]:
    """Each cluster's sum of values and number of values, both of the shape (clusters, m)."""
    sums, sizes = (np.zeros((n_clusters, table.shape[1])) for _ in range(2))
    for column, values in enumerate(table.T):
        defined = ~np.isnan(values)
        sums[:, column] = np.bincount(codes[defined], values[defined], minlength=n_clusters)
        sizes[:, column] = np.bincount(codes[defined], minlength=n_clusters)
    return sums, sizes


def _intervals(sums: Floats, sizes: Floats, counts: Floats, confidence: float, resamples: int, seed: int) -> Intervals:
    """Of the ratios of each cluster's sums to its sizes, where it has any value; all of the shape (clusters, m)."""
    total = sizes.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):  # a column without a value has no mean
        mean = np.where(total > 0, sums.sum(axis=0) / total, np.nan)
    low, high, error = (np.full(sums.shape[1], np.nan) for _ in range(3))
    for columns, rows in _alike((counts > 0) & (total > 0)):
        size = sizes[np.ix_(rows, columns)]
        if len(rows) < 2:
            continue
        # If all of a size is one cluster's, leaving that one out leaves nothing.
        columns, size = columns[(size < total[columns]).all(axis=0)], size[:, (size < total[columns]).all(axis=0)]
        deviation = sums[np.ix_(rows, columns)] - mean[columns] * size
        # Leaving out a cluster moves the mean by -deviation / (the size of the rest).
        pull = deviation / (total[columns] - size)
        pull -= pull.mean(axis=0)
        squares = (pull**2).sum(axis=0)
        error[columns] = np.sqrt(squares * (len(rows) - 1) / len(rows))
        scale = np.abs(sums[np.ix_(rows, columns)] / np.where(size > 0, size, 1.0)).max(axis=0)
        varies = error[columns] > SAME * scale
        low[columns] = high[columns] = mean[columns]
        drawn = _resampled(deviation[:, varies], size[:, varies], resamples, seed)
        accelerations = ((pull[:, varies] / np.sqrt(squares[varies])) ** 3).sum(axis=0) / 6
        for place, column in enumerate(columns[varies]):
            ends = _bca_ends(drawn[:, place], float(error[column]), float(accelerations[place]), confidence)
            low[column], high[column] = mean[column] + ends
    return Intervals(mean, low, high, error, counts.sum(axis=0).astype(np.intp), (counts > 0).sum(axis=0))


def _alike(defined: NDArray[np.bool_]) -> Iterator[tuple[Integers, Integers]]:
    """Columns that are defined for the same clusters, with those clusters: the same draws serve them."""
    patterns: dict[bytes, list[int]] = {}
    for column in range(defined.shape[1]):
        patterns.setdefault(defined[:, column].tobytes(), []).append(column)
    for columns in patterns.values():
        yield np.asarray(columns, dtype=np.intp), np.flatnonzero(defined[:, columns[0]])


def drawn_clusters(n_clusters: int, resamples: int, seed: int, *, width: int = 0) -> Iterator[tuple[int, Integers]]:
    """Resamples of clusters, a chunk at a time: the number of the chunk's first one, and how often each cluster was drawn.

    Args:
        n_clusters: How many there are, and how many are drawn.
        resamples: How many in all.
        seed: Of the draws, which are the same in chunks of any size.
        width: How many numbers the caller makes of each resample, if that is more than there are clusters.

    Yields:
        Numbers of draws, shape (chunk, clusters).
    """
    generator = np.random.default_rng(seed)
    for start, stop in _chunks(resamples, max(n_clusters, width)):
        rows = stop - start
        drawn = generator.integers(0, n_clusters, size=(rows, n_clusters))
        drawn += n_clusters * np.arange(rows)[:, None]  # so that one count serves all rows
        yield start, np.bincount(drawn.ravel(), minlength=rows * n_clusters).reshape(rows, n_clusters)


def _resampled(deviation: Floats, size: Floats, resamples: int, seed: int) -> Floats:
    """How far the means of resamples are from the sample's, shape (resamples, columns).

    A resample is how often each cluster was drawn; the sums over a chunk of resamples are then one matrix product.
    """
    n_clusters, n_columns = deviation.shape
    result = np.empty((resamples, n_columns))
    if not n_columns:
        return result
    both = np.hstack([deviation, size])
    for start, times in drawn_clusters(n_clusters, resamples, seed):
        sums = times.astype(np.float64) @ both
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may have nothing to divide by
            result[start : start + len(times)] = sums[:, :n_columns] / sums[:, n_columns:]
    result[:, ~np.isfinite(result).all(axis=0)] = np.nan
    return result


def _bca_ends(drawn: Floats, error: float, acceleration: float, confidence: float) -> Floats:
    """The interval's ends, as distances from the mean."""
    # Equal means come about often where values are few (hit or miss); rounding must not decide on which side they fall.
    near = 1e-9 * error
    below = float((drawn < -near).mean() + (drawn <= near).mean()) / 2
    normal = NormalDist()
    half = 0.5 / len(drawn)  # all on one side says no more than "fewer than one in so many"
    bias = normal.inv_cdf(min(max(below, half), 1 - half))
    tail = (1 - confidence) / 2
    levels = []
    for z in (normal.inv_cdf(tail), normal.inv_cdf(1 - tail)):
        shift = bias + z
        stretch = 1 - acceleration * shift
        # A stretch of 0 or less is beyond the method's range: the level has then gone all the way.
        levels.append(normal.cdf(bias + shift / stretch) if stretch > 0 else float(shift > 0))
    return np.quantile(drawn, levels)


def _sign_flip_p(sums: Floats, permutations: int, seed: int) -> Floats:
    """Two-sided p values, one a column, from each cluster's sum of differences, shape (clusters, m)."""
    total = sums.sum(axis=0)
    # At least this far from 0 is as far as what was seen; rounding does not make a sum come nearer.
    bound = np.abs(total) - SAME * np.abs(sums).sum(axis=0)
    ps = np.ones(sums.shape[1])
    drawn = []
    for column in range(sums.shape[1]):
        moved = sums[sums[:, column] != 0, column]
        if len(moved) < 63 and 2 ** len(moved) <= permutations + 1:
            ways = np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved)) & 1
            ps[column] = (np.abs((1 - 2 * ways) @ moved) >= bound[column]).mean()
        else:
            drawn.append(column)
    if drawn:
        some, whole, least = sums[:, drawn], total[drawn], bound[drawn]
        generator = np.random.default_rng(seed)
        count = np.zeros(len(drawn))
        for start, stop in _chunks(permutations, len(sums)):
            octets = generator.integers(0, 256, size=(stop - start, -(-len(sums) // 8)), dtype=np.uint8)
            flipped = np.unpackbits(octets, axis=1, count=len(sums)).astype(np.float64)
            count += (np.abs(whole - 2 * (flipped @ some)) >= least).sum(axis=0)
        ps[drawn] = (count + 1) / (permutations + 1)
    return ps


def _chunks(total: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows from start to stop, so many at a time as CHUNK allows for this width."""
    step = max(1, CHUNK // max(1, width))
    for start in range(0, total, step):
        yield start, min(start + step, total)
