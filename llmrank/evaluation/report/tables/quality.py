"""An Overview goes in; how well each ranker ranks comes out, a table of relevance and one of what else its lists are like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.report.numbers import MISSING
from llmrank.evaluation.report.overview import FEW_USERS, Overview
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import heading, interval_text, label, value_text
from llmrank.evaluation.report.visible import visible


def quality_tables(overview: Overview) -> Iterator[Table]:
    """The main table, and one of the measures that do not ask for relevance."""
    main = [measure for measure in overview.measures if measure.about == "relevance"]
    # The measure that decides stands first, wherever the suite names it.
    main.sort(key=lambda measure: measure.name != overview.primary)
    others = [measure for measure in overview.measures if measure not in main]
    intervals = (
        f"In brackets: {overview.confidence} bootstrap intervals over users ({overview.summary['resamples']:,} resamples); "
        "where all users have the same share, Wilson intervals."
    )
    chance = _chance(overview, main)
    expected = ("Chance: what a random order has on average.",) if chance else ()
    rankers = tuple(_rows(overview, main, {measure.name: overview.clear_best(measure) for measure in main}))
    # No value is marked as best: what is novel or diverse at random is no better for it.
    beyond = tuple(_rows(overview, others, {}))
    order = f"Ordered by {label(_primary(overview))}."
    yield Table(
        "quality",
        "Relevance",
        overview.protocol,
        "Ranker",
        tuple(heading(measure) for measure in main),
        (*rankers, *chance),
        (order, *_brackets(rankers, intervals), _best_note(overview), overview.failures_sentence, *expected),
    )
    yield Table(
        "lists",
        "What the lists are like",
        overview.protocol,
        "Ranker",
        tuple(heading(measure) for measure in others),
        beyond,
        (*_brackets(beyond, intervals), *(f"{label(measure)}: {measure.description}" for measure in others)),
    )


def _primary(overview: Overview) -> Measure:
    return next(measure for measure in overview.measures if measure.name == overview.primary)


def _rows(overview: Overview, measures: Sequence[Measure], best: Mapping[str, str | None]) -> Iterator[Row]:
    for name, found in overview.rankers.items():
        yield Row(
            visible(name),
            tuple(
                Cell(
                    value_text(measure, found["metrics"].get(measure.name)),
                    interval_text(measure, overview.interval(name, measure.name)),
                    best=best.get(measure.name) == name,
                )
                for measure in measures
            ),
        )


def _brackets(rows: Sequence[Row], note: str) -> tuple[str, ...]:
    """The note on intervals, where there is one."""
    return (note,) if any(cell.detail for row in rows for cell in row.cells) else ()


def _chance(overview: Overview, measures: Sequence[Measure]) -> list[Row]:
    values = overview.summary.get("chance") or {}
    if all(values.get(measure.name) is None for measure in measures):
        return []
    cells = (value_text(measure, values.get(measure.name)) for measure in measures)
    return [Row("Chance", tuple(Cell(text if text else MISSING) for text in cells), "reference")]


def _best_note(overview: Overview) -> str:
    if overview.incomplete:
        return "No best value is marked, because the rankers have ranked different cases."
    if overview.too_few:
        return f"No best value is marked, because there are fewer than {FEW_USERS} users."
    return (
        "A value is marked as best only where its interval lies clear of those of all other rankers. The rule is cautious: "
        "llmrank eval compare tests rankers in pairs on the same cases, and finds smaller differences."
    )
