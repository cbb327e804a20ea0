"""The section of a backend goes in, a backend comes out that all who give an equal section share: its model is loaded once.

What belongs to the backend is shared with it: the limit of prompts in flight, what its server said of being asked too much, and
the event loop of the synchronous calls, for limits and connections are a loop's own. Retries, answer caches and meters stay
each Ranker's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmrank._portal import LoopThread
from llmrank.backends.limit import Gate
from llmrank.backends.wrapper import BackendWrapper
from llmrank.protocols import Backend


@dataclass(frozen=True, slots=True)
class Lent:
    """What one borrower has.

    Attributes:
        backend: The backend. To close it is to give it back; the last one who does closes it.
        gate: The limit of all who share it.
        thread: The event loop of the synchronous calls of all who share it.
    """

    backend: LentBackend
    gate: Gate
    thread: LoopThread


class BackendPool:
    """Lends backends: one for each section, as long as anybody has it. Threads may share a pool; it keeps none open itself."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.RLock()  # a finalizer may give something back in the middle of anything

    def borrow(self, section: Mapping[str, Any], max_concurrency: int | None, build: Callable[[], Backend]) -> Lent:
        """Lends the backend of a section.

        Args:
            section: The section `backend` of a configuration, with all of its keys. Sections are equal if their keys and values
                are; a replay, which plays its answers in turn, is not shared.
            max_concurrency: The most prompts of all borrowers in flight at once; None for what the backend finds right.
            build: Builds the backend, if nobody has it.

        Raises:
            LLMRankError: what `build` raises.
        """
        key = json.dumps(section, sort_keys=True, default=repr)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                backend = build()
                limit = backend.concurrency if max_concurrency is None else max_concurrency
                entry = _Entry(backend, Gate(limit), LoopThread())
                if not (section.get("kind") == "replay" and section.get("record") is None):
                    self._entries[key] = entry
            entry.borrowers += 1
        return Lent(LentBackend(entry.backend, lambda: self._give_back(key, entry)), entry.gate, entry.thread)

    def _give_back(self, key: str, entry: _Entry) -> bool:
        """Whether that was the last one."""
        with self._lock:
            entry.borrowers -= 1
            if not entry.borrowers and self._entries.get(key) is entry:
                del self._entries[key]
            return not entry.borrowers


@dataclass(slots=True)
class _Entry:
    backend: Backend
    gate: Gate
    thread: LoopThread
    borrowers: int = 0


class LentBackend(BackendWrapper):
    """A backend that others may have, too.

    Args:
        inner: The backend.
        give_back: Says whether it was the last one that had it; called once.
    """

    def __init__(self, inner: Backend, give_back: Callable[[], bool]) -> None:
        super().__init__(inner)
        self._give_back = give_back
        self._returned = self._closes = False
        self._lock = threading.Lock()

    def give_back(self) -> bool:
        """Gives it back, if that was not done yet; whether closing the backend is up to this borrower: it was the last one."""
        with self._lock:
            if not self._returned:
                self._returned, self._closes = True, self._give_back()
            return self._closes

    async def aclose(self) -> None:
        """Gives it back, and closes it if nobody else has it. May be called twice."""
        if self.give_back():
            await super().aclose()
