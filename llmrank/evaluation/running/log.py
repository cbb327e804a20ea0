"""Results go in one by one, each on disk before the next; a file of one JSON line a result, in order, comes out.

Whatever kills the process, the file holds every result that was added, and at most a torn line, which the next run cuts off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import DatasetError
from llmrank.evaluation.cases import json_line
from llmrank.files import read_lines

OUTSTANDING, DONE, FAILED = 0, 1, 2


class ResultLog:
    """The results of one ranker, numbered from 0. Used by one process at a time, who holds the run's lock.

    Args:
        path: The file; made if it is not there.
        total: How many results there will be.
        key: Where a record has its number.

    Raises:
        DatasetError: the file holds what is no result, or one of a number beyond `total`.
    """

    def __init__(self, path: Path, total: int, key: str = "case") -> None:
        self.path, self._key = path, key
        self._state: NDArray[np.uint8] = np.zeros(total, np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)
        for number, record in enumerate(read_lines(path), start=1):
            place = record.get(key)
            if not isinstance(place, int) or not 0 <= place < total or "status" not in record:
                fix = "it is not of this run; name another folder with --out"
                raise DatasetError(f"{path}, line {number}: no result of one of {total} cases", field="run", fix=fix)
            self._state[place] = FAILED if record["status"] == "error" else DONE
        self._file = path.open("ab")

    @property
    def done(self) -> int:
        """How many results there are, failures included."""
        return int(np.count_nonzero(self._state))

    @property
    def failed(self) -> int:
        """How many of them have the status ``error``."""
        return int(np.count_nonzero(self._state == FAILED))

    def forget_failures(self, limit: int | None = None) -> None:
        """Counts failures below `limit` as outstanding: results that are added for them now take their place."""
        state = self._state[:limit]
        state[state == FAILED] = OUTSTANDING

    def outstanding(self, limit: int | None = None) -> NDArray[np.intp]:
        """The numbers without a result, below `limit`, in order."""
        return np.flatnonzero(self._state[:limit] == OUTSTANDING)

    def add(self, place: int, record: Mapping[str, Any], *, sync: bool = True) -> None:
        """Writes one result; when this returns, it is on disk, safe from a power cut.

        Args:
            place: Its number.
            record: What there is to say.
            sync: False leaves the moment to the system. A kill of this process loses nothing then, either.
        """
        self._file.write(json_line({self._key: place, **record}).encode())
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
        self._state[place] = FAILED if record["status"] == "error" else DONE

    def close(self) -> None:
        """Closes the file, in the order of the numbers and with one result each. May be called twice."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
            _sort(self.path, self._key)

    def __enter__(self) -> ResultLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def cut_torn_line(path: Path) -> None:
    """Cuts off what stands behind the last whole line, if anything; the file need not be there."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        whole = end
        while whole > 0:
            begin = max(0, whole - 65536)
            file.seek(begin)
            found = file.read(whole - begin).rfind(b"\n")
            whole = begin if found < 0 else begin + found + 1
            if found >= 0:
                break
        if whole < end:
            file.truncate(whole)


def _sort(path: Path, key: str) -> None:
    """Puts the lines in the order of their numbers, the last of several of one number counting; usually they are."""
    offsets: dict[int, int] = {}
    position, last, sorted_already = 0, -1, True
    with path.open("rb") as file:
        for line in file:
            place: int = json.loads(line)[key]
            sorted_already &= place > last
            offsets[place], last = position, place
            position += len(line)
        if sorted_already:
            return
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with part.open("wb") as target:
            for place in sorted(offsets):
                file.seek(offsets[place])
                target.write(file.readline())
            target.flush()
            os.fsync(target.fileno())
    part.replace(path)
