"""Findings go in, the tables of every report come out, as plain values (`llmrank.evaluation.report.parts`)."""

from __future__ import annotations

import math
from collections.abc import Iterator

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.report.numbers import count, dollars, joined, p_text, share, significant
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import heading, label, signed
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.findings import Effect, Findings, Guardrail, VariantCost
from llmrank.experiment.report.words import (
    NBSP,
    amount,
    change,
    confidence,
    interval,
    interval_name,
    margin,
    relative,
    seconds,
    value,
    verdict,
    wins,
)

_UNITS = {
    "share": f"Shares, in{NBSP}%",
    "bits": "Bits",
    "users": "Numbers of users",
    "ratio": "Ratios",
    "distance": "Distances",
}


def primary(findings: Findings) -> Table:
    """The measure that decides, a row for each variant."""
    measure = findings.primary
    notes = [measure.description]
    if findings.wanted is not None:
        notes.append(
            f"The smallest difference that matters is {value(measure, findings.wanted)}, as the experiment's file says."
        )
    return Table(
        key="primary",
        title=f"{heading(measure)} (primary)",
        caption=visible(findings.protocol),
        corner="Variant",
        columns=(
            f"Difference [{interval_name(findings)}]",
            "Relative",
            f"Mean of {visible(findings.control)}",
            "Mean",
            "p",
            "p (Holm)",
            "Higher / same / lower",
            "MDE",
        ),
        rows=tuple(_primary_row(effect) for effect in findings.of(measure)),
        notes=tuple(notes),
    )


def _primary_row(effect: Effect) -> Row:
    measure, difference = effect.measure, effect.difference
    cells = (
        _difference(effect),
        Cell(relative(effect)),
        Cell(value(measure, effect.control_mean)),
        Cell(value(measure, effect.variant_mean)),
        Cell(p_text(difference.p)),
        Cell(p_text(effect.adjusted)),
        Cell(wins(difference)),
        Cell(value(measure, effect.detectable)),
    )
    return Row(visible(effect.variant), cells)


def _difference(effect: Effect) -> Cell:
    return Cell(signed(effect.measure, effect.difference.mean), interval(effect.measure, effect.difference))


def others(findings: Findings) -> tuple[Table, ...]:
    """The other measures, a table for each unit, for only these share a scale; a row for each measure and variant."""
    units: dict[str, list[Measure]] = {}
    for measure in findings.measures:
        if measure != findings.primary:
            units.setdefault(measure.unit, []).append(measure)
    return tuple(
        Table(
            key=f"other-{unit}",
            title=f"Other measures: {_UNITS[unit]}",
            caption=visible(findings.protocol),
            corner="Measure",
            columns=(
                *_variant_column(findings),
                f"Difference [{interval_name(findings)}]",
                f"Mean of {visible(findings.control)}",
                "Mean",
                "p",
                "p (BH)",
                "Higher / same / lower",
            ),
            rows=tuple(_other_row(findings, effect) for measure in measures for effect in findings.of(measure)),
            notes=tuple(f"{label(measure)}: {measure.description}" for measure in measures),
        )
        for unit, measures in units.items()
    )


def _variant_column(findings: Findings) -> tuple[str, ...]:
    """With one variant, whose row it is needs no saying."""
    return ("Variant",) if len(findings.variants) > 1 else ()


def _variant_cell(findings: Findings, variant: str) -> tuple[Cell, ...]:
    return (Cell(visible(variant)),) if _variant_column(findings) else ()


def _other_row(findings: Findings, effect: Effect) -> Row:
    measure, difference = effect.measure, effect.difference
    cells = (
        *_variant_cell(findings, effect.variant),
        _difference(effect),
        Cell(value(measure, effect.control_mean)),
        Cell(value(measure, effect.variant_mean)),
        Cell(p_text(difference.p)),
        Cell(p_text(effect.adjusted)),
        Cell(wins(difference)),
    )
    return Row(label(measure), cells)


def guardrails(findings: Findings) -> Table | None:
    """What must not become worse, a row for each guardrail and variant; None if the experiment has none."""
    if not findings.guardrails:
        return None
    return Table(
        key="guardrails",
        title="Guardrails",
        caption="What a variant must not make worse by more than a margin.",
        corner="Guardrail",
        columns=(
            *_variant_column(findings),
            "Verdict",
            visible(findings.control),
            "Variant's value",
            "Difference",
            "At worst",
            "Margin",
        ),
        rows=tuple(_guardrail_row(findings, each) for each in findings.guardrails),
        notes=(
            "At worst: how far the difference may reach in the direction that is worse (one-sided bound, "
            f"{confidence(findings)}). A guardrail holds if that is within the margin, is broken if the "
            "difference is beyond it even at best, and is unclear in between: then there are too few users to tell, and it is "
            "not shown to hold.",
            *_how_read(findings),
        ),
    )


