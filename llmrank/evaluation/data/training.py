"""Interactions and the rows that may be learned from go in, Interactions of these alone come out; and into a file and back.

A file is one `.npz` without pickled objects: the columns, and the ids as UTF-8 in one array with the places where they end
(texts in NumPy's own arrays would lose zero bytes at their ends).
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import DatasetError
from llmrank.evaluation.data.timelines import Codes, Timelines
from llmrank.interactions import Interactions


def rows_without(interactions: Interactions, timelines: Timelines, withheld: Codes) -> NDArray[np.int64]:
    """The rows in which users first chose each item, user by user, oldest first, without the pairs that are withheld.

    Args:
        interactions: All of them.
        timelines: Of these interactions.
        withheld: Pairs of user and item, as `timelines.codes_of` numbers them.
    """
    rows = gathered(timelines.rows(user) for user in range(len(interactions.users)))
    pairs = interactions.user[rows].astype(np.int64) * len(interactions.items) + interactions.item[rows]
    return rows[~np.isin(pairs, withheld)]


def gathered(rows: Any) -> NDArray[np.int64]:
    """The numbers of an iterable of lists, one after the other."""
    parts = [np.array(each, dtype=np.int64) for each in rows]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)


def taken(interactions: Interactions, rows: NDArray[np.int64]) -> Interactions:
    """Some rows, in the order given; users and items that do not occur in them are not known to the result."""
    user, users = _occurring(interactions.user[rows], interactions.users)
    item, items = _occurring(interactions.item[rows], interactions.items)
    rating = None if interactions.rating is None else interactions.rating[rows]
    return Interactions(
        users,
        items,
        user,
        item,
        None if interactions.timestamp is None else interactions.timestamp[rows],
        None if rating is None or np.isnan(rating).all() else rating,
        f"{interactions.name}, as far as may be learned from",
    )


def save_interactions(path: Path, interactions: Interactions) -> None:
    """Writes a file that appears under its name only when it is whole and on disk; its folder is made if need be."""
    arrays: dict[str, NDArray[Any]] = {"user": interactions.user, "item": interactions.item}
    for name in ("timestamp", "rating"):
        if (column := getattr(interactions, name)) is not None:
            arrays[name] = column
    texts = {"users": interactions.users, "items": interactions.items, "name": (interactions.name,)}
    for name, ids in texts.items():
        arrays[f"{name}_text"], arrays[f"{name}_ends"] = _packed(ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_interactions(path: Path) -> Interactions:
    """Reads what `save_interactions` wrote.

    Raises:
        DatasetError: there is no such file, or it is none of ours.
    """
    try:
        # Opened here, because NumPy leaves a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return Interactions(
                _unpacked(arrays, "users"),
                _unpacked(arrays, "items"),
                arrays["user"],
                arrays["item"],
                arrays.get("timestamp"),
                arrays.get("rating"),
                _unpacked(arrays, "name")[0],
            )
    except _DAMAGE as error:
        raise DatasetError(
            f"cannot be read as what may be learned from ({error})",
            field="run",
            value=str(path),
            fix="run the suite into a new folder",
        ) from error


# What NumPy and zipfile raise for bytes that are not theirs, AttributeError and TypeError for a lone array.
_DAMAGE = (
    OSError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    DatasetError,
)


def _occurring(codes: NDArray[np.int32], ids: Sequence[str]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """The codes of ids numbered anew, in the order in which they first occur, and these ids."""
    found, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), dtype=np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place[inverse.reshape(-1)], tuple(ids[code] for code in found[order].tolist())


def _packed(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum(np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded)), dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def _unpacked(arrays: Mapping[str, NDArray[Any]], name: str) -> tuple[str, ...]:
    text, ends = arrays[f"{name}_text"].tobytes(), arrays[f"{name}_ends"].tolist()
    begins = [0, *ends][: len(ends)]
    return tuple(text[begin:end].decode("utf-8", "surrogatepass") for begin, end in zip(begins, ends, strict=True))
