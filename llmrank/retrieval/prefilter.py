"""A request with any number of candidates (a million) goes in; the few that its user may want most come out.

One retriever or several find them: embeddings of the history and the query, and whatever else is given (popularity, item-kNN,
...). What several find is united by reciprocal rank fusion (Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms
Condorcet and individual rank learning methods", SIGIR 2009): an item's score is the sum of 1 / (rrf_k + rank) over the
retrievers that found it, so neither their scales nor their units matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import ConfigError, RequestError
from llmrank.protocols import Embedder, Retriever
from llmrank.retrieval.embedding import EmbeddingOptions, EmbeddingRetriever, at_least_one
from llmrank.retrieval.graph import ApproximateOptions
from llmrank.retrieval.index import Hits, top_k
from llmrank.retrieval.subset import Subset
from llmrank.retrieval.vectors import Progress, Vectors
from llmrank.types import Item, ResolvedRequest

DEPTH = 10
"""Of a whole catalogue each of several retrievers finds this many times as many items as are kept."""


@dataclass(frozen=True, slots=True)
class PrefilterOptions(EmbeddingOptions):
    """What the prefilter keeps, and by what: also the options of retrieval by embeddings.

    Args:
        keep: The most candidates that reach the model.
        drop_seen: Leaves out candidates that stand in the history.
        rrf_k: The constant of reciprocal rank fusion: the larger, the less the first few places of each retriever weigh.
    """

    keep: int = 20
    drop_seen: bool = True
    rrf_k: int = 60

    def __post_init__(self) -> None:
        EmbeddingOptions.__post_init__(self)  # a slotted class is made twice, and `super()` would mean the first
        at_least_one("keep", self.keep)
        at_least_one("rrf_k", self.rrf_k)


@dataclass(frozen=True, slots=True)
class Selection:
    """What the prefilter kept.

    Attributes:
        candidates: Best first, at most `keep`.
        scores: Of each: the one retriever's, or the sum of reciprocal ranks; zeros where nothing was found.
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
    """Cuts candidates down by retrievers; also a Retriever. Safe to use from several threads; call it in one, it computes.

    A request for the whole catalogue (`request.candidates is catalog_items`) is answered from what was prepared for it.

    Args:
        embedder: Makes the vectors of items, histories and queries; None to go by `retrievers` alone.
        options: See `PrefilterOptions`.
        catalog_items: The catalogue's items (`Catalog.items`), or None if every request brings its own.
        retrievers: Find candidates, too. They stay open when the prefilter is closed.
        index: Searches the whole catalogue's vectors by an approximate index; None: exactly. See `EmbeddingRetriever`.

    Raises:
        ConfigError: nothing finds anything; a field that no item of the catalogue has.
    """

    name = "prefilter"
    floor: float | None = None

    def __init__(
        self,
        embedder: Embedder | None,
        options: PrefilterOptions | None = None,
        catalog_items: Sequence[Item] | None = None,
        retrievers: Sequence[Retriever] = (),
        *,
        index: ApproximateOptions | None = None,
    ) -> None:
        if embedder is None and not retrievers:
            raise ConfigError("has no retriever", field="prefilter.by", value=[], fix="write by: [embedding]")
        self.options = options or PrefilterOptions()
        self.embedding = None if embedder is None else EmbeddingRetriever(embedder, self.options, catalog_items, index=index)
        self.retrievers = tuple(retrievers)
        self._items: Sequence[Item] = () if catalog_items is None else catalog_items

    @property
    def found_by(self) -> tuple[str, ...]:
        """The names of the retrievers."""
        own = () if self.embedding is None else (self.embedding.name,)
        return own + tuple(each.name for each in self.retrievers)

    def prepare(self, progress: Progress | None = None) -> None:
        """Embeds the whole catalogue, and prepares its index, now instead of at the first request for it.

        Args:
            progress: Called with (done, total) after each chunk, of texts and then of an approximate index.

        Raises:
            BackendError: the embedding server did not answer, or `close` was called meanwhile; what was embedded so far is
                kept if the embedder keeps vectors.
            SetupError: the package of approximate indexes is missing, or the index cannot be written.
        """
        if self.embedding is not None:
            self.embedding.prepare(progress)

    def close(self) -> None:
        """Ends the embedding of a catalogue in another thread after its chunk, and closes the embedder. May be called twice."""
        if self.embedding is not None:
            self.embedding.close()

    def select(self, request: ResolvedRequest) -> Selection:
        """Orders the candidates by what the retrievers find and keeps the first `keep`.

        Equal scores keep the order given. Candidates of a list that nobody finds follow in the order given; if nothing is
        found at all (no history and no query, no known word in them), the first `keep` are taken as given, and a note says so.
        So does one where precomputed vectors lack the query and the history has to do.

        Raises:
            RequestError: every candidate stands in the history; or precomputed vectors lack an item, or a query that has no
                history beside it.
            BackendError: the embedding server did not answer, or `close` was called.
        """
        whole = len(self._items) > 0 and request.candidates is self._items
        seen = self._seen_places(request) if whole else []
        items, left_out = (self._items, tuple(self._items[at].id for at in seen)) if whole else self._unseen(request)
        wanted, notes = self._wanted(request)
        several = len(self.found_by) > 1
        depth = min(
            len(items), DEPTH * self.options.keep if whole and several else len(items) if several else self.options.keep
        )
        found = [self._nearest(items, wanted, depth, seen, whole=whole)] if wanted is not None else []
        found += [_best(each, each.score(request, items), depth, seen) for each in self.retrievers]
        found = [hits for hits in found if len(hits.positions)]
        if not found:
            what = "history or query" if not request.history and not request.query else "known word in history or query"
            note = f"the prefilter found no {what} to compare with: candidates are in the order given"
            given = self.as_given(request)
            return replace(given, notes=(*notes, note))
        best = found[0] if not several else self._united(found, len(items))
        kept = best.positions[: self.options.keep]
        scores = best.scores[: self.options.keep].tolist()
        places = kept.tolist()
        if not whole and len(places) < min(self.options.keep, len(items)):
            taken = set(places)
            places += [place for place in range(len(items)) if place not in taken][: self.options.keep - len(places)]
            scores += [0.0] * (len(places) - len(scores))
        dropped = len(items) - len(seen) - len(places)
        return Selection(tuple(items[place] for place in places), tuple(scores), left_out, dropped, notes)

    def as_given(self, request: ResolvedRequest) -> Selection:
        """The first `keep` candidates that were not seen, in the order given: what is left to do without vectors.

        Raises:
            RequestError: every candidate stands in the history.
        """
        items, left_out = self._unseen(request)
        kept = tuple(items[: self.options.keep])
        return Selection(kept, (0.0,) * len(kept), left_out, len(items) - len(kept))

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """Each candidate's score, float32 of shape (len(candidates),); zeros where nothing is known of the user."""
        wanted, _ = self._wanted(request)
        if not self.retrievers:
            zeros = np.zeros(len(candidates), dtype=np.float32)
            return zeros if wanted is None or self.embedding is None else self.embedding.scores(candidates, wanted)
        found = [] if wanted is None else [self._nearest(candidates, wanted, len(candidates), [], whole=False)]
        found += [_best(each, each.score(request, candidates), len(candidates), []) for each in self.retrievers]
        return self._reciprocal(found, len(candidates))

    def _wanted(self, request: ResolvedRequest) -> tuple[Vectors | None, tuple[str, ...]]:
        if self.embedding is None:
            return None, ()
        self.embedding.refuse_closed()
        return self.embedding.wanted(request)

    def _nearest(self, items: Sequence[Item], wanted: Vectors, depth: int, seen: Sequence[int], *, whole: bool) -> Hits:
        if self.embedding is None:
            raise ValueError("there is no embedder to compare with")
        if whole:
            return self.embedding.search(wanted, depth, exclude=seen)
        return _best(self.embedding, self.embedding.scores(items, wanted), depth, seen)

    def _united(self, found: Sequence[Hits], count: int) -> Hits:
        """What any of the retrievers found, best first."""
        scores = self._reciprocal(found, count)
        best = top_k(scores, min(count, int(np.count_nonzero(scores))))
        return Hits(best, scores[best])

    def _reciprocal(self, found: Sequence[Hits], count: int) -> Vectors:
        total: NDArray[np.float32] = np.zeros(count, dtype=np.float32)
        for hits in found:
            total[hits.positions] += 1.0 / (self.options.rrf_k + _ranks(hits.scores))
        return total

    def _seen(self, request: ResolvedRequest) -> set[str]:
        return {item.id for item in request.history_items} if self.options.drop_seen else set()

    def _seen_places(self, request: ResolvedRequest) -> list[int]:
        """The places of the catalogue's items that stand in the history."""
        place_of = self._places_by_id
        places = sorted(place_of[item_id] for item_id in self._seen(request) if item_id in place_of)
        _refuse_nothing_left(len(self._items) - len(places), len(self._items))
        return places

    @property
    def _places_by_id(self) -> dict[str, int]:
        return self._place_of if self.embedding is None else self.embedding.place_of

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {item.id: place for place, item in enumerate(self._items)}

    def _unseen(self, request: ResolvedRequest) -> tuple[Sequence[Item], tuple[str, ...]]:
        """The candidates that may be shown, and the ids of those that stand in the history."""
        seen = self._seen(request)
        if isinstance(request.candidates, Subset) and request.candidates.whole is self._items:
            return self._unseen_part(request.candidates, seen)
        left_out = tuple(item.id for item in request.candidates if item.id in seen) if seen else ()  # there may be a million
        items = [item for item in request.candidates if item.id not in seen] if left_out else request.candidates
        _refuse_nothing_left(len(items), len(request.candidates))
        return items, left_out

    def _unseen_part(self, part: Subset, seen: set[str]) -> tuple[Sequence[Item], tuple[str, ...]]:
        """The same of what constraints leave of the catalogue, perhaps a million: by places, none of which is looked at."""
        known = self._places_by_id
        had = np.array(sorted(known[item_id] for item_id in seen if item_id in known), dtype=np.int64)
        had = had[np.isin(had, part.places, assume_unique=True)]
        left = Subset(part.whole, np.setdiff1d(part.places, had, assume_unique=True)) if len(had) else part
        _refuse_nothing_left(len(left), len(part))
        return left, tuple(part.whole[place].id for place in had.tolist())


