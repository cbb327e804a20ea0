"""A relevance measure and the cases of a run go in; which differences between rankers they could show at all comes out.

Known before any ranker has run: the spread from case to case is taken to be that of a random order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_low

import numpy as np

from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.random_order import random_order_sd
from llmrank.evaluation.measures.statistics import minimum_detectable_effect, paired_sd
from llmrank.evaluation.measures.totals import Users

ALPHA, POWER = 0.05, 0.8
"""The level of the test, and the chance of finding the difference."""

ALIKE = 0.5
"""The correlation from case to case that is assumed of two rankers that are much alike."""

SAMPLE = 200
"""How many cases, the first ones, say how many candidates a case has."""


@dataclass(frozen=True, slots=True)
class DetectableEffect:
    """The smallest true differences of two rankers' means that are likely to be found, in the measure's own unit.

    Attributes:
        apart: Of rankers that have nothing in common: their values are not correlated.
        alike: Of rankers whose values have the correlation `ALIKE`, such as two prompts of one model.
        users: How many users the cases are of.
        sd: The standard deviation of the measure from case to case.
    """

    apart: float
    alike: float
    users: int
    sd: float = math.nan

    def line(self) -> str:
        """Both figures for people, with what they rest on."""
        return (
            f"differences in the primary measure that {self.users:,} users are likely to show (power {100 * POWER:g} %, level "
            f"{100 * ALPHA:g} %): {self.apart:.3f} between rankers that have nothing in common, {self.alike:.3f} between alike "
            f"ones (correlation {ALIKE:g}, such as two prompts of one model); with the spread of a random order: measured "
            "spreads are usually larger, and `llmrank eval compare` has the figure for them"
        )


def detectable_effect(measure: Measure, cases: Iterable[Case]) -> DetectableEffect | None:
    """What the cases could show (`statistics.minimum_detectable_effect`), reckoned as if each user had one case.

    Args:
        measure: Which is to show it.
        cases: All that are to be ranked; read once, to the end.

    Returns:
        The differences, for as many candidates and relevant ones among them as the median of the first `SAMPLE` cases has.
        None if that cannot be told: it is no measure of relevance, or these cases have no candidates of their own, or nothing
        relevant among them.
    """
    if measure.about != "relevance":
        return None
    users = Users()
    candidates, relevant = [], []
    for number, case in enumerate(cases):
        users.add(case.user_id)
        if number < SAMPLE and case.candidates is not None and (found := len({*case.relevant}.intersection(case.candidates))):
            candidates.append(len(case.candidates))
            relevant.append(found)
    if not candidates:
        return None
    count = len(np.unique(users.codes()))
    sd = random_order_sd(measure, median_low(candidates), median_low(relevant))
    apart, alike = (
        minimum_detectable_effect(paired_sd(sd, correlation), count, alpha=ALPHA, power=POWER) for correlation in (0.0, ALIKE)
    )
    return DetectableEffect(apart, alike, count, sd)
