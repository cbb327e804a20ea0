"""The log of events: append-only, each id once, whatever crashes and however many write."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ClosedError, ConfigError, DatasetError, InputError, SetupError
from llmrank.experiment.online import events
from llmrank.experiment.online.assignment import Assignment
from llmrank.experiment.online.events import Event, EventLog, Faults
from llmrank.experiment.online.interleaving import Interleaved

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ENDINGS = ("events.jsonl", "events.sqlite")
PLAIN = Assignment("u1", "plain", True, "assigned", "recency")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
EVENTS = st.builds(
    Event,
    id=TEXTS,
    time=st.datetimes(timezones=st.just(UTC)),
    kind=st.sampled_from(["outcome", "click"]),
    unit=TEXTS,
    name=TEXTS,
    value=st.none() | st.floats(-1e9, 1e9),
    data=st.dictionaries(TEXTS, TEXTS, max_size=2),
)


def outcome(id: str = "1", value: float = 1.0, hours: float = 0) -> Event:  # noqa: A002  # as in the code
    return Event(id, NOON + timedelta(hours=hours), "outcome", "u1", "click", value)


@pytest.fixture(params=ENDINGS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A log of either kind, in a folder that is not there yet."""
    return tmp_path / "logs" / str(request.param)


def test_what_is_written_is_read(path: Path) -> None:
    """Every kind of event with all of its fields, in order, also by another object."""
    with EventLog.open(path) as log:
        log.expose(PLAIN, time=NOON)
        log.outcome("u1", "purchase", 9.5, id="order 7", experiment="recency", variant="plain", time=NOON)
        log.impression("u2", "i1", Interleaved(("x", "y"), ("b", None)), ("plain", "recency"), experiment="recency", time=NOON)
        log.click("u2", "i1", "x", experiment="recency", time=NOON)
        found = list(log.read())
    assert found == list(EventLog.open(path).read())
    assert [(event.kind, event.unit, event.name, event.value) for event in found] == [
        ("exposure", "u1", "", None),
        ("outcome", "u1", "purchase", 9.5),
        ("impression", "u2", "i1", None),
        ("click", "u2", "i1", None),
    ]
    assert (found[0].variant, found[0].experiment, found[0].time) == ("plain", "recency", NOON)
    assert found[2].data == {"a": "plain", "b": "recency", "items": ["x", "y"], "teams": ["b", None]}
    assert found[3].data == {"item": "x"}


def test_kinds_are_chosen(path: Path) -> None:
    """`read` gives the kinds asked for."""
    with EventLog.open(path) as log:
        log.expose(PLAIN)
        log.outcome("u1", "click")
        assert [event.kind for event in log.read(["outcome"])] == ["outcome"]


def test_a_user_is_exposed_once(path: Path) -> None:
    """However often, at whatever time, from whichever object; an exposure of another variant is another event."""
    for _ in range(2):
        with EventLog.open(path) as log:
            for hours in range(3):
                log.expose(PLAIN, time=NOON + timedelta(hours=hours))
            log.expose(Assignment("u1", "recency", True, "assigned", "recency"), time=NOON)
            log.expose(Assignment("u2", "plain", False, "holdout", "recency"))
    found = list(EventLog.open(path).read())
    assert [(event.unit, event.variant, event.time) for event in found] == [("u1", "plain", NOON), ("u1", "recency", NOON)]


def test_only_what_is_new_counts(path: Path) -> None:
    """`append` and `extend` say what the log did not have; the first time stays."""
    with EventLog.open(path) as log:
        assert log.append(outcome("1"))
        assert not log.append(outcome("1", hours=1))
        assert log.extend([outcome("1"), outcome("2"), outcome("2"), outcome("3")]) == 2
        assert [event.id for event in log.read()] == ["1", "2", "3"]
        assert next(log.read()).time == NOON


def test_outcomes_are_new_unless_they_have_an_id(path: Path) -> None:
    """Two clicks are two; an order that is sent again is one, and is another in another experiment."""
    with EventLog.open(path) as log:
        assert [log.outcome("u1", "click"), log.outcome("u1", "click")] == [True, True]
        assert [log.outcome("u1", "order", 5, id="7"), log.outcome("u1", "order", 5, id="7")] == [True, False]
        assert log.outcome("u1", "order", 5, id="7", experiment="recency")


