"""An OnlineReading goes in; the tables of every report come out. What must not be read yet is in none of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmrank.evaluation.report.numbers import MISSING, count, p_text
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.numbers import (
    delta_interval,
    delta_text,
    interval,
    level,
    moment,
    p_equation,
    signed,
    value_interval,
    value_text,
)
from llmrank.experiment.online.reading_options import MetricOptions
from llmrank.experiment.statistics.asymptotic import LEAST
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM

if TYPE_CHECKING:
    from llmrank.experiment.online.findings import OnlineReading

_WHAT = {
    "conversion": "The share of users with at least one such outcome, %.",
    "mean": "The sum of a user's outcomes, on average over all users.",
    "ratio": "The sum of all users' outcomes over that of the denominator.",
}


def tables(reading: OnlineReading) -> Iterator[Table]:
    """Users; of each metric all users so far, and the planned ones if they are there; the same of interleaved lists."""
    if reading.traffic:
        yield traffic(reading)
    for metric in reading.options.ordered:
        yield from metric_tables(reading, metric)
    yield from list_tables(reading)


def metric_tables(reading: OnlineReading, metric: MetricOptions) -> Iterator[Table]:
    """All users so far, then the planned ones; none where the metric was not read."""
    if reading.of(metric):
        yield _so_far(reading, metric)
        if any(effect.fixed is not None for effect in reading.of(metric)):
            yield _planned(reading, metric)


def list_tables(reading: OnlineReading) -> Iterator[Table]:
    """Interleaved lists so far, then those of the planned users; none where nothing was interleaved."""
    if reading.interleavings:
        yield _lists(reading)
        if any(each.fixed is not None for each in reading.interleavings):
            yield _planned_lists(reading)


def traffic(reading: OnlineReading) -> Table:
    """The variants' users, and whether these are the shares that were due."""
    users = reading.users
    p = reading.sample_ratio_p
    if math.isnan(p):
        check = "There is nothing to check the split of users by."
    elif p < SAMPLE_RATIO_ALARM:
        check = f"The split is broken ({p_equation(p)}): no difference is shown."
    else:
        check = f"The split is as it should be (sample-ratio check, {p_equation(p)}; an alarm below {SAMPLE_RATIO_ALARM:g})."
    return Table(
        key="users",
        title="Users",
        caption=f"Events from {moment(reading.begin)} to {moment(reading.end)}.",
        corner="Variant",
        columns=("Users", "Share, %", "Due, %"),
        rows=tuple(
            Row(
                visible(each.variant),
                (Cell(count(each.users)), Cell(f"{100 * each.users / users:.1f}"), Cell(f"{100 * each.share:.1f}")),
                kind="reference" if each.variant == reading.control else "ranker",
            )
            for each in reading.traffic
        ),
        notes=(check,),
    )


def _title(reading: OnlineReading, metric: MetricOptions) -> str:
    return visible(metric.name) + (" (primary)" if metric.name == reading.options.primary else "")


def _corrected(reading: OnlineReading, metric: MetricOptions) -> str:
    return "p (Holm)" if metric.name == reading.options.primary else "p (BH)"


def _so_far(reading: OnlineReading, metric: MetricOptions) -> Table:
    early, _ = reading.options.levels(reading.options.planned)
    columns = ["Users", "Events", "Value"]
    if early:
        ends = f"[always-valid {level(early)} interval]"
        columns = ["Users", "Events", f"Value {ends}", f"Difference {ends}", "p", _corrected(reading, metric)]
    effects = {effect.variant: effect for effect in reading.of(metric)}
    rows = []
    for each in reading.values_of(metric):
        cells = [
            Cell(count(each.users)),
            Cell(count(each.events)),
            Cell(value_text(metric, each.value), value_interval(metric, each.low, each.high)),
        ]
        effect = effects.get(each.variant)
        if effect is not None and effect.any_time is not None:
            now = effect.any_time
            ps = (now.p, now.adjusted) if math.isfinite(now.low) else (math.nan, math.nan)
            ends = interval(metric, now.low, now.high)
            cells += [Cell(signed(metric, now.difference), ends), *(Cell(p_text(p)) for p in ps)]
        rows.append(_row(reading, each.variant, cells, len(columns)))
    window = f" Of each user {metric.window_days:g} days." if metric.window_days is not None else ""
    return Table(
        key=f"metric-{metric.name}",
        title=_title(reading, metric),
        caption=f"{_WHAT[metric.kind]}{window} {metric.better.capitalize()} is better.",
        corner="Variant",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(_notes(reading, metric)),
    )


