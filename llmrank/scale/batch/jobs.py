"""A wave and a Batch API go in; the wave's files are submitted, polled and fetched, until all their answers are kept.

Every step is noted in the wave's folder before the next one, so that a process that is killed anywhere goes on from there.
The one step that costs money and could be lost between its doing and its noting, making a batch, is announced first: who
finds it announced looks for the batch by its tag among the server's, before another one is made.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Final

from llmrank.errors import (
    AnswersPendingError,
    BackendError,
    BackendTimeoutError,
    BadRequestError,
    QuotaError,
    RateLimitError,
    ServerError,
    UnreachableError,
)
from llmrank.scale.batch.api import BatchAPI, BatchState
from llmrank.scale.batch.wave import ENDED, TAKEN, Part, Wave

_QUEUE_CODES: Final = {"token_limit_exceeded", "request_limit_exceeded"}
_QUEUE_TEXT: Final = "enqueued"
_UNSUBMITTED: Final = {"new", "uploaded"}
_PAST_QUEUE: Final = {"in_progress", "finalizing", TAKEN}
QUEUE_PAUSE_S: Final = 3600.0
"""The most seconds between two tries at a full queue."""
_CLOCKS_S: Final = 86_400.0
"""How far the server's clock may be from ours when batches are looked for by age."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often to ask.

    Attributes:
        poll_s: Seconds between two looks at the first; each wait is half as long again as the one before it.
        poll_most_s: The most seconds between two looks.
        trouble_s: For how many seconds the server may be out of reach, or refuse for passing reasons, before it is given up.
        queue_s: For how many seconds the account's queue may be too full to take a batch.
        wait: False looks once and does not wait.
    """

    poll_s: float = 15.0
    poll_most_s: float = 300.0
    trouble_s: float = 3600.0
    queue_s: float = 172_800.0
    wait: bool = True


class _QueueFullError(Exception):
    """The account has as much in the queue as it may have."""


@dataclass(slots=True)
class WaveRunner:
    """Brings a wave through a Batch API.

    Args:
        wave: The wave.
        api: The server.
        tag: What names this batch's folder among all that the account ever submits.
        take: Keeps the answers of a part whose files are in the wave's folder.
        patience: How long to wait.
        on_change: Called when the state of a part has changed.
    """

    wave: Wave
    api: BatchAPI
    tag: str
    take: Callable[[Part], None]
    patience: Patience = field(default_factory=Patience)
    on_change: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Submits, polls and fetches until every part is taken.

        Raises:
            AnswersPendingError: not all is answered, and `patience.wait` is False.
            BackendError: the server refuses for good, or was out of reach for too long; a batch failed or was cancelled. What
                there is of answers is kept, and the rest is asked when it runs again.
        """
        pause = self.patience.poll_s
        trouble = {part.number: _Stopwatch() for part in self.wave.parts}
        queue = _Queue(self.patience)
        while self.wave.open_parts:
            moved, asked_wait = False, 0.0
            for part in self.wave.open_parts:
                if part.state in _UNSUBMITTED and not queue.open:
                    continue
                try:
                    moved |= await self._advance(part)
                    trouble[part.number].reset()
                    if part.state in _PAST_QUEUE:
                        queue.took_one(ended=part.state == TAKEN)
                except _QueueFullError as error:
                    queue.was_full(error)
                except BackendError as error:
                    if not error.retryable or trouble[part.number].seconds() > self.patience.trouble_s:
                        raise
                    asked_wait = max(asked_wait, getattr(error, "retry_after", None) or 0.0)
            if not self.wave.open_parts:
                return
            if not self.patience.wait:
                raise AnswersPendingError(f"{self._summary()}; run again to go on")
            pause = self.patience.poll_s if moved else min(pause * 1.5, self.patience.poll_most_s)
            # Spread, so that several runs of one account do not ask in step.
            await asyncio.sleep(max(asked_wait, pause * random.uniform(0.8, 1.2)))  # noqa: S311  # no secret

    async def _advance(self, part: Part) -> bool:
        """Brings a part as far as it goes without waiting; True if its state changed."""
        before = part.state
        if part.state == "submitting":
            await self._find(part)
        if part.state == "new":
            part.input_file_id = await self.api.upload(self.wave.input_path(part))
            self._note(part, "uploaded")
        if part.state == "uploaded":
            await self._submit(part)
        elif part.state not in ENDED and part.state != TAKEN:
            self._read(part, await self.api.retrieve(str(part.batch_id)))
        if part.state in ENDED:
            await self._fetch(part)
        return part.state != before

    async def _submit(self, part: Part) -> None:
        self._note(part, "submitting")
        try:
            state = await self.api.create(str(part.input_file_id), self._tag(part))
        except (UnreachableError, BackendTimeoutError, ServerError):
            raise  # it may have been made after all: the next turn looks for it
        except BackendError as error:
            self._note(part, "uploaded")
            if isinstance(error, RateLimitError) and _QUEUE_TEXT in str(error).lower():
                raise _QueueFullError(str(error)) from error
            raise
        self._read(part, state)

    async def _find(self, part: Part) -> None:
        """What became of a batch that was announced."""
        found = await self.api.find(self._tag(part), since=self.wave.created - _CLOCKS_S)
        if found is None:
            self._note(part, "uploaded")
        else:
            self._read(part, found)

    def _read(self, part: Part, state: BatchState) -> None:
        part.batch_id = state.id
        part.output_file_id, part.error_file_id = state.output_file_id, state.error_file_id
        if state.status == "failed" and (state.codes & _QUEUE_CODES or _QUEUE_TEXT in state.problem.lower()):
            self._note(part, "uploaded")
            raise _QueueFullError(state.problem)
        part.problem = state.problem or None
        if part.state != state.status:
            self._note(part, state.status)

    async def _fetch(self, part: Part) -> None:
        """Fetches the files of a batch that has ended, and has its answers kept."""
        for file_id, path in (
            (part.output_file_id, self.wave.output_path(part)),
            (part.error_file_id, self.wave.error_path(part)),
        ):
            if file_id and not path.exists():
                await self.api.download(file_id, path)
        ended, name = part.state, f"batch {part.batch_id} ({self.wave.input_path(part)})"
        self.take(part)
        self._note(part, TAKEN)
        if ended == "failed":
            raise BadRequestError(f"{name} failed: {part.problem or 'the server does not say why'}; mend it and run again")
        if ended == "cancelled":
            raise BadRequestError(f"{name} was cancelled; run again to have the rest of its requests answered")

    def _note(self, part: Part, state: str) -> None:
        part.state = state
        self.wave.save()
        self.on_change()

    def _tag(self, part: Part) -> str:
        return f"{self.tag}/{self.wave.number}/{part.number}/{part.sha256[:16]}"

    def _summary(self) -> str:
        states = [part.state for part in self.wave.parts]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"{self.wave.name}: {self.wave.requests:,} requests in {len(states)} batches ({counts})"