def test_an_id_that_says_something_else_is_refused(path: Path) -> None:
    """Nothing of the batch is written then."""
    with EventLog.open(path) as log:
        log.append(outcome("1"))
        for batch in ([outcome("2"), outcome("1", value=2.0)], [outcome("2"), outcome("2", value=2.0)]):
            with pytest.raises(InputError, match=r"id: another event that says something else has this id"):
                log.extend(batch)
        assert [event.id for event in log.read()] == ["1"]


def test_an_id_of_another_process_that_says_something_else_is_told(path: Path) -> None:
    """SQLite refuses it when it is written, JSONL tells when it is read; either way the first event counts."""
    with EventLog.open(path) as one, EventLog.open(path) as other:
        one.append(outcome("1"))
        if path.suffix == ".sqlite":
            with pytest.raises(InputError, match="has this id"):
                other.extend([outcome("2"), outcome("1", value=2.0)])
            assert list(one.read()) == [outcome("1")]
            return
        other.append(outcome("1", value=2.0))
        with pytest.warns(RuntimeWarning, match=r"1 events have the id of another that says something else; left out: 1\."):
            assert list(one.read()) == [outcome("1")]


def test_memory_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that are no longer remembered are found again: by SQLite when written, by JSONL when read."""
    monkeypatch.setattr(events, "REMEMBERED", 2)
    with EventLog.open(path) as log:
        log.extend([outcome(str(number)) for number in range(5)])
        assert list(log._recent) == ["3", "4"]
        assert log.append(outcome("0")) == (path.suffix == ".jsonl")
        faults = Faults()
        assert [event.id for event in log.read(faults=faults)] == ["0", "1", "2", "3", "4"]
        assert (faults.repeated, faults.sentences()) == (int(path.suffix == ".jsonl"), [])


@pytest.mark.parametrize("ending", ENDINGS)
@settings(max_examples=40, deadline=None)
@given(st.lists(EVENTS, max_size=6, unique_by=lambda event: event.id), st.data())
def test_any_order_of_repetitions_is_the_same_log(ending: str, sent: list[Event], data: st.DataObject) -> None:
    """Events that are sent several times, by two writers, in batches, are those events in the order of their first time."""
    with TemporaryDirectory() as folder:
        one, other = EventLog.open(Path(folder) / ending), EventLog.open(Path(folder) / ending)
        order = data.draw(st.lists(st.sampled_from(sent), max_size=15)) if sent else []
        position = 0
        while position < len(order):
            batch = order[position : position + data.draw(st.integers(1, 4))]
            data.draw(st.sampled_from([one, other])).extend(batch)
            position += len(batch)
        faults = Faults()
        found = list(one.read(faults=faults))
        one.close()
        other.close()
    assert found == list(dict.fromkeys(order))
    assert (faults.torn, faults.conflicting) == (0, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=4, unique_by=lambda event: event.id), st.data())
def test_a_crash_at_any_byte_keeps_every_whole_event(sent: list[Event], data: st.DataObject) -> None:
    """A file that is cut anywhere holds the events before the cut, and takes new ones that are not joined to what was torn."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        with EventLog.open(path) as log:
            log.extend(sent)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        kept = [event for number, event in enumerate(sent) if len(b"\n".join(whole.split(b"\n")[: number + 1])) <= cut]
        faults = Faults()
        later = Event("a later event", NOON, "outcome", "u")
        with EventLog.open(path) as log:
            assert list(log.read(faults=faults)) == kept
            torn = faults.torn
            log.append(later)
            log.extend(sent)
            faults = Faults()
            found = list(log.read(faults=faults))
        assert found == [*kept, later, *(event for event in sent if event not in kept)]
        assert faults.torn == torn <= 1
        assert path.read_bytes().startswith(whole[:cut])


