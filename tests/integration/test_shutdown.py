"""A program that ends without closing its Ranker ends all the same, at once and silently."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio, sys
from llmrank import Item, Ranker
from llmrank.config import build_backend
from llmrank.strategy_kinds import build_strategy
from tests.unit.scripted import ScriptedBackend

kind, use, folder = sys.argv[1:]
items = [Item("1", "One"), Item("2", "Two")]
answer = lambda prompt: " > ".join(prompt.labels)
if kind == "local":
    backend = build_backend({"kind": "local", "context_window": 512, "slots": 2})
    strategy = build_strategy({"kind": "likelihood"})
elif kind == "openai":
    backend = build_backend({"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "context_window": 9999})
    strategy = build_strategy({"kind": "listwise"})
else:
    backend, strategy = ScriptedBackend(answer), build_strategy({"kind": "listwise"})
cache = folder + "/answers.sqlite" if kind != "openai" else None
ranker = Ranker(backend, strategy, cache=cache, on_error="fallback")

async def ask():
    return await ranker.arank(candidates=items)

async def close_where_a_loop_runs():
    with ranker:
        await ask()

if use == "sync":
    ranker.rank(candidates=items)
elif use == "async":
    asyncio.run(ask())
elif use == "both":
    ranker.rank(candidates=items)
    asyncio.run(ask())
elif use == "with":
    asyncio.run(close_where_a_loop_runs())
elif use == "dropped":
    ranker.rank(candidates=items)
    del ranker
elif use == "stream":
    next(ranker.rank_many([__import__("llmrank").RankRequest((), items)] * 50))
print("end")
"""


@pytest.mark.parametrize("use", ["never", "sync", "async", "both", "with", "dropped", "stream"])
@pytest.mark.parametrize("kind", ["scripted", "openai", pytest.param("local", marks=pytest.mark.local)])
def test_a_program_ends(kind: str, use: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Whatever was used, and whether or not it was closed: status 0, no complaint, no waiting."""
    if kind == "local":
        request.getfixturevalue("weights")
    run = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", SCRIPT, kind, use, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "end\n"), run.stderr
    assert run.stderr == ""
