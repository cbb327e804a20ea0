"""A question without candidates goes in, what is to be ranked comes out: drawn, retrieved, or as it was given."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from llmrank.catalog import Catalog
from llmrank.errors import DatasetError
from llmrank.types import Event, ResolvedRequest
from llmrank.wish import Constraint

if TYPE_CHECKING:
    from llmrank.retrieval.prefilter import Prefilter


@dataclass(frozen=True, slots=True)
class Question:
    """A case whose candidates are still to be chosen.

    Attributes:
        user_id, history, relevant, query, constraints: As in a Case.
        chosen: All that the user is known to have chosen, the relevant items included.
        given: The candidates of the case file, if it is one.
        key: Tells it from the other questions, for its generator; the user's id where each user has one.
    """

    user_id: str
    history: tuple[str, ...]
    relevant: tuple[str, ...]
    chosen: AbstractSet[str]
    query: str | None = None
    given: tuple[str, ...] | None = None
    key: str = ""
    constraints: tuple[Constraint, ...] = ()


Chooser: TypeAlias = Callable[[Question], tuple[str, ...] | None]
"""What chooses the candidates of a question; None stands for the whole catalogue."""

REJECTIONS = 100
"""Draws a candidate after which rejection gives up: then all items left are gone through once."""


class Sampled:
    """The relevant items and others that the user never chose, shuffled.

    Each question has a generator of its own, seeded with `seed` and the question's key: other users change nothing, as long
    as the items (and their weights) stay the same.

    Args:
        item_ids: All items that may be drawn.
        n: How many candidates, the relevant ones included.
        seed: Another seed draws others.
        counts: None draws uniformly. Otherwise items are drawn one after the other without replacement, each with
            probability proportional to its count plus one. The one is added because a relevant item is not counted for the
            user who is asked about: without it, candidates that nobody else chose would be the relevant ones for sure.
    """

    def __init__(self, item_ids: Sequence[str], n: int, seed: int, counts: Mapping[str, int] | None = None) -> None:
        self._pool = sorted(set(item_ids))
        self._n, self._seed = n, seed
        self._ends = None
        if counts is not None:
            self._ends = np.cumsum([counts.get(item_id, 0) + 1 for item_id in self._pool], dtype=np.int64)

    def __call__(self, question: Question) -> tuple[str, ...]:
        """Draws.

        Raises:
            DatasetError: there are too few items that the user never chose.
        """
        generator = _generator(self._seed, question)
        drawn = self._draw(generator, question)
        candidates = [*question.relevant, *drawn]
        generator.shuffle(candidates)
        return tuple(candidates)

    def _draw(self, generator: random.Random, question: Question) -> list[str]:
        """Different items that were not chosen, by rejection, because a pool may hold a million."""
        count, chosen = self._n - len(question.relevant), question.chosen
        # The exact count of unseen items is wanted only when it may be too small.
        if len(self._pool) - len(chosen) < count and sum(item_id not in chosen for item_id in self._pool) < count:
            raise DatasetError(
                f"user {question.user_id!r} has chosen all but too few of the {len(self._pool)} items",
                field="protocol.candidates.n",
                value=self._n,
                fix="ask for fewer candidates",
            )
        drawn: dict[str, None] = {}
        for _ in range(REJECTIONS * count + 1):
            if len(drawn) == count:
                break
            item_id = self._pool[self._place(generator)]
            if item_id not in chosen:
                drawn[item_id] = None
        else:
            left = [place for place, item_id in enumerate(self._pool) if item_id not in chosen and item_id not in drawn]
            drawn |= dict.fromkeys(self._pool[place] for place in self._of_few(generator, left, count - len(drawn)))
        return list(drawn)

    def _place(self, generator: random.Random) -> int:
        if self._ends is None:
            return generator.randrange(len(self._pool))
        return int(np.searchsorted(self._ends, generator.randrange(int(self._ends[-1])), side="right"))

    def _of_few(self, generator: random.Random, places: Sequence[int], count: int) -> list[int]:
        """The same draw without rejection: the largest u^(1/weight) of all (Efraimidis and Spirakis 2006, algorithm A-Res)."""
        weights = np.ones(len(self._pool)) if self._ends is None else np.diff(self._ends, prepend=0)
        # By their logarithms: the root of a popular item's u is too near to 1 for a float. 1 - random() is never 0.
        keys = {place: math.log(1.0 - generator.random()) / float(weights[place]) for place in places}
        return sorted(places, key=keys.__getitem__, reverse=True)[:count]


class MostPopular:
    """The most popular items that the user has not in the history; equally popular ones in an order hashed from the seed.

    Args:
        item_ids: All items.
        n: How many.
        seed: Of the order among equals.
        counts: How many users chose each.
    """

    def __init__(self, item_ids: Sequence[str], n: int, seed: int, counts: Mapping[str, int]) -> None:
        self._n = n
        self._order = sorted(item_ids, key=lambda item_id: (-counts.get(item_id, 0), _digest(f"{seed}:{item_id}")))

    def __call__(self, question: Question) -> tuple[str, ...]:
        """Best first."""
        return _unseen(self._order, question, self._n)


class Nearest:
    """What a prefilter finds in the whole catalogue: the items most like the history and the query, unseen ones.

    Args:
        prefilter: With `keep` as many as there are to be candidates.
        catalog: The items.
    """

    def __init__(self, prefilter: Prefilter, catalog: Catalog) -> None:
        self._prefilter, self._catalog = prefilter, catalog

    def __call__(self, question: Question) -> tuple[str, ...]:
        """Best first."""
        history = tuple(Event(self._catalog[item_id]) for item_id in question.history)
        request = ResolvedRequest(history, self._catalog.items, question.query, question.user_id)
        return tuple(item.id for item in self._prefilter.select(request).candidates)


class Listed:
    """What the case file lists; of a retriever's list the first that the user has not in the history.

    Args:
        n: How many; None for the list as it stands.
    """

    def __init__(self, n: int | None = None) -> None:
        self._n = n

    def __call__(self, question: Question) -> tuple[str, ...] | None:
        """In the order of the file."""
        if question.given is None or self._n is None:
            return question.given
        return _unseen(question.given, question, self._n)


class Shuffled:
    """Another chooser's candidates in random order, seeded like `Sampled`.

    Args:
        chooser: The other one.
        seed: Another seed shuffles otherwise.
    """

    def __init__(self, chooser: Chooser, seed: int) -> None:
        self._chooser, self._seed = chooser, seed

    def __call__(self, question: Question) -> tuple[str, ...] | None:
        """In random order; the whole catalogue has none."""
        found = self._chooser(question)
        if found is None:
            return None
        candidates = list(found)
        _generator(self._seed, question).shuffle(candidates)
        return tuple(candidates)


def whole_catalogue(question: Question) -> None:
    """Every item, whatever the question."""
    del question


def _unseen(ordered: Sequence[str], question: Question, n: int) -> tuple[str, ...]:
    seen, found = set(question.history), dict[str, None]()
    for item_id in ordered:
        if len(found) == n:
            break
        if item_id not in seen:
            found[item_id] = None
    return tuple(found)


def _generator(seed: int, question: Question) -> random.Random:
    """The question's own. Bytes draw what their text does, but may hold half surrogate pairs, as ids of JSON do."""
    key = f"{seed}:{question.key or question.user_id}".encode(errors="surrogatepass")
    return random.Random(key)  # noqa: S311  # sampling, not secrets


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
