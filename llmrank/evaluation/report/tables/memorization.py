"""An Overview goes in; what each model knows of the catalogue by heart comes out, a table each for titles and histories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmrank.evaluation.report.numbers import count, percent
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import percent_interval
from llmrank.evaluation.report.visible import shortened, visible

_METHODS = {"complete": "writes the continuation", "score": "scores continuations"}
_EXAMPLE_CHARS = 80
_WHAT = {
    "titles": (
        "Memorisation of titles",
        "Real: how often the model completes the first half of a title of the catalogue with its second half. Control: with "
        "the second half of another title.",
        "a true title is also better language than two halves of different ones",
    ),
    "histories": (
        "Memorisation of histories",
        "Real: how often the model names the next item of a user's history. Control: the same with the history shuffled but "
        "for its last item.",
        "the order of a history also tells where a user's taste went",
    ),
}


def memorization_tables(overview: Overview) -> Iterator[Table]:
    """Tables of the probe; none if the suite did not ask for it."""
    found = overview.summary.get("memorization") or {}
    for part, (title, reading, otherwise) in _WHAT.items():
        rows = tuple(
            Row(visible(name), _cells(found[name], part)) for name in overview.rankers if (found.get(name) or {}).get(part)
        )
        notes = (
            reading,
            "A difference whose 95 % interval lies above 0 is a reason to doubt that the model is as good on data that it has "
            f"not seen. It is no proof that it has seen these: {otherwise}.",
        )
        columns = ("Method", "Answered", "Real, %", "Control, %", "Difference, points", "Chance, %")
        yield Table(f"memorization-{part}", title, overview.protocol, "Ranker", columns, rows, notes)


def memorization_examples(overview: Overview) -> Iterator[tuple[str, str]]:
    """What was asked and answered, a ranker and a line each, shortened."""
    for name, of_ranker in (overview.summary.get("memorization") or {}).items():
        for part in _WHAT:
            for example in ((of_ranker or {}).get(part) or {}).get("examples") or ():
                yield visible(name), shortened(_example(example), 4 * _EXAMPLE_CHARS)


def _example(example: Any) -> str:
    if isinstance(example, Mapping):
        return "; ".join(f"{visible(key)}: {shortened(visible(value), _EXAMPLE_CHARS)}" for key, value in example.items())
    return visible(example)


def _cells(found: Mapping[str, Any], part: str) -> tuple[Cell, ...]:
    result = found[part]
    method = str(found.get("method", ""))
    return (
        Cell(_METHODS.get(method, visible(method))),
        Cell(count(result["n"])),
        Cell(percent(result["real"]), percent_interval(result.get("real_ci"))),
        Cell(percent(result["control"]), percent_interval(result.get("control_ci"))),
        Cell(percent(result["difference"]), percent_interval(result.get("ci"))),
        Cell(percent(result.get("chance"))),
    )
