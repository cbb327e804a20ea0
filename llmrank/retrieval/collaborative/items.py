"""Ids of items go in; the columns of a model that candidates stand for come out, of a whole catalogue without a loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from llmrank.retrieval.subset import Subset
from llmrank.retrieval.vectors import Rows
from llmrank.types import Item

REMEMBERED = 2
"""So many catalogues' columns are kept,"""
WORTH_REMEMBERING = 1000
"""of at least so many items: for a list of a few the dictionary is fast enough."""
WORTH_ALL = 4
"""A part of a catalogue that is a fourth of it is worth looking up all of it, once."""


class ItemIndex:
    """The items that a model knows, each with its column. Safe to use from several threads.

    Args:
        ids: The items' ids by column; none twice.

    Raises:
        ValueError: an id stands twice.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = tuple(ids)
        self._column_of = {item_id: column for column, item_id in enumerate(self.ids)}
        if len(self._column_of) != len(self.ids):
            raise ValueError("an item id stands twice")
        self._remembered: tuple[tuple[Sequence[Item], Rows], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def columns_of(self, ids: Iterable[str]) -> Rows:
        """The column of each id, int64; -1 where the model does not know it."""
        column_of = self._column_of
        return np.fromiter((column_of.get(item_id, -1) for item_id in ids), dtype=np.int64)

    def columns(self, items: Sequence[Item]) -> Rows:
        """The column of each item, int64; -1 where the model does not know it.

        A catalogue's tuple is looked up once: a tuple cannot change, so the same one again has the same columns. They are
        read-only. The same holds for what constraints leave of a catalogue, if that is much of it.
        """
        if isinstance(items, Subset) and len(items) * WORTH_ALL >= len(items.whole):
            return self.columns(items.whole)[items.places]
        if not isinstance(items, tuple) or len(items) < WORTH_REMEMBERING:
            return self.columns_of(item.id for item in items)
        for known, columns in self._remembered:
            if known is items:
                return columns
        columns = self.columns_of(item.id for item in items)
        columns.flags.writeable = False
        # Replaced as a whole: another thread sees the old one or the new one. The tuple is kept beside its columns, or its
        # identity could pass to another one.
        self._remembered = ((items, columns), *self._remembered)[:REMEMBERED]
        return columns
