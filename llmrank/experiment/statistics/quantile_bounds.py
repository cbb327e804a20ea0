"""Values that users have come with go in, in any order; one-sided bounds of a quantile come out that hold at all looks.

Whether a value lies below a quantile is a toss of a coin whose chance is known, so how many do bounds the quantile by one of
the values themselves: no density, no normal approximation, nothing else assumed than that users are drawn alike (Howard and
Ramdas 2022, "Sequential estimation of quantiles with applications to A/B testing and best-arm identification", Bernoulli 28;
the mixture here is a beta-binomial one, cut to one side).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures.statistics import Floats
from llmrank.experiment.statistics.needed import scipy_module


def quantile_bounds(
    values: ArrayLike, weights: ArrayLike, share: float, *, alpha: float, expected_n: int
) -> tuple[float, float]:
    """The lower and the upper bound of a quantile, each at the level alpha, whenever it is looked at. Of this moment alone.

    Args:
        values: Shape (n,).
        weights: Shape (n,): 1 / k for each of k values of one user, so that a user counts once: what is bounded is then the
            quantile of a value of a user who is drawn at random.
        share: The part of the values that lies below the quantile: 0.95.
        alpha: The chance that a bound ever fails.
        expected_n: At how many users the bounds are to be nearest; fixed beforehand.

    Returns:
        The bounds; infinite where there are too few users to tell.

    Raises:
        ConfigError: a number is out of range.
        InputError: the shapes do not fit.
        SetupError: scipy is not installed.
    """
    if not 0 < share < 1:
        raise ConfigError("must be between 0 and 1", field="share", value=share, fix="0.95 of the values lie below p95")
    given, heavy = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if given.ndim != 1 or heavy.shape != given.shape:
        raise InputError("must be one a value", field="weights", value=heavy.shape, fix=f"there are {given.shape} values")
    if not len(given):
        return -math.inf, math.inf
    order = np.argsort(given, kind="stable")
    ordered, reached = given[order], np.cumsum(heavy[order])
    users = float(reached[-1])
    at_most = reached[np.searchsorted(ordered, ordered, side="right") - 1]  # how many users have this value or less
    first = np.searchsorted(ordered, ordered, side="left")
    at_least = users - np.where(first > 0, reached[np.maximum(first - 1, 0)], 0.0)
    needed = -math.log(alpha)
    above = ordered[_evidence(at_most, users, share, alpha, expected_n) >= needed]
    below = ordered[_evidence(at_least, users, 1 - share, alpha, expected_n) >= needed]
    return float(below.max()) if len(below) else -math.inf, float(above.min()) if len(above) else math.inf


def _evidence(hits: Floats, of: float, chance: float, alpha: float, expected_n: int) -> Floats:
    """The logarithm of the mixture's capital against "a hit has this chance or less", after so many hits.

    The mixture is over larger chances: a beta distribution around `chance`, cut off there, as wide as the chance is known after
    `expected_n` users. Each of its parts is a likelihood ratio, whose mean is 1 at most where the chance is no larger; it is
    convex in a hit, so a part of a hit (one of several values of a user) gains no more.
    """
    special = scipy_module("scipy.special")
    reach = -2 * math.log(alpha)
    strength = expected_n / (reach + math.log(reach + 1))
    a, b = chance * strength, (1 - chance) * strength
    misses = np.maximum(of - hits, 0.0)
    with np.errstate(divide="ignore"):  # hardly any hits: no evidence at all
        cut = np.log(special.betainc(b + misses, a + hits, 1 - chance))
    prior = special.betaln(a, b) + math.log(special.betainc(b, a, 1 - chance))
    found: Floats = special.betaln(a + hits, b + misses) + cut - prior - hits * math.log(chance) - misses * math.log1p(-chance)
    return found
