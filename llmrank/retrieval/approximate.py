"""Vectors and a query go in, about the k best come out, with their exact cosines: search that does not look at every vector.

A graph (`llmrank.retrieval.graph`) names rows that are probably the nearest; these are scored, and sorted, as the exact index
does it. So whatever it misses, a score is never wrong. Worth it where many whole-catalogue searches are made over about a
hundred thousand vectors and more: below that the exact search is as fast, and needs nothing built.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from llmrank.retrieval.graph import ApproximateOptions, graph_of
from llmrank.retrieval.index import ExactIndex, Hits, top_k
from llmrank.retrieval.vectors import Progress, Rows, Vectors, normalise

WORTH_ALL = 4
"""Whoever wants a fourth of all rows gets them by one product with all, which is faster then, and exact."""


class ApproximateIndex:
    """Approximate cosine search over the vectors of an exact index. Safe to use from several threads.

    Scores of given positions are those of the exact index; only `search` looks at a part of the vectors. Where the graph
    finds fewer than there are, the exact index answers.

    Args:
        exact: Holds the vectors; it is not copied.
        options: See `ApproximateOptions`.
        folder: Where the graph is kept and found again, memory-mapped; None keeps it in memory alone.
        progress: Called with (done, total) rows while the graph is built.

    Raises:
        SetupError: usearch is missing, or the folder cannot be written.
    """

    def __init__(
        self,
        exact: ExactIndex,
        options: ApproximateOptions | None = None,
        *,
        folder: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.options = options or ApproximateOptions()
        self._exact = exact
        vectors, rows = exact.table
        # Each row that a position has, once: a thousand products of one title are one vector of the graph.
        self._used: Rows | None = None if rows is None else np.unique(rows)
        count = len(vectors) if self._used is None else len(self._used)
        # Of so few rows every search wants a fourth at least.
        self._graph = None if count <= WORTH_ALL else graph_of(vectors, self._used, self.options, folder, progress)

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._exact.dimension

    def vectors(self, positions: Sequence[int] | Rows) -> Vectors:
        """A copy of the vectors at these positions, shape (len(positions), d)."""
        return self._exact.vectors(positions)

    def scores(self, query: Vectors, positions: Sequence[int] | Rows | None = None) -> Vectors:
        """The cosine of the query and each position, or each of `positions`; exact. See `ExactIndex.scores`."""
        return self._exact.scores(query, positions)

    def search(self, query: Vectors, k: int, exclude: Sequence[int] | Rows = ()) -> Hits:
        """About the k positions of highest cosine; those found have their exact cosines, and equal ones stand by position.

        Args:
            query: Shape (d,), of any length.
            k: How many; fewer come back only if there are fewer.
            exclude: Positions that must not come back.
        """
        unit = normalise(query)
        left_out = np.unique(np.asarray(exclude, dtype=np.int64))
        # A row has at least one position, so that this many rows suffice, whichever of them are left out.
        wanted = min(k, len(self)) + len(left_out)
        if k <= 0 or not unit.any() or self._graph is None or wanted * WORTH_ALL >= len(self._graph):
            return self._exact.search(query, k, exclude)
        # All that the graph looked at are scored: what its float16 puts in the wrong order is among them.
        found = np.sort(self._positions(self._graph.search(unit, max(wanted, self.options.expansion_search))))
        found = found[np.isin(found, left_out, invert=True)]  # by position: `top_k` leaves equal scores in this order
        if len(found) < min(k, len(self) - len(left_out)):
            return self._exact.search(query, k, exclude)
        scores = self._exact.scores(query, found)
        best = top_k(scores, k)
        return Hits(found[best], scores[best])

    def _positions(self, nodes: Rows) -> Rows:
        """All positions of the rows that these of the graph's numbers stand for."""
        if self._used is None:
            return nodes
        order, starts = self._by_row
        return np.concatenate([order[starts[node] : starts[node + 1]] for node in nodes.tolist()] or [nodes])

    @cached_property
    def _by_row(self) -> tuple[Rows, Rows]:
        """Positions ordered by their row, and where those of each used row begin (and the last ones end)."""
        _, rows = self._exact.table
        if rows is None or self._used is None:
            raise ValueError("each position is a row of its own")
        order = np.argsort(rows, kind="stable")
        starts = np.searchsorted(rows[order], self._used)
        return order, np.append(starts, len(order))
