"""The numbers of a metric go in, short texts for people come out."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from llmrank.evaluation.report.numbers import MISSING, p_text, percent, significant
from llmrank.experiment.online.reading_options import MetricOptions


def value_text(metric: MetricOptions, value: float) -> str:
    """A conversion in percent, without the sign; anything else with four digits."""
    if not math.isfinite(value):
        return MISSING
    return percent(value, 2) if metric.kind == "conversion" else significant(value, 4)


def signed(metric: MetricOptions, value: float) -> str:
    """A difference with its sign."""
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = value_text(metric, abs(value))
    return text if not text.strip(f"0.,{MISSING}") else ("+" if value > 0 else "−") + text


def interval(metric: MetricOptions, low: float, high: float) -> str:
    """Both ends; empty if neither is known."""
    return f"[{signed(metric, low)}, {signed(metric, high)}]" if math.isfinite(low) or math.isfinite(high) else ""


def value_interval(metric: MetricOptions, low: float, high: float) -> str:
    """The interval of a value, without signs; empty if it is not known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return "[" + ", ".join(value_text(metric, end).replace("-", "−") for end in (low, high)) + "]"


def delta_text(value: float) -> str:
    """A preference in points, with its sign."""
    if math.isnan(value):
        return MISSING
    text = f"{100 * abs(value):.1f}"
    return text if not text.strip("0.") else ("+" if value > 0 else "−") + text


def delta_interval(low: float, high: float) -> str:
    """Both ends; empty if they are not known."""
    return "" if math.isnan(low) else f"[{delta_text(low)}, {delta_text(high)}]"


def points(metric: MetricOptions) -> str:
    """What stands behind a difference."""
    return " points" if metric.kind == "conversion" else ""


def p_equation(value: float) -> str:
    """The same in a sentence: ``p < 0.001``, ``p = 0.034``."""
    text = p_text(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def level(alpha: float) -> str:
    """An interval's confidence: ``99 %``."""
    return f"{100 * (1 - alpha):g}\N{NO-BREAK SPACE}%"


def moment(time: float) -> str:
    """A time in Unix seconds for people; a dash for one that no calendar has."""
    try:
        return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return MISSING
