"""Confidence sequences: observations go in as they come, intervals and p values that may be looked at at any time come out.

Which one: `BoundedSequence` where the observations have bounds (NDCG, hits, differences of them) and wherever there are fewer
than some hundreds; `AsymptoticSequence` where they have none; `AsymptoticDifference` for two groups of different users.
"""

from llmrank.experiment.statistics.asymptotic import (
    AsymptoticDifference,
    AsymptoticSequence,
    asymptotic_interval,
    asymptotic_p_values,
)
from llmrank.experiment.statistics.betting import BoundedSequence, bounded_p_values

__all__ = [
    "AsymptoticDifference",
    "AsymptoticSequence",
    "BoundedSequence",
    "asymptotic_interval",
    "asymptotic_p_values",
    "bounded_p_values",
]
