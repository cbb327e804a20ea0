"""An experiment and its event logs go in; what they say, and what to do, comes out.

The split of users is checked first: where it is broken, no difference is computed at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError, InputError, nearest
from llmrank.evaluation.report.numbers import joined
from llmrank.experiment.online.assignment import OnlineOptions, online_of
from llmrank.experiment.online.effects import metric_effects
from llmrank.experiment.online.events import Scan
from llmrank.experiment.online.findings import OnlineReading, Traffic
from llmrank.experiment.online.left_out import LeftOut, of_log, of_metrics
from llmrank.experiment.online.preferences import interleavings
from llmrank.experiment.online.reading_options import ReadingOptions, reading_of
from llmrank.experiment.online.tally import Tally, tally
from llmrank.experiment.online.variant_values import variant_values
from llmrank.experiment.online.verdict import broken_split, decide, prefer, preference_reason, surely_preferred
from llmrank.experiment.spec import Spec, load_spec
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM, sample_ratio_mismatch


def read_experiment(
    experiment: str | Path | Mapping[str, Any] | Spec,
    logs: str | Path | Sequence[str | Path],
    *,
    until: float = math.inf,
) -> OnlineReading:
    """Reads the logs of an experiment for the metrics of its section `online.reading`.

    Args:
        experiment: Its file, or what is in it.
        logs: One or more files that `EventLog` wrote.
        until: Unix seconds: events after this are left out, as if it were then.

    Raises:
        ConfigError: the experiment is wrong, or names no metric.
        DatasetError: a log is missing or not an event log.
        InputError: the logs have nothing of the experiment, or name a variant that it does not have.
        SetupError: scipy is not installed.
    """
    spec = load_spec(experiment)
    options = reading_of((spec.online or {}).get("reading"), spec.alpha)
    online = online_of(spec.online, tuple(spec.variants), spec.base, spec.name)
    return read_log(logs, spec.name, online, options, until=until)


def read_log(
    logs: str | Path | Sequence[str | Path],
    name: str,
    online: OnlineOptions,
    options: ReadingOptions,
    *,
    until: float = math.inf,
) -> OnlineReading:
    """The same for options that were made in Python.

    Args:
        logs: One or more files that `EventLog` wrote.
        name: The experiment's.
        online: How users were assigned: variants, weights and the control.
        options: What the logs are read for.
        until: As above.

    Raises:
        ConfigError, DatasetError, InputError, SetupError: as above.
    """
    paths = [logs] if isinstance(logs, str | Path) else list(logs)
    scan = Scan()
    wanted = {
        outcome
        for metric in options.metrics
        for outcome in (metric.outcomes, metric.denominator, metric.covariate)
        if outcome is not None
    }
    found = tally(scan.read(*paths), name, tuple(online.weights), wanted, until=until)
    if not found.units and not found.impressions:
        fix = f"it has {joined(found.others[:5])}; {nearest(name, found.others)}" if found.others else "it has no exposures"
        raise InputError("has nobody who was exposed in this experiment", field="log", value=name, fix=fix)
    if found.units and not options.metrics:
        raise ConfigError(
            "names no metric", field="online.reading.metrics", fix="write metrics: {purchase: {kind: conversion}}"
        )
    shares = online.shares
    if len(shares) < 2:
        raise ConfigError("has nothing to compare with the control", field="online.weights", value=shares, fix="two variants")
    traffic = tuple(
        Traffic(variant, users, shares[variant]) for variant, users in zip(found.variants, found.counts, strict=True)
    )
    reading = OnlineReading(
        name=name,
        control=online.control,
        options=options,
        traffic=traffic if found.units else (),
        moved=found.moved,
        sample_ratio_p=sample_ratio_mismatch(found.counts, list(shares.values())),
        verdict="go on",
        decision="",
        reason="",
        effects=(),
        planned=0,
        interleavings=(),
        begin=found.begin,
        end=found.end,
        events=scan.events - found.foreign - found.later,
        left_out=of_log(scan, found),
    )
    if reading.sample_ratio_p < SAMPLE_RATIO_ALARM:
        return reading.saying(broken_split(traffic, reading.sample_ratio_p))
    planned = options.planned_lists
    early, late = options.levels(planned)
    pairs, stray = interleavings(
        found.impressions, found.clicks, online.control, found.variants, planned=planned, early=early, late=late
    )
    strays = (LeftOut("Clicks on no list of the log, or on no item of their list", stray, "They do not count."),)
    reading = replace(
        reading,
        interleavings=pairs,
        notes=tuple(_unknown(found, options)),
        left_out=(*reading.left_out, *of_metrics(found, options), *(strays if stray else ())),
    )
    if not found.units:
        return reading.saying(prefer(pairs, online.control, options))
    effects = metric_effects(found, online.control, list(shares.values()), options)
    notes = [
        f"Interleaved lists: {preference_reason(pair, early, late)}" for pair in pairs if surely_preferred(pair, early, late)
    ]
    primary = options.ordered[0]
    reached = found.over(primary.window_s)
    ready = math.nan
    if options.planned is not None and len(found.units) >= options.planned:
        ready = float(found.exposed[options.planned - 1]) + primary.window_s
    said = decide(online.control, [each for each in effects if each.metric == primary], options, reached, ready)
    reached = reached if options.planned is None else min(reached, options.planned)
    return replace(
        reading,
        effects=effects,
        values=variant_values(found, list(shares.values()), options),
        planned=reached,
        notes=(*reading.notes, *notes),
    ).saying(said)


def _unknown(found: Tally, options: ReadingOptions) -> Iterator[str]:
    """The outcomes that a metric asks for and that never occur."""
    if not found.units:
        return
    for metric in options.ordered:
        for name in (metric.outcomes, metric.denominator, metric.covariate):
            if name is not None and name not in found.names:
                seen = nearest(name, found.names) if found.names else "the log has no outcomes at all"
                yield f"Metric {metric.name}: no outcome of the log is called {name}; {seen}"
