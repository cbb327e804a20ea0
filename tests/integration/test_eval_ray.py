"""`llmrank eval run --engine ray` on a real Ray cluster on this machine."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.picky import Reply, Request
from tests.unit.small_suite import KEY, KEY_ENV, USD, server, suite, write_data

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'llmrank[ray]'")

CASES = 12


def run(folder: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, as a user starts it."""
    program = "from llmrank.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        program,
        "eval",
        "run",
        str(folder / "suite.yaml"),
        "--out",
        str(out),
        "--no-report",
        *options,
    ]
    return subprocess.run(command, env={**os.environ, KEY_ENV: KEY}, capture_output=True, text=True, check=False, timeout=300)


def summary(out: Path) -> Any:
    """The summary without times, and without what is noted of the run."""
    found = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    for ranker in found["rankers"].values():
        del ranker["latency"], ranker["usage"]["seconds"]
    return found


def test_a_cluster_gives_what_this_process_gives(tmp_path: Path) -> None:
    """Shards on Ray end in the same summary as asking from here, and in the same records; a limit is kept, and failures are
    asked again on demand, and nothing else.
    """
    write_data(tmp_path)
    broken = True

    def failing(request: Request) -> Reply | None:
        if broken and "Film 16" in str(request.body.get("messages")):  # cases 0, 3, 6 and 9
            return Reply({"error": {"message": "broken"}}, 500)
        return None

    with server(failing) as running:
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite(tmp_path, running.url)), encoding="utf-8")
        few = run(tmp_path, tmp_path / "ray", "--engine", "ray", "--workers", "1", "--limit", "4")
        assert few.returncode == 1, few.stderr
        assert "2 rankings failed" in few.stderr
        assert len(running.bodies) == 4
        broken = False
        rest = run(tmp_path, tmp_path / "ray", "--engine", "ray", "--rows", "5", "--workers", "2", "--retry-errors")
        assert rest.returncode == 0, rest.stderr
        assert len(running.bodies) == CASES + 2
        local = run(tmp_path, tmp_path / "local")
        assert local.returncode == 0, local.stderr
    assert summary(tmp_path / "ray") == summary(tmp_path / "local")
    lines = (tmp_path / "ray" / "results" / "model.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["case"] for line in lines] == list(range(CASES))
    assert all("trace" in json.loads(line) for line in lines)
    spent = (tmp_path / "ray" / "spent.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum(json.loads(line)["usd"] for line in spent) == pytest.approx(CASES * USD)
