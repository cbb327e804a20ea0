"""Files written for a batch, answered by vLLM's real run-batch and read back."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from llmrank import Catalog, Item, Ranker, Ranking, RankRequest
from llmrank.backends.vllm import VLLMBackend, VLLMOptions
from llmrank.errors import AnswersPendingError
from llmrank.scale.batch.engine import batch_rank
from llmrank.scale.batch.options import BatchOptions
from llmrank.strategies.listwise import Listwise
from llmrank.writer import PromptOptions, PromptWriter
from tests.tools.serve_vllm import ENVIRONMENT, SERVED_AS, WINDOW

pytestmark = pytest.mark.vllm

FILMS = ["Alien", "Heat", "Fargo", "Clue", "Jaws", "Speed"]
CATALOG = Catalog(
    [Item(str(number), title) for number, title in enumerate(FILMS)]
    + [Item(f"long{number}", f"Film {number}: " + "a very long title, " * 20) for number in range(60)]
)
RUN_S = 600
"""Seconds for one run-batch; it takes 40-90 on two busy cores, nearly all of it to start."""


def requests() -> list[RankRequest]:
    """Two users, and one whose prompt is longer than the model's window."""
    candidates = ["1", "2", "3", "4"]
    return [
        RankRequest(history=["0"], candidates=candidates, user_id="short"),
        RankRequest(history=["5", "0"], candidates=candidates, user_id="other"),
        RankRequest(history=[f"long{number}" for number in range(60)], candidates=candidates, user_id="long"),
    ]


def run_batch(python: Path, model: Path, asked: Path, answered: Path) -> None:
    """Has a file answered."""
    command = [
        *(str(python), "-m", "vllm.entrypoints.openai.run_batch", "-i", str(asked), "-o", str(answered)),
        *("--model", str(model), "--served-model-name", SERVED_AS, "--dtype", "bfloat16"),
        *("--max-model-len", str(WINDOW), "--max-num-seqs", "16", "--gpu-memory-utilization", "0.2", "--enforce-eager"),
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    ]
    log = asked.with_suffix(".log")
    with log.open("wb") as output:
        # A process group of its own: it starts others, which outlive it if it alone is killed.
        process = subprocess.Popen(
            command, env={**os.environ, **ENVIRONMENT}, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(RUN_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    assert status == 0, "\n".join(log.read_text(errors="replace").splitlines()[-30:])


def test_run_batch_answers_our_files(vllm_python_and_model: tuple[Path, Path], tmp_path: Path) -> None:
    """vLLM reads our files and we its answers: constrained orders are whole, and a prompt that was refused as too long is
    written anew to fit, in a second wave that has it alone.
    """
    python, model = vllm_python_and_model
    # The window is said to be larger than it is, so that the long prompt is refused.
    backend = VLLMBackend(VLLMOptions(base_url="http://127.0.0.1:9", model=SERVED_AS, context_window=8 * WINDOW))
    waves = 0
    rankings: list[Ranking] = []
    with Ranker(backend, Listwise(PromptWriter(PromptOptions(history=100))), catalog=CATALOG) as ranker:
        while not rankings:
            try:
                rankings = list(batch_rank(ranker, requests, tmp_path, BatchOptions(via="files")))
            except AnswersPendingError:
                waves += 1
                asked = tmp_path / f"wave-{waves:04}" / "in-0001.jsonl"
                assert asked.read_bytes().count(b"\n") == (3 if waves == 1 else 1)
                run_batch(python, model, asked, asked.with_name("out-0001.jsonl"))
    assert waves == 2
    assert [(ranking.user_id, ranking.status, ranking.error) for ranking in rankings] == [
        ("short", "ok", None),
        ("other", "ok", None),
        ("long", "ok", None),
    ]
    assert all(sorted(ranking.item_ids) == ["1", "2", "3", "4"] for ranking in rankings)
    assert all(ranking.usage.prompt_tokens > 50 and ranking.usage.calls >= 1 for ranking in rankings)
    assert rankings[2].cut.history > 0
    assert rankings[2].usage.prompt_tokens < WINDOW
