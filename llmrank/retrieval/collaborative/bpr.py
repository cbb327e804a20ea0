"""Interactions go in, factors of items come out whose products with a user's order what was chosen before what was not: BPR.

Rendle, Freudenthaler, Gantner and Schmidt-Thieme, "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009;
trained by `implicit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.histories import chosen, needed
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.model import CollaborativeModel, Learned, factor_scores, recent_once
from llmrank.retrieval.collaborative.options import check_number, check_whole
from llmrank.retrieval.collaborative.rows import checked
from llmrank.retrieval.collaborative.storage import learned_from
from llmrank.retrieval.vectors import Progress, Rows, Vectors


@dataclass(frozen=True, slots=True)
class BprOptions:
    """How factors are fitted, and what of a history counts.

    Args:
        factors: How many numbers stand for an item, beside its bias.
        regularization: How strongly factors are pulled to 0 at each step.
        learning_rate: The size of a step.
        iterations: How often all interactions are gone through.
        decay: The weight of a history item is decay^age, the last one having age 0; in (0, 1].
        last: How many history items, the most recent that the model knows, count; null for all.
        strength: What the mean of the history's factors is multiplied by: how much taste weighs beside an item's bias.
        seed: Of the factors at the start and of the samples.
        threads: How many threads train; only with 1 do equal seeds give equal factors, for threads overwrite one another's
            steps.
    """

    factors: int = 64
    regularization: float = 0.01
    learning_rate: float = 0.05
    iterations: int = 100
    decay: float = 0.8
    last: int | None = 50
    strength: float = 2.0
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        check_whole("bpr.factors", self.factors)
        check_number("bpr.regularization", self.regularization)
        check_number("bpr.learning_rate", self.learning_rate, above=True, fix="try 0.05")
        check_whole("bpr.iterations", self.iterations)
        check_number("bpr.decay", self.decay, most=1.0, above=True)
        check_whole("bpr.last", self.last, optional=True)
        check_number("bpr.strength", self.strength)
        check_whole("bpr.seed", self.seed, least=0)
        check_whole("bpr.threads", self.threads)


class Bpr(CollaborativeModel[BprOptions]):
    """The product of an item's factors with the user's, and the item's bias.

    A user's factors are `strength` times the recency-weighted mean of the factors of the history's items: a user whom the model
    never saw is as good as any other, and one whom it saw is up to date. An item that stands twice counts once, where it stands
    last. Scores may be below 0, which is what an item without factors and bias, one that nobody chose, would get.
    """

    kind: ClassVar[str] = "bpr"
    options_type: ClassVar[type[Any]] = BprOptions

    def __init__(
        self,
        index: ItemIndex,
        options: BprOptions,
        learned: Learned,
        factors: Vectors,
        biases: Vectors,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(index, options, learned, name=name)
        self.factors, self.biases = factors, biases

    @classmethod
    def train(cls, interactions: Interactions, options: BprOptions, progress: Progress | None = None) -> Self:
        """Fits by `implicit`.

        Raises:
            SetupError: `implicit` is not installed.
        """
        bpr = needed("implicit.cpu.bpr")
        model = bpr.BayesianPersonalizedRanking(
            factors=options.factors,
            learning_rate=options.learning_rate,
            regularization=options.regularization,
            iterations=options.iterations,
            num_threads=options.threads,
            random_state=options.seed,
        )

        def told(iteration: int, *_: object) -> None:
            if progress is not None:
                progress(iteration + 1, options.iterations)

        model.fit(chosen(interactions), show_progress=False, callback=told)
        whole = np.asarray(model.item_factors, dtype=np.float32)  # the last column is the bias: it meets a 1 of every user
        factors, biases = np.ascontiguousarray(whole[:, :-1]), np.ascontiguousarray(whole[:, -1])
        return cls(ItemIndex(interactions.items), options, learned_from(interactions), factors, biases)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The items' factors and biases."""
        return {"factors": self.factors, "biases": self.biases}

    @classmethod
    def from_arrays(cls, index: ItemIndex, options: BprOptions, learned: Learned, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """From the items' factors and biases."""
        factors = checked(arrays["factors"], np.float32, (len(index), options.factors))
        return cls(index, options, learned, factors, checked(arrays["biases"], np.float32, (len(index),)))

    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """The products and biases."""
        scores = np.zeros(len(columns), dtype=np.float32)
        if not len(history):
            return scores
        numbers, weights = recent_once(history, self.options.last, self.options.decay)
        user = (weights @ self.factors[numbers]) / weights.sum()
        known = columns >= 0
        scores[known] = self.biases[columns[known]]
        return scores + factor_scores(self.factors, np.float32(self.options.strength) * user, columns)
