"""An event loop in a thread of its own, for the synchronous calls: a coroutine goes in, its result comes out."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from llmrank.errors import ClosedError

T = TypeVar("T")

THREAD_NAME = "llmrank-loop"
CLOSING_S = 5.0
"""The longest wait for the thread to end, in seconds; it is a daemon, so that it cannot keep Python from ending."""


class Portal:
    """Starts its loop at the first call.

    One loop for all calls keeps connections open between them, and synchronous calls work where a loop already runs (a
    notebook).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._closed = False

    def submit(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> Future[T]:
        """Starts a coroutine function; cancelling the future cancels it.

        Raises:
            ClosedError: the portal has been closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("this Ranker has been closed; make a new one")
            loop = self._running()
            coroutine = function(*args)
            try:
                return asyncio.run_coroutine_threadsafe(coroutine, loop)
            except BaseException:
                # Ctrl-C between the two lines: nobody would ever await it. If it did start, closing the portal cancels it.
                if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                    with contextlib.suppress(ValueError):  # the loop's thread was quicker after all
                        coroutine.close()
                raise

    def call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        """Runs a coroutine function to its end. Ctrl-C cancels it before it goes on to the caller."""
        return wait(self.submit(function, *args))

    def finish(self, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Runs a last coroutine function where the others ran, then ends the loop and its thread.

        It is also called by finalizers, and those run anywhere. In a thread whose own loop is running (this one or the
        caller's) nothing may be waited for: what is to be closed may need that very loop. There the rest happens behind.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            loop, thread = self._loop, self._thread
        if self._process != os.getpid():
            return  # forked: what is open belongs to the parent
        if _loop_runs_here():
            threading.Thread(target=_end, args=(function, loop, thread), name="llmrank-closing", daemon=True).start()
        else:
            _end(function, loop, thread)

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, started if there is none yet, or if it stayed behind in the process that this one was forked from."""
        if self._loop is None or self._process != os.getpid():
            self._process = os.getpid()
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name=THREAD_NAME, daemon=True)
            self._thread.start()
        return self._loop


def wait(future: Future[T]) -> T:
    """The future's result; if the wait is broken off (Ctrl-C), what runs is cancelled."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _end(
    function: Callable[[], Coroutine[Any, Any, object]],
    loop: asyncio.AbstractEventLoop | None,
    thread: threading.Thread | None,
) -> None:
    """Cancels what still runs, runs the last function, stops the loop, ends the thread."""
    if loop is None or thread is None:
        asyncio.run(function())  # nothing ever ran; no thread is started, for while Python shuts down there can be no new ones
        return
    try:
        asyncio.run_coroutine_threadsafe(_last(function), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CLOSING_S)
        if not thread.is_alive():
            loop.close()


async def _last(function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await function()
    await asyncio.get_running_loop().shutdown_asyncgens()


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
