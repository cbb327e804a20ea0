"""The scores of one part for one list of candidates go in, the same on a scale that parts share comes out.

None of these looks at more than one list, and all keep the order: a higher score never gets a lower value. Scores that are
all equal say nothing about the order and become zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

RRF_K = 60
"""The constant of reciprocal rank fusion, as in its paper."""


def z_scores(values: Sequence[float]) -> list[float]:
    """The values with mean 0 and standard deviation 1 (of the population).

    Montague and Aslam, "Relevance score normalization for metasearch", CIKM 2001: zero-mean, unit-variance.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    if _say_nothing(values):
        return [0.0] * len(values)
    spread = _spread(values)
    mean = math.fsum(spread) / len(spread)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in spread) / len(spread))
    return [(value - mean) / deviation for value in spread]


def min_max(values: Sequence[float]) -> list[float]:
    """The values from 0 for the lowest to 1 for the highest, in proportion.

    Fox and Shaw, "Combination of multiple searches", TREC-2 1994; Lee, "Analyses of multiple evidence combination", SIGIR 1997.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    return [0.0] * len(values) if _say_nothing(values) else _spread(values)


def ranks(values: Sequence[float]) -> list[float]:
    """The ranks from 1 for the highest; equal values share the mean of theirs, so that none of them gains.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    _refuse_infinite(values)
    order = sorted(range(len(values)), key=lambda place: -values[place])
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            found[place] = (start + 1 + end) / 2
        start = end
    return found


def reciprocal_ranks(values: Sequence[float], k: float = RRF_K) -> list[float]:
    """1 / (k + rank) of each value.

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
    SIGIR 2009.

    Args:
        values: Higher is better.
        k: The larger, the less the first few places weigh.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    return [0.0] * len(values) if _say_nothing(values) else [1 / (k + rank) for rank in ranks(values)]


def _say_nothing(values: Sequence[float]) -> bool:
    _refuse_infinite(values)
    return not values or min(values) == max(values)


def _refuse_infinite(values: Sequence[float]) -> None:
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a score is infinite or not a number")


def _spread(values: Sequence[float]) -> list[float]:
    # By the largest first: differences of very large scores would overflow, and squares of small ones vanish.
    half = max(abs(value) for value in values)
    scaled = [value / half for value in values]
    low, span = min(scaled), max(scaled) - min(scaled)
    return [(value - low) / span for value in scaled]
