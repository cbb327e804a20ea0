"""An Overview goes in; what each ranker costs against how well it ranks comes out, as named points."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmrank.evaluation.measures.measure import Measure, parse_measure
from llmrank.evaluation.report.numbers import dollars, joined, significant
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Figure, Panel
from llmrank.evaluation.report.plots import style
from llmrank.evaluation.report.plots.cost_axis import CostAxis
from llmrank.evaluation.report.plots.labels import Point, place_labels
from llmrank.evaluation.report.values import heading, label, scaled, value_text
from llmrank.evaluation.report.visible import visible

_WIDTH, _HEIGHT = 520, 320


def cost_figure(overview: Overview) -> Figure:
    """US dollars where a price of any ranker is known, else tokens; nothing where no ranker has either."""
    measure = parse_measure(overview.primary)
    rated = {name: found for name, found in overview.rankers.items() if found["cases"] and _value(found, measure) is not None}
    money = any((found["usage"].get("usd") or 0) > 0 for found in rated.values())
    costs = {name: _dollars(found) if money else _tokens(found) for name, found in rated.items()}
    known = {name: cost for name, cost in costs.items() if cost is not None}
    unknown = [visible(name) for name, cost in costs.items() if cost is None]
    axis, spell = ("USD per 1,000 cases", dollars) if money else ("tokens a case", significant)
    panels: tuple[Panel, ...] = ()
    if any(known.values()):
        words = "; ".join(
            f"{visible(name)}: {spell(cost)}, {value_text(measure, _value(rated[name], measure))}"
            for name, cost in known.items()
        )
        chart = _chart(overview, measure, known, axis)
        panels = (Panel(f"{label(measure)} against {axis}", f"{words}.", style.svg(chart, key="cost")),)
    caption = f"Up is better, left is cheaper; bars are {overview.confidence} intervals."
    if unknown:
        caption += f" Without a known price, and so not shown: {joined(unknown)}."
    return Figure("plot-cost", "Cost against quality", caption, panels, "wide")


def _value(found: Mapping[str, Any], measure: Measure) -> float | None:
    value: float | None = found["metrics"].get(measure.name)
    return value


def _dollars(found: Mapping[str, Any]) -> float | None:
    usd = found["usage"].get("usd")
    if usd is None:
        return None if found["usage"]["calls"] else 0.0
    return 1000 * float(usd) / float(found["cases"])


def _tokens(found: Mapping[str, Any]) -> float:
    usage = found["usage"]
    return float(usage["prompt_tokens"] + usage["completion_tokens"]) / float(found["cases"])


def _chart(overview: Overview, measure: Measure, costs: Mapping[str, float], title: str) -> Any:
    """All in the units of the axes: pixels across (the axis is `CostAxis`), the measure's unit upwards."""
    alt = style.altair()
    names = style.short_names(list(costs))
    rows = [_row(overview, measure, name) for name in costs]
    ends = [end for row in rows for end in (row["value"], row["low"], row["high"]) if end is not None]
    low, high = min(ends), max(ends)
    margin = 0.06 * ((high - low) or 1)
    top, bottom = high + margin, low - margin
    per_pixel = (top - bottom) / _HEIGHT
    axis = CostAxis(list(costs.values()), _WIDTH)
    points = []
    for (name, cost), row in zip(costs.items(), rows, strict=True):
        row["x"] = axis.pixel(cost)
        points.append(Point(row["x"], (top - row["value"]) / per_pixel, names[name]))
    placed = place_labels(points, _WIDTH, _HEIGHT)
    texts = [{"x": each.x, "value": top - each.y * per_pixel, "text": each.text} for each in placed]
    leaders = [
        {"x": x, "value": top - y * per_pixel, "x2": x2, "value2": top - y2 * per_pixel}
        for x, y, x2, y2 in (each.leader for each in placed if each.leader is not None)
    ]
    ticks = {f"{pixel:g}": text for pixel, text in axis.ticks}
    x = alt.X(
        "x:Q",
        title=title + axis.remark,
        scale=alt.Scale(domain=[0, _WIDTH], nice=False),
        axis=alt.Axis(
            values=[float(pixel) for pixel in ticks], labelExpr=f"({json.dumps(ticks)})[toString(datum.value)]", grid=False
        ),
    )
    y = alt.Y(
        "value:Q",
        title=heading(measure),
        scale=alt.Scale(domain=[bottom, top], nice=False, zero=False),
        axis=alt.Axis(values=style.ticks(measure, bottom, top), domain=False, ticks=False),
    )
    base = alt.Chart(alt.Data(values=rows))
    lines = alt.Chart(alt.Data(values=leaders)).mark_rule(color=style.QUIET, strokeWidth=0.8)
    words = alt.Chart(alt.Data(values=texts)).mark_text(align="left", baseline="middle", fontSize=11)
    return alt.layer(
        base.transform_filter("isValid(datum.low)")
        .mark_rule(color=style.ACCENT, strokeWidth=1.5, opacity=0.35)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        lines.encode(x=x, x2="x2:Q", y=y, y2="value2:Q"),
        base.mark_circle(color=style.ACCENT, size=70, opacity=1).encode(x=x, y=y),
        words.encode(x=x, y=y, text="text:N"),
    ).properties(width=_WIDTH, height=_HEIGHT)


def _row(overview: Overview, measure: Measure, name: str) -> dict[str, Any]:
    interval = overview.interval(name, measure.name)
    low, high = (scaled(measure, end) for end in interval) if interval else (None, None)
    return {"value": scaled(measure, overview.rankers[name]["metrics"][measure.name]), "low": low, "high": high}
