"""Flows: asked one by one, or run as far as known answers reach; what that costs and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llmrank.backends.retry import Limits, RetryBackend
from llmrank.budget import Budget
from llmrank.driver import advance, run_flow
from llmrank.errors import BackendError, RequestError, ServerError
from llmrank.evaluation.records import full_cost, usage_record
from llmrank.protocols import Flow, ModelInfo
from llmrank.ranker import Ranker
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Completion, Item, Message, Prompt, Ranking, RankRequest, Usage
from tests.unit.scripted import ScriptedBackend, shown

ITEMS = [Item(str(number), f"Film {number}") for number in range(12)]
REQUEST = RankRequest(history=ITEMS[:2], candidates=ITEMS[2:])


def two_steps(seen: list[Sequence[Completion | BackendError]]) -> Flow:
    """Asks two prompts at once, then one."""
    seen.append((yield [Prompt(messages=(Message("user", name),)) for name in ("a", "b")]))
    seen.append((yield [Prompt(messages=(Message("user", "c"),))]))
    return Ranking(())


def backwards(prompt: Prompt) -> str:
    """The labels shown, last first."""
    return " > ".join(f"[{label}]" for label in reversed(shown(prompt)))


def windows() -> Ranker:
    """Ranks in windows of four, so that each prompt depends on the answer before it."""
    return Ranker(ScriptedBackend(backwards), build_strategy({"kind": "listwise", "window": 4, "step": 2}))


def test_a_flow_stops_at_the_first_step_with_unknown_answers() -> None:
    """What is not known of one step is returned, all of it; the flow is closed and can be started anew."""
    known: dict[str, Completion] = {}

    def answer(prompt: Prompt) -> Completion | None:
        return known.get(prompt.messages[0].content)

    first = advance(two_steps([]), answer)
    assert isinstance(first, tuple)
    assert [prompt.messages[0].content for prompt in first] == ["a", "b"]
    known["b"] = Completion("two")
    second = advance(two_steps([]), answer)
    assert isinstance(second, tuple)
    assert [prompt.messages[0].content for prompt in second] == ["a"]
    known |= {"a": Completion("one"), "c": Completion("three")}
    seen: list[Sequence[Completion | BackendError]] = []
    last = advance(two_steps(seen), answer)
    assert isinstance(last, Ranking)
    assert [[each.text for each in step if isinstance(each, Completion)] for step in seen] == [["one", "two"], ["three"]]


def test_latency_is_the_slowest_prompt_of_each_step() -> None:
    """Prompts of a step are asked at once, steps one after the other; kept answers and failures count as long as they took."""
    answers: dict[str, Completion | BackendError] = {
        "a": Completion("x", usage=Usage(seconds=2.0, calls=1, prompt_tokens=5)),
        "b": Completion("y", usage=Usage(cache_hits=1), spared=Usage(seconds=3.0, calls=1, prompt_tokens=7)),
        "c": ServerError("down").retold(usage=Usage(seconds=4.0, retries=1), spared=Usage(seconds=0.5)),
    }
    ranking = advance(two_steps([]), lambda prompt: answers[prompt.messages[0].content])
    assert isinstance(ranking, Ranking)
    assert ranking.latency == 3.0 + 4.5
    assert ranking.usage == Usage(seconds=6.0, calls=1, prompt_tokens=5, cache_hits=1, retries=1)
    assert ranking.spared == Usage(seconds=3.5, calls=1, prompt_tokens=7)
    assert len(ranking.trace) == 3


async def test_known_answers_give_what_asking_gives() -> None:
    """A flow that is started anew whenever new answers are there ends as one whose prompts were asked one by one."""
    with windows() as ranker:
        live = await ranker.arank(REQUEST.history, REQUEST.candidates)
        known: dict[Prompt, Completion] = {}
        waves = 0
        while not isinstance(step := advance(ranker.flow(REQUEST, Budget.of(ModelInfo(), "m")), known.get), Ranking):
            waves += 1
            for prompt in step:
                known[prompt] = await ranker.backend.generate(prompt)
        assert waves == 4
        assert step.item_ids == live.item_ids
        assert (step.status, step.cut, step.notes, step.usage.calls) == (live.status, live.cut, live.notes, 4)
        assert live.shown == tuple(item.id for item in ITEMS[2:])


async def test_run_flow_and_advance_agree_on_cost() -> None:
    """Both drivers fill in usage, spared, latency and trace alike."""
    backend = ScriptedBackend(lambda prompt: Completion("x", usage=Usage(calls=1, seconds=1.5)))
    live = await run_flow(two_steps([]), backend)
    assert live.latency == 3.0
    assert live == advance(two_steps([]), lambda prompt: Completion("x", usage=Usage(calls=1, seconds=1.5)))


async def test_attempts_that_led_to_nothing_are_counted() -> None:
    """Calls, retries and failures together are the requests that the server got, also of prompts that failed in the end."""

    def second_time_lucky(prompt: Prompt) -> str | BackendError:
        lucky = prompt.messages[0].content == "a" and server.prompts.count(prompt) == 2
        return "x" if lucky else ServerError("500")

    server = ScriptedBackend(second_time_lucky)
    ranking = await run_flow(two_steps([]), RetryBackend(server, Limits(max_attempts=2, initial_wait_s=0)))
    failed = sum(isinstance(exchange.answer, ServerError) for exchange in ranking.trace)
    assert (failed, ranking.usage.calls, ranking.usage.retries) == (2, 1, 3)
    assert len(server.prompts) == ranking.usage.calls + ranking.usage.retries + failed
    assert usage_record(full_cost(ranking))["retries"] == 3


def test_a_flow_refuses_what_rank_refuses() -> None:
    """A request that cannot be ranked raises the same error from a flow."""
    with windows() as ranker, pytest.raises(RequestError, match="candidates"):
        advance(ranker.flow(RankRequest(candidates=[]), Budget.of(ModelInfo(), "m")), lambda prompt: None)
