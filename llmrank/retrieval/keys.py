"""16-byte keys go in; the row of each comes out: a dictionary of a million keys that takes 24 MB instead of 180."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.retrieval.vectors import Rows

KEY_BYTES = 16

Keys: TypeAlias = NDArray[np.uint64]
"""Keys as two integers each, shape (n, 2)."""

TAIL = 65_536
"""Keys that wait in a dictionary until they are sorted in with the others."""


class KeyIndex:
    """Rows 0, 1, 2 ... by key. Where a key stands twice its first row counts.

    The first half of each key is kept sorted and searched in; the second half decides. New keys go to a small dictionary
    first, so that adding one (a user's query) does not sort a million.
    """

    def __init__(self) -> None:
        self._keys: Keys = np.empty((0, 2), dtype=np.uint64)
        self._order: Rows = np.empty(0, dtype=np.int64)
        self._sorted: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._tail: dict[tuple[int, int], int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, keys: Keys) -> None:
        """Adds keys; the first of them gets the row `len(self)`."""
        if self._count - len(self._order) + len(keys) <= TAIL:
            for key in map(tuple, keys.tolist()):
                self._tail.setdefault(key, self._count)
                self._count += 1
            return
        tail = np.zeros((self._count - len(self._order), 2), dtype=np.uint64)
        for key, row in self._tail.items():
            tail[row - len(self._order)] = key
        self._keys = np.concatenate([self._keys, tail, keys])
        self._tail.clear()
        self._count = len(self._keys)
        # Stable: of equal halves the earlier row stands first.
        self._order = np.argsort(self._keys[:, 0], kind="stable")
        self._sorted = self._keys[self._order, 0]

    def find(self, keys: Keys) -> Rows:
        """The row of each key, int64 of shape (len(keys),); -1 for one that is not there."""
        rows = np.full(len(keys), -1, dtype=np.int64)
        if len(self._sorted):
            places = np.searchsorted(self._sorted, keys[:, 0])
            open_ = np.flatnonzero(places < len(self._sorted))
            while len(open_):
                found = self._order[places[open_]]
                same_half = self._keys[found, 0] == keys[open_, 0]
                same = same_half & (self._keys[found, 1] == keys[open_, 1])
                rows[open_[same]] = found[same]
                # Two keys may share a half: then the next in line is the one, or is another.
                open_ = open_[same_half & ~same]
                places[open_] += 1
                open_ = open_[places[open_] < len(self._sorted)]
        if self._tail:
            missing = np.flatnonzero(rows < 0)
            rows[missing] = [self._tail.get((first, second), -1) for first, second in keys[missing].tolist()]
        return rows
