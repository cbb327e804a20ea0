"""A request with any number of candidates (a million) goes in; the few that are most like its history or query come out.

The default retriever: recency-weighted mean of the history's embeddings, the query's beside it, cosine with each candidate.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmrank.errors import BackendError, ConfigError, RequestError
from llmrank.protocols import Embedder
from llmrank.retrieval.history import blend, history_vector
from llmrank.retrieval.index import ExactIndex, top_k
from llmrank.retrieval.text import check_fields, clean, item_text
from llmrank.retrieval.vectors import Progress, Rows, TableEmbedder, Vectors, close_embedder, table_of
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
        self._by_id = isinstance(embedder, TableEmbedder) and embedder.keyed_by == "id"
        if not self._by_id:
            check_fields(self.options.fields, self._items)
        self._catalog: _CatalogIndex | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def prepare(self, progress: Progress | None = None) -> None:
        """Embeds the whole catalogue now instead of at the first request for it.

        Args:
            progress: Called with (done, total) after each chunk.

        Raises:
            BackendError: the embedding server did not answer, or `close` was called meanwhile; what was embedded so far is
                kept if the embedder keeps vectors.
        """
        self._refuse_closed()
        self._whole(progress)

    def close(self) -> None:
        """Ends the embedding of a catalogue in another thread after its chunk, and closes the embedder. May be called twice."""
        self._closed.set()
        close_embedder(self.embedder)

    def select(self, request: ResolvedRequest) -> Selection:
        """Orders the candidates by their cosine with the user's vector and keeps the first `keep`.

        Equal cosines keep the order given. Without a history and a query (or without a known word in them) the first `keep`
        are taken as given, and a note says so. So does one where precomputed vectors lack the query and the history has to do.

        Raises:
            RequestError: every candidate stands in the history; or precomputed vectors lack an item, or a query that has no
                history beside it.
            BackendError: the embedding server did not answer, or `close` was called.
        """
        self._refuse_closed()
        wanted, notes = self._user_vector(request)
        if wanted is not None and len(self._items) and request.candidates is self._items:
            return self._select_from_catalog(wanted, self._seen(request), notes)
        if wanted is None:
            what = "history or query" if not request.history and not request.query else "known word in history or query"
            note = f"the prefilter found no {what} to compare with: candidates are in the order given"
            given = self.as_given(request)
            return replace(given, notes=(*notes, note))
        items, left_out = self._unseen(request)
        scores = self._scores(items, wanted)
        best = top_k(scores, self.options.keep)
        return _selection(items, best, scores[best], left_out, len(items) - len(best), notes)

    def as_given(self, request: ResolvedRequest) -> Selection:
        """The first `keep` candidates that were not seen, in the order given: what is left to do without vectors.

        Raises:
            RequestError: every candidate stands in the history.
        """
        items, left_out = self._unseen(request)
        kept = tuple(items[: self.options.keep])
        return Selection(kept, (0.0,) * len(kept), left_out, len(items) - len(kept))

    def _seen(self, request: ResolvedRequest) -> set[str]:
        return {item.id for item in request.history_items} if self.options.drop_seen else set()

    def _unseen(self, request: ResolvedRequest) -> tuple[Sequence[Item], tuple[str, ...]]:
        """The candidates that may be shown, and the ids of those that stand in the history."""
        seen = self._seen(request)
        left_out = tuple(item.id for item in request.candidates if item.id in seen)
        items = [item for item in request.candidates if item.id not in seen] if left_out else request.candidates
        _refuse_nothing_left(len(items), len(request.candidates))
        return items, left_out

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """The cosine of each candidate with the user's vector, float32 of shape (len(candidates),); zeros if there is none."""
        self._refuse_closed()
        wanted, _ = self._user_vector(request)
        if wanted is None:
            return np.zeros(len(candidates), dtype=np.float32)
        return self._scores(candidates, wanted)

    def _select_from_catalog(self, wanted: Vectors, seen: set[str], notes: tuple[str, ...]) -> Selection:
        catalog = self._whole(None)
        places = sorted(catalog.places[item_id] for item_id in seen if item_id in catalog.places)
        _refuse_nothing_left(len(self._items) - len(places), len(self._items))
        hits = catalog.index.search(wanted, self.options.keep, exclude=places)
        left_out = tuple(self._items[place].id for place in places)
        dropped = len(self._items) - len(places) - len(hits.scores)
        return _selection(self._items, hits.positions, hits.scores, left_out, dropped, notes)

    def _user_vector(self, request: ResolvedRequest) -> tuple[Vectors | None, tuple[str, ...]]:
        """What the user wants as a unit vector, None if nothing is known of it; and what could not be looked at."""
        recent = request.history_items[-self.options.last :]
        notes: tuple[str, ...] = ()
        vectors = []
        if recent:
            vectors.append(history_vector(self._vectors(recent), self.options.decay))
        if request.query:
            try:
                vectors.append(self.embedder.embed([clean(request.query)])[0])
            except RequestError as error:  # precomputed vectors without one for this text, and without a fallback
                if not recent:
                    raise RequestError(
                        f"cannot be compared with the candidates ({error.message}), and there is no history to compare with",
                        field="query",
                        value=request.query,
                        fix=f"give a history, or {error.fix}",
                    ) from error
                notes = (f"the prefilter went by the history alone and left the query out: {error.message}; {error.fix}",)
        vector = blend(vectors[0], vectors[1], self.options.query_weight) if len(vectors) == 2 else next(iter(vectors), None)
        return (vector if vector is not None and vector.any() else None), notes

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
            # A caller may bring an item of his own under an id of the catalogue: then its own words count. The words are
            # compared and not the items, whose other attributes may be anything: NumPy arrays have no plain `!=`.
            if place >= 0 and self._items[place] is not items[at] and self._key(self._items[place]) != self._key(items[at]):
                places[at] = -1
        return places

    def _key(self, item: Item) -> str:
        """What the embedder knows the item by."""
        return item.id if self._by_id else item_text(item, self.options.fields)

    def _embedded(self, items: Sequence[Item], progress: Progress | None = None) -> ExactIndex:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            self._refuse_closed()  # between two chunks: a catalogue of a million takes minutes

        return ExactIndex(*table_of(self.embedder, [self._key(item) for item in items], report))

    def _refuse_closed(self) -> None:
        if self._closed.is_set():
            raise BackendError("the prefilter is closed; what it embedded before is kept if the embedder keeps vectors")

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


def _selection(
    items: Sequence[Item], places: Rows, scores: Vectors, seen: tuple[str, ...], dropped: int, notes: tuple[str, ...]
) -> Selection:
    return Selection(tuple(items[place] for place in places.tolist()), tuple(scores.tolist()), seen, dropped, notes)


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