def test_a_torn_line_is_told(tmp_path: Path) -> None:
    """Who reads without asking for faults is warned."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"id": "1", "time": "2026-01-', encoding="utf-8")
    with EventLog.open(path) as log, pytest.warns(RuntimeWarning, match="1 lines of the log were not written to their end"):
        assert list(log.read()) == []


@pytest.mark.parametrize("line", ["7", "[]", '{"id": "1"}', '{"id": "1", "time": "2026-01-01", "kind": "click", "unit": "u"}'])
def test_a_line_that_is_no_event_is_named(tmp_path: Path, line: str) -> None:
    """Another program's lines are not passed over."""
    path = tmp_path / "log.jsonl"
    path.write_text(f"\n{line}\n", encoding="utf-8")
    with EventLog.open(path) as log, pytest.raises(DatasetError, match=r"log\.jsonl, line 2: not an event"):
        list(log.read())


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes half a line: it is taken back, the error is raised, and the event can be sent again."""
    write = os.write

    def full(file: int, data: bytes) -> int:
        if file != log._file:  # type: ignore[attr-defined]  # a JSONL log has one
            return write(file, data)
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return write(file, bytes(data)[: len(data) // 2])

    with EventLog.open(tmp_path / "log.jsonl") as log:
        log.append(outcome("1"))
        before = log.path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                log.append(outcome("2"))
        assert log.path.read_bytes() == before
        assert log.append(outcome("2"))
        assert len(list(log.read())) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET value = 2",
        "DELETE FROM events",
        "INSERT OR REPLACE INTO events (id, time, kind, unit, content) VALUES ('1', 't', 'outcome', 'other', x'00')",
        "INSERT OR REPLACE INTO events (number, id, time, kind, unit, content) VALUES (1, '9', 't', 'outcome', 'other', x'00')",
        "INSERT INTO events (id, time, kind, unit, content) VALUES ('1', 't', 'x', 'other', x'00') "
        "ON CONFLICT DO UPDATE SET unit = 'x'",
    ],
)
def test_rows_can_neither_be_changed_nor_deleted(tmp_path: Path, statement: str) -> None:
    """Not by another program, either: the file itself refuses or ignores it."""
    path = tmp_path / "log.sqlite"
    with EventLog.open(path) as log:
        log.append(outcome("1"))
        connection = sqlite3.connect(path)
        try:
            connection.execute(statement)
            connection.commit()
        except sqlite3.IntegrityError as error:
            assert "append-only" in str(error)  # noqa: PT017  # some statements are ignored and not refused
        finally:
            connection.close()
        assert list(log.read()) == [outcome("1")]


WRITER = """
import sys
from datetime import UTC, datetime
from llmrank.experiment.online.events import Event, EventLog
log = EventLog.open(sys.argv[1])
for number in range(200):
    data = {"long": "x" * (number * 37 % 5000)}
    log.append(Event(f"shared {number}", datetime.now(UTC), "outcome", "u", "click", 1.0, data=data))
    log.append(Event(f"{sys.argv[2]} {number}", datetime.now(UTC), "outcome", "u", "click"))
