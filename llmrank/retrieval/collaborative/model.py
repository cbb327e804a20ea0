"""A request and candidates go in, what a model that learned from interactions thinks of each comes out.

The request's own history always decides, whether the model saw its user or not: a user is up to date without any training.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.rows import SparseRows
from llmrank.retrieval.vectors import Progress, Rows, Vectors
from llmrank.types import Item, ResolvedRequest

Options = TypeVar("Options")


@dataclass(frozen=True, slots=True)
class Learned:
    """What a model was made from.

    Attributes:
        users: How many users there were,
        items: how many items, also those that the model left out,
        interactions: and how many interactions.
        digest: BLAKE2b of all of it.
        notes: What was left out, a sentence each.
    """

    users: int
    items: int
    interactions: int
    digest: str
    notes: tuple[str, ...] = ()


class CollaborativeModel(ABC, Generic[Options]):
    """A Retriever made by training. It is never changed, and safe to use from several threads; it computes.

    Items that the model does not know score `floor`, and so does everything where it knows nothing of the history: 0, which is
    what each of the kinds gives to an item about which there is nothing to say.

    Attributes:
        kind: The name of what it is.
        options_type: The class of its options.
        reading: Those options that decide how a history is read, and nothing of what is learned.
        options: What it was trained and scores with.
        learned: What it was made from.
        index: The items that it knows.
    """

    kind: ClassVar[str]
    options_type: ClassVar[type[Any]]
    reading: ClassVar[tuple[str, ...]] = ("last", "decay")
    floor: float | None = 0.0

    def __init__(self, index: ItemIndex, options: Options, learned: Learned, *, name: str | None = None) -> None:
        self.index, self.options, self.learned = index, options, learned
        self.name = name or self.kind

    @classmethod
    @abstractmethod
    def train(cls, interactions: Interactions, options: Options, progress: Progress | None = None) -> Self:
        """Learns from interactions; `llmrank.retrieval.collaborative.train` is the way in that checks them.

        Args:
            interactions: Who chose what, at least one.
            options: The kind's.
            progress: Called with (done, total) now and then.

        Raises:
            ConfigError: the options do not go with the interactions.
            SetupError: a package is missing.
        """

    @abstractmethod
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it learned, by name, for a file."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, index: ItemIndex, options: Options, learned: Learned, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The model that `arrays` was called on. Raises KeyError or ValueError if they are not its arrays."""

    @abstractmethod
    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """One score a column.

        Args:
            history: The columns of the history's items, oldest first; those that the model does not know are left out.
            columns: What is to be scored; -1 stands for an item that the model does not know.
            user_id: Who asks, if that is known.

        Returns:
            float32, shape (len(columns),), `floor` at -1.
        """

    def named(self, name: str) -> Self:
        """The same model under another name: that of its part in a fusion."""
        other = copy.copy(self)
        other.name = name
        return other

    def read_by(self, options: Options) -> Self:
        """The same model with other options, which may differ in those of `reading` alone."""
        other = copy.copy(self)
        other.options = options
        return other

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """One finite score a candidate, higher is better, float32 of shape (len(candidates),)."""
        history = self.index.columns_of(item.id for item in request.history_items)
        return self.scores_of(history[history >= 0], self.index.columns(candidates), request.user_id)

    def save(self, path: str | Path) -> None:
        """Writes an ``.npz`` file, without pickled objects; it appears under its name only when it is whole.

        Raises:
            SetupError: it cannot be written.
        """
        from llmrank.retrieval.collaborative.storage import save_model

        save_model(self, path)


def recent(history: Rows, last: int | None, decay: float) -> tuple[Rows, Vectors]:
    """The last events and their weights decay^age, the last one having age 0: an item that stands twice counts twice.

    Args:
        history: Columns, oldest first.
        last: How many events, at most; None for all.
        decay: In (0, 1].

    Returns:
        Columns and weights, float32, newest first.
    """
    newest = history[::-1] if last is None else history[: -last - 1 : -1]
    return newest, np.power(decay, np.arange(len(newest))).astype(np.float32)


def recent_once(history: Rows, last: int | None, decay: float) -> tuple[Rows, Vectors]:
    """The same with each item once, where it stands last; it is the different items that have ages and are counted."""
    _, first = np.unique(history[::-1], return_index=True)
    return recent(history[::-1][np.sort(first)][::-1], last, decay)


def weighted_rows(rows: SparseRows | Vectors, numbers: Rows, weights: Vectors, width: int) -> Vectors:
    """The weighted sum of rows, float32 of shape (width + 1,): the last place is 0, so that the column -1 finds 0."""
    total = np.zeros(width + 1, dtype=np.float32)  # not touched before it is written to, so the few entries are what it costs
    for number, weight in zip(numbers.tolist(), weights.tolist(), strict=True):
        if isinstance(rows, SparseRows):
            columns, values = rows.row(number)
            total[columns] += np.float32(weight) * values
        else:
            total[:width] += np.float32(weight) * rows[number]
    return total


def factor_scores(factors: Vectors, user: Vectors, columns: Rows) -> Vectors:
    """The product of the user's vector with each column's factors, 0 at -1."""
    scores = np.zeros(len(columns), dtype=np.float32)
    known = np.flatnonzero(columns >= 0)
    if 4 * len(known) < len(factors):
        scores[known] = factors[columns[known]] @ user
    else:
        scores[known] = (factors @ user)[columns[known]]
    return scores
