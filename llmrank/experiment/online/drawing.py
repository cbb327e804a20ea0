"""An OnlineReading goes in; its forest plots come out: the split of users, differences, values, preferences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist

from llmrank.evaluation.report.scale import Axis, axis_over
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.effects import MetricEffect
from llmrank.experiment.online.findings import OnlineReading
from llmrank.experiment.online.numbers import (
    delta_interval,
    delta_text,
    interval,
    level,
    points,
    signed,
    value_interval,
    value_text,
)
from llmrank.experiment.online.preferences import Interleaving
from llmrank.experiment.online.reading_options import MetricOptions
from llmrank.experiment.online.variant_values import VariantValue
from llmrank.experiment.report.forest import ENDS, SIDE, SIDES, Forest, Lane, mark, side
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM


def interval_names(reading: OnlineReading, metric: MetricOptions) -> tuple[str, str]:
    """What is drawn of differences, and what of values: ``always-valid 99 % interval``; empty where there is none."""
    early, late = reading.options.levels(reading.options.planned)
    now, planned = f"always-valid {level(early)} interval", f"{level(late)} interval of the planned sample"
    done = any(effect.fixed is not None for effect in reading.of(metric))
    told = [each.any_time for each in reading.of(metric) if each.any_time is not None and math.isfinite(each.any_time.low)]
    own = any(math.isfinite(each.low) for each in reading.values_of(metric))
    both = f"{planned}, and its {now}" if told else planned
    return (both if done else now if told else ""), (planned if done else now if own else "")


def split(reading: OnlineReading) -> Forest:
    """The variants' shares of users, and where each would be by chance: its interval around what is due, at the alarm's level.

    What lies outside is drawn as worse.
    """
    reach = NormalDist().inv_cdf(1 - SAMPLE_RATIO_ALARM / 2) / math.sqrt(reading.users)
    rows = []
    for each in reading.traffic:
        away = reach * math.sqrt(each.share * (1 - each.share))
        rows.append((each, max(0.0, each.share - away), each.users / reading.users, min(1.0, each.share + away)))
    on = _axis((100 * place for row in rows for place in row[1:]), differences=False)
    lanes = []
    for each, low, share, high in rows:
        inside = low <= share <= high
        words = (
            f"{visible(each.variant)}: {100 * share:.1f} % of users, {100 * each.share:.1f} % due, by chance "
            f"{100 * low:.1f} to {100 * high:.1f} %; {'inside' if inside else 'outside'}"
        )
        drawn = mark(100 * low, 100 * share, 100 * high, on, "unclear" if inside else "worse", words)
        lanes.append(Lane(visible(each.variant), drawn, f"{100 * share:.1f} %", f"due {100 * each.share:.1f} %"))
    return Forest(on, tuple(lanes))


def differences(reading: OnlineReading, metric: MetricOptions) -> Forest | None:
    """The variants' differences from the control, a lane for each way to read; None while there is nothing to draw."""
    early, late = reading.options.levels(reading.options.planned)
    scale = _scale(metric)
    read: list[tuple[MetricEffect, str, float, float, float]] = []
    for effect in reading.of(metric):
        if effect.fixed is not None:
            found = effect.fixed
            read.append((effect, f"planned sample, {level(late)}", found.low, found.difference, found.high))
        if effect.any_time is not None:
            now = effect.any_time
            read.append((effect, f"always valid, {level(early)}", now.low, now.difference, now.high))
    if not any(math.isfinite(difference) for *_, difference, _ in read):
        return None
    both = len(read) > len(reading.of(metric))
    on = _axis(scale * value for row in read for value in row[2:])
    lanes: list[Lane] = []
    for effect, how, low, difference, high in read:
        who, ends = visible(effect.variant), interval(metric, low, high)
        where = side(low, high, metric.better)
        text = f"{signed(metric, difference)}{points(metric)}"
        words = f"{who}, {visible(metric.name)}: {text} {ends or '(no interval yet)'}, {how}"
        words += f"; {SIDES[where]}" if ends else ""
        lanes.append(
            Lane(
                who,
                mark(scale * low, scale * difference, scale * high, on, where, words),
                signed(metric, difference),
                ends or "no interval yet",
                how if both else "",
                more=bool(lanes) and lanes[-1].who == who,
            )
        )
    return Forest(on, tuple(lanes), ENDS[metric.better])


def values(reading: OnlineReading, metric: MetricOptions) -> Forest:
    """The variants' own values, over the planned users if they are there; a line through the control's."""
    scale = _scale(metric)
    read = [(each.variant, *_ends(each)) for each in reading.values_of(metric)]
    on = _axis((scale * value for row in read for value in row[1:]), differences=False)
    percent = " %" if metric.kind == "conversion" else ""
    lanes, line = [], None
    for variant, low, value, high in read:
        who, ends = visible(variant), value_interval(metric, low, high)
        words = f"{who}, {visible(metric.name)}: {value_text(metric, value)}{percent} {ends or '(no interval)'}"
        drawn = mark(scale * low, scale * value, scale * high, on, "unclear", words)
        is_control = variant == reading.control
        line = drawn.mean if is_control else line
        lanes.append(Lane(who, drawn, value_text(metric, value) + percent, ends, "control" if is_control else ""))
    return Forest(on, tuple(lanes), line=line)


def preferences(reading: OnlineReading) -> Forest:
    """Whose items the users of interleaved lists prefer, a lane for each pair and way to read."""
    options = reading.options
    early, late = options.levels(options.planned_lists)
    read: list[tuple[Interleaving, str, float, float, float]] = []
    for each in reading.interleavings:
        if each.fixed is not None:
            read.append((each, f"planned sample, {level(late)}", each.fixed.low, each.fixed.delta, each.fixed.high))
        if early or each.fixed is None:
            now = (each.low, each.delta, each.high) if early else (math.nan, each.delta, math.nan)
            read.append((each, f"always valid, {level(early)}" if early else "so far", *now))
    on = _axis(100 * value for row in read for value in row[2:])
    lanes: list[Lane] = []
    for each, how, low, delta, high in read:
        who, ends = f"{visible(each.variant)} against {visible(each.control)}", delta_interval(low, high)
        where = side(low, high, "higher")
        words = f"{who}: {delta_text(delta)} points {ends or '(no interval)'}, {how}"
        drawn = mark(100 * low, 100 * delta, 100 * high, on, where, words)
        lanes.append(Lane(who, drawn, delta_text(delta), ends, how, more=bool(lanes) and lanes[-1].who == who))
    return Forest(on, tuple(lanes), ("prefer the other", "prefer the variant"))


def _ends(value: VariantValue) -> tuple[float, float, float]:
    if value.fixed is not None:
        return value.fixed.low, value.fixed.value, value.fixed.high
    return value.low, value.value, value.high


def _scale(metric: MetricOptions) -> float:
    return 100.0 if metric.kind == "conversion" else 1.0


def _axis(values: Iterable[float], *, differences: bool = True) -> Axis:
    return axis_over(values, length=100, margin=SIDE, differences=differences)
