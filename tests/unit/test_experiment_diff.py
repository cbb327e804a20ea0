"""Two texts side by side: what is aligned with what, what is marked, what folds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.experiment.report.diff import DiffRow, Side, aligned, stretches

USUAL = ["", "Rank the movies.", "Rank the films now.", "a b c", "a b d", "[A] Alien"]
LINES = st.lists(st.one_of(st.sampled_from(USUAL), st.text(max_size=12)))
TEXTS = LINES.map("\n".join)


def text_of(rows: tuple[DiffRow, ...], side: str) -> str:
    """One side's lines, joined again."""
    found: list[Side] = [line for row in rows if (line := getattr(row, side)) is not None]
    return "\n".join(line.text for line in found)


def numbers(rows: tuple[DiffRow, ...], side: str) -> list[int]:
    """The numbers of one side's lines."""
    return [line.number for row in rows if (line := getattr(row, side)) is not None]


@given(TEXTS, TEXTS)
def test_joining_a_side_gives_its_text_back(left: str, right: str) -> None:
    """Nothing is lost, doubled or moved, on either side; numbers count from 1; a row that is the same has both sides alike."""
    rows = aligned(left, right)
    for side, text in (("left", left), ("right", right)):
        assert text_of(rows, side) == text
        assert numbers(rows, side) == list(range(1, text.count("\n") + 2))
    for row in rows:
        assert row.left is not None or row.right is not None
        both = row.left is not None and row.right is not None
        assert row.same == (both and row.left.text == row.right.text)  # type: ignore[union-attr]  # both are there


@given(TEXTS)
def test_equal_texts_have_no_change(text: str) -> None:
    """Every row is the same, and nothing is marked."""
    for row in aligned(text, text):
        assert row.same
        assert row.left is not None
        assert not any(piece.changed for piece in row.left.pieces)


@given(TEXTS, TEXTS)
def test_what_is_not_marked_is_on_both_sides(left: str, right: str) -> None:
    """In a row with both lines, the unmarked pieces of either are the same text, but for white space between two changes."""
    for row in aligned(left, right):
        if row.left is not None and row.right is not None:
            kept = ["".join(piece.text for piece in side.pieces if not piece.changed) for side in (row.left, row.right)]
            assert "".join(kept[0].split()) == "".join(kept[1].split())


@given(TEXTS, TEXTS, st.integers(0, 4))
def test_stretches_keep_all_rows_and_fold_no_change(left: str, right: str, context: int) -> None:
    """The stretches hold the rows in order; a folded one has equal rows only, none of them near a change."""
    rows = aligned(left, right)
    found = stretches(rows, context)
    assert tuple(row for stretch in found for row in stretch.rows) == rows
    place = 0
    for stretch in found:
        if stretch.folded:
            around = rows[max(0, place - context) : place + len(stretch.rows) + context]
            assert all(row.same for row in around)
            assert len(stretch.rows) > 2
        place += len(stretch.rows)


def test_words_that_differ_are_marked() -> None:
    """Lines that are alike share a row; the changed words alone are marked, a space between two of them with them."""
    (row,) = aligned("Rank the 20 movies by taste.", "Rank the 20 films you like by taste.")
    assert row.left is not None
    assert row.right is not None
    assert [(piece.text, piece.changed) for piece in row.left.pieces] == [
        ("Rank the 20 ", False),
        ("movies", True),
        (" by taste.", False),
    ]
    assert [piece.text for piece in row.right.pieces if piece.changed] == ["films you like"]


def test_lines_that_are_not_alike_stand_by_themselves() -> None:
    """A replaced line that shares nothing with the new one is a row without a right side, then one without a left side."""
    rows = aligned("same\nalpha beta\nend", "same\n1 2 3 4\nend")
    assert [(row.left and row.left.text, row.right and row.right.text) for row in rows] == [
        ("same", "same"),
        ("alpha beta", None),
        (None, "1 2 3 4"),
        ("end", "end"),
    ]


def test_an_inserted_line_does_not_shift_what_is_alike() -> None:
    """In a block of replaced lines each meets its like, not the one at its place."""
    old = "rank the movies well\nanswer in one line"
    new = "a wholly new sentence\nrank the films well\nanswer in one line only"
    pairs = [(row.left.number if row.left else 0, row.right.number if row.right else 0) for row in aligned(old, new)]
    assert pairs == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("left", "right"),
    [("x\n" * 2500, "x\ny\n" * 1500), ("a b " * 20_000, "a c " * 20_000), ("\n".join(map(str, range(700))), "no\n" * 700)],
)
def test_long_texts_are_aligned_too(left: str, right: str) -> None:
    """Many equal lines, one endless line, and large blocks without anything in common keep their texts."""
    rows = aligned(left, right)
    assert text_of(rows, "left") == left
    assert text_of(rows, "right") == right
