"""A position study goes in; NDCG by the place of what is relevant comes out, a table a ranker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.numbers import count, percent
from llmrank.evaluation.report.overview import FEW_USERS, few_users
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
    p = "< 0.001" if spread.p < 0.001 else f"= {spread.p:.3f}"
    notes = [
        f"Spread, largest minus smallest: {percent(spread.value)} points; by chance alone: {percent(spread.by_chance)}; "
        f"p {p} for a spread at least this large if the place did not matter.",
        f"In brackets: {100 * found.confidence:g} % intervals over users.",
    ]
    if found.users < FEW_USERS:
        notes.append(few_users(found.users))
    failed, moved = (sum(getattr(each, name) for each in of_ranker.places) for name in ("failed", "moved"))
    if failed:
        notes.append(f"{count(failed)} rankings without a readable answer count as the suite's `failures` says.")
    if moved:
        notes.append(f"In {count(moved)} rankings a prefilter put what is relevant at another place than the one named.")
    return tuple(notes)
