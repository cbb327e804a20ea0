"""Events go in, from threads and processes at once; a log on disk that only grows comes out, and gives each event once.

A log is a file of JSON lines (``.jsonl``) or of SQLite (``.sqlite``, ``.db``). Both take the same event as often as it is
written and hold every event whose `write` came back, whatever kills the process.
"""

from __future__ import annotations

import heapq
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from llmrank.errors import ClosedError, ConfigError, DatasetError, InputError
from llmrank.experiment.online.event import Event, Kind, click, exposure, impression, outcome

__all__ = ["Event", "EventLog", "Kind", "Scan", "click", "exposure", "impression", "outcome"]

JSONL = (".jsonl",)
SQLITE = (".sqlite", ".db")


@dataclass(slots=True)
class Scan:
    """Reads logs, each event once, and counts what it left out.

    Attributes:
        events: Events given so far.
        again: Left out: the same event again.
        other: Left out: the id was there, with other content; the first one counts.
        torn: Left out: lines that were never written to their end, because a process was killed or the disk was full.
    """

    events: int = 0
    again: int = 0
    other: int = 0
    torn: int = 0
    _seen: dict[bytes, bytes] = field(default_factory=dict)

    def read(self, *paths: str | Path) -> Iterator[Event]:
        """The events of a log in the order of writing; of several logs by their times, as one log would have them, so that of
        one event in two logs the earlier one counts. Needs no right to write.

        It remembers every id: about 200 bytes an event.

        Raises:
            ConfigError: a path has an ending that no log has.
            DatasetError: a file is missing or not an event log.
        """
        for event in heapq.merge(*(self._whole(Path(path)) for path in paths), key=lambda event: event.time):
            if self.is_new(event):
                yield event

    def _whole(self, path: Path) -> Iterator[Event]:
        for event in _stored(path):
            if event is None:
                self.torn += 1
            else:
                yield event

    def is_new(self, event: Event) -> bool:
        """Whether this is the first event with its id; counts it."""
        content = event.content
        first = self._seen.setdefault(event.key, content)
        if first is content:
            self.events += 1
            return True
        if first == content:
            self.again += 1
        else:
            self.other += 1
        return False


class EventLog(ABC):
    """A log of events that only grows; `open` gives one. Threads may share it; each process opens its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    @staticmethod
    def open(path: str | Path) -> EventLog:
        """Opens a log, or begins it; its folder is made if need be.

        Args:
            path: ``.jsonl`` for lines of JSON, ``.sqlite`` or ``.db`` for SQLite. A local disk: file locks of network drives
                are not to be relied on.

        Raises:
            ConfigError: another ending, or a file that cannot be written or is not an event log.
        """
        path = Path(path).expanduser()
        if is_sqlite(path):
            from llmrank.experiment.online.sqlite_log import SQLiteLog

            return SQLiteLog(path)
        from llmrank.experiment.online.jsonl_log import JSONLinesLog

        return JSONLinesLog(path)

    def write(self, *events: Event, sync: bool = False) -> None:
        """Appends events, in order. When it returns, no kill of this process loses them.

        Args:
            events: One or more; one that was written before changes nothing.
            sync: True also waits for the disk, so that a power cut loses none of them: milliseconds instead of microseconds.

        Raises:
            ClosedError: the log was closed, or opened by a process that this one was forked from.
            InputError: something is no Event.
            OSError: it cannot be written (SQLite: sqlite3.Error); some of the events may have been.
        """
        for event in events:
            if not isinstance(event, Event):
                raise InputError("must be events", field="events", value=event, fix="make them with exposure, outcome ...")
        if os.getpid() != self._process:  # before the lock: another thread of the parent may have held it
            raise ClosedError(f"{self.path}: was opened by another process; open the event log after the fork")
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self.path}: the event log has been closed")
            self._append(events, sync)

    def events(self) -> Iterator[Event]:
        """Each event once, in the order of writing, one at a time; also what other processes wrote. `Scan` counts the rest.

        Raises:
            DatasetError: the file is not an event log any more.
        """
        return Scan().read(self.path)

    def close(self) -> None:
        """Closes the file. May be called twice."""
        if os.getpid() != self._process:
            return
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @abstractmethod
    def _append(self, events: Iterable[Event], sync: bool) -> None:
        """Writes events; the lock is held."""

    @abstractmethod
    def _close(self) -> None:
        """Lets go of the file; the lock is held."""


def is_sqlite(path: Path) -> bool:
    """Which of both a log is, by its ending. Raises ConfigError for an ending that no log has."""
    ending = path.suffix.lower()
    if ending not in JSONL + SQLITE:
        fix = f"end the name with {', '.join((*JSONL, *SQLITE))}"
        raise ConfigError("is no ending of an event log", field="log", value=str(path), fix=fix)
    return ending in SQLITE


def _stored(path: Path) -> Iterator[Event | None]:
    """All events of a file, repeated ones too; None for a torn line."""
    sqlite = is_sqlite(path)
    if not path.is_file():
        raise DatasetError("there is no such file", field="log", value=str(path), fix="name a log that EventLog wrote")
    if sqlite:
        from llmrank.experiment.online import sqlite_log

        return sqlite_log.stored(path)
    from llmrank.experiment.online import jsonl_log

    return jsonl_log.stored(path)
