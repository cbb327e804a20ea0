"""The event log: every event once, whoever wrote it and whatever killed them; nothing in it is ever changed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ClosedError, ConfigError, DatasetError, InputError, SetupError
from llmrank.experiment.online import jsonl_log
from llmrank.experiment.online.events import Event, EventLog, Scan, exposure, outcome
from tests.unit.test_event import events

BOTH = pytest.mark.parametrize("name", ["log.jsonl", "log.sqlite"])


def bought(unit: str, order: str, value: float | None = None) -> Event:
    """A purchase."""
    return outcome("recency", unit, "purchase", value, event_id=order, time=5.0)


def scanned(*paths: Path) -> tuple[list[Event], Scan]:
    """All that logs hold."""
    scan = Scan()
    return list(scan.read(*paths)), scan


@BOTH
def test_events_come_back_in_order_and_once(name: str, tmp_path: Path) -> None:
    """What is written twice, by one handle or by a later one, is one event; the first one's time stays."""
    path = tmp_path / "made" / name
    first, second = exposure("recency", "7", "plain", time=1.0), bought("7", "o1", 9.5)
    with EventLog.open(path) as log:
        log.write(first, second)
        log.write(exposure("recency", "7", "plain", time=2.0))
        assert list(log.events()) == [first, second]
    with EventLog.open(path) as log:
        log.write(second, bought("8", "o2"), sync=True)
        assert list(log.events()) == [first, second, bought("8", "o2")]


@BOTH
def test_the_same_id_with_other_content_is_told(name: str, tmp_path: Path) -> None:
    """The first one counts, and reading says that there was another, also if both come in one call."""
    with EventLog.open(tmp_path / name) as log:
        log.write(bought("7", "o1", 9.5), bought("7", "o1", 95.0))
        log.write(bought("7", "o1", 9.5))
    found, scan = scanned(log.path)
    assert found == [bought("7", "o1", 9.5)]
    assert (scan.events, scan.other) == (1, 1)


@BOTH
@settings(max_examples=20, deadline=None)
@given(written=st.lists(st.lists(events(), max_size=4), max_size=4))
def test_whatever_is_written_is_read(name: str, written: list[list[Event]]) -> None:
    """Any events, in any calls: the first of each id comes back, in order."""
    with tempfile.TemporaryDirectory() as folder:
        with EventLog.open(Path(folder) / name) as log:
            for some in written:
                log.write(*some)
        expected: dict[str, Event] = {}
        for event in (event for some in written for event in some):
            expected.setdefault(event.id, event)
        assert scanned(log.path)[0] == list(expected.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(events(), min_size=1, max_size=4), st.data())
