"""An Overview goes in; each ranker's mean of each relevance measure, with its interval, comes out as dots on lines."""

from __future__ import annotations

from typing import Any

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Figure, Panel
from llmrank.evaluation.report.plots import style
from llmrank.evaluation.report.values import heading, interval_text, label, scaled, unit, value_text
from llmrank.evaluation.report.visible import visible

_WIDTH = 195


def quality_figure(overview: Overview) -> Figure:
    """One plot a relevance measure; rankers in the order of the main table."""
    measures = [measure for measure in overview.measures if measure.about == "relevance"]
    measures.sort(key=lambda measure: measure.name != overview.primary)
    panels = tuple(
        Panel(label(measure), _words(overview, measure), style.svg(_chart(overview, measure), key=f"quality-{place}"))
        for place, measure in enumerate(measures)
        if any(found["metrics"].get(measure.name) is not None for found in overview.rankers.values())
    )
    caption = (
        f"Mean over cases, with {overview.confidence} intervals. The dashed line is what a random order has on average. "
        "The axis need not begin at 0."
    )
    return Figure("plot-quality", "Relevance by ranker", caption, panels)


def _chart(overview: Overview, measure: Measure) -> Any:
    alt = style.altair()
    names = style.short_names(list(overview.rankers))
    rows: list[dict[str, Any]] = []
    for name, found in overview.rankers.items():
        value = found["metrics"].get(measure.name)
        if value is not None:
            interval = overview.interval(name, measure.name)
            low, high = (scaled(measure, end) for end in interval) if interval else (None, None)
            rows.append(
                {
                    "ranker": names[name],
                    "value": scaled(measure, value),
                    "low": low,
                    "high": high,
                    "end": scaled(measure, value) if high is None else high,
                    "text": value_text(measure, value),
                }
            )
    chance = (overview.summary.get("chance") or {}).get(measure.name)
    lowest = min(
        [row["value"] if row["low"] is None else row["low"] for row in rows]
        + ([] if chance is None else [scaled(measure, chance)])
    )
    highest = max([row["end"] for row in rows] + ([] if chance is None else [scaled(measure, chance)]))
    room = 0.2 * ((highest - lowest) or 1)  # for the numbers beside the intervals
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("ranker:N", sort=list(names.values()), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    )
    begin, end = lowest - 0.05 * ((highest - lowest) or 1), highest + room
    scale = alt.Scale(domain=[begin, end], nice=False, zero=False)
    axis = alt.Axis(values=style.ticks(measure, begin, end), grid=True, domain=False, ticks=False)
    layers = [
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2, color=style.ACCENT)
        .encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_circle(size=60, opacity=1, color=style.ACCENT).encode(
            x=alt.X("value:Q", scale=scale, axis=axis, title=heading(measure))
        ),
        base.mark_text(align="left", dx=6, fontSize=11).encode(x="end:Q", text="text:N"),
    ]
    if chance is not None:
        line = alt.Chart(alt.Data(values=[{"chance": scaled(measure, chance)}]))
        layers.insert(0, line.mark_rule(strokeDash=[4, 3], color=style.QUIET, strokeWidth=1.5).encode(x="chance:Q"))
    return alt.layer(*layers).properties(width=_WIDTH, height=style.STEP * len(rows))


def _words(overview: Overview, measure: Measure) -> str:
    parts = []
    for name, found in overview.rankers.items():
        value = found["metrics"].get(measure.name)
        if value is not None:
            interval = interval_text(measure, overview.interval(name, measure.name))
            parts.append(f"{visible(name)} {value_text(measure, value)} {interval}".strip())
    return f"{label(measure)}{f' in {unit(measure)}' if unit(measure) else ''}: {', '.join(parts)}."
