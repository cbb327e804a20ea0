"""Findings go in, JSON values come out, for programs: the keys are the names of the fields, and what is not known is null."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from llmrank.evaluation.measures.measure import Measure
from llmrank.experiment.findings import Findings

FORM = 1
"""The number of this form; it rises when a key changes its meaning or goes."""


def record_of(findings: Findings) -> dict[str, Any]:
    """All of it: ``form``, then a key for each field of `Findings`, and so on inside.

    A measure is its name (``ndcg@10``), a tuple is a list, NaN and infinity are null. Numbers are as they were computed: shares
    from 0 to 1, money in USD, times in seconds.

    Raises:
        TypeError: a value is of a kind that JSON does not have.
    """
    return {"form": FORM, **_value(findings)}


def _value(value: object) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Measure):
        return value.name
    if dataclasses.is_dataclass(value):
        return {field.name: _value(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _value(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [_value(each) for each in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON")
