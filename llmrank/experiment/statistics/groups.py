"""What the users of two independent groups did goes in; the groups' difference, with its interval and p value, comes out.

This is for online experiments, in which each user belongs to one group. One value a user: users are independent, impressions
are not. All p values are two-sided and of a fixed sample: an experiment that is looked at while it runs takes `error` and `n`
to `sequential.asymptotic_interval`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures.statistics import SAME, Floats
from llmrank.experiment.statistics.boundary import boundary
from llmrank.experiment.statistics.needed import scipy_module


@dataclass(frozen=True, slots=True)
class GroupDifference:
    """What the variant's users have beyond the control's.

    Attributes:
        value, control: The mean, rate or ratio of either group, not adjusted; NaN for a group without a user.
        difference: value - control; where CUPED adjusted the values, of the adjusted ones, which is the better estimate.
        low, high: Its interval's ends; NaN with fewer than two users in either group (of rates: without one).
        error: Its standard error.
        p: Two-sided; NaN where there is no interval, and where the groups' values differ but never vary.
        n_value, n_control: How many users are in either group.
        reduction: The part of the variance that CUPED took away; None if it was not used.
    """

    value: float
    control: float
    difference: float
    low: float
    high: float
    error: float
    p: float
    n_value: int
    n_control: int
    reduction: float | None = None

    @property
    def lift(self) -> float:
        """The difference as a part of the control's value; NaN where that is 0."""
        return self.difference / self.control if self.control else math.nan

    @property
    def n(self) -> int:
        """How many users are in both groups together."""
        return self.n_value + self.n_control


@dataclass(frozen=True, slots=True, eq=False)
class Adjusted:
    """Values of which the part that was known before the experiment has been taken away.

    Attributes:
        value, control: Of the users of either group, in the order given; their difference has the same expectation as before.
        theta: How much of the covariate was taken away.
        reduction: The part of the variance within the groups that is gone: 0.3 saves 30 % of the users.
    """

    value: Floats
    control: Floats
    theta: float
    reduction: float


def mean_difference(
    value: ArrayLike,
    control: ArrayLike,
    *,
    before: tuple[ArrayLike, ArrayLike] | None = None,
    confidence: float = 0.95,
) -> GroupDifference:
    """The difference of two means by Welch's t-test (Welch 1947), with Student's distribution of ``scipy.special.stdtr``.

    Args:
        value: Shape (n,): one a user of the variant's group. Who did nothing counts with 0; NaN is left out.
        control: Shape (m,): of the control's.
        before: A covariate of the users of either group, for `cuped`; None for none.
        confidence: Of the interval.

    Raises:
        ConfigError: `confidence` is out of range.
        InputError: the shapes do not fit, or a value is infinite.
        SetupError: scipy is not installed.
    """
    _check(confidence)
    ours, theirs = _users("value", value), _users("control", control)
    return _welch(ours, theirs, _mean(ours), _mean(theirs), before, confidence)


def ratio_difference(
    value: tuple[ArrayLike, ArrayLike],
    control: tuple[ArrayLike, ArrayLike],
    *,
    before: tuple[ArrayLike, ArrayLike] | None = None,
    confidence: float = 0.95,
) -> GroupDifference:
    """The difference of two ratios of sums over users, such as clicks per impression, by the delta method (Deng, Knoblich and
    Lu 2018, "Applying the delta method in metric analytics").

    Impressions of a user are not independent, so a ratio's error is that over users of (numerator - ratio x denominator) /
    mean denominator: these are compared as in `mean_difference`.

    Args:
        value: Numerators and denominators, each of the shape (n,): the sums of each user of the variant's group.
        control: Of the control's.
        before: A covariate of the users of either group, for `cuped`; None for none.
        confidence: Of the interval.

    Raises:
        ConfigError: `confidence` is out of range.
        InputError: the shapes do not fit, a value is infinite, or a denominator is negative.
        SetupError: scipy is not installed.
    """
    _check(confidence)
    ours, ratio = _linear("value", value)
    theirs, other = _linear("control", control)
    return _welch(ours, theirs, ratio, other, before, confidence)


