"""Interactions or a JSONL file go in, Cases come out: what a user had chosen, what could come next, and what did.

A case file has one JSON object a line: `user_id`, `history` (ids, oldest first), `candidates` (ids), `relevant` (ids; never
shown to a model) and optionally `query`. An interaction file is CSV with `user_id`, `item_id`, `timestamp` and, optionally,
`rating`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrank.errors import DatasetError
from llmrank.types import RankRequest


@dataclass(frozen=True, slots=True)
class Interaction:
    """A user chose an item, when (Unix seconds), and how it was liked if that is known."""

    user_id: str
    item_id: str
    timestamp: float
    rating: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """One question with its answer.

    Attributes:
        user_id: Whose.
        history: What the user had chosen before, oldest first.
        candidates: What is to be ranked.
        relevant: What the user chose of it.
        query: What the user said they want.
    """

    user_id: str
    history: tuple[str, ...]
    candidates: tuple[str, ...]
    relevant: tuple[str, ...]
    query: str | None = None

    @property
    def request(self) -> RankRequest:
        """The question alone: what was relevant stays behind."""
        return RankRequest(history=self.history, candidates=self.candidates, query=self.query, user_id=self.user_id)


def leave_last_out(
    interactions: Iterable[Interaction],
    *,
    n_candidates: int = 20,
    seed: int = 0,
    item_ids: Collection[str] | None = None,
    min_history: int = 1,
) -> list[Case]:
    """One case a user: the last item chosen has to be found among items that the user never chose.

    A user's interactions are ordered by time; those of the same second by a hash of user and item, because neither the order
    of a file nor that of ids is free of meaning (in MovieLens 100K, 415 of 943 users have such a tie at the end). An item
    chosen twice counts the first time. The others among the candidates are drawn uniformly from all items, and the
    candidates shuffled, by a generator seeded with `seed` and the user's id: other users change nothing, as long as the items
    stay the same.

    Args:
        interactions: Of all users, in any order.
        n_candidates: How many candidates each case has, the target included.
        seed: Another seed draws other candidates; the targets stay.
        item_ids: All items that may be drawn; None for those that occur in `interactions`.
        min_history: Users with fewer items before the last one are left out.

    Returns:
        The cases, in the order in which the users first occur.

    Raises:
        DatasetError: there are too few items that a user never chose.
    """
    by_user: dict[str, list[Interaction]] = defaultdict(list)
    for each in interactions:
        by_user[each.user_id].append(each)
    pool = sorted(set(item_ids) if item_ids is not None else {each.item_id for of_user in by_user.values() for each in of_user})
    cases = []
    for user_id, of_user in by_user.items():
        chosen = list(dict.fromkeys(each.item_id for each in sorted(of_user, key=_in_time)))
        if len(chosen) <= min_history:
            continue
        *history, target = chosen
        generator = random.Random(f"{seed}:{user_id}")  # noqa: S311  # sampling, not secrets
        candidates = [target, *_draw(generator, pool, set(chosen), n_candidates - 1, user_id)]
        generator.shuffle(candidates)
        cases.append(Case(user_id, tuple(history), tuple(candidates), (target,)))
    return cases


def popularity(interactions: Iterable[Interaction], cases: Iterable[Case] = ()) -> Counter[str]:
    """How many users chose each item, not counting what the cases ask for.

    Args:
        interactions: All of them.
        cases: Cases whose relevant items are left out for their users, so that no answer leaks into the counts.
    """
    asked = {(case.user_id, item_id) for case in cases for item_id in case.relevant}
    return Counter(item_id for user_id, item_id in {(each.user_id, each.item_id) for each in interactions} - asked)


def read_cases(path: str | Path) -> Iterator[Case]:
    """The cases of a JSONL file, one at a time.

    Raises:
        DatasetError: the file is missing, or a line is not a case; file and line are in the message.
    """
    for record, where in _records(Path(path)):
        history, candidates, relevant = (_ids(record, name, where) for name in ("history", "candidates", "relevant"))
        yield Case(_user_id(record, where), history, candidates, relevant, _query(record, where))


def read_requests(path: str | Path, *, top_k: int | None = None, name: str | None = None) -> Iterator[RankRequest]:
    """The same file, read as requests: `relevant` is not looked at; without `candidates` all items are.

    Args:
        path: The file.
        top_k: How many items each Ranking is to have.
        name: What messages call the file, if its path says nothing to people.

    Raises:
        DatasetError: as for `read_cases`.
    """
    for record, where in _records(Path(path), name):
        yield RankRequest(
            history=_ids(record, "history", where) if "history" in record else (),
            candidates=_ids(record, "candidates", where) if "candidates" in record else None,
            query=_query(record, where),
            user_id=_user_id(record, where),
            top_k=top_k,
        )


def write_cases(path: str | Path, cases: Iterable[Case]) -> None:
    """Writes a case file; it appears under its name only when it is whole."""
    path = Path(path)
    part = path.with_name(f".{path.name}.part")
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
            file.write(json_line(record))
    part.replace(path)


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


def read_interactions(path: str | Path) -> list[Interaction]:
    """The interactions of a CSV file with a header.

    Raises:
        DatasetError: the file is missing or a row is malformed; file and line are in the message.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            try:
                missing = {"user_id", "item_id", "timestamp"} - set(rows.fieldnames or ())
                if missing:
                    fix = f"the header must name {', '.join(sorted(missing))}"
                    raise DatasetError(f"{path}: a column is missing", field="interactions", value=rows.fieldnames, fix=fix)
                return [_interaction(row, f"{path}, line {rows.line_num}") for row in rows]
            except csv.Error as error:
                where = f"{path}, line {rows.line_num + 1}"  # the reader counts lines that it has read to their end
                raise DatasetError(f"{where}: not CSV ({error})", field="interactions", fix="mend the line") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", field="interactions", value=str(path), fix="check the path") from error


