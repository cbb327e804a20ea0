"""Prompts that want to ask go in, as many at a time come through as the limit and the server allow, none during a pause."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmrank.backends._per_loop import PerLoop
from llmrank.errors import ConfigError


class Gate:
    """The concurrency limit of one backend, and what its server said of being asked too much.

    A server that refuses (429) halves the limit, once for all that were in flight together; each answer widens it again by a
    part, so that about as many answers as there are slots add one, up to `max_concurrency`. This is TCP's additive increase,
    multiplicative decrease (Chiu and Jain, 1989; RFC 5681): under a rate limit far below `max_concurrency`, prompts queue here
    instead of using up their attempts on refusals.

    All is kept for each event loop: a program that uses one backend from two loops at once has twice the slots.

    Args:
        max_concurrency: How many prompts may be at the backend at once; None for no limit of our own.

    Raises:
        ConfigError: `max_concurrency` is less than 1.
    """

    def __init__(self, max_concurrency: int | None = None) -> None:
        if max_concurrency is not None and max_concurrency < 1:
            raise ConfigError(
                "must be at least 1", field="backend.max_concurrency", value=max_concurrency, fix="leave it out for the default"
            )
        self.max_concurrency = max_concurrency
        self._slots = PerLoop(lambda: _Slots(math.inf if max_concurrency is None else max_concurrency))

    @asynccontextmanager
    async def slot(self, *, first: bool = False) -> AsyncIterator[None]:
        """Waits for a free slot and holds it: first come first served, but those who come with `first` before all others."""
        slots = self._slots.get()
        await slots.acquire(first=first)
        try:
            yield
        finally:
            slots.release()

    def pause(self, seconds: float) -> None:
        """Lets nobody start for the next `seconds`; never shortens a longer pause."""
        slots = self._slots.get()
        slots.paused_until = max(slots.paused_until, _now() + seconds)

    @property
    def cooldown(self) -> float:
        """How many seconds of the pause are left."""
        return max(0.0, self._slots.get().paused_until - _now())

    def narrow(self, asked_at: float) -> None:
        """Halves the number of slots, unless that was done since `asked_at`, in the loop's time."""
        slots = self._slots.get()
        if asked_at >= slots.narrowed_at:
            slots.limit = max(1.0, min(slots.limit, slots.in_use) / 2)
            slots.narrowed_at = _now()

    def widen(self) -> None:
        """Takes note of an answer: one more slot after as many answers as there are slots."""
        slots = self._slots.get()
        slots.limit = min(slots.most, slots.limit + 1 / slots.limit)


class _Slots:
    """What a gate keeps for one event loop: a semaphore whose size changes. Times are the loop's own."""

    def __init__(self, most: float) -> None:
        self.most = self.limit = most
        self.in_use = 0
        self.paused_until = 0.0
        self.narrowed_at = -math.inf
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def acquire(self, *, first: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if first:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the slot was given just before the cancellation came
                self.release()
            raise

    def release(self) -> None:
        self.in_use -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.in_use + 1 <= self.limit:
            turn = self._waiting.popleft()
            if not turn.cancelled():  # those who do not wait any more are passed over
                self.in_use += 1
                turn.set_result(None)


def _now() -> float:
    return asyncio.get_running_loop().time()
