"""Rows that say what goes with each item go in; scores by the last items of a history come out: what item-based kinds share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.model import CollaborativeModel, Learned, recent, weighted_rows
from llmrank.retrieval.collaborative.rows import SparseRows, checked
from llmrank.retrieval.vectors import Rows, Vectors


class RecencyOptions(Protocol):
    """How much of a history counts."""

    @property
    def decay(self) -> float:
        """The weight of an event is decay^age."""
        ...

    @property
    def last(self) -> int | None:
        """How many events, the most recent, count."""
        ...


Options = TypeVar("Options", bound=RecencyOptions)


class ItemToItem(CollaborativeModel[Options]):
    """Scores a candidate by the sum of what its entries in the rows of the history's items are, each weighed by decay^age.

    Args:
        index, options, learned, name: As for every model.
        rows: Row i has what goes with item i: sparse, or a matrix of shape (items, items).
    """

    def __init__(
        self, index: ItemIndex, options: Options, learned: Learned, rows: SparseRows | Vectors, *, name: str | None = None
    ) -> None:
        super().__init__(index, options, learned, name=name)
        self.rows = rows

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The rows."""
        return self.rows.arrays() if isinstance(self.rows, SparseRows) else {"matrix": self.rows}

    @classmethod
    def from_arrays(cls, index: ItemIndex, options: Options, learned: Learned, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """From the rows."""
        count = len(index)
        if "matrix" in arrays:
            return cls(index, options, learned, checked(arrays["matrix"], np.float32, (count, count)))
        return cls(index, options, learned, SparseRows.from_arrays(arrays, count, count))

    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """An event counts as often as it stands in the history."""
        numbers, weights = recent(history, self.options.last, self.options.decay)
        return weighted_rows(self.rows, numbers, weights, len(self.index))[columns]
