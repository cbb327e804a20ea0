"""Events go in, a JSON object a line; events come out, whatever a crash has left of the file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError, SetupError
from llmrank.experiment.online.events import Event, EventLog, Faults


class JsonlLog(EventLog):
    """`EventLog` in a file of lines. Lines are only ever added: a line that a crash tore is closed off, and left out when read.

    Files of several machines may be joined one behind the other: events that stand in both count once.
    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        super().__init__(path)
        self._sync = sync
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open(path)
        except OSError as error:
            raise ConfigError(
                f"cannot be opened as a log ({error.strerror})", field="log", value=str(path), fix="name a file to write to"
            ) from error

    def _write(self, records: list[tuple[dict[str, Any], bytes]]) -> int:
        text = b"".join(json.dumps(record).encode() + b"\n" for record, _ in records)
        with _alone(self._file):
            end = os.fstat(self._file).st_size
            # Another process may have died in the middle of a line, also since the last write.
            if end and os.pread(self._file, 1, end - 1) != b"\n":
                text = b"\n" + text
            try:
                left = memoryview(text)
                while left:
                    left = left[os.write(self._file, left) :]
                if self._sync:
                    os.fsync(self._file)
            except BaseException:
                with suppress(OSError):  # the error that is raised is the one that matters; the next write closes the line off
                    os.ftruncate(self._file, end)
                raise
        return len(records)

    def _read(self, told: Faults) -> Iterator[Event]:
        seen: dict[bytes, bytes] = {}
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):  # no part of an object is one, so this was not written to its end
                    told.torn += 1
                    continue
                event = Event.of(record, f"{self.path}, line {number}")
                key, content = blake2b(event.id.encode(), digest_size=16).digest(), event.content
                if (first := seen.setdefault(key, content)) is content:
                    yield event
                    continue
                told.repeated += 1
                if first != content:
                    told.conflicting += 1
                    if len(told.conflicts) < 10:
                        told.conflicts.append(event.id)

    def _reopen(self) -> None:
        os.close(self._file)  # of this process only
        self._file = _open(self.path)

    def _close(self) -> None:
        os.close(self._file)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)


@contextmanager
def _alone(file: int) -> Iterator[None]:
    """Keeps other processes from writing. Not by a lock file: that is waited for in steps of tens of milliseconds."""
    try:
        import fcntl
    except ImportError as error:
        raise SetupError("a JSONL log needs a system with fcntl: use one that ends in .sqlite") from error
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
