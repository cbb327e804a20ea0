"""Many p values go in; p values adjusted for their number come out.

Holm's adjustment, for the few comparisons that decide, is `llmrank.evaluation.measures.statistics.holm`; the one here is for
the many that are looked at besides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """P values adjusted so that, of all that stay below the level, no larger part than the level is false on average
    (Benjamini and Hochberg 1995, "Controlling the false discovery rate").

    That holds for independent tests and for tests that go up and down together, such as one measure at several cut-offs
    (Benjamini and Yekutieli 2001).

    Args:
        ps: In any order. NaN stays NaN and does not count.

    Returns:
        The adjusted p values, in the order given.
    """
    adjusted = [math.nan] * len(ps)
    order = sorted((place for place, p in enumerate(ps) if not math.isnan(p)), key=lambda place: ps[place])
    smallest = 1.0
    for rank in range(len(order), 0, -1):
        place = order[rank - 1]
        smallest = min(smallest, ps[place] * len(order) / rank)
        adjusted[place] = smallest
    return adjusted
