"""Where the label of an answer stands: behind the reasoning, for the server's answers and for vLLM's in this process."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llmrank.answer.text import answer_start
from llmrank.backends._label_tokens import label_place
from llmrank.backends.vllm_inprocess import _label_logprobs


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("B", 0),
        ("<think>A?</think>B", 17),
        ("A?</think>B", 10),
        ("<think>A</think><think>C</think>B", 32),
        ("<think>A", None),
        ("[THINK]A[/THINK]B", 16),
        ("<|channel|>analysis<|message|>A?", None),
        ("<|channel|>analysis<|message|>A?<|channel|>final<|message|>B", 59),
    ],
)
def test_an_answer_starts_behind_its_reasoning(text: str, start: int | None) -> None:
    """Behind the last closing tag, whether the prompt opened it or the model; nowhere if the reasoning has no end."""
    assert answer_start(text) == start
    assert start is None or text[start:] == "B"


def test_white_space_and_brackets_are_passed_over() -> None:
    """A token counts by what it spells; an answer of nothing else has no place for a label."""
    assert label_place(["\n", "[", "A", "]"]) == 2
    assert label_place(["\n", "["]) == 2
    assert label_place([]) == 0


def test_vllm_in_this_process_reads_the_label_behind_the_reasoning() -> None:
    """The log-probabilities are those of the token behind `</think>`; None while the model still thinks."""
    words = {1: "<think>", 2: "hm", 3: "</think>", 4: "A", 5: "B"}

    def step(*logprobs: tuple[int, float]) -> dict[int, SimpleNamespace]:
        return {token: SimpleNamespace(logprob=value, decoded_token=words[token]) for token, value in logprobs}

    steps = [step((1, -0.1), (4, -9.0)), step((2, -0.1)), step((3, -0.1)), step((5, -0.2), (4, -2.0))]
    generated = SimpleNamespace(token_ids=[1, 2, 3, 5], logprobs=steps)
    assert _label_logprobs(generated, {4: "A", 5: "B"}) == pytest.approx({"A": -2.0, "B": -0.2})
    cut = SimpleNamespace(token_ids=[1], logprobs=steps[:1])
    assert _label_logprobs(cut, {4: "A", 5: "B"}) is None
