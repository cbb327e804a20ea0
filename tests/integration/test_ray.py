"""Shards on a real Ray cluster: the same rankings as the local engine, also when a worker is killed in mid-run."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmrank import RankRequest
from llmrank.scale.engines import rank_shards
from llmrank.scale.split import split_requests
from tests.servers.picky import PickyServer
from tests.unit.test_shard import CATALOG, answer_backwards, rows, users

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'llmrank[ray]'")

PROGRAM = Path(__file__).with_name("ray_program.py")
ROOT = Path(__file__).parents[2]
USERS = 120
IN_FLIGHT = 2
"""Prompts that one worker has in flight."""
TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Setting:
    """Shards, a configuration and the server that answers."""

    folder: Path
    server: PickyServer
    shards: list[Path]
    config: dict[str, Any]

    @property
    def items(self) -> Path:
        return self.folder / "items.jsonl"

    @property
    def asked(self) -> Counter[str]:
        """How often each prompt was asked."""
        return Counter(json.dumps(body["messages"]) for body in self.server.bodies)


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """Eight shards of fifteen users, who are answered over HTTP."""
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    items = "".join(json.dumps({"id": item.id, "title": item.title}) + "\n" for item in CATALOG)
    (tmp_path / "items.jsonl").write_text(items, encoding="utf-8")
    requests = (RankRequest(row["history"], row["candidates"], user_id=row["user_id"]) for row in users(USERS))
    shards = split_requests(requests, tmp_path / "in", USERS // 8)
    with PickyServer([answer_backwards]) as server:
        backend = {"kind": "openai", "model": "picky-1", "base_url": server.url, "context_window": 4096}
        yield Setting(tmp_path, server, shards, {"backend": {**backend, "max_concurrency": IN_FLIGHT}})


@contextmanager
def program(
    setting: Setting, configs: Sequence[Any], *, mark: str = "", connect: bool = False, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """The program under way, a run with each configuration; its processes have `mark` in their environment."""
    arguments = {
        "shards": [str(path) for path in setting.shards],
        "out": str(setting.folder / "ray"),
        "configs": list(configs),
        "items": str(setting.items),
        "connect": connect,
        "options": options,
    }
    environment = {**os.environ, "LLMRANK_TEST_MARK": mark, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(PROGRAM), json.dumps(arguments)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            yield run
        finally:
            if run.poll() is None:
                run.send_signal(signal.SIGTERM)


def told(run: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What the program printed, once it has ended well."""
    out, err = run.communicate(timeout=TIMEOUT_S)
    assert run.returncode == 0, err
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def locally(setting: Setting) -> list[list[dict[str, Any]]]:
    """The rows of every shard from the local engine."""
    out = setting.folder / "local"
    for report in rank_shards(setting.shards, out, config=setting.config, catalog=setting.items):
        assert report.outcome == "ranked"
    return [rows(out / path.name) for path in setting.shards]


def workers(mark: str) -> list[int]:
    """The processes of the program that rank a shard right now. Ray names them after the method that they run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ranks = b"Worker.rank" in (folder / "cmdline").read_bytes()
            if ranks and f"LLMRANK_TEST_MARK={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def test_a_cluster_ranks_what_this_process_ranks(setting: Setting) -> None:
    """All shards once, with equal rows; a second run keeps them. What no worker can do is one error, in its own words."""
    wrong = {"backend": {"kind": "replay", "path": "nowhere.jsonl"}}
    with program(setting, [wrong, setting.config, setting.config], connect=True) as run:
        error, *reports = told(run)
    assert error["raised"] == "ConfigError"
    assert "nowhere.jsonl" in error["error"]
    first, second = reports[: len(setting.shards)], reports[len(setting.shards) :]
    for each in first, second:
        assert sorted(report["name"] for report in each) == [path.name for path in setting.shards]
    assert {(report["outcome"], report["attempts"]) for report in first} == {("ranked", 1)}
    assert {report["outcome"] for report in second} == {"kept"}
    assert (len(setting.asked), setting.asked.total()) == (USERS, USERS)
    assert [rows(setting.folder / "ray" / path.name) for path in setting.shards] == locally(setting)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the worker to kill in /proc")
def test_a_killed_worker_loses_nothing(setting: Setting) -> None:
    """SIGKILL of a worker in mid-shard: another one goes on with its shard; only what was in flight is asked twice.

    The cluster is the run's own here.
    """
    mark = uuid.uuid4().hex
    with program(setting, [setting.config], mark=mark, workers=2, num_cpus=0.5) as run:
        give_up = time.monotonic() + TIMEOUT_S
        while (len(setting.server.bodies) < 20 or not workers(mark)) and run.poll() is None and time.monotonic() < give_up:
            time.sleep(0.01)
        victim = workers(mark)[0]
        os.kill(victim, signal.SIGKILL)
        reports = told(run)
    assert sorted(report["name"] for report in reports) == [path.name for path in setting.shards]
    assert {report["outcome"] for report in reports} == {"ranked"}
    assert sorted(report["attempts"] for report in reports) == [1] * 7 + [2]
    assert len(setting.asked) == USERS
    assert setting.asked.total() <= USERS + IN_FLIGHT
    assert [rows(setting.folder / "ray" / path.name) for path in setting.shards] == locally(setting)
    assert not [path for path in (setting.folder / "ray").iterdir() if path.name.startswith(".")]
