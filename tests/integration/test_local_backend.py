"""The embedded backend with its real model: exact scores, enforced answers, clean ends."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmrank.backends import _llama
from llmrank.backends._llama import Llama
from llmrank.backends.local import LocalBackend, LocalOptions
from llmrank.errors import BackendError, ContextLengthError, SetupError
from llmrank.types import AnswerFormat, Message, Prompt

pytestmark = pytest.mark.local

PREFIX = "Movies I have watched recently, in order:\nAlien (1979) - Horror\nBlade Runner (1982) - Sci-Fi\n"
FILMS = (
    "Aliens (1986) - Action, Sci-Fi\n",
    "Babe (1995) - Comedy\n",
    "Les Misérables (1995) - Drama\n",
    "Á köldum klaka (1994) - Drama\n",
    "東京物語 (1953)\n",
    "Heat (1995) - Crime\n",
    "It\n",
    "The Remarkably Long Title of a Film That Goes On (1990) - Comedy, Drama\n",
    "Up (2009)\n",
    "M (1931) - Crime, Thriller\n",
)


@pytest.fixture(scope="module")
def backend(weights: Path) -> Iterator[LocalBackend]:
    """One model for all tests: loading takes half a second."""
    backend = LocalBackend(LocalOptions(model=str(weights), context_window=1024, slots=4))
    yield backend
    asyncio.run(backend.aclose())


def engine(backend: LocalBackend) -> Llama:
    """The loaded engine inside."""
    return backend._loaded()


def chat(text: str, **fields: object) -> Prompt:
    """A prompt of one user message."""
    return Prompt(messages=(Message("user", text),), **fields)  # type: ignore[arg-type]  # fields of Prompt


async def test_scores_do_not_depend_on_what_is_scored_beside(backend: LocalBackend) -> None:
    """Of ten films side by side, each scores as it does alone: the copied prefix is the prefix."""
    together = await backend.score(Prompt(prefix=PREFIX, continuations=FILMS))
    assert [score.tokens for score in together.scores] == [len(engine(backend).tokenize(film)) for film in FILMS]
    for film, score in list(zip(FILMS, together.scores, strict=True))[1::3]:
        alone = await backend.score(Prompt(prefix=PREFIX, continuations=(film,)))
        assert score.logprob == pytest.approx(alone.scores[0].logprob, abs=0.02 * score.tokens)
    assert together.usage.prompt_tokens == len(engine(backend).tokenize(PREFIX)) + sum(each.tokens for each in together.scores)


async def test_a_score_is_the_sum_over_its_tokens(backend: LocalBackend) -> None:
    """The chain rule, with values that the server reports in another way: a greedy text with its own log-probabilities."""
    llama = engine(backend)
    prefix = llama.tokenize(PREFIX)
    request = {"prompt": list(prefix), "max_tokens": 12, "temperature": 0.0, "n_probs": 1, "id_slot": 0}
    content = llama._server.handle_completions(request)["choices"][0]["logprobs"]["content"]
    tokens = [entry["id"] for entry in content]
    scored = llama.score(prefix, [tokens], cancelled=asyncio.Event())  # type: ignore[arg-type]  # only is_set() is asked
    assert scored.logprobs[0] == pytest.approx(sum(entry["logprob"] for entry in content), abs=0.02 * len(tokens))


async def test_probabilities_of_the_next_token_sum_to_one(backend: LocalBackend) -> None:
    """Of the most likely 200 tokens, nearly: they are probabilities over the whole vocabulary, not over a choice."""
    llama = engine(backend)
    prompt = llama.tokenize(PREFIX)
    answer = llama._complete(prompt, slot=0, temperature=0.0, n_probs=200)
    top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    assert 0.8 < sum(math.exp(each["logprob"]) for each in top) <= 1.0001
    # Forcing reports the same values, for likely and for unlikely tokens.
    for each in (top[0], top[7], top[199]):
        assert llama._forced(prompt, each["id"], slot=0) == pytest.approx(each["logprob"], abs=0.02)


async def test_tokens_that_end_inside_a_character_are_scored_too(backend: LocalBackend) -> None:
    """The server reports no log-probability for them. The way around it gives the known values for tokens that have one."""
    llama = engine(backend)
    prompt = llama.tokenize(PREFIX)
    for text in ("The", "zzz", " k", "1"):
        token = llama.tokenize(text)[0]
        assert llama._unspoken(prompt, token, slot=0) == pytest.approx(llama._forced(prompt, token, slot=0), abs=0.02)
    half = llama.tokenize("Á")
    assert len(half) == 2
    assert -30 < llama._forced(prompt, half[0], slot=0) < 0


async def test_likely_texts_score_higher(backend: LocalBackend) -> None:
    """A sanity check of the whole: a film after films, not a shopping list; nothing at all scores 0."""
    answer = await backend.score(Prompt(prefix=PREFIX, continuations=("Aliens (1986) - Sci-Fi\n", "xq 7 ducks // zz\n", "")))
    film, noise, empty = answer.scores
    assert film.logprob / film.tokens > noise.logprob / noise.tokens + 1
    assert (empty.logprob, empty.tokens) == (0.0, 0)


async def test_without_a_prefix_a_line_break_stands_for_it(backend: LocalBackend) -> None:
    """A model needs a token to start from."""
    empty, line_break = [await backend.score(Prompt(prefix=prefix, continuations=FILMS[:2])) for prefix in ("", "\n")]
    assert empty.scores == line_break.scores


async def test_a_repeated_prefix_comes_from_memory(backend: LocalBackend) -> None:
    """What was computed for the last prompt is not computed again, and usage says so."""
    await backend.score(Prompt(prefix=PREFIX, continuations=FILMS[:2]))
    again = await backend.score(Prompt(prefix=PREFIX, continuations=FILMS[:2]))
    assert again.usage.cached_tokens >= len(engine(backend).tokenize(PREFIX)) - 1


@pytest.mark.parametrize("answer", ["order", "json"])
@pytest.mark.parametrize("count", [1, 3, 12])
async def test_lists_are_permutations(answer: AnswerFormat, count: int, backend: LocalBackend) -> None:
    """Each label once, in the very form asked for, also when there are too many for one grammar."""
    labels = tuple("ABCDEFGHIJKLMNOPQRST"[:count])
    completion = await backend.generate(
        chat("Rank these letters by beauty: " + ", ".join(labels), labels=labels, answer=answer, temperature=1.0, seed=3)
    )
    text = completion.text or ""
    listed = json.loads(text)["ranking"] if answer == "json" else [part.strip("[]") for part in text.split(" > ")]
    assert sorted(listed) == sorted(labels)
    assert completion.finish_reason == "stop"
    if answer == "order":
        assert text == " > ".join(f"[{label}]" for label in listed)


async def test_a_list_that_is_cut_off_says_so(backend: LocalBackend) -> None:
    """`max_tokens` holds over all calls of one list."""
    labels = tuple("ABCDEFGHIJKL")
    completion = await backend.generate(chat("Rank them.", labels=labels, answer="order", max_tokens=12))
    assert completion.finish_reason == "length"
    assert completion.usage.completion_tokens <= 12


async def test_a_label_is_one_of_the_labels(backend: LocalBackend) -> None:
    """And, decoded greedily, the most likely one."""
    labels = ("A", "B", "C", "D")
    completion = await backend.generate(chat("Which letter do you like?", labels=labels, answer="label", label_logprobs=True))
    assert completion.label_logprobs is not None
    assert set(completion.label_logprobs) == set(labels)
    assert completion.text == max(labels, key=completion.label_logprobs.__getitem__)


async def test_label_logprobs_are_those_of_the_next_token(backend: LocalBackend) -> None:
    """The same as scoring each label's token after the chat; a label of two tokens has none, and a note says so."""
    prompt = chat("Which do you like?", labels=("A", "B", "Z", "10"), label_logprobs=True, max_tokens=1)
    completion = await backend.generate(prompt)
    llama = engine(backend)
    ids = llama.chat_tokens(prompt.messages)
    assert completion.label_logprobs is not None
    assert set(completion.label_logprobs) == {"A", "B", "Z"}
    for label, logprob in completion.label_logprobs.items():
        assert logprob == pytest.approx(llama._forced(ids, llama.tokenize(label)[0], slot=0), abs=0.02)
    assert completion.notes == ("no log-probability for labels of several tokens: 10",)


