"""Interactions go in; what each user chose, in order of time and cut in two, comes out; and what may be learned from it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.evaluation.folder import Popularity
from llmrank.interactions import Interactions

Codes: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cutting:
    """Where a user's items are cut into what came before and what is to be found.

    Attributes:
        last: The last so many are to be found; None to cut by time.
        moment: What came at this time (Unix seconds) or later is to be found.
        most: Of that the first so many at most; None for all.
        min_history: Users with fewer items before are left out.
    """

    last: int | None = 1
    moment: float = 0.0
    most: int | None = None
    min_history: int = 1


@dataclass(frozen=True, slots=True)
class Halves:
    """What one user chose, each item once, as places in `Interactions.items`, oldest first.

    Attributes:
        before: What may be known.
        relevant: What is to be found. Empty for a user without a case.
        after: What came later still, which is neither.
        tied: True if an order among interactions of one time decided what is relevant.
    """

    before: Sequence[int]
    relevant: Sequence[int]
    after: Sequence[int] = ()
    tied: bool = False


class Timelines:
    """Each user's items in order of time.

    Interactions of the same second are ordered by a hash of user and item, because neither the order of a file nor that of
    ids is free of meaning (in MovieLens 100K, 415 of 943 users have such a tie at the end). Where only the order is known it
    stays. An item chosen twice counts the first time.

    Args:
        interactions: Of all users.
    """

    def __init__(self, interactions: Interactions) -> None:
        self._of = interactions
        user, times = interactions.user, interactions.timestamp
        order = np.argsort(user, kind="stable") if times is None else np.lexsort((times, user))
        self._order = order.astype(np.uint32)  # half the memory
        self._bounds = np.concatenate([[0], np.cumsum(np.bincount(user, minlength=len(interactions.users)))])

    def split(self, user: int, cutting: Cutting) -> Halves:
        """What a user chose, cut.

        Args:
            user: The user's place in `Interactions.users`.
            cutting: Where.
        """
        _, items, times = self._chosen(user)
        if cutting.last is not None:
            cut, end = len(items) - cutting.last, len(items)
        else:
            cut = int(np.searchsorted(np.array(times), cutting.moment))
            end = len(items) if cutting.most is None else min(len(items), cut + cutting.most)
        if cut < cutting.min_history or cut == end:
            # Without a case nothing is asked for; but what lies after a cut in time is not known yet.
            return Halves(items, ()) if cutting.last is not None else Halves(items[:cut], (), items[cut:])
        borders = [place for place in (cut, end) if 0 < place < len(items)]
        tied = times is not None and any(times[place - 1] == times[place] for place in borders)
        return Halves(items[:cut], items[cut:end], items[end:], tied)

    def rows(self, user: int) -> list[int]:
        """The rows of `Interactions` in which a user chose each item for the first time, oldest first: those of `split`."""
        return self._chosen(user)[0]

    def _chosen(self, user: int) -> tuple[list[int], list[int], list[float] | None]:
        """A user's items, each once: the rows in which they were chosen, the items, and when."""
        own = self._order[self._bounds[user] : self._bounds[user + 1]]
        rows: list[int] = own.tolist()
        items: list[int] = self._of.item[own].tolist()
        moments = None if self._of.timestamp is None else self._of.timestamp[own]
        if moments is not None and (moments[1:] == moments[:-1]).any():
            times: list[float] = moments.tolist()
            digests = [self._digest(user, item) for item in items]
            order = sorted(range(len(items)), key=lambda place: (times[place], digests[place]))
            items, rows = [items[place] for place in order], [rows[place] for place in order]
        first = dict(zip(reversed(items), reversed(rows), strict=True))
        distinct = list(dict.fromkeys(items))
        rows = [first[item] for item in distinct]
        return rows, distinct, None if self._of.timestamp is None else self._of.timestamp[rows].tolist()

    def _digest(self, user: int, item: int) -> bytes:
        return hashlib.sha256(f"{self._of.users[user]}\0{self._of.items[item]}".encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class Survey:
    """What one look at all users found.

    Attributes:
        users: The places of those with a case: int64.
        tied: For how many of them an order within one time decided what is relevant.
        most_relevant: The most relevant items that one of them has.
        counts: How many users chose each item, as far as that may be known: int64, shape (items,).
        known: How many users chose any of them.
    """

    users: NDArray[np.int64]
    tied: int
    most_relevant: int
    counts: NDArray[np.int64]
    known: int


def survey(interactions: Interactions, timelines: Timelines, cutting: Cutting) -> Survey:
    """Looks at every user once; nothing that a case asks for is counted, whether that case is ranked or not."""
    users: list[int] = []
    tied = most_relevant = known = 0
    counts = np.zeros(len(interactions.items), dtype=np.int64)
    for user in range(len(interactions.users)):
        split = timelines.split(user, cutting)
        counts[list(split.before)] += 1
        known += bool(split.before)
        if split.relevant:
            users.append(user)
            tied += split.tied
            most_relevant = max(most_relevant, len(split.relevant))
    return Survey(np.array(users, dtype=np.int64), tied, most_relevant, counts, known)


def popularity(interactions: Interactions, asked: Iterable[tuple[str, str]] = ()) -> Popularity:
    """How many users chose each item.

    Args:
        interactions: All of them; a second choice of an item by the same user does not count.
        asked: Pairs of user and item that are not counted, so that no answer leaks into the counts.
    """
    return popularity_without(interactions, codes_of(interactions, asked))


def popularity_without(interactions: Interactions, withheld: Codes) -> Popularity:
    """`popularity`, for pairs that `codes_of` or `all_codes` gives."""
    width = len(interactions.items)
    pairs = np.setdiff1d(all_codes(interactions), withheld)
    counts = np.bincount(pairs % width, minlength=width) if width else np.zeros(0, dtype=np.int64)
    return counted(interactions, counts, len(np.unique(pairs // width)) if width else 0)


def all_codes(interactions: Interactions) -> Codes:
    """One number for each pair of a user and an item that was chosen, rising: user * items + item, by their places."""
    return np.unique(interactions.user.astype(np.int64) * len(interactions.items) + interactions.item)


def codes_of(interactions: Interactions, pairs: Iterable[tuple[str, str]]) -> Codes:
    """The numbers of pairs of ids, without those of which the interactions know nothing."""
    users = {user_id: place for place, user_id in enumerate(interactions.users)}
    items = {item_id: place for place, item_id in enumerate(interactions.items)}
    known = [users[user] * len(items) + items[item] for user, item in pairs if user in users and item in items]
    return np.array(known, dtype=np.int64)


def counted(interactions: Interactions, counts: NDArray[np.int64], users: int) -> Popularity:
    """Counts by place as counts by id; items that nobody chose are left out."""
    by_id = zip(interactions.items, counts.tolist(), strict=True)
    return Popularity(users, Counter({item_id: count for item_id, count in by_id if count}))
