"""A position study goes in; NDCG by the place of what is relevant comes out, a table a ranker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.numbers import count, percent
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import heading, interval_text, known_interval, label, value_text
from llmrank.evaluation.report.visible import visible

if TYPE_CHECKING:
    from llmrank.evaluation.positioning.study import Positions, RankerPositions


def positions_tables(found: Positions) -> tuple[Table, ...]:
    """One row a place; the notes have the spread, and what else there is to know."""
    measure = parse_measure(f"ndcg@{found.k}")
    return tuple(
        Table(
            f"positions-{name}",
            f"{label(measure)} by the place of what is relevant: {visible(name)}",
            found.protocol,
            "Place",
            ("Cases", heading(measure), "Without an answer"),
            tuple(
                Row(
                    str(each.place),
                    (
                        Cell(count(found.cases)),
                        Cell(value_text(measure, each.ndcg.mean), interval_text(measure, known_interval(each.ndcg.ci))),
                        Cell(count(each.failed)),
                    ),
                )
                for each in of_ranker.places
            ),
            _notes(found, of_ranker),
        )
        for name, of_ranker in found.rankers.items()
    )


def _notes(found: Positions, of_ranker: RankerPositions) -> tuple[str, ...]:
    spread = of_ranker.spread
    interval = known_interval((None, None) if spread.low != spread.low else (spread.low, spread.high))
    ends = f" [{percent(interval[0])}, {percent(interval[1])}]" if interval else ""
    p = "< 0.001" if spread.p < 0.001 else f"= {spread.p:.3f}"
    notes = [
        f"Spread, largest minus smallest: {percent(spread.value)}{ends} points; p {p} that the place does not matter.",
        f"In brackets: {100 * found.confidence:g} % intervals over users.",
    ]
    failed, moved = (sum(getattr(each, name) for each in of_ranker.places) for name in ("failed", "moved"))
    if failed:
        notes.append(f"{count(failed)} rankings without a readable answer count as the suite's `failures` says.")
    if moved:
        notes.append(f"In {count(moved)} rankings a prefilter put what is relevant at another place than the one named.")
    return tuple(notes)
