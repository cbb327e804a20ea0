"""How many users each variant got and should have got go in; the p value of the check comes out.

Where users are missing from one variant more than from another, those who are left differ, and no difference between the
variants can be believed (Fabijan et al. 2019, "Diagnosing sample ratio mismatch in online controlled experiments").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from llmrank.errors import InputError
from llmrank.experiment.statistics.needed import scipy_module

SAMPLE_RATIO_ALARM: Final = 0.001
"""Below this p value an experiment is not to be read: small, for the check is made of every experiment and more than once."""


def sample_ratio_mismatch(counts: Sequence[int], weights: Sequence[float]) -> float:
    """The p value of Pearson's chi-square test of the users counted against the weights (``scipy.special.chdtrc``).

    It is an approximation that needs some five expected users in each variant; with fewer it alarms a little too often.

    Args:
        counts: Users (not exposures: those of one user are not independent) of each variant.
        weights: Of the assignment, in the same order; any scale.

    Returns:
        The p value: to be held against `SAMPLE_RATIO_ALARM`. 0 if a variant of weight 0 has any user; NaN without a user, or
        with fewer than two variants that have a weight.

    Raises:
        InputError: the lengths differ, a count is negative, or a weight is negative or not finite.
        SetupError: scipy is not installed.
    """
    if len(counts) != len(weights):
        raise InputError("must have one a count", field="weights", value=len(weights), fix=f"there are {len(counts)} counts")
    for count in counts:
        if not (count >= 0 and math.isfinite(count)):
            raise InputError("must be 0 or more", field="counts", value=count, fix="count the users of each variant")
    for weight in weights:
        if not (weight >= 0 and math.isfinite(weight)):
            raise InputError("must be 0 or more", field="weights", value=weight, fix="give the weights of the assignment")
    if any(count for count, weight in zip(counts, weights, strict=True) if not weight):
        return 0.0
    users, total = sum(counts), sum(weights)
    possible = [(count, users * weight / total) for count, weight in zip(counts, weights, strict=True) if weight]
    if not users or len(possible) < 2:
        return math.nan
    square = sum((count - expected) ** 2 / expected for count, expected in possible)
    return float(scipy_module("scipy.special").chdtrc(len(possible) - 1, square))
