"""An Overview goes in; the primary measure by history length, and by the place shown, comes out: one small plot a ranker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmrank.evaluation.measures.measure import Measure, parse_measure
from llmrank.evaluation.report.numbers import bin_label
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Figure, Panel
from llmrank.evaluation.report.plots import style
from llmrank.evaluation.report.values import heading, interval_text, known_interval, label, scaled, value_text
from llmrank.evaluation.report.visible import visible

_WIDTH, _HEIGHT = 205, 120
_FEW = 4
"""So many lines can be told apart."""
_ROOMY = 5
"""So many bins have room for names of full size below them."""

_Slices = Mapping[str, Sequence[Mapping[str, Any]]]


def history_figure(overview: Overview) -> Figure:
    """By the number of items in the user's history."""
    found = {name: of_ranker.get("by_history") or () for name, of_ranker in overview.rankers.items()}
    return _figure(overview, "plot-history", "by history length", "items in the history", found, "")


def position_figure(overview: Overview) -> Figure:
    """By the place at which what is relevant stood in the list shown."""
    found = {
        name: (of_ranker.get("position_bias") or {}).get("by_position") or () for name, of_ranker in overview.rankers.items()
    }
    which = "Cases with an answer and one relevant item among those shown. "
    return _figure(overview, "plot-position", "by the place of what is relevant", "place in the list shown", found, which)


def _figure(overview: Overview, key: str, title: str, axis: str, found: _Slices, which: str) -> Figure:
    measure = parse_measure(overview.primary)
    known = {name: [each for each in slices if each[measure.name] is not None] for name, slices in found.items()}
    drawn = {name: slices for name, slices in known.items() if len(slices) > 1}
    ends = [
        scaled(measure, end)
        for slices in drawn.values()
        for each in slices
        for end in (*(known_interval(each["ci"]) or ()), each[measure.name])
    ]
    low, high = (min(0.0, *ends), max(ends)) if len(ends) > 1 else (0.0, 1.0)
    # Rounding may put a mean a hair above 1; the axis would then reach to the next round number.
    domain = (low, min(high, style.highest(measure)))
    panels = tuple(
        Panel(
            visible(name),
            _words(measure, slices, axis),
            style.svg(_chart(measure, drawn, name, axis, domain), key=f"{key}-{place}"),
        )
        for place, (name, slices) in enumerate(drawn.items())
    )
    caption = (
        f"{which}Each plot has one ranker in blue, with {overview.confidence} intervals where they are known, the others in "
        "grey. All have the same axes. No line leads over a bin without cases."
    )
    return Figure(key, f"{label(measure)} {title}", caption, panels, "small")


def _chart(measure: Measure, found: _Slices, chosen: str, axis: str, domain: tuple[float, float]) -> Any:
    alt = style.altair()
    bins = sorted({(each["from"], each["to"]) for slices in found.values() for each in slices}, key=lambda each: each[0])
    order = [bin_label(*each) for each in bins]
    rows = [
        _row(measure, each) | {"line": f"{place}-{stretch}", "chosen": name == chosen}
        for place, (name, slices) in enumerate(found.items())
        for stretch, neighbours in enumerate(_stretches(slices))
        for each in neighbours
    ]
    ticks = alt.Axis(labelAngle=0, ticks=False, labelFontSize=11 if len(order) <= _ROOMY else 9)
    x = alt.X("bin:N", sort=order, title=axis, scale=alt.Scale(padding=0.3), axis=ticks)
    y = alt.Y(
        "value:Q",
        title=heading(measure),
        scale=alt.Scale(domain=list(domain), nice=True),
        axis=alt.Axis(tickCount=4, domain=False, ticks=False),
    )
    base = alt.Chart(alt.Data(values=rows))
    one = base.transform_filter("datum.chosen")
    sure = one.transform_filter("isValid(datum.low)")
    faint = 0.4 if len(found) > _FEW else 0.9
    layers = [
        base.transform_filter("!datum.chosen")
        # Points too: a bin between two empty ones has no line.
        .mark_line(color=style.QUIET, opacity=faint, strokeWidth=1, point=alt.OverlayMarkDef(size=6, color=style.QUIET))
        .encode(x=x, y=y, detail="line:N"),
        sure.mark_rule(color=style.ACCENT, opacity=0.45, strokeWidth=3).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        one.mark_line(color=style.ACCENT, strokeWidth=2, point=alt.OverlayMarkDef(size=30, color=style.ACCENT)).encode(
            x=x, y=y, detail="line:N"
        ),
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)


def _row(measure: Measure, found: Mapping[str, Any]) -> dict[str, Any]:
    interval = known_interval(found["ci"])
    low, high = (scaled(measure, end) for end in interval) if interval else (None, None)
    return {
        "bin": bin_label(found["from"], found["to"]),
        "value": scaled(measure, found[measure.name]),
        "low": low,
        "high": high,
    }


def _stretches(slices: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Slices without an empty bin between them stand together."""
    found: list[list[Mapping[str, Any]]] = []
    for each in slices:
        if found and found[-1][-1]["to"] is not None and found[-1][-1]["to"] + 1 == each["from"]:
            found[-1].append(each)
        else:
            found.append([each])
    return found


def _words(measure: Measure, slices: Sequence[Mapping[str, Any]], axis: str) -> str:
    parts = (f"{bin_label(each['from'], each['to'])}: {_with_interval(measure, each)} (n = {each['cases']})" for each in slices)
    return f"{heading(measure)}, by {axis}. {', '.join(parts)}."


def _with_interval(measure: Measure, found: Mapping[str, Any]) -> str:
    return f"{value_text(measure, found[measure.name])} {interval_text(measure, known_interval(found['ci']))}".strip()
