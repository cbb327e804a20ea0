"""Values or differences with their intervals go in; their places on one scale come out, in percent of a drawing's width.

A drawing is as wide as the page lets it be, so nothing here knows pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmrank.evaluation.report.scale import Axis

SIDE = 8.0
"""What stays free at either side, in percent, so that the figures below the outer ticks have room."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A value or a difference as it is drawn.

    Attributes:
        low, mean, high: Places; None where there is no such value.
        side: Its class: ``better``, ``worse``, ``higher``, ``lower``, ``unclear``.
        words: What the drawing says, for who cannot see it.
    """

    low: float | None
    mean: float | None
    high: float | None
    side: str
    words: str


@dataclass(frozen=True, slots=True)
class Lane:
    """One of the lines of a forest plot.

    Attributes:
        who: What stands before it: whose value it is.
        mark: What is drawn.
        text, detail: What stands behind it: the value, and its interval.
        how: How it was read, where one drawing has two ways; stands smaller.
        more: True if `who` is that of the lane above, and need not be said again.
        decided: True marks the one that the decision names.
    """

    who: str
    mark: Mark
    text: str
    detail: str = ""
    how: str = ""
    more: bool = False
    decided: bool = False


@dataclass(frozen=True, slots=True)
class Forest:
    """Several lanes on one scale.

    Attributes:
        axis: The scale.
        lanes: From top to bottom.
        ends: What lies to the left and to the right; None if that needs no saying.
        band: Places between which a difference is too small to matter; None if nobody said so.
        line: The place of a value that the others are seen against; None for none.
    """

    axis: Axis
    lanes: tuple[Lane, ...]
    ends: tuple[str, str] | None = None
    band: tuple[float, float] | None = None
    line: float | None = None


def mark(low: float, mean: float, high: float, on: Axis, side: str, words: str) -> Mark:
    """A value with its interval on its axis; ends that are not known or infinite are not drawn.

    Args:
        low, mean, high: In the axis's unit.
        on: The axis.
        side, words: Of the `Mark`.
    """

    def at(value: float) -> float | None:
        return on.at(value) if math.isfinite(value) else None

    return Mark(at(low), at(mean), at(high), side, words)


def side(low: float, high: float, better: str) -> str:
    """Where the interval of a difference lies: ``better``, ``worse``, ``higher``, ``lower`` (where neither is better), or
    ``unclear`` if it holds 0 or is not known.

    Args:
        low, high: Its ends.
        better: ``higher``, ``lower`` or ``neither``.
    """
    found = "higher" if low > 0 else "lower" if high < 0 else "unclear"
    if found == "unclear" or better == "neither":
        return found
    return "better" if found == better else "worse"


SIDES = {
    "better": "better than the control",
    "worse": "worse than the control",
    "higher": "higher than the control",
    "lower": "lower than the control",
    "unclear": "the interval holds 0",
}
"""What `side` means, for who cannot see it."""

ENDS = {"higher": ("worse", "better"), "lower": ("better", "worse"), "neither": ("lower", "higher")}
"""What lies to the left and to the right of no difference, by the direction that is better."""
