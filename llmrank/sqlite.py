"""A connection to a SQLite file goes in; it comes back in the mode in which several processes read while one writes."""

from __future__ import annotations

import sqlite3
import time


def use_wal(connection: sqlite3.Connection, busy_s: float) -> None:
    """Switches to WAL. SQLite's own busy timeout does not cover a file that another process is just writing to or switching.

    Args:
        connection: To the file.
        busy_s: How long to wait for other processes, in seconds.

    Raises:
        sqlite3.OperationalError: it is still busy then, or cannot be written.
    """
    give_up = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.02)
