"""A small suite with real files and an OpenAI-compatible server on the loopback, for tests of evaluation runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers.picky import PickyServer, Reply, Request, completion

KEY = "sk-a-secret-of-the-tests"
KEY_ENV = "LLMRANK_TEST_KEY"
ITEMS = 40
_LABEL = re.compile(r"^\[(\w+)\] ", re.MULTILINE)


def write_data(folder: Path, cases: int = 12, candidates: int = 6) -> None:
    """Items, cases whose relevant item stands at every place in turn, and interactions without what the cases ask for."""
    folder.mkdir(parents=True, exist_ok=True)
    items = [{"id": f"i{number}", "title": f"Film {number}", "year": 1950 + number} for number in range(ITEMS)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    lines, log = [], ["user_id,item_id,timestamp"]
    for user in range(cases):
        chosen = [f"i{(user + step) % ITEMS}" for step in range(1 + user % 4)]
        others = [f"i{(user + 7 + 3 * step) % ITEMS}" for step in range(candidates)]
        case = {"user_id": f"u{user}", "history": chosen, "candidates": others, "relevant": [others[user % candidates]]}
        lines.append(json.dumps(case) + "\n")
        log += [f"u{user},{item_id},{100 * user + step}" for step, item_id in enumerate(chosen)]
    (folder / "cases.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "interactions.csv").write_text("\n".join(log) + "\n", encoding="utf-8")


def suite(folder: Path, url: str, **changes: Any) -> dict[str, Any]:
    """A suite with two baselines and one Ranker that asks the server; `changes` replace its keys."""
    ranker = {
        "backend": {"kind": "openai", "model": "picky-1", "base_url": url, "api_key_env": KEY_ENV, "max_concurrency": 2},
        "prompt": {"template": "listwise/recency"},
        "strategy": {"kind": "listwise"},
        "limits": {"max_attempts": 1},
    }
    return {
        "items": str(folder / "items.jsonl"),
        "cases": str(folder / "cases.jsonl"),
        "interactions": str(folder / "interactions.csv"),
        "rankers": {"random": {"baseline": "random"}, "popularity": {"baseline": "popularity"}, "model": ranker},
        "metrics": ["ndcg@3", "hit@1"],
        "resamples": 200,
        "prices": {"picky-1": {"input": 10.0, "output": 100.0}},
        **changes,
    }


def labels(request: Request) -> list[str]:
    """The labels of the candidates that a request shows."""
    return _LABEL.findall(request.body["messages"][-1]["content"])


def answer(request: Request) -> Reply | None:
    """Ranks the candidates backwards, at 110 prompt and 20 answer tokens."""
    if not request.path.endswith("/chat/completions"):
        return None
    order = " > ".join(f"[{label}]" for label in reversed(labels(request)))
    return Reply(completion(order, usage={"prompt_tokens": 110, "completion_tokens": 20}))


USD = (110 * 10.0 + 20 * 100.0) / 1_000_000
"""What one answer costs."""


def server(*rules: Callable[[Request], Reply | None]) -> PickyServer:
    """A server that follows the rules, and else ranks backwards."""
    return PickyServer([*rules, answer])
