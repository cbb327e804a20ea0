"""Outcomes of simulated experiments go in, the rows of a Markdown table come out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        what: What was simulated.
        value: What came out; a share from 0 to 1 where `percent`.
        error: Its standard error from simulating only so many experiments; NaN if it has none.
        expected: What it should be, in words.
        percent: Whether it is a share.
        digits: How many to show after the point.
    """

    what: str
    value: float
    error: float = math.nan
    expected: str = ""
    percent: bool = True
    digits: int = 1

    def cells(self) -> tuple[str, str, str]:
        """As text."""
        factor, unit = (100.0, " %") if self.percent else (1.0, "")
        shown = f"{factor * self.value:,.{self.digits}f}"
        if not math.isnan(self.error):
            shown += f" +- {factor * self.error:.{max(1, self.digits)}f}"
        return self.what, shown + unit, self.expected


def share(what: str, outcomes: ArrayLike, expected: str = "", *, digits: int = 1) -> Row:
    """The share of experiments with an outcome, with its binomial standard error."""
    found = np.asarray(outcomes, dtype=np.float64).ravel()
    rate = float(found.mean())
    return Row(what, rate, math.sqrt(rate * (1 - rate) / len(found)), expected, digits=digits)


def mean(what: str, values: ArrayLike, expected: str = "", *, percent: bool = False, digits: int = 3) -> Row:
    """A mean over experiments, with its standard error."""
    found = np.asarray(values, dtype=np.float64).ravel()
    return Row(what, float(found.mean()), float(found.std(ddof=1)) / math.sqrt(len(found)), expected, percent, digits)


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    lines = ["| simulated | figure | expected |", "|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row.cells()) + " |" for row in rows)])
