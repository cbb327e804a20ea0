"""An OnlineReading goes in, one HTML page comes out that opens offline: the decision first, then all that it rests on.

The page runs no script and loads nothing; its policy (CSP) forbids both. Names come from logs: they are made visible, and
escaped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmrank.evaluation.report.offline import offline_template
from llmrank.evaluation.report.parts import Table
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.drawing import differences, interval_names, preferences, split, values
from llmrank.experiment.online.findings import OnlineReading, Verdict
from llmrank.experiment.online.numbers import delta_text, interval, level, moment, p_equation, points, signed
from llmrank.experiment.online.reading_options import MetricOptions
from llmrank.experiment.online.tables import list_tables, metric_tables, traffic
from llmrank.experiment.online.words import assumed, method
from llmrank.experiment.report.forest import Forest
from llmrank.experiment.report.words import OUTCOMES, Fact
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM

_OUTCOMES: dict[Verdict, tuple[str, str]] = {
    "ship": ("ship", OUTCOMES["ship"]),
    "keep": ("keep", OUTCOMES["keep"]),
    "invalid": ("invalid", OUTCOMES["invalid"]),
    "go on": ("unclear", "Go on"),
}
"""Sign and words of a verdict, those of an offline experiment's."""


@dataclass(frozen=True, slots=True)
class Part:
    """One metric on the page.

    Attributes:
        tables: As every report has them.
        differences: From the control; None while there is nothing to draw.
        values: Of every variant.
        read: What the intervals of the differences, and those of the values, are.
        shares: Whether values are in percent.
    """

    tables: tuple[Table, ...]
    differences: Forest | None
    values: Forest
    read: tuple[str, str]
    shares: bool


def page(reading: OnlineReading) -> str:
    """The whole page."""
    kind, outcome = _OUTCOMES[reading.verdict]
    parts = [_part(reading, metric) for metric in reading.options.ordered if reading.of(metric)]
    return offline_template("llmrank.experiment.report", "reading.html.jinja", "experiment.css").render(
        name=visible(reading.name),
        control=visible(reading.control),
        period=f"{moment(reading.begin)} to {moment(reading.end)}",
        kind=kind,
        outcome=outcome,
        decision=visible(reading.decision),
        reasons=[visible(reading.reason)] if reading.reason else [],
        facts=_facts(reading),
        traffic=traffic(reading) if reading.traffic else None,
        split=split(reading) if reading.traffic else None,
        alarm=SAMPLE_RATIO_ALARM,
        primary=parts[0] if parts else None,
        others=parts[1:],
        lists=tuple(list_tables(reading)),
        preferences=preferences(reading) if reading.interleavings else None,
        events=f"{reading.events:,}",
        left_out=[(f"{each.count:,}", visible(each.what), visible(each.why)) for each in reading.left_out],
        method=[visible(text) for text in method(reading)],
        assumed=[visible(text.removeprefix("Assumed: ")) for text in assumed(reading)],
        notes_of_log=[visible(note) for note in reading.notes],
    )


def _part(reading: OnlineReading, metric: MetricOptions) -> Part:
    return Part(
        tables=tuple(metric_tables(reading, metric)),
        differences=differences(reading, metric),
        values=values(reading, metric),
        read=interval_names(reading, metric),
        shares=metric.kind == "conversion",
    )


def _facts(reading: OnlineReading) -> tuple[Fact, ...]:
    """The few figures that stand under the decision."""
    found = [*_primary(reading), *_preference(reading)]
    if reading.traffic:
        found += [_users(reading), _check(reading)]
    if reading.verdict != "invalid":
        found.append(_reading(reading))
    return tuple(found)


def _primary(reading: OnlineReading) -> list[Fact]:
    if not reading.effects:
        return []
    metric = reading.options.ordered[0]
    effects = reading.of(metric)
    title = f"{visible(metric.name)}, against {visible(reading.control)}"
    if len(effects) > 1:
        return [Fact(title, f"{len(effects)} variants", "compared with the control")]
    (effect,) = effects
    early, late = reading.options.levels(reading.options.planned)
    shown, how = effect.fixed or effect.any_time, "" if effect.fixed else "always-valid "
    if shown is None:
        return []
    ends = interval(metric, shown.low, shown.high)
    detail = f"{how}{level(late if effect.fixed else early)} interval {ends}" if ends else "no interval yet"
    return [Fact(title, f"{signed(metric, shown.difference)}{points(metric)}", detail)]


def _preference(reading: OnlineReading) -> list[Fact]:
    pairs = reading.interleavings
    if not pairs:
        return []
    lists = f"{sum(each.impressions for each in pairs):,} lists"
    if len(pairs) > 1:
        return [Fact("Interleaved", f"{len(pairs)} pairs of variants", lists)]
    (pair,) = pairs
    title = f"Preference for {visible(pair.variant)} over {visible(pair.control)}"
    return [Fact(title, f"{delta_text(pair.delta)} points", f"beyond one half; {lists}, {pair.users:,} users with a credit")]


def _users(reading: OnlineReading) -> Fact:
    planned = reading.options.planned
    if reading.verdict == "invalid":
        detail = "of all variants"
    elif planned is None:
        detail = "no number is planned"
    else:
        detail = f"{reading.planned:,} of {planned:,} planned users count"
    return Fact("Users", f"{reading.users:,}", detail)


def _check(reading: OnlineReading) -> Fact:
    p = reading.sample_ratio_p
    if math.isnan(p):
        return Fact("Split of users", "Not checked")
    return Fact(
        "Split of users",
        "Broken" if p < SAMPLE_RATIO_ALARM else "As it should be",
        f"sample-ratio check, {p_equation(p)}",
    )


def _reading(reading: OnlineReading) -> Fact:
    options = reading.options
    read, planned = [pair.fixed is not None for pair in reading.interleavings], options.planned_lists
    if reading.effects:
        read, planned = [effect.fixed is not None for effect in reading.of(options.ordered[0])], options.planned
    if all(read):
        return Fact("Reading", "Planned sample", "All planned users are there; they are read once.")
    if any(read):
        return Fact("Reading", "Planned sample", f"of {sum(read)} of {len(read)} pairs; the others have not got their users.")
    if options.levels(planned)[0]:
        return Fact("Reading", "Always valid", "The figures may be looked at, and acted upon, at any time.")
    return Fact("Reading", "Not yet", "No part of the level is for looks before all planned users are there.")
