"""The vLLM backend against a real vLLM server."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from llmrank.backends._constraints import JSON, ORDER
from llmrank.backends.vllm import Constrain, VLLMBackend, VLLMOptions
from llmrank.errors import ContextLengthError, ModelNotFoundError
from llmrank.ranker import Ranker
from llmrank.types import AnswerFormat, Completion, Item, Message, Prompt
from tests.integration.vllm_prompts import LIKELY, TITLES, ask_to_rank
from tests.integration.vllm_server import VLLMServer
from tests.tools.serve_vllm import SERVED_AS, WINDOW

pytestmark = pytest.mark.vllm

TIMEOUT_S = 300.0
SAME_LOGPROB = 0.25
"""How far two log-likelihoods of one short text may be apart in bfloat16: other batches sum in another order."""


@pytest.fixture
async def backend(vllm_server: VLLMServer) -> AsyncIterator[VLLMBackend]:
    """A backend of the one model that the server has; it may only answer in the form asked for."""
    made = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, constrain="required", timeout_s=TIMEOUT_S))
    yield made
    await made.aclose()


def listed(answer: Completion, form: AnswerFormat) -> list[str]:
    """The labels of an answer in exactly the form asked for."""
    text = answer.text or ""
    if form == "json":
        labels = json.loads(text)["ranking"]
        assert text == JSON.opening + ", ".join(map(JSON.item, labels)) + JSON.closing
        return list(labels)
    labels = text.replace("[", "").replace("]", "").split(" > ")
    assert text == " > ".join(map(ORDER.item, labels))
    return labels


@pytest.mark.parametrize("form", ["order", "json"])
@pytest.mark.parametrize("count", [5, 20])
async def test_only_a_permutation_is_decoded(backend: VLLMBackend, count: int, form: AnswerFormat) -> None:
    """A model of 135 million parameters, which left alone ranks nothing, writes every label once, in the exact form."""
    prompt = ask_to_rank(count, form)
    answer = await backend.generate(prompt)
    assert sorted(listed(answer, form)) == sorted(prompt.labels)
    assert answer.finish_reason == "stop"
    assert answer.model == SERVED_AS
    assert answer.notes == ()
    assert 1 <= answer.usage.calls <= count
    assert answer.usage.completion_tokens > count


async def test_a_wild_model_takes_several_calls_to_a_permutation(backend: VLLMBackend) -> None:
    """Sampled at a high temperature, labels repeat: the calls go on from the partial answer until all are listed."""
    prompt = ask_to_rank(20, "order", temperature=1.8)
    answer = await backend.generate(prompt)
    assert sorted(listed(answer, "order")) == sorted(prompt.labels)
    assert answer.usage.calls > 1
    assert answer.usage.prompt_tokens > answer.usage.calls * 100


async def test_concurrent_prompts_are_all_answered(backend: VLLMBackend) -> None:
    """Twelve prompts at once, of all forms, on a backend that has not yet asked the server anything."""
    forms: list[AnswerFormat] = ["order", "json", "label"] * 4
    prompts = [ask_to_rank(4 + number % 3, form) for number, form in enumerate(forms)]
    answers = await asyncio.gather(*map(backend.generate, prompts))
    for prompt, answer in zip(prompts, answers, strict=True):
        if prompt.answer == "label":
            assert answer.text in prompt.labels
        else:
            assert sorted(listed(answer, prompt.answer)) == sorted(prompt.labels)


async def test_a_label_and_the_probability_of_each(backend: VLLMBackend) -> None:
    """One label is decoded; the labels' probabilities are normalised over them, and the likeliest one is the answer."""
    prompt = ask_to_rank(22, "label", label_logprobs=True)
    answer = await backend.generate(prompt)
    assert answer.label_logprobs is not None
    assert set(answer.label_logprobs) == set(prompt.labels)
    assert sum(map(math.exp, answer.label_logprobs.values())) == pytest.approx(1, abs=0.02)
    assert max(answer.label_logprobs, key=lambda label: answer.label_logprobs[label]) == answer.text  # type: ignore[index]  # not None, see above


async def test_unconstrained_probabilities_are_the_model_s_own(vllm_server: VLLMServer) -> None:
    """Without a constraint every label is still reported, beyond the twenty likeliest tokens, and they sum to less than 1."""
    backend = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, constrain="off", timeout_s=TIMEOUT_S))
    prompt = replace(ask_to_rank(22, "label", label_logprobs=True), max_tokens=2)
    answer = await backend.generate(prompt)
    await backend.aclose()
    assert answer.label_logprobs is not None
    assert set(answer.label_logprobs) == set(prompt.labels)
    assert sum(map(math.exp, answer.label_logprobs.values())) < 0.999


