"""Values that are to be drawn go in, a scale with few, round ticks comes out, and the place of each value on it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from `first` to `last`, in the unit that people read, with `step` between its ticks.

    Attributes:
        first, last, step: In the values' unit.
        length: How long the drawing is, in the unit of places: pixels, or percent.
        margin: What stays free at either side, so that the figures below the outer ticks have room.
        signed: Whether the ticks say ``+`` above 0, as those of differences do.
    """

    first: float
    last: float
    step: float
    length: float
    margin: float
    signed: bool = True

    @property
    def zero(self) -> float | None:
        """The place of 0; None if it is not on the scale."""
        return self.at(0.0) if self.first <= 0 <= self.last else None

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where the ticks are, and what they say."""
        decimals = max(0, -math.floor(math.log10(self.step) + 1e-9))
        count = round((self.last - self.first) / self.step)
        values = (self.first + place * self.step for place in range(count + 1))
        return [(self.at(value), _tick(value, decimals, plus="+" if self.signed else "")) for value in values]

    def at(self, value: float) -> float:
        """The place of a value."""
        return round(self.margin + (self.length - 2 * self.margin) * (value - self.first) / (self.last - self.first), 2)


def axis_over(values: Iterable[float], *, length: float, margin: float, differences: bool = True) -> Axis:
    """A scale with all values that are finite on it.

    Args:
        values: In the unit that people read.
        length, margin: Of the drawing.
        differences: True puts 0 on it as well, and signs to the ticks; False is for values, which are compared with each other.
    """
    known = [value for value in values if math.isfinite(value)]
    if differences or not known:
        known.append(0.0)
    spread, size = max(known) - min(known), max(map(abs, known))
    if spread <= _NOISE * size or size < _LEAST:  # one value, but for rounding: ticks between would all be that value
        spread = size if size >= _LEAST else 1.0
    rough = spread / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = (math.floor(min(known) / step + 1e-9) * step, math.ceil(max(known) / step - 1e-9) * step)
    return Axis(first, last if last > first else first + step, step, length, margin, differences)


_NOISE = 1e-9
"""What is nearer to each other than so much of its size is drawn as equal."""

_LEAST = 1e-300
"""What is smaller is drawn as 0."""


def _tick(value: float, decimals: int, *, plus: str) -> str:
    text = f"{abs(value):,.{decimals}f}"
    return text if not text.strip("0.,") else (plus if value > 0 else "−") + text
