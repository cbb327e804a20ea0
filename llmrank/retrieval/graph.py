"""Unit vectors go in, a graph comes out that finds the near ones without looking at all; it stays on disk, memory-mapped.

The graph is HNSW (Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable
Small World graphs", IEEE TPAMI 2020) as usearch implements it. Two files of a folder are one graph::

    graph-KEY.usearch    the graph, with the vectors as float16
    graph-KEY.json       {"format": 1, "bytes": ..., "sha256": "..."} of that file, written after it

KEY is a digest of the vectors, of what shapes the graph and of usearch's version: other vectors, or more of them, make another.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from llmrank.errors import ConfigError, SetupError
from llmrank.files import write_whole
from llmrank.retrieval.vectors import CHUNK, Progress, Rows, Vectors

if TYPE_CHECKING:
    from usearch.index import Index

FORMAT = 1
NUMBERS = "f16"
"""Half the memory of float32; what it rounds decides over no score, for what is found is scored anew."""

KEPT = 4
"""Graphs of one folder that stay: several catalogues may share it, and what a growing one leaves behind must not fill it."""

WAIT_SECONDS = 1.0
"""How long one process waits for another's graph before it says again that it waits."""

ROUNDS = 3
"""How often vectors that a search does not find are added anew."""

LARGEST = 512
"""Of `connectivity`: a million vectors of so many neighbours take 4 GB more than the vectors themselves."""


@dataclass(frozen=True, slots=True)
class ApproximateOptions:
    """How thoroughly a graph is built and searched. The defaults are measured (eval/results/index.md).

    Args:
        connectivity: Neighbours of a vector in the graph's upper layers (M in the paper), and half of those in the lowest.
        expansion_add: How many vectors are kept in view while one is added (efConstruction).
        expansion_search: How many while one is searched (ef); more are seen if more are asked for.
    """

    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int = 400

    def __post_init__(self) -> None:
        _check("connectivity", self.connectivity, 2, LARGEST)
        _check("expansion_add", self.expansion_add, 1, None)
        _check("expansion_search", self.expansion_search, 1, None)


