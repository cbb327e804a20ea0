"""What a variant and its control have of what must not become worse go in; whether it is kept, by a margin, comes out.

"No significant difference" is no proof that nothing became worse: with few users nothing is ever significant. So the question
is turned around: how much worse could it be, given the data? Only if even that lies within the margin is the guardrail kept
(Piaggio et al. 2012, "Reporting of noninferiority and equivalence randomized trials: extension of the CONSORT 2010 statement").
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures.statistics import Floats, Integers, bootstrap_means, bootstrap_ratios, drawn_clusters
from llmrank.experiment.statistics.needed import scipy_module
from llmrank.experiment.statistics.paired_rates import effective, score_interval

Verdict: TypeAlias = Literal["kept", "broken", "unclear"]
Worse: TypeAlias = Literal["higher", "lower"]
Method: TypeAlias = Literal["bootstrap", "score", "jackknife", "bets", "mixture", "order"]
_Found: TypeAlias = tuple[float, float, float, float, float]
"""Value, control, difference and its two bounds."""


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """Whether a variant is worse than its control by less than a margin.

    Differences, bounds and the margin are in the unit of the values, or parts of the control's value if the margin is relative.

    Attributes:
        value, control: What either has: the mean, the rate, the percentile ...
        difference: value - control, or value / control - 1.
        bound: The one-sided bound that decides: how much worse (in the direction of `worse`) it can be at most, at the level
            alpha. `high` if higher is worse, else `low`.
        low, high: Both one-sided bounds, each at the level alpha: an interval with the confidence 1 - 2 alpha.
        margin: How much worse it may be; never negative.
        verdict: ``kept`` (the bound lies inside the margin), ``broken`` (the other bound lies beyond it: it is shown to be
            worse by more than the margin), else ``unclear``: too few users to tell.
        n: How many pairs.
        clusters: How many users have any.
        method: How the bounds came about: ``bootstrap``, ``score`` or ``jackknife`` for a fixed sample; ``bets``, ``mixture``
            or ``order`` (of order statistics) where they hold at all looks (`always_noninferiority`).

    The difference and its bounds are NaN where they cannot be told (fewer than two users, a relative margin of nothing); the
    verdict is then ``unclear``.
    """

    value: float
    control: float
    difference: float
    bound: float
    low: float
    high: float
    margin: float
    verdict: Verdict
    n: int
    clusters: int
    method: Method


def non_inferiority(
    value: ArrayLike,
    control: ArrayLike,
    clusters: ArrayLike | None = None,
    *,
    margin: float,
    relative: bool = False,
    worse: Worse = "higher",
    statistic: str = "mean",
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
) -> NonInferiority:
    """Judges pairs: the same cases by the variant and by the control.

    The statistics, and what the bounds are:

    - ``mean``: a one-sided BCa bootstrap bound by users, of the difference or, for a relative margin, of the ratio of the two
      means (so the control's uncertainty counts, too). Where nothing differs between any two of a pair, it has no width.
    - ``rate``: of failures and the like, values 0 and 1. Tango's score interval for paired rates, which keeps a width where
      nobody failed (`paired_rates`); with several cases a user, for as many pairs as they are worth. Needs an absolute margin.
    - ``p95``, or any other percentile (linear between neighbours): a one-sided percentile bootstrap bound by users. Rough below
      some 20 / (1 - share) cases, that is 400 for ``p95``.

    Args:
        value: Shape (n,): the variant's; a case where either is NaN is left out. Failures are to be counted, never left out.
        control: The control's, of the same cases.
        clusters: Shape (n,): whose case each is; None for each case a user of its own.
        margin: How much worse it may be: absolute, or a part of the control's value.
        relative: Which of the two.
        worse: The direction that is worse.
        statistic: What is compared.
        alpha: The level of the one-sided bounds: the chance of a verdict ``kept`` where it is worse by just the margin.
        resamples: How many are drawn.
        seed: Of the draws.

    Raises:
        ConfigError: an option is out of range, or a rate is given a relative margin.
        InputError: the shapes do not fit, a value is infinite, a rate's value is neither 0 nor 1, or the margin is relative and
            a value of the control is negative.
    """
    check_options(margin, worse, alpha)
    if resamples < 100:
        raise ConfigError("must be at least 100", field="resamples", value=resamples, fix="2000 is usual")
    ours, theirs, codes = pairs_of(value, control, clusters)
    draws = _Draws(1 - 2 * alpha, resamples, seed)
    if statistic == "rate":
        if relative:
            fix = "give an absolute one: a rate may be 0, and then has no parts"
            raise ConfigError("must not be relative for a rate", field="margin", value=margin, fix=fix)
        found = _rates(ours, theirs, codes, 1 - 2 * alpha)
    elif statistic == "mean":
        found = _means(ours, theirs, codes, relative, draws)
    else:
        found = _quantiles(ours, theirs, codes, share_of(statistic), relative, draws)
    of = int(codes.max()) + 1 if len(codes) else 0
    return judged(found, margin, worse, len(ours), of, "score" if statistic == "rate" else "bootstrap")


def coverage_non_inferiority(
    value: Sequence[Collection[str]],
    control: Sequence[Collection[str]],
    clusters: ArrayLike | None = None,
    *,
    catalogue: int,
    margin: float,
    relative: bool = False,
    alpha: float = 0.05,
) -> NonInferiority:
    """Judges catalogue coverage: the share of the catalogue's items that stand in any of the lists. Lower is worse.

    It is no mean over users: what one is shown adds nothing if another is shown it as well, and a resample, which lacks a third
    of the users, covers less whatever they see. So the bounds come from the jackknife: without a user, the coverage falls by
    the items that nobody else was shown (Efron and Stein 1981, "The jackknife estimate of variance": on average not too small).

    Args:
        value: The list shown in each case by the variant: item ids.
        control: By the control, in the same cases.
        clusters: Whose case each is; None for each case a user of its own.
        catalogue: How many items there are.
        margin, relative, alpha: As for `non_inferiority`.

    Raises:
        ConfigError: an option is out of range.
        InputError: the lengths differ.
        SetupError: scipy is not installed.
    """
    check_options(margin, "lower", alpha)
    if catalogue < 1:
        raise ConfigError("must be at least 1", field="catalogue", value=catalogue, fix="count the items")
    if len(value) != len(control):
        raise InputError("must have as many lists as value", field="control", value=len(control), fix="give pairs")
    codes = np.unique(_codes(clusters, len(value)), return_inverse=True)[1]
    users = int(codes.max()) + 1 if len(codes) else 0
    (ours, alone), (theirs, their_alone) = (_covered(lists, codes, users) for lists in (value, control))
    difference, pulls = (ours - theirs) / catalogue, (alone - their_alone) / catalogue
    if relative:
        difference = ours / theirs - 1 if theirs else math.nan
        pulls = alone / ours - their_alone / theirs if ours and theirs else np.full(users, np.nan)
    low = high = math.nan
    if users > 1 and not math.isnan(difference):
        error = math.sqrt((users - 1) / users * float(((pulls - pulls.mean()) ** 2).sum()))
        reach = float(scipy_module("scipy.special").stdtrit(users - 1, 1 - alpha)) * error
        low, high = difference - reach, difference + reach
        if relative and ours:  # the logarithm of a ratio is nearer to normal, and its ends are above -1
            low, high = (math.exp(math.log(ours / theirs) + side * reach) - 1 for side in (-1, 1))
    found = ours / catalogue, theirs / catalogue, difference, low, high
    return judged(found, margin, "lower", len(value), users, "jackknife")


def pairs_of(value: ArrayLike, control: ArrayLike, clusters: ArrayLike | None) -> tuple[Floats, Floats, Integers]:
    """The pairs in which both are defined, and whose each is, numbered from 0 in the order of the clusters' names.

    Raises:
        InputError: the shapes do not fit, or a value is infinite.
    """
    ours, theirs = np.asarray(value, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if ours.ndim != 1 or theirs.shape != ours.shape:
        raise InputError(
            "must have one dimension and the shape of value", field="control", value=theirs.shape, fix="give pairs"
        )
    for name, values in (("value", ours), ("control", theirs)):
        if np.isinf(values).any():
            raise InputError("must be finite", field=name, value=math.inf, fix="write NaN where a value is not defined")
    codes = _codes(clusters, len(ours))
    paired = ~(np.isnan(ours) | np.isnan(theirs))
    return ours[paired], theirs[paired], np.unique(codes[paired], return_inverse=True)[1]


@dataclass(frozen=True, slots=True)
class _Draws:
    confidence: float
    resamples: int
    seed: int


def _means(ours: Floats, theirs: Floats, codes: Integers, relative: bool, draws: _Draws) -> _Found:
    value, control = (float(each.mean()) if len(each) else math.nan for each in (ours, theirs))
    if relative:
        if (theirs < 0).any():
            fix = "a part of something below 0 says nothing; give an absolute margin"
            raise InputError("must be 0 or more for a relative margin", field="control", value=float(theirs.min()), fix=fix)
        if not ours.any() and not theirs.any() and len(ours):
            return value, control, 0.0, 0.0, 0.0  # nothing became nothing
        found = bootstrap_ratios(
            ours[:, None], theirs[:, None], codes, confidence=draws.confidence, resamples=draws.resamples, seed=draws.seed
        )
        return value, control, float(found.mean[0]) - 1, float(found.low[0]) - 1, float(found.high[0]) - 1
    found = bootstrap_means(
        (ours - theirs)[:, None], codes, confidence=draws.confidence, resamples=draws.resamples, seed=draws.seed
    )
    return value, control, float(found.mean[0]), float(found.low[0]), float(found.high[0])


def _rates(ours: Floats, theirs: Floats, codes: Integers, confidence: float) -> _Found:
    for name, values in (("value", ours), ("control", theirs)):
        if len(other := values[(values != 0) & (values != 1)]):
            fix = "a rate is of hits and misses; take the statistic `mean` for anything else"
            raise InputError("must be 0 or 1", field=name, value=float(other[0]), fix=fix)
    if not len(ours):
        return (math.nan,) * 5
    gaps = ours - theirs
    n = effective(gaps, codes)
    part = n / len(gaps)
    low, high = score_interval(part * float((gaps > 0).sum()), part * float((gaps < 0).sum()), n, confidence)
    return float(ours.mean()), float(theirs.mean()), float(gaps.mean()), low, high


def _quantiles(ours: Floats, theirs: Floats, codes: Integers, share: float, relative: bool, draws: _Draws) -> _Found:
    if not len(ours):
        return (math.nan,) * 5
    value, control = (float(np.quantile(each, share)) for each in (ours, theirs))
    if relative and control <= 0:
        return (value, control, *(0.0,) * 3) if not ours.any() and not theirs.any() else (value, control, *(math.nan,) * 3)
    users = int(codes.max()) + 1
    difference = value / control - 1 if relative else value - control
    if users < 2:
        return value, control, difference, math.nan, math.nan
    drawn = np.empty(draws.resamples)
    for start, times in drawn_clusters(users, draws.resamples, draws.seed, width=len(ours)):
        first, second = (_drawn_quantiles(each, codes, times, share) for each in (ours, theirs))
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample's control may be 0 where that of all is not
            drawn[start : start + len(times)] = first / second - 1 if relative else first - second
    tail = (1 - draws.confidence) / 2
    low, high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), [tail, 1 - tail], method="inverted_cdf")
    return value, control, difference, float(low), float(high)


def _drawn_quantiles(values: Floats, codes: Integers, times: Integers, share: float) -> Floats:
    """The quantile of each resample, shape (chunk,): of the values, each as often as its cluster was drawn."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(times[:, codes[order]], axis=1)
    place = (reached[:, -1] - 1) * share
    below = np.floor(place)
    ordered = values[order]
    # The value at a place of the drawn list is the first one by which more than so many have been drawn.
    first, second = (ordered[(reached <= at[:, None]).sum(axis=1)] for at in (below, np.minimum(below + 1, reached[:, -1] - 1)))
    found: Floats = first + (second - first) * (place - below)
    return found


def _covered(lists: Sequence[Collection[str]], codes: Integers, users: int) -> tuple[int, Floats]:
    """How many items stand in any list, and for each user, how many only in that user's."""
    owner: dict[str, int] = {}
    for shown, code in zip(lists, codes.tolist(), strict=True):
        for item in shown:
            if owner.setdefault(item, code) != code:
                owner[item] = -1
    alone = [code for code in owner.values() if code >= 0]
    return len(owner), np.bincount(np.asarray(alone, dtype=np.intp), minlength=users).astype(np.float64)


def judged(
    found: _Found,
    margin: float,
    worse: Worse,
    n: int,
    clusters: int,
    method: Method,
) -> NonInferiority:
    """The verdict on a value, the control's, their difference and its two bounds."""
    value, control, difference, low, high = found
    best, worst = (low, high) if worse == "higher" else (-high, -low)
    verdict: Verdict = "kept" if worst < margin or worst == 0 == margin else "broken" if best > margin else "unclear"
    bound = high if worse == "higher" else low
    return NonInferiority(value, control, difference, bound, low, high, margin, verdict, n, clusters, method)


def _codes(clusters: ArrayLike | None, n: int) -> NDArray[np.generic]:
    if clusters is None:
        return np.arange(n)
    given = np.asarray(clusters)
    if given.shape != (n,):
        raise InputError("must be one a case", field="clusters", value=given.shape, fix=f"give one for each of the {n} cases")
    return given


def share_of(statistic: str) -> float:
    """The part of the values that a percentile leaves below it. Raises ConfigError if it is none."""
    if (found := re.fullmatch(r"p(\d{1,2}(?:\.\d+)?)", statistic)) and 0 < float(found[1]) < 100:
        return float(found[1]) / 100
    raise ConfigError("must be mean, rate or a percentile", field="statistic", value=statistic, fix="such as p95")


def check_options(margin: float, worse: str, alpha: float) -> None:
    """Refuses a margin, a direction or a level that is none. Raises ConfigError."""
    if not (margin >= 0 and math.isfinite(margin)):
        raise ConfigError("must be a number, 0 or more", field="margin", value=margin, fix="how much worse it may be")
    if worse not in ("higher", "lower"):
        raise ConfigError("must be higher or lower", field="worse", value=worse, fix="say which direction is worse")
    if not 0 < alpha < 0.5:
        raise ConfigError("must be between 0 and 0.5", field="alpha", value=alpha, fix="0.05 is usual")
