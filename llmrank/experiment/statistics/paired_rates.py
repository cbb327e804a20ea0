"""Hits and misses of the same cases under two conditions go in; the interval of the difference of the two rates comes out.

A bootstrap of two columns of zeros has a width of 0, as if no failure could ever come. The score interval for paired rates
(Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design") keeps a
width there, about z^2 / n: as Wilson's does for one rate, it asks which true differences would make what was seen a surprise.
It takes from the pairing what Newcombe's interval for independent rates (`measures.proportions.rate_difference`) cannot: cases
that fail under both conditions cancel.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from llmrank.evaluation.measures.statistics import Floats, Integers
from llmrank.experiment.statistics.boundary import boundary

PSEUDO = 3.0
"""So many clusters whose cases all go together are added, when it is estimated how much those of a cluster do."""


def score_interval(wins: float, losses: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Tango's interval of the difference of two paired rates.

    Args:
        wins: How many cases are hits under the first condition only.
        losses: Under the second only.
        n: How many cases there are. None of the three need be whole (see `effective`).
        confidence: Of the interval.

    Returns:
        Its ends, from -1 to 1.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = (wins - losses) / n
    low = boundary(lambda delta: score(wins, losses, n, delta) > z, -1.0, rate)
    high = boundary(lambda delta: score(wins, losses, n, delta) >= -z, rate, 1.0)
    return low, high


def score(wins: float, losses: float, n: float, delta: float) -> float:
    """How many standard errors, under a true difference of `delta`, the difference seen lies above it."""
    away = wins - losses - n * delta
    # The rate of losses that is most likely if delta is true: the root of a quadratic.
    half = (2 * n - wins + losses) * delta - wins - losses
    root = math.sqrt(max(0.0, half * half + 8 * n * losses * delta * (1 - delta)))
    likely = max((root - half) / (4 * n), 0.0, -delta)
    variance = n * (2 * likely + delta * (1 - delta))
    if variance <= 0:
        return math.copysign(math.inf, away) if away else 0.0
    return away / math.sqrt(variance)


def effective(gaps: Floats, codes: Integers) -> float:
    """How many independent pairs the pairs of these clusters are worth: n divided by the design effect (Kish 1965).

    The design effect is the variance of the mean difference by clusters over that by cases, as Obuchowski (1998, "On the
    comparison of correlated proportions for clustered data") has it. Where few clusters have any difference it cannot be
    estimated; so `PSEUDO` more are reckoned with, whose cases all go together.

    Args:
        gaps: Shape (n,): 1, 0 or -1 for each pair.
        codes: Shape (n,): the cluster of each, from 0.

    Returns:
        From about the number of clusters to n.
    """
    n, sizes = len(gaps), np.bincount(codes).astype(np.float64)
    most = float((sizes**2).sum()) / n
    mean = float(gaps.mean())
    sums = np.bincount(codes, gaps)
    differing = int(np.bincount(codes, gaps != 0).astype(bool).sum())
    plain = float(((gaps - mean) ** 2).sum())
    seen = float(((sums - mean * sizes) ** 2).sum()) / plain if plain > 0 else 1.0
    return n / max(1.0, min(most, (differing * seen + PSEUDO * most) / (differing + PSEUDO)))