def test_a_file_cut_at_any_byte_loses_only_what_was_cut(written: list[Event], data: st.DataObject) -> None:
    """Whole lines stay, a torn one is counted, and what is written next is never merged with it."""
    unique = list({event.id: event for event in reversed(written)}.values())[::-1]
    whole = b"".join(event.line() for event in unique)
    cut = data.draw(st.integers(0, len(whole)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        path.write_bytes(whole[:cut])
        ends = [sum(len(event.line()) for event in unique[: place + 1]) - 1 for place in range(len(unique))]
        kept = [event for event, end in zip(unique, ends, strict=True) if end <= cut]
        found, scan = scanned(path)
        assert found == kept
        assert scan.torn == (whole[:cut].rfind(b"\n") + 1 < cut and cut not in ends)
        after = bought("after", "the order that nothing else has")
        with EventLog.open(path) as log:
            log.write(after)
        assert scanned(path)[0] == [*kept, after]
        assert path.read_bytes().startswith(whole[:cut])


def test_zeros_of_a_power_cut_are_a_torn_line(tmp_path: Path) -> None:
    """Some file systems leave zeros where data was not on disk yet."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(bought("7", "o1").line() + b"\0" * 100)
    with EventLog.open(path) as log:
        log.write(bought("8", "o2"))
    found, scan = scanned(path)
    assert [event.unit for event in found] == ["7", "8"]
    assert scan.torn == 1


def test_what_could_not_be_written_is_written_when_it_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk raises, tears a line at most, and the retry is no repetition."""
    log = EventLog.open(tmp_path / "log.jsonl")
    assert isinstance(log, jsonl_log.JSONLinesLog)

    inner: Any = log._file

    class Full:
        """A file on a disk that takes 20 bytes more."""

        def __init__(self) -> None:
            self.file, self.room = inner, 20

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, data: memoryview) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            written: int = self.file.write(data[: self.room])
            self.room = 0
            return written

    with monkeypatch.context() as patched:
        patched.setattr(log, "_file", Full())
        with pytest.raises(OSError, match="No space"):
            log.write(bought("7", "o1"))
    log.write(bought("7", "o1"), bought("8", "o2"))
    log.close()
    found, scan = scanned(log.path)
    assert [event.unit for event in found] == ["7", "8"]
    assert scan.torn == 1


def test_only_the_last_events_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was forgotten is written again, and still is one event."""
    monkeypatch.setattr(jsonl_log, "REMEMBERED", 2)
    with EventLog.open(tmp_path / "log.jsonl") as log:
        for unit in ("1", "2", "2", "3", "1"):
            log.write(exposure("recency", unit, "plain", time=1.0))
    assert len(log.path.read_bytes().splitlines()) == 4
    found, scan = scanned(log.path)
    assert [event.unit for event in found] == ["1", "2", "3"]
    assert scan.again == 1


@BOTH
def test_threads_share_a_log(name: str, tmp_path: Path) -> None:
    """Eight threads that write the same exposures and outcomes of their own lose and double none."""
    with EventLog.open(tmp_path / name) as log:

        def serve(number: int) -> None:
            for place in range(40):
                log.write(exposure("recency", str(place), "plain"), bought(str(place), f"{number}-{place}"))

        threads = [threading.Thread(target=serve, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found, scan = scanned(log.path)
    assert len(found) == len({event.id for event in found}) == 40 + 8 * 40
    assert (scan.other, scan.torn) == (0, 0)


PROGRAM = """
import sys
from llmrank.experiment.online.events import EventLog, exposure, outcome
log = EventLog.open(sys.argv[1])
for place in range(int(sys.argv[3])):
    order = f"{sys.argv[2]}-{place}"
    log.write(exposure("recency", str(place), "plain"), outcome("recency", str(place), "purchase", event_id=order))
    print(order, flush=True)
"""


def processes(path: Path, names: Sequence[str], count: int) -> list[subprocess.Popen[str]]:
    """Processes that write to one log."""
    return [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), name, str(count)], stdout=subprocess.PIPE, text=True)
        for name in names
    ]


@BOTH
def test_processes_share_a_log(name: str, tmp_path: Path) -> None:
    """Three processes that begin one log at once write into it side by side."""
    started = processes(tmp_path / name, "abc", 60)
    for process in started:
        assert process.communicate(timeout=60)[0].count("\n") == 60
        assert process.returncode == 0
    found, scan = scanned(tmp_path / name)
    assert len(found) == 60 + 3 * 60
    assert (scan.other, scan.torn) == (0, 0)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
@BOTH
def test_a_kill_loses_nothing_that_was_written(name: str, tmp_path: Path) -> None:
    """Whatever `write` came back for is there after SIGKILL, and others go on writing."""
    path = tmp_path / name
    victim, other = processes(path, ["victim", "other"], 1_000_000)
    assert victim.stdout is not None
    lines = [victim.stdout.readline().strip() for _ in range(30)]
    for process in (victim, other):
        process.send_signal(signal.SIGKILL)
    lines += (victim.communicate()[0] + other.communicate()[0]).splitlines()[:-1]
    with EventLog.open(path) as log:
        log.write(bought("7", "after"))
        found = {event.id for event in log.events()}
    assert {*lines, "after"} <= found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@BOTH
def test_a_forked_process_is_refused(name: str, tmp_path: Path) -> None:
    """A log that was opened before a fork says so in the child, whose locks and connection it could not use."""
    with EventLog.open(tmp_path / name) as log:
        log.write(bought("7", "o1"))
        child = os.fork()
        if not child:
            try:
                log.write(bought("7", "o2"))
            except ClosedError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        log.write(bought("7", "o3"))
    assert [event.id for event in scanned(log.path)[0]] == ["o1", "o3"]


def test_nothing_in_sqlite_is_changed_or_deleted(tmp_path: Path) -> None:
    """UPDATE, DELETE and INSERT OR REPLACE are refused by the file itself, or change nothing."""
    with EventLog.open(tmp_path / "log.db") as log:
        log.write(bought("7", "o1", 9.5))
    with closing(sqlite3.connect(log.path)) as connection:
        before = connection.execute("SELECT * FROM events").fetchall()
        for statement in (
            "UPDATE events SET value = 95",
            "DELETE FROM events",
            "INSERT OR REPLACE INTO events (seq, id, time, content, unit, kind, about) VALUES (1, 'o', 9, x'', '7', 'x', '')",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
        connection.execute(
            "REPLACE INTO events (id, content, time, unit, kind, about) SELECT id, content, 9, 'x', 'x', '' FROM events"
        )
        connection.commit()
        assert connection.execute("SELECT * FROM events").fetchall() == before


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Opening it raises and changes no byte; nor is a log of a later version written to."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE orders (id)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="something else"):
        EventLog.open(path)
    with pytest.raises(DatasetError, match="something else"):
        scanned(path)
    assert path.read_bytes() == before
    later = tmp_path / "later.db"
    EventLog.open(later).close()
    with closing(sqlite3.connect(later)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="version 99"):
        EventLog.open(later)
    with pytest.raises(DatasetError, match="version 99"):
        scanned(later)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"user,variant\n7,plain\n", "line 1: not an event"),
        (b"[1]\n", "line 1: must be a JSON object"),
        (b'{"id": "1", "time": 0, "unit": "7", "kind": "exposure"}\n', "line 1: must be a text that is not empty"),
        (b'\n{"id": "1", "time": 0, "unit": "7", "kind": "bought", "experiment": "e"}\n', "line 2: is none of the kinds"),
    ],
)
def test_a_file_that_is_no_log_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    """A line that is neither an event nor the beginning of one gives one error with file and line."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        scanned(path)


def test_bad_use_gives_one_clear_error(tmp_path: Path) -> None:
    """An unknown ending, a folder, a missing file, something that is no event, a log that was closed."""
    with pytest.raises(ConfigError, match=r"\.jsonl, \.sqlite, \.db"):
        EventLog.open(tmp_path / "log.csv")
    for name in ("folder.jsonl", "folder.db"):
        (tmp_path / name).mkdir()
        with pytest.raises(ConfigError, match="cannot be opened"):
            EventLog.open(tmp_path / name)
        with pytest.raises(DatasetError, match="no such file"):
            scanned(tmp_path / name)
    for name in ("log.jsonl", "log.db"):
        log = EventLog.open(tmp_path / name)
        with pytest.raises(InputError, match="must be events"):
            log.write({"id": "1"})  # type: ignore[arg-type]  # the mistake under test
        log.close()
        log.close()
        with pytest.raises(ClosedError, match="closed"):
            log.write(bought("7", "o1"))


@BOTH
def test_a_log_is_read_while_it_is_written(name: str, tmp_path: Path) -> None:
    """A reader sees what was there when it began, and the writer does not wait for it."""
    with EventLog.open(tmp_path / name) as log:
        log.write(*(bought(str(number), f"o{number}") for number in range(50)))
        reading = log.events()
        assert next(reading).id == "o0"
        begun = time.monotonic()
        log.write(bought("x", "later"))
        assert time.monotonic() - begun < 5
        assert [event.id for event in reading][:49] == [f"o{number}" for number in range(1, 50)]


def test_several_logs_are_read_as_one(tmp_path: Path) -> None:
    """Each machine has its own file: an event that stands in both is one."""
    for name in ("one.jsonl", "two.sqlite"):
        with EventLog.open(tmp_path / name) as log:
            log.write(exposure("recency", "7", "plain", time=1.0), bought("7", name))
    found, scan = scanned(tmp_path / "one.jsonl", tmp_path / "two.sqlite")
    assert [event.kind for event in found] == ["exposure", "outcome", "outcome"]
    assert scan.again == 1


def test_a_system_without_file_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON lines need `fcntl`; the error names the kind of log that does not, and nothing is written."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with EventLog.open(tmp_path / "log.jsonl") as log:
        with pytest.raises(SetupError, match=r"name one that ends in \.sqlite"):
            log.write(bought("7", "o1"))
        assert list(log.events()) == []


def test_a_log_is_one_file(tmp_path: Path) -> None:
    """Writers of JSON lines take turns by a lock on the file itself: nothing else stands beside it."""
    with EventLog.open(tmp_path / "log.jsonl") as log:
        log.write(bought("7", "o1"))
        assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