class _Queue:
    """The account's queue. It takes so many tokens (or requests) at once, and tells only by failing what is one too many.

    Full once, it is left alone for a while, each time twice as long; and tried at once when a batch of ours has ended.
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._pause = patience.poll_most_s
        self._closed_until = -inf
        self._full = _Stopwatch()

    @property
    def open(self) -> bool:
        """Whether it is worth a try."""
        return monotonic() >= self._closed_until

    def took_one(self, *, ended: bool) -> None:
        """A batch of ours is in work, or has ended and left room."""
        self._full.reset()
        self._pause = self._patience.poll_most_s
        if ended:
            self._closed_until = -inf

    def was_full(self, error: _QueueFullError) -> None:
        """It did not take a batch. Raises QuotaError if it has not taken one for too long."""
        if self._full.seconds() > self._patience.queue_s:
            fix = "put fewer requests into a file (requests_per_file) in a new folder, or wait for what else is queued"
            raise QuotaError(f"the queue has been full for {self._patience.queue_s:g} s: {error}; {fix}") from error
        self._closed_until = monotonic() + self._pause
        self._pause = min(2 * self._pause, QUEUE_PAUSE_S)


class _Stopwatch:
    """Seconds since `seconds` was first asked."""

    def __init__(self) -> None:
        self._since: float | None = None

    def seconds(self) -> float:
        if self._since is None:
            self._since = monotonic()
        return monotonic() - self._since

    def reset(self) -> None:
        self._since = None
