"""Measures how long the summary of an evaluation takes, and how much memory, on a made-up run.

One ranker, one case a user, 8 measures, intervals from 2,000 resamples. The folder is made first, in a process of its own, so
that the memory printed is that of the summary alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from llmrank.evaluation.cases import Case, write_cases
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.summary import summarize
from llmrank.evaluation.records import full_record
from llmrank.files import write_whole
from llmrank.types import Item, RankedItem, Ranking, Usage

MEASURES = ["ndcg@10", "ndcg@5", "hit@10", "recall@10", "mrr", "map@10", "novelty@10", "coverage@10"]
ITEMS = [Item(f"item {number}", f"Title {number}") for number in range(5000)]


def main() -> None:
    """Makes the folder, summarises it, prints one line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--cases", type=int, default=100_000)
    arguments.add_argument("--candidates", type=int, default=20)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as path:
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(Path(path), options.cases, options.candidates))
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit("the folder could not be made")
        before = peak()
        start, cpu = time.perf_counter(), time.process_time()
        summary = summarize(RunFolder(path))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    found = summary["rankers"]["made up"]
    print(
        f"{found['cases']:,} cases x {options.candidates} candidates x {len(MEASURES)} measures: {seconds:.1f} s "
        f"({cpu:.1f} s of CPU), peak memory {before:.0f} MB before, {peak():.0f} MB after; "
        f"ndcg@10 {found['metrics']['ndcg@10']:.4f} {found['ci']['ndcg@10']}"
    )


def peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make(path: Path, cases: int, candidates: int) -> None:
    """Writes a run's folder."""
    folder = RunFolder(path)
    write_whole(path / "data" / "items.jsonl", (json.dumps({"id": item.id, "title": item.title}) + "\n" for item in ITEMS))
    counts = {item.id: 1 + 20_000 // (number + 1) for number, item in enumerate(ITEMS)}
    write_whole(path / "data" / "popularity.json", [json.dumps({"users": 30_000, "counts": counts})])
    write_cases(path / "data" / "cases.jsonl", (case(number, candidates) for number in range(cases)))
    write_whole(folder.results_path("made up"), results(folder))
    manifest = {
        "suite": {},
        "protocol": "made up",
        "cases": cases,
        "items": len(ITEMS),
        "seed": 0,
        "primary": "ndcg@10",
        "failures": "fallback",
        "metrics": MEASURES,
        "rankers": {"made up": {"config": {"backend": {"kind": "openai"}}}},
    }
    write_whole(path / "manifest.json", [json.dumps(manifest)])


def case(number: int, candidates: int) -> Case:
    """A case with candidates drawn at random."""
    generator = random.Random(number)  # noqa: S311  # made-up data
    drawn = [item.id for item in generator.sample(ITEMS, candidates + 10)]
    shown = tuple(drawn[:candidates])
    return Case(f"user {number}", tuple(drawn[candidates:][: number % 11]), shown, (generator.choice(shown),))


def results(folder: RunFolder) -> Iterator[str]:
    """A result a case: an order that is somewhat better than chance."""
    by_id = {item.id: item for item in ITEMS}
    for number, each in enumerate(folder.cases()):
        generator = random.Random(-number)  # noqa: S311  # made-up data
        shown = each.candidates or ()
        order = sorted(shown, key=lambda item_id: generator.random() - 0.3 * (item_id in each.relevant))
        ranking = Ranking(
            tuple(RankedItem(by_id[item_id], rank) for rank, item_id in enumerate(order, start=1)),
            usage=Usage(900, 84, 512, 1, 0, 0, 0.9),
            latency=generator.lognormvariate(0, 0.5),
            shown=shown,
            strategy="listwise",
            model="gpt-4.1-mini",
            user_id=each.user_id,
        )
        yield json.dumps({"case": number, **full_record(ranking, trace=False)}) + "\n"


if __name__ == "__main__":
    main()
