"""Catalog: item files in, items by id out."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmrank import Catalog, Item
from llmrank.errors import CatalogError, UnknownItemError

ROWS: list[dict[str, object]] = [
    {"id": "603", "title": "The Matrix", "year": 1999},
    {"id": "604", "title": "The Matrix Reloaded", "year": None},
]
ITEMS = [Item("603", "The Matrix", {"year": 1999}), Item("604", "The Matrix Reloaded")]


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_jsonl_csv_parquet_and_frames_give_the_same_items(tmp_path: Path) -> None:
    """Every format gives the same items; columns beside id and title are attributes, empty ones are left out."""
    jsonl = write_jsonl(tmp_path / "items.jsonl", ROWS)
    zipped = tmp_path / "items.jsonl.gz"
    zipped.write_bytes(gzip.compress(jsonl.read_bytes()))
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "items.parquet")
    for catalog in (
        Catalog.load(jsonl),
        Catalog.load(zipped),
        Catalog.load(tmp_path / "items.parquet"),
        Catalog.from_frame(table),
    ):
        assert list(catalog) == ITEMS


def test_csv_attributes_are_texts(tmp_path: Path) -> None:
    """CSV knows no types: attributes stay texts; a byte order mark and quoted line breaks do no harm."""
    path = tmp_path / "items.csv"
    path.write_bytes('\ufeffid,title,year\n603,"The\nMatrix",1999\n604,"Reloaded, The",\n'.encode())
    assert list(Catalog.load(path)) == [Item("603", "The\nMatrix", {"year": "1999"}), Item("604", "Reloaded, The")]


def test_whole_numbers_become_id_texts(tmp_path: Path) -> None:
    """Data frames often hold ids as integers; they are looked up as texts."""
    assert Catalog.load(write_jsonl(tmp_path / "items.jsonl", [{"id": 7, "title": "Seven"}]))["7"].title == "Seven"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"title": "no id"}', "needs an id"),
        ('{"id": true, "title": "a truth value"}', "needs an id"),
        ('{"id": "9"}', "needs a title"),
        ('{"id": "603", "title": "again"}', "stands twice"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path: Path, line: str, said: str) -> None:
    """Whatever is wrong with a line, one line of message names the file, the line's number and the fault."""
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n\n" + line + "\n", encoding="utf-8")
    with pytest.raises(CatalogError) as raised:
        Catalog.load(path)
    assert f"{path}, line 3: " in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_csv_line_with_too_many_columns_is_refused(tmp_path: Path) -> None:
    """A comma that nobody quoted would shift every column: the line is named instead."""
    path = tmp_path / "items.csv"
    path.write_text("id,title\n1,Me, Myself and Irene\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="line 2: not as many columns"):
        Catalog.load(path)


@pytest.mark.parametrize("name", ["items.xlsx", "items", "missing.jsonl"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    """An unknown ending and a missing file are told apart from a bad line."""
    with pytest.raises(CatalogError, match=name):
        Catalog.load(tmp_path / name)


def test_bytes_that_are_no_text_or_no_parquet_are_refused(tmp_path: Path) -> None:
    """A Latin-1 file and a broken Parquet file give one clear error each."""
    (tmp_path / "items.jsonl").write_bytes('{"id": "1", "title": "Amélie"}'.encode("latin-1"))
    with pytest.raises(CatalogError, match="UTF-8"):
        Catalog.load(tmp_path / "items.jsonl")
    (tmp_path / "items.parquet").write_bytes(b"not parquet")
    with pytest.raises(CatalogError, match="Parquet"):
        Catalog.load(tmp_path / "items.parquet")


def test_brackets_without_end_are_no_traceback(tmp_path: Path) -> None:
    """JSON nested deeper than Python reads is a bad line like any other."""
    path = tmp_path / "items.jsonl"
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(CatalogError, match="line 1: not JSON"):
        Catalog.load(path)


def test_a_damaged_compressed_file_is_named(tmp_path: Path) -> None:
    """Bits that flipped inside, a cut-off end and a file that was never compressed: one error each."""
    whole = gzip.compress("".join(f'{{"id": "{n}", "title": "abc {n * 7919}"}}\n' for n in range(2000)).encode())
    flipped = bytes(byte ^ 0x5A if 60 <= at < 400 else byte for at, byte in enumerate(whole))
    path = tmp_path / "items.jsonl.gz"
    for data in (flipped, whole[:500], b'{"id": "1", "title": "One"}'):
        path.write_bytes(data)
        with pytest.raises(CatalogError, match=r"items\.jsonl\.gz: the compressed file is damaged"):
            Catalog.load(path)


@pytest.mark.parametrize("name", ["items.jsonl", "items.csv", "items.parquet"])
def test_a_folder_is_no_item_file(tmp_path: Path, name: str) -> None:
    """What the system says when it is opened stands in one error, whatever the format."""
    (tmp_path / name).mkdir()
    with pytest.raises(CatalogError, match=f"{name}.*"):
        Catalog.load(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open everything")
@pytest.mark.parametrize("name", ["items.jsonl", "items.csv", "items.parquet"])
def test_a_file_that_may_not_be_opened_is_named(tmp_path: Path, name: str) -> None:
    """Without the right to read it: one error, whatever the format."""
    (tmp_path / name).touch(mode=0)
    with pytest.raises(CatalogError, match="Permission denied"):
        Catalog.load(tmp_path / name)


@pytest.mark.parametrize("item_id", [5, None, ["603"], {}])
def test_what_is_no_text_is_no_id(item_id: Any) -> None:
    """A number or a list is not in the catalogue, and the message says that ids are texts."""
    with pytest.raises(UnknownItemError, match="ids are texts"):
        Catalog(ITEMS).get(item_id)


def test_a_catalogue_of_something_else_is_refused() -> None:
    """Tuples are no Items."""
    wrong: Any = [("603", "The Matrix")]
    with pytest.raises(CatalogError, match="not an Item"):
        Catalog(wrong)


def test_an_unknown_id_names_the_nearest() -> None:
    """A mistyped id is answered with the nearest known one."""
    catalog = Catalog([Item("tt0133093", "The Matrix"), Item("tt0234215", "The Matrix Reloaded")])
    with pytest.raises(UnknownItemError, match="did you mean 'tt0133093'"):
        catalog["tt0133903"]


def test_the_items_of_a_catalogue_are_one_object() -> None:
    """An index is kept for the tuple `items`, so it must not be made anew at each call."""
    catalog = Catalog(ITEMS)
    assert catalog.items is catalog.items
    assert len(catalog) == 2
    assert "603" in catalog


def test_something_that_is_no_table_is_refused() -> None:
    """A list is no data frame, and the message says what is."""
    with pytest.raises(CatalogError, match="data frame"):
        Catalog.from_frame(42)