def _planned(reading: OnlineReading, metric: MetricOptions) -> Table:
    _, late = reading.options.levels(reading.options.planned)
    ends = f"[{level(late)} interval]"
    columns = ("Users", f"Value {ends}", f"Difference {ends}", "p", _corrected(reading, metric))
    effects = {effect.variant: effect for effect in reading.of(metric)}
    rows = []
    for each in reading.values_of(metric):
        plan = each.fixed
        if plan is None:  # all variants of a metric reach the planned users at once
            continue
        cells = [Cell(count(plan.users)), Cell(value_text(metric, plan.value), value_interval(metric, plan.low, plan.high))]
        effect = effects.get(each.variant)
        if effect is not None and effect.fixed is not None:
            found = effect.fixed
            cells += [Cell(signed(metric, found.difference), interval(metric, found.low, found.high))]
            cells += [Cell(p_text(found.p)), Cell(p_text(effect.adjusted))]
        rows.append(_row(reading, each.variant, cells, len(columns)))
    return Table(
        key=f"metric-{metric.name}-planned",
        title=f"{_title(reading, metric)}: the planned sample",
        caption=f"The first {reading.options.planned or 0:,} users, read once.",
        corner="Variant",
        columns=columns,
        rows=tuple(rows),
    )


def _row(reading: OnlineReading, variant: str, cells: list[Cell], columns: int) -> Row:
    if variant != reading.control:
        return Row(visible(variant), tuple(cells))
    rest = [Cell("control"), *[Cell("")] * columns][: columns - len(cells)]
    return Row(visible(variant), (*cells, *rest), kind="reference")


def _notes(reading: OnlineReading, metric: MetricOptions) -> Iterator[str]:
    planned, effects = reading.options.planned, reading.of(metric)
    if planned is None:
        yield "No test of a fixed sample is shown, as no number of users is planned (`planned`)."
    elif effects[0].fixed is None:
        yield (
            f"The test of the planned sample is not shown before {planned:,} users count: read at every look, it finds "
            "differences that are not there."
        )
    if any(effect.any_time is not None and not math.isfinite(effect.any_time.low) for effect in effects):
        yield f"There is no always-valid interval before both variants have {LEAST} users, and some of these differ."
    reductions = [(effect.variant, effect.reduction) for effect in effects if effect.reduction is not None]
    if reductions:
        shares = ", ".join(f"{100 * max(0.0, part):.0f} % for {visible(variant)}" for variant, part in reductions)
        yield f"CUPED by earlier {visible(metric.covariate)} takes out of the variance: {shares}. Values are not adjusted."


def _lists(reading: OnlineReading) -> Table:
    early, _ = reading.options.levels(reading.options.planned_lists)
    columns = ["Lists", "Users with a credit", "Won / tied / lost", "Delta, points"]
    columns += [f"Always-valid {level(early)} interval, mean over users", "p", "p (Holm)"] if early else []
    rows = []
    for each in reading.interleavings:
        cells = [
            Cell(count(each.impressions)),
            Cell(count(each.users)),
            Cell(f"{count(each.wins)} / {count(each.ties)} / {count(each.losses)}"),
            Cell(delta_text(each.delta)),
        ]
        if early:
            cells += [Cell(delta_interval(each.low, each.high)), Cell(p_text(each.p)), Cell(p_text(each.adjusted))]
        rows.append(Row(_pair(each.variant, each.control), tuple(cells)))
    planned, notes = reading.options.planned_lists, []
    if planned is None:
        notes.append("No test of a fixed sample is shown, as no number of users is planned (`interleaved`).")
    elif all(each.fixed is None for each in reading.interleavings):
        notes.append(f"The test of the planned sample is not shown before {planned:,} users have a credit.")
    return Table(
        key="interleaving",
        title="Interleaved lists",
        caption="Delta: the part of the lists with a credit that the variant wins, a tie counting half, minus a half; "
        "0 if users have no preference.",
        corner="Pair",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=tuple(notes),
    )


def _planned_lists(reading: OnlineReading) -> Table:
    planned = reading.options.planned_lists
    _, late = reading.options.levels(planned)
    rows = []
    for each in reading.interleavings:
        plan = each.fixed
        cells = [Cell(MISSING)] * 4  # this pair has not got its users yet
        if plan is not None:
            cells = [
                Cell(count(plan.users)),
                Cell(delta_text(plan.delta), delta_interval(plan.low, plan.high)),
                Cell(p_text(plan.p)),
                Cell(p_text(each.fixed_adjusted)),
            ]
        rows.append(Row(_pair(each.variant, each.control), tuple(cells)))
    return Table(
        key="interleaving-planned",
        title="Interleaved lists: the planned sample",
        caption=f"The first {planned or 0:,} users of a pair with a credit, read once.",
        corner="Pair",
        columns=("Users with a credit", f"Delta, points [{level(late)} interval]", "p", "p (Holm)"),
        rows=tuple(rows),
    )


def _pair(variant: str, control: str) -> str:
    return f"{visible(variant)} against {visible(control)}"
