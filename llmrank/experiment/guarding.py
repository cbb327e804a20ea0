"""What was measured goes in; each guardrail of each variant comes out: whether it is shown to lose no more than its margin.

In an experiment that is looked at, the bounds hold at all looks, as the intervals do. Coverage is the exception: it is no mean
over users, and is read once, where the experiment ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.values import label
from llmrank.experiment.findings import Guardrail, Reading, Unit
from llmrank.experiment.measured import Measured, Rankings
from llmrank.experiment.spec import OF_RANKINGS, Margin, Spec
from llmrank.experiment.statistics.always_noninferiority import always_non_inferiority
from llmrank.experiment.statistics.noninferiority import NonInferiority, Worse, coverage_non_inferiority, non_inferiority

NAMES = {"failures": "failures", "latency_p50": "latency (p50)", "latency_p95": "latency (p95)"}


def guardrails(spec: Spec, table: Measured, items: int) -> tuple[Guardrail, ...]:
    """In the file's order, and within one in the file's order of variants.

    Args:
        spec: The experiment.
        table: What was measured, with the first ids of each ranking if a guardrail watches coverage.
        items: How many items the catalogue has.
    """
    variants = [name for name in table.variants if name != spec.base]
    return tuple(
        _guardrail(spec, table, name, margin, variant, items) for name, margin in spec.margins.items() for variant in variants
    )


def depth_of(spec: Spec) -> int:
    """How many ids of each ranking guardrails look at."""
    families = [parse_measure(name) for name in spec.margins if name not in OF_RANKINGS]
    return max((each.k or 0 for each in families if each.family == "coverage"), default=0)


def undecided(spec: Spec, table: Measured, variant: str) -> tuple[str, ...]:
    """The guardrails of a variant that more users may still decide, as they stand at a look: without those that are read once.

    None, if one is broken already.
    """
    found = [_guardrail(spec, table, name, margin, variant, 0) for name, margin in spec.margins.items() if not read_once(name)]
    if any(each.result.verdict == "broken" for each in found):
        return ()
    return tuple(each.name for each in found if each.result.verdict == "unclear")


def read_once(name: str) -> bool:
    """Whether what a guardrail watches is read once also in an experiment that is looked at."""
    return name not in OF_RANKINGS and parse_measure(name).family == "coverage"


def _guardrail(spec: Spec, table: Measured, name: str, margin: Margin, variant: str, items: int) -> Guardrail:
    own, control = table.variants[variant], table.variants[spec.base]
    reading: Reading = "fixed sample" if spec.sequential is None or read_once(name) else "always valid"

    def made(said: str, unit: Unit, ours: Any, theirs: Any, *, worse: Worse = "higher", statistic: str = "mean") -> Guardrail:
        result = _judged(spec, table, margin, ours, theirs, worse, statistic, bounded=unit == "share")
        return Guardrail(said, variant, unit, margin.relative, worse, result, reading)

    if name == "failures":
        return made(NAMES[name], "share", own.failed, control.failed, statistic="rate")
    if name == "cost":
        priced = _priced((own, control))
        ours, theirs = (each.usd if priced else each.tokens for each in (own, control))
        said = "cost (USD a ranking)" if priced else "cost (tokens a ranking, as no price is known)"
        return made(said, "usd" if priced else "value", ours, theirs)
    if name in OF_RANKINGS:
        return made(NAMES[name], "seconds", own.seconds, control.seconds, statistic=name.removeprefix("latency_"))
    measure = parse_measure(name)
    worse: Worse = "lower" if measure.direction == "higher" else "higher"
    unit: Unit = "share" if measure.unit == "share" else "value"
    if measure.family != "coverage":
        return made(label(measure), unit, own.values[name], control.values[name], worse=worse)
    tops = [[top[: measure.k] for top in each.tops] for each in (own, control)]
    asked: dict[str, Any] = {"margin": margin.value, "relative": margin.relative, "alpha": spec.alpha}
    result = coverage_non_inferiority(tops[0], tops[1], table.users, catalogue=items, **asked)
    return Guardrail(label(measure), variant, unit, margin.relative, worse, result, reading)


def _judged(
    spec: Spec, table: Measured, margin: Margin, ours: Any, theirs: Any, worse: Worse, statistic: str, *, bounded: bool
) -> NonInferiority:
    asked: dict[str, Any] = {"margin": margin.value, "relative": margin.relative, "worse": worse, "alpha": spec.alpha}
    if spec.sequential is None:
        more: dict[str, Any] = {"statistic": statistic, "resamples": spec.resamples, "seed": spec.seed}
        return non_inferiority(ours, theirs, table.users, **asked, **more)
    more = {"statistic": "mean" if statistic == "rate" else statistic, "bounded": bounded, "expected_n": max(2, table.planned)}
    return always_non_inferiority(ours, theirs, table.users, **asked, **more)


def _priced(both: Sequence[Rankings]) -> bool:
    """Whether both have a price that is not nothing: what a model on this machine takes is told by its tokens."""
    return all(not np.isnan(each.usd).any() for each in both) and any(each.usd.any() for each in both)
