"""Events go in, rows of a SQLite file that refuses to change or to lose one; events come out."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from llmrank.errors import ConfigError
from llmrank.experiment.online.events import Event, EventLog, Faults, conflict

BUSY_S: Final = 10.0
"""How long a write waits for another process's write."""

_COLUMNS = ("id", "time", "kind", "unit", "name", "value", "experiment", "variant", "data")

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS events ("
    "number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, time TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, "
    "name TEXT, value REAL, experiment TEXT, variant TEXT, data TEXT, content BLOB NOT NULL)",
    # For other programs, too: whoever opens the file can add events, and nothing else.
    "CREATE TRIGGER IF NOT EXISTS no_update BEFORE UPDATE ON events "
    "BEGIN SELECT RAISE(ABORT, 'the log of events is append-only'); END",
    "CREATE TRIGGER IF NOT EXISTS no_delete BEFORE DELETE ON events "
    "BEGIN SELECT RAISE(ABORT, 'the log of events is append-only'); END",
    # INSERT OR REPLACE deletes without asking the trigger above, unless the insert itself is ignored first.
    "CREATE TRIGGER IF NOT EXISTS no_replace BEFORE INSERT ON events "
    "WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id OR number = NEW.number) BEGIN SELECT RAISE(IGNORE); END",
)


class SqliteLog(EventLog):
    """`EventLog` in a SQLite file in WAL mode: reading never waits for a writer, nor a writer for reading."""

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        super().__init__(path)
        self._sync = sync
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._prepared()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"cannot be opened as a log ({error})", field="log", value=str(path), fix="name a file to write to"
            ) from error

    def _write(self, records: list[tuple[dict[str, Any], bytes]]) -> int:
        new = 0
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for record, content in records:
                row = [record.get(column) for column in _COLUMNS[:-1]]
                data = json.dumps(record["data"]) if "data" in record else None
                if self._writer.execute(_INSERT, (*row, data, content)).rowcount:
                    new += 1
                    continue
                (known,) = self._writer.execute("SELECT content FROM events WHERE id = ?", (record["id"],)).fetchone()
                if known != content:
                    raise conflict(record["id"])
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        return new

    def _read(self, told: Faults) -> Iterator[Event]:
        # A connection of its own: one state of the file, from the first row to the last.
        with closing(_connect(self.path)) as reader:
            for row in reader.execute(f"SELECT {', '.join(_COLUMNS)} FROM events ORDER BY number"):  # noqa: S608  # constants
                record = {column: value for column, value in zip(_COLUMNS, row, strict=True) if value is not None}
                if "data" in record:
                    record["data"] = json.loads(record["data"])
                yield Event.of(record, str(self.path))

    def _reopen(self) -> None:
        # The parent's connection is not even closed: SQLite would let go of the parent's locks. It is kept from being freed.
        _INHERITED.append(self._writer)
        self._writer = self._prepared()

    def _close(self) -> None:
        self._writer.close()

    def _prepared(self) -> sqlite3.Connection:
        """A connection that writes; finds out now whether the file can be written and is what it should be."""
        connection = _connect(self.path)
        try:
            _use_wal(connection)
            # NORMAL: a crash of this process loses nothing, a power cut at most the last events.
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._sync else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("COMMIT")
            connection.execute(f"SELECT {', '.join(_COLUMNS)}, content FROM events LIMIT 0").close()  # noqa: S608  # constants
        except BaseException:
            connection.close()
            raise
        return connection


_INSERT = (
    f"INSERT INTO events ({', '.join(_COLUMNS)}, content) "  # noqa: S608  # constants
    f"VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
)

_INHERITED: list[sqlite3.Connection] = []


def _connect(path: Path) -> sqlite3.Connection:
    # isolation_level None: transactions begin and end where this module says so. The log's lock makes sharing safe.
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to WAL. SQLite's own busy timeout does not cover a file that another process is just writing to or switching."""
    give_up = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