class Graph:
    """Finds rows near to a vector. Safe to use from several threads.

    Args:
        index: A `usearch.index.Index` whose keys are the row numbers 0, 1, 2 ...
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        # Scratch memory belongs to a thread's number in usearch, and every caller's is 0: one search at a time.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._index)

    def search(self, unit: Vectors, count: int) -> Rows:
        """About the `count` rows of highest product with a vector of shape (d,), in no order to rely on."""
        with self._lock:
            found: Any = self._index.search(np.ascontiguousarray(unit, dtype=np.float32), count, threads=1)
        return np.asarray(found.keys).astype(np.int64)


def check_installed() -> None:
    """Raises SetupError if usearch is missing, or lacks something itself."""
    try:
        import usearch.index  # noqa: F401  # whether it can be imported is the question
    except ImportError as error:
        remedy = "run: pip install 'llmrank[ann]'"
        raise SetupError(f"an approximate index needs usearch, which cannot be imported ({error}); {remedy}") from error


def graph_of(
    vectors: Vectors,
    used: Rows | None,
    options: ApproximateOptions,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Graph:
    """The graph of some of a table's rows: from disk if it is there, else built, and kept there.

    Args:
        vectors: float32 of shape (m, d), rows of length 1 (or 0).
        used: The table's rows that are in the graph, where they are numbered 0, 1, 2 ...; None for all.
        options: See `ApproximateOptions`.
        folder: Where graphs are kept; None keeps none. Of several processes that need one, one builds it.
        progress: Called with (done, total) after each chunk of vectors is added, and now and then while another process
            builds the graph; what it raises ends the building, and nothing is kept.

    Raises:
        SetupError: usearch is missing, or the folder cannot be written.
    """
    check_installed()
    count = len(vectors) if used is None else len(used)
    if folder is None:
        return Graph(_built(vectors, used, count, options, progress))
    path = folder / f"graph-{_key(vectors, used, options)}.usearch"
    found = _opened(path, vectors.shape[1], count, options)
    if found is not None:
        return Graph(found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / "graph.lock", count, progress):
            found = _opened(path, vectors.shape[1], count, options)  # another process may have been faster
            if found is not None:
                return Graph(found)
            built = _built(vectors, used, count, options, progress)
            _save(built, path)
            _forget_oldest(folder)
    except OSError as error:
        raise SetupError(f"cannot keep the index in {folder} ({error}); free space, or use another folder") from error
    # From the file, so that all processes of the machine share its pages; the one just built is freed.
    return Graph(_opened(path, vectors.shape[1], count, options) or built)


def _check(name: str, value: object, least: int, most: int | None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]  # `whole` says it is an int
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ConfigError(f"must be a whole number {span}", field=f"prefilter.index.{name}", value=value, fix="leave it out")


def _blocks(vectors: Vectors, used: Rows | None) -> Iterator[Vectors]:
    count = len(vectors) if used is None else len(used)
    for start in range(0, count, CHUNK):
        end = min(start + CHUNK, count)
        yield np.ascontiguousarray(vectors[start:end] if used is None else vectors[used[start:end]], dtype=np.float32)


def _key(vectors: Vectors, used: Rows | None, options: ApproximateOptions) -> str:
    """A digest of all that a graph depends on. `expansion_search` is none of it: any graph is searched with any."""
    # With usearch's version: one may read what another wrote as something else, or crash on it.
    written_by = [FORMAT, importlib.metadata.version("usearch"), NUMBERS]
    shape = [vectors.shape[1], options.connectivity, options.expansion_add]
    digest = hashlib.sha256(json.dumps(written_by + shape).encode())
    for block in _blocks(vectors, used):
        digest.update(block.data)
    return digest.hexdigest()[:32]


def _empty(dimension: int, options: ApproximateOptions) -> Index:
    from usearch.index import Index

    return Index(
        ndim=dimension,
        metric="ip",  # of unit vectors the cosine; unlike it, it is a number for a vector of zeros, too
        dtype=NUMBERS,
        connectivity=options.connectivity,
        expansion_add=options.expansion_add,
        expansion_search=options.expansion_search,
    )


def _built(vectors: Vectors, used: Rows | None, count: int, options: ApproximateOptions, progress: Progress | None) -> Index:
    index = _empty(vectors.shape[1], options)
    done = 0
    for block in _blocks(vectors, used):
        index.add(np.arange(done, done + len(block), dtype=np.uint64), block)
        done += len(block)
        if progress is not None:
            progress(done, count)
    _mend(index, vectors, used)
    return index


def _mend(index: Index, vectors: Vectors, used: Rows | None) -> None:
    """Adds anew, one by one, what no search finds.

    Threads that add at once may leave a vector without a way to it, a few of a thousand on a machine of many cores.
    """
    thorough = index.expansion_search
    index.expansion_search = 64  # type: ignore[misc]  # as below; a vector's own place is easily found
    for _ in range(ROUNDS):
        lost: list[int] = []
        done = 0
        for block in _blocks(vectors, used):
            keys = np.arange(done, done + len(block), dtype=np.uint64)
            found: Any = index.search(block, 10)
            # A lone vector's matches come in one dimension. Rows that are equal in float16 may hide each other: harmless.
            lost += keys[(np.asarray(found.keys).reshape(len(block), -1) != keys[:, None]).all(axis=1)].tolist()
            done += len(block)
        if not lost:
            break
        again = np.array(lost, dtype=np.uint64)
        rows = lost if used is None else used[lost]
        index.remove(again)
        index.add(again, np.ascontiguousarray(vectors[rows], dtype=np.float32), threads=1)
    index.expansion_search = thorough  # type: ignore[misc]  # usearch has a setter that mypy does not see


def _save(index: Index, path: Path) -> None:
    part = path.with_name(f".{path.name}.part")  # one writer at a time: no other has this name
    try:
        try:
            index.save(str(part))
        except RuntimeError as error:  # what usearch makes of a full disk
            raise OSError(str(error)) from error
        with part.open("r+b") as file:
            os.fsync(file.fileno())
            described = {"format": FORMAT, "bytes": part.stat().st_size, "sha256": _sha256(part)}
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    write_whole(path.with_suffix(".json"), [json.dumps(described)])


def _opened(path: Path, dimension: int, count: int, options: ApproximateOptions) -> Index | None:
    """The graph of a file, memory-mapped; None if there is none, or not as it was written."""
    try:
        described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        # usearch follows what a file says wherever it leads, out of memory, too: no byte may have changed.
        if described != {"format": FORMAT, "bytes": path.stat().st_size, "sha256": _sha256(path)}:
            return None
    except (OSError, ValueError):  # missing, or no JSON: it is built anew
        return None
    index = _empty(dimension, options)
    try:
        index.view(str(path))
    except RuntimeError:  # the system maps no more memory: the graph is built anew, in memory
        return None
    return index if len(index) == count else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(path: Path, count: int, progress: Progress | None) -> Iterator[None]:
    """Only one process at a time builds; the others say now and then that they wait, and may be ended then."""
    lock = FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=WAIT_SECONDS)
        except Timeout:
            if progress is not None:
                progress(0, count)
    try:
        yield
    finally:
        lock.release()


def _forget_oldest(folder: Path) -> None:
    for part in folder.glob(".graph-*.part"):  # what a process left that was killed while it saved
        part.unlink()
    graphs = sorted(folder.glob("graph-*.usearch"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in graphs[KEPT:]:
        path.with_suffix(".json").unlink(missing_ok=True)  # first: without it the rest is no graph
        with suppress(PermissionError):  # Windows removes no file that some process has mapped; the next time it may
            path.unlink(missing_ok=True)
