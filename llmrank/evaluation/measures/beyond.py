"""The items that were shown go in, what can be said of them beyond relevance comes out: novelty, diversity, coverage ...

What is shown are the first k items of a ranking. Functions are of one list; classes add up a whole run, in memory that grows
with the catalogue and not with the cases. NaN stands for: not defined for this list.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from llmrank.catalog import Catalog
from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.folder import Popularity
from llmrank.protocols import Embedder
from llmrank.retrieval.text import item_text

if TYPE_CHECKING:
    from llmrank.retrieval.index import ExactIndex


class ItemVectors:
    """The unit vectors of a catalogue's items, looked up once, at the first question.

    Args:
        catalog: The items.
        embedder: Makes the vectors, or has them: of a table that lies on disk no copy is made.
        fields: What of an item is embedded: ``title`` and names of attributes.
    """

    def __init__(self, catalog: Catalog, embedder: Embedder, fields: Sequence[str] = ("title",)) -> None:
        self._catalog, self._embedder, self._fields = catalog, embedder, tuple(fields)

    def mean_distance(self, item_ids: Sequence[str]) -> float:
        """The mean of 1 - cosine over all pairs of these items, from 0 to 2; NaN for fewer than two.

        An item without a known word has no direction: its distance to any other is 1.

        Raises:
            DatasetError: an item is not in the catalogue.
        """
        import numpy as np

        count = len(item_ids)
        if count < 2:
            return math.nan
        index, places = self._table
        try:
            rows = [places[item_id] for item_id in item_ids]
        except KeyError as error:
            fix = "check that the run's folder is whole"
            raise DatasetError("a ranked item is not in the catalogue", field="run", value=error.args[0], fix=fix) from error
        vectors = index.vectors(rows).astype(np.float64)
        # The square of the sum holds each pair twice, and each item with itself once.
        total = vectors.sum(axis=0)
        pairs = float(total @ total) - float(np.einsum("ij,ij->", vectors, vectors))
        return max(0.0, 1.0 - pairs / (count * (count - 1)))  # 0 of equal items, whatever float32 made of their length

    @cached_property
    def _table(self) -> tuple[ExactIndex, dict[str, int]]:
        # Here, because they import NumPy: names of measures are read without it.
        from llmrank.retrieval.index import ExactIndex
        from llmrank.retrieval.vectors import TableEmbedder, table_of

        items = self._catalog.items
        by_id = isinstance(self._embedder, TableEmbedder) and self._embedder.keyed_by == "id"
        keys = [item.id if by_id else item_text(item, self._fields) for item in items]
        return ExactIndex(*table_of(self._embedder, keys)), {item.id: place for place, item in enumerate(items)}


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a run's items.

    Attributes:
        items: How many the catalogue has.
        popularity: Who chose what before; None if the run has no interactions.
        vectors: Of the items; None if there is no embedder.
    """

    items: int
    popularity: Popularity | None = None
    vectors: ItemVectors | None = None

    @property
    def has(self) -> frozenset[str]:
        """What is there of that which a measure may need."""
        there = {"interactions": self.popularity, "embedder": self.vectors}
        return frozenset(name for name, value in there.items() if value is not None)

    def counted(self) -> Popularity:
        """The popularity. Raises ConfigError if there is none."""
        if self.popularity is None:
            fix = "name `interactions` in the suite"
            raise ConfigError("a measure needs to know who chose what before", field="metrics", fix=fix)
        return self.popularity

    def embedded(self) -> ItemVectors:
        """The vectors. Raises ConfigError if there are none."""
        if self.vectors is None:
            raise ConfigError("a measure needs the items' vectors", field="metrics", fix="give an embedder")
        return self.vectors


def novelty(shown: Sequence[str], known: Known) -> float:
    """The mean self-information of the items, in bits: -log2 of the probability that a user chose the item before.

    Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender systems". The probability is smoothed,
    (chosen + 1) / (users + 1), so that an item that nobody chose has a finite value, the highest, and one that all chose has 0.
    """
    if not shown:
        return math.nan
    found = known.counted()
    return sum(math.log2((found.users + 1) / (found.counts[item_id] + 1)) for item_id in shown) / len(shown)


def mean_popularity(shown: Sequence[str], known: Known) -> float:
    """By how many users the items were chosen before, on average.

    "Average recommendation popularity": Yin et al. 2012, "Challenging the long tail recommendation".
    """
    if not shown:
        return math.nan
    counts = known.counted().counts
    return sum(counts[item_id] for item_id in shown) / len(shown)


def new_items(shown: Sequence[str], known: Known) -> float:
    """The part of the items that nobody chose before."""
    if not shown:
        return math.nan
    counts = known.counted().counts
    return sum(not counts[item_id] for item_id in shown) / len(shown)


def diversity(shown: Sequence[str], known: Known) -> float:
    """Intra-list diversity: the mean of 1 - cosine over all pairs of the items' vectors.

    Smyth and McClave 2001, "Similarity vs. diversity"; one minus the intra-list similarity of Ziegler et al. 2005.
    """
    return known.embedded().mean_distance(shown)


class RunTally(Protocol):
    """Adds up the lists of a run."""

    def add(self, shown: Sequence[str], history: Sequence[str]) -> None:
        """Counts one list and the history of the user who was shown it."""
        ...

    def value(self) -> float:
        """The number for all of them; NaN if it is not defined."""
        ...


class Coverage:
    """The part of the catalogue's items that were shown at least once ("catalogue coverage", Ge et al. 2010)."""

    def __init__(self, known: Known) -> None:
        self._items = known.items
        self._shown: set[str] = set()

    def add(self, shown: Sequence[str], history: Sequence[str]) -> None:
        """Counts one list."""
        self._shown.update(shown)

    def value(self) -> float:
        """From 0 to 1."""
        return len(self._shown) / self._items if self._items else math.nan


class Gini:
    """How unevenly the lists share themselves among the catalogue's items: 0 equally, 1 all to one item.

    Shani and Gunawardana 2011, "Evaluating recommendation systems": the sum over items, the most rarely shown first, of
    (2 j - n - 1) p(j), divided by n - 1.
    """

    def __init__(self, known: Known) -> None:
        self._items = known.items
        self._times: Counter[str] = Counter()

    def add(self, shown: Sequence[str], history: Sequence[str]) -> None:
        """Counts one list."""
        self._times.update(shown)

    def value(self) -> float:
        """From 0 to 1."""
        total = self._times.total()
        if not total or self._items < 2:
            return math.nan
        first = self._items - len(self._times) + 1  # the items before it were never shown
        places = enumerate(sorted(self._times.values()), start=first)
        return sum((2 * place - self._items - 1) * times for place, times in places) / (total * (self._items - 1))


class PopularityLift:
    """How much more popular what is shown is than what the same users chose themselves: 0 equally, 1 twice as popular.

    Abdollahpouri et al. 2020, "The connection between popularity bias, calibration, and fairness in recommendation", with
    all users as one group: the mean over users of the mean popularity of their list, divided by the same of their history,
    minus 1. Users without a list or without a history are in neither mean.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._shown = self._chosen = 0.0

    def add(self, shown: Sequence[str], history: Sequence[str]) -> None:
        """Counts one list and the history of its user."""
        if shown and history:
            self._shown += mean_popularity(shown, self._known)
            self._chosen += mean_popularity(history, self._known)

    def value(self) -> float:
        """From -1 up."""
        return self._shown / self._chosen - 1.0 if self._chosen else math.nan
