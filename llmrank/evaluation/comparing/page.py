"""A Comparison goes in, one HTML page comes out that opens offline: its tables, and each difference drawn with its interval.

The page runs no script and loads nothing; its policy (CSP) forbids both. Names and notes are foreign text: they are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.statistics import Difference
from llmrank.evaluation.report.numbers import day
from llmrank.evaluation.report.offline import offline_template
from llmrank.evaluation.report.scale import Axis, axis_over
from llmrank.evaluation.report.values import label, scaled
from llmrank.evaluation.report.visible import visible

if TYPE_CHECKING:
    from llmrank.evaluation.comparing.comparison import Comparison, Row

WIDTH = 240
"""The width of a drawing, in pixels."""

MARGIN = 20
"""What stays free at either side, so that the figures below the outer ticks have room."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One difference as it is drawn: x positions in pixels.

    Attributes:
        low, high: The interval's ends; None if there is none.
        mean: The point; None if there is none.
        side: Where the interval lies: wholly ``higher`` or ``lower`` than 0, or ``unclear``.
        words: What the drawing says, for who cannot see it.
    """

    low: float | None
    high: float | None
    mean: float | None
    side: Literal["higher", "lower", "unclear"]
    words: str


def page(comparison: Comparison) -> str:
    """The whole page."""
    sections = []
    for table in comparison.tables():
        rows = comparison.of(table.key)
        axis = _axis(rows)
        bars = [None if row.difference is None else _bar(row.measure, row.difference, axis) for row in rows]
        sections.append({"table": table, "axis": axis, "rows": list(zip(table.rows, bars, strict=True))})
    return offline_template("llmrank.evaluation.comparing", "compare.html.jinja", "compare.css").render(
        comparison=comparison,
        baseline=visible(comparison.baseline),
        primary=label(comparison.of(comparison.primary)[0].measure),
        notes=[visible(note) for note in comparison.notes],
        sections=sections,
        runs=[(visible(name), day(created)) for name, created in comparison.runs],
        width=WIDTH,
    )


def _axis(rows: Sequence[Row]) -> Axis:
    """A scale with 0 and all intervals on it, and with few, round ticks."""
    values: list[float] = []
    for row in rows:
        if row.difference is not None:
            ends = (row.difference.low, row.difference.mean, row.difference.high)
            values += [scaled(row.measure, end) for end in ends]
    return axis_over(values, length=WIDTH, margin=MARGIN)


def _bar(measure: Measure, difference: Difference, axis: Axis) -> Bar:
    def at(value: float) -> float | None:
        return None if math.isnan(value) else axis.at(scaled(measure, value))

    side: Literal["higher", "lower", "unclear"] = "unclear"
    if difference.low > 0:
        side = "higher"
    elif difference.high < 0:
        side = "lower"
    words = {"higher": "The interval lies above 0.", "lower": "The interval lies below 0.", "unclear": "The interval holds 0."}
    known = not math.isnan(difference.low)
    text = words[side] if known else "There is no interval."
    return Bar(at(difference.low), at(difference.high), at(difference.mean), side, text)
