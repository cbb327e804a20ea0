"""Exact nearest neighbours: vectors and a query go in, the positions and cosines of the k best come out.

No approximation and no structure to build: one matrix product and a partial sort, which NumPy does at the speed of
memory (a million vectors of 256 numbers in a fifth of a second on two cores). The matrix may be memory-mapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llmrank.retrieval.vectors import Rows, Vectors, normalise

BLOCK_BYTES = 64 * 2**20
"""The most that a temporary of a batch search or of a gathering of rows takes."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The best, best first: positions (int64) and cosines (float32), of one shape: (k,), or (queries, k) for a batch."""

    positions: Rows
    scores: Vectors


def top_k(scores: NDArray[Any], k: int) -> Rows:
    """The positions of the k highest scores, best first; equal scores stand in the order of their positions.

    Args:
        scores: Shape (n,); no NaN. ``-inf`` marks a position that must not be returned.
        k: How many; fewer come back if fewer are allowed.

    Returns:
        Positions, int64 of shape (min(k, n allowed),).
    """
    count = len(scores)
    if k <= 0 or not count:
        return np.empty(0, dtype=np.int64)
    if k < count:
        # argpartition would pick any of several equal scores at the border. The border's value alone, and then all that
        # reach it, is exact, and faster: float32 values are moved about instead of 64-bit positions.
        border = np.partition(scores, count - k)[count - k]
        found = np.flatnonzero(scores >= border)
    else:
        found = np.arange(count)
    found = found[np.isfinite(scores[found])]
    best = np.argsort(-scores[found], kind="stable")[:k]
    positions: Rows = found[best].astype(np.int64, copy=False)
    return positions


@runtime_checkable
class VectorIndex(Protocol):
    """Cosine search over positions 0, 1, 2 ..., each of which has a vector; several may share one."""

    def __len__(self) -> int:
        """The number of positions."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    def vectors(self, positions: Sequence[int] | Rows) -> Vectors:
        """A copy of the vectors at these positions, shape (len(positions), d)."""
        ...

    def scores(self, query: Vectors, positions: Sequence[int] | Rows | None = None) -> Vectors:
        """The exact cosine of the query, shape (d,), and each position, or each of `positions`: float32, shape (n,)."""
        ...

    def search(self, query: Vectors, k: int, exclude: Sequence[int] | Rows = ()) -> Hits:
        """The k positions of highest cosine but for those left out, best first; all of them, or nearly."""
        ...


class ExactIndex:
    """Cosine search over a matrix whose rows have length 1 (or 0).

    Args:
        vectors: float32, shape (m, d), in memory or memory-mapped; it is not copied.
        rows: Position i is row `rows[i]`: several positions may share a row (products of one title), and rows may be
            unused. None: position i is row i.
    """

    def __init__(self, vectors: Vectors, rows: Rows | None = None) -> None:
        # A memmap is an ndarray with slow extras on each operation; the plain view reads the same pages.
        self._vectors = np.asarray(vectors)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._vectors if self._rows is None else self._rows)

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self._vectors.shape[1])

    @property
    def table(self) -> tuple[Vectors, Rows | None]:
        """The matrix where it lies, and the row of each position; None stands for 0, 1, 2 ..."""
        return self._vectors, self._rows

    def vectors(self, positions: Sequence[int] | Rows) -> Vectors:
        """A copy of the vectors at these positions, shape (len(positions), d)."""
        return self._vectors[self._at(positions)]

    def scores(self, query: Vectors, positions: Sequence[int] | Rows | None = None) -> Vectors:
        """The cosine of the query and each position, or each of `positions`: float32, shape (n,).

        Args:
            query: Shape (d,), of any length.
            positions: Which to score; None for all.
        """
        unit = normalise(query)
        if positions is None:
            products = self._vectors @ unit
            return products if self._rows is None else products[self._rows]
        # Each row once: equal positions then get equal scores, whatever the matrix product does at a block's edge.
        rows, back = np.unique(self._at(positions), return_inverse=True)
        step = max(1, BLOCK_BYTES // (4 * max(1, self.dimension)))
        blocks = [self._vectors[rows[start : start + step]] @ unit for start in range(0, len(rows), step)]
        return np.concatenate(blocks)[back] if blocks else np.empty(0, dtype=np.float32)

    def search(self, query: Vectors, k: int, exclude: Sequence[int] | Rows = ()) -> Hits:
        """The k positions of highest cosine; equal cosines stand in the order of their positions.

        Args:
            query: Shape (d,), of any length.
            k: How many; fewer come back if there are fewer.
            exclude: Positions that must not come back.
        """
        scores = self.scores(query)
        if len(exclude):
            scores[np.asarray(exclude, dtype=np.int64)] = -np.inf
        best = top_k(scores, k)
        return Hits(best, scores[best])

    def _at(self, positions: Sequence[int] | Rows) -> Rows:
        wanted = np.asarray(positions, dtype=np.int64)
        return wanted if self._rows is None else self._rows[wanted]
