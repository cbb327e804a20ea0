"""An Overview goes in; how much each ranker follows the order shown, and how it does by slices of the cases, comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.numbers import MISSING, bin_label, count, fixed, percent
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import heading, interval_text, known_interval, label, percent_interval, value_text
from llmrank.evaluation.report.visible import visible

_PLACES = "Columns: the place in the list shown. Cases with an answer and one relevant item among those shown."


def bias_table(overview: Overview) -> Table:
    """Position bias, and order stability if the suite asked for it; only rankers of which one of them was measured."""
    found = {name: each for name, each in overview.rankers.items() if each.get("position_bias") or each.get("stability")}
    notes = [
        "Position bias: mean Kendall tau between the order in which candidates were shown and the order returned; 1 copies the "
        "order shown, 0 does not depend on it, below 0 prefers what stands last. Where a prefilter made the order shown, a "
        "good ranker agrees with it.",
        f"In brackets: {overview.confidence} intervals.",
    ]
    columns = ["Position bias, tau"]
    stability = any(each.get("stability") for each in found.values())
    if stability:
        columns += ["Stability, tau", "Same first item, %", "Shared, %", "Cases asked again", "Shuffles"]
        notes.append(
            "Stability: the same cases asked again with shuffled candidates; mean Kendall tau between the orders returned (1: "
            "always the same), how often two of them begin with the same item, and which part of their first items they share."
        )
    rows = (Row(visible(name), tuple(_cells(each))[: len(columns)]) for name, each in found.items())
    title = "Position bias and stability" if stability else "Position bias"
    return Table("bias", title, overview.protocol, "Ranker", tuple(columns), tuple(rows), tuple(notes))


def slices_tables(overview: Overview) -> Iterator[Table]:
    """The primary measure by the length of the history and by the place at which what is relevant was shown."""
    name = label(parse_measure(overview.primary))
    by_history = {ranker: found.get("by_history") or () for ranker, found in overview.rankers.items()}
    yield _slices(overview, "by-history", f"{name} by history length", "Columns: items in the history.", by_history)
    by_position = {
        ranker: (found.get("position_bias") or {}).get("by_position") or () for ranker, found in overview.rankers.items()
    }
    yield _slices(overview, "by-position", f"{name} by the place of what is relevant", _PLACES, by_position)


def bins_of(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[tuple[int, int | None]]:
    """All bins that any ranker has, in order."""
    bins = {(each["from"], each["to"]) for of_ranker in found.values() for each in of_ranker}
    return sorted(bins, key=lambda each: each[0])


def _slices(overview: Overview, key: str, title: str, columns: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """One row a ranker, one column a bin; `columns` says what the bins are of."""
    measure = parse_measure(overview.primary)
    bins = bins_of(found)
    rows = []
    for name, of_ranker in found.items():
        by_bin = {(each["from"], each["to"]): each for each in of_ranker}
        if by_bin:
            rows.append(Row(visible(name), tuple(_slice_cell(measure.name, by_bin.get(each)) for each in bins)))
    notes = (f"{columns} {heading(measure)}; in brackets {overview.confidence} intervals; n is the number of cases.",)
    headings = tuple(bin_label(*each) for each in bins)
    return Table(key, title, overview.protocol, "Ranker", headings, tuple(rows), notes)


def _slice_cell(primary: str, found: Mapping[str, Any] | None) -> Cell:
    if found is None:
        return Cell(MISSING)
    measure = parse_measure(primary)
    detail = interval_text(measure, known_interval(found["ci"]))
    return Cell(value_text(measure, found[primary]), f"{detail} n = {count(found['cases'])}".strip())


def _cells(found: Mapping[str, Any]) -> tuple[Cell, ...]:
    bias, stability = found.get("position_bias") or {}, found.get("stability") or {}
    return (
        Cell(fixed(bias.get("tau")), _tau_interval(bias)),
        Cell(fixed(stability.get("kendall_tau")), _tau_interval(stability)),
        Cell(percent(stability.get("top1_same")), percent_interval(stability.get("top1_ci"))),
        Cell(percent(stability.get("overlap")), percent_interval(stability.get("overlap_ci"))),
        Cell(count(stability.get("cases"))),
        Cell(count(stability.get("shuffles"))),
    )


def _tau_interval(found: Mapping[str, Any]) -> str:
    interval = known_interval(found.get("ci"))
    return f"[{fixed(interval[0])}, {fixed(interval[1])}]" if interval else ""
