"""An Overview goes in; how each ranker's answers could be read, and which errors there were, comes out as two tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmrank.evaluation.report.numbers import count, share, significant
from llmrank.evaluation.report.overview import STATUSES, Overview
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.visible import visible

_MEANING = (
    "ok: the model ranked every candidate in the form asked for",
    "repaired: it did, but the answer had to be repaired to read it",
    "partial: it ranked some of them",
    "fallback: nothing in its answer could be read as an order",
    "error: there was no answer",
)
_HEADINGS = {"repaired_cases": "Cases with repairs"}
"""Rankings of other statuses have repairs too, so the column must not be called like the status."""


def answers_table(overview: Overview) -> Table:
    """Parse status and what was repaired; the columns after the statuses are those that the summary has."""
    extra = list(dict.fromkeys(key for found in overview.rankers.values() for key in found.get("answers") or {}))
    rows = tuple(
        Row(
            visible(name),
            (
                *(Cell(count(found["status"].get(status, 0)), _share(found, status)) for status in STATUSES),
                *(Cell(_number(key, (found.get("answers") or {}).get(key))) for key in extra),
            ),
        )
        for name, found in overview.rankers.items()
    )
    columns = (*STATUSES, *(_HEADINGS.get(key) or key.replace("_", " ").capitalize() for key in extra))
    notes = [f"{'; '.join(_MEANING)}."]
    if extra:
        notes.append("Beside the status: parts of the cases with an answer, and mean numbers of items over these.")
    return Table("answers", "Parse status", overview.protocol, "Ranker", columns, rows, tuple(notes))


def errors_table(overview: Overview) -> Table:
    """How many cases ended in which error; a table without columns if there was none."""
    names = sorted({name for found in overview.rankers.values() for name in found.get("errors") or {}})
    rows = tuple(
        Row(visible(name), tuple(Cell(count((found.get("errors") or {}).get(error, 0))) for error in names))
        for name, found in overview.rankers.items()
        if found.get("errors")
    )
    return Table("errors", "Errors", overview.protocol, "Ranker", tuple(visible(name) for name in names), rows)


def _share(found: Mapping[str, Any], status: str) -> str:
    return share(found["status"].get(status, 0), found["cases"]) if found["status"].get(status) else ""


def _number(key: str, value: float | None) -> str:
    return share(value, 1) if value is not None and key.endswith("_cases") else significant(value)
