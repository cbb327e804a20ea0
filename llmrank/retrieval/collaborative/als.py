"""Interactions go in, factors of items come out whose products with a user's say what that user chooses: weighted ALS.

Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008; trained by `implicit`.
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
class AlsOptions:
    """How factors are fitted, and what of a history counts.

    Args:
        factors: How many numbers stand for an item.
        regularization: The weight of the squared factors in what is minimised.
        confidence: How much more a choice counts than a pair of user and item of which nothing is known, which counts 1.
        iterations: How often users' and items' factors are solved for in turn.
        decay: The confidence of a history item is multiplied by decay^age, the last one having age 0; in (0, 1].
        last: How many history items, the most recent that the model knows, count; null for all.
        seed: Of the factors at the start.
        threads: How many threads train; null for one a core. The result does not depend on it.
    """

    factors: int = 32
    regularization: float = 1.0
    confidence: float = 100.0
    iterations: int = 10
    decay: float = 0.8
    last: int | None = 50
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        check_whole("als.factors", self.factors)
        check_number("als.regularization", self.regularization, above=True, fix="try 1")
        check_number("als.confidence", self.confidence, above=True, fix="try 100")
        check_whole("als.iterations", self.iterations)
        check_number("als.decay", self.decay, most=1.0, above=True)
        check_whole("als.last", self.last, optional=True)
        check_whole("als.seed", self.seed, least=0)
        check_whole("als.threads", self.threads, optional=True)


class Als(CollaborativeModel[AlsOptions]):
    """The product of an item's factors with the user's, which are solved for from the history at each request.

    That is the same least-squares problem as in training, so a user whom the model never saw is as good as any other, and a
    user whom it saw is up to date. An item that stands twice in the history counts once, where it stands last.
    """

    kind: ClassVar[str] = "als"
    options_type: ClassVar[type[Any]] = AlsOptions

    def __init__(
        self, index: ItemIndex, options: AlsOptions, learned: Learned, factors: Vectors, *, name: str | None = None
    ) -> None:
        super().__init__(index, options, learned, name=name)
        self.factors = factors
        wide = factors.astype(np.float64)
        self._gram = wide.T @ wide + options.regularization * np.eye(factors.shape[1])

    @classmethod
    def train(cls, interactions: Interactions, options: AlsOptions, progress: Progress | None = None) -> Self:
        """Fits by `implicit`. Equal seeds give equal factors on one machine.

        Raises:
            SetupError: `implicit` is not installed.
        """
        als = needed("implicit.cpu.als")

        def told(iteration: int, *_: object) -> None:
            if progress is not None:
                progress(iteration + 1, options.iterations)

        # Its own threads divide the users; threads of BLAS inside each of them would only wait for one another.
        with needed("threadpoolctl").threadpool_limits(1, "blas"):
            model = als.AlternatingLeastSquares(
                factors=options.factors,
                regularization=options.regularization,
                alpha=options.confidence,
                iterations=options.iterations,
                num_threads=options.threads or 0,
                random_state=options.seed,
            )
            model.fit(chosen(interactions), show_progress=False, callback=told)
        factors = np.ascontiguousarray(model.item_factors, dtype=np.float32)
        return cls(ItemIndex(interactions.items), options, learned_from(interactions), factors)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The items' factors."""
        return {"factors": self.factors}

    @classmethod
    def from_arrays(cls, index: ItemIndex, options: AlsOptions, learned: Learned, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """From the items' factors."""
        return cls(index, options, learned, checked(arrays["factors"], np.float32, (len(index), options.factors)))

    def user_factors(self, history: Rows) -> Vectors:
        """The factors of a user with this history, float32 of shape (factors,)."""
        numbers, weights = recent_once(history, self.options.last, self.options.decay)
        confidence = self.options.confidence * weights.astype(np.float64)
        own = self.factors[numbers].astype(np.float64)
        left = self._gram + own.T @ ((confidence - 1.0)[:, np.newaxis] * own)
        return np.linalg.solve(left, confidence @ own).astype(np.float32)

    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """The products; may be below 0."""
        if not len(history):
            return np.zeros(len(columns), dtype=np.float32)
        return factor_scores(self.factors, self.user_factors(history), columns)
