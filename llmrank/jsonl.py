"""A JSONL file (also .gz) goes in, its objects come out, each with the words that say where it stands; and checks of fields."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from llmrank.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Line:
    """One object of a file.

    Attributes:
        record: The object.
        where: File and line, the beginning of a message.
        offset: The byte at which the line begins, for `lines_at`.
    """

    record: dict[str, Any]
    where: str
    offset: int


def lines(path: str | Path, what: str, name: str | None = None) -> Iterator[Line]:
    """The objects of a file, one at a time; blank lines are skipped.

    Args:
        path: The file; one that ends in ``.gz`` is unpacked.
        what: What messages call its content: ``cases``, ``interactions``.
        name: What messages call the file, if its path says nothing to people.

    Raises:
        DatasetError: it cannot be read, or a line is no JSON object; file and line are in the message.
    """
    name = name or str(path)
    with reading(name, what), open_bytes(path) as file:
        offset = 0
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{name}, line {number}"
                yield Line(_object(line, what, where), where, offset)
            offset += len(line)


def lines_at(path: str | Path, offsets: Iterable[int], what: str) -> Iterator[Line]:
    """The objects whose lines begin at these bytes, in the order asked for.

    Raises:
        DatasetError: as for `lines`: the file changed since the offsets were taken.
    """
    with reading(str(path), what), open_bytes(path) as file:
        for offset in offsets:
            file.seek(offset)
            where = f"{path}, byte {offset}"
            yield Line(_object(file.readline(), what, where), where, offset)


def id_of(record: dict[str, Any], name: str, where: str) -> str:
    """A field with an id: a text or a whole number, as a text."""
    value = record.get(name)
    if not _is_id(value):
        raise DatasetError(f"{where}: must be a text", field=name, value=value, fix=f"give every line its `{name}`")
    return str(value)


def ids(record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    """A field with a list of ids, texts or whole numbers, as texts."""
    value = record.get(name)
    if not isinstance(value, list) or not all(map(_is_id, value)):
        raise DatasetError(f"{where}: must be a list of ids", field=name, value=value, fix='for instance ["603", "604"]')
    return tuple(map(str, value))


def text(record: dict[str, Any], name: str, where: str) -> str | None:
    """A field with a text, or None where it is missing."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise DatasetError(f"{where}: must be a text", field=name, value=value, fix="write a sentence or leave it out")
    return value


def open_bytes(path: str | Path) -> IO[bytes]:
    """The bytes of a file, unpacked if its name ends in ``.gz``."""
    path = Path(path)
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")  # type: ignore[return-value]  # a GzipFile is one


@contextmanager
def reading(name: str, what: str) -> Iterator[None]:
    """Turns what goes wrong when a file is opened and read into one DatasetError that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name}: cannot be read as UTF-8 ({error})", field=what, fix="convert the file") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        message = f"{name}: the compressed file is damaged ({error})"
        raise DatasetError(message, field=what, fix="compress it anew") from error
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({error.strerror or error})", field=what, fix="check the path") from error


def _object(line: bytes, what: str, where: str) -> dict[str, Any]:
    try:
        # -sig: a byte order mark before the first line. RecursionError: brackets in brackets in brackets ...
        record = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        value = line.decode("utf-8", "replace").strip()
        raise DatasetError(f"{where}: not JSON ({error})", field=what, value=value, fix="mend the line") from error
    if not isinstance(record, dict):
        raise DatasetError(f"{where}: not a JSON object", field=what, value=record, fix="write one object a line")
    return record


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
