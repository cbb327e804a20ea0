"""An Overview goes in; each ranker's median, 95th and 99th percentile of latency come out on one axis of seconds."""

from __future__ import annotations

from typing import Any

from llmrank.evaluation.report.numbers import significant
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Figure, Panel
from llmrank.evaluation.report.plots import style
from llmrank.evaluation.report.visible import visible

_WIDTH = 330
_LOG_FROM = 8
"""Values that lie further apart than this factor stand on a logarithmic axis."""
_MARKS = {"p50": "circle", "p95": "diamond", "p99": "square"}


def latency_figure(overview: Overview) -> Figure:
    """Only rankers that asked a model."""
    found = {
        name: of_ranker["latency"] for name, of_ranker in overview.rankers.items() if (of_ranker["latency"] or {}).get("p50")
    }
    words = "; ".join(
        f"{visible(name)}: {', '.join(f'{mark} {significant(latency[mark])} s' for mark in _MARKS)}"
        for name, latency in found.items()
    )
    panels = (Panel("Seconds a case", f"{words}.", style.svg(_chart(found), key="latency")),) if found else ()
    caption = "Median (p50), 95th and 99th percentile of the seconds that the model took for one case, or was waited for."
    return Figure("plot-latency", "Latency by ranker", caption, panels)


def _chart(found: dict[str, dict[str, float]]) -> Any:
    alt = style.altair()
    names = style.short_names(list(found))
    rows: list[dict[str, Any]] = [
        {"ranker": names[name], "mark": mark, "seconds": latency[mark]} for name, latency in found.items() for mark in _MARKS
    ]
    ranges = [{"ranker": names[name], "from": latency["p50"], "to": latency["p99"]} for name, latency in found.items()]
    seconds = [row["seconds"] for row in rows]
    y = alt.Y("ranker:N", sort=list(names.values()), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    if style.spread(seconds) > _LOG_FROM:
        low, high = min(seconds) / 1.5, max(seconds) * 1.3
        scale = alt.Scale(type="log", domain=[low, high], nice=False)
        axis = alt.Axis(values=style.decades(low, high), format="~g", ticks=False, domain=False)
        title = "seconds a case, logarithmic"
    else:
        scale = alt.Scale(domain=[0, max(seconds) * 1.05], nice=False)
        axis = alt.Axis(tickCount=6, ticks=False, domain=False)
        title = "seconds a case"
    line = alt.Chart(alt.Data(values=ranges)).mark_rule(color=style.ACCENT, strokeWidth=2, opacity=0.55)
    marks = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=75, opacity=1, color=style.ACCENT, strokeWidth=2.5)
    shape = alt.Shape(
        "mark:N",
        scale=alt.Scale(domain=list(_MARKS), range=list(_MARKS.values())),
        legend=alt.Legend(orient="top", title=None, direction="horizontal"),
    )
    return alt.layer(
        line.encode(y=y, x=alt.X("from:Q", scale=scale, axis=axis, title=title), x2="to:Q"),
        marks.encode(y=y, x=alt.X("seconds:Q", scale=scale), shape=shape),
    ).properties(width=_WIDTH, height=style.STEP * len(found))
