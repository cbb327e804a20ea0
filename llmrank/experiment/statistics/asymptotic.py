"""Observations without bounds go in, in order; intervals of their mean, or of a difference, that hold at all times come out.

As `betting` does for bounded observations, but for revenue, times, counts and whatever else has a variance and no bounds. What
is paid for that: the guarantee is one of the limit, as with a t-test, so the sequences say nothing before `least` observations
(Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences",
Annals of Statistics 2024: the normal mixture, equation 3, and its tuning for one time). Where there are bounds and few
observations, take `betting.BoundedSequence`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures.statistics import Floats

LEAST = 100
"""How many observations (of a difference: in either group) there must be before anything is said."""


def asymptotic_interval(
    estimate: ArrayLike,
    error: ArrayLike,
    n: ArrayLike,
    *,
    expected_n: int,
    confidence: float = 0.95,
    null: float | ArrayLike = 0.0,
) -> tuple[Floats, Floats, Floats]:
    """The always-valid interval and p value around any estimate that is a mean in the limit: a difference of two groups' means,
    of ratios (by the delta method), with or without CUPED. Of this moment alone: no running intersection, no running minimum.

    Args:
        estimate: One or more.
        error: Its standard error, as for an interval of a fixed sample.
        n: How many observations it is from; of two groups, of both together, which must grow at a steady proportion.
        expected_n: At how many the interval is to be narrowest, compared with others that are as valid: about where the
            decision is expected. It must be fixed beforehand; a wrong guess costs width, never validity.
        confidence: The chance that the interval holds the mean at all times.
        null: What the p value speaks of.

    Returns:
        Lower ends, upper ends and p values. Without a standard error above 0 nothing is said: infinite ends and p 1.

    Raises:
        ConfigError: `confidence` or `expected_n` is out of range.
    """
    rho_squared = _rho_squared(confidence, expected_n)
    middle, spread, count, about = (np.asarray(each, dtype=np.float64) for each in (estimate, error, n, null))
    known = np.isfinite(middle) & np.isfinite(spread) & (spread > 0)
    share = np.maximum(count, 1.0) * rho_squared
    reach = np.where(known, spread, 0.0) * np.sqrt((1 + 1 / share) * (np.log1p(share) - 2 * math.log(1 - confidence)))
    reach = np.where(known, reach, np.inf)
    z = np.where(known, middle - about, 0.0) / np.where(known, spread, 1.0)
    log_p = (np.log1p(share) - z * z * share / (1 + share)) / 2
    middle = np.where(np.isfinite(middle), middle, 0.0)
    return middle - reach, middle + reach, np.where(known, np.exp(np.minimum(log_p, 0.0)), 1.0)


def one_sided_reach(n: ArrayLike, *, alpha: float, expected_n: int) -> Floats:
    """How many standard errors a one-sided bound lies from an estimate, so that it holds at all times at the level alpha.

    The paper's one-sided mixture (its proposition B.1), a little outside of the interval with the confidence 1 - 2 alpha.

    Args:
        n: How many observations there are; one or more.
        alpha: The chance, in the limit, that the bound ever fails.
        expected_n: As for `asymptotic_interval`.

    Raises:
        ConfigError: `alpha` or `expected_n` is out of range.
    """
    share = np.maximum(np.asarray(n, dtype=np.float64), 1.0) * _rho_squared(1 - 2 * alpha, expected_n)
    reach: Floats = np.sqrt(2 * (1 + 1 / share) * np.log1p(np.sqrt(1 + share) / (2 * alpha)))
    return reach


class _Looks:
    """What all looks so far have left: the running intersection and the running minimum of p."""

    def __init__(self, *, confidence: float, expected_n: int, null: float, running: bool, least: int) -> None:
        _rho_squared(confidence, expected_n)
        if least < 2:
            raise ConfigError("must be at least 2", field="least", value=least, fix=f"{LEAST} is usual")
        self._confidence, self._expected, self._null = confidence, expected_n, null
        self._running, self._least = running, least
        self._low, self._high, self._p = -math.inf, math.inf, 1.0

    @property
    def low(self) -> float:
        """The interval's lower end; infinite while nothing is said."""
        return self._low

    @property
    def high(self) -> float:
        """Its upper end."""
        return self._high

    @property
    def p(self) -> float:
        """The always-valid p value of `null`: with the chance alpha at most is it ever as small as alpha. Never rising."""
        return self._p

    def _look(self, estimates: Floats, errors: Floats, counts: Floats) -> None:
        """Takes one or more looks, in order."""
        lows, highs, ps = asymptotic_interval(
            estimates, errors, counts, expected_n=self._expected, confidence=self._confidence, null=self._null
        )
        self._p = min(self._p, float(ps.min()))
        if not self._running:
            self._low, self._high = float(lows[-1]), float(highs[-1])
            return
        low, high = max(self._low, float(lows.max())), min(self._high, float(highs.min()))
        if low <= high:  # else nothing is left, as the mean changed or by bad luck: the last interval stays
            self._low, self._high = low, high


