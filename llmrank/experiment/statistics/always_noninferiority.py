"""What a variant and its control have of what must not become worse goes in; whether it is kept comes out, valid at all looks.

`noninferiority` judges a sample whose size was fixed. An experiment that stops when its numbers look good is no such sample: a
bound that holds once, taken where luck chose, fails more often than it says. The bounds here hold at all times at once, so the
chance that a guardrail is ever said to be kept, where the variant is worse by the margin or more, is alpha at most:

- means of values with bounds: bets (`betting`), exact for every number of users;
- other means: the normal mixture (`asymptotic`), which says nothing before 100 users;
- percentiles: order statistics (`quantile_bounds`), exact, and wide, for pairs are of no use there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures.statistics import Floats
from llmrank.experiment.statistics.asymptotic import LEAST, one_sided_reach
from llmrank.experiment.statistics.betting import bounded_capitals
from llmrank.experiment.statistics.noninferiority import NonInferiority, Worse, check_options, judged, pairs_of, share_of
from llmrank.experiment.statistics.quantile_bounds import quantile_bounds

STAKE = 0.9
"""The part of what can be lost that is staked at most: failures are rare, and who bets carefully never shows that they are."""

WIDEST = 9.0
"""How many parts of the control's mean the variant's may lie above it at most, for a bound to be told."""

POINTS, ROUNDS = 40, 3
"""Into how many parts the way to a bound is cut, and how often the part where it lies: of a difference, to 1/32,000."""


def always_non_inferiority(
    value: ArrayLike,
    control: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    margin: float,
    relative: bool = False,
    worse: Worse = "higher",
    statistic: str = "mean",
    bounded: bool = False,
    alpha: float = 0.05,
    expected_n: int,
) -> NonInferiority:
    """Judges pairs, at any number of users. A user counts once, with the mean over the own pairs.

    Args:
        value: Shape (n,): the variant's; a case where either is NaN is left out.
        control: The control's, of the same cases.
        clusters: Whose case each is, as numbers that rise in the order in which users came; None for a user each.
        margin, relative, worse: As for `non_inferiority`.
        statistic: ``mean``, or a percentile such as ``p95``.
        bounded: Whether all values lie from 0 to 1 (rates, NDCG).
        alpha: The chance that each of the bounds ever fails.
        expected_n: At about how many users it will be decided; fixed beforehand. A wrong guess costs width, never validity.

    Returns:
        Its bounds are NaN where there are too few users to tell; its `method` is ``bets``, ``mixture`` or ``order``.

    Raises:
        ConfigError: an option is out of range.
        InputError: the shapes do not fit, or a value is infinite or, if `bounded`, outside of the bounds.
    """
    check_options(margin, worse, alpha)
    if expected_n < 1:
        raise ConfigError("must be at least 1", field="expected_n", value=expected_n, fix="about how many until it is decided")
    ours, theirs, codes = pairs_of(value, control, clusters)
    users = int(codes.max()) + 1 if len(codes) else 0
    size = np.bincount(codes, minlength=users)
    if statistic != "mean":
        share = share_of(statistic)
        value_at, control_at, apart, low, high = _quantiles(ours, theirs, 1 / size[codes], share, relative, alpha, expected_n)
        found = value_at, control_at, apart, _known(low), _known(high)
        return judged(found, margin, worse, len(ours), users, "order")
    ours, theirs = (np.bincount(codes, each, minlength=users) / size for each in (ours, theirs))
    if relative and (theirs < 0).any():
        fix = "a part of something below 0 says nothing; give an absolute margin"
        raise InputError("must be 0 or more for a relative margin", field="control", value=float(theirs.min()), fix=fix)
    for name, each in (("value", ours), ("control", theirs)):
        if bounded and ((each < 0) | (each > 1)).any():
            fix = "a bet knows what can be lost; leave `bounded` out for values without bounds"
            raise InputError("must be from 0 to 1", field=name, value=float(each[(each < 0) | (each > 1)][0]), fix=fix)
    at = margin if worse == "higher" else -margin
    low, high = (_bets if bounded else _mixture)(ours, theirs, relative, at, alpha, expected_n)
    value_mean, control_mean = (float(each.mean()) if users else math.nan for each in (ours, theirs))
    difference = value_mean - control_mean
    if relative:
        difference = value_mean / control_mean - 1 if control_mean else 0.0 if low == high == 0.0 else math.nan
    found = value_mean, control_mean, difference, _known(low), _known(high)
    return judged(found, margin, worse, len(codes), users, "bets" if bounded else "mixture")


def _known(bound: float) -> float:
    return bound if math.isfinite(bound) else math.nan


def _bets(ours: Floats, theirs: Floats, relative: bool, at: float, alpha: float, expected_n: int) -> tuple[float, float]:
    """Bounds of the difference of two means of values from 0 to 1, or of their ratio less 1."""
    if not len(ours):
        return -math.inf, math.inf

    def ruled_out(bounds: Floats) -> tuple[np.ndarray, np.ndarray]:
        """Whether those who bet that the true difference is above each of these ever had 1 / alpha, and those for below."""
        # Difference or ratio are what they are where the mean of this is 0.
        times = (1 + bounds if relative else np.ones_like(bounds))[:, None]
        shift = 0.0 if relative else bounds[:, None]
        scaled = (ours - times * theirs + times) / (1 + times)
        null = ((times + shift) / (1 + times))[:, 0]
        up, down = bounded_capitals(
            scaled.clip(0.0, 1.0), 0.0, 1.0, confidence=1 - 2 * alpha, null=null.clip(0.0, 1.0), most=STAKE
        )
        return up[:, -1] >= -math.log(alpha), down[:, -1] >= -math.log(alpha)

    least, most, middle = -1.0, 1.0, float(ours.mean() - theirs.mean())
    if relative:
        if not theirs.any():
            return -math.inf, math.inf
        most, middle = WIDEST, min(float(ours.mean() / theirs.mean()) - 1, WIDEST)
    low = _edge(lambda bounds: ruled_out(bounds)[0], middle, least, least)
    high = _edge(lambda bounds: ruled_out(bounds)[1], middle, most, math.inf if relative else most)
    # The bets hang on the bound that is asked about, so that between two that are ruled out one may not be. What decides is the
    # margin itself: it lies outside if, and only if, it is ruled out.
    (above,), (below,) = ruled_out(np.array([min(max(at, least), most)]))
    low = max(low, math.nextafter(at, math.inf)) if above else min(low, at)
    high = min(high, math.nextafter(at, -math.inf)) if below else max(high, at)
    return low, high


def _edge(ruled_out: Callable[[Floats], np.ndarray], inside: float, outside: float, otherwise: float) -> float:
    """The first bound on the way from the estimate that is ruled out, rounded outwards."""
    for _ in range(ROUNDS):
        bounds = np.linspace(inside, outside, POINTS + 1)[1:]
        found = ruled_out(bounds)
        if not found.any():
            return otherwise
        first = int(found.argmax())
        inside, outside = float(bounds[first - 1]) if first else inside, float(bounds[first])
    return outside


def _mixture(ours: Floats, theirs: Floats, relative: bool, at: float, alpha: float, expected_n: int) -> tuple[float, float]:
    """Bounds of the difference of two means, or of their ratio less 1 (Fieller's). Of this moment alone: one that came by few
    users who happened to be alike does not stay.
    """
    n = len(ours)
    if n < LEAST:
        return -math.inf, math.inf
    squared = float(one_sided_reach(n, alpha=alpha, expected_n=expected_n)) ** 2 / n
    if not relative:
        gaps = ours - theirs
        reach = math.sqrt(squared * float(gaps.var(ddof=1)))
        return float(gaps.mean()) - reach, float(gaps.mean()) + reach
    y, x = float(ours.mean()), float(theirs.mean())
    if not ours.any() and not theirs.any():
        return 0.0, 0.0  # nothing became nothing
    (yy, xy), (_, xx) = np.cov(ours, theirs).tolist()
    # The ratios r at which the mean of y - r x may be 0: |mean| <= reach * error, a quadratic inequality in r.
    a, b, c = x * x - squared * xx, x * y - squared * xy, y * y - squared * yy
    if a <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(b * b - a * c, 0.0))
    return (b - root) / a - 1, (b + root) / a - 1


def _quantiles(
    ours: Floats, theirs: Floats, weights: Floats, share: float, relative: bool, alpha: float, expected_n: int
) -> tuple[float, float, float, float, float]:
    """Values, difference and bounds: each bound is made of one of either, which fail with half of alpha each."""
    if not len(ours):
        return math.nan, math.nan, math.nan, -math.inf, math.inf
    value, control = (float(np.quantile(each, share)) for each in (ours, theirs))
    if relative and not ours.any() and not theirs.any():
        return value, control, 0.0, 0.0, 0.0  # nothing became nothing
    (low, high), (their_low, their_high) = (
        quantile_bounds(each, weights, share, alpha=alpha / 2, expected_n=expected_n) for each in (ours, theirs)
    )
    between: Callable[[float, float], float] = (
        (lambda one, other: one / other - 1) if relative else (lambda one, other: one - other)
    )
    if not relative:
        return value, control, value - control, between(low, their_high), between(high, their_low)
    difference = between(value, control) if control > 0 else math.nan
    return (
        value,
        control,
        difference,
        between(max(low, 0.0), their_high) if their_high > 0 else -math.inf,
        between(high, their_low) if their_low > 0 else math.inf,
    )
