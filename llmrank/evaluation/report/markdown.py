"""An Overview and its tables go in, report.md comes out: what the page says without plots and cases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Cell, Row, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~&])")


def markdown(overview: Overview, tables: Iterable[Table]) -> Iterator[str]:
    """The chunks of the file (GitHub's Markdown)."""
    yield f"# Evaluation report\n\n{escaped(overview.protocol)}\n\n{escaped(overview.finding)}\n"
    if overview.warnings:
        yield "\n## Before you read the numbers\n\n"
        yield from (f"- {escaped(warning)}\n" for warning in overview.warnings)
    for table in tables:
        yield "\n"
        yield from table_markdown(table)
    yield "\nreport.html has the plots and each ranker's worst and best cases.\n"


def table_markdown(table: Table) -> Iterator[str]:
    """The chunks of one table, under a heading of its own."""
    yield f"## {escaped(table.title)}\n\n{escaped(table.caption)}\n\n"
    yield from _rows(table)
    if table.notes:
        yield "\n"
    yield from (f"- {escaped(note)}\n" for note in table.notes)


def escaped(text: str) -> str:
    """A text in which nothing is taken for Markdown or HTML, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _rows(table: Table) -> Iterator[str]:
    yield _row([table.corner, *table.columns])
    yield f"| --- |{' ---: |' * len(table.columns)}\n"
    for row in table.rows:
        yield "| " + " | ".join([_header(row), *map(_cell, row.cells)]) + " |\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(escaped, cells)) + " |\n"


def _header(row: Row) -> str:
    return f"*{escaped(row.header)}*" if row.kind == "reference" else escaped(row.header)


def _cell(cell: Cell) -> str:
    text = f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text)
    # An interval has brackets of its own.
    detail = cell.detail if cell.detail.startswith("[") or not cell.detail else f"({cell.detail})"
    return f"{text} {escaped(detail)}".strip()
