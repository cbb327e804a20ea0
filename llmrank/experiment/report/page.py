"""Findings go in, one HTML page comes out that opens offline: the decision and its reason first, then all that it rests on.

The page runs no script and loads nothing; its policy (CSP) forbids both. Names, titles, queries and prompts are foreign text:
they are made visible, and escaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmrank.evaluation.report.numbers import day
from llmrank.evaluation.report.offline import offline_template
from llmrank.evaluation.report.parts import Row, Table
from llmrank.evaluation.report.scale import Axis
from llmrank.evaluation.report.values import label, scaled
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.findings import Effect, Findings, PromptText
from llmrank.experiment.report import tables, variance
from llmrank.experiment.report.cases import case_views, in_view
from llmrank.experiment.report.diff import Stretch, aligned, stretches
from llmrank.experiment.report.drawing import MARGIN_PLACE, Gauge, axis, gauge, mark
from llmrank.experiment.report.forest import ENDS, Forest, Lane, Mark
from llmrank.experiment.report.words import (
    OUTCOMES,
    READINGS,
    asked_by,
    came,
    facts,
    interval_name,
    no_diff,
    points,
    prompt_text,
    value,
)

_PROMPT_CHARS = 800_000
"""The most characters of prompts on the page, of all variants together."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A table with a drawing in each row, and the axis that these share."""

    table: Table
    axis: Axis
    rows: tuple[tuple[Row, Mark], ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """The control's prompt beside a variant's.

    Attributes:
        variant: Its name.
        sides: What asks either, a line each.
        of: Whose case it is.
        why_not: Why there is no diff; None if there is.
        changed: How many rows differ.
        stretches: The rows.
        text: The prompt itself where both are the same; else empty.
    """

    variant: str
    sides: tuple[str, str]
    of: str
    why_not: str | None
    changed: int
    stretches: tuple[Stretch, ...]
    text: str


def page(findings: Findings) -> str:
    """The whole page."""
    measure = findings.primary
    decision = findings.decision
    stopped = f"Stopped early: {visible(findings.stopped_early)}" if findings.stopped_early else None
    table = tables.primary(findings)
    return offline_template("llmrank.experiment.report", "experiment.html.jinja", "experiment.css").render(
        findings=findings,
        outcome=OUTCOMES[decision.outcome],
        reasons=[visible(decision.reason), *([stopped] if stopped else [])],
        facts=facts(findings),
        reading=READINGS[findings.reading],
        created=day(findings.created),
        control=visible(findings.control),
        measure=label(measure),
        points=points(measure),
        interval=interval_name(findings),
        wanted=None if findings.wanted is None else value(measure, findings.wanted) + points(measure),
        primary=table,
        lanes=_lanes(findings, table),
        others=[_drawn(table, effects, axis(effects)) for table, effects in _others(findings)],
        guardrails=_guardrails(findings),
        margin_place=MARGIN_PLACE,
        segments=_segments(findings),
        variance=variance.parts(findings),
        variance_lead=variance.lead(findings),
        # Estimates of parts may be larger than the whole; then the largest is as wide as the drawing.
        variance_whole=max([1.0, *(part.share or 0.0 for part in variance.parts(findings))]),
        variance_notes=variance.notes(findings),
        costs=tables.costs(findings),
        selection=tables.selection(findings),
        came=came(findings),
        prompts=_prompts(findings),
        cases=case_views(findings),
        in_view=in_view,
    )


def _drawn(table: Table, effects: tuple[Effect, ...] | list[Effect], on: Axis) -> Drawn:
    return Drawn(table, on, tuple(zip(table.rows, (mark(effect, on) for effect in effects), strict=True)))


def _others(findings: Findings) -> list[tuple[Table, list[Effect]]]:
    found = []
    for table in tables.others(findings):
        unit = table.key.removeprefix("other-")
        those = [each for each in findings.measures if each.unit == unit and each != findings.primary]
        found.append((table, [effect for each in those for effect in findings.of(each)]))
    return found


def _segments(findings: Findings) -> Drawn | None:
    table = tables.segments(findings)
    effects = [effect for segment in findings.segments for effect in segment.effects]
    return None if table is None else _drawn(table, effects, axis(effects))


def _lanes(findings: Findings, table: Table) -> Forest:
    """The measure that decides, a lane for each variant."""
    measure, wanted, named = findings.primary, findings.wanted, findings.decision.variant
    effects = findings.of(measure)
    on = axis(effects, () if wanted is None else (wanted, -wanted))
    lanes = tuple(
        Lane(row.header, mark(effect, on), row.cells[0].text, row.cells[0].detail, decided=effect.variant == named)
        for row, effect in zip(table.rows, effects, strict=True)
    )
    band = None if wanted is None else (on.at(scaled(measure, -wanted)), on.at(scaled(measure, wanted)))
    return Forest(on, lanes, ENDS[measure.direction], band)


def _guardrails(findings: Findings) -> tuple[Table, tuple[tuple[Row, Gauge, str], ...]] | None:
    table = tables.guardrails(findings)
    if table is None:
        return None
    rows = zip(table.rows, findings.guardrails, strict=True)
    return table, tuple((row, gauge(each), each.result.verdict) for row, each in rows)


def _prompts(findings: Findings) -> list[Compared]:
    by_variant = {prompt.variant: prompt for prompt in findings.prompts}
    control = by_variant.get(findings.control)
    if control is None:
        return []
    others = [by_variant[name] for name in findings.variants if name in by_variant]
    room = _PROMPT_CHARS // (2 * max(1, len(others)))
    return [_compared(control, other, room) for other in others]


def _compared(control: PromptText, variant: PromptText, room: int) -> Compared:
    why_not = no_diff(control, variant)
    texts = [prompt_text(prompt, room) for prompt in (control, variant)]
    rows = aligned(*texts) if why_not is None else ()
    return Compared(
        visible(variant.variant),
        (asked_by(control), asked_by(variant)),
        visible(variant.of),
        why_not,
        sum(not row.same for row in rows),
        stretches(rows),
        texts[0] if why_not is not None and control.text == variant.text else "",
    )