def _in_time(each: Interaction) -> tuple[float, bytes]:
    return each.timestamp, hashlib.sha256(f"{each.user_id}\0{each.item_id}".encode()).digest()


def _draw(generator: random.Random, pool: Sequence[str], seen: set[str], count: int, user_id: str) -> list[str]:
    """Different items that were not seen, uniformly; rejection, because a pool may hold a million."""
    # The exact count of unseen items is wanted only when it may be too small.
    if len(pool) - len(seen) < count and sum(item_id not in seen for item_id in pool) < count:
        raise DatasetError(
            f"user {user_id!r} has chosen all but too few of the {len(pool)} items",
            field="n_candidates",
            value=count + 1,
            fix="ask for fewer candidates",
        )
    drawn: dict[str, None] = {}
    while len(drawn) < count:
        item_id = pool[generator.randrange(len(pool))]
        if item_id not in seen:
            drawn[item_id] = None
    return list(drawn)


def _records(path: Path, name: str | None = None) -> Iterator[tuple[dict[str, Any], str]]:
    """Each line's object, and where it stands, for messages."""
    name = name or str(path)
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    where = f"{name}, line {number}"
                    yield _record(line, where), where
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot be read ({error})", field="cases", value=name, fix="check the path") from error


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets in brackets in brackets ...
        raise DatasetError(f"{where}: not JSON ({error})", field="cases", value=line.strip(), fix="mend the line") from error
    if not isinstance(record, dict):
        raise DatasetError(f"{where}: not a JSON object", field="cases", value=line.strip(), fix="write one object a line")
    return record


def _query(record: dict[str, Any], where: str) -> str | None:
    query = record.get("query")
    if query is not None and not isinstance(query, str):
        raise DatasetError(f"{where}: must be a text", field="query", value=query, fix="write a sentence or leave it out")
    return query


def _user_id(record: dict[str, Any], where: str) -> str:
    user_id = record.get("user_id")
    if not isinstance(user_id, str | int) or isinstance(user_id, bool):
        raise DatasetError(f"{where}: must be a text", field="user_id", value=user_id, fix="give every case its user's id")
    return str(user_id)


def _ids(record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(each, str | int) and not isinstance(each, bool) for each in value):
        raise DatasetError(f"{where}: must be a list of ids", field=name, value=value, fix='for instance ["603", "604"]')
    return tuple(map(str, value))


def _interaction(row: dict[str, str | None], where: str) -> Interaction:
    user_id, item_id, rating = row["user_id"], row["item_id"], row.get("rating")
    if not user_id or not item_id:
        raise DatasetError(f"{where}: an id is empty", field="interactions", value=row, fix="mend the line")
    try:
        return Interaction(user_id, item_id, _number(row["timestamp"] or ""), _number(rating) if rating else None)
    except ValueError as error:
        raise DatasetError(f"{where}: not a number ({error})", field="interactions", value=row, fix="mend the line") from error


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # it has no place in an order by time
        raise ValueError(f"{text!r} is not finite")
    return value
