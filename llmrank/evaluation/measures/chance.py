"""Measures and cases go in, what a random order of each case's candidates would reach on average comes out, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.beyond import Known
from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.random_order import random_order


def expected_value(measure: Measure, candidates: int, found: int, relevant: int) -> float:
    """The mean of a measure of relevance over all orders of a case's candidates.

    Args:
        measure: Of relevance.
        candidates: How many are ranked.
        found: How many of them are relevant.
        relevant: How many items are relevant in all; those that are no candidates cannot be found.
    """
    if not found:
        return 0.0
    # What cannot be found takes from every order the same part of what it reaches: that which it takes from the best one.
    mean = random_order(measure, candidates, found).mean
    return mean if found == relevant else mean * _best(measure, found, relevant) / _best(measure, found, found)


def chance(measures: Sequence[Measure], cases: Iterable[Case]) -> dict[str, float] | None:
    """The mean over the cases, by the names of the measures of relevance.

    None if there is no case, or one whose candidates are the whole catalogue: how many are ranked is then the ranker's affair.
    """
    wanted = [measure for measure in measures if measure.about == "relevance"]
    exact = lru_cache(maxsize=4096)(expected_value)
    sums = [0.0] * len(wanted)
    count = 0
    for case in cases:
        if case.candidates is None:
            return None
        relevant = set(case.relevant)
        found = len(relevant.intersection(case.candidates))
        for at, measure in enumerate(wanted):
            sums[at] += exact(measure, len(case.candidates), found, len(relevant))
        count += 1
    return {measure.name: value / count for measure, value in zip(wanted, sums, strict=True)} if count else None


def _best(measure: Measure, found: int, relevant: int) -> float:
    """What the order reaches that has all that is relevant first."""
    ids = tuple(map(str, range(relevant)))
    return measure.scorer(Known(0))(ids[:found], Case("", (), None, ids))
