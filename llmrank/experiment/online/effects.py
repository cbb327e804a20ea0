"""A tally and a metric go in; each variant's difference from the control comes out, at any time and at the planned sample.

Two ways to read, which share the level between them (`ReadingOptions.levels`), so that a false finding by either stays below
`alpha`: always-valid intervals, which hold however often one looks, and the tests of a fixed sample, which are made of the
planned number of users, once, and never shown before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llmrank.evaluation.measures.statistics import holm
from llmrank.experiment.online.columns import Columns, columns_of
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions
from llmrank.experiment.online.tally import Tally
from llmrank.experiment.statistics.asymptotic import LEAST, AsymptoticDifference
from llmrank.experiment.statistics.groups import (
    GroupDifference,
    conversion_difference,
    cuped,
    mean_difference,
    ratio_difference,
)
from llmrank.experiment.statistics.multiplicity import benjamini_hochberg

EXPECTED = 10_000
"""Where no number of users is planned: the number at which always-valid intervals are narrowest, compared with others."""

_STEP = 1.02
"""Each look comes when there are so many times the users of the one before: the same looks, however long the log is."""


@dataclass(frozen=True, slots=True)
class AnyTime:
    """What may be read at any time, of all users so far.

    Attributes:
        difference: The variant's mean less the control's, after CUPED where there is a covariate.
        low, high: Its always-valid interval; infinite while there are too few users.
        p: The always-valid p value.
        adjusted: The same, corrected for the number of comparisons.
    """

    difference: float
    low: float
    high: float
    p: float
    adjusted: float = math.nan


@dataclass(frozen=True, slots=True)
class MetricEffect:
    """One variant and one metric.

    Attributes:
        metric: Which metric.
        variant: Which variant.
        users, control_users: How many count so far: of each only with all of its window.
        value, control: The metric of either, not adjusted; NaN where there is none.
        any_time: None if the options leave no part of `alpha` for it.
        fixed: Of the planned users; None before they are there.
        adjusted: The p value of `fixed`, corrected for the number of comparisons; NaN without one.
        reduction: The part of the variance that CUPED takes out; None without a covariate.
    """

    metric: MetricOptions
    variant: str
    users: int
    control_users: int
    value: float
    control: float
    any_time: AnyTime | None
    fixed: GroupDifference | None = None
    adjusted: float = math.nan
    reduction: float | None = None


def metric_effects(tally: Tally, control: str, shares: Sequence[float], options: ReadingOptions) -> tuple[MetricEffect, ...]:
    """The effects in all metrics, the primary one first.

    P values of the primary metric are corrected by Holm's method for the number of variants, those of all others together by
    Benjamini and Hochberg's.

    Args:
        tally: Of the log.
        control: The control's name.
        shares: Of the variants, by the assignment's weights, in the order of `tally.variants`.
        options: What it is read for.

    Raises:
        InputError: a ratio's denominators are negative, or sums are beyond what a number holds.
        SetupError: scipy is not installed.
    """
    found: list[MetricEffect] = []
    for metric in options.ordered:
        effects = [*_of(metric, tally, control, shares, options)]
        found += _adjusted(effects, holm) if metric.name == options.primary else effects
    first = sum(effect.metric.name == options.primary for effect in found)
    return (*found[:first], *_adjusted(found[first:], benjamini_hochberg))


def _of(
    metric: MetricOptions, tally: Tally, control: str, shares: Sequence[float], options: ReadingOptions
) -> Iterator[MetricEffect]:
    over = tally.over(metric.window_s)
    columns = columns_of(metric, tally)
    base = tally.variants.index(control)
    theirs = tally.places == base
    theirs[over:] = False
    planned = np.arange(len(theirs)) < (options.planned or 0)
    reached = options.planned is not None and over >= options.planned
    early, late = options.levels(options.planned)
    for place, variant in enumerate(tally.variants):
        if place == base:
            continue
        ours = tally.places == place
        ours[over:] = False
        value, other = columns.of(ours), columns.of(theirs)
        expected = EXPECTED if options.planned is None else max(1, round(options.planned * (shares[place] + shares[base])))
        any_time, reduction = None, None
        if early:
            any_time, reduction = _any_time(columns, ours, theirs, confidence=1 - early, expected=expected)
        fixed = None
        if reached:
            fixed = _fixed(metric, columns.of(ours & planned), columns.of(theirs & planned), 1 - late)
            reduction = fixed.reduction
        yield MetricEffect(
            metric=metric,
            variant=variant,
            users=int(ours.sum()),
            control_users=int(theirs.sum()),
            value=value.value,
            control=other.value,
            any_time=any_time,
            fixed=fixed,
            reduction=reduction,
        )


def _any_time(
    columns: Columns, ours: NDArray[np.bool_], theirs: NDArray[np.bool_], *, confidence: float, expected: int
) -> tuple[AnyTime, float | None]:
    """The always-valid interval of a pair, whose users come in the order of exposure; and what CUPED takes out."""
    both = ours | theirs
    mine = ours[both]
    values = np.empty(len(mine))
    pair = columns.of(ours), columns.of(theirs)
    if any(math.isnan(each.value) for each in pair):  # nobody yet, or nothing below the line
        return AnyTime(math.nan, -math.inf, math.inf, 1.0), None
    values[mine], values[~mine] = (each.each for each in pair)
    reduction = None
    if pair[0].before is not None and pair[1].before is not None:
        adjusted = cuped(values[mine], values[~mine], pair[0].before, pair[1].before)
        values[mine], values[~mine] = adjusted.value, adjusted.control
        reduction = adjusted.reduction
    sequence = AsymptoticDifference(expected_n=expected, confidence=confidence)
    begin = 0
    for end in _looks(len(values)):
        some, whose = values[begin:end], mine[begin:end]
        sequence.extend(some[whose], some[~whose])
        begin = end
    return AnyTime(sequence.mean, sequence.low, sequence.high, sequence.p), reduction


def _looks(users: int) -> Iterator[int]:
    """After how many users of both there is a look; the last one is now."""
    look = 2 * LEAST
    while look < users:
        yield look
        look = math.ceil(look * _STEP)
    yield users


def _fixed(metric: MetricOptions, value: Columns, control: Columns, confidence: float) -> GroupDifference:
    before = None
    if value.before is not None and control.before is not None:
        before = (value.before, control.before)
    if value.below is not None and control.below is not None:
        return ratio_difference(
            (value.above, value.below), (control.above, control.below), before=before, confidence=confidence
        )
    if metric.kind == "conversion" and before is None:
        hits, others = (int(each.above.sum()) for each in (value, control))
        return conversion_difference((hits, len(value.above)), (others, len(control.above)), confidence=confidence)
    return mean_difference(value.above, control.above, before=before, confidence=confidence)


def _adjusted(effects: Sequence[MetricEffect], correct: Callable[[Sequence[float]], list[float]]) -> list[MetricEffect]:
    early = correct([math.nan if each.any_time is None else each.any_time.p for each in effects])
    late = correct([math.nan if each.fixed is None else each.fixed.p for each in effects])
    return [
        replace(
            effect,
            any_time=None if effect.any_time is None else replace(effect.any_time, adjusted=at_any_time),
            adjusted=at_plan,
        )
        for effect, at_any_time, at_plan in zip(effects, early, late, strict=True)
    ]
