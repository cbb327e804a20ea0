"""An Overview goes in; how well each ranker ranks comes out, a table of relevance and one of what else its lists are like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.report.numbers import MISSING, percent
from llmrank.evaluation.report.overview import FEW_USERS, Overview, prefilter_of
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import heading, interval_text, label, percent_interval, value_text
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
    passed = _Passed(overview)
    rankers = tuple(_rows(overview, main, {measure.name: overview.clear_best(measure) for measure in main}, passed))
    # No value is marked as best: what is novel or diverse at random is no better for it.
    beyond = tuple(_rows(overview, others, {}, None))
    order = f"Ordered by {label(_primary(overview))}."
    yield Table(
        "quality",
        "Relevance",
        overview.protocol,
        "Ranker",
        (*(heading(measure) for measure in main), *passed.headings),
        (*rankers, *(replace(row, cells=(*row.cells, *passed.cells_without)) for row in chance)),
        (order, *_brackets(rankers, intervals), _best_note(overview), overview.failures_sentence, *expected, *passed.notes),
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


class _Passed:
    """The columns of what prefilters let through: one for each number of candidates that one of them keeps."""

    def __init__(self, overview: Overview) -> None:
        self._found = {name: prefilter_of(found) for name, found in overview.rankers.items()}
        self._keeps = sorted({found["keep"] for found in self._found.values() if found is not None})

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(f"Prefilter recall@{keep},\N{NO-BREAK SPACE}%" for keep in self._keeps)

    @property
    def notes(self) -> tuple[str, ...]:
        text = (
            "Prefilter recall: share of the relevant items among the candidates that a ranker's prefilter lets through, before "
            "any order; no ranking finds the others."
        )
        return (text,) if self._keeps else ()

    @property
    def cells_without(self) -> tuple[Cell, ...]:
        return (Cell(MISSING),) * len(self._keeps)

    def cells(self, ranker: str) -> tuple[Cell, ...]:
        found = self._found[ranker]
        return tuple(
            Cell(percent(found["recall"]), percent_interval(found["ci"]))
            if found is not None and found["keep"] == keep
            else Cell(MISSING)
            for keep in self._keeps
        )


def _rows(
    overview: Overview, measures: Sequence[Measure], best: Mapping[str, str | None], passed: _Passed | None
) -> Iterator[Row]:
    for name, found in overview.rankers.items():
        cells = tuple(
            Cell(
                value_text(measure, found["metrics"].get(measure.name)),
                interval_text(measure, overview.interval(name, measure.name)),
                best=best.get(measure.name) == name,
            )
            for measure in measures
        )
        yield Row(visible(name), cells if passed is None else (*cells, *passed.cells(name)))


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
