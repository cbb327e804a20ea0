"""Numbers of a summary go in, short texts for people come out. A number that is not known is a dash, never a zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from llmrank.evaluation.report.visible import visible

MISSING = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """A part from 0 to 1 in percent, without the sign: 0.3423 is ``34.2``."""
    return MISSING if value is None else _unsigned_zero(f"{100 * value:.{digits}f}")


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals."""
    return MISSING if value is None else _unsigned_zero(f"{value:,.{digits}f}")


def significant(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, not in powers of ten: 0.004132 is ``0.00413``, 1234.5 is ``1,234``."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return MISSING if value is None else f"{value:,.0f}"


def dollars(value: float | None) -> str:
    """US dollars: to the cent from one dollar on, to two significant digits below."""
    if value is None:
        return "unknown"
    return f"{value:,.2f}" if value >= 1 or value == 0 else significant(value, 2)


def share(part: float, whole: float) -> str:
    """A part of a whole in percent, with the sign; below 0.1 % it says so rather than 0."""
    if not whole:
        return MISSING
    ratio = part / whole
    return "< 0.1 %" if 0 < ratio < 0.0005 else f"{percent(ratio)} %"  # half of the last digit shown


def p_text(value: float) -> str:
    """A p value: ``< 0.001``, ``0.012``, ``0.34``; NaN is not known."""
    if math.isnan(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def ordinal(place: int) -> str:
    """1 is ``1st``."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def bin_label(first: int, last: int | None) -> str:
    """A range of whole numbers: ``0``, ``1–5``, ``51+``."""
    if last is None:
        return f"{first}+"
    return str(first) if first == last else f"{first}–{last}"


def day(time: str) -> str:
    """An ISO time as a day and a minute: ``2026-11-22 02:00 UTC``; what is none stays as it is, without what hides."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return visible(time)
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".strip()


def joined(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _unsigned_zero(text: str) -> str:
    return text.removeprefix("-") if not text.strip("-0.,") else text
