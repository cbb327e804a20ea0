"""Items by id: an item file (JSONL, CSV, Parquet) or a data frame goes in, a Catalog comes out."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from llmrank.errors import CatalogError, SetupError, UnknownItemError
from llmrank.types import Item

FORMATS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


class Catalog:
    """All known items, in the order given, found by id.

    Args:
        items: The items; no id twice.

    Raises:
        CatalogError: something is no Item, or an id is empty or stands twice.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._init(_Row(item, "") for item in items)

    def _init(self, rows: Iterable[_Row]) -> None:
        by_id: dict[str, Item] = {}
        for row in rows:
            item = row.item
            if item.id in by_id:
                raise CatalogError(
                    f"{row.where}the item id stands twice", field="id", value=item.id, fix="give every item an id of its own"
                )
            by_id[item.id] = item
        self._by_id = by_id
        self._items = tuple(by_id.values())

    @property
    def items(self) -> tuple[Item, ...]:
        """All items, in the order given. Always the same object, so that an index can be kept for it."""
        return self._items

    @cached_property
    def attribute_names(self) -> frozenset[str]:
        """The names of all attributes that any item has."""
        return frozenset(name for item in self._items for name in item.attributes)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._by_id

    def __getitem__(self, item_id: str) -> Item:
        return self.get(item_id)

    def get(self, item_id: str, field: str = "item id") -> Item:
        """The item with this id.

        Args:
            item_id: A catalogue id.
            field: Where the id came from, for the message.

        Raises:
            UnknownItemError: the catalogue has no such id; the message names the nearest one.
        """
        try:
            return self._by_id[item_id]
        except (KeyError, TypeError):  # TypeError: what cannot be a key at all
            raise UnknownItemError("not in the catalogue", field=field, value=item_id, fix=self._nearest(item_id)) from None

    def _nearest(self, item_id: object) -> str:
        if not isinstance(item_id, str):
            return "ids are texts: write '603', not 603"
        # rapidfuzz rather than difflib: a catalogue may hold a million ids.
        from rapidfuzz import process

        found = process.extractOne(item_id, self._by_id.keys(), score_cutoff=60)
        size = f"it holds {len(self):,} items"
        return f"{size}; did you mean {found[0]!r}?" if found else size

    @classmethod
    def load(cls, path: str | Path) -> Catalog:
        """Reads an item file; its ending tells the format (`FORMATS`; ``.gz`` may follow the text formats).

        Every row has ``id`` and ``title``; all other columns become attributes.

        Raises:
            CatalogError: the file is missing, unreadable, of an unknown format, or a row is wrong (file and line are named).
            SetupError: the format is Parquet and pyarrow is not installed.
        """
        path = Path(path)
        suffixes = [suffix.lower() for suffix in path.suffixes]
        if suffixes[-1:] == [".gz"]:
            suffixes.pop()
        kind = suffixes[-1] if suffixes else ""
        if kind not in FORMATS:
            raise CatalogError(
                "unknown kind of item file", field="catalog", value=str(path), fix=f"use one of {', '.join(FORMATS)}"
            )
        with _reading(path):
            if kind == ".parquet":
                return cls._from_rows(_parquet_rows(path))
            with _open_text(path) as lines:
                return cls._from_rows(
                    _jsonl_rows(lines, path) if kind in (".jsonl", ".ndjson") else _csv_rows(lines, path, kind)
                )

    @classmethod
    def from_frame(cls, frame: Any) -> Catalog:
        """Reads a data frame or table: whatever speaks Arrow (pandas >= 2.2, polars, pyarrow, DuckDB results).

        Raises:
            CatalogError: it is no table, or a row is wrong (the row's number is named).
            SetupError: pyarrow is not installed.
        """
        pyarrow = _pyarrow()
        try:
            table = pyarrow.table(frame)
        except (TypeError, ValueError, pyarrow.ArrowInvalid) as error:
            raise CatalogError(
                f"not a table that Arrow can read ({error})", field="frame", value=type(frame).__name__, fix="give a data frame"
            ) from error
        return cls._from_rows(_table_rows(table.to_batches(), "data frame"))

    @classmethod
    def _from_rows(cls, rows: Iterable[_Row]) -> Catalog:
        catalog = cls.__new__(cls)
        catalog._init(rows)
        return catalog


