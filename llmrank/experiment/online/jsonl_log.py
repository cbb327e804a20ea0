"""Events go in; a file of JSON lines comes out, which processes may write at once and no kill spoils; and the way back.

The file is only appended to. A line that was torn, by a kill or a full disk, stays where it is; the next write begins a new
line behind it, so that it never swallows a whole one.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from llmrank.errors import ConfigError, DatasetError, InputError, SetupError
from llmrank.experiment.online.event import Event
from llmrank.experiment.online.events import EventLog

REMEMBERED = 100_000
"""So many events that this process wrote last are not written again: an exposure at every request is one line."""


class JSONLinesLog(EventLog):
    """A log in a file of JSON lines; see `EventLog`.

    Writers take turns by a lock on the file itself. What is written again by another process stands there again, and reading
    leaves it out.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Read and append without a buffer: what `write` was given has left this process when it returns.
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"cannot be opened as an event log ({error.strerror})", field="log", value=str(path), fix="name a file to write"
            ) from error
        self._written: OrderedDict[bytes, bytes] = OrderedDict()

    def _append(self, events: Iterable[Event], sync: bool) -> None:
        new: dict[bytes, bytes] = {}
        lines = []
        for event in events:
            key, content = event.key, event.content
            if content not in (self._written.get(key), new.get(key)):
                new[key] = content
                lines.append(event.line())
        if lines:
            with _turn(self._file):
                self._write_all(b"".join(lines))
        if sync:
            os.fsync(self._file.fileno())
        # Only now: what could not be written is written when it comes again.
        self._written.update(new)
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    def _write_all(self, data: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        if end:
            self._file.seek(end - 1)
            if self._file.read(1) != b"\n":
                data = b"\n" + data
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _close(self) -> None:
        self._file.close()


@contextmanager
def _turn(file: IO[bytes]) -> Iterator[None]:
    """Keeps other processes from writing. Not by a lock file: one is opened anew at each turn, and waited for in naps."""
    try:
        import fcntl
    except ImportError as error:
        raise SetupError("event logs in JSON lines need a system with fcntl: name one that ends in .sqlite") from error
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def stored(path: Path) -> Iterator[Event | None]:
    """The events of a file in order, repeated ones too; None for a line that is torn.

    Raises:
        DatasetError: the file cannot be read, or a line is neither an event nor the beginning of one.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _event(line, f"{path}, line {number}")
    except OSError as error:
        fix = "check the path"
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})", field="log", fix=fix) from error


def _event(line: bytes, where: str) -> Event | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        # Every prefix of an object begins with a brace and is no JSON; a power cut may leave zeros behind it or for it.
        if line.strip(b"\0\r\n ")[:1] in (b"{", b""):
            return None
        raise DatasetError(f"{where}: not an event ({error})", field="log", value=line, fix="name an event log") from error
    try:
        if not isinstance(record, dict):
            raise InputError("must be a JSON object", field="event", value=record, fix="one event a line")
        return Event.of(record)
    except InputError as error:
        raise DatasetError(
            f"{where}: {error.message}", field=error.field, value=error.value, fix=error.fix or "mend the line"
        ) from error