def first_found(retriever: Retriever, scores: Vectors, k: int) -> Hits:
    """The best of a retriever's scores, best first: those above its floor, at most k.

    One without a floor gives zeros where it knows nothing of the user (`EmbeddingRetriever.score`). It finds nothing then: the
    first k of a catalogue would get ahead of others for no more than standing first.
    """
    if retriever.floor is None and not scores[np.isfinite(scores)].any():
        return Hits(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    best = top_k(scores, k)
    if retriever.floor is not None:
        best = best[scores[best] > retriever.floor]
    return Hits(best, scores[best])


def _best(retriever: Retriever, scores: Vectors, k: int, exclude: Sequence[int]) -> Hits:
    if len(exclude):
        scores = scores.copy()
        scores[np.asarray(exclude, dtype=np.int64)] = -np.inf
    return first_found(retriever, scores, k)


def _ranks(scores: Vectors) -> NDArray[np.float32]:
    """Ranks from 1 of scores that stand best first; equal scores share the mean of theirs, so that none of them gains."""
    borders = np.flatnonzero(np.diff(scores)) + 1
    starts = np.concatenate([[0], borders])
    ends = np.concatenate([borders, [len(scores)]])
    return np.repeat((starts + ends + 1) / 2, ends - starts).astype(np.float32)


def _refuse_nothing_left(left: int, of: int) -> None:
    if not left:
        raise RequestError(
            f"{'the only one stands' if of == 1 else f'all {of:,} stand'} in the history",
            field="candidates",
            fix="give candidates that the user does not have, or set prefilter.drop_seen to false",
        )
