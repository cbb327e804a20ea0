"""A program for the vLLM environment: ranks and scores with vLLM in its own process and prints what came, as JSON.

Run by `test_vllm_inprocess.py`, because vLLM's environment is not the one that the tests run in::

    python -m tests.integration.vllm_inprocess_program MODEL_FOLDER WINDOW
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable
from typing import Any

from llmrank.backends._constraints import JSON, ORDER, Permutation
from llmrank.backends.vllm_inprocess import VLLMInProcessBackend, VLLMInProcessOptions
from llmrank.errors import LLMRankError
from llmrank.labels import make_labels
from llmrank.types import Completion, Message, Prompt
from tests.integration.vllm_prompts import LIKELY, ask_to_rank


async def outcome(awaitable: Awaitable[Completion]) -> dict[str, Any]:
    """An answer, or an error, as JSON values."""
    try:
        answer = await awaitable
    except LLMRankError as error:
        return {"error": type(error).__name__, "message": str(error), "window": getattr(error, "window", None)}
    return {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "notes": answer.notes,
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
        "calls": answer.usage.calls,
        "label_logprobs": answer.label_logprobs,
        "scores": [[score.logprob, score.tokens] for score in answer.scores],
    }


def refused_by_llguidance() -> list[str]:
    """What vLLM's other grammar engine, which its automatic choice falls back to, says against our grammars."""
    import llguidance

    grammars = [Permutation(form, make_labels(count)).grammar for form in (ORDER, JSON) for count in (3, 20)]
    errors = [llguidance.LLMatcher.validate_grammar(llguidance.grammar_from("grammar", grammar), None) for grammar in grammars]
    return [str(error) for error in errors if error]


async def main(model: str, window: int) -> dict[str, Any]:
    """Asks everything at once, so that it makes one batch, then from two further loops, then closes twice."""
    backend = VLLMInProcessBackend(
        VLLMInProcessOptions(
            model,
            context_window=window,
            dtype="bfloat16",
            gpu_memory_utilization=0.2,
            engine={"enforce_eager": True, "max_num_seqs": 16},
        )
    )
    too_long = Prompt((Message("user", "word " * (window + 10)),), labels=("A", "B"), answer="order")
    wrong = Prompt((Message("user", "Hello"),), temperature=-1.0)
    chat = ask_to_rank(5, "order")
    asked = {
        "order5": backend.generate(chat),
        "json20": backend.generate(ask_to_rank(20, "json")),
        "wild20": backend.generate(ask_to_rank(20, "order", temperature=1.8)),
        "label": backend.generate(ask_to_rank(22, "label", label_logprobs=True)),
        "too_long": backend.generate(too_long),
        "wrong": backend.generate(wrong),
        "free": backend.generate(Prompt((Message("user", "Say hello."),), max_tokens=5)),
        "scores": backend.score(LIKELY),
        "no_prefix": backend.score(Prompt(continuations=("A",))),
    }
    answers = dict(zip(asked, await asyncio.gather(*map(outcome, asked.values())), strict=True))

    info = await backend.info()
    assert info.counter is not None
    texts: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: texts.append(asyncio.run(backend.generate(ask_to_rank(3, "label"))).text))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await backend.aclose()
    await backend.aclose()
    return {
        **answers,
        "other_loops": texts,
        "window": info.context_window,
        "counted": info.counter.count_messages(chat.messages),
        "refused_by_llguidance": refused_by_llguidance(),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2])))), flush=True)
