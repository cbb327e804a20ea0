"""Runs a flow: a generator of prompts and what answers them go in, its Ranking comes out, with what it cost and its trace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from llmrank.errors import BackendError
from llmrank.protocols import Backend, Flow
from llmrank.types import Completion, Exchange, Prompt, Ranking, Usage


async def run_flow(flow: Flow, backend: Backend, *, in_thread: bool = False) -> Ranking:
    """Asks all prompts that a flow yields at once, sends it the answers, until it returns.

    Args:
        flow: A strategy's generator.
        backend: Answers prompts; a BackendError it raises is sent to the flow as a value.
        in_thread: True steps the flow in a worker thread, for a token counter that asks a server.

    Returns:
        The flow's Ranking with `usage`, `spared`, `latency` and `trace` filled in.

    Raises:
        LLMRankError: what the flow itself raises, e.g. BudgetError.
    """
    steps: list[list[Exchange]] = []
    try:
        step = await _step(flow, None, in_thread)
        while not isinstance(step, Ranking):
            prompts: Sequence[Prompt] = step
            answers = await _ask_all(backend, prompts)
            steps.append(list(map(Exchange, prompts, answers)))
            step = await _step(flow, answers, in_thread)
    finally:
        flow.close()
    return _with_cost(step, steps)


def advance(flow: Flow, answer: Callable[[Prompt], Completion | BackendError | None]) -> Ranking | tuple[Prompt, ...]:
    """Runs a flow as far as the answers that are known reach, and closes it.

    Flows are deterministic, so one that lacked answers can be started anew when they are there: that is how files of a batch
    API, which come back hours later, are put into any strategy.

    Args:
        flow: A strategy's or a Ranker's generator, fresh.
        answer: The answer to a prompt, or None if it is not known yet.

    Returns:
        The flow's Ranking, as from `run_flow`; or the prompts, all of one step, whose answers are not known.

    Raises:
        LLMRankError: what the flow itself raises, e.g. BudgetError.
    """
    steps: list[list[Exchange]] = []
    try:
        step: Sequence[Prompt] = next(flow)
        while True:
            known = [(prompt, answer(prompt)) for prompt in step]
            missing = tuple(prompt for prompt, found in known if found is None)
            if missing:
                return missing
            exchanges = [Exchange(prompt, found) for prompt, found in known if found is not None]
            steps.append(exchanges)
            step = flow.send([exchange.answer for exchange in exchanges])
    except StopIteration as stop:
        ranking: Ranking = stop.value
        return _with_cost(ranking, steps)
    finally:
        flow.close()


def _with_cost(ranking: Ranking, steps: Sequence[Sequence[Exchange]]) -> Ranking:
    trace = tuple(exchange for step in steps for exchange in step)
    return replace(
        ranking,
        usage=sum((exchange.answer.usage for exchange in trace), Usage()),
        spared=sum((exchange.answer.spared for exchange in trace), Usage()),
        latency=sum(max(map(_seconds, step), default=0.0) for step in steps),
        trace=trace,
    )


def _seconds(exchange: Exchange) -> float:
    return exchange.answer.usage.seconds + exchange.answer.spared.seconds


async def _ask_all(backend: Backend, prompts: Sequence[Prompt]) -> list[Completion | BackendError]:
    """All answers, in order. When one prompt meets what is no answer (a missing package, a bug), the others are cancelled."""
    tasks = [asyncio.ensure_future(_ask(backend, prompt)) for prompt in prompts]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _ask(backend: Backend, prompt: Prompt) -> Completion | BackendError:
    try:
        return await (backend.score(prompt) if prompt.kind == "score" else backend.generate(prompt))
    except BackendError as error:
        return error


async def _step(flow: Flow, answers: Sequence[Completion | BackendError] | None, in_thread: bool) -> Sequence[Prompt] | Ranking:
    def advance() -> Sequence[Prompt] | Ranking:
        # StopIteration cannot leave a coroutine or a thread, so the returned Ranking is handed on as a value.
        try:
            return next(flow) if answers is None else flow.send(answers)
        except StopIteration as stop:
            ranking: Ranking = stop.value
            return ranking

    if not in_thread:
        return advance()
    stepping = asyncio.ensure_future(asyncio.to_thread(advance))
    try:
        return await asyncio.shield(stepping)
    except asyncio.CancelledError:
        await asyncio.wait([stepping])  # a generator cannot be closed while a thread is in it
        raise
