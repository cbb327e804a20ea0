"""A run that is killed at any moment and started again ends as one that never was, and pays for no answer twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.picky import Reply, Request
from tests.unit.small_suite import KEY, KEY_ENV, USD, answer, server, suite, write_data

CASES = 12
WINDOWS = 3
"""Prompts a case: six candidates in windows of three, each moved by two or one."""


def start(folder: Path, out: Path) -> subprocess.Popen[str]:
    """`llmrank eval run`, as a user starts it."""
    program = "from llmrank.cli import main; main()"
    command = [sys.executable, "-c", program, "eval", "run", str(folder / "suite.yaml"), "--out", str(out), "--no-report"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env={**os.environ, KEY_ENV: KEY}, start_new_session=True, **pipes)


def timeless(value: Any) -> Any:
    """A JSON value without what depends on the clock."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in {"seconds", "latency", "created"}}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def state(out: Path) -> dict[str, Any]:
    """All results, the summary and the manifest of a run, without times."""
    files = {path.name: path.read_text(encoding="utf-8").splitlines() for path in (out / "results").iterdir()}
    results = {name: [timeless(json.loads(line)) for line in lines] for name, lines in files.items()}
    others = ((out / name).read_text(encoding="utf-8") for name in ("summary.json", "manifest.json"))
    return {"results": results, "others": [timeless(json.loads(text)) for text in others]}


@pytest.mark.parametrize("kill_at", [1, 2, 7, 20, WINDOWS * CASES])
def test_kill_9_and_again_is_as_if_nothing_had_been(tmp_path: Path, kill_at: int) -> None:
    """Killed when the server gets its n-th request, then run to the end: the same files as an uninterrupted run, at one
    request each, but for those that were on their way when it was killed (at most two, as many as are asked at once).
    """
    write_data(tmp_path)
    killed: subprocess.Popen[str] | None = None
    started = threading.Event()
    seen = 0

    def kill(request: Request) -> Reply | None:
        nonlocal seen
        if request.path.endswith("/chat/completions"):
            seen += 1
            if seen == kill_at:
                started.wait(30)
                assert killed is not None
                os.killpg(killed.pid, signal.SIGKILL)
        return None

    with server(kill) as running:
        asked = suite(tmp_path, running.url)
        asked["rankers"]["model"]["strategy"] |= {"window": 3, "step": 2}
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
        killed = start(tmp_path, tmp_path / "run")
        started.set()
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
        again = start(tmp_path, tmp_path / "run")
        _, errors = again.communicate()
        assert again.returncode == 0, errors
        requests = len(running.bodies)
        running.rules.remove(kill)
        whole = start(tmp_path, tmp_path / "whole")
        _, errors = whole.communicate()
        assert whole.returncode == 0, errors
        each = len(running.bodies) - requests
    assert each == sum(len(record["trace"]) for record in state(tmp_path / "whole")["results"]["model.jsonl"])
    assert each <= requests <= each + 2
    assert state(tmp_path / "run") == state(tmp_path / "whole")
    spent = [json.loads(line)["usd"] for line in (tmp_path / "run" / "spent.jsonl").read_text(encoding="utf-8").splitlines()]
    assert each * USD - 1e-9 <= sum(spent) <= requests * USD + 1e-9


def test_ctrl_c_keeps_what_was_ranked(tmp_path: Path) -> None:
    """Ctrl-C ends the run at once, with the usual status and one line; the next run goes on."""
    write_data(tmp_path)
    interrupted: subprocess.Popen[str] | None = None
    ready = threading.Event()
    seen = 0

    def interrupt(request: Request) -> Reply | None:
        nonlocal seen
        seen += request.path.endswith("/chat/completions")
        if seen == 5:
            ready.wait(30)
            assert interrupted is not None
            os.killpg(interrupted.pid, signal.SIGINT)
            return Reply(b"", delay_s=30)
        return answer(request)

    with server(interrupt) as running:
        (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite(tmp_path, running.url)), encoding="utf-8")
        interrupted = start(tmp_path, tmp_path / "run")
        ready.set()
        _, errors = interrupted.communicate(timeout=60)
        assert interrupted.returncode == 130
        assert errors.rstrip().endswith("llmrank: interrupted")
        assert "Traceback" not in errors
        kept = len((tmp_path / "run" / "results" / "model.jsonl").read_text(encoding="utf-8").splitlines())
        assert kept >= 2
        again = start(tmp_path, tmp_path / "run")
        again.communicate()
        assert again.returncode == 0
    assert [record["case"] for record in state(tmp_path / "run")["results"]["model.jsonl"]] == list(range(CASES))