class _Row:
    """An item and where it stands, as the beginning of a message (``items.jsonl, line 3: ``)."""

    __slots__ = ("item", "where")

    def __init__(self, item: Item, where: str) -> None:
        if not isinstance(item, Item):
            raise CatalogError(f"{where}not an Item", field="items", value=item, fix="give Item(id, title) objects")
        self.item, self.where = item, where
        if not isinstance(item.id, str) or not item.id:
            raise CatalogError(f"{where}an item id is a text that is not empty", field="id", value=item.id, fix="give it one")
        if not isinstance(item.title, str):
            raise CatalogError(f"{where}a title is a text", field="title", value=item.title, fix=f"mend item {item.id!r}")


def make_item(row: Mapping[str, Any], where: str) -> Item:
    """An Item from one row of a file: `id` (text or whole number), `title`, all else as attributes (None is left out).

    Raises:
        CatalogError: `id` or `title` is missing or of the wrong kind.
    """
    item_id, title = row.get("id"), row.get("title")
    if isinstance(item_id, int) and not isinstance(item_id, bool):
        item_id = str(item_id)
    if not isinstance(item_id, str) or not item_id:
        raise CatalogError(f"{where}needs an id", field="id", value=item_id, fix="each row has `id` and `title`")
    if not isinstance(title, str):
        raise CatalogError(
            f"{where}item {item_id!r} needs a title", field="title", value=title, fix="each row has `id` and `title`"
        )
    attributes = {key: value for key, value in row.items() if key not in ("id", "title") and value is not None}
    return Item(item_id, title, attributes)


def _open_text(path: Path) -> IO[str]:
    # utf-8-sig: spreadsheet programs put a byte order mark before the first column's name.
    if path.suffix.lower() == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Names the file if it cannot be opened, or its bytes are not what they should be."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise CatalogError(f"{path}: cannot be read as UTF-8 text ({error})", fix="convert the file to UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise CatalogError(f"{path}: the compressed file is damaged ({error})", fix="compress it anew") from error
    except FileNotFoundError as error:
        raise CatalogError("no such item file", field="catalog", value=str(path), fix="check the path") from error
    except OSError as error:
        reason = error.strerror or error
        raise CatalogError(f"cannot be read ({reason})", field="catalog", value=str(path), fix="check the path") from error


def _jsonl_rows(lines: IO[str], path: Path) -> Iterator[_Row]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}: "
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # RecursionError: brackets in brackets in brackets ...
            raise CatalogError(
                f"{where}not JSON ({error})", value=line.strip(), fix="each line is one JSON object with `id` and `title`"
            ) from error
        if not isinstance(row, dict):
            raise CatalogError(
                f"{where}not a JSON object", value=line.strip(), fix="each line is one JSON object with `id` and `title`"
            )
        yield _Row(make_item(row, where), where)


def _csv_rows(lines: IO[str], path: Path, kind: str) -> Iterator[_Row]:
    reader = csv.DictReader(lines, delimiter="\t" if kind == ".tsv" else ",", strict=True)
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}: "
            if None in row or None in row.values():
                raise CatalogError(f"{where}not as many columns as the header", value=list(row.values()), fix="mend the line")
            yield _Row(make_item({key: value for key, value in row.items() if value != ""}, where), where)
    except csv.Error as error:
        raise CatalogError(f"{path}, line {reader.line_num}: not CSV ({error})", fix="mend the line") from error


def _parquet_rows(path: Path) -> Iterator[_Row]:
    pyarrow = _pyarrow()
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            yield from _table_rows(file.iter_batches(), str(path))
    except (FileNotFoundError, PermissionError):
        raise  # which say nothing of what is in the file
    except (pyarrow.ArrowException, OSError) as error:
        raise CatalogError(f"{path}: cannot be read as Parquet ({error})", fix="write the file anew") from error


def _table_rows(batches: Iterable[Any], name: str) -> Iterator[_Row]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            where = f"{name}, row {number}: "
            yield _Row(make_item(row, where), where)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise SetupError("pyarrow is not installed; run: pip install 'llmrank[data]'") from error
    return pyarrow