class AsymptoticSequence(_Looks):
    """A confidence sequence of the mean of observations without bounds, and always-valid p values.

    Give observations in the order in which they were made, each user once.

    Args:
        confidence: The chance, in the limit, that the interval holds the mean at all times.
        expected_n: About how many observations there will be when it is decided; see `asymptotic_interval`.
        null: The mean that p values speak of.
        running: The interval is that of now cut with those of all observations before: just as valid, never wider again.
            False: of now alone. p values are the running minimum either way.
        least: How many observations there must be before anything is said.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self, *, expected_n: int, confidence: float = 0.95, null: float = 0.0, running: bool = True, least: int = LEAST
    ) -> None:
        super().__init__(confidence=confidence, expected_n=expected_n, null=null, running=running, least=least)
        self._moments = _Moments()

    @property
    def n(self) -> int:
        """How many observations there are."""
        return self._moments.n

    @property
    def mean(self) -> float:
        """Of the observations; NaN without one."""
        return self._moments.mean

    def extend(self, values: ArrayLike) -> None:
        """Takes more observations, in order; there is a look after each, so a call for each or one for all is the same.

        Args:
            values: Shape (n,).

        Raises:
            InputError: a value is not finite, or they have more than one dimension.
        """
        means, variances, counts = self._moments.extend(_stream("values", values))
        said = counts >= self._least
        if said.any():
            self._look(means[said], np.sqrt(variances[said] / counts[said]), counts[said])


class AsymptoticDifference(_Looks):
    """A confidence sequence of the difference of the means of two groups that grow, such as those of an online test.

    The groups are of different users, and must grow at a steady proportion, as those of a sticky random assignment do; then the
    difference, times the inverse of its variance, moves as a mean does, and the sequence above serves. There is one look at the
    end of each call, for in which order the groups' users came within it is not known.

    Args:
        expected_n: About how many observations of both groups together there will be when it is decided.
        confidence, null, running, least: As for `AsymptoticSequence`; `least` in either group.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(
        self, *, expected_n: int, confidence: float = 0.95, null: float = 0.0, running: bool = True, least: int = LEAST
    ) -> None:
        super().__init__(confidence=confidence, expected_n=expected_n, null=null, running=running, least=least)
        self._groups = (_Moments(), _Moments())

    @property
    def n(self) -> tuple[int, int]:
        """How many observations there are of the variant and of the control."""
        value, control = self._groups
        return value.n, control.n

    @property
    def mean(self) -> float:
        """The variant's mean less the control's; NaN while either has none."""
        value, control = self._groups
        return value.mean - control.mean

    def extend(self, value: ArrayLike = (), control: ArrayLike = ()) -> None:
        """Takes more observations of either group, and looks once.

        Args:
            value: Shape (n,): of the variant's users.
            control: Shape (m,): of the control's.

        Raises:
            InputError: a value is not finite, or they have more than one dimension.
        """
        added = _stream("value", value), _stream("control", control)
        for moments, values in zip(self._groups, added, strict=True):
            moments.extend(values)
        if min(self.n) >= self._least:
            error = math.sqrt(sum(moments.variance / moments.n for moments in self._groups))
            self._look(np.array([self.mean]), np.array([error]), np.array([float(sum(self.n))]))