@pytest.mark.parametrize("labels", [("A", "B", "C", "D"), ("Yes", "No"), ("0", "1", "2", "3", "4")])
async def test_a_question_of_one_token_tells_every_label(vllm_server: VLLMServer, labels: tuple[str, ...]) -> None:
    """Letters, verdicts, grades, `max_tokens` 1: all finite, and the same up to a constant with and without a constraint."""
    words = f"I liked Alien and Blade Runner. Will I like Heat? Answer with one of: {', '.join(labels)}"
    prompt = Prompt((Message("user", words),), labels=labels, answer="label", label_logprobs=True, max_tokens=1)
    found: dict[str, list[float]] = {}
    constrain: Constrain
    for constrain in ("auto", "off"):
        backend = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, constrain=constrain, timeout_s=TIMEOUT_S))
        answer = await backend.generate(prompt)
        await backend.aclose()
        assert answer.label_logprobs is not None
        assert set(answer.label_logprobs) == set(labels)
        assert (answer.usage.completion_tokens, answer.notes) == (1, ())
        if constrain == "auto":
            assert answer.text in labels
        found[constrain] = [answer.label_logprobs[label] for label in labels]
        assert all(map(math.isfinite, found[constrain]))
    # A verdict's other spellings (" Yes", "yes") count where they can be decoded: a few hundredths, beside bfloat16's own.
    apart = [held - free for held, free in zip(found["auto"], found["off"], strict=True)]
    assert apart == pytest.approx([apart[0]] * len(labels), abs=SAME_LOGPROB)
    assert apart[0] > 0


async def test_the_prefix_cache_s_counters_grow(backend: VLLMBackend) -> None:
    """A prompt asked twice: the second time all but its last block is there."""
    before = await backend.prefix_cache()
    prompt = Prompt((Message("user", "A question about cats. " * 100),), labels=("A", "B"), answer="label")
    asked = [(await backend.generate(prompt)).usage for _ in range(2)]
    after = await backend.prefix_cache()
    assert before is not None
    assert after is not None
    found = after.since(before)
    assert found is not None
    assert found.queries == sum(usage.prompt_tokens for usage in asked)
    assert found.hits == sum(usage.cached_tokens for usage in asked)
    assert found.hits >= 384


def echoed(server: VLLMServer, ids: list[int], tail: int) -> float:
    """The log-likelihood of the last `tail` tokens, by another road: the completion API's ``echo``."""
    body = {"model": SERVED_AS, "prompt": ids, "max_tokens": 0, "temperature": 0, "echo": True, "logprobs": 0}
    answer = post(server, "/completions", body)
    logprobs: list[float] = answer["choices"][0]["logprobs"]["token_logprobs"][: len(ids)]
    return sum(logprobs[-tail:])


