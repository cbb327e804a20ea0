"""Keys and completions go in, completions come back: the answer cache, one SQLite file that threads and processes share.

The windows of the models that answered are kept beside the answers: without them, no prompt could be written again, and so
none found, while the server is away.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from llmrank.codec import canonical, dump_completion, load_completion
from llmrank.errors import ConfigError
from llmrank.sqlite import use_wal
from llmrank.types import Completion

BUSY_S = 10.0
"""How long a write waits for another process's write."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache did since it was opened: answers found, not found, and found but unreadable (these count as missed too)."""

    hits: int = 0
    misses: int = 0
    corrupt: int = 0


class AnswerCache:
    """Keeps completions by key in one file.

    SQLite in WAL mode: reading never waits for a writer. Reads and writes use a connection each, so that a read does not
    queue behind this process's own write either. Usable from several threads; not across a fork.

    Args:
        path: The file; it and its folders are made if they are missing. SQLite keeps two more beside it while it is open.

    Raises:
        ConfigError: the file cannot be opened or is not an answer cache.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._stats = CacheStats()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = _open(self.path)
            try:
                _prepare(self._writer)
                self._reader = _open(self.path)
            except BaseException:
                self._writer.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"cannot be opened as an answer cache ({error})",
                field="cache.path",
                value=str(self.path),
                fix="name a file that can be written, or null for no cache",
            ) from error
        self._write_lock = threading.Lock()

    @property
    def stats(self) -> CacheStats:
        """Hits, misses and corrupt rows so far."""
        return self._stats

    def get(self, keys: Iterable[bytes]) -> dict[bytes, Completion]:
        """The answers that are kept, by key. A row that cannot be read is a miss; `put` overwrites it.

        Raises:
            sqlite3.Error: the file cannot be read, or the cache is closed.
        """
        found: dict[bytes, Completion] = {}
        asked = corrupt = 0
        with self._lock:
            for key in keys:
                asked += 1
                with closing(self._reader.execute("SELECT answer FROM answers WHERE key = ?", (key,))) as rows:
                    row = rows.fetchone()
                if row is None:
                    continue
                try:
                    found[key] = load_completion(json.loads(row[0]))
                except (ValueError, TypeError, RecursionError):  # not JSON, not of our form (CodecError), or absurdly nested
                    corrupt += 1
            stats = self._stats
            self._stats = replace(
                stats,
                hits=stats.hits + len(found),
                misses=stats.misses + asked - len(found),
                corrupt=stats.corrupt + corrupt,
            )
        return found

    def put(self, answers: Mapping[bytes, Completion]) -> None:
        """Keeps all of the answers, or none if it fails; replaces what was there.

        Waits up to `BUSY_S` for other processes, so call it in a thread where an event loop runs.

        Raises:
            sqlite3.Error: the file cannot be written, or the cache is closed.
        """
        self._write(_PUT, _rows(answers))

    def put_at_once(self, answers: Mapping[bytes, Completion]) -> bool:
        """The same if no other writer is at work, without waiting; else keeps nothing and returns False.

        Raises:
            sqlite3.Error: the file cannot be written, or the cache is closed.
        """
        rows = _rows(answers)
        if not self._write_lock.acquire(blocking=False):
            return False
        try:
            self._writer.execute("PRAGMA busy_timeout = 0").close()
            try:
                self._transact(_PUT, rows)
            finally:
                self._writer.execute(f"PRAGMA busy_timeout = {1000 * BUSY_S:.0f}").close()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the low byte: there are kinds of it
                raise
            return False
        finally:
            self._write_lock.release()
        return True

    def window(self, key: bytes) -> tuple[int | None] | None:
        """The window that was last kept for a model, in a tuple, as it may be unknown (None); None if none was kept.

        Raises:
            sqlite3.Error: the file cannot be read, or the cache is closed.
        """
        with self._lock, closing(self._reader.execute("SELECT tokens FROM windows WHERE model = ?", (key,))) as rows:
            row: tuple[int | None] | None = rows.fetchone()
        return row

    def put_window(self, key: bytes, tokens: int | None) -> None:
        """Keeps a model's window; None says that the server does not tell it. Waits and raises like `put`."""
        self._write("INSERT OR REPLACE INTO windows (model, tokens) VALUES (?, ?)", [(key, tokens)])

    def _write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        with self._write_lock:
            self._transact(statement, rows)

    def _transact(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """All rows or none; who calls holds the lock."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            self._writer.executemany(statement, rows)
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Closes the file. May be called twice."""
        with self._write_lock, self._lock:
            self._reader.close()
            self._writer.close()


_PUT = "INSERT OR REPLACE INTO answers (key, answer) VALUES (?, ?)"


def _rows(answers: Mapping[bytes, Completion]) -> list[tuple[bytes, str]]:
    return [(key, canonical(dump_completion(completion))) for key, completion in answers.items()]


def _open(path: Path) -> sqlite3.Connection:
    # isolation_level None: transactions begin and end where this module says so. The locks above make sharing safe.
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection) -> None:
    """Makes the table in a new file; finds out now whether the file can be written and is what it should be."""
    use_wal(connection, BUSY_S)
    # NORMAL: a crash of this process loses nothing, a power cut at most the last answers.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL)")
    connection.execute("CREATE TABLE IF NOT EXISTS windows (model BLOB PRIMARY KEY, tokens INTEGER)")
    connection.execute("COMMIT")
    connection.execute("SELECT key, answer FROM answers LIMIT 0").close()
    connection.execute("SELECT model, tokens FROM windows LIMIT 0").close()
