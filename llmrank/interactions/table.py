"""A file, a data frame or rows go in, Interactions come out: who chose what and when, by column, 20 bytes a row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import DatasetError
from llmrank.interactions.formats import Columns, frame_columns, read_columns


@dataclass(frozen=True, slots=True)
class Interaction:
    """A user chose an item, when (Unix seconds), and how it was liked if that is known."""

    user_id: str
    item_id: str
    timestamp: float
    rating: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Interactions:
    """Who chose what: one row an interaction, in the order of the source.

    Attributes:
        users: Ids of the users, in the order in which they first occur.
        items: Ids of the items, likewise.
        user: For each row its user's place in `users`: int32, shape (n,).
        item: Its item's place in `items`: int32, shape (n,).
        timestamp: Unix seconds, float64, shape (n,); None where only the order of a user's rows is known.
        rating: float32, shape (n,), NaN where a row has none; None where none has.
        name: What messages call the source.
    """

    users: tuple[str, ...]
    items: tuple[str, ...]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    timestamp: NDArray[np.float64] | None = None
    rating: NDArray[np.float32] | None = None
    name: str = "interactions"

    def __post_init__(self) -> None:
        for name in ("user", "item", "timestamp", "rating"):
            column = getattr(self, name)
            if column is None:
                continue
            if len(column) != len(self.user):
                raise DatasetError("must be as long as `user`", field=name, value=len(column), fix="give every row a value")
            column.flags.writeable = False

    def __len__(self) -> int:
        return len(self.user)

    def rows(self) -> Iterator[Interaction]:
        """The interactions as objects, one at a time; without times each one's place in the source stands for its time."""
        for row in range(len(self)):
            rating = None if self.rating is None or np.isnan(self.rating[row]) else float(self.rating[row])
            timestamp = float(row if self.timestamp is None else self.timestamp[row])
            yield Interaction(self.users[self.user[row]], self.items[self.item[row]], timestamp, rating)

    @classmethod
    def load(cls, path: str | Path) -> Interactions:
        """Reads a file: its name tells the format.

        - JSONL: a line a user, ``{"user_id", "history"}``, oldest first; or a line an interaction, ``{"user_id", "item_id",
          "timestamp"}`` and perhaps `rating`.
        - CSV, TSV (with a header) and Parquet: columns `user_id`, `item_id`, `timestamp` and perhaps `rating`.
        - ``.inter``: RecBole's atomic files.
        - A MovieLens folder, or its rating file.

        The text formats may be packed (``.gz``). Timestamps are Unix seconds; in Parquet also points in time.

        Raises:
            DatasetError: it cannot be read, or a row is wrong (file and line are named), or there is none.
            SetupError: the format is Parquet and pyarrow is not installed.
        """
        found = cls._gather(read_columns(path), str(path))
        if not len(found):
            raise DatasetError(f"{path}: holds no interactions", field="interactions", fix="check the path")
        return found

    @classmethod
    def from_frame(cls, frame: Any) -> Interactions:
        """Reads a data frame or table with the columns of a CSV file: whatever speaks Arrow.

        Raises:
            DatasetError: it is no table, a column is missing, or a row is wrong (its number is named).
            SetupError: pyarrow is not installed.
        """
        return cls._gather(frame_columns(frame), "data frame")

    @classmethod
    def of(cls, rows: Iterable[Interaction], name: str = "interactions") -> Interactions:
        """Interactions from objects.

        Args:
            rows: The interactions.
            name: What messages call them.

        Raises:
            DatasetError: a time is not a finite number: it has no place in an order.
        """
        rows = list(rows)
        timestamps = np.array([each.timestamp for each in rows], np.float64)
        if not np.isfinite(timestamps).all():
            bad = rows[int(np.isfinite(timestamps).argmin())]
            raise DatasetError(f"{name}: must be finite", field="timestamp", value=bad, fix="give Unix seconds")
        ratings = np.array([np.nan if each.rating is None else each.rating for each in rows], np.float32)
        return cls._gather(
            [Columns([each.user_id for each in rows], [each.item_id for each in rows], timestamps, ratings)], name
        )

    @classmethod
    def _gather(cls, parts: Iterable[Columns], name: str) -> Interactions:
        users, items = _Codes(), _Codes()
        columns = {
            "user": _Column(np.int32),
            "item": _Column(np.int32),
            "time": _Column(np.float64),
            "rating": _Column(np.float32),
        }
        for part in parts:
            columns["user"].add(users.of(part.users))
            columns["item"].add(items.of(part.items))
            columns["time"].add(part.timestamps)
            columns["rating"].add(part.ratings)
        user, item, times, ratings = (column.whole() for column in columns.values())
        return cls(
            users.ids,
            items.ids,
            user,
            item,
            times if len(times) == len(user) else None,
            None if np.isnan(ratings).all() else ratings,
            name,
        )


class _Codes:
    """Numbers ids in the order in which they first occur."""

    def __init__(self) -> None:
        self._known: defaultdict[str, int] = defaultdict()
        self._known.default_factory = self._known.__len__  # a new id gets the next number, without a step in Python

    def of(self, ids: Sequence[str]) -> NDArray[np.int32]:
        return np.fromiter(map(self._known.__getitem__, ids), np.int32, len(ids))

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._known)


class _Column:
    """Grows in place: a list of parts would have to be in memory twice when they are put together."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._values: NDArray[Any] = np.empty(0, dtype)
        self._size = 0

    def add(self, part: NDArray[Any] | None) -> None:
        if part is None:
            return
        end = self._size + len(part)
        if end > len(self._values):
            self._resize(max(end, len(self._values) * 9 // 8))
        self._values[self._size : end] = part
        self._size = end

    def whole(self) -> NDArray[Any]:
        self._resize(self._size)
        return self._values

    def _resize(self, size: int) -> None:
        self._values.resize(size, refcheck=False)  # nobody else has it yet
