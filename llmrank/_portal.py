"""An event loop in a thread of its own, for the synchronous calls: a coroutine goes in, its result comes out."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from llmrank.errors import ClosedError

T = TypeVar("T")

THREAD_NAME = "llmrank-loop"
CLOSING_S = 5.0
"""The longest wait for the thread to end, in seconds; it is a daemon, so that it cannot keep Python from ending."""


class LoopThread:
    """An event loop in a thread, for one Portal or for several: it starts at the first call and ends with its last Portal."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may close another of the Portals in the middle of anything
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._portals = 0
        self._ending = False

    def enter(self) -> bool:
        """Counts one more Portal; False if the last one is just being closed: then there is nothing left to share."""
        with self._lock:
            if not self._ending:
                self._portals += 1
            return not self._ending

    @property
    def foreign(self) -> bool:
        """Whether the loop belongs to the process that this one was forked from."""
        return self._process != os.getpid()

    def running(self) -> asyncio.AbstractEventLoop:
        """The loop, started if there is none yet, or if it stayed behind in the process that this one was forked from."""
        with self._lock:
            if self._loop is None or self.foreign:
                self._process = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=THREAD_NAME, daemon=True)
                self._thread.start()
            return self._loop

    def leave(self, last: Callable[[bool], Coroutine[Any, Any, object]]) -> None:
        """Lets a Portal do what it has to do last, where its calls ran; then counts it no more, and ends with the last one.

        Args:
            last: Told whether nobody else is left.
        """
        with self._lock:
            alone = self._ending = self._portals == 1
            loop = self._loop
        try:
            if loop is None:
                asyncio.run(last(alone))  # nothing ever ran; no thread is started: while Python shuts down there can be none
            else:
                asyncio.run_coroutine_threadsafe(last(alone), loop).result()
        finally:
            with self._lock:
                self._portals -= 1  # only now: whoever is the last one ends the loop, and this one needed it until here
                alone = self._ending = self._portals == 0
            if alone:
                self._end()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(_wind_up(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSING_S)
            if not thread.is_alive():
                loop.close()


class Portal:
    """Runs coroutines for callers that have no event loop, in a loop that starts at the first call.

    One loop for all calls keeps connections open between them, and synchronous calls work where a loop already runs (a
    notebook).

    Args:
        thread: The loop; None for one of its own. What belongs to one backend is asked from one loop, also by several Rankers:
            its connections and its limit are the loop's.

    Raises:
        ClosedError: that loop is just ending.
    """

    def __init__(self, thread: LoopThread | None = None) -> None:
        self._lock = threading.Lock()
        self._thread = thread or LoopThread()
        self._tasks: set[asyncio.Task[Any]] = set()  # touched in the loop's thread only
        self._closed = False
        if not self._thread.enter():
            raise ClosedError("the event loop to share is just ending; take another one")

    def submit(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> Future[T]:
        """Starts a coroutine function; cancelling the future cancels it.

        Raises:
            ClosedError: the portal has been closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError("this Ranker has been closed; make a new one")
            loop = self._thread.running()
            coroutine = self._tracked(function, *args)
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
        """Cancels what still runs, runs a last coroutine function where the others ran, and ends the loop if nobody shares it.

        It is also called by finalizers, and those run anywhere. In a thread whose own loop is running (this one or the
        caller's) nothing may be waited for: what is to be closed may need that very loop. There the rest happens behind.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        last = partial(self._last, function)
        if self._thread.foreign:
            return  # forked: what is open belongs to the parent
        if _loop_runs_here():
            threading.Thread(target=self._thread.leave, args=(last,), name="llmrank-closing", daemon=True).start()
        else:
            self._thread.leave(last)

    async def _tracked(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> T:
        task = asyncio.current_task()
        if task is not None:  # always: it was submitted to a loop
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await function(*args)

    async def _last(self, function: Callable[[], Coroutine[Any, Any, object]], alone: bool) -> None:
        if alone:
            await _cancel_others()
        else:
            own = [task for task in self._tasks if not task.done()]
            for task in own:
                task.cancel()
            await asyncio.gather(*own, return_exceptions=True)
        await function()


def wait(future: Future[T]) -> T:
    """The future's result; if the wait is broken off (Ctrl-C), what runs is cancelled."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def _cancel_others() -> None:
    """Ends all that runs in this loop beside this."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _wind_up() -> None:
    await _cancel_others()
    await asyncio.get_running_loop().shutdown_asyncgens()


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
