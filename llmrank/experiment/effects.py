"""What was measured goes in; each variant's differences from the control come out, with what is corrected and what is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from llmrank.evaluation.measures.measure import Measure, parse_measure
from llmrank.evaluation.measures.statistics import Difference, holm, minimum_detectable_effect, paired_differences
from llmrank.experiment.findings import Effect, Segment
from llmrank.experiment.measured import Measured
from llmrank.experiment.spec import Spec
from llmrank.experiment.statistics.multiplicity import benjamini_hochberg
from llmrank.experiment.stopping import reading

HISTORIES = (0, 1, 5, 20, 50, 100, 200)
"""Where the segments of users by the length of their history begin."""

SEGMENT_LEAST = 10
"""Segments of fewer users are not shown."""


def effects(spec: Spec, table: Measured) -> tuple[Effect, ...]:
    """Each measure's differences, the primary one first; within one in the file's order of variants.

    P values of the primary measure are corrected by Holm over the variants, those of all others together by Benjamini and
    Hochberg.
    """
    measures = [parse_measure(spec.measure)]
    measures += [each for each in table.measures if each.name in spec.metrics and each != measures[0]]
    variants = [name for name in table.variants if name != spec.base]
    found = {variant: _differences(spec, table, variant, measures) for variant in variants}
    primary = holm([found[variant][0].p for variant in variants])
    others = [(variant, place) for place in range(1, len(measures)) for variant in variants]
    rest = dict(zip(others, benjamini_hochberg([found[variant][place].p for variant, place in others]), strict=True))
    return tuple(
        _effect(
            spec,
            table,
            variant,
            measure,
            found[variant][place],
            rest[variant, place] if place else primary[variants.index(variant)],
            "bh" if place else "holm",
        )
        for place, measure in enumerate(measures)
        for variant in variants
    )


def segments(spec: Spec, table: Measured) -> tuple[Segment, ...]:
    """The primary measure by the length of the histories; exploratory, so nothing is corrected and no always-valid one."""
    measure = parse_measure(spec.measure)
    variants = [name for name in table.variants if name != spec.base]
    found = []
    for start, stop in zip(HISTORIES, (*HISTORIES[1:], None), strict=True):
        chosen = (table.histories >= start) & (table.histories < (stop or np.inf))
        part = table.where(chosen)
        users = len(np.unique(part.users))
        if users < SEGMENT_LEAST:
            continue
        of_variants = []
        for variant in variants:
            (difference,) = _fixed(spec, part, variant, [measure])
            of_variants.append(_effect(spec, part, variant, measure, difference, math.nan, "none"))
        found.append(Segment(_named(start, stop), users, tuple(of_variants)))
    return tuple(found) if len(found) > 1 else ()


def _named(start: int, stop: int | None) -> str:
    if start == 0:
        return "new users, without a history"
    return f"history of {start} or more items" if stop is None else f"history of {start} to {stop - 1} items"


def _differences(spec: Spec, table: Measured, variant: str, measures: Sequence[Measure]) -> list[Difference]:
    found = _fixed(spec, table, variant, measures)
    if spec.sequential is None:
        return found
    # A test for a fixed sample proves nothing where the sample's end depends on what was seen.
    always = [reading(spec, table, variant, measure) for measure in measures]
    return [replace(each, low=seen.low, high=seen.high, p=seen.p) for each, seen in zip(found, always, strict=True)]


def _fixed(spec: Spec, table: Measured, variant: str, measures: Sequence[Measure]) -> list[Difference]:
    pairs = [table.paired(variant, spec.base, measure.name) for measure in measures]  # a user counts once
    a, b = (np.column_stack(each) for each in zip(*pairs, strict=True))
    return paired_differences(a, b, confidence=1 - spec.alpha, resamples=spec.resamples, seed=spec.seed)


def _effect(
    spec: Spec,
    table: Measured,
    variant: str,
    measure: Measure,
    difference: Difference,
    adjusted: float,
    correction: Literal["holm", "bh", "none"],
) -> Effect:
    known = table.paired(variant, spec.base, measure.name)
    defined = ~np.isnan(known[0])
    mean, control = (float(each[defined].mean()) if defined.any() else math.nan for each in known)
    detectable = math.nan
    if difference.clusters > 1 and not math.isnan(difference.sd):
        # The first step of Holm's correction, as in the forecast.
        alpha = spec.alpha / (len(table.variants) - 1) if correction == "holm" else spec.alpha
        detectable = minimum_detectable_effect(difference.sd, difference.clusters, alpha=alpha, power=spec.power)
    return Effect(measure, variant, control, mean, difference, adjusted, correction, detectable)
