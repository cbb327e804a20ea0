"""Counts of hits go in; intervals of their rates, and of the difference of two rates, come out. For rates near 0 and 1, too."""

from __future__ import annotations

import math
from statistics import NormalDist


def wilson(hits: float, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a rate (Wilson 1927, "Probable inference, the law of succession, and statistical inference").

    Unlike an interval from resampling it has a width also where nothing, or everything, was hit.

    Args:
        hits: From 0 to `of`; a sum of shares serves too, as none varies more than hits and misses with its mean.
        of: How many were tried, at least 1.
        confidence: Of the interval.

    Returns:
        Its ends, from 0 to 1.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, share = hits / of, z * z / of
    middle = (rate + share / 2) / (1 + share)
    reach = math.sqrt(rate * (1 - rate) * share + share * share / 4) / (1 + share)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def rate_difference(first: tuple[int, int], second: tuple[int, int], confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the first rate less the second (Newcombe 1998, "Interval estimation for the difference between
    independent proportions", method 10).

    Two rates of the same things mostly rise and fall together; then this interval is wider than it need be.

    Args:
        first, second: How many were hit, and how many were tried.
        confidence: Of the interval.

    Returns:
        Its ends, from -1 to 1.
    """
    (low1, high1), (low2, high2) = wilson(*first, confidence), wilson(*second, confidence)
    rate1, rate2 = first[0] / first[1], second[0] / second[1]
    gap = rate1 - rate2
    return gap - math.hypot(rate1 - low1, high2 - rate2), gap + math.hypot(high1 - rate1, rate2 - low2)
