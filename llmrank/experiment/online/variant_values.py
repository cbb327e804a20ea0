"""A tally and the metrics go in; each variant's own value comes out, with how many users and events it is from.

Of two variants the difference decides (`effects`), not whether these intervals overlap: each of them holds for itself alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from llmrank.evaluation.measures.proportions import wilson
from llmrank.experiment.online.columns import Columns, columns_of
from llmrank.experiment.online.effects import EXPECTED
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions
from llmrank.experiment.online.tally import Tally
from llmrank.experiment.statistics.asymptotic import AsymptoticSequence
from llmrank.experiment.statistics.needed import scipy_module


@dataclass(frozen=True, slots=True)
class PlannedValue:
    """A variant's value over its planned users: the metric and its interval of a fixed sample; NaN where there is none."""

    users: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VariantValue:
    """One variant and one metric.

    Attributes:
        metric: Which metric.
        variant: Which variant, the control too.
        users: How many count so far: those with all of their window.
        events: How many outcomes of theirs count, above the line of a ratio.
        value: The metric, not adjusted; NaN where there is none.
        low, high: Its always-valid interval; infinite while nothing is said, and where no part of `alpha` is for looks.
        fixed: Of the planned users; None before they are there.
    """

    metric: MetricOptions
    variant: str
    users: int
    events: int
    value: float
    low: float
    high: float
    fixed: PlannedValue | None = None


def variant_values(tally: Tally, shares: Sequence[float], options: ReadingOptions) -> tuple[VariantValue, ...]:
    """The values of all metrics, the primary one first, and of each those of all variants in the tally's order.

    Always-valid intervals are asymptotic confidence sequences (`statistics.asymptotic`), cut to what a rate can be. Those of
    the planned users are Wilson's for conversions, else Student's; of ratios by the delta method.

    Args:
        tally: Of the log.
        shares: Of the variants, by the assignment's weights, in the order of `tally.variants`.
        options: What it is read for.

    Raises:
        SetupError: scipy is not installed.
    """
    return tuple(found for metric in options.ordered for found in _of(metric, tally, shares, options))


def _of(metric: MetricOptions, tally: Tally, shares: Sequence[float], options: ReadingOptions) -> Iterator[VariantValue]:
    over = tally.over(metric.window_s)
    columns = columns_of(metric, tally)
    events = tally.after(metric.outcomes, metric.window_s, count=True)
    number = np.arange(len(tally.units))
    early, late = options.levels(options.planned)
    for place, (variant, share) in enumerate(zip(tally.variants, shares, strict=True)):
        ours = (tally.places == place) & (number < over)
        mine = columns.of(ours)
        low, high = -math.inf, math.inf
        if early and not math.isnan(mine.value):
            sequence = AsymptoticSequence(expected_n=max(1, round((options.planned or EXPECTED) * share)), confidence=1 - early)
            sequence.extend(mine.each)
            low, high = sequence.low, sequence.high
        if metric.kind == "conversion" and math.isfinite(low):
            low, high = max(0.0, low), min(1.0, high)
        fixed = None
        if options.planned is not None and over >= options.planned:
            fixed = _fixed(metric, columns.of(ours & (number < options.planned)), 1 - late)
        yield VariantValue(metric, variant, int(ours.sum()), int(events[ours].sum()), mine.value, low, high, fixed)


def _fixed(metric: MetricOptions, columns: Columns, confidence: float) -> PlannedValue:
    users, value = len(columns.above), columns.value
    if math.isnan(value) or (users < 2 and metric.kind != "conversion"):
        return PlannedValue(users, value, math.nan, math.nan)
    if metric.kind == "conversion":
        return PlannedValue(users, value, *wilson(float(columns.above.sum()), users, confidence))
    quantile = float(scipy_module("scipy.special").stdtrit(users - 1, 0.5 + confidence / 2))
    reach = quantile * float(columns.each.std(ddof=1)) / math.sqrt(users)
    return PlannedValue(users, value, value - reach, value + reach)
