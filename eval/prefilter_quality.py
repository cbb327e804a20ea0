"""Item and case files go in; NDCG@10 of a random order and of the prefilter's order, with standard errors, come out.

Run it from the root of the repository::

    python eval/prefilter_quality.py --items items.jsonl --cases cases.jsonl [--fields title,year,genres] [--limit 200]

The random order's figure is its exact expectation, not a draw. Seen items are not left out: the cases' candidates stand as
they are, so that the figures compare with those of other rankers on the same cases.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmrank.catalog import Catalog
from llmrank.errors import LLMRankError
from llmrank.resolve import resolve
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.retrieval.wordllama import WordLlamaEmbedder
from llmrank.types import RankRequest

DEPTH = 10


def discount(place: int) -> float:
    """What a relevant item at this place (from 0) adds to DCG."""
    return 1.0 / math.log2(place + 2)


def ndcg(order: Sequence[str], relevant: Sequence[str]) -> float:
    """NDCG@10 of an order of ids, each relevant item weighing 1."""
    gained = sum(discount(place) for place, item_id in enumerate(order[:DEPTH]) if item_id in set(relevant))
    return gained / sum(discount(place) for place in range(min(DEPTH, len(relevant))))


def expected(candidates: int, relevant: int) -> float:
    """The expectation of NDCG@10 of a random order that holds all relevant items."""
    gained = relevant / candidates * sum(discount(place) for place in range(min(DEPTH, candidates)))
    return gained / sum(discount(place) for place in range(min(DEPTH, relevant)))


def summary(name: str, values: Sequence[float]) -> str:
    """One line: mean and standard error, in percent."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{name:<40} {100 * statistics.fmean(values):5.1f} +- {100 * error:.1f}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description="NDCG@10 of the prefilter on a case file")
    parser.add_argument("--items", type=Path, required=True, help="item file (JSONL, CSV, Parquet)")
    parser.add_argument("--cases", type=Path, required=True, help="case file (JSONL)")
    parser.add_argument("--fields", default="title", help="what is embedded, with commas: title,year,genres")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many cases")
    parser.add_argument("--decays", default="0.9,1.0", help="weights decay^age of the history, with commas")
    parser.add_argument("--last", default="10", help="how many history items count, with commas")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    options = parse(arguments)
    catalog = Catalog.load(options.items)
    cases: list[dict[str, Any]] = [json.loads(line) for line in options.cases.read_text(encoding="utf-8").splitlines() if line]
    cases = cases[: options.limit]
    embedder = WordLlamaEmbedder()
    fields = tuple(options.fields.split(","))
    print(f"{len(cases)} cases, {len(catalog)} items, {embedder.model}, fields {options.fields}; NDCG@{DEPTH} in percent")
    print(summary("random (expectation)", [expected(len(case["candidates"]), len(case["relevant"])) for case in cases]))
    requests = [resolve(RankRequest(case["history"], case["candidates"], case.get("query")), catalog) for case in cases]
    for last in map(int, options.last.split(",")):
        for decay in map(float, options.decays.split(",")):
            settings = PrefilterOptions(keep=1000, decay=decay, last=last, drop_seen=False, fields=fields)
            prefilter = Prefilter(embedder, settings, catalog.items)
            begun = time.perf_counter()
            orders = [[item.id for item in prefilter.select(request).candidates] for request in requests]
            cost = 1000 * (time.perf_counter() - begun) / len(cases)
            values = [ndcg(order, case["relevant"]) for order, case in zip(orders, cases, strict=True)]
            print(f"{summary(f'prefilter, decay {decay:g}, last {last}', values)}   {cost:.1f} ms a user")


if __name__ == "__main__":
    try:
        main()
    except LLMRankError as error:
        sys.exit(f"error: {error}")
