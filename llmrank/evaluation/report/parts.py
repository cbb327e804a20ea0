"""What a report is made of, before it is HTML or Markdown: tables of cells and figures of panels, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What it says.
        detail: What stands smaller beside it: an interval, a share.
        best: True marks it as the clear best of its column.
    """

    text: str
    detail: str = ""
    best: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `kind` is ``reference`` where it is no ranker but what chance gives."""

    header: str
    cells: tuple[Cell, ...]
    kind: Literal["ranker", "reference"] = "ranker"


@dataclass(frozen=True, slots=True)
class Table:
    """One table.

    Attributes:
        key: Its anchor in the page.
        title: Its heading.
        caption: The protocol: without it the numbers mean nothing.
        corner: The heading over the rows' headers.
        columns: The headings of the other columns.
        rows: As many cells each as there are columns.
        notes: How to read it, a sentence each.
    """

    key: str
    title: str
    caption: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: its heading, what it shows in words, and the plot as SVG."""

    title: str
    words: str
    svg: str


@dataclass(frozen=True, slots=True)
class Figure:
    """Plots that are read together; `size` says how wide one of them is."""

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    size: Literal["small", "medium", "wide"] = "medium"
