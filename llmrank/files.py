"""Files that programs write and read again: texts go in and appear under their name only when whole; lines of JSON come out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from llmrank.errors import DatasetError

_MEND = "delete that line; running again ranks its case anew"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file, one a line; a last line that was not written to its end is left out. No file, no lines.

    Raises:
        DatasetError: another line is not JSON; file and line are named.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{path}, line {number}: not JSON ({error})", field="run", fix=_MEND) from error
            if not isinstance(record, dict):
                raise DatasetError(f"{path}, line {number}: not a JSON object", field="run", fix=_MEND)
            yield record


def write_whole(path: Path, chunks: Iterable[str]) -> None:
    """Writes a UTF-8 file that appears under its name only when it is whole and on disk; its folder is made if need be."""
    with whole_file(path) as file:
        file.writelines(chunks)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[str]]:
    """The same for one that is written bit by bit: it appears when the block ends, and not at all if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
