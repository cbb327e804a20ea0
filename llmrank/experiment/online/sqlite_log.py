"""Events go in; an SQLite file comes out in which nothing can be changed or deleted; and the way back.

One row an event, in the order of writing. Of an id with other content there is a second row, so that reading can tell.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from llmrank.codec import canonical
from llmrank.errors import ConfigError, DatasetError, InputError
from llmrank.experiment.online.event import Event
from llmrank.experiment.online.events import EventLog
from llmrank.sqlite import use_wal

SCHEMA: Final = 1
"""Raised when the tables change."""

MARK: Final = 0x6C6C6D65
"""The file's `application_id`: it is an event log and no other database."""

BUSY_S: Final = 30.0
"""How long a write waits for another process's."""

_COLUMNS = "id, time, experiment, unit, kind, variant, name, value, about"

_TABLES = """
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    time REAL NOT NULL,
    experiment TEXT,
    unit TEXT NOT NULL,
    kind TEXT NOT NULL,
    variant TEXT,
    name TEXT,
    value REAL,
    about TEXT NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (id, content)
);
CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END;
CREATE TRIGGER events_no_replace BEFORE INSERT ON events WHEN EXISTS (SELECT 1 FROM events WHERE seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'the event log is append-only'); END;
CREATE TRIGGER events_once BEFORE INSERT ON events
    WHEN EXISTS (SELECT 1 FROM events WHERE id = NEW.id AND content = NEW.content) BEGIN SELECT RAISE(IGNORE); END;
"""
# The last two triggers are for INSERT OR REPLACE, which deletes without telling the trigger of DELETE.

_INSERT = f"INSERT INTO events ({_COLUMNS}, content) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  # no input in it


class SQLiteLog(EventLog):
    """A log in an SQLite file in WAL mode; see `EventLog`. The table `events` may be read with SQL while it is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            try:
                _prepare(self._connection)
            except BaseException:
                self._connection.close()
                raise
        except (OSError, sqlite3.Error, DatasetError) as error:
            words = error.message if isinstance(error, DatasetError) else f"cannot be opened as an event log ({error})"
            raise ConfigError(words, field="log", value=str(path), fix="name a new file, or one that EventLog made") from error
        self._synced = False

    def _append(self, events: Iterable[Event], sync: bool) -> None:
        rows = [_row(event) for event in events]
        if sync != self._synced:
            # In WAL mode NORMAL is safe from a kill, FULL from a power cut.
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}").close()
            self._synced = sync
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_INSERT, rows)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        self._connection.close()


def stored(path: Path) -> Iterator[Event]:
    """The events of a file in order, as they were when reading began; an id with other content comes again.

    Raises:
        DatasetError: the file cannot be read or is not an event log.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_S)) as connection:
            _check(connection)
            query = f"SELECT {_COLUMNS} FROM events ORDER BY seq"  # noqa: S608  # no input in it
            with closing(connection.execute(query)) as rows:
                yield from map(_event, rows)
    except (sqlite3.Error, InputError) as error:
        words = error.message if isinstance(error, InputError) else str(error)
        raise DatasetError(f"{path}: {words}", field="log", fix="name a file that EventLog made") from error


def _row(event: Event) -> tuple[object, ...]:
    about = canonical(event.about)
    return (*(getattr(event, name) for name in _COLUMNS.split(", ")[:-1]), about, event.content)


def _event(row: tuple[Any, ...]) -> Event:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    return Event(**{**values, "about": json.loads(values["about"])})


def _prepare(connection: sqlite3.Connection) -> None:
    """Makes the tables in a new file; checks those of another."""
    if not _is_empty(connection):
        _check(connection)  # first of all: nothing in a database of something else is to be changed
    use_wal(connection, BUSY_S)
    connection.execute("PRAGMA synchronous = NORMAL").close()
    connection.execute("BEGIN IMMEDIATE")  # one of several processes that begin the log makes the tables
    try:
        if _is_empty(connection):
            for statement in _statements():
                connection.execute(statement).close()
            connection.execute(f"PRAGMA application_id = {MARK}").close()
            connection.execute(f"PRAGMA user_version = {SCHEMA}").close()
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    _check(connection)


def _is_empty(connection: sqlite3.Connection) -> bool:
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not tables


def _statements() -> Iterator[str]:
    """The statements of `_TABLES`: `executescript` would end the transaction that keeps others out."""
    statement = ""
    for line in _TABLES.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _check(connection: sqlite3.Connection) -> None:
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if mark != MARK:
        raise DatasetError("is a database of something else, not an event log", field="log")
    if version != SCHEMA:
        raise DatasetError(f"has the tables of version {version}; this llmrank knows version {SCHEMA}", field="log")
