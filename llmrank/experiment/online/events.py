"""What happens to users goes in as events, each with an id; an append-only log that holds each id once comes out.

The same event sent twice, after a crash or a timeout or by two processes, is one event. That is why ids are made of what an
event says, wherever that is right: a user is exposed to a variant once, however many requests they make.
"""

from __future__ import annotations

import json
import math
import os
import threading
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeAlias, cast, get_args

from llmrank.errors import ClosedError, ConfigError, DatasetError, InputError
from llmrank.experiment.online.assignment import Assignment
from llmrank.experiment.online.hashing import digest
from llmrank.experiment.online.interleaving import Interleaved

Kind: TypeAlias = Literal["exposure", "outcome", "impression", "click"]
"""What an event says.

exposure    a user was given what a variant ranked
outcome     a user did something that counts: `name` says what, `value` how much
impression  a user was shown an interleaved list: `name` is the impression's id
click       a user chose an item of one: `name` is the impression's id
"""

REMEMBERED: Final = 100_000
"""How many of the last ids a log that is open holds in memory: what comes again among them costs no write."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        id: Two events with one id are one event.
        time: When it happened; kept in UTC.
        kind: See `Kind`.
        unit: The user's id.
        name: See `Kind`.
        value: A number; None where there is none.
        experiment: Its name; empty for what concerns every experiment.
        variant: Its name, where the event knows it.
        data: What else there is, as JSON values.
    """

    id: str
    time: datetime
    kind: Kind
    unit: str
    name: str = ""
    value: float | None = None
    experiment: str = ""
    variant: str = ""
    data: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name in ("id", "unit", "name", "experiment", "variant"):
            text = getattr(self, name)
            if not isinstance(text, str) or (not text and name in ("id", "unit")):
                raise InputError("must be a text", field=name, value=text, fix="give it as a text: str(value)")
            if not text.isascii():
                _check_encodable(name, text)
        if self.kind not in _KINDS:
            raise InputError("unknown", field="kind", value=self.kind, fix=f"use one of: {', '.join(_KINDS)}")
        if not isinstance(self.time, datetime) or self.time.tzinfo is None:
            raise InputError("must be a time with a zone", field="time", value=self.time, fix="for instance datetime.now(UTC)")
        if self.time.tzinfo is not UTC:
            object.__setattr__(self, "time", self.time.astimezone(UTC))
        if self.value is not None:
            if not isinstance(self.value, int | float) or not math.isfinite(self.value):
                raise InputError("must be a finite number", field="value", value=self.value, fix="or leave it out")
            object.__setattr__(self, "value", float(self.value))

    def record(self) -> dict[str, Any]:
        """The event as JSON values; what is empty is left out."""
        found: dict[str, Any] = {"id": self.id, "time": self.time.isoformat(timespec="microseconds"), "kind": self.kind}
        found |= {"unit": self.unit, "name": self.name, "value": self.value}
        found |= {"experiment": self.experiment, "variant": self.variant, "data": dict(self.data)}
        return {key: value for key, value in found.items() if value not in ("", None, {})}

    @property
    def content(self) -> bytes:
        """A digest of all but id and time: what has to be the same in an event that is sent again."""
        return content_of(self.record())

    @classmethod
    def of(cls, record: Mapping[str, Any], where: str) -> Event:
        """The event that `record` gave.

        Args:
            record: JSON values.
            where: File and line, for messages.

        Raises:
            DatasetError: it is no event's.
        """
        try:
            return cls(**{**record, "time": datetime.fromisoformat(record["time"])})
        except (KeyError, TypeError, ValueError) as error:  # InputError is a ValueError
            fix = "it is not of this log; move the line elsewhere"
            raise DatasetError(f"{where}: not an event ({error})", field="log", fix=fix) from error


def content_of(record: Mapping[str, Any]) -> bytes:
    """`Event.content`, of its record."""
    said = {key: value for key, value in record.items() if key not in ("id", "time")}
    try:
        return blake2b(json.dumps(said, sort_keys=True, allow_nan=False).encode(), digest_size=16).digest()
    except (TypeError, ValueError) as error:
        fix = "give texts, finite numbers, lists and mappings of them"
        raise InputError(f"is no JSON ({error})", field="data", value=record.get("data"), fix=fix) from error


