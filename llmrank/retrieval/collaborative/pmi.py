"""Interactions go in; vectors of items come out whose cosine says how much more often two are chosen together than by chance.

The matrix of positive pointwise mutual information of items that the same users chose, factored by a truncated SVD. That is
what skip-gram with negative sampling factors implicitly (Levy and Goldberg, "Neural word embedding as implicit matrix
factorization", NIPS 2014; with items for words: Barkan and Koenigstein, "Item2vec", MLSP 2016), without its randomness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.histories import chosen, needed, scipy_sparse
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.model import CollaborativeModel, Learned, factor_scores, recent
from llmrank.retrieval.collaborative.options import check_number, check_whole
from llmrank.retrieval.collaborative.rows import SparseRows, best_of_each, blocks, checked
from llmrank.retrieval.collaborative.storage import learned_from
from llmrank.retrieval.vectors import Progress, Rows, Vectors, normalise


@dataclass(frozen=True, slots=True)
class PmiOptions:
    """How vectors are made, and what of a history counts.

    Args:
        factors: How many numbers stand for an item; fewer where there are not so many items.
        smoothing: Counts of the second item of a pair are raised to this power before they are compared with chance, which
            takes from the PMI of rare items (Levy, Goldberg and Dagan, TACL 2015); 1 does not.
        neighbours: Of each item so many others are kept, those of the highest PMI; bounds the memory.
        decay: The weight of a history item is decay^age, the last one having age 0; in (0, 1].
        last: How many history items, the most recent that the model knows, count; null for all.
        seed: Of the vector at which the decomposition starts.
    """

    factors: int = 128
    smoothing: float = 0.75
    neighbours: int = 2000
    decay: float = 0.9
    last: int | None = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("pmi.factors", self.factors)
        check_number("pmi.smoothing", self.smoothing, most=1.0, above=True)
        check_whole("pmi.neighbours", self.neighbours)
        check_number("pmi.decay", self.decay, most=1.0, above=True)
        check_whole("pmi.last", self.last, optional=True)
        check_whole("pmi.seed", self.seed, least=0)


class Pmi(CollaborativeModel[PmiOptions]):
    """The cosine of an item's vector with the weighted sum of the history's: an item that stands twice counts twice."""

    kind: ClassVar[str] = "pmi"
    options_type: ClassVar[type[Any]] = PmiOptions

    def __init__(
        self, index: ItemIndex, options: PmiOptions, learned: Learned, vectors: Vectors, *, name: str | None = None
    ) -> None:
        super().__init__(index, options, learned, name=name)
        self.vectors = vectors

    @classmethod
    def train(cls, interactions: Interactions, options: PmiOptions, progress: Progress | None = None) -> Self:
        """Factors the PMI of all pairs. Equal seeds give equal vectors on one machine.

        Raises:
            SetupError: scipy is not installed.
        """
        count = len(interactions.items)
        kept = SparseRows.of(_pmi(chosen(interactions), options, progress))
        # Of both directions, so that rows and columns stand for the same items.
        shape = (count, count)
        matrix = scipy_sparse().csr_matrix((kept.values, kept.columns, kept.starts), shape=shape, dtype=np.float32)
        matrix = (matrix + matrix.T) / 2
        if not matrix.nnz:  # nobody chose two items: nothing goes with anything
            left = np.zeros((count, options.factors if options.factors < count - 1 else count), dtype=np.float32)
            strength = np.zeros(left.shape[1], dtype=np.float32)
        elif options.factors < count - 1:
            start = np.random.default_rng(options.seed).standard_normal(count).astype(np.float32)
            left, strength, _ = needed("scipy.sparse.linalg").svds(matrix, k=options.factors, v0=start)
        else:  # of few items all that there is, which is what the iterative method cannot give
            left, strength, _ = np.linalg.svd(matrix.toarray())
        vectors = normalise(left * np.sqrt(np.maximum(strength, 0.0)))
        return cls(ItemIndex(interactions.items), options, learned_from(interactions), np.ascontiguousarray(vectors))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The items' vectors."""
        return {"vectors": self.vectors}

    @classmethod
    def from_arrays(cls, index: ItemIndex, options: PmiOptions, learned: Learned, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """From the items' vectors."""
        width = options.factors if options.factors < len(index) - 1 else len(index)
        shape = (len(index), width)
        return cls(index, options, learned, checked(arrays["vectors"], np.float32, shape))

    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """The cosines; may be below 0."""
        numbers, weights = recent(history, self.options.last, self.options.decay)
        user = normalise(weights @ self.vectors[numbers])
        return factor_scores(self.vectors, user, columns)


def _pmi(users: Any, options: PmiOptions, progress: Progress | None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The positive PMI of each item with others, row by row: columns and values.

    Args:
        users: Who chose what, a ``csr_matrix``.
        options: The model's.
        progress: Called with (items done, items).
    """
    by_item = users.T.tocsr()
    sizes = np.diff(users.indptr)
    # How many pairs an item is in: each of its users pairs it with each other item of theirs.
    pairs = (by_item @ (sizes - 1).astype(np.float64)).ravel()
    context = np.power(np.maximum(pairs, 1.0), options.smoothing)
    total = float(context[pairs > 0].sum())
    for rows in blocks(np.asarray(by_item @ sizes).ravel(), progress):
        together = (by_item[rows] @ users).tocoo()
        own = together.row + rows.start
        chance = pairs[own] * context[together.col] / max(total, 1.0)
        apart = own != together.col
        values = np.log(together.data[apart] / chance[apart])
        found = values > 0
        matrix = scipy_sparse().csr_matrix(
            (values[found].astype(np.float32), (together.row[apart][found], together.col[apart][found])), shape=together.shape
        )
        yield from best_of_each(matrix, options.neighbours)
