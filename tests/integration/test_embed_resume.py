"""`llmrank embed` that is killed at any moment and started again embeds no text that is stored a second time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from llmrank.retrieval.store import VectorStore, digests
from llmrank.retrieval.vectors import CHUNK, Vectors
from tests.servers.picky import Reply, Request, picky

KEY_ENV, KEY = "LLMRANK_TEST_KEY", "sk-embed"
TEXTS = [f"title {number}" for number in range(2 * CHUNK + 500)]
"""Three chunks."""
BATCH = 2048
"""Texts in one request: two requests a chunk, and one for the last."""


def vectors_of(texts: Sequence[str]) -> Vectors:
    """Unit vectors that tell which text each is of."""
    angles = np.array([float(text.split()[-1]) if text.startswith("title ") else 0.0 for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def embeddings(texts: Sequence[str]) -> Reply:
    """What a server of /v1/embeddings answers."""
    rows = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(vectors_of(texts).tolist())]
    return Reply({"object": "list", "data": rows, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}})


def start(folder: Path, url: str) -> subprocess.Popen[str]:
    """The command, as a user starts it."""
    options = {"model": "m", "base_url": url, "api_key_env": KEY_ENV, "batch_size": BATCH, "max_concurrency": 1}
    embedder = json.dumps({"kind": "openai", **options, "store": str(folder / "store")})
    program = "from llmrank.cli import main; main()"
    command = [sys.executable, "-c", program, "embed", "--items", str(folder / "items.jsonl"), "--embedder", embedder]
    environment = {**os.environ, KEY_ENV: KEY}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stored(folder: Path) -> set[str]:
    """The texts in the store, each of which has its own vector."""
    (lies_in,) = (folder / "store").iterdir()
    meta = json.loads((lies_in / "meta.json").read_text(encoding="utf-8"))
    store = VectorStore(folder / "store", meta["model"])
    rows, vectors = store.lookup(digests(TEXTS))
    there = np.flatnonzero(rows >= 0)
    texts = [TEXTS[at] for at in there.tolist()]
    assert vectors[rows[there]] == pytest.approx(vectors_of(texts), abs=1e-6)
    return set(texts)


@pytest.mark.parametrize("kill_at", [3, 4, 5])
def test_kill_9_and_again_embeds_nothing_stored_twice(tmp_path: Path, kill_at: int) -> None:
    """Killed when the server gets its n-th batch, then run to the end: whole chunks stayed, and only the rest is asked for."""
    lines = (json.dumps({"id": str(number), "title": text}) + "\n" for number, text in enumerate(TEXTS))
    (tmp_path / "items.jsonl").write_text("".join(lines), encoding="utf-8")
    asked: list[list[str]] = []
    started = threading.Event()
    processes: list[subprocess.Popen[str]] = []

    def answer(request: Request) -> Reply:
        texts = request.body["input"]
        if texts[0] in known:  # not the question for the vectors' length
            asked.append(texts)
            if len(asked) == kill_at and len(processes) == 1:
                started.wait(30)
                os.killpg(processes[0].pid, signal.SIGKILL)
        return embeddings(texts)

    known = set(TEXTS)
    with picky(answer) as server:
        processes.append(start(tmp_path, server.url))
        started.set()
        processes[0].communicate()
        assert processes[0].returncode == -signal.SIGKILL
        kept = stored(tmp_path)
        assert len(kept) == {3: CHUNK, 4: CHUNK, 5: 2 * CHUNK}[kill_at]
        asked.clear()
        processes.append(start(tmp_path, server.url))
        out, errors = processes[1].communicate()
    assert processes[1].returncode == 0, errors
    rest = [text for texts in asked for text in texts]
    assert len(rest) == len(set(rest))
    assert set(rest) == known - kept
    assert stored(tmp_path) == known
    assert f"{len(TEXTS):,} different texts: {len(kept):,} were there, {len(rest):,} embedded" in out
