"""One part's scores of a list of candidates go in, the features that a learned fusion sees of them come out."""

from __future__ import annotations

from collections.abc import Sequence

from llmrank.fusion.normalise import reciprocal_ranks, z_scores

FEATURES = ("raw", "z", "reciprocal_rank")
"""The score as the part gives it; with mean 0 and deviation 1 over the list; 1 / rank, with equal scores sharing the mean rank.

The first knows how sure a part is (a neighbour that twenty users share scores higher than the best of a list of strangers),
the second does not depend on scales, the third singles out the first places.
"""


def features(values: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
    """The columns `FEATURES`, each with one number a candidate.

    Raises:
        ValueError: a score is infinite or not a number.
    """
    return [float(value) for value in values], z_scores(values), reciprocal_ranks(values, 0)
