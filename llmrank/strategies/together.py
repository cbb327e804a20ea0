"""Several parts of a flow go in, one part that runs them side by side comes out: what each asks next is asked in one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from llmrank.strategies.shrink import Flowing
from llmrank.types import Prompt

T = TypeVar("T")


def together(flows: Sequence[Flowing[T]]) -> Flowing[list[T]]:
    """Runs parts of a flow in lockstep until all have ended.

    Args:
        flows: Fresh generators that do not wait for each other.

    Returns:
        What each returned, in the same order. One that raises closes the others.
    """
    results: dict[int, T] = {}
    waiting: dict[int, Sequence[Prompt]] = {}

    def advance(number: int, answers: object) -> None:
        flow = flows[number]
        try:
            waiting[number] = next(flow) if answers is None else flow.send(answers)  # type: ignore[arg-type]  # a slice of what was sent
        except StopIteration as stop:
            waiting.pop(number, None)
            results[number] = stop.value

    try:
        for number in range(len(flows)):
            advance(number, None)
        while waiting:
            asked = list(waiting.items())
            answers = yield [prompt for _, prompts in asked for prompt in prompts]
            start = 0
            for number, prompts in asked:
                end = start + len(prompts)
                advance(number, answers[start:end])
                start = end
    finally:
        for flow in flows:
            flow.close()
    return [results[number] for number in range(len(flows))]
