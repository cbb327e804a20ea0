"""Interactions go in, what the users choose whose histories are most like the asker's comes out: user-based neighbours.

Herlocker, Konstan, Borchers and Riedl, "An algorithmic framework for performing collaborative filtering", SIGIR 1999; with
recency in the likeness as in Jannach and Ludewig, "When recurrent neural networks meet the neighborhood for session-based
recommendation", RecSys 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.histories import histories_of
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.model import CollaborativeModel, Learned, recent_once, weighted_rows
from llmrank.retrieval.collaborative.options import check_number, check_whole
from llmrank.retrieval.collaborative.rows import SparseRows
from llmrank.retrieval.collaborative.storage import learned_from, text_arrays, texts_of
from llmrank.retrieval.index import top_k
from llmrank.retrieval.vectors import Progress, Rows, Vectors


@dataclass(frozen=True, slots=True)
class UserKnnOptions:
    """How alike two users are, and who votes.

    Args:
        neighbours: How many of the most similar users vote.
        shrinkage: Added to the denominator of the similarity, in the units of the lengths of histories.
        decay: The weight of a history item is decay^age, the last one having age 0, in the asker's history and in all others;
            in (0, 1].
        last: How many items of each history, the most recent that the model knows, count in the likeness; null for all.
        vote_exponent: A neighbour's items count similarity^this; more makes the nearest decide.
    """

    neighbours: int = 2000
    shrinkage: float = 0.0
    decay: float = 0.9
    last: int | None = 50
    vote_exponent: float = 0.5

    def __post_init__(self) -> None:
        check_whole("user-knn.neighbours", self.neighbours)
        check_number("user-knn.shrinkage", self.shrinkage)
        check_number("user-knn.decay", self.decay, most=1.0, above=True)
        check_whole("user-knn.last", self.last, optional=True)
        check_number("user-knn.vote_exponent", self.vote_exponent)


class UserKnn(CollaborativeModel[UserKnnOptions]):
    """The sum over the nearest users who chose the candidate of how alike they are to the asker.

    How alike two users are: the cosine of their recency-weighted histories (with `shrinkage` added to the product of the
    lengths). Each item stands once in a history, where it stood last. The asker's own row, known by `user_id`, does not vote:
    it would vouch for what stands in the history already, and in an evaluation for nothing else.

    Args:
        index, options, learned, name: As for every model.
        users: The ids of the users by row.
        histories: Each user's items with decay^age, the items that are too old with 0: they count in votes alone.
    """

    kind: ClassVar[str] = "user-knn"
    reading: ClassVar[tuple[str, ...]] = ()  # the histories that vote are weighed in training
    options_type: ClassVar[type[Any]] = UserKnnOptions

    def __init__(
        self,
        index: ItemIndex,
        options: UserKnnOptions,
        learned: Learned,
        users: Sequence[str],
        histories: SparseRows,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(index, options, learned, name=name)
        self.users, self.histories = users, histories
        self._row_of = {user_id: row for row, user_id in enumerate(users)}
        rows = np.repeat(np.arange(len(histories)), np.diff(histories.starts))
        self._lengths = np.sqrt(np.bincount(rows, histories.values.astype(np.float64) ** 2, minlength=len(histories)))
        self._chosen_by = _transposed(histories, rows, len(index))

    @classmethod
    def train(cls, interactions: Interactions, options: UserKnnOptions, progress: Progress | None = None) -> Self:
        """Keeps the histories: there is nothing to fit."""
        histories = histories_of(interactions)
        count = len(interactions.users)

        def rows() -> Any:
            for user in range(count):
                columns = histories.columns[histories.starts[user] : histories.starts[user + 1]]
                once, weights = recent_once(columns, None, options.decay)
                if options.last is not None:
                    weights[options.last :] = 0.0
                order = np.argsort(once)
                yield once[order], weights[order]
                if progress is not None and (user + 1) % 10_000 == 0:
                    progress(user + 1, count)

        learned = learned_from(interactions)
        return cls(ItemIndex(interactions.items), options, learned, interactions.users, SparseRows.of(rows()))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The histories, and whose they are."""
        return {**self.histories.arrays(), **text_arrays("users", self.users)}

    @classmethod
    def from_arrays(
        cls, index: ItemIndex, options: UserKnnOptions, learned: Learned, arrays: Mapping[str, NDArray[Any]]
    ) -> Self:
        """From the histories."""
        users = texts_of("users", arrays)
        histories = SparseRows.from_arrays(arrays, len(users), len(index))
        return cls(index, options, learned, users, histories)

    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """The votes of the nearest; an item that stands twice in the history counts once, where it stands last."""
        numbers, weights = recent_once(history, self.options.last, self.options.decay)
        likeness = weighted_rows(self._chosen_by, numbers, weights, len(self.users))[:-1]
        own = None if user_id is None else self._row_of.get(user_id)
        if own is not None:
            likeness[own] = 0.0
        near = np.flatnonzero(likeness > 0)
        lengths = self._lengths[near] * float(np.linalg.norm(weights)) + self.options.shrinkage
        alike = likeness[near] / lengths
        best = top_k(alike, self.options.neighbours)
        return self._votes(near[best], np.power(alike[best], self.options.vote_exponent))[columns]

    def _votes(self, rows: Rows, strengths: NDArray[np.float64]) -> Vectors:
        """The strengths of the rows that have each column; hundreds of short rows at once, which a loop would take long for."""
        starts = self.histories.starts[rows]
        counts = self.histories.starts[rows + 1] - starts
        entries = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        total = np.zeros(len(self.index) + 1, dtype=np.float32)  # the last place is that of the column -1
        np.add.at(total, self.histories.columns[entries], np.repeat(strengths.astype(np.float32), counts))
        return total


def _transposed(rows: SparseRows, row_of_entry: Rows, width: int) -> SparseRows:
    order = np.argsort(rows.columns, kind="stable")
    order = order[rows.values[order] > 0]
    counts = np.bincount(rows.columns[order], minlength=width)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return SparseRows(starts, row_of_entry[order].astype(np.int32), rows.values[order])
