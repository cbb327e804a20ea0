"""The section of a baseline goes in; what ranks requests without a model, to compare rankers with, comes out.

random      an order that depends on the seed, the user and the items alone
popularity  by how many users chose an item, in what may be learned from
embedding   the prefilter alone: by likeness to the history and the query
given       as listed, for the lists of another system
fusion      by several retrievers' scores, weighed and added
item-knn, and every other kind of retriever that learns: by its scores; the run trains it (learning.py)

But for ``given``, the order in which candidates are listed decides nothing, not even between equals, as it may hold the answer:
equals stand in the random order.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from llmrank import retriever_kinds
from llmrank.catalog import Catalog
from llmrank.config import build_embedder
from llmrank.errors import ConfigError, LLMRankError, RequestError, nearest
from llmrank.evaluation.folder import Popularity
from llmrank.evaluation.running.learning import learners, learning_kinds, learns_baseline, refuse_ignorance
from llmrank.fusion import Fusion
from llmrank.fusion_kinds import fusion_of
from llmrank.protocols import Retriever
from llmrank.resolve import resolve
from llmrank.sections import make, mapping_of
from llmrank.types import Cut, Item, RankedItem, Ranking, RankRequest, ResolvedRequest

if TYPE_CHECKING:
    from llmrank.retrieval.constraints import AttributeTable
    from llmrank.retrieval.prefilter import Prefilter

T = TypeVar("T")

MOST_RANKED = 1000
"""Of a whole catalogue so many items that the user does not have are ranked: a Ranking of a million would fill the memory."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the parts of a fusion gave to one item, and their own scores of it, by name."""

    gave: Mapping[str, float] = field(default_factory=dict, hash=False)
    scores: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Ordered:
    """Items, best first, with their scores (and what parts gave to them) if there are any, and what was left out."""

    items: Sequence[Item]
    scores: Sequence[float] | None = None
    cut: Cut = field(default_factory=Cut)
    notes: tuple[str, ...] = ()
    parts: Sequence[Parts] | None = None


class Baseline(ABC):
    """Ranks requests without a model, as far as evaluations need it: `rank_many` and `close` of a Ranker.

    Its Rankings have status ``ok``, cost nothing and name the baseline as their `strategy`. `shown` has the candidates as
    listed, nothing for a whole catalogue. What is wrong with a request becomes a Ranking with status ``error``.

    Args:
        catalog: Where ids are looked up.
        seed: Of the random order.
    """

    name: str
    model = ""

    def __init__(self, catalog: Catalog, seed: int) -> None:
        self.catalog = catalog
        self.seed = seed
        self._attributes: AttributeTable | None = None

    def rank_many(self, requests: Iterable[RankRequest]) -> Iterator[Ranking]:
        """One Ranking a request, in order."""
        for request in requests:
            try:
                yield self._rank(resolve(request, self.catalog))
            except LLMRankError as error:
                yield Ranking((), status="error", error=error, strategy=self.name, model=self.model, user_id=request.user_id)

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Frees what it holds. May be called twice."""

    @abstractmethod
    def order(self, request: ResolvedRequest) -> Ordered:
        """The candidates, best first; of a whole catalogue the best `MOST_RANKED` that the user does not have."""

    def _rank(self, request: ResolvedRequest) -> Ranking:
        whole = self.whole(request)
        request, constrained = self._narrowed(request)
        ordered = self.order(request)
        scores: Iterable[float | None] = itertools.repeat(None) if ordered.scores is None else ordered.scores
        parts: Iterable[Parts] = itertools.repeat(Parts()) if ordered.parts is None else ordered.parts
        places = zip(itertools.count(1), ordered.items, scores, parts)  # three of them may be endless
        most = MOST_RANKED if whole else len(request.candidates)
        ranked = itertools.islice(places, most if request.top_k is None else min(request.top_k, most))
        return Ranking(
            tuple(RankedItem(item, rank, score, parts=each.gave, scores=each.scores) for rank, item, score, each in ranked),
            cut=replace(ordered.cut, constrained=constrained),
            notes=ordered.notes,
            shown=() if whole else tuple(item.id for item in request.candidates),
            strategy=self.name,
            model=self.model,
            user_id=request.user_id,
        )

    def _narrowed(self, request: ResolvedRequest) -> tuple[ResolvedRequest, int]:
        """The request with those candidates alone that meet its constraints, and how many do not.

        What is left of a whole catalogue is a list, without what the user has.
        """
        if not request.constraints:
            return request, 0
        from llmrank.retrieval.constraints import AttributeTable, narrow

        if self._attributes is None:
            self._attributes = AttributeTable(self.catalog.items)
        narrowed = narrow(request.candidates, self._attributes, hard=request.constraints)
        candidates = narrowed.candidates
        if self.whole(request) and candidates is not request.candidates:
            seen = seen_by(request)
            candidates = tuple(item for item in candidates if item.id not in seen)
            if not candidates:
                fix = "loosen one"
                raise RequestError("the user has all items that meet them", field="constraints", fix=fix)
        return replace(request, candidates=candidates), narrowed.left_out

    def whole(self, request: ResolvedRequest) -> bool:
        """Whether a request is for the whole catalogue."""
        return request.candidates is self.catalog.items

    def chance(self, request: ResolvedRequest, item: Item) -> bytes:
        """The item's place in the random order."""
        key = f"{self.seed}\0{request.user_id or ''}\0{item.id}"
        return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16).digest()


