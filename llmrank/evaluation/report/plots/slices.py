"""An Overview goes in; the primary measure by history length, and by the place shown, comes out: one small plot a ranker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmrank.evaluation.measures.measure import Measure, parse_measure
from llmrank.evaluation.report.numbers import bin_label
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Figure, Panel
from llmrank.evaluation.report.plots import style
from llmrank.evaluation.report.values import heading, known_interval, label, scaled, value_text
from llmrank.evaluation.report.visible import visible

_WIDTH, _HEIGHT = 205, 120
_FEW = 4
"""So many lines can be told apart."""

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
    domain = (min(0.0, *ends), max(ends)) if len(ends) > 1 else (0.0, 1.0)
    panels = tuple(
        Panel(
            visible(name),
            _words(measure, slices, axis),
            style.svg(_chart(measure, drawn, name, axis, domain), key=f"{key}-{place}"),
        )
        for place, (name, slices) in enumerate(drawn.items())
    )
    caption = (
        f"{which}Each plot has one ranker in blue, with {overview.confidence} intervals as a band, and the others in grey. "
        "All have the same axes."
    )
    return Figure(key, f"{label(measure)} {title}", caption, panels, "small")


def _chart(measure: Measure, found: _Slices, chosen: str, axis: str, domain: tuple[float, float]) -> Any:
    alt = style.altair()
    bins = sorted({(each["from"], each["to"]) for slices in found.values() for each in slices}, key=lambda each: each[0])
    order = [bin_label(*each) for each in bins]
    rows = [
        _row(measure, each) | {"ranker": str(place), "chosen": name == chosen}
        for place, (name, slices) in enumerate(found.items())
        for each in slices
    ]
    x = alt.X("bin:N", sort=order, title=axis, scale=alt.Scale(padding=0.3), axis=alt.Axis(labelAngle=0, ticks=False))
    y = alt.Y(
        "value:Q",
        title=heading(measure),
        scale=alt.Scale(domain=list(domain), nice=True),
        axis=alt.Axis(tickCount=4, domain=False, ticks=False),
    )
    base = alt.Chart(alt.Data(values=rows))
    one = base.transform_filter("datum.chosen")
    faint = 0.4 if len(found) > _FEW else 0.9
    layers = [
        base.transform_filter("!datum.chosen")
        .mark_line(color=style.QUIET, opacity=faint, strokeWidth=1)
        .encode(x=x, y=y, detail="ranker:N"),
        one.mark_area(color=style.ACCENT, opacity=0.18).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        one.mark_line(color=style.ACCENT, strokeWidth=2, point=alt.OverlayMarkDef(size=30, color=style.ACCENT)).encode(
            x=x, y=y
        ),
    ]
    return alt.layer(*layers).properties(width=_WIDTH, height=_HEIGHT)


def _row(measure: Measure, found: Mapping[str, Any]) -> dict[str, Any]:
    value = found[measure.name]
    low, high = known_interval(found["ci"]) or (value, value)
    return {
        "bin": bin_label(found["from"], found["to"]),
        "value": scaled(measure, value),
        "low": scaled(measure, low),
        "high": scaled(measure, high),
    }


def _words(measure: Measure, slices: Sequence[Mapping[str, Any]], axis: str) -> str:
    parts = (
        f"{bin_label(each['from'], each['to'])}: {value_text(measure, each[measure.name])} (n = {each['cases']})"
        for each in slices
    )
    return f"{heading(measure)}, by {axis}. {', '.join(parts)}."