"""


def test_processes_share_a_log(path: Path) -> None:
    """Three write at once, each 200 events of its own and 200 that all send: 800 events, none torn, none twice."""
    path.parent.mkdir()
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)]) for number in range(3)]
    assert [each.wait() for each in running] == [0, 0, 0]
    faults = Faults()
    with EventLog.open(path) as log:
        found = [event.id for event in log.read(faults=faults)]
    assert len(found) == len(set(found)) == 800
    assert faults.sentences() == []


def test_threads_share_a_log(path: Path) -> None:
    """Four threads send the same 100 events: 100 are new, whoever was first."""
    counts: list[int] = []
    with EventLog.open(path) as log:

        def send() -> None:
            counts.append(sum(log.append(outcome(str(number))) for number in range(100)))

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(counts) == 100
        assert len(list(log.read())) == 100


def _child(log: EventLog) -> None:
    log.append(outcome("child"))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_log_survives_a_fork(path: Path) -> None:
    """A server that opens the log and then forks its workers: each writes by a file of its own."""
    with EventLog.open(path) as log:
        log.append(outcome("before"))
        worker = multiprocessing.get_context("fork").Process(target=_child, args=(log,))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        log.append(outcome("after"))
        assert [event.id for event in log.read()] == ["before", "child", "after"]


def test_each_event_can_be_on_disk_before_the_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `sync`, a JSONL log syncs each write, and SQLite each transaction."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with EventLog.open(path, sync=True) as log:
        log.append(outcome("1"))
        if path.suffix == ".sqlite":
            assert log._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # type: ignore[attr-defined]  # a SQLite log's
        else:
            assert len(synced) == 1


def test_a_log_that_is_closed_takes_no_more(path: Path) -> None:
    """Also an exposure that it remembers; it can be closed twice."""
    log = EventLog.open(path)
    log.expose(PLAIN)
    log.close()
    log.close()
    for call in (lambda: log.expose(PLAIN), lambda: log.append(outcome())):
        with pytest.raises(ClosedError, match="has been closed"):
            call()


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    """By its ending, its place, or what it holds."""
    with pytest.raises(ConfigError, match=r"log: unknown ending .*; use one of: .jsonl, .sqlite, .db"):
        EventLog.open(tmp_path / "log.csv")
    (tmp_path / "text.db").write_text("no database, but long enough to look like one " * 20, encoding="utf-8")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("text.db", "folder.jsonl"):
        with pytest.raises(ConfigError, match="log: cannot be opened as a log"):
            EventLog.open(tmp_path / name)
    connection = sqlite3.connect(tmp_path / "other.db")
    connection.execute("CREATE TABLE events (id TEXT, number INTEGER)")
    connection.close()
    with pytest.raises(ConfigError, match=r"log: cannot be opened as a log .no such column"):
        EventLog.open(tmp_path / "other.db")


def test_a_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSONL needs `fcntl`; the error names the other kind."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with EventLog.open(tmp_path / "log.jsonl") as log, pytest.raises(SetupError, match=r"use one that ends in \.sqlite"):
        log.append(outcome())


def test_times_are_kept_in_utc() -> None:
    """A time of another zone is the same moment."""
    given = datetime(2026, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))
    assert Event("1", given, "click", "u").record()["time"] == "2026-01-01T12:00:00.000000+00:00"


def test_the_time_is_no_content() -> None:
    """An event that is sent again later is the same; one with another value is not."""
    assert outcome(hours=1).content == outcome().content == outcome("2").content
    assert outcome(value=2).content != outcome().content


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Event("", NOON, "click", "u"), "id: must be a text"),
        (lambda: Event("1", NOON, "click", 7), "unit: must be a text"),  # type: ignore[arg-type]  # refused
        (lambda: Event("1", NOON, "click", "\ud800"), "unit: holds half a surrogate pair"),
        (lambda: Event("1", NOON, "clik", "u"), "kind: unknown"),  # type: ignore[arg-type]  # refused
        (lambda: Event("1", datetime(2026, 1, 1), "click", "u"), "time: must be a time with a zone"),
        (lambda: Event("1", NOON, "outcome", "u", value=float("nan")), "value: must be a finite number"),
        (lambda: Event("1", NOON, "outcome", "u", value="5"), "value: must be a finite number"),  # type: ignore[arg-type]  # refused
        (lambda: Event("1", NOON, "click", "u", data={"x": {1}}).content, "data: is no JSON"),
        (lambda: Event("1", NOON, "click", "u", data={"x": float("inf")}).content, "data: is no JSON"),
    ],
)
def test_an_event_is_checked(call: Callable[[], Any], words: str) -> None:
    """One error with field, value and fix."""
    with pytest.raises(InputError, match=words):
        call()


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    """Other programs read the log: one object a line, what is empty left out."""
    with EventLog.open(tmp_path / "log.jsonl") as log:
        log.append(replace(outcome("1"), unit="ü"))
    (line,) = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "id": "1",
        "time": "2026-01-01T12:00:00.000000+00:00",
        "kind": "outcome",
        "unit": "ü",
        "name": "click",
        "value": 1.0,
    }
