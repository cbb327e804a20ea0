"""What was measured goes in; each guardrail of each variant comes out: whether it is shown to lose no more than its margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.values import label
from llmrank.experiment.findings import Guardrail, Unit
from llmrank.experiment.measured import Measured, Rankings
from llmrank.experiment.spec import OF_RANKINGS, Margin, Spec
from llmrank.experiment.statistics.noninferiority import coverage_non_inferiority, non_inferiority

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


def _guardrail(spec: Spec, table: Measured, name: str, margin: Margin, variant: str, items: int) -> Guardrail:
    asked: dict[str, Any] = {"margin": margin.value, "relative": margin.relative, "alpha": spec.alpha}
    options = asked | {"resamples": spec.resamples, "seed": spec.seed}
    own, control = table.variants[variant], table.variants[spec.base]
    if name not in OF_RANKINGS:
        measure = parse_measure(name)
        worse: Literal["higher", "lower"] = "lower" if measure.direction == "higher" else "higher"
        unit: Unit = "share" if measure.unit == "share" else "value"
        if measure.family == "coverage":
            tops = [[top[: measure.k] for top in each.tops] for each in (own, control)]
            result = coverage_non_inferiority(tops[0], tops[1], table.users, catalogue=items, **asked)
        else:
            result = non_inferiority(own.values[name], control.values[name], table.users, worse=worse, **options)
        return Guardrail(label(measure), variant, unit, margin.relative, worse, result)
    if name == "failures":
        result = non_inferiority(own.failed, control.failed, table.users, worse="higher", statistic="rate", **options)
        return Guardrail(NAMES[name], variant, "share", margin.relative, "higher", result)
    if name == "cost":
        priced = _priced((own, control))
        ours, theirs = (each.usd if priced else each.tokens for each in (own, control))
        result = non_inferiority(ours, theirs, table.users, worse="higher", **options)
        said = "cost (USD a ranking)" if priced else "cost (tokens a ranking, as no price is known)"
        return Guardrail(said, variant, "usd" if priced else "value", margin.relative, "higher", result)
    statistic = name.removeprefix("latency_")
    result = non_inferiority(own.seconds, control.seconds, table.users, worse="higher", statistic=statistic, **options)
    return Guardrail(NAMES[name], variant, "seconds", margin.relative, "higher", result)


def _priced(both: Sequence[Rankings]) -> bool:
    """Whether both have a price that is not nothing: what a model on this machine takes is told by its tokens."""
    return all(not np.isnan(each.usd).any() for each in both) and any(each.usd.any() for each in both)
