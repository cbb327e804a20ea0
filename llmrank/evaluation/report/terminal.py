"""A table of a report goes in, the same for a terminal comes out; titles and names in it are text, never markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrank.evaluation.report.parts import Cell, Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text


def terminal_table(table: Table) -> RichTable:
    """The table with its protocol below it; what stands smaller beside a value stands in a line of its own."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        title=Text(table.title, "bold"),
        title_justify="left",
        caption=Text(table.caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_lines=False,
    )
    shown.add_column(table.corner, overflow="fold")
    for column in table.columns:
        shown.add_column(Text(column), justify="right")
    for row in table.rows:
        shown.add_row(Text(row.header, "italic" if row.kind == "reference" else ""), *map(_text, row.cells))
    return shown


def _text(cell: Cell) -> Text:
    from rich.text import Text

    shown = Text(cell.text, "bold" if cell.best else "")
    return shown.append(f"\n{cell.detail}", "dim") if cell.detail else shown
