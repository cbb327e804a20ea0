"""A condition that holds below some number goes in, that number comes out: an end of an interval that inverts a test."""

from __future__ import annotations

from collections.abc import Callable

HALVINGS = 60
"""Enough for the last bit of a number between -1 and 1."""


def boundary(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds from `low` on holds no more; `high` if it holds everywhere, `low` if nowhere."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2
