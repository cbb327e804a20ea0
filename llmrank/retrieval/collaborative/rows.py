"""A sparse matrix goes in, the best of each of its rows comes out: compact arrays that are read without scipy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.retrieval.index import top_k
from llmrank.retrieval.vectors import Progress, Rows, Vectors

BLOCK_ENTRIES = 1 << 24
"""The most entries that a block of a product may have before the best are taken: 200 MB. One row may have more by itself."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """Rows of few entries: row r has ``values[starts[r]:starts[r + 1]]`` at the columns of the same places.

    Attributes:
        starts: int64, shape (rows + 1,).
        columns: int32, shape (entries,).
        values: float32, shape (entries,).
    """

    starts: Rows
    columns: NDArray[np.int32]
    values: Vectors

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> tuple[NDArray[np.int32], Vectors]:
        """The columns and values of one row."""
        start, end = self.starts[number], self.starts[number + 1]
        return self.columns[start:end], self.values[start:end]

    def arrays(self, prefix: str = "") -> dict[str, NDArray[Any]]:
        """Its arrays by name, for a file."""
        return {f"{prefix}starts": self.starts, f"{prefix}columns": self.columns, f"{prefix}values": self.values}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], rows: int, width: int, prefix: str = "") -> SparseRows:
        """From a file's arrays.

        Args:
            arrays: The arrays by name.
            rows, width: The matrix's shape.
            prefix: What stands before the names.

        Raises:
            KeyError: one is missing.
            ValueError: they are no sparse rows of that shape.
        """
        starts = checked(arrays[f"{prefix}starts"], np.int64, (rows + 1,))
        columns = checked(arrays[f"{prefix}columns"], np.int32, (int(starts[-1]),))
        values = checked(arrays[f"{prefix}values"], np.float32, (int(starts[-1]),))
        if starts[0] != 0 or (np.diff(starts) < 0).any() or (len(columns) and not 0 <= columns.min() <= columns.max() < width):
            raise ValueError("an entry lies outside of its matrix")
        return cls(starts, columns, values)

    @classmethod
    def of(cls, rows: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> SparseRows:
        """From the columns and values of each row."""
        columns, values = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
        counts = [0]
        for places, entries in rows:
            columns.append(np.asarray(places, dtype=np.int32))
            values.append(np.asarray(entries, dtype=np.float32))
            counts.append(len(places))
        return cls(np.cumsum(counts, dtype=np.int64), np.concatenate(columns), np.concatenate(values))


def checked(array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array itself. Raises ValueError if it has another type or shape, or a value that is not finite."""
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ValueError(f"an array is {array.dtype} of shape {array.shape} and not {np.dtype(dtype)} of {shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError("an array holds a value that is not finite")
    return array


def best_of_each(matrix: Any, keep: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The columns and values of the `keep` highest entries of each row of a ``csr_matrix``, by column; of equals the first."""
    matrix.sort_indices()
    for row in range(matrix.shape[0]):
        start, end = matrix.indptr[row], matrix.indptr[row + 1]
        columns, values = matrix.indices[start:end], matrix.data[start:end]
        if len(values) > keep:
            best = np.sort(top_k(values, keep))
            columns, values = columns[best], values[best]
        yield columns, values


def blocks(entries: NDArray[Any], progress: Progress | None = None) -> Iterator[slice]:
    """Slices of rows that have at most `BLOCK_ENTRIES` entries together, by the most that each row can have.

    Args:
        entries: The most entries of each row.
        progress: Called with (rows done, rows) after each slice.
    """
    count, start = len(entries), 0
    ends = np.cumsum(entries, dtype=np.int64)
    while start < count:
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + BLOCK_ENTRIES, side="right")))
        yield slice(start, end)
        if progress is not None:
            progress(end, count)
        start = end
