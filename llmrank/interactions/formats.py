"""A file of interactions, or a data frame, goes in; its columns come out, checked, some ten thousand rows at a time.

What is read: JSONL with a history or an interaction a line, CSV and TSV with a header, Parquet, RecBole's atomic files
(``.inter``: columns between tabs under a header such as ``user_id:token``), and the rating files of MovieLens by their names.
The text formats may be packed (``.gz``).
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from llmrank import jsonl
from llmrank.errors import DatasetError, SetupError

FORMATS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".inter")
MOVIELENS = ("u.data", "ratings.dat", "ratings.csv")
"""The rating files of MovieLens: 100K; 1M and 10M; all later ones."""

CHUNK = 1 << 16
"""Rows that are read at a time."""

_WHAT = "interactions"
_NAMES = {
    "user_id": ("user_id", "userId"),
    "item_id": ("item_id", "movieId"),
    "timestamp": ("timestamp",),
    "rating": ("rating",),
}


@dataclass(frozen=True, slots=True)
class Columns:
    """Some rows of a file, by column.

    Attributes:
        users: The user's id of each row.
        items: The item's.
        timestamps: float64, Unix seconds, finite; None where the file tells the order alone.
        ratings: float32, NaN where a row has none; None where the file has none.
    """

    users: Sequence[str]
    items: Sequence[str]
    timestamps: NDArray[np.float64] | None
    ratings: NDArray[np.float32] | None


def read_columns(path: str | Path) -> Iterator[Columns]:
    """The columns of a file, or of the rating file of a MovieLens folder.

    Raises:
        DatasetError: it is missing, of an unknown kind, or a row is wrong; file and line are in the message.
        SetupError: it is Parquet and pyarrow is not installed.
    """
    path = Path(path)
    if path.is_dir():
        path = find_in(path, MOVIELENS, _WHAT)
    kind = ending(path)
    if path.name in MOVIELENS and kind != ".csv":
        yield from _in_text(path, "::" if kind == ".dat" else "\t", header=("user_id", "item_id", "rating", "timestamp"))
    elif kind in (".jsonl", ".ndjson"):
        yield from _in_jsonl(path)
    elif kind == ".parquet":
        yield from _in_parquet(path)
    elif kind in FORMATS:
        yield from _in_text(path, "," if kind == ".csv" else "\t", plain=kind == ".inter")
    else:
        fix = f"use one of {', '.join(FORMATS)}, or a MovieLens folder"
        raise DatasetError(f"{path}: unknown kind of file", field=_WHAT, fix=fix)


def frame_columns(frame: Any) -> Iterator[Columns]:
    """The columns of a data frame or table: whatever speaks Arrow (pandas >= 2.2, polars, pyarrow, DuckDB results).

    Raises:
        DatasetError: it is no table, or a row is wrong (the row's number is named).
        SetupError: pyarrow is not installed.
    """
    pyarrow = _pyarrow()
    try:
        table = pyarrow.table(frame)
    except (TypeError, ValueError, pyarrow.ArrowInvalid) as error:
        raise DatasetError(
            f"not a table that Arrow can read ({error})", field="frame", value=type(frame).__name__, fix="give a data frame"
        ) from error
    yield from _in_batches(table.schema, table.to_batches(max_chunksize=CHUNK), "data frame")


def find_in(folder: Path, names: Sequence[str], what: str) -> Path:
    """The first of these files that a folder has.

    Raises:
        DatasetError: it has none of them.
    """
    for name in names:
        if (folder / name).exists():
            return folder / name
    fix = f"it must hold one of {', '.join(names)}"
    raise DatasetError(f"{folder}: no known file in the folder", field=what, fix=fix)


def ending(path: Path) -> str:
    """The ending that tells a file's format, without ``.gz``."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def open_text(path: Path, encoding: str = "utf-8-sig") -> IO[str]:
    """A file's text, unpacked if its name ends in ``.gz``; ends of lines stay as they are."""
    return io.TextIOWrapper(jsonl.open_bytes(path), encoding=encoding, newline="")


def separated(
    file: IO[str], separator: str, where: str, what: str, *, plain: bool = False, strict: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text and the numbers of their lines; empty lines are left out.

    Args:
        file: The text.
        separator: What stands between columns. A longer one than a letter may not be quoted.
        where: The file's name, for messages.
        what: What messages call its content.
        plain: True takes quotation marks for what they are: RecBole's files quote nothing.
        strict: False lets letters follow a closing quotation mark.

    Raises:
        DatasetError: it is no CSV.
    """
    if len(separator) > 1:
        for number, line in enumerate(file, start=1):
            if text := line.rstrip("\r\n"):
                yield number, text.split(separator)
        return
    reader = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL, strict=strict)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise DatasetError(f"{where}, line {reader.line_num}: not CSV ({error})", field=what, fix="mend the line") from error


def _in_text(path: Path, separator: str, *, header: Sequence[str] = (), plain: bool = False) -> Iterator[Columns]:
    where = str(path)
    with jsonl.reading(where, _WHAT), open_text(path) as file:
        titled = not header
        # Not strict, as pyarrow is not: what is read must not depend on what is installed.
        rows = separated(file, separator, where, _WHAT, plain=plain or not titled, strict=False)
        if titled:
            _, header = next(rows, (0, []))
            header = [name.partition(":")[0] for name in header] if plain else header
        at = _places(header, where)
        done: int | None = 0
        if len(separator) == 1 and importlib.util.find_spec("pyarrow") is not None:
            done = yield from _by_arrow(path, separator, header, at, titled=titled, plain=plain or not titled)
        # Where Arrow stopped, each row is looked at: what is wrong with one is said with its line.
        rows = islice(rows, done, None)
        while done is not None and (chunk := list(islice(rows, CHUNK))):
            try:
                yield _columns([row for _, row in chunk], at, len(header))
            except ValueError as error:
                raise _first_fault(chunk, at, len(header), where) from error


def _by_arrow(
    path: Path, separator: str, header: Sequence[str], at: Mapping[str, int], *, titled: bool, plain: bool
) -> Generator[Columns, None, int | None]:
    """What pyarrow reads of a text file, several times as fast as Python; up to the first block that it finds fault with.

    Returns:
        How many rows came out, or None if all did.
    """
    pyarrow, arrow_csv = _pyarrow(), importlib.import_module("pyarrow.csv")
    # Columns by their place: a header may name one twice.
    names = [str(place) for place in range(len(header))]
    text, number = pyarrow.string(), pyarrow.float64()
    types = {"user_id": text, "item_id": text, "timestamp": number, "rating": number}
    wanted = {str(at[name]): kind for name, kind in types.items() if name in at}
    done = 0
    try:
        with (
            jsonl.open_bytes(path) as file,
            arrow_csv.open_csv(
                file,
                arrow_csv.ReadOptions(column_names=names, skip_rows=int(titled)),
                arrow_csv.ParseOptions(delimiter=separator, quote_char=False if plain else '"', newlines_in_values=not plain),
                arrow_csv.ConvertOptions(column_types=wanted, include_columns=list(wanted), null_values=[""]),
            ) as batches,
        ):
            renamed = [name for name in types if name in at]
            for batch in batches:
                named = batch.rename_columns(renamed)
                if "rating" in at and np.isnan(named.column("rating").drop_null().to_numpy(zero_copy_only=False)).any():
                    return done
                yield from _in_batches(named.schema, [named], str(path))
                done += named.num_rows
    except (pyarrow.ArrowException, DatasetError):
        return done
    return None


def _places(header: Sequence[str], where: str) -> dict[str, int]:
    """Where each column that we read stands."""
    at = {name: header.index(each) for name, known in _NAMES.items() for each in known if each in header}
    missing = [name for name in ("user_id", "item_id", "timestamp") if name not in at]
    if missing:
        fix = f"the header must name {', '.join(missing)}"
        raise DatasetError(f"{where}: a column is missing", field=_WHAT, value=list(header), fix=fix)
    return at


def _columns(rows: Sequence[Sequence[str]], at: Mapping[str, int], width: int) -> Columns:
    """The columns of rows of text; ValueError if anything at all is wrong in them."""
    if set(map(len, rows)) != {width}:
        raise ValueError("a row has too few or too many columns")
    columns = list(zip(*rows, strict=True))
    users, items = columns[at["user_id"]], columns[at["item_id"]]
    if "" in users or "" in items:
        raise ValueError("an id is empty")
    timestamps = _finite(columns[at["timestamp"]])
    ratings = None
    if "rating" in at:
        given = columns[at["rating"]]
        ratings = _finite([text or "0" for text in given]).astype(np.float32)
        ratings[[not text for text in given]] = np.nan
    return Columns(users, items, timestamps, ratings)


def _first_fault(rows: Iterable[tuple[int, Sequence[str]]], at: Mapping[str, int], width: int, where: str) -> DatasetError:
    """The error of the first wrong row, in words: whole chunks are checked at once, which says nothing of the row."""
    for number, row in rows:
        try:
            _columns([row], at, width)
        except ValueError as error:
            return DatasetError(f"{where}, line {number}: {error}", field=_WHAT, value=list(row), fix="mend the line")
    raise AssertionError("rows that are right one by one are right together")


def _finite(texts: Sequence[str]) -> NDArray[np.float64]:
    values = np.fromiter(map(float, texts), np.float64, len(texts))
    if not np.isfinite(values).all():  # what is not has no place in an order by time
        raise ValueError(f"{texts[int(np.isfinite(values).argmin())]!r} is not finite")
    return values


def _in_jsonl(path: Path) -> Iterator[Columns]:
    """Lines with a `history`, or lines with an `item_id`; the first tells which."""
    lines = jsonl.lines(path, _WHAT)
    first = next(lines, None)
    if first is None:
        return
    read = _histories if "history" in first.record else _events
    lines = chain([first], lines)
    users: set[str] = set()
    while chunk := list(islice(lines, CHUNK // 8)):
        yield read(chunk, users)


def _histories(lines: Sequence[jsonl.Line], known: set[str]) -> Columns:
    """One line a user, not in `known`: without times, two lines of one user would have no order."""
    users: list[str] = []
    items: list[str] = []
    for line in lines:
        user, history = jsonl.id_of(line.record, "user_id", line.where), jsonl.ids(line.record, "history", line.where)
        if user in known:
            fix = "write all of a user's items into one line"
            raise DatasetError(f"{line.where}: the user has a line already", field="user_id", value=user, fix=fix)
        if "" in history or not user:
            raise DatasetError(f"{line.where}: an id is empty", field=_WHAT, value=line.record, fix="mend the line")
        known.add(user)
        users += [user] * len(history)
        items += history
    return Columns(users, items, None, None)


def _events(lines: Sequence[jsonl.Line], known: set[str]) -> Columns:
    """One line an interaction."""
    rows = []
    for line in lines:
        user, item = jsonl.id_of(line.record, "user_id", line.where), jsonl.id_of(line.record, "item_id", line.where)
        if not user or not item:
            raise DatasetError(f"{line.where}: an id is empty", field=_WHAT, value=line.record, fix="mend the line")
        rating = line.record.get("rating")
        rows.append((user, item, _number(line, "timestamp"), math.nan if rating is None else _number(line, "rating")))
    users, items, timestamps, ratings = zip(*rows, strict=True)
    return Columns(users, items, np.array(timestamps, np.float64), np.array(ratings, np.float32))


def _number(line: jsonl.Line, name: str) -> float:
    value = line.record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DatasetError(f"{line.where}: must be a finite number", field=name, value=value, fix="mend the line")
    return float(value)


def _in_parquet(path: Path) -> Iterator[Columns]:
    pyarrow = _pyarrow()
    parquet = importlib.import_module("pyarrow.parquet")
    where = str(path)
    with jsonl.reading(where, _WHAT):
        try:
            with parquet.ParquetFile(path) as file:
                schema = file.schema_arrow
                wanted = [name for name in schema.names if any(name in known for known in _NAMES.values())]
                yield from _in_batches(schema, file.iter_batches(batch_size=CHUNK, columns=wanted), where)
        except (FileNotFoundError, PermissionError):
            raise  # which say nothing of what is in the file
        except (pyarrow.ArrowException, OSError) as error:
            raise DatasetError(
                f"{where}: cannot be read as Parquet ({error})", field=_WHAT, fix="write the file anew"
            ) from error


def _in_batches(schema: Any, batches: Iterable[Any], where: str) -> Iterator[Columns]:
    places = _places(schema.names, where)
    names = {name: schema.names[place] for name, place in places.items()}
    row = 1
    for batch in batches:
        columns = {name: batch.column(names[name]) for name in places}
        users, items = (_arrow_ids(columns[name], name, where, row) for name in ("user_id", "item_id"))
        timestamps = _arrow_numbers(columns["timestamp"], "timestamp", where, row)
        _refuse(~np.isfinite(timestamps), "timestamp", "is missing or not finite", where, row)
        ratings = None
        if "rating" in columns:
            ratings = _arrow_numbers(columns["rating"], "rating", where, row).astype(np.float32)
            _refuse(np.isinf(ratings), "rating", "is not finite", where, row)
        yield Columns(users, items, timestamps, ratings)
        row += batch.num_rows


def _arrow_ids(column: Any, name: str, where: str, row: int) -> list[str]:
    """Texts, or whole numbers as texts; `row` is the number of the first."""
    types = importlib.import_module("pyarrow.types")
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise DatasetError(f"{where}: ids are texts or whole numbers", field=name, value=str(kind), fix="convert the column")
    texts: list[str | None] = column.cast(_pyarrow().string()).to_pylist()
    _refuse(np.array([not text for text in texts], dtype=bool), name, "an id is empty", where, row)
    return [text for text in texts if text is not None]


def _arrow_numbers(column: Any, name: str, where: str, row: int) -> NDArray[np.float64]:
    """Numbers as float64, points in time as Unix seconds; NaN for nulls."""
    pyarrow, types = _pyarrow(), importlib.import_module("pyarrow.types")
    kind, per_second = column.type, 1.0
    if types.is_timestamp(kind) or types.is_date(kind):
        # Whole microseconds: what is finer orders nothing that people do.
        column = column.cast(pyarrow.timestamp("us", tz=getattr(kind, "tz", None)), safe=False).cast(pyarrow.int64())
        per_second = 1e6
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
        raise DatasetError(f"{where}: must be a number", field=name, value=str(kind), fix="convert the column to Unix seconds")
    numbers: NDArray[np.float64] = column.cast(pyarrow.float64(), safe=False).to_numpy(zero_copy_only=False)
    return numbers / per_second


def _refuse(bad: NDArray[np.bool_], name: str, why: str, where: str, row: int) -> None:
    if bad.any():
        raise DatasetError(f"{where}, row {row + int(bad.argmax())}: {why}", field=name, fix="mend the row")


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise SetupError("pyarrow is not installed; run: pip install 'llmrank[data]'") from error
    return pyarrow
