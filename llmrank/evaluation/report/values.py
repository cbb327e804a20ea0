"""A measure and its values go in, texts for people come out: its name, its unit, its numbers and intervals."""

from __future__ import annotations

import math
from typing import Any

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.report.numbers import MISSING, fixed, percent, significant

_WRITTEN = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "hit": "Hit rate"}


def known_interval(interval: Any) -> tuple[float, float] | None:
    """Both ends of an interval, or None if one is not known."""
    if interval is None or interval[0] is None or interval[1] is None:
        return None
    return float(interval[0]), float(interval[1])


def label(measure: Measure) -> str:
    """A measure's name as people write it: ``NDCG@10``."""
    family = _WRITTEN.get(measure.family, measure.family.replace("_", " ").capitalize())
    return family if measure.k is None else f"{family}@{measure.k}"


def unit(measure: Measure) -> str:
    """What a measure is shown in; empty for a number without a unit. Shares are shown in percent, as papers print them."""
    return {"share": "%", "bits": "bits", "users": "users"}.get(measure.unit, "")


def heading(measure: Measure) -> str:
    """A column's or an axis's heading: ``NDCG@10, %``."""
    return f"{label(measure)},\N{NO-BREAK SPACE}{unit(measure)}" if unit(measure) else label(measure)


def value_text(measure: Measure, value: float | None) -> str:
    """A value without its unit."""
    if measure.unit == "share":
        return percent(value)
    return significant(value) if measure.unit == "users" else fixed(value)


def signed(measure: Measure, value: float) -> str:
    """A difference without its unit, with its sign: ``+3.4``, ``−0.2``, ``0.0``; NaN is not known."""
    if math.isnan(value):
        return MISSING
    text = value_text(measure, abs(value))
    return text if not text.strip("0.,") else ("+" if value > 0 else "−") + text


def interval_text(measure: Measure, interval: tuple[float, float] | None) -> str:
    """An interval without its unit: ``[31.0, 37.4]``."""
    return f"[{value_text(measure, interval[0])}, {value_text(measure, interval[1])}]" if interval else ""


def scaled(measure: Measure, value: float) -> float:
    """A value in the unit that it is shown in."""
    return 100 * value if measure.unit == "share" else value


def percent_interval(interval: Any) -> str:
    """An interval of parts from 0 to 1, in percent without the sign; empty if it is not known."""
    known = known_interval(interval)
    return f"[{percent(known[0])}, {percent(known[1])}]" if known else ""
