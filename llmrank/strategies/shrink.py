"""Asking again, smaller: a way to rank within a budget goes in; its Ranking comes out, by a smaller budget if need be.

A server knows its window and its tokens better than any count made here. When it finds a prompt too long, the ranking starts
anew with a smaller budget, so that what has to go is chosen by the same rules as ever (`Budget.fit`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

from llmrank.budget import Budget
from llmrank.errors import BackendError, ContextLengthError
from llmrank.types import Completion, Prompt, Ranking

T = TypeVar("T")
Flowing: TypeAlias = Generator[Sequence[Prompt], Sequence[Completion | BackendError], T]
"""A part of a flow that ends with a T."""

SHRINKS = 4
"""How often a budget is made smaller: four times to three quarters leaves a third of it."""


class TooLong(Exception):  # noqa: N818  # not an error of ours: it ends an attempt, and the next one is smaller
    """The server found a prompt too long; an attempt raises it."""

    def __init__(self, error: ContextLengthError) -> None:
        super().__init__(str(error))
        self.error = error


def shrinking(
    attempt: Callable[[Budget], Flowing[Ranking]], budget: Budget, give_up: Callable[[ContextLengthError], Ranking]
) -> Flowing[Ranking]:
    """Attempts a ranking, and again with a smaller budget each time that the server finds a prompt too long.

    Args:
        attempt: Ranks within a budget, or raises TooLong.
        budget: The first one.
        give_up: The Ranking for a server that finds even the smallest attempt too long.

    Returns:
        A flow that ends with the Ranking; a note on it names the window that was taken in the end, if not the first.
    """
    first = budget
    for shrinks_left in reversed(range(1 + SHRINKS)):
        try:
            ranking = yield from attempt(budget)
        except TooLong as too_long:
            if not shrinks_left:
                return give_up(too_long.error)
            budget = _smaller(budget, too_long.error)
        else:
            if budget is first:
                return ranking
            note = f"the server found a prompt for a window of {first.window} tokens too long; asked again for {budget.window}"
            return replace(ranking, notes=(*ranking.notes, note))
    raise AssertionError("the last turn of the loop returns")


def _smaller(budget: Budget, error: ContextLengthError) -> Budget:
    """The window that the server named, if it is smaller than the one thought of, else three quarters of that."""
    window = budget.window * 3 // 4
    if error.window is not None and error.window < budget.window:
        window = error.window
    return replace(budget, window=window, assumed=False)
