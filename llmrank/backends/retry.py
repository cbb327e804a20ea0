"""A prompt goes in; its answer comes out after as many attempts as it takes and the limits allow, or the reason why not."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_exponential

from llmrank.backends.limit import Gate
from llmrank.backends.wrapper import Ask, BackendWrapper
from llmrank.errors import BackendError, ConfigError, DeadlineError, RateLimitError
from llmrank.protocols import Backend, ModelInfo
from llmrank.types import Completion, Prompt, Usage

T = TypeVar("T")

# A generator of its own: a program that seeds `random` gets the same numbers with retries and without.
_random = random.Random()  # noqa: S311 - jitter, not secrets


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to try.

    Args:
        max_attempts: How often one prompt is asked at most.
        deadline_s: The seconds that one prompt may take over all its attempts and the waits between them; an attempt in
            flight is cancelled then. Waiting for a turn does not count, be it for a free slot of our own or for the end of a
            pause that the server asked of another prompt: a batch of thousands queues for hours before its last prompt starts,
            and must not be lost to the one that was refused. None for no deadline.
        initial_wait_s: The longest wait before the second attempt; it doubles with each further one.
        max_wait_s: The longest wait before any attempt, unless the server names a longer one.
        jitter: Waits a random part of that time instead of all of it, so that prompts that failed together do not come
            back together ("full jitter": Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015).

    Raises:
        ConfigError: a number is out of range.
    """

    max_attempts: int = 6
    deadline_s: float | None = 60.0
    initial_wait_s: float = 0.5
    max_wait_s: float = 20.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError("must be at least 1", field="limits.max_attempts", value=self.max_attempts, fix="1 never retries")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(
                "must be more than 0", field="limits.deadline_s", value=self.deadline_s, fix="null sets no deadline"
            )
        for name in ("initial_wait_s", "max_wait_s"):
            seconds = getattr(self, name)
            if not 0 <= seconds < math.inf:
                raise ConfigError("must be 0 or more seconds", field=f"limits.{name}", value=seconds)


class RetryBackend(BackendWrapper):
    """Asks again after errors whose class says that it may help (`retryable`), within the limits, through a gate.

    A slot of the gate is held during an attempt, not during the wait before the next one. When a server names a time to wait
    (429 or 503 with Retry-After), the gate is closed for all prompts of this backend, so that not each of them finds out by
    itself; after a 429 it lets fewer through at a time. The prompt that was told gives up if that wait does not fit into the
    time it has left; for the others it is a longer queue.

    `Usage.retries` and `Usage.seconds` of answers and errors are filled in here; `seconds` counts attempts and the waits
    between them, not the queueing for a slot and for the end of a pause.

    Args:
        inner: The backend to ask.
        limits: How long to try.
        gate: How many prompts may be there at once; None sets no limit.
    """

    def __init__(self, inner: Backend, limits: Limits | None = None, gate: Gate | None = None) -> None:
        super().__init__(inner)
        self._limits = limits or Limits()
        self._gate = gate or Gate()

    async def info(self) -> ModelInfo:
        """What the inner backend knows of its model; retried like a prompt, but without queueing for a slot."""
        return await _Call(self._inner.info, self._limits, Gate()).result()

    async def around(self, prompt: Prompt, ask: Ask) -> Completion:
        """Answers `prompt`.

        Raises:
            DeadlineError: the time is used up, or would be by the wait that the server asks for; `__cause__` is the last error.
            BackendError: the last attempt's own error, when it is not worth retrying or the attempts are used up; in the
                latter case its message ends with their number. As of every error here, `usage` is what it took.
        """
        call = _Call(lambda: ask(prompt), self._limits, self._gate)
        completion = await call.result()
        return replace(completion, usage=call.cost(completion.usage))


def _may_help(error: BaseException) -> bool:
    return isinstance(error, BackendError) and error.retryable


