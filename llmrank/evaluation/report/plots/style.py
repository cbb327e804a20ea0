"""An Altair chart goes in, an inline SVG comes out: the look of all plots, and what makes them safe to stand in one page.

Colours are of Okabe and Ito 2008 ("Color universal design") and Tol 2021: they are told apart by people who do not see all
colours, on white and on black. The page's style sheet sets texts, axes and grids, so that they follow dark mode.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from llmrank.errors import SetupError
from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.report.visible import visible

ACCENT = "#0072B2"
QUIET = "#999999"
STATUS_COLOURS = {"ok": "#009E73", "repaired": "#56B4E9", "partial": "#E69F00", "fallback": "#D55E00", "error": "#AA3377"}

STEP = 22
"""Pixels of height for each ranker in a plot with one row a ranker."""
LABEL_CHARS = 22
"""The most characters of a ranker's name in a plot; the tables have all of it."""

_TICKS = 9

_CLIP = re.compile(r'(\bid="|url\(#)(clip\d+)')
_SVG = re.compile(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>')


def altair() -> Any:
    """The module. Raises SetupError if the extra is not installed."""
    try:
        import altair
        import vl_convert  # noqa: F401  # it makes the SVG
    except ImportError as error:
        raise SetupError(f"plots need altair and vl-convert ({error}): pip install 'llmrank[eval]'") from error
    return altair


def svg(chart: Any, *, key: str) -> str:
    """Draws a chart.

    Args:
        chart: An Altair chart whose data are in it.
        key: Different for each SVG of a page: the ids inside are made different by it.

    Returns:
        An ``<svg>`` without style attributes (the page's policy forbids them), hidden from screen readers: the page has the
        words for it.
    """
    import vl_convert

    styled = chart.configure(
        background="transparent",
        aria=False,
        font="sans-serif",
        view={"stroke": None},
        axis={
            "labelFontSize": 11,
            "titleFontSize": 11,
            "titleFontWeight": "normal",
            "titlePadding": 6,
            "labelColor": "#444",
            "titleColor": "#444",
            "domainColor": "#888",
            "tickColor": "#888",
            "gridColor": "#e4e4e4",
            "labelLimit": 190,
        },
        legend={"labelFontSize": 11, "labelColor": "#444", "symbolSize": 90, "columnPadding": 14},
    )
    drawn: str = vl_convert.vegalite_to_svg(styled.to_dict(), allowed_base_urls=[])
    found = _SVG.match(drawn)
    if found is None:
        raise ValueError(f"not the start of an SVG: {drawn[:80]!r}")
    width, height = found[1].split()[2:]
    opening = f'<svg class="plot" viewBox="{found[1]}" width="{width}" height="{height}" aria-hidden="true" focusable="false">'
    # Ids are of the whole page: a second "clip0" would be cut like the first.
    return _CLIP.sub(rf"\1{key}-\2", opening + drawn[found.end() :])


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names as they stand in plots: visible, the middle of long ones left out, no two alike."""
    short: dict[str, str] = {}
    for name in names:
        shown = visible(name)
        if len(shown) > LABEL_CHARS:
            cut = f"{shown[: LABEL_CHARS - 10]}…{shown[-9:]}"
            shown = shown if cut in short.values() else cut
        short[name] = shown
    return short


def highest(measure: Measure) -> float:
    """The most that a measure can be, in the unit that it is shown in; infinity if nothing bounds it."""
    return 100.0 if measure.unit == "share" else math.inf


def ticks(measure: Measure, low: float, high: float, most: int = 6) -> list[float]:
    """At most so many round numbers from `low` to `high`, none of which a share cannot be: an axis may have room beyond."""
    high = min(high, highest(measure))
    low = max(low, 0.0) if measure.unit == "share" else low
    rough = max((high - low) / most, 1e-9)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(part * power for part in (1, 2, 5, 10) if part * power >= rough)
    values = [float(f"{place * step:.9g}") for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return values or [float(f"{high:.9g}")]


def spread(values: Sequence[float]) -> float:
    """The largest of the positive values divided by the smallest; 1 if there is none."""
    positive = [value for value in values if value > 0]
    return max(positive) / min(positive) if positive else 1.0


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten from `low` to `high`, or only the powers if these are many: ticks of a log axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) <= _TICKS:
            break
    return inside
