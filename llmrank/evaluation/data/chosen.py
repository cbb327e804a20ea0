"""Interactions and users' cases go in; all that each user is known to have chosen comes out: 4 bytes a choice."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmrank.interactions import Interactions

MERGE = 1 << 20
"""So many choices are gathered before those that are known already are left out: cases of one user repeat each other."""


class Choices:
    """Gathers who chose what.

    Args:
        item_ids: All items, each once.
        users: How many users there are; each is a place from 0 on.
    """

    def __init__(self, item_ids: Sequence[str], users: int) -> None:
        self._ids, self._users = item_ids, users
        self._places = {item_id: place for place, item_id in enumerate(item_ids)}
        self._known: NDArray[np.int64] = np.empty(0, np.int64)  # user * items + item, sorted
        self._new = array("q")

    def add(self, user: int, item_ids: Iterable[str]) -> None:
        """A user chose these items."""
        start = user * len(self._ids)
        self._new.extend(start + self._places[item_id] for item_id in item_ids)
        if len(self._new) >= max(MERGE, len(self._known)):
            self._merge(np.array(self._new))
            self._new = array("q")

    def add_interactions(self, interactions: Interactions, users: Mapping[str, int]) -> None:
        """What these users, by id, chose in the interactions; what others did is left out."""
        user = np.array([users.get(user_id, -1) for user_id in interactions.users], np.int64)
        item = np.array([self._places[item_id] for item_id in interactions.items], np.int64)
        rows = np.flatnonzero(user[interactions.user] >= 0)
        self._merge(user[interactions.user[rows]] * len(self._ids) + item[interactions.item[rows]])

    def whole(self) -> Chosen:
        """All that was gathered."""
        self._merge(np.array(self._new))
        width = max(len(self._ids), 1)
        bounds = np.searchsorted(self._known, np.arange(self._users + 1, dtype=np.int64) * width)
        return Chosen(self._ids, (self._known % width).astype(np.int32), bounds)

    def _merge(self, more: NDArray[np.int64]) -> None:
        if len(more):
            self._known = np.union1d(self._known, more)


class Chosen:
    """What each user chose.

    Args:
        item_ids: All items.
        items: Places in `item_ids`, user by user: int32.
        bounds: Where each user's begin, and the end: shape (users + 1,).
    """

    def __init__(self, item_ids: Sequence[str], items: NDArray[np.int32], bounds: NDArray[np.int64]) -> None:
        self._ids, self._items, self._bounds = item_ids, items, bounds

    def of(self, user: int) -> set[str]:
        """The ids of a user's items."""
        return {self._ids[place] for place in self._items[self._bounds[user] : self._bounds[user + 1]].tolist()}