def asymptotic_p_values(
    values: ArrayLike,
    control: ArrayLike | None = None,
    *,
    expected_n: int,
    confidence: float = 0.95,
    null: float | ArrayLike = 0.0,
    least: int = LEAST,
) -> Floats:
    """The p values of many sequences at once, after every observation (of two groups: after one more of each).

    With `running`, an interval leaves out `null` from the moment on at which p is 1 - confidence or less.

    Args:
        values: Shape (streams, n), in order.
        control: The same of a second group, for `AsymptoticDifference`; None for `AsymptoticSequence`.
        expected_n, confidence, least: As there.
        null: One, or one a stream.

    Returns:
        Shape (streams, n); never rising.

    Raises:
        ConfigError: an argument is out of range.
    """
    counts = np.arange(1.0, np.shape(values)[1] + 1)
    means, variances = _running_moments(np.asarray(values, dtype=np.float64))
    groups = 1
    if control is not None:
        others, their_variances = _running_moments(np.asarray(control, dtype=np.float64))
        means, variances, groups = means - others, variances + their_variances, 2
    nulls = np.broadcast_to(np.asarray(null, dtype=np.float64), (len(means),))[:, None]
    errors = np.sqrt(variances / counts)
    _, _, ps = asymptotic_interval(means, errors, groups * counts, expected_n=expected_n, confidence=confidence, null=nulls)
    ps[:, : least - 1] = 1.0
    return np.minimum.accumulate(ps, axis=1)


class _Moments:
    """Mean and variance of what has come so far."""

    def __init__(self) -> None:
        self.n, self.mean, self.variance = 0, math.nan, math.nan
        self._shift, self._sum, self._squares = 0.0, 0.0, 0.0

    def extend(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """Mean, variance and number after each of these."""
        if not len(values):
            return values, values, values
        if not self.n:
            self._shift = float(values[0])  # so that no large mean swallows the variance
        # Sums go on from what was carried, in the same order: the same bits, in however many parts the values come.
        away = values - self._shift
        sums = np.cumsum(np.append(self._sum, away))[1:]
        squares = np.cumsum(np.append(self._squares, away * away))[1:]
        counts = np.arange(self.n + 1.0, self.n + len(values) + 1)
        variances = _variance(sums, squares, counts)
        self._sum, self._squares, self.n = float(sums[-1]), float(squares[-1]), self.n + len(values)
        means = self._shift + sums / counts
        self.mean, self.variance = float(means[-1]), float(variances[-1])
        return means, variances, counts


def _running_moments(values: Floats) -> tuple[Floats, Floats]:
    """Mean and variance of each stream after each observation."""
    shift = values[:, :1]
    away = values - shift
    counts = np.arange(1.0, values.shape[1] + 1)
    sums = np.cumsum(away, axis=1)
    return shift + sums / counts, _variance(sums, np.cumsum(away * away, axis=1), counts)


def _variance(sums: Floats, squares: Floats, counts: Floats) -> Floats:
    """With n - 1; 0 for a single observation. What is no more than rounding is 0."""
    rest = squares - sums * sums / counts
    return np.where(rest > 1e-12 * squares, rest, 0.0) / np.maximum(counts - 1, 1)


def _rho_squared(confidence: float, expected_n: int) -> float:
    """The mixture's parameter that makes the interval narrowest at about `expected_n` (the paper's appendix on tuning)."""
    if not 0 < confidence < 1:
        raise ConfigError("must be between 0 and 1", field="confidence", value=confidence, fix="0.95 is usual")
    if not expected_n >= 1:
        raise ConfigError("must be at least 1", field="expected_n", value=expected_n, fix="about how many until it is decided")
    reach = -2 * math.log(1 - confidence)
    return (reach + math.log(reach + 1)) / expected_n


def _stream(name: str, values: ArrayLike) -> Floats:
    given = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if given.ndim != 1:
        raise InputError("must have one dimension", field=name, value=given.shape, fix="give one stream, in order")
    if not np.isfinite(given).all():
        raise InputError("must be finite", field=name, value=float(given[~np.isfinite(given)][0]), fix="leave such users out")
    return given