@dataclass(slots=True)
class Faults:
    """What was found besides events when a log was read to its end; `EventLog.read` fills it.

    Attributes:
        torn: Lines that no one finished writing, the last one or others before it.
        repeated: Events that stand there again, of which the first counts.
        conflicting: How many of those say something else than the first: two events were given one id.
        conflicts: The first ten such ids.
    """

    torn: int = 0
    repeated: int = 0
    conflicting: int = 0
    conflicts: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        """What a reader has to know; repeated events are as they should be."""
        found = []
        if self.torn:
            found.append(f"{self.torn:,} lines of the log were not written to their end, and are left out.")
        if self.conflicting:
            ids = ", ".join(self.conflicts)
            found.append(f"{self.conflicting:,} events have the id of another that says something else; left out: {ids}.")
        return found


class EventLog(ABC):
    """A log of events in a file. Threads and processes may share the file, threads the object too; it survives a fork.

    Args:
        path: The file; it and its folders are made if they are missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._recent: dict[str, bytes] = {}
        self._closed = False
        self._pid = os.getpid()

    @staticmethod
    def open(path: str | Path, *, sync: bool = False) -> EventLog:
        """Opens a log, or begins one.

        Args:
            path: Ends in ``.jsonl`` (a JSON object a line) or in ``.sqlite`` or ``.db`` (SQLite). JSONL is quicker to write;
                SQLite finds an id that stands anywhere in the log, where JSONL knows only the last `REMEMBERED` ids of this
                process when it writes, and leaves the rest to reading.
            sync: True puts every event on disk before going on, safe from a power cut. Else a crash of the process loses
                nothing, a power cut the last events.

        Raises:
            ConfigError: another ending, or the file cannot be opened or is no such log.
            SetupError: a JSONL log on a system without `fcntl`, which is what processes take turns by.
        """
        from llmrank.experiment.online.jsonl_log import JsonlLog
        from llmrank.experiment.online.sqlite_log import SqliteLog

        path = Path(path).expanduser()
        kinds: Mapping[str, type[JsonlLog] | type[SqliteLog]] = {".jsonl": JsonlLog, ".sqlite": SqliteLog, ".db": SqliteLog}
        kind = kinds.get(path.suffix.lower())
        if kind is None:
            raise ConfigError("unknown ending", field="log", value=str(path), fix=f"use one of: {', '.join(kinds)}")
        return kind(path, sync=sync)

    def append(self, event: Event) -> bool:
        """Adds an event. Returns False if the log has it already (as far as it looks: see `open`); the first time stays.

        Raises:
            InputError: another event has this id.
            OSError, sqlite3.Error: the file cannot be written.
            ClosedError: the log is closed.
        """
        return bool(self.extend([event]))

    def extend(self, events: Iterable[Event]) -> int:
        """Adds several events at once, all of them or none if it fails; returns how many are new. Raises as `append` does."""
        records = [event.record() for event in events]
        contents = [content_of(record) for record in records]  # before the lock: what is no JSON is refused here
        with self._lock:
            self._refuse_closed()
            fresh: dict[str, tuple[dict[str, Any], bytes]] = {}
            for record, content in zip(records, contents, strict=True):
                known = self._recent.get(record["id"]) or (fresh[record["id"]][1] if record["id"] in fresh else None)
                if known is None:
                    fresh[record["id"]] = record, content
                elif known != content:
                    raise conflict(record["id"])
            if not fresh:
                return 0
            if self._pid != os.getpid():  # whatever was open belongs to the parent process
                self._reopen()
                self._pid = os.getpid()
            new = self._write(list(fresh.values()))
            for name, (_, content) in fresh.items():
                self._recent[name] = content
            while len(self._recent) > REMEMBERED:
                del self._recent[next(iter(self._recent))]
            return new

    def read(self, kinds: Collection[Kind] = (), *, faults: Faults | None = None) -> Iterator[Event]:
        """The events in the order in which they were written, each id once, as a stream.

        Args:
            kinds: Which; empty for all.
            faults: Is told what else there is in the file. Without it, what a reader has to know becomes a RuntimeWarning.

        Raises:
            DatasetError: the file holds what is no event; file and line are named.
        """
        told = Faults() if faults is None else faults
        for event in self._read(told):
            if not kinds or event.kind in kinds:
                yield event
        if faults is None:
            for sentence in told.sentences():
                warnings.warn(f"{self.path}: {sentence}", RuntimeWarning, stacklevel=2)

    def expose(self, assignment: Assignment, *, time: datetime | None = None) -> bool:
        """Logs that a user was given what their variant ranked: once for an experiment, user and variant.

        Args:
            assignment: Of the user; one who is not exposed is not logged.
            time: When; None for now.
        """
        if not assignment.exposed:
            return False
        # The id says all that an exposure says, so there is nothing to compare.
        name = digest("exposure", assignment.experiment, assignment.unit, assignment.variant)
        if name in self._recent:
            self._refuse_closed()
            return False
        given = Event(
            name, time or now(), "exposure", assignment.unit, experiment=assignment.experiment, variant=assignment.variant
        )
        return self.append(given)

    def outcome(
        self,
        unit: str,
        name: str,
        value: float = 1.0,
        *,
        id: str | None = None,  # noqa: A002  # it is what an id is called everywhere
        experiment: str = "",
        variant: str = "",
        time: datetime | None = None,
    ) -> bool:
        """Logs what a user did.

        Args:
            unit: The user's id.
            name: What: ``click``, ``purchase``.
            value: How much.
            id: Of what happened, such as the order's number: it may be sent again, then. None makes a new one at each call.
            experiment: Empty: it counts in every experiment that the user takes part in.
            variant: Their variant, if it is known.
            time: When; None for now.
        """
        # With these before it, one order may be logged for each experiment, and its number is no other event's id.
        made = uuid.uuid4().hex if id is None else digest("outcome", experiment, name, id)
        return self.append(Event(made, time or now(), "outcome", unit, name, value, experiment, variant))

    def impression(
        self,
        unit: str,
        impression: str,
        interleaved: Interleaved,
        teams: tuple[str, str],
        *,
        experiment: str = "",
        time: datetime | None = None,
    ) -> bool:
        """Logs that a user was shown an interleaved list.

        Args:
            unit: The user's id.
            impression: The impression's.
            interleaved: What was shown.
            teams: The variants that a and b stand for.
            experiment: Its name.
            time: When; None for now.
        """
        data = {"a": teams[0], "b": teams[1], "items": list(interleaved.items), "teams": list(interleaved.teams)}
        made = digest("impression", experiment, unit, impression)
        return self.append(Event(made, time or now(), "impression", unit, impression, experiment=experiment, data=data))

    def click(self, unit: str, impression: str, item: str, *, experiment: str = "", time: datetime | None = None) -> bool:
        """Logs that a user chose an item of an interleaved list; choosing it again adds nothing.

        Args:
            unit: The user's id.
            impression: The impression's.
            item: The item's.
            experiment: Its name.
            time: When; None for now.
        """
        made = digest("click", experiment, unit, impression, item)
        return self.append(Event(made, time or now(), "click", unit, impression, experiment=experiment, data={"item": item}))

    def close(self) -> None:
        """Closes the file. May be called twice; reading needs no open log."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ClosedError("this log has been closed; open it again")

    @abstractmethod
    def _write(self, records: list[tuple[dict[str, Any], bytes]]) -> int:
        """Writes records with their contents, all or none, and returns how many are new; who calls holds the lock."""

    @abstractmethod
    def _read(self, told: Faults) -> Iterator[Event]:
        """All events, each id once."""

    @abstractmethod
    def _reopen(self) -> None:
        """Opens the file anew and leaves what was open to the parent process."""

    @abstractmethod
    def _close(self) -> None: ...


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def conflict(name: str) -> InputError:
    """What is raised for an id that stands for something else already."""
    return InputError("another event that says something else has this id", field="id", value=name, fix="give each its own")


_KINDS = cast("tuple[str, ...]", get_args(Kind))


def _check_encodable(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("holds half a surrogate pair", field=name, value=text, fix="give a text that is Unicode") from error
