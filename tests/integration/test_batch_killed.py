"""Processes that rank by a batch API are killed with -9, and others go on in their place."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from llmrank.strategies.listwise import ListwiseOptions
from tests.servers.batch import serving
from tests.unit.batch_rankers import essence, make, requests, run

PROGRAM = """
import os, signal, sys
from pathlib import Path
from tests.unit.batch_rankers import make, requests, run
from llmrank.strategies.listwise import ListwiseOptions

left = int(sys.argv[3])

def count(progress):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

with make(sys.argv[1], ListwiseOptions(window=2, step=1)) as ranker:
    run(ranker, requests(3, 3), Path(sys.argv[2]), requests_per_file=2, on_progress=count)
"""


def started(url: str, folder: Path, steps: int) -> subprocess.Popen[bytes]:
    """A process of its own that ranks, and kills itself after so many noted steps (0: never)."""
    return subprocess.Popen([sys.executable, "-c", PROGRAM, url, str(folder), str(steps)], cwd=Path(__file__).parents[2])


def test_kill_between_making_a_batch_and_noting_it(tmp_path: Path) -> None:
    """kill -9 as the server has made a batch and not yet said so: the next run finds it, and none is made twice."""
    with serving() as server:
        server.hold = True
        child = started(server.url, tmp_path, 0)
        try:
            assert server.made.wait(60)
        finally:
            child.kill()
            child.wait()
        server.hold = False
        server.release.set()
        assert json.loads((tmp_path / "wave-0001" / "wave.json").read_text())["parts"][0]["state"] == "submitting"
        with make(server.url, ListwiseOptions(window=2, step=1)) as ranker:
            rankings = run(ranker, requests(3, 3), tmp_path, requests_per_file=2)
            assert len(server.batches) == 4
            assert list(map(essence, rankings)) == list(map(essence, ranker.rank_many(requests(3, 3))))


def test_kill_after_kill_after_kill(tmp_path: Path) -> None:
    """Killed with -9 again and again, each time a few noted steps further, it ends with every batch made once."""
    with serving() as server:
        statuses = []
        for steps in (2, 4, 7, 9, 0):
            child = started(server.url, tmp_path, steps)
            statuses.append(child.wait(60))
        assert statuses == [-signal.SIGKILL] * 4 + [0]
        assert len(server.batches) == 4
