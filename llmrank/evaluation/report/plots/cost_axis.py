"""Costs go in, their places on an axis come out: linear, or logarithmic with a place for 0 where they lie far apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmrank.evaluation.report.numbers import significant
from llmrank.evaluation.report.plots.style import decades, spread

_LOG_FROM = 20
"""Costs that lie further apart than this factor stand on a logarithmic axis."""
_MARGIN = 24
_ZERO_WIDTH = 70
"""Pixels between the place for 0 and the smallest cost above it."""


class CostAxis:
    """An axis in pixels.

    Args:
        costs: None negative, not all 0.
        width: Of the axis, in pixels.
    """

    def __init__(self, costs: Sequence[float], width: float) -> None:
        self._width = width
        positive = [cost for cost in costs if cost > 0]
        self._low, self._high = min(positive), max(positive)
        self.logarithmic = spread(positive) > _LOG_FROM
        self._begin = _MARGIN + (_ZERO_WIDTH if self.logarithmic and min(costs) <= 0 else 0)
        self._zero = min(costs) <= 0

    def pixel(self, cost: float) -> float:
        """Where a cost stands."""
        room = self._width - self._begin - 2 * _MARGIN
        if not self.logarithmic:
            return round(self._begin + room * cost / self._high, 1)
        if cost <= 0:
            return float(_MARGIN)
        return round(self._begin + room * math.log(cost / self._low) / math.log(self._high / self._low), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The pixels of the ticks, and what they say."""
        if self.logarithmic:
            values = [*([0.0] if self._zero else []), *decades(self._low / 1.5, self._high * 1.5)]
        else:
            step = 10.0 ** math.floor(math.log10(self._high))
            step = next(step * part for part in (0.2, 0.5, 1, 2) if self._high / (step * part) <= 6)
            values = [step * n for n in range(int(self._high / step + 1e-9) + 2)]
        placed = [(self.pixel(value), f"{value:,.6g}" if value < 1e6 else significant(value)) for value in values]
        return [(pixel, text) for pixel, text in placed if 0 <= pixel <= self._width]

    @property
    def remark(self) -> str:
        """What the axis's heading has to add."""
        return ", logarithmic" if self.logarithmic else ""
