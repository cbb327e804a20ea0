"""Candidates that are shown each in a prompt of its own: a request goes in, prompts with one history come out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llmrank.types import Item, ResolvedRequest
from llmrank.writer import Written


def write_alone(
    request: ResolvedRequest, history: int, write: Callable[[ResolvedRequest, Item], Written]
) -> tuple[Written, ...]:
    """All prompts with one history: probabilities after different ones could not be compared, nor share a prefix.

    Args:
        request: Whose candidates are shown.
        history: How many of the most recent events are shown, at most (`PromptOptions.history`).
        write: Writes the prompt of one candidate, with as much of the history as fits beside it.

    Returns:
        One prompt a candidate, in their order, with as much of the history as fits beside the longest of them.

    Raises:
        BudgetError: a prompt cannot be made to fit.
    """
    written = tuple(write(request, item) for item in request.candidates)
    least = max(written, key=lambda each: each.cut.history).cut
    if all(each.cut.history == least.history for each in written):
        return written
    kept = min(len(request.history), history) - least.history
    shorter = replace(request, history=request.history[len(request.history) - kept :])
    anew = (write(shorter, item) for item in request.candidates)
    return tuple(
        replace(each, cut=replace(each.cut, history=least.history, assumed_window=least.assumed_window)) for each in anew
    )
