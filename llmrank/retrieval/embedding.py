"""A request goes in, the cosine of each candidate with what its user wants comes out: retrieval by embeddings.

What a user wants is one vector: the recency-weighted mean of the history's embeddings, the query's beside it.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmrank.errors import BackendError, ConfigError, RequestError
from llmrank.protocols import Embedder
from llmrank.retrieval.approximate import ApproximateIndex
from llmrank.retrieval.graph import ApproximateOptions
from llmrank.retrieval.history import away_from, blend, history_vector
from llmrank.retrieval.index import ExactIndex, Hits, VectorIndex
from llmrank.retrieval.subset import Subset
from llmrank.retrieval.text import check_fields, clean, item_text
from llmrank.retrieval.vectors import Progress, Rows, TableEmbedder, Vectors, close_embedder, folder_of, table_of
from llmrank.types import Item, ResolvedRequest, Wish

WORTH_ALL = 4
"""A list of a fourth of the catalogue is worth embedding all of it, once, instead of the list at each request."""


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """What of a request is compared with candidates.

    Args:
        decay: The weight of a history item is decay^age, the last one having age 0; in (0, 1].
        last: How many history items, the most recent, count.
        query_weight: The query's share where there is a query and a history; in [0, 1].
        dislike_weight: How much of what the user says they do not want is taken off what they want, where a query has been
            read (`ResolvedRequest.wish`); in [0, 1].
        fields: What of an item is embedded: ``title`` and names of attributes.
    """

    decay: float = 0.9
    last: int = 10
    query_weight: float = 0.5
    dislike_weight: float = 0.3
    fields: tuple[str, ...] = ("title",)

    def __post_init__(self) -> None:
        at_least_one("last", self.last)
        _check_share("decay", self.decay, lowest_allowed=False)
        _check_share("query_weight", self.query_weight, lowest_allowed=True)
        _check_share("dislike_weight", self.dislike_weight, lowest_allowed=True)
        if isinstance(self.fields, str) or not self.fields or not all(isinstance(field, str) for field in self.fields):
            raise ConfigError("must be a list of names", field="prefilter.fields", value=self.fields, fix="write [title]")
        object.__setattr__(self, "fields", tuple(self.fields))


class EmbeddingRetriever:
    """Scores candidates by their cosine with the user's vector. Safe to use from several threads; it computes.

    A request for the whole catalogue (`request.candidates is catalog_items`) is answered from one matrix of all its vectors,
    made at the first such request or by `prepare`. A request for a list uses that matrix if it is there, and otherwise
    embeds only what it needs.

    Args:
        embedder: Makes the vectors; in a `CachedEmbedder` a catalogue is embedded once and memory-mapped.
        options: See `EmbeddingOptions`.
        catalog_items: The catalogue's items (`Catalog.items`), or None if every request brings its own.
        name: The name of its part in a fusion.
        index: Searches the whole catalogue by an approximate index, which is kept beside the embedder's vectors; None: exactly.
            Lists are always scored exactly.

    Raises:
        ConfigError: a field that no item of the catalogue has.
    """

    floor: float | None = None

    def __init__(
        self,
        embedder: Embedder,
        options: EmbeddingOptions | None = None,
        catalog_items: Sequence[Item] | None = None,
        *,
        name: str = "embedding",
        index: ApproximateOptions | None = None,
    ) -> None:
        self.name = name
        self.embedder = embedder
        self.options = options or EmbeddingOptions()
        self._items: Sequence[Item] = () if catalog_items is None else catalog_items
        self._by_id = isinstance(embedder, TableEmbedder) and embedder.keyed_by == "id"
        if not self._by_id:
            check_fields(self.options.fields, self._items)
        self.index_options = index
        self._index: ExactIndex | None = None
        self._lock = threading.Lock()
        self._approximate: ApproximateIndex | None = None
        self._building = threading.Lock()  # of its own: lists are scored meanwhile
        self._closed = threading.Event()

    def prepare(self, progress: Progress | None = None) -> None:
        """Embeds the whole catalogue, and builds or opens an approximate index, now instead of at the first request for it.

        Args:
            progress: Called with (done, total) after each chunk, of texts and then of the index.

        Raises:
            BackendError: the embedding server did not answer, or `close` was called meanwhile; what was embedded so far is
                kept if the embedder keeps vectors, but no unfinished index.
            SetupError: the package of approximate indexes is missing, or the index cannot be written.
        """
        self.prepare_vectors(progress)
        self._searched(progress)

    def prepare_vectors(self, progress: Progress | None = None) -> None:
        """The first half of `prepare`: embeds the whole catalogue, and builds no index."""
        self.refuse_closed()
        self._whole(progress)

    def close(self) -> None:
        """Ends the embedding of a catalogue in another thread after its chunk, and closes the embedder. May be called twice."""
        self._closed.set()
        close_embedder(self.embedder)

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """The cosine of each candidate with the user's vector, float32 of shape (len(candidates),); zeros if there is none.

        Raises:
            RequestError: precomputed vectors lack an item, or a query that has no history beside it.
            BackendError: the embedding server did not answer, or `close` was called.
        """
        self.refuse_closed()
        wanted, _ = self.wanted(request)
        return np.zeros(len(candidates), dtype=np.float32) if wanted is None else self.scores(candidates, wanted)

    def wanted(self, request: ResolvedRequest) -> tuple[Vectors | None, tuple[str, ...]]:
        """What the user wants as a unit vector, None if nothing is known of it; and what could not be looked at.

        Where the query has been read, its wishes and the titles named stand for it, and its dislikes push away.

        Raises:
            RequestError: precomputed vectors lack the query, and there is no history beside it.
        """
        recent = request.history_items[-self.options.last :]
        notes: tuple[str, ...] = ()
        vectors = []
        if recent:
            vectors.append(history_vector(self._vectors(recent), self.options.decay))
        if request.query:
            try:
                vectors.append(self._query_vector(request.query, request.wish))
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
        if vector is not None and request.wish is not None and request.wish.dislikes and self.options.dislike_weight:
            try:
                unwanted = self.embedder.embed([clean(", ".join(request.wish.dislikes))])[0]
            except RequestError as error:  # as above
                notes = (*notes, f"the prefilter left the dislikes out: {error.message}; {error.fix}")
            else:
                vector = away_from(vector, unwanted, self.options.dislike_weight)
        return (vector if vector is not None and vector.any() else None), notes

    def _query_vector(self, query: str, wish: Wish | None) -> Vectors:
        """The query's vector: of what was read from it, or of its own words where precomputed vectors have none for that."""
        vectors: Vectors | None = None
        if wish is not None and wish.text != query:
            with contextlib.suppress(RequestError):
                vectors = self.embedder.embed([clean(wish.text)])
        vector: Vectors = (self.embedder.embed([clean(query)]) if vectors is None else vectors)[0]
        return vector

    def scores(self, items: Sequence[Item], wanted: Vectors) -> Vectors:
        """The cosine of each item with a vector; of the whole catalogue from its matrix."""
        if len(items) * WORTH_ALL >= len(self._items) > 0:
            self._whole(None)
        if items is self._items and self._index is not None:
            return self._index.scores(wanted)
        places = self._places(items)
        scores = np.empty(len(items), dtype=np.float32)
        known, unknown = np.flatnonzero(places >= 0), np.flatnonzero(places < 0)
        if len(known) and self._index is not None:
            scores[known] = self._index.scores(wanted, places[known])
        if len(unknown):
            scores[unknown] = self._embedded([items[at] for at in unknown.tolist()]).scores(wanted)
        return scores

    def search(self, wanted: Vectors, k: int, exclude: Sequence[int] | Rows = ()) -> Hits:
        """The k items of the catalogue nearest to a vector.

        Args:
            wanted: The vector.
            k: How many; fewer come back if there are fewer.
            exclude: Places in the catalogue that must not come back.
        """
        return self._searched(None).search(wanted, k, exclude=exclude)

    @cached_property
    def place_of(self) -> dict[str, int]:
        """The place of each of the catalogue's items, by id."""
        return {item.id: place for place, item in enumerate(self._items)}

    def refuse_closed(self) -> None:
        """Raises BackendError after `close`."""
        if self._closed.is_set():
            raise BackendError("the prefilter is closed; what it embedded before is kept if the embedder keeps vectors")

    def _vectors(self, items: Sequence[Item]) -> Vectors:
        """One row an item."""
        index = self._embedded(items)
        return index.vectors(range(len(items)))

    def _places(self, items: Sequence[Item]) -> Rows:
        """Where each item stands in the catalogue's matrix; -1 if it does not, or there is no matrix (yet)."""
        if self._index is None:
            return np.full(len(items), -1, dtype=np.int64)
        if isinstance(items, Subset) and items.whole is self._items:
            return items.places
        place_of = self.place_of
        places = np.fromiter((place_of.get(item.id, -1) for item in items), dtype=np.int64, count=len(items))
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
        return ExactIndex(*table_of(self.embedder, [self._key(item) for item in items], self._endable(progress)))

    def _endable(self, progress: Progress | None) -> Progress:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)
            self.refuse_closed()  # between two chunks: a catalogue of a million takes minutes

        return report

    def _whole(self, progress: Progress | None) -> ExactIndex:
        with self._lock:
            if self._index is None:
                self._index = self._embedded(self._items, progress)
            return self._index

    def _searched(self, progress: Progress | None) -> VectorIndex:
        """What searches the whole catalogue."""
        exact = self._whole(progress)
        if self.index_options is None:
            return exact
        with self._building:
            if self._approximate is None:
                folder, report = folder_of(self.embedder), self._endable(progress)
                self._approximate = ApproximateIndex(exact, self.index_options, folder=folder, progress=report)
            return self._approximate


def at_least_one(name: str, value: object) -> None:
    """Raises ConfigError for an option of the prefilter that is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError("must be a whole number of at least 1", field=f"prefilter.{name}", value=value, fix="try 20")


def _check_share(name: str, value: float, *, lowest_allowed: bool) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value > 1 or value < 0 or (value == 0 and not lowest_allowed):
        span = "from 0 to 1" if lowest_allowed else "above 0 and at most 1"
        raise ConfigError(f"must be a number {span}", field=f"prefilter.{name}", value=value, fix="try 0.5")
