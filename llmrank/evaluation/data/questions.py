"""Interactions and where to cut them, or a case file, go in; Questions come out: cases whose candidates are to be chosen.

Of each history only the end may be shown (`last_history`), as if the user were new. What is hidden of those who are asked about
is then not learned from either.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llmrank import jsonl
from llmrank.catalog import Catalog
from llmrank.errors import DatasetError
from llmrank.evaluation.cases import Case, make_case
from llmrank.evaluation.data.candidates import Question
from llmrank.evaluation.data.chosen import Choices, Chosen
from llmrank.evaluation.data.timelines import (
    Codes,
    Cutting,
    Timelines,
    all_codes,
    codes_of,
    counted,
    popularity_without,
    survey,
)
from llmrank.evaluation.data.training import gathered, rows_without, taken
from llmrank.evaluation.folder import Popularity
from llmrank.interactions import Interactions


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
        """How popular the items are in what may be learned from, of all users; None without interactions."""
        ...

    def training_interactions(self) -> Interactions | None:
        """What may be learned from: the interactions that `training` counts. None without interactions."""
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
        last_history: How many items of a history, the last ones, are shown, and learned from; None for all.
    """

    def __init__(
        self, interactions: Interactions, cutting: Cutting, *, users: int | None, seed: int, last_history: int | None = None
    ) -> None:
        self._of, self._cutting, self._last = interactions, cutting, last_history
        self._timelines = Timelines(interactions)
        found = survey(interactions, self._timelines, cutting)
        order = shuffled_by_hash([interactions.users[place] for place in found.users], seed)
        self._users: NDArray[np.int64] = found.users[np.array(order[:users], dtype=np.int64)]
        self.count, self.population = len(self._users), len(found.users)
        self.most_relevant = found.most_relevant
        known = found.known
        for user in self._users.tolist() if last_history is not None else ():
            before = self._timelines.split(user, cutting).before
            found.counts[list(before[: _first_shown(before, last_history)])] -= 1
            known -= bool(before) and not last_history
        self.training = counted(interactions, found.counts, known)
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
            yield Question(self._of.users[user], before[_first_shown(before, self._last) :], relevant, chosen)

    def training_interactions(self) -> Interactions:
        """What all users chose before what is to be found, each item once, user by user, oldest first."""
        asked = np.zeros(len(self._of.users), dtype=np.bool_)
        asked[self._users] = True

        def learned(user: int) -> list[int]:
            end = len(self._timelines.split(user, self._cutting).before)
            rows = self._timelines.rows(user)[:end]
            return rows[_first_shown(rows, self._last) :] if asked[user] else rows

        return taken(self._of, gathered(map(learned, range(len(asked)))))


