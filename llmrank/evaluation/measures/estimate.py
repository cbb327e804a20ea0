"""Values of cases go in, their mean with its interval comes out, as numbers that JSON can hold.

Intervals are from the bootstrap. Where all users have the same value it draws nothing but that value, however few they are; a
share then has the Wilson interval of as many users, so that no mean of a sample passes for certain.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.measures.proportions import wilson
from llmrank.evaluation.measures.statistics import bootstrap_means

Values: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the ends of its interval; None for a mean of nothing, and for an interval from fewer than two users."""

    mean: float | None
    ci: list[float] | None


@dataclass(frozen=True, slots=True)
class Estimator:
    """How intervals are made; see `statistics.bootstrap_means` and `proportions.wilson`.

    Attributes:
        confidence: Of the intervals.
        resamples: Of the bootstrap.
        seed: Of the resampling.
    """

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def columns(self, values: Values, users: Codes, *, shares: Collection[int] = ()) -> list[Estimate]:
        """The mean of each column.

        Args:
            values: Shape (cases, columns); NaN where a case has no value.
            users: Shape (cases,); cases of one user are drawn together.
            shares: The columns whose values lie from 0 to 1 by definition. Where all users' means are the same, the interval
                is Wilson's for as many users, as no share varies more than hits and misses do.
        """
        if not len(values):
            return [Estimate(None, None)] * values.shape[1]
        found = bootstrap_means(values, users, confidence=self.confidence, resamples=self.resamples, seed=self.seed)
        for column in shares:
            if found.low[column] == found.high[column]:
                clusters = int(found.clusters[column])
                ends = wilson(float(found.mean[column]) * clusters, clusters, self.confidence)
                found.low[column], found.high[column] = ends
        rows = zip(found.mean.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
        return [_estimate(*each) for each in rows]

    def column(self, values: Values, users: Codes, *, share: bool = False) -> Estimate:
        """The mean of one column, shape (cases,); `share`: as for `columns`."""
        return self.columns(values[:, np.newaxis], users, shares=(0,) if share else ())[0]

    def by_bin(self, bins: Sequence[tuple[int, int | None]], keys: Codes, values: Values, users: Codes, name: str) -> list[Any]:
        """The means of the cases whose key lies in each bin; bins without cases are left out.

        Args:
            bins: First and last key, both included; None for the last one: no end.
            keys: Shape (cases,).
            values: Shape (cases,); NaN where a case has no value.
            users: Shape (cases,).
            name: The measure's name, under which the mean stands.

        Returns:
            ``{"from", "to", "cases", name, "ci"}`` for each.
        """
        share = parse_measure(name).unit == "share"
        rows = []
        for first, last in bins:
            within = (keys >= first) & (keys <= (np.iinfo(np.int64).max if last is None else last))
            if not within.any():
                continue
            found = self.column(values[within], users[within], share=share)
            rows.append({"from": first, "to": last, "cases": int(within.sum()), name: found.mean, "ci": found.ci})
        return rows


def number(value: float) -> float | None:
    """A float to 12 significant digits, beyond which sums depend on the machine; None for what JSON cannot hold."""
    return float(f"{value:.12g}") if math.isfinite(value) else None


def _estimate(mean: float, low: float, high: float) -> Estimate:
    ends = [number(low), number(high)]
    return Estimate(number(mean), [end for end in ends if end is not None] if None not in ends else None)
