"""How many questions a strategy puts for a list of n candidates: bounds that hold for every model."""

from __future__ import annotations

from dataclasses import dataclass

from llmrank.errors import RequestError


@dataclass(frozen=True, slots=True)
class Calls:
    """The fewest and the most prompts for one ranking.

    They hold where the prompts fit the model's window as planned; retries of the backend, and calls that it makes for one
    prompt, are not counted.
    """

    least: int
    most: int

    def __add__(self, other: Calls) -> Calls:
        return Calls(self.least + other.least, self.most + other.most)

    def __mul__(self, times: int) -> Calls:
        return Calls(self.least * times, self.most * times)


def depth(count: int, k: int | None, top_k: int | None) -> int:
    """How many first places have to be right.

    Args:
        count: How many candidates there are.
        k: The strategy's own option; None for what the request wants.
        top_k: What the request wants; None for all.

    Returns:
        From 1 to `count`.
    """
    wanted = k if k is not None else top_k
    return count if wanted is None else min(count, max(1, wanted))


def refuse_too_many(calls: Calls, allowed: int | None, count: int, *, sorts: bool = False) -> None:
    """Refuses a ranking that may take more prompts than `strategy.max_calls` allows.

    Args:
        calls: What it may take.
        allowed: What is allowed; None for no bound.
        count: How many candidates there are.
        sorts: True if fewer places take fewer prompts (`strategy.k`).

    Raises:
        RequestError: it may take more.
    """
    if allowed is not None and calls.most > allowed:
        fewer = "ask for fewer places (strategy.k), " if sorts else ""
        raise RequestError(
            f"{count:,} candidates may take {calls.most:,} prompts, and {allowed:,} are allowed",
            field="strategy.max_calls",
            fix=f"shorten the list first (prefilter.keep), {fewer}or allow more (null for no bound)",
        )