@pytest.mark.parametrize("likeliest", [_llama.LIKELIEST, 1])
async def test_label_logprobs_are_exact_in_one_call_and_in_two(
    likeliest: int, backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters, digits and words; all among the likeliest tokens, or most of them beyond: the values are the same."""
    llama = engine(backend)
    calls: list[object] = []
    most = 0
    complete = llama._complete

    def counted(*args: Any, **fields: Any) -> dict[str, Any]:
        calls.append(fields)
        return complete(*args, **fields)

    monkeypatch.setattr(llama, "_complete", counted)
    monkeypatch.setattr(_llama, "LIKELIEST", likeliest)
    for labels in (("A", "B", "C", "D", "E", "F"), ("Yes", "No"), ("0", "1", "2", "3", "4")):
        prompt = chat(f"Which one do you like? {', '.join(labels)}", labels=labels, answer="label", label_logprobs=True)
        calls.clear()
        completion = await backend.generate(prompt)
        most = max(most, len(calls))
        assert completion.label_logprobs is not None
        assert completion.label_logprobs.keys() == set(labels)
        assert completion.text == max(labels, key=completion.label_logprobs.__getitem__)
        ids = llama.chat_tokens(prompt.messages)
        for label, logprob in completion.label_logprobs.items():
            assert logprob == pytest.approx(llama._forced(ids, llama.tokenize(label)[0], slot=0), abs=0.02)
    assert most == (1 if likeliest > 1 else 2)


async def test_a_greedy_label_with_its_probabilities_is_the_label_decoded(backend: LocalBackend) -> None:
    """The answer costs one token, and is the one that decoding gives where no probabilities are asked for."""
    prompt = chat("Which film is older, [A] Heat (1995) or [B] Alien (1979)?", labels=("A", "B"), answer="label")
    decoded = await backend.generate(prompt)
    read = await backend.generate(replace(prompt, label_logprobs=True))
    assert (read.text, read.finish_reason) == (decoded.text, decoded.finish_reason)
    assert (read.usage.completion_tokens, read.usage.calls) == (1, 1)
    assert read.usage.prompt_tokens == decoded.usage.prompt_tokens


@pytest.mark.parametrize("answer", ["label", "order"])
async def test_label_prompts_report_the_prefix_that_they_share(answer: AnswerFormat, backend: LocalBackend) -> None:
    """What the prompt before had in common, less at most what a token boundary takes; never the own computation before."""
    await backend.generate(chat("Something else altogether."))
    questions = [
        chat(f"{PREFIX * 3}Which is better, {pair}?", labels=("A", "B"), answer=answer, label_logprobs=True)
        for pair in FILMS[:3]
    ]
    ids = [engine(backend).chat_tokens(prompt.messages) for prompt in questions]
    usages = [(await backend.generate(prompt)).usage for prompt in questions]
    assert usages[0].cached_tokens < 30  # the chat template's own start
    for (before, now), usage in zip(pairwise(ids), usages[1:], strict=True):
        shared = next(place for place, (one, other) in enumerate(zip(before, now, strict=False)) if one != other)
        assert usage.cached_tokens == shared


async def test_counting_is_exact(backend: LocalBackend) -> None:
    """The server counts the same tokens for a chat; texts are not read as special tokens."""
    info = await backend.info()
    assert info.context_window == 1024
    assert info.counter is not None
    assert not info.counter.remote
    prompt = chat("Say hello.", max_tokens=3)
    completion = await backend.generate(prompt)
    assert info.counter.count_messages(prompt.messages) == completion.usage.prompt_tokens
    assert info.counter.count("") == 0
    assert info.counter.count("<|im_end|>") > 1
    assert info.counter.count(PREFIX) == len(engine(backend).tokenize(PREFIX))


async def test_greedy_answers_repeat_and_seeds_matter(backend: LocalBackend) -> None:
    """Temperature 0 gives one text; at 1.5 a seed gives its own."""
    story = "Tell me a story."
    greedy = [(await backend.generate(chat(story, max_tokens=12))).text for _ in range(2)]
    assert greedy[0] == greedy[1]
    seeded = [(await backend.generate(chat(story, max_tokens=12, temperature=1.5, seed=seed))).text for seed in (1, 1, 2)]
    assert seeded[0] == seeded[1] != seeded[2]


async def test_a_prompt_that_is_too_long_tells_the_window(backend: LocalBackend) -> None:
    """For chats and for scoring, before anything is computed."""
    for ask in (backend.generate(chat("word " * 1200)), backend.score(Prompt(prefix="word " * 1200, continuations=("x",)))):
        with pytest.raises(ContextLengthError) as caught:
            await ask
        assert caught.value.window == 1024


async def test_max_tokens_beyond_the_window_are_cut(weights: Path) -> None:
    """The answer may fill what is left, no more; nothing raises."""
    backend = LocalBackend(LocalOptions(model=str(weights), context_window=256, slots=1))
    labels = ("A", "B", "C", "D", "E", "F")  # a list of them is enforced, so that the model cannot end early
    completion = await backend.generate(chat("word " * 215, labels=labels, answer="order", max_tokens=500))
    await backend.aclose()
    assert completion.usage.prompt_tokens + completion.usage.completion_tokens == 256
    assert completion.finish_reason == "length"


async def test_a_cancelled_prompt_leaves_the_engine_ready(backend: LocalBackend) -> None:
    """It ends at the next token, and the next answer is the one it would have been."""
    before = await backend.score(Prompt(prefix=PREFIX, continuations=FILMS[:3]))
    for prompt in (chat("Write a long story.", max_tokens=900), Prompt(prefix=PREFIX, continuations=FILMS * 5)):
        task = asyncio.create_task(backend.score(prompt) if prompt.kind == "score" else backend.generate(prompt))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    after = await backend.score(Prompt(prefix=PREFIX, continuations=FILMS[:3]))
    for one, other in zip(before.scores, after.scores, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=0.02 * one.tokens)


async def test_closing_ends_what_runs_and_may_be_done_twice(weights: Path) -> None:
    """A long generation does not hold the program back, and its caller gets an error."""
    backend = LocalBackend(LocalOptions(model=str(weights), context_window=1024, slots=1))
    await backend.info()
    running = asyncio.create_task(backend.generate(chat("Write a long story.", max_tokens=1000)))
    await asyncio.sleep(0.3)
    start = time.perf_counter()
    await asyncio.gather(backend.aclose(), backend.aclose())
    assert time.perf_counter() - start < 5
    with pytest.raises(BackendError, match="closed"):
        await running


async def test_a_corrupt_file_gives_one_line(weights: Path, tmp_path: Path) -> None:
    """Cut off in the middle, or no GGUF at all."""
    corrupt = tmp_path / "corrupt.gguf"
    with weights.open("rb") as whole:
        start = whole.read(100_000)
    for content in (start, b"no model"):
        corrupt.write_bytes(content)
        backend = LocalBackend(LocalOptions(model=str(corrupt)))
        with pytest.raises(SetupError, match=r"corrupt\.gguf cannot be loaded"):
            await backend.info()
        await backend.aclose()


def test_nothing_of_the_engine_reaches_the_terminal(weights: Path) -> None:
    """Neither its log nor its errors, on stdout or stderr; and a program that forgets to close ends all the same."""
    code = (
        "import asyncio, sys; from llmrank.backends.local import *; from llmrank.types import *; "
        "backend = LocalBackend(LocalOptions(model=sys.argv[1], context_window=512, slots=2)); "
        "asyncio.run(backend.score(Prompt(prefix='a b c', continuations=('d', 'e'))))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(weights)], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


async def test_identity_tells_models_apart(backend: LocalBackend, weights: Path, tmp_path: Path) -> None:
    """The answer cache's key changes with the weights, not with their name or place."""
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(b"another model")
    other = LocalBackend(LocalOptions(model=str(copy)))
    assert backend.identity["weights"] != other.identity["weights"]
    assert json.loads(json.dumps(backend.identity)) == backend.identity
    await other.aclose()