def conversion_difference(value: tuple[int, int], control: tuple[int, int], *, confidence: float = 0.95) -> GroupDifference:
    """The difference of two rates by score test and score interval (Miettinen and Nurminen 1985, "Comparative analysis of two
    rates"), which agree with each other and keep a width where nobody, or everybody, was converted.

    Args:
        value: Of the variant's users, how many were converted, and how many there are.
        control: Of the control's.
        confidence: Of the interval.

    Raises:
        ConfigError: `confidence` is out of range.
        InputError: more users are converted than there are, or a number is negative.
    """
    _check(confidence)
    for name, (hits, of) in (("value", value), ("control", control)):
        if not 0 <= hits <= of:
            raise InputError("must be from 0 to the number of users", field=name, value=hits, fix=f"there are {of} users")
    (hits, n), (other_hits, m) = value, control
    if not n or not m:
        rates = (hits / n if n else math.nan, other_hits / m if m else math.nan)
        return GroupDifference(*rates, *(math.nan,) * 5, n, m)
    rate, other = hits / n, other_hits / m
    z = -float(scipy_module("scipy.special").ndtri((1 - confidence) / 2))
    low = boundary(lambda delta: _score(value, control, delta) > z, -1.0, rate - other)
    high = boundary(lambda delta: _score(value, control, delta) > -z, rate - other, 1.0)
    p = math.erfc(abs(_score(value, control, 0.0)) / math.sqrt(2))
    error = math.sqrt(rate * (1 - rate) / n + other * (1 - other) / m)
    return GroupDifference(rate, other, rate - other, low, high, error, p, n, m)


def cuped(value: ArrayLike, control: ArrayLike, value_before: ArrayLike, control_before: ArrayLike) -> Adjusted:
    """Takes from each user's value what a covariate from before the experiment foretells (Deng, Xu, Kohavi and Walker 2013,
    "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data"): y - theta (x - mean x).

    One theta serves both groups, from the covariances within them, so that an effect of the variant does not get into it. As
    the assignment is random, the covariate has the same expectation in both groups, and the difference of the adjusted means is
    as unbiased as that of the plain ones. That does not hold for anything that the variant may have changed.

    Args:
        value: Shape (n,): the values of the variant's users.
        control: Shape (m,): of the control's.
        value_before: Shape (n,): their covariate; NaN where there is none, as for new users, whose value is then not adjusted.
        control_before: Shape (m,): of the control's.

    Returns:
        The adjusted values; as they were, with theta 0, where the covariate is known of fewer than three users or never varies.

    Raises:
        InputError: the shapes do not fit, or a number is infinite.
    """
    ys = _users("value", value), _users("control", control)
    xs = _users("value_before", value_before), _users("control_before", control_before)
    for name, y, x in zip(("value_before", "control_before"), ys, xs, strict=True):
        if x.shape != y.shape:
            raise InputError("must have one a user", field=name, value=x.shape, fix=f"there are {len(y)} users")
    known = [~(np.isnan(x) | np.isnan(y)) for x, y in zip(xs, ys, strict=True)]
    inner = [(x[some] - _mean(x[some]), y[some] - _mean(y[some])) for x, y, some in zip(xs, ys, known, strict=True)]
    squares, products = (float(sum((x * other).sum() for x, other in pairs)) for pairs in ([(x, x) for x, _ in inner], inner))
    middle = _mean(np.concatenate([x[some] for x, some in zip(xs, known, strict=True)]))
    largest = max((float(np.abs(x[some]).max()) for x, some in zip(xs, known, strict=True) if some.any()), default=0.0)
    enough = sum(int(some.sum()) for some in known) > 2 and math.sqrt(squares) > SAME * largest
    theta = products / squares if enough else 0.0
    adjusted = [y - theta * np.where(some, x - middle, 0.0) for x, y, some in zip(xs, ys, known, strict=True)]
    was, now = (sum(float(np.nansum((y - _mean(y)) ** 2)) for y in both) for both in (ys, adjusted))
    return Adjusted(adjusted[0], adjusted[1], theta, 1 - now / was if was else 0.0)


