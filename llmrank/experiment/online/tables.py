"""An OnlineReading goes in; tables, sentences and JSON values come out. What must not be read yet is in none of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from llmrank.evaluation.report.numbers import MISSING, count
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.effects import MetricEffect
from llmrank.experiment.online.numbers import interval, level, moment, p_equation, p_text, signed, value_text
from llmrank.experiment.online.preferences import Interleaving
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
    """Users; one table a metric; interleaved lists."""
    if reading.traffic:
        yield _traffic(reading)
    for metric in reading.options.ordered:
        if effects := reading.of(metric):
            yield _metric(reading, metric, effects)
    if reading.interleavings:
        yield _lists(reading)


def texts(reading: OnlineReading) -> tuple[str, ...]:
    """How the numbers came about, and what a reader has to know; a sentence or two each."""
    said = []
    if reading.effects:
        early, late = reading.options.levels(reading.options.planned)
        said.append("A user counts for the variant of the first exposure, with what came after it.")
        if early:
            said.append(
                f"The always-valid interval holds at all looks together with a chance of {level(early)}, so it may be read at "
                "any time; it never becomes wider. Both p values are corrected for the number of variants by Holm's method in "
                "the primary metric, and by Benjamini and Hochberg's over all comparisons in the others."
            )
        if reading.options.planned is not None:
            said.append(
                f"The test of the planned sample is made of the first {reading.options.planned:,} users, once. Of the level "
                f"{reading.options.alpha:g} it has {late:g}, and looks at any time have {early:g}: a false finding by either "
                f"stays below {reading.options.alpha:g}."
            )
        if any(metric.window_days is None for metric in reading.options.metrics):
            names = ", ".join(visible(metric.name) for metric in reading.options.metrics if metric.window_days is None)
            said.append(
                f"Without `window_days` ({names}) what a user did may still grow, so that figures of the same users change "
                "from look to look, and the guarantees hold only as far as that is little."
            )
    return (*said, *map(visible, reading.notes))


def record(reading: OnlineReading) -> dict[str, Any]:
    """JSON values."""
    from llmrank.experiment.online.findings import finite

    options = reading.options
    early, late = options.levels(options.planned)
    return {
        "experiment": reading.name,
        "control": reading.control,
        "verdict": reading.verdict,
        "decision": reading.decision,
        "reason": reading.reason,
        "users": {each.variant: each.users for each in reading.traffic},
        "shares": {each.variant: each.share for each in reading.traffic},
        "moved": reading.moved,
        "sample_ratio_p": finite(reading.sample_ratio_p),
        "alpha": options.alpha,
        "levels": {"any_time": early, "planned": late},
        "planned": options.planned,
        "planned_reached": reading.planned,
        "begin": finite(reading.begin),
        "end": finite(reading.end),
        "metrics": {
            metric.name: {
                "kind": metric.kind,
                "primary": metric.name == options.primary,
                "better": metric.better,
                "variants": {effect.variant: _effect(effect) for effect in effects},
            }
            for metric in options.ordered
            if (effects := reading.of(metric))
        },
        "interleaving": [_interleaving(each) for each in reading.interleavings],
        "notes": list(reading.notes),
    }


def _effect(effect: MetricEffect) -> dict[str, Any]:
    from llmrank.experiment.online.findings import finite

    now, plan = effect.any_time, effect.fixed
    return {
        "value": finite(effect.value),
        "control": finite(effect.control),
        "users": effect.users,
        "control_users": effect.control_users,
        "variance_reduction": None if effect.reduction is None else finite(effect.reduction),
        "any_time": now
        and {
            "difference": finite(now.difference),
            "ci": [finite(now.low), finite(now.high)],
            "p": finite(now.p),
            "p_adjusted": finite(now.adjusted),
        },
        "planned": plan
        and {
            "value": finite(plan.value),
            "control": finite(plan.control),
            "difference": finite(plan.difference),
            "ci": [finite(plan.low), finite(plan.high)],
            "p": finite(plan.p),
            "p_adjusted": finite(effect.adjusted),
            "users": plan.n_value,
            "control_users": plan.n_control,
        },
    }


def _interleaving(each: Interleaving) -> dict[str, Any]:
    from llmrank.experiment.online.findings import finite

    plan = each.fixed
    return {
        "variant": each.variant,
        "control": each.control,
        "lists": each.impressions,
        "users": each.users,
        "wins": each.wins,
        "ties": each.ties,
        "losses": each.losses,
        "delta": finite(each.delta),
        "any_time": {"ci": [each.low, each.high], "p": finite(each.p), "p_adjusted": finite(each.adjusted)},
        "planned": plan
        and {
            "delta": finite(plan.delta),
            "ci": [finite(plan.low), finite(plan.high)],
            "p": finite(plan.p),
            "p_adjusted": finite(each.fixed_adjusted),
            "users": plan.users,
        },
    }


def _traffic(reading: OnlineReading) -> Table:
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


def _metric(reading: OnlineReading, metric: MetricOptions, effects: tuple[MetricEffect, ...]) -> Table:
    early, late = reading.options.levels(reading.options.planned)
    primary = metric.name == reading.options.primary
    how = "Holm" if primary else "BH"
    columns = ["Users", "Value", *([f"Difference [always-valid {level(early)} interval]", f"p ({how})"] if early else [])]
    planned = any(effect.fixed is not None for effect in effects)
    if planned:
        columns += [f"Planned users: difference [{level(late)} interval]", f"p ({how}), planned"]
    control = Row(
        visible(reading.control),
        (
            Cell(count(effects[0].control_users)),
            Cell(value_text(metric, effects[0].control)),
            *[Cell("control"), *[Cell("")] * (len(columns) - 3)][: len(columns) - 2],
        ),
        kind="reference",
    )
    what = _WHAT[metric.kind]
    window = f" Of each user {metric.window_days:g} days." if metric.window_days is not None else ""
    return Table(
        key=f"metric-{metric.name}",
        title=visible(metric.name) + (" (primary)" if primary else ""),
        caption=f"{what}{window} {metric.better.capitalize()} is better.",
        corner="Variant",
        columns=tuple(columns),
        rows=(control, *(_row(effect) for effect in effects)),
        notes=tuple(_notes(reading, effects)),
    )


def _row(effect: MetricEffect) -> Row:
    metric = effect.metric
    cells = [Cell(count(effect.users)), Cell(value_text(metric, effect.value))]
    if effect.any_time is not None:
        now = effect.any_time
        said = math.isfinite(now.low)
        cells += [
            Cell(signed(metric, now.difference), interval(metric, now.low, now.high)),
            Cell(p_text(now.adjusted) if said else MISSING),
        ]
    if effect.fixed is not None:  # all variants of a metric reach the planned users at once
        plan = effect.fixed
        cells += [Cell(signed(metric, plan.difference), interval(metric, plan.low, plan.high)), Cell(p_text(effect.adjusted))]
    return Row(visible(effect.variant), tuple(cells))


def _notes(reading: OnlineReading, effects: tuple[MetricEffect, ...]) -> Iterator[str]:
    planned = reading.options.planned
    if planned is None:
        yield "No test of a fixed sample is shown, as no number of users is planned (`planned`)."
    elif effects[0].fixed is None:
        yield (
            f"The test of the planned sample is not shown before {planned:,} users count: read at every look, it finds "
            "differences that are not there."
        )
    if any(effect.any_time is not None and not math.isfinite(effect.any_time.low) for effect in effects):
        yield f"There is no always-valid interval before both variants have {LEAST} users, and some of these differ."
    reductions = [effect.reduction for effect in effects if effect.reduction is not None]
    if reductions:
        covariate = visible(effects[0].metric.covariate)
        yield f"CUPED by earlier {covariate} takes out {100 * max(0.0, min(reductions)):.0f} % of the variance."


def _lists(reading: OnlineReading) -> Table:
    planned = reading.options.planned if reading.options.interleaved is None else reading.options.interleaved
    early, late = reading.options.levels(planned)
    done = any(each.fixed is not None for each in reading.interleavings)
    columns = ["Lists", "Users with a credit", "Won / tied / lost", "Delta, points"]
    columns += [f"Always-valid {level(early)} interval, mean over users", "p (Holm)"] if early else []
    columns += [f"Planned users: delta [{level(late)} interval]", "p (Holm), planned"] if done else []
    rows = []
    for each in reading.interleavings:
        cells = [
            Cell(count(each.impressions)),
            Cell(count(each.users)),
            Cell(f"{count(each.wins)} / {count(each.ties)} / {count(each.losses)}"),
            Cell(_delta(each.delta)),
        ]
        if early:
            cells += [Cell(f"[{_delta(each.low)}, {_delta(each.high)}]"), Cell(p_text(each.adjusted))]
        if done and each.fixed is not None:
            plan = each.fixed
            ends = "" if math.isnan(plan.low) else f"[{_delta(plan.low)}, {_delta(plan.high)}]"
            cells += [Cell(_delta(plan.delta), ends), Cell(p_text(each.fixed_adjusted))]
        elif done:
            cells += [Cell(MISSING), Cell("")]
        rows.append(Row(f"{visible(each.variant)} against {visible(each.control)}", tuple(cells)))
    notes = []
    if planned is None:
        notes.append("No test of a fixed sample is shown, as no number of users is planned (`interleaved`).")
    elif not done:
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


def _delta(value: float) -> str:
    return MISSING if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")