def _how_read(findings: Findings) -> Iterator[str]:
    """What an experiment that is looked at has to say of its bounds."""
    if findings.reading == "fixed sample":
        return
    yield "These bounds hold at all looks, as the intervals do: the experiment may stop by them."
    once = dict.fromkeys(visible(each.name) for each in findings.guardrails if each.reading == "fixed sample")
    if once:
        yield f"Read once, where the experiment ended, by a bound for a fixed sample: {joined(list(once))}."


def _guardrail_row(findings: Findings, guardrail: Guardrail) -> Row:
    result, unit = guardrail.result, guardrail.unit
    cells = (
        *_variant_cell(findings, guardrail.variant),
        Cell(verdict(guardrail)),
        Cell(amount(unit, result.control)),
        Cell(amount(unit, result.value)),
        *(Cell(change(guardrail, number)) for number in (result.difference, result.bound, margin(guardrail))),
    )
    return Row(visible(guardrail.name), cells)


def segments(findings: Findings) -> Table | None:
    """Parts of the users, a row for each part and variant; None if there are none."""
    if not findings.segments:
        return None
    return Table(
        key="segments",
        title=f"Segments: {heading(findings.primary)} (exploratory)",
        caption=visible(findings.protocol),
        corner="Users",
        columns=(
            *_variant_column(findings),
            f"Difference [{confidence(findings)} interval]",
            "How many",
            f"Mean of {visible(findings.control)}",
            "Mean",
            "p (not corrected)",
        ),
        rows=tuple(
            Row(
                visible(segment.name),
                (
                    *_variant_cell(findings, effect.variant),
                    _difference(effect),
                    Cell(count(segment.users)),
                    Cell(value(effect.measure, effect.control_mean)),
                    Cell(value(effect.measure, effect.variant_mean)),
                    Cell(p_text(effect.difference.p)),
                ),
            )
            for segment in findings.segments
            for effect in segment.effects
        ),
        notes=(
            "Exploratory: among many parts of the users some differ by chance alone. What shows here is a question for another "
            "experiment, not a result of this one.",
        ),
    )


def costs(findings: Findings) -> Table | None:
    """What each variant took, the control's first; None if nothing is known."""
    if not findings.costs:
        return None
    return Table(
        key="costs",
        title="What the variants take",
        caption="In this experiment, as if no answer had been kept from before.",
        corner="Variant",
        columns=(
            "Rankings",
            "Without a readable answer",
            "Calls",
            "Prompt tokens a ranking",
            "Completion tokens a ranking",
            "USD",
            "USD for 1,000 rankings",
            "Latency p50, s",
            "Latency p95, s",
        ),
        rows=tuple(_cost_row(each, is_control=each.variant == findings.control) for each in findings.costs),
    )


def _cost_row(cost: VariantCost, *, is_control: bool) -> Row:
    each = cost.rankings or math.nan
    cells = (
        Cell(count(cost.rankings)),
        Cell(count(cost.failures), share(cost.failures, cost.rankings)),
        Cell(count(cost.calls)),
        Cell(significant(cost.prompt_tokens / each)),
        Cell(significant(cost.completion_tokens / each)),
        Cell(dollars(cost.usd)),
        Cell(dollars(None if cost.usd is None or not cost.rankings else 1000 * cost.usd / cost.rankings)),
        Cell(seconds(cost.latency_p50)),
        Cell(seconds(cost.latency_p95)),
    )
    return Row(visible(cost.variant) + (" (control)" if is_control else ""), cells)


def selection(findings: Findings) -> tuple[str, ...]:
    """The rounds in which variants were chosen, a sentence each; without any figure, for none of them is a result."""
    lines = []
    for number, each in enumerate(findings.selection, start=1):
        out = [visible(name) for name in each.contenders if name not in each.kept]
        went = joined([visible(name) for name in each.kept])
        sentence = f"Round {number}: {len(each.contenders)} variants, {each.users:,} development users each. Went on: {went}."
        lines.append(sentence + (f" Out: {joined(out)}." if out else ""))
    return tuple(lines)
