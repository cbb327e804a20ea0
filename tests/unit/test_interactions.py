"""Interactions: every format gives the same columns, and what is wrong is named by file and line."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import DatasetError
from llmrank.interactions import Interaction, Interactions, formats

ROWS = [Interaction("u", "i1", 5.0, 4.0), Interaction("ü", "i2", 1_000_000_006.5), Interaction("u", "i2", -7.0, 0.5)]
TABLE = [("u", "i1", "5", "4"), ("ü", "i2", "1000000006.5", ""), ("u", "i2", "-7", "0.5")]
HEADER = ("user_id", "item_id", "timestamp", "rating")


def joined(separator: str, header: tuple[str, ...] = HEADER) -> str:
    """The table as text."""
    return "".join(separator.join(row) + "\n" for row in (header, *TABLE))


def json_rows() -> str:
    """One interaction a line."""
    return "".join(
        json.dumps({"user_id": row.user_id, "item_id": row.item_id, "timestamp": row.timestamp, "rating": row.rating}) + "\n"
        for row in ROWS
    )


@pytest.fixture(params=["with pyarrow", "without pyarrow"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Text files are read by pyarrow where it is installed, and otherwise by Python: tests hold for both."""
    if request.param == "without pyarrow":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return str(request.param)


FILES: dict[str, str] = {
    "log.csv": joined(","),
    "log.tsv": joined("\t"),
    "log.jsonl": json_rows(),
    "log.inter": joined("\t", ("user_id:token", "item_id:token", "timestamp:float", "rating:float")),
    "ratings.csv": joined(",", ("userId", "movieId", "timestamp", "rating")),
}


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize(("name", "text"), FILES.items())
def test_every_text_format_gives_the_same_rows(name: str, text: str, packed: bool, tmp_path: Path) -> None:
    """In the order of the file; a missing rating stays missing."""
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = Interactions.load(path)
    assert list(found.rows()) == ROWS
    assert (found.users, found.items) == (("u", "ü"), ("i1", "i2"))
    assert found.name == str(path)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("u.data", "7\t1\t3\t881250949\n9\t4\t5\t881250950\n"),
        ("ratings.dat", "7::1::3::881250949\n9::4::5::881250950\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n7,1,3.0,881250949\n9,4,5.0,881250950\n"),
    ],
)
def test_movielens_folders_are_known_by_their_files(name: str, text: str, tmp_path: Path) -> None:
    """100K; 1M and 10M; all later ones."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(Interactions.load(tmp_path).rows()) == [
        Interaction("7", "1", 881250949.0, 3.0),
        Interaction("9", "4", 881250950.0, 5.0),
    ]


def test_a_history_tells_the_order_alone(tmp_path: Path) -> None:
    """One user a line; there are no times then, and no ratings."""
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"user_id": 1, "history": ["b", 603]}\n{"user_id": "e", "history": []}\n{"user_id": "2", "history": ["b"]}\n',
        encoding="utf-8",
    )
    found = Interactions.load(path)
    assert (found.timestamp, found.rating) == (None, None)
    assert [(each.user_id, each.item_id) for each in found.rows()] == [("1", "b"), ("1", "603"), ("2", "b")]


def as_parquet(columns: dict[str, Any], path: Path) -> Interactions:
    """Through a Parquet file."""
    pq.write_table(pa.table(columns), path)
    return Interactions.load(path)


@pytest.mark.parametrize(
    "read", [as_parquet, lambda columns, _: Interactions.from_frame(pa.table(columns))], ids=["parquet", "frame"]
)
@pytest.mark.parametrize(
    ("users", "times"),
    [
        (pa.array(["7", "8"]), pa.array([5.0, 6.5])),
        (pa.array([7, 8]), pa.array([datetime.fromtimestamp(each, UTC) for each in (5.0, 6.5)])),
        (pa.array(["7", "8"]).dictionary_encode(), pa.array([5_000_000_001, 6_500_000_000], pa.timestamp("ns"))),
    ],
    ids=["texts and seconds", "numbers and times", "dictionaries and nanoseconds"],
)
def test_arrow_columns_of_all_usual_types_are_read(
    users: pa.Array, times: pa.Array, read: Callable[[dict[str, Any], Path], Interactions], tmp_path: Path
) -> None:
    """Ids as texts or whole numbers; times as Unix seconds or points in time; other columns do not matter."""
    table = {
        "note": ["x", "y"],
        "rating": pa.array([None, 3], pa.int8()),
        "user_id": users,
        "item_id": [1, 2],
        "timestamp": times,
    }
    found = read(table, tmp_path / "log.parquet")
    assert list(found.rows()) == [Interaction("7", "1", 5.0), Interaction("8", "2", 6.5, 3.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_id": ["a", None]}, r"user_id: data frame, row 2: an id is empty"),
        ({"user_id": ["", "b"]}, r"user_id: data frame, row 1: an id is empty"),
        ({"item_id": [1.5, 2.0]}, r"item_id: .*texts or whole numbers .*double"),
        ({"timestamp": ["monday", "tuesday"]}, r"timestamp: .*must be a number .*string"),
        ({"timestamp": [1.0, None]}, r"timestamp: data frame, row 2: is missing or not finite"),
        ({"timestamp": [math.inf, 1.0]}, r"timestamp: data frame, row 1: is missing or not finite"),
        ({"rating": [1.0, -math.inf]}, r"rating: data frame, row 2: is not finite"),
    ],
    ids=str,
)
def test_a_wrong_row_of_a_frame_is_named_by_its_number(change: dict[str, Any], message: str) -> None:
    """Counted from 1."""
    table = pa.table({"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1, 2]} | change)
    with pytest.raises(DatasetError, match=message):
        Interactions.from_frame(table)


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    """As a frame, and as a Parquet file."""
    with pytest.raises(DatasetError, match=r"frame: not a table that Arrow can read"):
        Interactions.from_frame([1, 2])
    with pytest.raises(DatasetError, match=r"a column is missing"):
        Interactions.from_frame(pa.table({"user_id": ["a"]}))
    (tmp_path / "log.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DatasetError, match=r"log\.parquet: cannot be read as Parquet"):
        Interactions.load(tmp_path / "log.parquet")


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id\nu,i1\n", "a column is missing .* timestamp"),
        ("user_id,item_id,timestamp\nu,i1,yesterday\n", r", line 2: could not convert string to float"),
        ("user_id,item_id,timestamp\nu,i1,5\n\n,i1,5\n", r", line 4: an id is empty"),
        ("user_id,item_id,timestamp\nu,i1\n", r", line 2: a row has too few or too many columns"),
        ("user_id,item_id,timestamp\nu,i1,5\nu,i1,5,6\n", r", line 3: a row has too few or too many columns"),
        ("user_id,item_id,timestamp\nu,i1,\n", r", line 2: could not convert"),
        ("user_id,item_id,timestamp\nu,i1,5\nu,i1,nan\n", r", line 3: 'nan' is not finite"),
        ("user_id,item_id,timestamp\nu,i1,1e999\n", r", line 2: '1e999' is not finite"),
        ("user_id,item_id,timestamp,rating\nu,i1,5,-inf\n", r", line 2: '-inf' is not finite"),
        ("user_id,item_id,timestamp,rating\nu,i1,5,nan\n", r", line 2: 'nan' is not finite"),
        ('user_id,item_id,timestamp\n"u\n2",i1,5\nu,"i1"x,\n', r", line 4: could not convert"),
        ('user_id,item_id,timestamp\nu,i1,5\nu,"i1,5\nu,i1,6\n', r", line 4: a row has too few or too many columns"),
        (f"user_id,item_id,timestamp\nu,i1,5\nu,{'x' * 200_000},y\n", r", line 3: not CSV"),
        (f"user_id,{'x' * 200_000}\n", r", line 1: not CSV"),
        ("", "a column is missing"),
        ("user_id,item_id,timestamp\n", "holds no interactions"),
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_row_is_named_by_file_and_line(text: str, message: str, tmp_path: Path) -> None:
    """One error with the line number, whoever reads the file."""
    path = tmp_path / "log.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        Interactions.load(path)


@pytest.mark.usefixtures("reader")
def test_a_wrong_row_far_down_is_named_by_its_line(tmp_path: Path) -> None:
    """Also beyond the rows that are read at a time."""
    path = tmp_path / "log.csv"
    rows = [f"u{number % 7},i{number % 5},{number}" for number in range(100_000)]
    rows[90_000] = "u1,i1,x"
    path.write_text("\n".join(["user_id,item_id,timestamp", *rows]), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"log\.csv, line 90002: could not convert"):
        Interactions.load(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r", line 2: not JSON"),
        ('{"user_id": "u", "history": "i1"}', r"history: .*, line 2: must be a list of ids"),
        ('{"user_id": "u", "history": ["i1", ""]}', r", line 2: an id is empty"),
        ('{"user_id": "first", "history": []}', r"user_id: .*, line 2: the user has a line already"),
        ('{"user_id": "u", "item_id": "i", "timestamp": 1}', r"history: .*, line 2: must be a list of ids"),
    ],
)
def test_a_malformed_history_is_named_by_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    """Also one of a user who had a line before: their order would not be known."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": "first", "history": ["i1"]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        Interactions.load(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user_id": "u", "item_id": "i"}', r"timestamp: .*, line 2: must be a finite number"),
        ('{"user_id": "u", "item_id": "i", "timestamp": "5"}', r"timestamp: .*, line 2: must be a finite number"),
        ('{"user_id": "u", "item_id": "i", "timestamp": NaN}', r"timestamp: .*, line 2: must be a finite number"),
        ('{"user_id": "u", "item_id": "i", "timestamp": 1, "rating": true}', r"rating: .*, line 2: must be a finite number"),
        ('{"user_id": "u", "item_id": null, "timestamp": 1}', r"item_id: .*, line 2"),
        ('{"user_id": "", "item_id": "i", "timestamp": 1}', r", line 2: an id is empty"),
    ],
)
def test_a_malformed_json_row_is_named_by_file_and_line(line: str, message: str, tmp_path: Path) -> None:
    """One error with the line number."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": "u", "item_id": 1, "timestamp": 5}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        Interactions.load(path)


def test_files_that_cannot_be_read_are_input_errors(tmp_path: Path) -> None:
    """Missing, of an unknown kind, an unknown folder, not UTF-8: never an OSError."""
    with pytest.raises(DatasetError, match="cannot be read"):
        Interactions.load(tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="cannot be read"):
        Interactions.load(tmp_path / "none.parquet")
    with pytest.raises(DatasetError, match=r"log\.xlsx: unknown kind of file.*\.inter"):
        Interactions.load(tmp_path / "log.xlsx")
    with pytest.raises(DatasetError, match=r"no known file in the folder.*u\.data"):
        Interactions.load(tmp_path)
    (tmp_path / "log.csv").write_bytes(b"user_id,item_id,timestamp\n\xff,i,1\n")
    with pytest.raises(DatasetError, match=r"cannot be read as UTF-8"):
        Interactions.load(tmp_path / "log.csv")


FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=5)


@given(
    rows=st.lists(
        st.tuples(FIELDS, FIELDS, st.floats(-1e12, 1e12), st.none() | st.floats(-5, 5, width=32)), min_size=1, max_size=9
    )
)
def test_pyarrow_and_python_read_the_same_of_any_csv(
    rows: list[tuple[str, str, float, float | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Quotes, separators and line breaks in ids included."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows(
        [HEADER, *((user, item, repr(time), "" if rating is None else rating) for user, item, time, rating in rows)]
    )
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    fast = Interactions.load(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        slow = Interactions.load(path)
    assert list(fast.rows()) == list(slow.rows()) == [Interaction(*row) for row in rows]


def test_pyarrow_reads_a_usual_file_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise its speed would be lost without a sign: Python's part is not reached."""
    path = tmp_path / "ratings.csv"
    path.write_text(FILES["ratings.csv"], encoding="utf-8")
    monkeypatch.setattr(formats, "_columns", None)
    assert list(Interactions.load(path).rows()) == ROWS


def test_columns_cannot_be_changed_and_fit_each_other() -> None:
    """A frozen object, whose arrays are read-only and of one length."""
    found = Interactions.of(ROWS)
    assert len(found) == 3
    assert (found.user.itemsize, found.item.itemsize) == (4, 4)
    assert found.timestamp is not None
    assert found.rating is not None
    assert (found.timestamp.itemsize, found.rating.itemsize) == (8, 4)
    with pytest.raises(ValueError, match="read-only"):
        found.user[0] = 1
    with pytest.raises(DatasetError, match="item: must be as long as `user`"):
        Interactions(("u",), ("i",), np.zeros(2, np.int32), np.zeros(1, np.int32))


def test_no_interactions_are_possible_in_a_program() -> None:
    """A file without any is a mistake; an empty list need not be one."""
    found = Interactions.of([])
    assert (len(found), found.users, list(found.rows())) == (0, (), [])


def test_a_time_that_orders_nothing_is_refused() -> None:
    """Also where a program gives it."""
    with pytest.raises(DatasetError, match=r"timestamp: interactions: must be finite .*i2"):
        Interactions.of([*ROWS[:1], Interaction("u", "i2", math.nan)])
