"""A table of a report goes in, the same for a terminal comes out; titles and names in it are text, never markup.

Where a table is wider than the terminal it becomes several with the same rows, as many columns in each as fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmrank.evaluation.report.parts import Cell, Table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table as RichTable
    from rich.text import Text

NAME_CHARS = 20
"""A name of so many characters is never broken; a longer one is, where the terminal is too narrow for it."""

_GAP = 3
"""Between two columns: the padding of both, and what the box draws there."""


class TerminalTable:
    """What `Console.print` shows of a table: its title, the table in as many parts as it takes, and the protocol.

    Headings are folded at spaces, so that a measure's name keeps its ``@k``; what stands smaller beside a value stands in a
    line of its own.

    Args:
        table: Of a report.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        table = self._table
        names = min(_longest([table.corner, *(row.header for row in table.rows)]), options.max_width)
        widths = [_column_width(table, place) for place in range(len(table.columns))]
        if names + sum(_GAP + width for width in widths) + 2 > options.max_width:
            names = min(names, max(NAME_CHARS, options.max_width // 4))
        parts = list(_parts(widths, options.max_width - names - 2))
        for number, places in enumerate(parts, start=1):
            title = table.title if len(parts) == 1 else f"{table.title} ({number} of {len(parts)})"
            yield Text(title, "bold")
            yield self._part(places, names, widths)
        yield Text(table.caption, "dim italic")
        yield Text()

    def _part(self, places: Sequence[int], names: int, widths: Sequence[int]) -> RichTable:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        shown = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=True)
        shown.add_column(Text(self._table.corner), width=names, overflow="fold")
        for place in places:
            heading = _folded(self._table.columns[place], widths[place])
            shown.add_column(Text(heading), width=widths[place], justify="right", overflow="fold")
        for row in self._table.rows:
            header = Text(row.header, "italic" if row.kind == "reference" else "")
            shown.add_row(header, *(_text(row.cells[place]) for place in places))
        return shown


def terminal_table(table: Table) -> TerminalTable:
    """The table, ready for `Console.print`."""
    return TerminalTable(table)


def _longest(texts: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def _column_width(table: Table, place: int) -> int:
    """What the column's longest value takes, and the longest word of its heading."""
    values = [text for row in table.rows for text in (row.cells[place].text, row.cells[place].detail)]
    return _longest([*table.columns[place].split(" "), *values])


def _parts(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The places of columns that stand side by side; one column at least, however little room there is."""
    part: list[int] = []
    for place, width in enumerate(widths):
        if part and sum(_GAP + widths[each] for each in part) + _GAP + width > room:
            yield part
            part = []
        part.append(place)
    if part:
        yield part


def _folded(heading: str, width: int) -> str:
    """In lines of so many characters, broken at plain spaces only."""
    from rich.cells import cell_len

    lines = [""]
    for word in heading.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(filter(None, lines))


def _text(cell: Cell) -> Text:
    from rich.text import Text

    shown = Text(cell.text, "bold" if cell.best else "")
    return shown.append(f"\n{cell.detail}", "dim") if cell.detail else shown
