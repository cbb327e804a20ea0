"""An event loop in a thread of its own, for the synchronous calls: a coroutine goes in, its result comes out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")

THREAD_NAME = "llmrank-loop"


class Portal:
    """Starts its loop at the first call.

    One loop for all calls keeps connections open between them, and synchronous calls work where a loop already runs (a
    notebook).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None

    @property
    def started(self) -> bool:
        """True if a loop runs."""
        return self._portal is not None

    def submit(self, function: Callable[..., Awaitable[T]], *args: object) -> Future[T]:
        """Starts a coroutine function; cancelling the future cancels it."""
        with self._lock:
            if self._portal is None:
                from anyio.from_thread import start_blocking_portal

                self._portal = self._stack.enter_context(start_blocking_portal(name=THREAD_NAME))
            portal = self._portal
        return portal.start_task_soon(function, *args)

    def call(self, function: Callable[..., Awaitable[T]], *args: object) -> T:
        """Runs a coroutine function to its end. Ctrl-C cancels it before it goes on to the caller."""
        return wait(self.submit(function, *args))

    def close(self) -> None:
        """Ends the loop and its thread. May be called twice."""
        with self._lock:
            self._portal = None
            self._stack.close()

    def finish(self, function: Callable[..., Awaitable[object]]) -> None:
        """Runs a last coroutine function where the others ran, then closes. Meant for finalizers, which run anywhere."""
        if not self.started and not _loop_runs_here():
            # No thread is started for this: while Python shuts down there can be no new ones.
            asyncio.run(_awaited(function))
        elif threading.current_thread().name == THREAD_NAME:
            # The garbage collector happened to run in the loop's own thread, which must not wait for itself.
            threading.Thread(target=self.finish, args=(function,), name="llmrank-finish").start()
        else:
            self.call(function)
            self.close()


async def _awaited(function: Callable[..., Awaitable[object]]) -> None:
    await function()


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def wait(future: Future[T]) -> T:
    """The future's result; if the wait is broken off (Ctrl-C), what runs is cancelled."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
