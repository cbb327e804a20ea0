"""Two texts go in, aligned rows of lines come out, with the words that differ marked; and the rows in stretches that fold.

Nothing is cleaned and nothing is lost: the left sides of all rows, joined by line feeds, are the left text, and the right sides
the right one. Who shows the rows makes the texts visible before, so that what differs is what is seen to differ.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

ALIKE = 0.5
"""Two lines stand in one row if so large a part of their words is the same (Dice's coefficient, by letters)."""

_PAIRS = 4_000
"""In a block with more pairs of lines than this, lines are paired by their place, not by what they share."""

_EXACT_LINES = 600
"""Up to so many lines a text, lines that stand in it often are matched too."""

_WORDS = 800
"""In a longer line than this no word is looked for that differs: the whole line counts as changed."""

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line; `changed` if the other side has something else there."""

    text: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One line of one text: its number from 1, and its pieces in order."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        """The line."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class DiffRow:
    """One row: a line of either text, or of both if they are the same or alike."""

    left: Side | None
    right: Side | None
    same: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows that follow each other; a `folded` stretch is the same in both texts and far from any change."""

    rows: tuple[DiffRow, ...]
    folded: bool


def aligned(left: str, right: str) -> tuple[DiffRow, ...]:
    """The lines of two texts side by side, in order; a line feed ends a line, nothing else does."""
    old, new = left.split("\n"), right.split("\n")
    exact = max(len(old), len(new)) <= _EXACT_LINES
    rows: list[DiffRow] = []
    for kind, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=not exact).get_opcodes():
        if kind == "equal":
            rows += [DiffRow(_plain(i + step, old), _plain(j + step, new), same=True) for step in range(i_end - i)]
        else:
            rows += _block(old, new, range(i, i_end), range(j, j_end))
    return tuple(rows)


def stretches(rows: Sequence[DiffRow], context: int = 3) -> tuple[Stretch, ...]:
    """The rows in order, with every run of equal rows folded but for `context` of them beside a change.

    A run is folded only where that hides more rows than the fold itself takes.
    """
    near = [False] * len(rows)
    for place, row in enumerate(rows):
        if not row.same:
            for other in range(max(0, place - context), min(len(rows), place + context + 1)):
                near[other] = True
    found: list[Stretch] = []
    for hidden, run in _runs(near, rows):
        folds = hidden and len(run) > 2
        if found and not folds and not found[-1].folded:
            found[-1] = Stretch((*found[-1].rows, *run), folded=False)
        else:
            found.append(Stretch(run, folds))
    return tuple(found)


def _runs(near: Sequence[bool], rows: Sequence[DiffRow]) -> Iterator[tuple[bool, tuple[DiffRow, ...]]]:
    begin = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or near[place] != near[begin]:
            yield not near[begin], tuple(rows[begin:place])
            begin = place


def _plain(place: int, lines: Sequence[str], *, changed: bool = False) -> Side:
    return Side(place + 1, (Piece(lines[place], changed),))


def _block(old: Sequence[str], new: Sequence[str], here: range, there: range) -> Iterator[DiffRow]:
    """Lines that were replaced: those that are alike in one row, the others by themselves, the left ones first."""
    i, j = here.start, there.start
    for pair in [*_pairs(old, new, here, there), (here.stop, there.stop)]:
        for place in range(i, pair[0]):
            yield DiffRow(_plain(place, old, changed=True), None, same=False)
        for place in range(j, pair[1]):
            yield DiffRow(None, _plain(place, new, changed=True), same=False)
        if pair[0] < here.stop:
            yield _changed(pair[0], pair[1], old, new)
        i, j = pair[0] + 1, pair[1] + 1


def _pairs(old: Sequence[str], new: Sequence[str], here: range, there: range) -> list[tuple[int, int]]:
    """The pairs of lines that are alike, in order, chosen so that the sum of their likenesses is largest."""
    if len(here) * len(there) > _PAIRS:
        pairs = zip(here, there, strict=False)
        return [(i, j) for i, j in pairs if _likeness(_words(old[i]), _words(new[j])) >= ALIKE]
    words, others = [_words(old[i]) for i in here], [_words(new[j]) for j in there]
    alike = [[_likeness(mine, other) for other in others] for mine in words]
    best = [[0.0] * (len(there) + 1) for _ in range(len(here) + 1)]
    for i in reversed(range(len(here))):
        for j in reversed(range(len(there))):
            together = alike[i][j] + best[i + 1][j + 1] if alike[i][j] >= ALIKE else 0.0
            best[i][j] = max(together, best[i + 1][j], best[i][j + 1])
    found, i, j = [], 0, 0
    while i < len(here) and j < len(there):
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            found.append((here[i], there[j]))
            i, j = i + 1, j + 1
    return found


def _words(line: str) -> Counter[str]:
    """How many letters each word takes in all; white space is no word."""
    found: Counter[str] = Counter()
    for word in _TOKEN.findall(line):
        if not word.isspace():
            found[word] += len(word)
    return found


def _likeness(mine: Counter[str], other: Counter[str]) -> float:
    total = mine.total() + other.total()
    return 2 * (mine & other).total() / total if total else 0.0


def _changed(i: int, j: int, old: Sequence[str], new: Sequence[str]) -> DiffRow:
    mine, other = _TOKEN.findall(old[i]), _TOKEN.findall(new[j])
    if max(len(mine), len(other)) > _WORDS:
        return DiffRow(_plain(i, old, changed=True), _plain(j, new, changed=True), same=False)
    left, right = [False] * len(mine), [False] * len(other)
    for kind, a, a_end, b, b_end in SequenceMatcher(None, mine, other, autojunk=False).get_opcodes():
        if kind != "equal":
            left[a:a_end] = [True] * (a_end - a)
            right[b:b_end] = [True] * (b_end - b)
    return DiffRow(Side(i + 1, _pieces(mine, left)), Side(j + 1, _pieces(other, right)), same=False)


def _pieces(tokens: Sequence[str], changed: list[bool]) -> tuple[Piece, ...]:
    # A space between two changed words is part of the change to an eye, else each word has a mark of its own.
    for place in range(1, len(tokens) - 1):
        if tokens[place].isspace() and changed[place - 1] and changed[place + 1]:
            changed[place] = True
    found: list[Piece] = []
    for token, mark in zip(tokens, changed, strict=True):
        if found and found[-1].changed == mark:
            found[-1] = Piece(found[-1].text + token, mark)
        else:
            found.append(Piece(token, mark))
    return tuple(found)
