"""Interactions and where to cut them, or a case file, go in; Questions come out: cases whose candidates are to be chosen."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmrank.catalog import Catalog
from llmrank.errors import DatasetError
from llmrank.evaluation.cases import Case, make_case
from llmrank.evaluation.data import jsonl
from llmrank.evaluation.data.candidates import Question
from llmrank.evaluation.data.interactions import Interactions
from llmrank.evaluation.data.timelines import Cutting, Timelines, popularity, survey
from llmrank.evaluation.folder import Popularity


class Questions(Protocol):
    """Questions in a fixed order: each pass gives the same."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    @property
    def population(self) -> int:
        """How many there would be of all users."""
        ...

    @property
    def most_relevant(self) -> int:
        """The most relevant items that one of them has."""
        ...

    @property
    def training(self) -> Popularity | None:
        """What may be learned from, of all users; None without interactions."""
        ...

    @property
    def words(self) -> Sequence[str]:
        """Which users these are and how ties were broken, for the protocol's sentence."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of the results should know."""
        ...

    def __iter__(self) -> Iterator[Question]:
        """One at a time."""
        ...


def shuffled_by_hash(ids: Sequence[str], seed: int) -> list[int]:
    """The places of ids in an order that is random, but the same for the same seed, whatever other ids there are."""
    return sorted(range(len(ids)), key=lambda place: _digest(f"{seed}:{ids[place]}"))


class LoggedQuestions:
    """One question a user, made of what all users chose.

    Args:
        interactions: What they chose.
        cutting: Where each user's items are cut in two.
        users: How many users are asked about, drawn at random; None for all.
        seed: Of the draw, and of the order.
    """

    def __init__(self, interactions: Interactions, cutting: Cutting, *, users: int | None, seed: int) -> None:
        self._of, self._cutting = interactions, cutting
        self._timelines = Timelines(interactions)
        found = survey(interactions, self._timelines, cutting)
        order = shuffled_by_hash([interactions.users[place] for place in found.users], seed)
        self._users: NDArray[np.int64] = found.users[np.array(order[:users], dtype=np.int64)]
        self.count, self.population = len(self._users), len(found.users)
        self.most_relevant, self.training = found.most_relevant, found.popularity
        self.notes: tuple[str, ...] = ()
        self.words = [_sample_words(self.count, self.population)]
        if interactions.timestamp is None:
            self.words.append("items in the order of the source, which tells no times")
        elif found.tied:
            self.words.append(
                "ties in time are broken by a hash of user and item (they decide what is to be found for "
                f"{found.tied:,} of {self.population:,} users)"
            )

    def __iter__(self) -> Iterator[Question]:
        ids = self._of.items
        for user in self._users.tolist():
            split = self._timelines.split(user, self._cutting)
            before, relevant = (tuple(ids[place] for place in places) for places in (split.before, split.relevant))
            chosen = {*before, *relevant, *(ids[place] for place in split.after)}
            yield Question(self._of.users[user], before, relevant, chosen)


class GivenQuestions:
    """The questions of a case file, which is read once to check it, and again at each pass.

    Args:
        path: The case file.
        catalog: Where all of its ids must be.
        interactions: What may be learned from, without what the cases ask for; None for nothing.
        retrieved: The name of a list in `retrieved` that stands for the candidates; None for `candidates`.
        users: How many users are asked about, drawn at random; None for all.
        seed: Of the draw.

    Raises:
        DatasetError: the file cannot be read, or a line is not a case.
        UnknownItemError: an id is not in the catalogue.
    """

    def __init__(
        self,
        path: str | Path,
        catalog: Catalog,
        interactions: Interactions | None,
        *,
        retrieved: str | None,
        users: int | None,
        seed: int,
    ) -> None:
        self._path, self._retrieved = path, retrieved
        places: dict[str, int] = {}
        user_of, offsets = array("q"), array("q")
        asked: list[tuple[str, str]] = []
        self.most_relevant = 0
        for line in jsonl.lines(path, "cases"):
            case = make_case(line, retrieved=retrieved)
            _check(case, catalog, line.where)
            user_of.append(places.setdefault(case.user_id, len(places)))
            offsets.append(line.offset)
            self.most_relevant = max(self.most_relevant, len(case.relevant))
            asked += ((case.user_id, item_id) for item_id in case.relevant) if interactions is not None else ()
        self.training = None if interactions is None else popularity(interactions, asked)
        self._offsets: list[int] | None = None
        if users is not None:
            rank = np.full(len(places), len(places), dtype=np.int64)
            order = shuffled_by_hash(list(places), seed)[:users]
            rank[order] = np.arange(len(order))
            ranks = rank[np.array(user_of)]
            kept = [place for place in np.argsort(ranks, kind="stable").tolist() if ranks[place] < len(places)]
            self._offsets = [offsets[place] for place in kept]
        self.population = len(offsets)
        self.count = self.population if self._offsets is None else len(self._offsets)
        asked_about = len(places) if users is None else min(users, len(places))
        self.words = [_sample_words(asked_about, len(places))]
        several = len(offsets) - len(places)
        self.notes = (f"users have several cases: {len(offsets):,} cases of {len(places):,} users",) if several else ()

    def __iter__(self) -> Iterator[Question]:
        every = self._offsets is None
        lines = jsonl.lines(self._path, "cases") if every else jsonl.lines_at(self._path, self._offsets or (), "cases")
        for line in lines:
            case = make_case(line, retrieved=self._retrieved)
            yield Question(
                user_id=case.user_id,
                history=case.history,
                relevant=case.relevant,
                chosen={*case.history, *case.relevant},
                query=case.query,
                given=case.candidates,
                # A user's later cases have longer histories: each has draws of its own.
                key=f"{case.user_id}:{len(case.history)}",
            )


def _check(case: Case, catalog: Catalog, where: str) -> None:
    for name in ("history", "candidates", "relevant"):
        for item_id in getattr(case, name) or ():
            if item_id not in catalog:
                catalog.get(item_id, f"{where}: {name} of user {case.user_id!r}")
    for name, ids in (("candidates", case.candidates), ("relevant", case.relevant)):
        if ids is not None and len(set(ids)) < len(ids):
            raise DatasetError(f"{where}: an id stands twice", field=name, value=ids, fix="name each item once")
    if case.candidates == ():
        raise DatasetError(f"{where}: there is nothing to rank", field="candidates", fix="name some, or null for all items")


def _sample_words(count: int, population: int) -> str:
    sample = f"{count:,} of {population:,} users with a case, drawn at random"
    return sample if count < population else f"all {population:,} users with a case"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
