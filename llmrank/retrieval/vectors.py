"""Small arithmetic on vectors: rows of any float type go in, float32 rows of length 1 (or 0) come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llmrank.protocols import Embedder

# The same type as in llmrank.protocols, which may not import NumPy at run time.
Vectors: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.int64]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, total) after every chunk of work."""

CHUNK = 4096
"""Texts embedded between two reports of progress, and between two saves to disk."""


@runtime_checkable
class TableEmbedder(Protocol):
    """An embedder whose vectors stand in a table already, so that a large catalogue is used where it lies."""

    @property
    def keyed_by(self) -> Literal["text", "id"]:
        """Whether `table` takes the items' texts or their ids."""
        ...

    def table(self, keys: Sequence[str], progress: Progress | None = None) -> tuple[Vectors, Rows | None]:
        """A matrix (perhaps memory-mapped) and, for each key, its row there; None for the rows stands for 0, 1, 2 ..."""
        ...


def table_of(embedder: Embedder, keys: Sequence[str], progress: Progress | None = None) -> tuple[Vectors, Rows | None]:
    """What `TableEmbedder.table` gives; for an embedder without a table, one of the keys' vectors, as texts, is made."""
    if isinstance(embedder, TableEmbedder):
        return embedder.table(keys, progress)
    return embed_unique(embedder, keys, progress)


def close_embedder(embedder: Embedder) -> None:
    """Closes an embedder that has something to close (connections); one without `close` holds nothing."""
    close = getattr(embedder, "close", None)
    if close is not None:
        close()


def folder_of(embedder: Embedder) -> Path | None:
    """Where that which is made of an embedder's vectors, such as an index, is kept; None if the embedder keeps nothing."""
    folder: Path | None = getattr(embedder, "folder", None)
    return folder


def normalise(vectors: NDArray[Any]) -> Vectors:
    """Rows of length 1 as float32; a row of zeros stays one.

    Args:
        vectors: Any float type, shape (n, d) or (d,). It is not changed.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    # float64 in between: the squares of float16 or large float32 values overflow their own type.
    wide = np.asarray(vectors, dtype=np.float64)
    largest = np.abs(wide).max(axis=-1, keepdims=True, initial=0.0)
    if not np.isfinite(largest).all():
        raise ValueError("a vector holds an infinite value or one that is not a number")
    wide = np.divide(wide, largest, out=np.zeros_like(wide), where=largest > 0)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    unit: Vectors = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0).astype(np.float32)
    return unit


def embed_unique(embedder: Embedder, texts: Sequence[str], progress: Progress | None = None) -> tuple[Vectors, Rows]:
    """Embeds each different text once.

    Returns:
        The vectors of the different texts, shape (m, d), and the row of each text, shape (len(texts),). Equal texts share
        a row, so that their scores are equal to the last bit and a tie between them is a tie.
    """
    row_of: dict[str, int] = {}
    rows = np.fromiter((row_of.setdefault(text, len(row_of)) for text in texts), dtype=np.int64, count=len(texts))
    unique = list(row_of)
    if len(unique) <= CHUNK:
        vectors = embedder.embed(unique)
        if progress is not None:
            progress(len(unique), len(unique))
        return vectors, rows
    parts = []
    for start in range(0, len(unique), CHUNK):
        parts.append(embedder.embed(unique[start : start + CHUNK]))
        if progress is not None:
            progress(min(start + CHUNK, len(unique)), len(unique))
    return np.concatenate(parts), rows
