"""Sizes go in; seconds of the exact index and of bare NumPy (product, argpartition) in one run, and their ratio, come out.

Run it from the root of the repository::

    python eval/bench_prefilter.py [--sizes 100000x128,1000000x256] [--k 100] [--rounds 7]

The vectors lie in a temporary file and are read memory-mapped by both; random unit vectors, for the time does not depend
on them. The two alternate, so that a busy machine slows both, and medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from llmrank.retrieval.index import ExactIndex
from llmrank.retrieval.store import VectorStore, digests
from llmrank.retrieval.vectors import Vectors, normalise

ROWS = 65_536
"""Rows made, and stored, at a time."""


def bare(vectors: Vectors, query: Vectors, k: int) -> Any:
    """What is compared with: the product and argpartition, nothing else; neither in order nor exact at ties."""
    scores = vectors @ query
    return np.argpartition(scores, len(scores) - k)[len(scores) - k :]


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def filled(store: VectorStore, rows: int, dimension: int, random: np.random.Generator) -> float:
    """Fills a store with random vectors; returns the seconds that storing took."""
    seconds = 0.0
    for start in range(0, rows, ROWS):
        count = min(ROWS, rows - start)
        vectors = normalise(random.standard_normal((count, dimension), dtype=np.float32))
        keys = digests([str(row) for row in range(start, start + count)])
        seconds += timed(partial(store.append, keys, vectors))
    return seconds


def measure(folder: Path, rows: int, dimension: int, k: int, rounds: int) -> str:
    """One line of figures for one size."""
    random = np.random.default_rng(0)
    model = f"random {rows}x{dimension}"
    stored = filled(VectorStore(folder, model), rows, dimension, random)
    begun = time.perf_counter()
    store = VectorStore(folder, model)
    _, vectors = store.lookup(digests(["0"]))
    opened = time.perf_counter() - begun
    keys = digests([str(row) for row in range(rows)])
    looked_up = timed(lambda: store.lookup(keys))
    index = ExactIndex(vectors)
    query = normalise(random.standard_normal(dimension, dtype=np.float32))
    hits = index.search(query, k)
    if set(hits.positions.tolist()) != set(bare(vectors, query, k).tolist()):
        sys.exit("the index and bare NumPy disagree")
    plain, ours = [], []
    for _ in range(rounds):
        plain.append(timed(lambda: bare(vectors, query, k)))
        ours.append(timed(lambda: index.search(query, k)))
    theirs_ms, ours_ms = 1000 * statistics.median(plain), 1000 * statistics.median(ours)
    return (
        f"{rows:>9,} x {dimension:<4} k {k}: index {ours_ms:.1f} ms, bare {theirs_ms:.1f} ms, ratio {ours_ms / theirs_ms:.2f}; "
        f"store: written in {stored:.1f} s, opened in {opened:.2f} s, all keys found in {looked_up:.2f} s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each size."""
    parser = argparse.ArgumentParser(description="exact index against bare NumPy")
    parser.add_argument("--sizes", default="100000x128,1000000x256", help="rows x dimension, with commas")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=None, help="where the temporary vectors go (1 GB for the larger size)")
    options = parser.parse_args(arguments)
    for size in options.sizes.split(","):
        rows, dimension = map(int, size.split("x"))
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(measure(Path(folder), rows, dimension, options.k, options.rounds), flush=True)


if __name__ == "__main__":
    main()
