"""Questions from many threads and event loops go in one by one, are answered in batches by one thread, and come out one by one.

For engines that answer a list of prompts much faster than one after another, and that only one thread may touch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from llmrank.errors import BackendError

Engine = TypeVar("Engine")
Question = TypeVar("Question")
Answer = TypeVar("Answer")

LINGER_S: Final = 0.005
"""A batch starts once nothing has arrived for so long: an event loop that sends many prompts needs a few turns to hand them
all over, and next to a batch, which takes 50 ms and more, the wait is nothing."""


class Batcher(Generic[Engine, Question, Answer]):
    """One thread that opens an engine when it is first needed, lets it answer batches, and closes it.

    While a batch runs, what arrives forms the next one.

    Args:
        open_engine: Makes the engine, in the thread.
        work: Answers a batch: one answer a question, in order. An exception among the answers is raised to its asker alone;
            one that `work` itself raises goes to all of the batch.
        close_engine: Frees the engine, in the thread.
        max_batch: The most questions in a batch.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        work: Callable[[Engine, Sequence[Question]], Sequence[Answer | Exception]],
        close_engine: Callable[[Engine], None],
        *,
        max_batch: int,
    ) -> None:
        self._open_engine, self._work, self._close_engine = open_engine, work, close_engine
        self._max_batch = max_batch
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Question, Future[Answer]]] = deque()
        self._engine: Future[Engine] = Future()
        self._ended: Future[None] = Future()
        self._thread: threading.Thread | None = None
        self._closing = False

    def engine(self) -> Future[Engine]:
        """The engine, opened if it is not open; the future has the error if it cannot be."""
        with self._changed:
            self._start()
            return self._engine

    def submit(self, question: Question) -> Future[Answer]:
        """Asks one question; cancelling the future takes it back while its batch has not started."""
        future: Future[Answer] = Future()
        with self._changed:
            self._start()
            self._waiting.append((question, future))
            self._changed.notify()
        return future

    def close(self) -> Future[None]:
        """Refuses what waits and frees the engine once the batch that runs is answered; later questions open it again.

        Returns:
            Done when the engine is free; cancelling it changes nothing. A future rather than a wait, so that an event loop
            needs no thread to wait in: while Python ends, no thread can be started.
        """
        with self._changed:
            if self._thread is None:
                idle: Future[None] = Future()
                idle.set_result(None)
                return idle
            self._closing = True
            self._changed.notify()
            return self._ended

    def _start(self) -> None:
        if self._thread is None:
            self._engine, self._ended = Future(), Future()
            for shared in (self._engine, self._ended):
                shared.set_running_or_notify_cancel()  # from now on, one of those who wait cannot cancel it for all
            # A daemon, so that a program that forgot to close still ends.
            self._thread = threading.Thread(
                target=self._run, args=(self._engine, self._ended), name="llmrank-batches", daemon=True
            )
            self._thread.start()

    def _run(self, opened: Future[Engine], ended: Future[None]) -> None:
        try:
            engine = self._open_engine()
        except Exception as error:  # handed on to all who wait: no thread is left to raise it in
            opened.set_exception(error)
            self._end(error)
            ended.set_result(None)
            return
        opened.set_result(engine)
        try:
            while batch := self._next_batch():
                self._answer(engine, batch)
        finally:
            try:
                self._close_engine(engine)
            finally:
                self._end(BackendError("the backend was closed before it answered"))
                ended.set_result(None)

    def _next_batch(self) -> list[tuple[Question, Future[Answer]]]:
        """What waits, once nothing more arrives; empty when it is time to close."""
        with self._changed:
            while True:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                arrived = 0
                while arrived < len(self._waiting) < self._max_batch and not self._closing:
                    arrived = len(self._waiting)
                    self._changed.wait(LINGER_S)
                if self._closing:
                    return []
                taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
                if batch := [(question, future) for question, future in taken if future.set_running_or_notify_cancel()]:
                    return batch

    def _answer(self, engine: Engine, batch: Sequence[tuple[Question, Future[Answer]]]) -> None:
        futures = [future for _, future in batch]
        try:
            answers = self._work(engine, [question for question, _ in batch])
            answered: list[tuple[Future[Answer], Answer | Exception]] = list(zip(futures, answers, strict=True))
        except Exception as error:  # handed on to all of the batch
            answered = [(future, error) for future in futures]
        for future, answer in answered:
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _end(self, error: Exception) -> None:
        """Leaves nobody waiting, and lets the next question start a new thread."""
        with self._changed:
            left, self._waiting = self._waiting, deque()
            self._thread, self._closing = None, False
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
