"""A tally and a metric go in; numbers a user come out, whose mean or ratio is the metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmrank.experiment.online.reading_options import MetricOptions
from llmrank.experiment.online.tally import Floats, Tally


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What a metric takes of each user, in the order of exposure.

    Attributes:
        above: Shape (users,): what is counted or summed; of a ratio, what stands above the line.
        below: Of a ratio, what stands below; else None.
        before: The covariate; None without one.
    """

    above: Floats
    below: Floats | None
    before: Floats | None

    def of(self, users: NDArray[np.bool_]) -> Columns:
        """The same of some users."""
        below, before = (None if each is None else each[users] for each in (self.below, self.before))
        return Columns(self.above[users], below, before)

    @property
    def value(self) -> float:
        """The metric of these users together; NaN without one, and without anything below the line."""
        total = len(self.above) if self.below is None else float(self.below.sum())
        return float(self.above.sum()) / total if total else math.nan

    @property
    def each(self) -> Floats:
        """One value a user, whose mean is the metric and varies as the metric does (for ratios: the delta method)."""
        if self.below is None:
            return self.above
        ratio = self.value
        return ratio + (self.above - ratio * self.below) / (float(self.below.sum()) / len(self.below))


def columns_of(metric: MetricOptions, tally: Tally) -> Columns:
    """What a metric takes of all users of a tally."""
    above = tally.after(metric.outcomes, metric.window_s, count=metric.kind == "conversion")
    if metric.kind == "conversion":
        above = (above > 0).astype(np.float64)
    below = None if metric.denominator is None else tally.after(metric.denominator, metric.window_s)
    return Columns(above, below, None if metric.covariate is None else tally.before(metric.covariate))
