"""Items and histories go in; recall of the approximate index, its build time, and searches of both as a ratio come out.

Run it from the root of the repository::

    python eval/bench_index.py --items items.jsonl --cases cases.jsonl --store DIR [--k 100] [--queries 200]

The embeddings are the default embedder's of the items' titles, and stay in the store, as the graph does: a second run embeds
and builds nothing. A query is what the prefilter compares with: the recency-weighted mean of a real history's last ten titles.
Both indexes search for the same vectors in turns, so that a busy machine slows both, and medians are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from llmrank import Catalog
from llmrank.progress import progress
from llmrank.retrieval.approximate import ApproximateIndex
from llmrank.retrieval.cached import CachedEmbedder
from llmrank.retrieval.graph import ApproximateOptions
from llmrank.retrieval.history import history_vector
from llmrank.retrieval.index import ExactIndex
from llmrank.retrieval.store import VectorStore
from llmrank.retrieval.text import item_text
from llmrank.retrieval.vectors import Vectors
from llmrank.retrieval.wordllama import WordLlamaEmbedder

T = TypeVar("T")
LAST, DECAY = 10, 0.9
"""Of a history, as in `EmbeddingOptions`."""


def timed(call: Callable[[], T]) -> tuple[float, T]:
    """Seconds that a call takes, and what it gives."""
    begun = time.perf_counter()
    value = call()
    return time.perf_counter() - begun, value


def queries_of(cases: Path, place_of: dict[str, int], index: ExactIndex, count: int) -> list[Vectors]:
    """What the first users with a history want, a unit vector each."""
    wanted = []
    with cases.open(encoding="utf-8") as lines:
        for line in lines:
            history = [place_of[item] for item in json.loads(line)["history"][-LAST:]]
            if history:
                wanted.append(history_vector(index.vectors(history), DECAY))
            if len(wanted) == count:
                break
    return wanted


def compare(exact: ExactIndex, approximate: ApproximateIndex, queries: Sequence[Vectors], k: int) -> str:
    """A line of figures: recall, and the time of both."""
    shares, plain, ours = [], [], []
    for query in queries:
        took, best = timed(lambda query=query: exact.search(query, k))  # type: ignore[misc]  # mypy knows no type of a default
        plain.append(took)
        took, found = timed(lambda query=query: approximate.search(query, k))  # type: ignore[misc]
        ours.append(took)
        shares.append(len(np.intersect1d(best.positions, found.positions)) / len(best.positions))
    error = statistics.stdev(shares) / len(shares) ** 0.5
    exact_ms, ms = 1000 * statistics.median(plain), 1000 * statistics.median(ours)
    return (
        f"expansion_search {approximate.options.expansion_search}: recall@{k} {statistics.mean(shares):.4f} +- {error:.4f} "
        f"(least {min(shares):.2f}), {ms:.2f} ms a search, exact {exact_ms:.1f} ms: {exact_ms / ms:.1f} times as fast"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    default = ApproximateOptions()
    parser = argparse.ArgumentParser(description="approximate index against the exact one, on real embeddings")
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True, help="JSONL with `history`, ids of the items")
    parser.add_argument("--store", type=Path, required=True, help="the folder that keeps vectors and graph")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--connectivity", type=int, default=default.connectivity)
    parser.add_argument("--expansion-add", type=int, default=default.expansion_add)
    parser.add_argument("--expansion-search", default=f"{default.expansion_search}", help="one or several, with commas")
    options = parser.parse_args(arguments)
    catalog = Catalog.load(options.items)
    embedder = WordLlamaEmbedder()
    cached = CachedEmbedder(embedder, VectorStore(options.store, embedder.model))
    texts = [item_text(item) for item in catalog.items]
    with progress("embedding", "items") as report:
        took, exact = timed(lambda: ExactIndex(*cached.table(texts, report)))
    print(f"{len(exact):,} items, {len(set(texts)):,} different texts x {exact.dimension}: vectors in {took:.1f} s", flush=True)
    sizes = [int(size) for size in options.expansion_search.split(",")]
    how = [ApproximateOptions(options.connectivity, options.expansion_add, size) for size in sizes]
    before = time.process_time()
    with progress("building", "items") as report:
        took, index = timed(lambda: ApproximateIndex(exact, how[0], folder=cached.folder, progress=report))
    print(f"graph of {how[0]}: {took:.1f} s, {time.process_time() - before:.1f} s of CPU", flush=True)
    took, index = timed(lambda: ApproximateIndex(exact, how[0], folder=cached.folder))
    newest = max(cached.folder.glob("graph-*.usearch"), key=lambda path: path.stat().st_mtime)
    print(f"opened again in {took:.1f} s; {newest.stat().st_size / 1e6:.0f} MB on disk", flush=True)
    place_of = {item.id: place for place, item in enumerate(catalog.items)}
    queries = queries_of(options.cases, place_of, exact, options.queries)
    for each in how:
        if each is not how[0]:
            index = ApproximateIndex(exact, each, folder=cached.folder)
        compare(exact, index, queries[:3], options.k)  # what is read for the first time is not counted
        print(compare(exact, index, queries, options.k), flush=True)


if __name__ == "__main__":
    main()
