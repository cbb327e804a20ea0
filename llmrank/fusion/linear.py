"""Coefficients of a linear ranker go in; what each part of a list of candidates gives to each of them comes out, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from llmrank.errors import ConfigError
from llmrank.fusion.features import FEATURES, features


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A sum over all features of all parts, whose coefficients change with the length of the history.

    A feature's coefficient is ``base + slope * ln(1 + history)``, so that a new user may lean on other parts than a known one:
    by itself, what is the same for all candidates has no say in their order. Features are taken less their mean over the list,
    so that 0 is the average candidate. `llmrank.evaluation.fitting` fits one.

    Args:
        coefficients: For each part ``(base, slope)`` of each of `llmrank.fusion.features.FEATURES`, in their order.

    Raises:
        ConfigError: there is no part, or a part has not one pair of finite numbers a feature.
    """

    coefficients: Mapping[str, tuple[tuple[float, float], ...]] = field(hash=False)

    def __post_init__(self) -> None:
        if not self.coefficients:
            raise ConfigError("names no part", field="fusion.coefficients", value={}, fix="fit it anew")
        for name, pairs in self.coefficients.items():
            if [len(pair) for pair in pairs] != [2] * len(FEATURES) or not all(map(math.isfinite, sum(pairs, ()))):
                fix = f"give (base, slope) for each of {', '.join(FEATURES)}"
                raise ConfigError("must be pairs of finite numbers", field=f"fusion.coefficients.{name}", value=pairs, fix=fix)
        object.__setattr__(self, "coefficients", MappingProxyType(dict(self.coefficients)))

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that it has coefficients for."""
        return tuple(self.coefficients)

    def contributions(self, scores: Mapping[str, Sequence[float]], history_length: int) -> Mapping[str, Sequence[float]]:
        """What the features of each part add up to; 0 for all candidates if the part's scores are all equal."""
        length = math.log1p(history_length)
        given = {}
        for name, pairs in self.coefficients.items():
            weights = [base + slope * length for base, slope in pairs]
            columns = [centred(column) for column in features(scores[name])]
            given[name] = [
                math.fsum(weight * value for weight, value in zip(weights, row, strict=True))
                for row in zip(*columns, strict=True)
            ]
        return given

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        named = {
            part: {feature: list(pair) for feature, pair in zip(FEATURES, pairs, strict=True)}
            for part, pairs in self.coefficients.items()
        }
        return {"kind": "linear", "coefficients": named}


def centred(values: Sequence[float]) -> list[float]:
    """The values less their mean."""
    mean = math.fsum(value / len(values) for value in values)
    return [value - mean for value in values]
