"""Tables in a terminal: nothing of a name, a heading or a value is lost, however narrow it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.terminal import terminal_table
from llmrank.evaluation.report.values import heading

NAMES = [
    "ndcg@1", "ndcg@5", "ndcg@10", "hit@10", "recall@10", "precision@5", "mrr", "map@10", "coverage@10", "novelty@10",
    "diversity@100", "popularity@10",
]  # fmt: skip
RANKERS = ("popularity", "qwen listwise w=20", "abcdefghij-klmno-pqr")
"""Names of 20 characters at most, with spaces and without."""


def shown(table: Table, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False).print(terminal_table(table))
    return out.getvalue().splitlines()


def quality(measures: int, rankers: tuple[str, ...] = RANKERS) -> Table:
    """As wide as the main table of a report; every value is another one."""
    headings = tuple(heading(parse_measure(name)) for name in NAMES[:measures])
    rows = tuple(
        Row(
            name,
            tuple(Cell(f"{10 * row + 1}.{place:02}", f"[1{row}.{place:02}, 2{row}.{place:02}]") for place in range(measures)),
        )
        for row, name in enumerate(rankers)
    )
    return Table("quality", "Relevance", "Leave-last-out.", "Ranker", headings, rows)


@pytest.mark.parametrize("measures", [1, 5, 12])
@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_cut_at_any_width(width: int, measures: int) -> None:
    """No line is too long; each part has every ranker on one line; every measure's @k, value and interval is there once."""
    table = quality(measures)
    lines = shown(table, width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    parts = text.count("Relevance")
    assert parts == 1 or f"Relevance ({parts} of {parts})" in text
    for name in RANKERS:
        assert sum(line.startswith(f" {name} ") for line in lines) == parts
    words = text.split()
    for column in table.columns:
        # The last word of a heading has the k, and stays whole.
        word = column.split(" ")[-1].split("\N{NO-BREAK SPACE}")[0]
        assert word in words, column
    for row in table.rows:
        for cell in row.cells:
            assert words.count(cell.text) == 1
            assert text.count(cell.detail) == 1
    assert text.count("Leave-last-out.") == 1


def test_a_table_is_split_only_where_it_must_be() -> None:
    """Two measures fit in 60 columns, twelve in 240."""
    assert "1 of" not in "\n".join(shown(quality(2, ("a", "b")), 60))
    assert "1 of" not in "\n".join(shown(quality(12), 240))
    assert "1 of" in "\n".join(shown(quality(12), 80))


@pytest.mark.parametrize("width", [30, 40, 60])
def test_a_long_name_is_folded_and_all_there(width: int) -> None:
    """Its pieces, put together, are the name, and no line is too long."""
    name = "a-ranker-with-a-name-of-more-characters-than-the-terminal-has"
    lines = shown(quality(1, (name,)), width)
    assert max(map(len, lines)) <= width
    below = lines[next(place for place, line in enumerate(lines) if "──" in line) + 1 : lines.index("Leave-last-out.")]
    assert "".join(line.split()[0] for line in below if line.strip()) == name


def test_foreign_text_is_no_markup() -> None:
    """Square brackets and colons of names and titles stay."""
    table = Table("k", "[bold]t[/]", ":smile:", "[c]", ("[x] y",), (Row("[red]r[/red]", (Cell("[b]", "[1, 2]"),)),))
    text = "\n".join(shown(table, 80))
    for each in ("[bold]t[/]", ":smile:", "[c]", "[x]", "[red]r[/red]", "[b]", "[1, 2]"):
        assert each in text
