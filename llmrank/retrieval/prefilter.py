"""A request with any number of candidates (a million) goes in; the few that are most like its history or query come out.

The default retriever: recency-weighted mean of the history's embeddings, the query's beside it, cosine with each candidate.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrank.errors import ConfigError, RequestError
from llmrank.protocols import Embedder
from llmrank.retrieval.history import blend, history_vector
from llmrank.retrieval.index import ExactIndex, top_k
from llmrank.retrieval.text import check_fields, clean, item_text
from llmrank.retrieval.vectors import Progress, Rows, TableEmbedder, Vectors, embed_unique
from llmrank.types import Item, ResolvedRequest

WORTH_ALL = 4
"""A list of a fourth of the catalogue is worth embedding all of it, once, instead of the list at each request."""


@dataclass(frozen=True, slots=True)
class PrefilterOptions:
    """What the prefilter keeps, and by what.

    Args:
        keep: The most candidates that reach the model.
        decay: The weight of a history item is decay^age, the last one having age 0; in (0, 1].
        last: How many history items, the most recent, count.
        query_weight: The query's share where there is a query and a history; in [0, 1].
        drop_seen: Leaves out candidates that stand in the history.
        fields: What of an item is embedded: ``title`` and names of attributes.
    """

    keep: int = 20
    decay: float = 0.9
    last: int = 10
    query_weight: float = 0.5
    drop_seen: bool = True
    fields: tuple[str, ...] = ("title",)

    def __post_init__(self) -> None:
        for name, value in (("keep", self.keep), ("last", self.last)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError("must be a whole number of at least 1", field=f"prefilter.{name}", value=value, fix="try 20")
        _check_share("decay", self.decay, lowest_allowed=False)
        _check_share("query_weight", self.query_weight, lowest_allowed=True)
        if isinstance(self.fields, str) or not self.fields or not all(isinstance(field, str) for field in self.fields):
            raise ConfigError("must be a list of names", field="prefilter.fields", value=self.fields, fix="write [title]")
        object.__setattr__(self, "fields", tuple(self.fields))


@dataclass(frozen=True, slots=True)
class Selection:
    """What the prefilter kept.

    Attributes:
        candidates: Best first, at most `keep`.
        scores: The cosine of each; zeros where there was nothing to compare with.
        seen: Ids of candidates that were left out because they stand in the history.
        dropped: How many others were left out.
        notes: What could not be done, a sentence each.
    """

    candidates: tuple[Item, ...]
    scores: tuple[float, ...]
    seen: tuple[str, ...] = ()
    dropped: int = 0
    notes: tuple[str, ...] = ()


class Prefilter:
    """Cuts candidates down by embeddings; also a Retriever. Safe to use from several threads; call it in one, it computes.

    A request for the whole catalogue (`request.candidates is catalog_items`) is answered from one matrix of all its vectors,
    made at the first such request or by `prepare`. A request for a list uses that matrix if it is there, and otherwise
    embeds only what it needs.

    Args:
        embedder: Makes the vectors; in a `CachedEmbedder` a catalogue is embedded once and memory-mapped.
        options: See `PrefilterOptions`.
        catalog_items: The catalogue's items (`Catalog.items`), or None if every request brings its own.

    Raises:
        ConfigError: a field that no item of the catalogue has.
    """

    name = "prefilter"

    def __init__(
        self, embedder: Embedder, options: PrefilterOptions | None = None, catalog_items: Sequence[Item] | None = None
    ) -> None:
        self.embedder = embedder
        self.options = options or PrefilterOptions()
        self._items: Sequence[Item] = () if catalog_items is None else catalog_items
        if not self._by_id:
            check_fields(self.options.fields, self._items)
        self._catalog: _CatalogIndex | None = None
        self._lock = threading.Lock()

    def prepare(self, progress: Progress | None = None) -> None:
        """Embeds the whole catalogue now instead of at the first request for it.

        Args:
            progress: Called with (done, total) after each chunk.

        Raises:
            BackendError: the embedding server did not answer; what it gave so far is kept if the embedder keeps vectors.
        """
        self._whole(progress)

    def select(self, request: ResolvedRequest) -> Selection:
        """Orders the candidates by their cosine with the user's vector and keeps the first `keep`.

        Equal cosines keep the order given. Without a history and a query (or without a known word in them) the first `keep`
        are taken as given, and a note says so.

        Raises:
            RequestError: every candidate stands in the history; or precomputed vectors lack one.
            BackendError: the embedding server did not answer.
        """
        wanted = self._user_vector(request)
        seen = {item.id for item in request.history_items} if self.options.drop_seen else set()
        if wanted is not None and len(self._items) and request.candidates is self._items:
            return self._select_from_catalog(request, wanted, seen)
        left_out = tuple(item.id for item in request.candidates if item.id in seen) if seen else ()
        items = [item for item in request.candidates if item.id not in seen] if left_out else request.candidates
        _refuse_nothing_left(len(items), len(request.candidates))
        if wanted is None:
            kept = tuple(items[: self.options.keep])
            what = "history or query" if not request.history and not request.query else "known word in history or query"
            note = f"the prefilter found no {what} to compare with: candidates are in the order given"
            return Selection(kept, (0.0,) * len(kept), left_out, len(items) - len(kept), (note,))
        scores = self._scores(items, wanted)
        best = top_k(scores, self.options.keep)
        return _selection(items, best, scores[best], left_out, len(items) - len(best))

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """The cosine of each candidate with the user's vector, float32 of shape (len(candidates),); zeros if there is none."""
        wanted = self._user_vector(request)
        if wanted is None:
            return np.zeros(len(candidates), dtype=np.float32)
        return self._scores(candidates, wanted)

    @property
    def _by_id(self) -> bool:
        return isinstance(self.embedder, TableEmbedder) and self.embedder.keyed_by == "id"

    def _select_from_catalog(self, request: ResolvedRequest, wanted: Vectors, seen: set[str]) -> Selection:
        catalog = self._whole(None)
        places = sorted(catalog.places[item_id] for item_id in seen if item_id in catalog.places)
        _refuse_nothing_left(len(self._items) - len(places), len(self._items))
        hits = catalog.index.search(wanted, self.options.keep, exclude=places)
        left_out = tuple(self._items[place].id for place in places)
        return _selection(self._items, hits.positions, hits.scores, left_out, len(self._items) - len(places) - len(hits.scores))

    def _user_vector(self, request: ResolvedRequest) -> Vectors | None:
        """What the user wants as a unit vector; None if nothing is known of it."""
        recent = request.history_items[-self.options.last :]
        vectors = []
        if recent:
            vectors.append(history_vector(self._vectors(recent), self.options.decay))
        if request.query:
            vectors.append(self.embedder.embed([clean(request.query)])[0])
        vector = blend(vectors[0], vectors[1], self.options.query_weight) if len(vectors) == 2 else next(iter(vectors), None)
        return vector if vector is not None and vector.any() else None

    def _scores(self, items: Sequence[Item], wanted: Vectors) -> Vectors:
        if len(items) * WORTH_ALL >= len(self._items) > 0:
            self._whole(None)
        places = self._places(items)
        scores = np.empty(len(items), dtype=np.float32)
        known, unknown = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        if len(known) and self._catalog is not None:
            scores[known] = self._catalog.index.scores(wanted, places[known])
        if len(unknown):
            scores[unknown] = self._embedded([items[at] for at in unknown.tolist()]).scores(wanted)
        return scores

    def _vectors(self, items: Sequence[Item]) -> Vectors:
        """One row an item."""
        index = self._embedded(items)
        return index.vectors(range(len(items)))

    def _places(self, items: Sequence[Item]) -> Rows:
        """Where each item stands in the catalogue's matrix; -1 if it does not, or there is no matrix (yet)."""
        catalog = self._catalog
        if catalog is None:
            return np.full(len(items), -1, dtype=np.int64)
        places = np.fromiter((catalog.places.get(item.id, -1) for item in items), dtype=np.int64, count=len(items))
        for at, place in enumerate(places.tolist()):
            # A caller may bring an item of his own under an id of the catalogue: then its own words count.
            if place >= 0 and self._items[place] is not items[at] and self._items[place] != items[at]:
                places[at] = -1
        return places

    def _embedded(self, items: Sequence[Item], progress: Progress | None = None) -> ExactIndex:
        if self._by_id:
            return ExactIndex(*_table(self.embedder, [item.id for item in items], progress))
        return ExactIndex(*_table(self.embedder, [item_text(item, self.options.fields) for item in items], progress))

    def _whole(self, progress: Progress | None) -> _CatalogIndex:
        with self._lock:
            if self._catalog is None:
                index = self._embedded(self._items, progress)
                self._catalog = _CatalogIndex(index, {item.id: place for place, item in enumerate(self._items)})
            return self._catalog


@dataclass(frozen=True, slots=True)
class _CatalogIndex:
    index: ExactIndex
    places: dict[str, int]


def _table(embedder: Embedder, keys: Sequence[str], progress: Progress | None) -> tuple[Vectors, Rows | None]:
    if isinstance(embedder, TableEmbedder):
        return embedder.table(keys, progress)
    return embed_unique(embedder, keys, progress)


def _selection(items: Sequence[Item], places: Rows, scores: Vectors, seen: tuple[str, ...], dropped: int) -> Selection:
    return Selection(tuple(items[place] for place in places.tolist()), tuple(scores.tolist()), seen, dropped)


def _refuse_nothing_left(left: int, of: int) -> None:
    if not left:
        raise RequestError(
            f"{'the only one stands' if of == 1 else f'all {of:,} stand'} in the history",
            field="candidates",
            fix="give candidates that the user does not have, or set prefilter.drop_seen to false",
        )


def _check_share(name: str, value: float, *, lowest_allowed: bool) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value > 1 or value < 0 or (value == 0 and not lowest_allowed):
        span = "from 0 to 1" if lowest_allowed else "above 0 and at most 1"
        raise ConfigError(f"must be a number {span}", field=f"prefilter.{name}", value=value, fix="try 0.5")
