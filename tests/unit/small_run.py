"""Cases and rankings go in, the folder of an evaluation run comes out: as small as a test wants it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmrank.errors import LLMRankError
from llmrank.evaluation.cases import Case, write_cases
from llmrank.evaluation.folder import Popularity, RunFolder
from llmrank.evaluation.records import full_record
from llmrank.files import write_whole
from llmrank.types import Item, RankedItem, Ranking, Status, Usage


def ranking(
    case: Case,
    order: Sequence[str],
    status: Status = "ok",
    *,
    shown: Sequence[str] | None = None,
    by_model: int | None = None,
    error: LLMRankError | None = None,
    usage: Usage | None = None,
    **more: Any,
) -> Ranking:
    """A Ranking of a case: this order, of which the first `by_model` items are the model's own."""
    ranked = len(order) if by_model is None else by_model
    if status in ("fallback", "error"):
        ranked = 0
    spent = Usage() if status == "error" else Usage(100, 10, 50, 1, 0, 0, 0.5)
    return Ranking(
        tuple(
            RankedItem(Item(each, f"Title {each}"), rank, None, "model" if rank <= ranked else "fallback")
            for rank, each in enumerate(order, start=1)
        ),
        status=status,
        filled=tuple(order[ranked:]),
        shown=tuple((case.candidates or ()) if shown is None else shown),
        error=error,
        usage=spent if usage is None else usage,
        latency=0.5,
        strategy=more.pop("strategy", "listwise"),
        model=more.pop("model", "a-model"),
        user_id=case.user_id,
        **more,
    )


def write_run(
    path: Path,
    cases: Sequence[Case],
    rankers: Mapping[str, Sequence[Ranking]],
    *,
    items: Sequence[str] = tuple("abcdefgh"),
    stability: Mapping[str, Sequence[tuple[int, Ranking]]] | None = None,
    popularity: Popularity | None = None,
    suite: Mapping[str, Any] | None = None,
    kind: str = "openai",
    **manifest: Any,
) -> RunFolder:
    """Writes it.

    Args:
        path: Where.
        cases: Of the run.
        rankers: For each the rankings of the first cases.
        items: The catalogue's ids.
        stability: For each ranker case numbers and rankings of shuffled candidates.
        popularity: What was chosen before.
        suite: Of the manifest.
        kind: Of all rankers' backends.
        manifest: What else it says.
    """
    folder = RunFolder(path)
    write_whole(path / "data" / "items.jsonl", (json.dumps({"id": each, "title": f"Title {each}"}) + "\n" for each in items))
    write_cases(path / "data" / "cases.jsonl", cases)
    if popularity is not None:
        found = {"users": popularity.users, "counts": popularity.counts}
        write_whole(path / "data" / "popularity.json", [json.dumps(found)])
    for name, rankings in rankers.items():
        lines = ({"case": number, **full_record(each, trace=False)} for number, each in enumerate(rankings))
        write_whole(folder.results_path(name), (json.dumps(line) + "\n" for line in lines))
    for name, again in (stability or {}).items():
        records = ({"case": number, "shuffle": 1, **full_record(each, trace=False)} for number, each in again)
        write_whole(folder.stability_path(name), (json.dumps(line) + "\n" for line in records))
    asked = {
        "suite": dict(suite or {}),
        "protocol": "made by hand",
        "cases": len(cases),
        "items": len(items),
        "seed": 0,
        "primary": "ndcg@10",
        "failures": "fallback",
        "metrics": ["ndcg@10", "mrr"],
        "confidence": 0.95,
        "resamples": 200,
        "notes": [],
        "rankers": {name: {"config": {"backend": {"kind": kind, "model": "a-model"}}} for name in rankers},
    }
    write_whole(path / "manifest.json", [json.dumps(asked | manifest)])
    return folder