class _Call(Generic[T]):
    """One question on its way: how often it was asked, what time it has used up, which error came last."""

    def __init__(self, ask: Callable[[], Awaitable[T]], limits: Limits, gate: Gate) -> None:
        self.attempts = 0
        self._ask, self._limits, self._gate = ask, limits, gate
        self._backoff = wait_exponential(multiplier=limits.initial_wait_s, max=limits.max_wait_s)
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._queued = 0.0
        self._last: BackendError | None = None

    async def result(self) -> T:
        """The answer; or raises as `RetryBackend.around` says."""
        retrying = AsyncRetrying(
            sleep=asyncio.sleep,
            retry=retry_if_exception(_may_help),
            wait=self._wait,
            stop=self._is_over,
            retry_error_callback=self._give_up,
        )
        answer: T = await retrying(self._attempt)
        return answer

    @property
    def spent(self) -> float:
        """Seconds since the start, without those in the queue."""
        return self._loop.time() - self._started - self._queued

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return math.inf if self._limits.deadline_s is None else self._limits.deadline_s - self.spent

    def cost(self, usage: Usage) -> Usage:
        """What the last attempt took by its own account, with the attempts before it and the time so far."""
        return replace(usage, retries=usage.retries + max(0, self.attempts - 1), seconds=self.spent)

    async def _attempt(self) -> T:
        """Asks once, when there is a slot and the server wants no pause, for no longer than the time left."""
        queued_at = self._loop.time()
        async with self._gate.slot(first=self.attempts > 0):
            await self._cool_down()
            self._queued += self._loop.time() - queued_at
            if self.left <= 0:
                raise self._too_late("the time is used up") from self._last
            self.attempts += 1
            asked_at = self._loop.time()
            scope = asyncio.timeout(None if self.left == math.inf else self.left)
            try:
                async with scope:
                    answer = await self._ask()
            except TimeoutError:
                if not scope.expired():  # not this deadline: something inside raised it
                    raise
                raise self._too_late("no answer in time") from self._last
            except BackendError as error:
                self._last = error
                self._gate.pause(_retry_after(error))
                if isinstance(error, RateLimitError):
                    self._gate.narrow(asked_at)
                if error.retryable:
                    raise
                raise error.retold(usage=self.cost(error.usage)) from error
            self._gate.widen()
            return answer

    async def _cool_down(self) -> None:
        """Waits while the server wants a pause, of which another prompt was told: one that was told itself comes after it.

        The slot stays taken meanwhile: nobody else may use it either. The jitter lets one prompt go first; if the server
        still refuses, that prompt closes the gate again before the others come.
        """
        while pause := self._gate.cooldown:
            jitter = self._jittered(self._limits.initial_wait_s) if self._limits.jitter else 0.0
            await asyncio.sleep(pause + jitter)

    def _wait(self, state: RetryCallState) -> float:
        """The seconds to wait before the next attempt: those the server asked for, and the backoff on top of them."""
        return _retry_after(self._last) + self._jittered(self._backoff(state))

    def _is_over(self, state: RetryCallState) -> bool:
        """Whether there is no next attempt. Called after `_wait`."""
        return self.attempts >= self._limits.max_attempts or state.upcoming_sleep >= self.left

    def _give_up(self, state: RetryCallState) -> T:
        """Raises why there is no next attempt."""
        error = self._last
        if error is None:  # unreachable: only a BackendError is retried
            raise RuntimeError("retrying ended without an error")
        if self.attempts < self._limits.max_attempts:
            asked = _retry_after(error)
            why = (
                f"the server asked to wait {asked:.1f} s" if asked else f"the next attempt is {state.upcoming_sleep:.1f} s away"
            )
            raise self._too_late(why) from error
        message = f"{error} (gave up after {self.attempts} attempts)" if self.attempts > 1 else None
        raise error.retold(usage=self.cost(error.usage), message=message) from error

    def _too_late(self, why: str) -> DeadlineError:
        last = f"; last error: {self._last}" if self._last else ""
        error = DeadlineError(
            f"{why}: limits.deadline_s = {self._limits.deadline_s} allows no more after {self.attempts} attempts"
            f" in {self.spent:.1f} s{last}"
        )
        error.usage = self.cost(Usage())
        return error

    def _jittered(self, seconds: float) -> float:
        return _random.uniform(0.0, seconds) if self._limits.jitter else seconds


def _retry_after(error: BackendError | None) -> float:
    """The seconds the server asked to wait; 0 if it named none. An attribute of some of the classes only."""
    seconds = getattr(error, "retry_after", None)
    return max(0.0, float(seconds)) if isinstance(seconds, int | float) else 0.0
