"""Ctrl-C during a run: the process ends at once, cleanly, and what was finished is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio, sys
from llmrank import Item, Ranker, RankRequest
from llmrank.strategies.listwise import Listwise
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import ScriptedBackend

backend = ScriptedBackend(lambda prompt: " > ".join(prompt.labels), delay=0.05)
requests = (RankRequest((), [Item("1", "One"), Item("2", "Two")]) for _ in range(10_000))
ranker = Ranker(backend, Listwise(PromptWriter(PromptOptions())), cache=sys.argv[1], max_concurrency=4)

async def stream():
    async for ranking in ranker.arank_many(requests):
        print(ranking.status, flush=True)

try:
    with ranker:
        if sys.argv[2] == "async":
            asyncio.run(stream())
        for ranking in ranker.rank_many(requests):
            print(ranking.status, flush=True)
finally:
    print("closed", backend.closed, "in flight", backend.in_flight, file=sys.stderr)
"""


def interrupt(tmp_path: Path, way: str) -> tuple[str, str, float]:
    """Runs the script, presses Ctrl-C after its first lines; its output, its errors, and how long it took to end."""
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "answers.sqlite"), way],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    first = run.stdout.readline()
    start = time.monotonic()
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=30)
    assert run.returncode != 0
    return first + out, err, time.monotonic() - start


def test_ctrl_c_ends_a_synchronous_stream(tmp_path: Path) -> None:
    """`rank_many` gives way to Ctrl-C at once: what was in flight is cancelled, the backend closed, nothing complains."""
    out, err, seconds = interrupt(tmp_path, "sync")
    assert out.startswith("ok\n")
    assert seconds < 10
    assert "closed 1 in flight 0" in err
    assert err.strip().endswith("KeyboardInterrupt")
    assert "never awaited" not in err
    assert "was destroyed" not in err


def test_ctrl_c_ends_an_asynchronous_stream(tmp_path: Path) -> None:
    """`arank_many` under `asyncio.run` does the same."""
    out, err, seconds = interrupt(tmp_path, "async")
    assert out.startswith("ok\n")
    assert seconds < 10
    assert "closed 1 in flight 0" in err
    assert err.strip().endswith("KeyboardInterrupt")
    assert "never awaited" not in err
    assert "was destroyed" not in err
