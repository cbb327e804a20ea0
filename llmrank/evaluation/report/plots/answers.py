"""An Overview goes in; the parse status of each ranker's answers comes out as bars of one length, in parts."""

from __future__ import annotations

from typing import Any

from llmrank.evaluation.report.numbers import percent
from llmrank.evaluation.report.overview import STATUSES, Overview
from llmrank.evaluation.report.parts import Figure, Panel
from llmrank.evaluation.report.plots import style
from llmrank.evaluation.report.visible import visible

_WIDTH = 330
_ROOM_FOR_TEXT = 0.09
"""A part of a bar that is smaller has no number in it."""


def status_figure(overview: Overview) -> Figure:
    """Rankers in the order of the main table; only those that asked a model."""
    shares = {
        name: {status: found["status"].get(status, 0) / found["cases"] for status in STATUSES}
        for name, found in overview.rankers.items()
        if found["cases"] and (found["usage"]["calls"] or found["status"].get("ok") != found["cases"])
    }
    words = "; ".join(
        f"{visible(name)}: {', '.join(f'{status} {percent(part)} %' for status, part in of_ranker.items() if part)}"
        for name, of_ranker in shares.items()
    )
    panels = (Panel("Share of cases", f"{words}.", style.svg(_chart(shares), key="status")),) if shares else ()
    return Figure("plot-status", "Parse status by ranker", "How the answers could be read, in % of cases.", panels)


def _chart(shares: dict[str, dict[str, float]]) -> Any:
    alt = style.altair()
    names = style.short_names(list(shares))
    rows = []
    for name, of_ranker in shares.items():
        start = 0.0
        for status, part in of_ranker.items():
            if part:
                text = percent(part, 0) if part >= _ROOM_FOR_TEXT else ""
                bounds = {"from": 100 * start, "to": 100 * (start + part), "middle": 100 * (start + part / 2)}
                rows.append({"ranker": names[name], "status": status, "text": text} | bounds)
            start += part
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("ranker:N", sort=list(names.values()), title=None, axis=alt.Axis(ticks=False, domain=False, labelPadding=8))
    )
    colour = alt.Color(
        "status:N",
        scale=alt.Scale(domain=list(STATUSES), range=[style.STATUS_COLOURS[status] for status in STATUSES]),
        legend=alt.Legend(orient="top", title=None, symbolType="square", direction="horizontal"),
    )
    bars = base.mark_bar(height=style.STEP - 6).encode(
        x=alt.X(
            "from:Q",
            title="% of cases",
            scale=alt.Scale(domain=[0, 100]),
            axis=alt.Axis(grid=False, ticks=False, domain=False, tickCount=5),
        ),
        x2="to:Q",
        color=colour,
    )
    # The style sheet knows these texts by their name: they stand on colours, and so are dark in dark mode too.
    texts = base.mark_text(fontSize=11).encode(x="middle:Q", text="text:N").properties(name="inside")
    return alt.layer(bars, texts).properties(width=_WIDTH, height=style.STEP * len(shares))
