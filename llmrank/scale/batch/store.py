"""The answers of batches go in, each request's answer comes out: one SQLite file in the batch's folder.

It keeps what servers said, as they said it, errors too: so each answer is read by the code that reads a live one, and what
was paid for or refused is known for good.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmrank.codec import dump_error
from llmrank.errors import ConfigError, DeadlineError
from llmrank.scale.batch.files import NOT_PROCESSED, BatchAnswer

OWN_ERROR: Final = 0
"""The status under which an error of ours (`codec.dump_error`) is kept."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, status INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS attempts (key BLOB PRIMARY KEY, rounds INTEGER NOT NULL, status INTEGER, body TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS taken (part TEXT PRIMARY KEY, unknown INTEGER NOT NULL) WITHOUT ROWID;
CREATE TEMP TABLE asked (key BLOB PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A kept answer: its HTTP status (or `OWN_ERROR`) and its decoded body."""

    status: int
    body: Any


class AnswerStore:
    """What is known of each request. One process at a time; usable from several threads.

    Args:
        path: The file; made if it is missing.

    Raises:
        ConfigError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._db.execute("PRAGMA journal_mode = WAL").close()
                # A power cut must not lose answers whose part is noted as read: every transaction is synced.
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.executescript(_SCHEMA)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ConfigError(
                f"cannot be opened ({error})", field="batch", value=str(path), fix="name a folder that can be written"
            ) from error

    def get(self, key: bytes) -> Kept | None:
        """The answer to a request, or None if there is none yet."""
        with self._lock, closing(self._db.execute("SELECT status, body FROM answers WHERE key = ?", (key,))) as rows:
            row = rows.fetchone()
        return None if row is None else Kept(row[0], json.loads(row[1]))

    def take(
        self,
        part: str,
        asked: Iterable[bytes],
        answers: Iterable[BatchAnswer],
        *,
        transient: Callable[[BatchAnswer], bool],
        most_rounds: int | None,
    ) -> int:
        """Keeps the answers to one file of requests, all or none; a part that was taken is not taken again.

        A request without an answer, or whose error may pass, is left to be asked once more, until it was asked
        `most_rounds` times: then its last error (or a DeadlineError) is its answer.

        Args:
            part: The file's name.
            asked: The keys of its requests.
            answers: What came back.
            transient: Whether an answer is an error that may pass.
            most_rounds: None counts no round: the batch was stopped before its time.

        Returns:
            How many answers were to requests that are not in the file.
        """
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                unknown = self._take(part, asked, answers, transient, most_rounds)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        return unknown

    def forget_errors(self) -> None:
        """Forgets all errors, so that those requests are asked again."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM answers WHERE status != 200")
            self._db.execute("DELETE FROM attempts")
            self._db.execute("COMMIT")

    def begin_wave(self) -> None:
        """No request has been asked yet by `ask`."""
        with self._lock:
            self._db.execute("DELETE FROM asked")

    def ask(self, key: bytes) -> bool:
        """True if a request is new in this wave. Kept in a temporary table, which goes to disk where it grows large."""
        with self._lock:
            return self._db.execute("INSERT OR IGNORE INTO asked VALUES (?)", (key,)).rowcount == 1

    def close(self) -> None:
        """Closes the file. May be called twice."""
        with self._lock:
            self._db.close()

    def _take(
        self,
        part: str,
        asked: Iterable[bytes],
        answers: Iterable[BatchAnswer],
        transient: Callable[[BatchAnswer], bool],
        most_rounds: int | None,
    ) -> int:
        with closing(self._db.execute("SELECT unknown FROM taken WHERE part = ?", (part,))) as rows:
            if (row := rows.fetchone()) is not None:
                return int(row[0])
        self._db.execute("DELETE FROM asked")
        self._db.executemany("INSERT OR IGNORE INTO asked VALUES (?)", ((key,) for key in asked))
        unknown = 0
        for answer in answers:
            if not self._was_asked(answer.key):
                unknown += 1
            elif answer.status == 200:
                self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", _row(answer))
            elif not transient(answer):
                self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", _row(answer))
            elif answer.status != NOT_PROCESSED:
                self._db.execute(
                    "INSERT INTO attempts VALUES (?, 0, ?, ?) ON CONFLICT DO UPDATE SET status = excluded.status, body = "
                    "excluded.body",
                    _row(answer),
                )
        if most_rounds is not None:
            self._count_round(most_rounds)
        self._db.execute("INSERT INTO taken VALUES (?, ?)", (part, unknown))
        return unknown

    def _was_asked(self, key: bytes | None) -> bool:
        with closing(self._db.execute("SELECT 1 FROM asked WHERE key = ?", (key,))) as rows:
            return rows.fetchone() is not None

    def _count_round(self, most_rounds: int) -> None:
        """Counts a round for each request that has no answer; gives up those that were asked often enough."""
        self._db.execute(
            "INSERT INTO attempts (key, rounds) SELECT key, 1 FROM asked WHERE key NOT IN (SELECT key FROM answers) "
            "ON CONFLICT DO UPDATE SET rounds = rounds + 1"
        )
        given_up = DeadlineError(f"no answer came back in {most_rounds} batches")
        self._db.execute(
            "INSERT OR IGNORE INTO answers SELECT key, coalesce(status, ?), coalesce(body, ?) FROM attempts "
            "WHERE rounds >= ? AND key IN (SELECT key FROM asked)",
            (OWN_ERROR, json.dumps(dump_error(given_up)), most_rounds),
        )


def _row(answer: BatchAnswer) -> tuple[bytes | None, int, str]:
    return answer.key, answer.status, json.dumps(answer.body)