def _welch(
    ours: Floats,
    theirs: Floats,
    value: float,
    control: float,
    before: tuple[ArrayLike, ArrayLike] | None,
    confidence: float,
) -> GroupDifference:
    """Welch's test of values, one a user; NaN is left out."""
    reduction = None
    if before is not None:
        adjusted = cuped(ours, theirs, *before)
        ours, theirs, reduction = adjusted.value, adjusted.control, adjusted.reduction
    ours, theirs = (each[~np.isnan(each)] for each in (ours, theirs))
    n, m = len(ours), len(theirs)
    difference = _mean(ours) - _mean(theirs)
    if n < 2 or m < 2:
        return GroupDifference(value, control, difference, *(math.nan,) * 4, n, m, reduction)
    first, second = float(ours.var(ddof=1)) / n, float(theirs.var(ddof=1)) / m
    error = math.sqrt(first + second)
    if error <= SAME * max(float(np.abs(ours).max()), float(np.abs(theirs).max())):  # neither ever varies
        p = 1.0 if abs(difference) <= SAME * abs(value) else math.nan
        return GroupDifference(value, control, difference, difference, difference, 0.0, p, n, m, reduction)
    freedom = (first + second) ** 2 / (first**2 / (n - 1) + second**2 / (m - 1))
    special = scipy_module("scipy.special")
    reach = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * error
    p = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    return GroupDifference(value, control, difference, difference - reach, difference + reach, error, p, n, m, reduction)


def _linear(name: str, sums: tuple[ArrayLike, ArrayLike]) -> tuple[Floats, float]:
    """What each user adds to a ratio: values whose mean is the ratio, and whose mean's error is the ratio's; and the ratio."""
    above, below = _users(name, sums[0]), _users(name, sums[1])
    if above.shape != below.shape:
        fix = f"there are {len(above)} numerators"
        raise InputError("must have a denominator for each numerator", field=name, value=below.shape, fix=fix)
    if (below < 0).any():
        fix = "such as the number of impressions"
        raise InputError("must have denominators of 0 or more", field=name, value=float(np.nanmin(below)), fix=fix)
    missing = np.isnan(above) | np.isnan(below)
    total = float(below[~missing].sum())
    if not total:
        return np.full(len(above), np.nan), math.nan
    ratio = float(above[~missing].sum()) / total
    return np.where(missing, np.nan, ratio + (above - ratio * below) / (total / int((~missing).sum()))), ratio


def _score(value: tuple[int, int], control: tuple[int, int], delta: float) -> float:
    """How many standard errors, under a true difference of `delta`, the difference seen lies above it."""
    (x, n), (y, m) = value, control
    away = x / n - y / m - delta
    total = n + m
    # The control's rate that is most likely if delta is true: the root of a cubic, a t^3 + b t^2 + c t + d = 0.
    b = -(total + x + y - delta * (total + m))
    c = m * delta * delta - delta * (2 * y + total) + x + y
    d = y * delta * (1 - delta)
    rate = _root(float(total), b, c, d, max(0.0, -delta), min(1.0, 1 - delta))
    variance = (rate * (1 - rate) / m + (rate + delta) * (1 - rate - delta) / n) * total / (total - 1)
    if variance <= 1e-15:
        return math.copysign(math.inf, away) if abs(away) > 1e-12 else 0.0
    return away / math.sqrt(variance)


def _root(a: float, b: float, c: float, d: float, low: float, high: float) -> float:
    """Of the cubic's three real roots the middle one, which lies in the range that is possible (Miettinen and Nurminen)."""
    v = (b / (3 * a)) ** 3 - b * c / (6 * a * a) + d / (2 * a)
    u = math.copysign(math.sqrt(max(0.0, (b / (3 * a)) ** 2 - c / (3 * a))), v)
    angle = math.acos(min(1.0, max(-1.0, v / u**3))) if u else 0.0
    return min(max(2 * u * math.cos((math.pi + angle) / 3) - b / (3 * a), low), high)


def _users(name: str, values: ArrayLike) -> Floats:
    """One number a user, or NaN."""
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1:
        raise InputError("must have one dimension", field=name, value=given.shape, fix="give one a user")
    if np.isinf(given).any():
        raise InputError("must be finite", field=name, value=math.inf, fix="write NaN where a value is not defined")
    return given


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _check(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError("must be between 0 and 1", field="confidence", value=confidence, fix="0.95 is usual")