def post(server: VLLMServer, path: str, body: dict[str, Any]) -> Any:
    """Asks the server without llmrank."""
    request = urllib.request.Request(server.base_url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        return json.load(response)


async def test_scores_are_log_likelihoods(backend: VLLMBackend, vllm_server: VLLMServer) -> None:
    """Each continuation's score is what the server says of the same tokens by ``echo``; the likelier text scores higher."""
    answer = await backend.score(LIKELY)
    assert len(answer.scores) == len(LIKELY.continuations)
    root = replace(vllm_server, base_url=vllm_server.base_url.removesuffix("/v1"))
    prefix = post(root, "/tokenize", {"model": SERVED_AS, "prompt": LIKELY.prefix})["tokens"]
    for text, score in zip(LIKELY.continuations, answer.scores, strict=True):
        ids = post(root, "/tokenize", {"model": SERVED_AS, "prompt": text, "add_special_tokens": False})["tokens"]
        assert score.tokens == len(ids)
        assert score.logprob == pytest.approx(echoed(vllm_server, [*prefix, *ids], len(ids)), abs=SAME_LOGPROB)
    series, nonsense, _ = answer.scores
    assert series.logprob > nonsense.logprob + 5
    assert answer.usage.prompt_tokens == len(prefix) * 3 + sum(score.tokens for score in answer.scores)


async def test_many_continuations_and_empty_ones(backend: VLLMBackend) -> None:
    """More continuations than one request takes come back in order; an empty one is certain."""
    texts = tuple(f"Film number {number}\n" for number in range(34))
    answer = await backend.score(Prompt(prefix="Films:\n", continuations=("", *texts, "Film number 0\n")))
    assert (answer.scores[0].logprob, answer.scores[0].tokens) == (0.0, 0)
    assert len(answer.scores) == 36
    assert answer.scores[1].logprob == pytest.approx(answer.scores[35].logprob, abs=SAME_LOGPROB)
    assert answer.usage.calls == 2


async def test_the_counter_counts_what_the_server_charges(backend: VLLMBackend) -> None:
    """The count of a chat is the answer's `prompt_tokens`; the window is the one that the server was started with."""
    info = await backend.info()
    assert info.context_window == WINDOW
    assert info.counter is not None
    assert info.counter.remote
    prompt = ask_to_rank(5, "order")
    counted = await asyncio.to_thread(info.counter.count_messages, prompt.messages)
    answer = await backend.generate(replace(prompt, answer="free", max_tokens=1))
    assert counted == answer.usage.prompt_tokens
    assert await asyncio.to_thread(info.counter.count, "") == 0


async def test_a_prompt_beyond_the_window_is_told_with_the_window(backend: VLLMBackend) -> None:
    """Chats and scored texts alike."""
    long = "word " * (WINDOW + 10)
    with pytest.raises(ContextLengthError) as chat:
        await backend.generate(Prompt((Message("user", long),), labels=("A", "B"), answer="order"))
    with pytest.raises(ContextLengthError) as scored:
        await backend.score(Prompt(prefix=long, continuations=("A",)))
    assert (chat.value.window, scored.value.window) == (WINDOW, WINDOW)


async def test_an_unknown_model_is_told(vllm_server: VLLMServer) -> None:
    """The error names the model and is not one to retry."""
    backend = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, model="no-such-model", timeout_s=TIMEOUT_S))
    with pytest.raises(ModelNotFoundError, match="no-such-model") as caught:
        await backend.generate(ask_to_rank(3, "order"))
    await backend.aclose()
    assert not caught.value.retryable


async def test_a_shared_prefix_is_read_from_the_cache(backend: VLLMBackend) -> None:
    """The second of two prompts that begin alike is charged cached tokens: whole blocks of 128 on a CPU."""
    history = "\n".join(f"{number}. A film with the number {number}" for number in range(60))
    first, second = (
        Prompt((Message("user", f"{history}\n\n{ending}"),), labels=("A", "B"), answer="label") for ending in ("One?", "Two?")
    )
    await backend.generate(first)
    usage = (await backend.generate(second)).usage
    assert usage.prompt_tokens > usage.cached_tokens >= 128


async def test_a_priority_reaches_the_server(vllm_server: VLLMServer) -> None:
    """A priority is taken by vLLM 0.32 also where it schedules first come, first served; it must not disturb the answer."""
    backend = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, priority=-3, timeout_s=TIMEOUT_S))
    answer = await backend.generate(ask_to_rank(3, "label"))
    scores = (await backend.score(LIKELY)).scores
    await backend.aclose()
    assert answer.text in {"A", "B", "C"}
    assert len(scores) == 3


def test_several_event_loops_share_a_backend(vllm_server: VLLMServer) -> None:
    """Loops of different threads ask at once, each closing its own connections when it ends."""
    backend = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, timeout_s=TIMEOUT_S))
    texts: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: texts.append(asyncio.run(backend.generate(ask_to_rank(3, "label"))).text))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(texts) == 3
    assert set(texts) <= {"A", "B", "C"}


@pytest.mark.parametrize("strategy", ["listwise", "likelihood"])
def test_a_configuration_reaches_the_server(vllm_server: VLLMServer, strategy: str) -> None:
    """The whole way from a configuration to ranked items, by generating and by scoring, synchronously."""
    candidates = [Item(str(number), title) for number, title in enumerate(TITLES[:6])]
    template = "listwise/sequential" if strategy == "listwise" else "likelihood/next-line"
    config = {
        "backend": {"kind": "vllm", "base_url": vllm_server.base_url, "timeout_s": TIMEOUT_S},
        "prompt": {"template": template},
        "strategy": {"kind": strategy},
        "limits": {"deadline_s": TIMEOUT_S},
    }
    with Ranker.from_config(config) as ranker:
        ranking = ranker.rank(history=[Item("x", "Toy Story 2"), Item("y", "A Bug's Life")], candidates=candidates)
    assert ranking.status == "ok"
    assert sorted(ranking.item_ids) == [item.id for item in candidates]
    assert ranking.model == SERVED_AS
    assert ranking.usage.prompt_tokens > 0
