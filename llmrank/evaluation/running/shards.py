"""The cases of a ranker that have no result go in; the shards to be ranked for them come out.

::

    DIR/shards/<ranker>/cases/part-00000.parquet     requests, with the numbers of their cases
    DIR/shards/<ranker>/ranked/part-00000.parquet    their rankings; beside them, the answers of a shard under way
    DIR/shards/<ranker>/noted/part-00000             is there once what was paid for the shard is in spent.jsonl

A session adds shards for what no shard has yet, and leaves those of others as they are: each may have its own number of rows
and its own limit, and a session that was killed leaves nothing to mend. Of the shards that have a case, the newest counts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrank.errors import DatasetError
from llmrank.evaluation.cases import Case
from llmrank.scale._arrow import pq
from llmrank.scale.schema import reading
from llmrank.scale.shard import answers_path
from llmrank.scale.split import write_shard
from llmrank.types import RankRequest


@dataclass(frozen=True, slots=True)
class _New:
    """A shard to be written: its cases, and the shard whose kept answers it begins with."""

    cases: tuple[int, ...]
    parent: Path | None = None


class RankerShards:
    """The shards of one ranker. Used by one process at a time, who holds the run's lock.

    Args:
        path: Their folder; it need not exist yet.

    Attributes:
        ranked: The folder of the ranked shards, which have the names of theirs.
    """

    def __init__(self, path: Path) -> None:
        self.ranked = path / "ranked"
        self._cases = path / "cases"
        self._noted = path / "noted"

    def plan(self, wanted: set[int], cases: Iterable[Case], rows: int) -> dict[Path, frozenset[int]]:
        """Finds or writes shards so that ranking them asks for the wanted cases, and for no other.

        A shard that was begun goes on if all of its cases are wanted. Otherwise, as after a run with another limit, those that
        are get a new shard, which begins with the answers kept of the old one. So do failures whose ranking was collected.

        Args:
            wanted: The numbers of the cases.
            cases: All cases, in order; one new shard of them is in memory at a time, unless old ones overlap.
            rows: Cases in a shard of what no shard has yet.

        Returns:
            The shards to rank, the oldest first, each with the cases whose rankings are to be taken from it.

        Raises:
            DatasetError: a shard, or the answers kept of it, cannot be read or written.
        """
        left = set(wanted)
        taken: dict[Path, frozenset[int]] = {}
        new: list[_New] = []
        old = sorted(self._cases.glob("part-*.parquet"), key=_number)
        for shard in reversed(old):
            numbers = _column(shard, "case")
            mine = left.intersection(numbers)
            if not mine or (len(mine) < len(numbers) and not self.begun(shard)):
                continue  # in the second case it knows nothing that a shard of this session would not
            left -= mine
            again = self._to_ask_again(shard, mine, len(numbers))
            if again:
                new.append(_New(tuple(sorted(again)), shard))
            if mine - again:
                taken[shard] = frozenset(mine - again)
        taken = dict(reversed(taken.items()))
        new.reverse()
        fresh = sorted(left)
        new += [_New(tuple(fresh[begin : begin + rows])) for begin in range(0, len(fresh), rows)]
        return taken | self._write(new, cases, _number(old[-1]) + 1 if old else 0)

    def begun(self, shard: Path) -> bool:
        """True if a shard was ranked, in whole or in part, before now."""
        target = self.ranked / shard.name
        return target.exists() or answers_path(target).exists()

    def model(self, shard: Path) -> str:
        """The model that ranked a shard: that of the first row which has one, as a request with a mistake has none."""
        return next((model for model in _column(self.ranked / shard.name, "model") if model), "")

    def is_noted(self, shard: Path) -> bool:
        """True if what was paid for a shard was noted."""
        return self._mark(shard).exists()

    def note(self, shard: Path) -> None:
        """Remembers that it was."""
        self._noted.mkdir(parents=True, exist_ok=True)
        self._mark(shard).touch()

    def _mark(self, shard: Path) -> Path:
        return self._noted / shard.stem

    def _to_ask_again(self, shard: Path, mine: set[int], size: int) -> set[int]:
        """Those of the wanted cases of a shard that need a new one."""
        target = self.ranked / shard.name
        if not target.exists():
            return set() if len(mine) == size else mine
        if not self.is_noted(shard):
            return set()  # nobody has seen its failures yet
        statuses = zip(_column(target, "case"), _column(target, "status"), strict=True)
        return mine.intersection(case for case, status in statuses if status == "error")

    def _write(self, new: list[_New], cases: Iterable[Case], first: int) -> dict[Path, frozenset[int]]:
        """Writes shards, numbered from `first`."""
        place_of = {number: place for place, each in enumerate(new) for number in each.cases}
        gathered: dict[int, list[RankRequest]] = {}
        unwritten = len(new)
        for number, case in enumerate(cases):
            if not unwritten:
                break
            place = place_of.get(number)
            if place is None:
                continue
            requests = gathered.setdefault(place, [])
            requests.append(case.request)
            if len(requests) == len(new[place].cases):
                shard = self._cases / f"part-{first + place:05}.parquet"
                self._begin(shard, new[place])
                write_shard(shard, gathered.pop(place), new[place].cases)
                unwritten -= 1
        return {self._cases / f"part-{first + place:05}.parquet": frozenset(each.cases) for place, each in enumerate(new)}

    def _begin(self, shard: Path, new: _New) -> None:
        """Lays out what a shard begins with, before it is there itself; a session killed in between may have left some."""
        answers = answers_path(self.ranked / shard.name)
        for suffix in ("", "-wal", "-shm"):
            answers.with_name(answers.name + suffix).unlink(missing_ok=True)
        self._mark(shard).unlink(missing_ok=True)
        if new.parent is None:
            return
        kept = answers_path(self.ranked / new.parent.name)
        if kept.exists():
            _copy(kept, answers)
        if self.is_noted(new.parent) and self._has_answers(new.parent, new.cases):
            self.note(shard)  # with the parent's: its whole cost would count these answers twice

    def _has_answers(self, shard: Path, cases: Iterable[int]) -> bool:
        """True if a shard that was noted has answers to prompts of these cases."""
        target = self.ranked / shard.name
        if not target.exists():
            return True  # it was noted as its own parent had some
        calls = dict(zip(_column(target, "case"), _column(target, "calls"), strict=True))
        return any(calls[case] for case in cases)


def _number(shard: Path) -> int:
    return int(shard.stem.removeprefix("part-"))


def _column(path: Path, name: str) -> list[Any]:
    with reading(path):
        values: list[Any] = pq.read_table(path, columns=[name]).column(0).to_pylist()
    return values


def _copy(source: Path, target: Path) -> None:
    """Copies an answer cache, as SQLite does it: whole, although what was killed left half of it in another file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
    except sqlite3.Error as error:
        raise DatasetError(
            f"the answers kept there cannot be copied ({error})",
            field="shards",
            value=str(source),
            fix="delete it; its cases are asked anew",
        ) from error