class RandomBaseline(Baseline):
    """The random order."""

    name = "random"

    def order(self, request: ResolvedRequest) -> Ordered:
        """By a hash of seed, user and item; of a whole catalogue a sample seeded by both, which is faster."""
        if not self.whole(request):
            return Ordered(sorted(request.candidates, key=lambda item: self.chance(request, item)))
        seen = seen_by(request)
        key = f"{self.seed}:{request.user_id or ''}".encode(errors="surrogatepass")
        generator = random.Random(key)  # noqa: S311  # sampling, not secrets
        size = len(self.catalog)
        drawn = (self.catalog.items[place] for place in generator.sample(range(size), min(size, MOST_RANKED + len(seen))))
        return Ordered(list(itertools.islice((item for item in drawn if item.id not in seen), MOST_RANKED)))


class PopularityBaseline(Baseline):
    """By how many users chose each item; items that nobody chose stand last.

    Args:
        catalog, seed: As for every baseline.
        popularity: How often each item was chosen, in what may be learned from.
    """

    name = "popularity"

    def __init__(self, catalog: Catalog, seed: int, popularity: Popularity) -> None:
        super().__init__(catalog, seed)
        self._counts = popularity.counts
        # The catalogue by count, so that a user's best thousand are found without looking at all of it.
        self._by_count = sorted(catalog.items, key=lambda item: -self._counts[item.id])

    def order(self, request: ResolvedRequest) -> Ordered:
        """By count, equals by chance."""
        items = self._best_unseen(request) if self.whole(request) else self._sorted(request, request.candidates)
        return Ordered(items, [float(self._counts[item.id]) for item in items])

    def _sorted(self, request: ResolvedRequest, items: Iterable[Item]) -> list[Item]:
        return sorted(items, key=lambda item: (-self._counts[item.id], self.chance(request, item)))

    def _best_unseen(self, request: ResolvedRequest) -> list[Item]:
        seen = seen_by(request)
        best: list[Item] = []
        for _, equals in itertools.groupby(self._by_count, key=lambda item: self._counts[item.id]):
            unseen = (item for item in equals if item.id not in seen)
            best += heapq.nsmallest(MOST_RANKED - len(best), unseen, key=lambda item: self.chance(request, item))
            if len(best) == MOST_RANKED:
                break
        return best


class EmbeddingBaseline(Baseline):
    """The prefilter alone: by cosine with the history and the query. A user of whom nothing is known gets the random order.

    Args:
        catalog, seed: As for every baseline.
        prefilter: Compares; it is closed with the baseline. Of a whole catalogue it keeps `PrefilterOptions.keep` items.
    """

    name = "embedding"

    def __init__(self, catalog: Catalog, seed: int, prefilter: Prefilter) -> None:
        super().__init__(catalog, seed)
        self._prefilter = prefilter
        self._random = RandomBaseline(catalog, seed)
        self.model = "" if prefilter.embedding is None else prefilter.embedding.embedder.model

    def order(self, request: ResolvedRequest) -> Ordered:
        """By cosine, equals by chance; candidates that the user has are left out if the options say so."""
        if self.whole(request):
            selection = self._prefilter.select(request)
            if not any(selection.scores):
                return replace(self._random.order(request), notes=selection.notes)
            return Ordered(selection.candidates, selection.scores, Cut(seen=selection.seen))
        seen = seen_by(request) if self._prefilter.options.drop_seen else set()
        items = [item for item in request.candidates if item.id not in seen]
        if not items:
            fix = "give others, or set drop_seen to false"
            raise RequestError("the user has all of them", field="candidates", fix=fix)
        scores = dict(zip((item.id for item in items), self._prefilter.score(request, items).tolist(), strict=True))
        items.sort(key=lambda item: (-scores[item.id], self.chance(request, item)))
        left_out = tuple(item.id for item in request.candidates if item.id in seen)
        return Ordered(items, [scores[item.id] for item in items], Cut(seen=left_out))

    def close(self) -> None:
        """Closes the prefilter and its embedder."""
        self._prefilter.close()


class GivenBaseline(Baseline):
    """As listed."""

    name = "given"

    def order(self, request: ResolvedRequest) -> Ordered:
        """The candidates as they are."""
        return Ordered(request.candidates)

    def _rank(self, request: ResolvedRequest) -> Ranking:
        if self.whole(request):
            raise RequestError(
                "there is no list whose order could be taken", field="candidates", fix="give each case its candidates"
            )
        return super()._rank(request)