class GivenQuestions:
    """The questions of a case file, which is read once to check it, and again at each pass.

    Args:
        path: The case file.
        catalog: Where all of its ids must be.
        interactions: What may be learned from, without what the cases ask for; None for nothing.
        retrieved: The name of a list in `retrieved` that stands for the candidates; None for `candidates`.
        sampled: True gathers all that the users chose, in the interactions and in all of their cases, so that none of it is
            drawn as a candidate that the user never chose.
        users: How many users are asked about, drawn at random; None for all.
        seed: Of the draw.
        last_history: How many items of a history, the last ones, are shown; of users who are asked about nothing is learned
            but what any of their cases shows. None for all.

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
        sampled: bool,
        users: int | None,
        seed: int,
        last_history: int | None = None,
    ) -> None:
        self._path, self._retrieved, self._last = path, retrieved, last_history
        self._of = interactions
        places: dict[str, int] = {}
        user_of, lengths, offsets = array("q"), array("q"), array("q")
        asked: list[tuple[str, str]] = []
        shown: list[tuple[str, str]] = []
        self.most_relevant = 0
        for line in jsonl.lines(path, "cases"):
            case = make_case(line, retrieved=retrieved)
            _check(case, catalog, line.where)
            user_of.append(places.setdefault(case.user_id, len(places)))
            lengths.append(len(case.history))
            offsets.append(line.offset)
            self.most_relevant = max(self.most_relevant, len(case.relevant))
            if interactions is not None:
                asked += ((case.user_id, item_id) for item_id in case.relevant)
            if interactions is not None and last_history is not None:
                history = case.history[_first_shown(case.history, last_history) :]
                shown += ((case.user_id, item_id) for item_id in history)
        self._offsets: list[int] | None = None
        self._user_of = np.array(user_of)
        self._repeats = _repeats(self._user_of, np.array(lengths))
        asked_users = np.ones(len(places), dtype=np.bool_)
        if users is not None:
            rank = np.full(len(places), len(places), dtype=np.int64)
            order = shuffled_by_hash(list(places), seed)[:users]
            rank[order] = np.arange(len(order))
            asked_users = rank < len(places)
            ranks = rank[self._user_of]
            kept = [place for place in np.argsort(ranks, kind="stable").tolist() if ranks[place] < len(places)]
            self._offsets = [offsets[place] for place in kept]
            self._user_of, self._repeats = self._user_of[kept], self._repeats[kept]
        self.training: Popularity | None = None
        if interactions is not None:
            self._withheld = codes_of(interactions, asked)
            if last_history is not None:
                hidden = _hidden(interactions, [user for user, at in places.items() if asked_users[at]], shown)
                self._withheld = np.union1d(self._withheld, hidden)
            self.training = popularity_without(interactions, self._withheld)
        self._chosen: Chosen | None = None
        if sampled:
            self._chosen = self._gather(catalog, interactions, places, np.array(user_of), asked_users)
        self.population = len(offsets)
        self.count = self.population if self._offsets is None else len(self._offsets)
        asked_about = len(places) if users is None else min(users, len(places))
        self.words = [_sample_words(asked_about, len(places))]
        several = len(offsets) - len(places)
        self.notes = (f"users have several cases: {len(offsets):,} cases of {len(places):,} users",) if several else ()

    def __iter__(self) -> Iterator[Question]:
        every = self._offsets is None
        lines = jsonl.lines(self._path, "cases") if every else jsonl.lines_at(self._path, self._offsets or (), "cases")
        for place, line in enumerate(lines):
            case = make_case(line, retrieved=self._retrieved)
            elsewhere = set() if self._chosen is None else self._chosen.of(int(self._user_of[place]))
            repeat = int(self._repeats[place])
            yield Question(
                user_id=case.user_id,
                history=case.history[_first_shown(case.history, self._last) :],
                relevant=case.relevant,
                chosen=elsewhere.union(case.history, case.relevant),
                query=case.query,
                constraints=case.constraints,
                given=case.candidates,
                # Each of a user's cases has draws of its own; mostly the length of the history tells them apart.
                key=f"{case.user_id}:{len(case.history)}" + (f"#{repeat}" if repeat else ""),
            )

    def training_interactions(self) -> Interactions | None:
        """The interactions without what the cases ask for, each pair of user and item once, user by user, oldest first."""
        if self._of is None:
            return None
        return taken(self._of, rows_without(self._of, Timelines(self._of), self._withheld))

    def _gather(
        self,
        catalog: Catalog,
        interactions: Interactions | None,
        places: Mapping[str, int],
        user_of: NDArray[np.int64],
        asked: NDArray[np.bool_],
    ) -> Chosen | None:
        """What users who are asked about chose beside what the case itself says; None if there is nothing of the kind."""
        several = asked & (np.bincount(user_of, minlength=len(places)) > 1)
        if interactions is None and not several.any():
            return None
        gathered = Choices([item.id for item in catalog], len(places))
        if interactions is not None:
            gathered.add_interactions(interactions, {user_id: place for user_id, place in places.items() if asked[place]})
        if several.any():
            # A second reading, so that the items of those with one case, who are most users, are never kept.
            for user, line in zip(user_of.tolist(), jsonl.lines(self._path, "cases"), strict=True):
                if several[user]:
                    case = make_case(line, retrieved=self._retrieved)
                    gathered.add(user, (*case.history, *case.relevant))
        return gathered.whole()


def _first_shown(history: Sequence[object], last: int | None) -> int:
    """The place of the first item of a history that is shown."""
    return 0 if last is None else max(0, len(history) - last)


def _hidden(interactions: Interactions, users: Sequence[str], shown: Sequence[tuple[str, str]]) -> Codes:
    """All that these users chose, but for what is shown, as numbers of pairs."""
    places = {user_id: place for place, user_id in enumerate(interactions.users)}
    asked = np.zeros(len(places), dtype=np.bool_)
    asked[[places[user_id] for user_id in users if user_id in places]] = True
    pairs = all_codes(interactions)
    of_asked = pairs[asked[pairs // max(1, len(interactions.items))]]
    return np.setdiff1d(of_asked, codes_of(interactions, shown))


def _repeats(user_of: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each case how many earlier ones are of the same user and have as long a history."""
    order = np.lexsort((lengths, user_of))  # stable: equal ones stay in the order of the file
    firsts = np.ones(len(order), dtype=np.bool_)
    firsts[1:] = (np.diff(user_of[order]) != 0) | (np.diff(lengths[order]) != 0)
    runs = np.flatnonzero(firsts)
    repeats = np.empty(len(order), dtype=np.int64)
    repeats[order] = np.arange(len(order)) - np.repeat(runs, np.diff(runs, append=len(order)))
    return repeats


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
    if population == 1:
        return "the only user with a case"
    return sample if count < population else f"all {population:,} users with a case"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
