"""Values go in, places on a scale come out, in percent of a drawing's width: differences on an axis, guardrails by margin.

A drawing is as wide as the page lets it be, so nothing here knows pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.statistics import Difference
from llmrank.evaluation.report.scale import Axis, axis_over
from llmrank.evaluation.report.values import label, scaled, signed
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.findings import Effect, Guardrail
from llmrank.experiment.report.forest import SIDE, SIDES, Mark
from llmrank.experiment.report.forest import mark as place
from llmrank.experiment.report.words import better, change, interval, points, verdict

_BEFORE, _AFTER = -1.0, 2.0
"""The ends of a guardrail's scale, in margins; what lies beyond is drawn at the end."""


_SCALE = Axis(_BEFORE, _AFTER, 1.0, 100, SIDE)

MARGIN_PLACE = _SCALE.at(1.0)
"""Where the margins of all guardrails stand."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A guardrail as it is drawn: what is worse lies to the right.

    Attributes:
        zero, margin: The places of no difference and of the margin.
        mean, bound: Places of the difference and of what it may be at worst; None where there is no such value.
        beyond: True if the bound lies farther out than the drawing reaches.
        words: What the drawing says.
    """

    zero: float
    margin: float
    mean: float | None
    bound: float | None
    beyond: bool
    words: str


def axis(effects: Iterable[Effect], more: Sequence[float] = ()) -> Axis:
    """A scale with 0, all intervals and `more` on it, and with few, round ticks. All effects are of one unit."""
    values: list[float] = []
    for effect in effects:
        difference = effect.difference
        values += [scaled(effect.measure, end) for end in (difference.low, difference.mean, difference.high, *more)]
    return axis_over(values, length=100, margin=SIDE)


def mark(effect: Effect, on: Axis) -> Mark:
    """A difference on its axis."""
    measure, difference = effect.measure, effect.difference
    low, mean, high = (scaled(measure, value) for value in (difference.low, difference.mean, difference.high))
    return place(low, mean, high, on, better(measure, difference), _words(measure, effect.variant, difference))


def _words(measure: Measure, variant: str, difference: Difference) -> str:
    said = SIDES[better(measure, difference)] if interval(measure, difference) else "there is no interval"
    text = f"{visible(variant)}, {label(measure)}: {signed(measure, difference.mean)}{points(measure)}"
    return f"{text} {interval(measure, difference)}, {said}".replace("  ", " ").replace(" ,", ",")


def gauge(guardrail: Guardrail) -> Gauge:
    """A guardrail on a scale on which all margins stand at the same place."""
    result = guardrail.result
    sign = 1 if guardrail.worse == "higher" else -1
    unit = abs(result.margin) or max(abs(result.bound), abs(result.difference)) or 1.0
    if not math.isfinite(unit):
        unit = 1.0

    def at(value: float) -> float | None:
        return _SCALE.at(min(_AFTER, max(_BEFORE, sign * value / unit))) if not math.isnan(value) else None

    words = (
        f"{visible(guardrail.name)} of {visible(guardrail.variant)}: {change(guardrail, result.difference)}, at worst "
        f"{change(guardrail, result.bound)}; {verdict(guardrail)}"
    )
    beyond = sign * result.bound / unit > _AFTER
    margin = _SCALE.at(1.0 if result.margin else 0.0)
    return Gauge(_SCALE.at(0.0), margin, at(result.difference), at(result.bound), beyond, words)