NAMES = (RandomBaseline.name, PopularityBaseline.name, EmbeddingBaseline.name, GivenBaseline.name, "fusion")
"""What the key `baseline` takes, beside the kinds of retriever that learn."""


def build_baseline(
    section: Mapping[str, Any], *, catalog: Catalog, popularity: Popularity | None, seed: int, where: str = "baseline"
) -> Baseline:
    """Builds a baseline from its section of a suite, ``{baseline: NAME}``.

    ``embedding`` also takes the keys of `prefilter` (`PrefilterOptions` and `embedder`), where `keep` says how many items of a
    whole catalogue are ranked; lists are ranked whole. ``fusion`` takes `retrievers` and `fusion`, sections of a Ranker's
    configuration. What learns from interactions needs the `path` of a model: `learning.trained` brings it.

    Args:
        section: The section.
        catalog: Where ids are looked up.
        popularity: How often each item was chosen; None if nothing is known of it.
        seed: Of the random order.
        where: The section's name, for messages.

    Raises:
        ConfigError: there is no such baseline, a key or value is wrong, or popularity is asked for and not known.
        SetupError: a package that the embedder needs is missing.
    """
    options = dict(section)
    name = options.pop("baseline", None)
    if name not in NAMES and name not in learning_kinds():
        known = (*NAMES, *learning_kinds())
        fix = f"use one of: {', '.join(known)}" if not isinstance(name, str) else nearest(name, known)
        raise ConfigError("no such baseline", field=f"{where}.baseline", value=name, fix=fix)
    if name == "fusion":
        return _fusion(options, catalog, seed, where)
    if learns_baseline(section):
        from llmrank.evaluation.running.retrieved import RetrieverBaseline

        for each in learners(section, where):
            raise refuse_ignorance(each.where)
        retriever = _retriever(name, {"kind": name, **options}, catalog, where)
        return RetrieverBaseline(catalog, seed, retriever, name)
    if name == EmbeddingBaseline.name:
        return EmbeddingBaseline(catalog, seed, _prefilter(options, catalog, where))
    make(_NoOptions, options, where, also=("baseline",))
    if name == PopularityBaseline.name:
        if popularity is None:
            raise ConfigError(
                "who chose what is not known, so nothing is popular",
                field=f"{where}.baseline",
                value=name,
                fix="name `interactions` in the suite, or leave this baseline out",
            )
        return PopularityBaseline(catalog, seed, popularity)
    return RandomBaseline(catalog, seed) if name == RandomBaseline.name else GivenBaseline(catalog, seed)


@dataclass(frozen=True, slots=True)
class _NoOptions:
    """The other baselines have none."""


def _fusion(options: dict[str, Any], catalog: Catalog, seed: int, where: str) -> Baseline:
    from llmrank.evaluation.running.retrieved import FusionBaseline, close_retrievers

    make(_FusionOptions, options, where, also=("baseline",))
    section = mapping_of(options.get("retrievers"), f"{where}.retrievers")
    if not section:
        fix = "write retrievers: {crowd: {kind: item-knn}, text: {kind: embedding}}"
        raise ConfigError("names none", field=f"{where}.retrievers", value=options.get("retrievers"), fix=fix)
    try:
        weights = mapping_of(options.get("fusion"), "fusion") or dict.fromkeys(section, 1.0)
        fusion = fusion_of(weights, tuple(section)) or Fusion(weights, tuple(section))
    except ConfigError as error:
        raise ConfigError(error.message, field=f"{where}.{error.field}", value=error.value, fix=error.fix) from error
    built: dict[str, Retriever] = {}
    try:
        for part, inner in section.items():
            inner_where = f"{where}.retrievers.{part}"
            built[part] = _retriever(part, mapping_of(inner, inner_where), catalog, inner_where)
    except BaseException:
        close_retrievers(built.values())
        raise
    return FusionBaseline(catalog, seed, built, fusion)


@dataclass(frozen=True, slots=True)
class _FusionOptions:
    retrievers: Any = None
    fusion: Any = None


def _retriever(name: str, section: Mapping[str, Any], catalog: Catalog, where: str) -> Retriever:
    return retriever_kinds.build_retriever(name, section, catalog.items, embedder=build_embedder, where=where)


def _prefilter(options: dict[str, Any], catalog: Catalog, where: str) -> Prefilter:
    from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions

    embedder = options.pop("embedder", None) or {}
    if not isinstance(embedder, Mapping):
        fix = "write embedder: {kind: wordllama}"
        raise ConfigError("must be a mapping", field=f"{where}.embedder", value=embedder, fix=fix)
    built = make(PrefilterOptions, {"keep": MOST_RANKED, **options}, where, also=("baseline", "embedder"))
    if built.keep > MOST_RANKED:
        raise ConfigError("is too large", field=f"{where}.keep", value=built.keep, fix=f"use at most {MOST_RANKED}")
    return Prefilter(build_embedder(embedder), built, catalog.items)


def seen_by(request: ResolvedRequest) -> set[str]:
    """The ids of what the user has."""
    return {item.id for item in request.history_items}
