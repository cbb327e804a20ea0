"""Runs a flow: a generator of prompts and a backend go in, the Ranking it returns comes out, with usage and trace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
        The flow's Ranking with `usage` and `trace` filled in.

    Raises:
        LLMRankError: what the flow itself raises, e.g. BudgetError.
    """
    trace: list[Exchange] = []
    try:
        step = await _step(flow, None, in_thread)
        while not isinstance(step, Ranking):
            prompts: Sequence[Prompt] = step
            answers = await _ask_all(backend, prompts)
            trace.extend(map(Exchange, prompts, answers))
            step = await _step(flow, answers, in_thread)
    finally:
        flow.close()
    usage = sum((each.answer.usage for each in trace if isinstance(each.answer, Completion)), Usage())
    return replace(step, usage=usage, trace=tuple(trace))


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
