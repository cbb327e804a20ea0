"""vLLM inside a process: real batches of a real model, run by the interpreter that has vLLM."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llmrank.backends.vllm import VLLMBackend, VLLMOptions
from tests.integration.vllm_prompts import LIKELY, ask_to_rank
from tests.integration.vllm_server import VLLMServer
from tests.tools.serve_vllm import ENVIRONMENT, WINDOW

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).resolve().parents[2]
PROGRAM_S = 600


@pytest.fixture(scope="module")
def answers(vllm_python_and_model: tuple[Path, Path]) -> dict[str, Any]:
    """What `vllm_inprocess_program` printed. It also shows that the backend needs nothing but vLLM and llmrank itself."""
    python, model = vllm_python_and_model
    done = subprocess.run(
        [python, "-m", "tests.integration.vllm_inprocess_program", model, str(WINDOW)],
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PROGRAM_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def test_permutations_are_decoded_in_one_batch_with_everything_else(answers: dict[str, Any]) -> None:
    """Every label once, in the exact form, beside prompts of other kinds and bad ones; sampling wildly takes several calls."""
    assert sorted(re.findall(r"\w+", answers["order5"]["text"])) == list("ABCDE")
    assert " > ".join(f"[{label}]" for label in re.findall(r"\w+", answers["order5"]["text"])) == answers["order5"]["text"]
    assert sorted(json.loads(answers["json20"]["text"])["ranking"]) == sorted(ask_to_rank(20, "json").labels)
    assert sorted(re.findall(r"\w+", answers["wild20"]["text"])) == sorted(ask_to_rank(20, "order").labels)
    assert answers["wild20"]["calls"] > 1
    for name in ("order5", "json20", "wild20"):
        assert (answers[name]["finish_reason"], answers[name]["notes"]) == ("stop", [])


def test_a_label_and_the_probability_of_each(answers: dict[str, Any]) -> None:
    """As with the server: one label, and normalised probabilities."""
    logprobs = answers["label"]["label_logprobs"]
    assert set(logprobs) == set(ask_to_rank(22, "label").labels)
    assert sum(map(math.exp, logprobs.values())) == pytest.approx(1, abs=0.02)
    assert max(logprobs, key=logprobs.get) == answers["label"]["text"]


def test_bad_prompts_fail_alone(answers: dict[str, Any]) -> None:
    """A prompt beyond the window, parameters out of range and an empty prefix each have their error; the batch is answered."""
    assert (answers["too_long"]["error"], answers["too_long"]["window"]) == ("ContextLengthError", WINDOW)
    assert answers["wrong"]["error"] == "BadRequestError"
    assert "temperature" in answers["wrong"]["message"]
    assert answers["no_prefix"]["error"] == "BadRequestError"
    assert answers["free"]["text"]
    assert (answers["free"]["finish_reason"], answers["free"]["completion_tokens"]) == ("length", 5)


def test_the_tokenizer_counts_what_the_engine_gets(answers: dict[str, Any]) -> None:
    """The count of a chat is its `prompt_tokens`; the window is the one asked for."""
    assert answers["counted"] == answers["order5"]["prompt_tokens"]
    assert answers["window"] == WINDOW


def test_other_event_loops_are_answered(answers: dict[str, Any]) -> None:
    """Two loops in two threads share the engine."""
    assert len(answers["other_loops"]) == 2
    assert set(answers["other_loops"]) <= {"A", "B", "C"}


def test_both_grammar_engines_read_the_grammars(answers: dict[str, Any]) -> None:
    """Where xgrammar cannot serve, vLLM falls back to llguidance: that takes the same grammars."""
    assert answers["refused_by_llguidance"] == []


async def test_scores_agree_with_the_server(answers: dict[str, Any], vllm_server: VLLMServer) -> None:
    """The same model scores the same continuations alike in process and behind HTTP."""
    backend = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, timeout_s=300))
    served = (await backend.score(LIKELY)).scores
    await backend.aclose()
    assert [tokens for _, tokens in answers["scores"]["scores"]] == [score.tokens for score in served]
    for (logprob, _), score in zip(answers["scores"]["scores"], served, strict=True):
        assert logprob == pytest.approx(score.logprob, abs=0.25)
