"""A relevance measure and the size of a case go in, its mean and deviation under a random order come out.

Known before any ranker has run, so that a forecast can say which differences a sample of cases could show at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from llmrank.errors import ConfigError
from llmrank.evaluation.measures.measure import Measure, parse_measure

Gain: TypeAlias = Callable[[int, int], float]
"""What a hit at a place (from 1) adds after so many hits before it."""


@dataclass(frozen=True, slots=True)
class Moments:
    """What a measure is when the order is random: its mean and its standard deviation from case to case."""

    mean: float
    sd: float


def random_order(measure: Measure | str, candidates: int, relevant: int = 1) -> Moments:
    """The exact moments of a relevance measure over all orders of the candidates, each as likely as any other.

    Going down the list, a hit at a place has the chance (relevant left) / (places left), and every measure of `metrics` is a
    sum of gains that depend on the place and on the hits before it. So the first two moments follow place by place, for each
    number of hits, without listing orders.

    Args:
        measure: Of relevance, or its name.
        candidates: How many are ranked.
        relevant: How many of them are relevant.

    Raises:
        ConfigError: it is no measure of relevance, or the numbers do not fit.
    """
    measure = parse_measure(measure) if isinstance(measure, str) else measure
    if measure.family not in _GAINS:
        fix = f"use one of: {', '.join(_GAINS)}"
        raise ConfigError("no measure of relevance", field="measure", value=measure.name, fix=fix)
    if not 1 <= relevant <= candidates:
        fix = "at least 1, at most the number of candidates"
        raise ConfigError(f"must fit the {candidates} candidates", field="relevant", value=relevant, fix=fix)
    gain = _GAINS[measure.family](candidates, relevant, measure.k)
    # For each number of hits so far: the chance of it, and the sum and squared sum of gains weighed by that chance.
    chance, first, second = ([0.0] * (relevant + 1) for _ in range(3))
    chance[0] = 1.0
    for place in range(1, (candidates if measure.k is None else min(measure.k, candidates)) + 1):
        for hits in range(min(relevant, place) - 1, -1, -1):  # downwards, so that a hit of this place is not met again
            hit = min(1.0, (relevant - hits) / (candidates - place + 1))
            more = gain(place, hits)
            chance[hits + 1] += hit * chance[hits]
            first[hits + 1] += hit * (first[hits] + more * chance[hits])
            second[hits + 1] += hit * (second[hits] + 2 * more * first[hits] + more**2 * chance[hits])
            for sums in (chance, first, second):
                sums[hits] *= 1 - hit
    mean = sum(first)
    return Moments(mean, math.sqrt(max(0.0, sum(second) - mean**2)))


def random_order_sd(measure: Measure | str, candidates: int, relevant: int = 1) -> float:
    """The deviation alone; `random_order` says the rest."""
    return random_order(measure, candidates, relevant).sd


def _ndcg(candidates: int, relevant: int, k: int | None) -> Gain:
    ideal = sum(1 / math.log2(place + 1) for place in range(1, min(relevant, k or relevant) + 1))
    return lambda place, hits: 1 / math.log2(place + 1) / ideal


_GAINS: dict[str, Callable[[int, int, int | None], Gain]] = {
    "ndcg": _ndcg,
    "hit": lambda candidates, relevant, k: lambda place, hits: float(hits == 0),
    "recall": lambda candidates, relevant, k: lambda place, hits: 1 / relevant,
    "precision": lambda candidates, relevant, k: lambda place, hits: 1 / (k or candidates),
    "mrr": lambda candidates, relevant, k: lambda place, hits: float(hits == 0) / place,
    "map": lambda candidates, relevant, k: lambda place, hits: (hits + 1) / place / relevant,
}
