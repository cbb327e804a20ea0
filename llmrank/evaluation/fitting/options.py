"""How a fusion is fitted: one small class, whose keys are the options of `llmrank fusion fit`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from llmrank.errors import ConfigError, nearest
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.fusion.weighted import Method

FitMethod: TypeAlias = Literal["weights", "minmax", "rrf", "linear", "trees"]

NORMALISED: dict[FitMethod, Method] = {
    "weights": "zscore",
    "minmax": "minmax",
    "rrf": "rrf",
    "linear": "zscore",
    "trees": "zscore",
}
"""How scores are made comparable by a method of fitting; by one that learns, for the equal weights that stand beside it."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a fusion is fitted, and how that is measured.

    Args:
        method: ``weights`` of z-scores, of shares (``minmax``) or of reciprocal ranks (``rrf``); or what is learned: a
            ``linear`` ranker, ``trees``.
        metric: What is made as large as possible, and reported: ``ndcg``, at any number of places.
        bands: The longest history of each band but the last, in events and rising: ``(0, 5)`` tells new users, those with 1
            to 5 events, and all others apart. Weights are fitted for each; what is learned sees the length itself, and is
            only reported so.
        folds: Users are dealt out to so many; each is measured by what was fitted on the others.
        seed: Of the folds, the bootstrap, and what LightGBM draws.
        confidence: Of the intervals.
        resamples: Of the bootstrap.
        least_users: A band with fewer is merged with its neighbour.
        l2: ``linear``: how strongly coefficients are drawn to 0.
        rounds: ``trees``: how many.

    Raises:
        ConfigError: a value is out of range; the field and the remedy are named.
    """

    method: FitMethod = "weights"
    metric: str = "ndcg@10"
    bands: tuple[int, ...] = ()
    folds: int = 5
    seed: int = 0
    confidence: float = 0.95
    resamples: int = 2000
    least_users: int = 30
    l2: float = 1.0
    rounds: int = 100

    def __post_init__(self) -> None:
        if self.method not in NORMALISED:
            fix = nearest(str(self.method), get_args(FitMethod))
            raise ConfigError("there is no such method", field="method", value=self.method, fix=fix)
        if parse_measure(self.metric).family != "ndcg":
            fix = "write ndcg@10, or any other number of places"
            raise ConfigError("is nothing that a fusion can be fitted for", field="metric", value=self.metric, fix=fix)
        bands = list(self.bands)
        if bands != sorted(set(bands)) or any(isinstance(end, bool) or not isinstance(end, int) or end < 0 for end in bands):
            fix = "write numbers of events that rise: 0,2,5"
            raise ConfigError("are no lengths of histories", field="bands", value=self.bands, fix=fix)
        for name, least in (("folds", 2), ("seed", 0), ("resamples", 100), ("least_users", 1), ("rounds", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"must be at least {least}", field=name, value=getattr(self, name), fix="or leave it out")
        if not 0 < self.confidence < 1:
            raise ConfigError("must be between 0 and 1", field="confidence", value=self.confidence, fix="0.95 is usual")
        if not 0 < self.l2 < math.inf:
            raise ConfigError("must be a number above 0", field="l2", value=self.l2, fix="or leave it out")

    @property
    def k(self) -> int | None:
        """The places that count; None for all."""
        return parse_measure(self.metric).k
