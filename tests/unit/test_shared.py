"""What is asked for every request is asked once: the answers that a Ranker keeps in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmrank.backends.cache import HIT, CachedBackend
from llmrank.backends.guard import guard
from llmrank.backends.shared import SharedBackend
from llmrank.cache import AnswerCache
from llmrank.errors import ServerError
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Completion, ContinuationScore, Item, Message, Prompt, RankRequest, Usage
from tests.unit.scripted import ScriptedBackend

ANSWER = Completion("A", "stop", Usage(prompt_tokens=100, completion_tokens=1, calls=1, seconds=2.0), model="m")


def prompt(text: str = "hello", **others: Any) -> Prompt:
    """A chat that is the same for every request."""
    return Prompt(**{"messages": (Message("user", text),), "shared": True, **others})


async def test_a_shared_prompt_is_asked_once() -> None:
    """The second answer is the first one in all but its cost, as from the answer cache; ids and fingerprint do not matter."""
    server = ScriptedBackend(lambda prompt: ANSWER)
    backend = SharedBackend(server)
    assert await backend.generate(prompt(item_ids=("1",))) == ANSWER
    assert await backend.generate(prompt(fingerprint="f")) == replace(ANSWER, usage=HIT, spared=ANSWER.usage)
    assert len(server.prompts) == 1


async def test_other_prompts_are_asked_each_time() -> None:
    """What is not shared is passed on; the answer that is kept for an equal shared prompt is not looked for."""
    server = ScriptedBackend(lambda prompt: ANSWER)
    backend = SharedBackend(server)
    await backend.generate(prompt())
    for _ in range(2):
        assert await backend.generate(prompt(shared=False)) == ANSWER
    assert len(server.prompts) == 3


async def test_scores_are_kept_too() -> None:
    """Likelihoods without a history are shared as well; they are found by the prefix and the text."""
    server = ScriptedBackend(loglik=lambda prefix, text: -float(len(text)))
    backend = SharedBackend(server)
    first = await backend.score(Prompt(prefix="Films:\n", continuations=("Alien\n",), shared=True))
    again = await backend.score(Prompt(prefix="Films:\n", continuations=("Alien\n",), shared=True))
    other = await backend.score(Prompt(prefix="Films:\n", continuations=("Babe\n",), shared=True))
    assert (again.scores, again.usage, again.spared) == (first.scores, HIT, first.usage)
    assert other.scores == (ContinuationScore(-5.0, 1),)


async def test_those_who_ask_at_once_wait_for_one() -> None:
    """Of 50 rankings that begin together one asks and pays, and 49 are hits."""
    server = ScriptedBackend(lambda prompt: ANSWER, delay=0.01)
    backend = SharedBackend(server)
    answers = await asyncio.gather(*[backend.generate(prompt()) for _ in range(50)])
    assert len(server.prompts) == 1
    assert sum((answer.usage for answer in answers), Usage()) == ANSWER.usage + Usage(cache_hits=49)


@pytest.mark.parametrize("first", [ServerError("500"), Completion(None, "length"), Completion(" ")])
async def test_what_says_nothing_is_not_kept(first: Completion | ServerError) -> None:
    """After an error or an empty answer the backend is asked again."""
    script: Iterator[Any] = iter([first, ANSWER])
    backend = SharedBackend(ScriptedBackend(lambda prompt: next(script)))
    if isinstance(first, ServerError):
        with pytest.raises(ServerError):
            await backend.generate(prompt())
    else:
        assert await backend.generate(prompt()) == first
    assert await backend.generate(prompt()) == ANSWER
    assert (await backend.generate(prompt())).usage == HIT


async def test_what_was_not_asked_for_longest_goes_first() -> None:
    """With room for two, the third answer takes the place of the one that was not looked at since."""
    server = ScriptedBackend(lambda prompt: ANSWER)
    backend = SharedBackend(server, most=2)
    for text in ("a", "b", "a", "c", "a"):
        await backend.generate(prompt(text))
    assert len(server.prompts) == 3
    assert (await backend.generate(prompt("b"))).usage == ANSWER.usage


async def test_the_guard_keeps_shared_answers_with_and_without_a_cache(tmp_path: Path) -> None:
    """Around a bare backend they are kept in memory; with an answer cache, there; either way at the same cost."""
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        for kept in (None, cache):
            server = ScriptedBackend(lambda prompt: ANSWER)
            backend = guard(server, cache=kept)
            await backend.generate(prompt())
            second = await backend.generate(prompt())
            assert (second.usage, second.spared.calls, len(server.prompts)) == (HIT, 1, 1)


async def test_a_second_cache_in_front_knows_what_was_spared(tmp_path: Path) -> None:
    """A run's own cache in front of kept answers passes on what they had cost, for scores as for chats."""
    with closing(AnswerCache(tmp_path / "answers.sqlite")) as cache:
        inner = SharedBackend(ScriptedBackend(lambda prompt: ANSWER, loglik=lambda prefix, text: -1.0))
        question = Prompt(prefix="Films:\n", continuations=("Alien\n",), shared=True)
        await inner.score(question)
        front = CachedBackend(inner, cache)
        first, second = await front.score(question), await front.score(question)
        assert (first.usage, first.spared) == (HIT, Usage(prompt_tokens=50, calls=1))
        assert (second.usage, second.spared) == (HIT, Usage(prompt_tokens=50, calls=1))


async def test_unconditional_likelihoods_are_asked_once_a_ranker() -> None:
    """With `pmi_weight` and no cache, a second user's ranking costs one new score: the titles' own likelihoods are kept."""
    from llmrank.ranker import Ranker

    server = ScriptedBackend(loglik=lambda prefix, text: -float(len(text)))
    items = [Item("1", "Alien"), Item("2", "Babe"), Item("3", "Clue")]
    async with Ranker(server, build_strategy({"kind": "likelihood", "pmi_weight": 0.5})) as ranker:
        rankings = [
            each async for each in ranker.arank_many([RankRequest([Item("h", title)], items) for title in ("Heat", "Jaws")])
        ]
    assert sum(each.usage.calls for each in rankings) == 3 + 2
    assert sum(each.usage.cache_hits for each in rankings) == 3
