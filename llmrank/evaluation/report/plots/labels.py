"""Points with names go in, places for the names come out, so that none covers another or a point. All in pixels.

Greedy, in the order of the points (the best ranker first): the nearest free place of a few around the point; where all are
taken, a place further up or down with a thin line to the point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_CHAR, _HEIGHT, _GAP = 6.1, 13.0, 8.0
"""Of 11 pixel text: the width of a character, the height of a line, the distance to the point."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point and its name; y grows downwards."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a name begins (its left end, its middle line), and the line to its point if it stands away from it."""

    x: float
    y: float
    text: str
    leader: tuple[float, float, float, float] | None = None


def place_labels(points: Sequence[Point], width: float, height: float) -> list[Placed]:
    """One place a point, in the points' order; inside the plot as long as there is room.

    Args:
        points: In the order in which they may choose.
        width: Of the plot.
        height: Of the plot.
    """
    taken = [(point.x - 5, point.y - 5, point.x + 5, point.y + 5) for point in points]
    placed = []
    for point in points:
        length = _CHAR * len(point.text)
        places = list(_around(point, length))
        free = [(x, y, far) for x, y, far in places if _fits(x, y, length, width, height, taken)]
        x, y, far = free[0] if free else places[0]
        taken.append(_box(x, y, length))
        # The line ends at that end of the name which is nearer to the point.
        end = x - 2 if x > point.x else min(x + length + 2, max(x, point.x))
        placed.append(Placed(x, y, point.text, (point.x, point.y, end, y) if far else None))
    return placed


def _around(point: Point, length: float) -> Iterator[tuple[float, float, bool]]:
    """Places, the best first: left end, middle line, and whether a line to the point is needed."""
    sides = (point.x + _GAP, point.x - _GAP - length)
    yield from ((x, point.y, False) for x in sides)
    yield from ((point.x - length / 2, point.y + shift, False) for shift in (-_HEIGHT, _HEIGHT))
    for step in range(1, 16):
        for sign in (-1, 1):
            yield from ((x + (10 if x > point.x else -10), point.y + sign * step * _HEIGHT * 0.8, True) for x in sides)


def _box(x: float, y: float, length: float) -> tuple[float, float, float, float]:
    return x, y - _HEIGHT / 2, x + length, y + _HEIGHT / 2


def _fits(
    x: float, y: float, length: float, width: float, height: float, taken: Sequence[tuple[float, float, float, float]]
) -> bool:
    left, top, right, bottom = _box(x, y, length)
    if left < 0 or right > width or top < 0 or bottom > height:
        return False
    return all(right <= each[0] or each[2] <= left or bottom <= each[1] or each[3] <= top for each in taken)
