"""Interactions go in, the item-to-item weights that best rebuild every user's choices come out: a linear autoencoder.

Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019 (EASE^R).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import ConfigError
from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.histories import chosen, needed
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.model import recent_once, weighted_rows
from llmrank.retrieval.collaborative.neighbours import ItemToItem
from llmrank.retrieval.collaborative.options import check_number, check_whole
from llmrank.retrieval.collaborative.rows import SparseRows, blocks
from llmrank.retrieval.collaborative.storage import learned_from
from llmrank.retrieval.index import top_k
from llmrank.retrieval.vectors import Progress, Rows, Vectors

BLOCK = 1024
"""Rows of the dense matrix that are worked on together."""


@dataclass(frozen=True, slots=True)
class EaseOptions:
    """How the weights are fitted, and what of a history counts.

    Args:
        l2: The weight of the squared weights in what is minimised; the sparser the data, the more.
        max_items: Only so many items, the most popular, are learnt: memory is 4 bytes and time some operations for each
            pair, and for each triple, of them.
        neighbours: How many weights are kept for each item, the largest without their signs; null keeps all.
        decay: The weight of a history item is decay^age, the last one having age 0; in (0, 1]; 1 is the paper's.
        last: How many history items, the most recent that the model knows, count; null for all.
    """

    l2: float = 2000.0
    max_items: int = 20_000
    neighbours: int | None = 2000
    decay: float = 0.9
    last: int | None = 50

    def __post_init__(self) -> None:
        check_number("ease.l2", self.l2, above=True, fix="try 2000")
        check_whole("ease.max_items", self.max_items)
        check_whole("ease.neighbours", self.neighbours, optional=True)
        check_number("ease.decay", self.decay, most=1.0, above=True)
        check_whole("ease.last", self.last, optional=True)


class Ease(ItemToItem[EaseOptions]):
    """The product of the user's history and the weights ``B = -P / diag(P)``, 0 on the diagonal, ``P = (X'X + l2 I)^-1``.

    An item that stands twice in the history counts once, where it stands last. Scores may be below 0: such a candidate is less
    likely than one of which nothing is known.
    """

    kind: ClassVar[str] = "ease"
    options_type: ClassVar[type[Any]] = EaseOptions

    @classmethod
    def train(cls, interactions: Interactions, options: EaseOptions, progress: Progress | None = None) -> Self:
        """Solves in single precision, in the place of the one dense matrix.

        Raises:
            ConfigError: `l2` is too small for the matrix to be inverted.
        """
        by_user = chosen(interactions)
        users = np.asarray(by_user.sum(axis=0)).ravel()
        kept = np.sort(top_k(users, options.max_items))
        notes = []
        if left_out := len(users) - len(kept):
            notes.append(f"{left_out:,} of {len(users):,} items, the least popular, were left out (ease.max_items)")
        by_user = by_user[:, kept].tocsr()
        weights = _weights(by_user, options.l2, progress)
        keep = options.neighbours
        rows = weights if keep is None or keep >= len(weights) else SparseRows.of(_largest(weights, keep))
        index = ItemIndex(interactions.items[at] for at in kept.tolist())
        return cls(index, options, learned_from(interactions, notes), rows)

    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """The history's items, each once, times the weights."""
        numbers, weights = recent_once(history, self.options.last, self.options.decay)
        return weighted_rows(self.rows, numbers, weights, len(self.index))[columns]


def _weights(by_user: Any, l2: float, progress: Progress | None) -> Vectors:
    """B, float32 of shape (items, items)."""
    lapack = needed("scipy.linalg.lapack")
    count = by_user.shape[1]
    by_item = by_user.T.tocsr()
    matrix = np.empty((count, count), dtype=np.float32)
    for block in blocks(np.full(count, count)):
        matrix[block] = (by_item[block] @ by_user).toarray()
    diagonal = np.arange(count)
    matrix[diagonal, diagonal] += l2
    # The transpose is the same matrix in the order that LAPACK wants, so that it works in place and nothing is copied.
    for done, (name, call) in enumerate((("spotrf", lapack.spotrf), ("spotri", lapack.spotri)), start=1):
        _, info = call(matrix.T, lower=0, **{"overwrite_a" if name == "spotrf" else "overwrite_c": 1})
        if info:
            raise ConfigError("is too small to invert the matrix", field="ease.l2", value=l2, fix="take a larger one")
        if progress is not None:
            progress(done, 2)
    _mirror(matrix)
    scale = -1.0 / matrix[diagonal, diagonal]
    matrix *= scale[np.newaxis, :]
    matrix[diagonal, diagonal] = 0.0
    return matrix


def _mirror(matrix: Vectors) -> None:
    """Copies the lower triangle, the only one that LAPACK wrote, to the upper one."""
    for start in range(0, len(matrix), BLOCK):
        end = start + BLOCK
        corner = matrix[start:end, start:end]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
        matrix[start:end, end:] = matrix[end:, start:end].T


def _largest(weights: Vectors, keep: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    for row in weights:
        best = np.sort(top_k(np.abs(row), keep))
        best = best[row[best] != 0]
        yield best, row[best]
