"""A JSONL file goes in, Cases come out: what a user had chosen, what could come next, and what did; and back into a file.

A case file has one JSON object a line: `user_id`, `history` (ids, oldest first), `candidates` (ids; null or none for the whole
catalogue), `relevant` (ids; never shown to a model) and, optionally, `query`, `constraints` (objects of `attribute`, `op` and
`value`) and `retrieved`: an object of further lists of candidates, each under its retriever's name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrank import jsonl
from llmrank.errors import DatasetError, RequestError, nearest
from llmrank.jsonl import Line
from llmrank.types import RankRequest
from llmrank.wish import Constraint


@dataclass(frozen=True, slots=True)
class Case:
    """One question with its answer.

    Attributes:
        user_id: Whose.
        history: What the user had chosen before, oldest first.
        candidates: What is to be ranked; None stands for the whole catalogue.
        relevant: What the user chose of it. It need not be among the candidates: then no ranking can find it.
        query: What the user said they want.
        constraints: What every item returned has to be.
    """

    user_id: str
    history: tuple[str, ...]
    candidates: tuple[str, ...] | None
    relevant: tuple[str, ...]
    query: str | None = None
    constraints: tuple[Constraint, ...] = ()

    @property
    def request(self) -> RankRequest:
        """The question alone: what was relevant stays behind."""
        return RankRequest(self.history, self.candidates, self.query, self.user_id, constraints=self.constraints)


def read_cases(path: str | Path, *, retrieved: str | None = None) -> Iterator[Case]:
    """The cases of a JSONL file, one at a time.

    Args:
        path: The file.
        retrieved: The name of a list in `retrieved` that is read in place of `candidates`.

    Raises:
        DatasetError: the file is missing, or a line is not a case; file and line are in the message.
    """
    return (make_case(line, retrieved=retrieved) for line in jsonl.lines(path, "cases"))


def make_case(line: Line, *, retrieved: str | None = None) -> Case:
    """A Case from one line of a case file.

    Args:
        line: The line.
        retrieved: As for `read_cases`.

    Raises:
        DatasetError: a field is missing or wrong.
    """
    record, where = line.record, line.where
    return Case(
        user_id=jsonl.id_of(record, "user_id", where),
        history=jsonl.ids(record, "history", where),
        candidates=_candidates(record, where) if retrieved is None else _retrieved(record, retrieved, where),
        relevant=jsonl.ids(record, "relevant", where),
        query=jsonl.text(record, "query", where),
        constraints=_constraints(record, where),
    )


def read_requests(path: str | Path, *, top_k: int | None = None, name: str | None = None) -> Iterator[RankRequest]:
    """The same file, read as requests: `relevant` is not looked at; without `candidates` all items are.

    Args:
        path: The file.
        top_k: How many items each Ranking is to have.
        name: What messages call the file, if its path says nothing to people.

    Raises:
        DatasetError: as for `read_cases`.
    """
    for line in jsonl.lines(path, "cases", name):
        yield RankRequest(
            history=jsonl.ids(line.record, "history", line.where) if "history" in line.record else (),
            candidates=_candidates(line.record, line.where),
            query=jsonl.text(line.record, "query", line.where),
            user_id=jsonl.id_of(line.record, "user_id", line.where),
            top_k=top_k,
            constraints=_constraints(line.record, line.where),
        )


def write_cases(path: str | Path, cases: Iterable[Case]) -> None:
    """Writes a case file; it appears under its name only when it is whole and on disk."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            for case in cases:
                record: dict[str, Any] = {
                    "user_id": case.user_id,
                    "history": case.history,
                    "candidates": case.candidates,
                    "relevant": case.relevant,
                }
                if case.query is not None:
                    record["query"] = case.query
                if case.constraints:
                    record["constraints"] = [each.record() for each in case.constraints]
                file.write(json_line(record))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def json_line(record: Mapping[str, Any], encoding: str = "utf-8") -> str:
    """A record as one line of JSON, for people as it is; escaped to ASCII if the encoding lacks a character of it.

    UTF-8 itself lacks half surrogate pairs, which JSON may hold.
    """
    line = json.dumps(record, ensure_ascii=False) + "\n"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(record) + "\n"
    return line


def _candidates(record: dict[str, Any], where: str) -> tuple[str, ...] | None:
    return None if record.get("candidates") is None else jsonl.ids(record, "candidates", where)


def _constraints(record: dict[str, Any], where: str) -> tuple[Constraint, ...]:
    given = record.get("constraints")
    if given is None:
        return ()
    if not isinstance(given, list):
        fix = 'write [{"attribute": "year", "op": ">=", "value": 1990}], or leave it out'
        raise DatasetError(f"{where}: must be a list", field="constraints", value=given, fix=fix)
    try:
        return tuple(map(Constraint.from_record, given))
    except RequestError as error:
        raise DatasetError(f"{where}: {error.message}", field="constraints", value=error.value, fix=error.fix) from error


def _retrieved(record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    lists = record.get("retrieved")
    if not isinstance(lists, dict):
        fix = "give each case an object of lists, or choose other candidates"
        raise DatasetError(f"{where}: must be an object of lists", field="retrieved", value=lists, fix=fix)
    if name not in lists:
        raise DatasetError(f"{where}: no such list", field="retrieved", value=name, fix=nearest(name, lists))
    return jsonl.ids(lists, name, where)
