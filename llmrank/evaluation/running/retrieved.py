"""Retrievers go in; baselines that rank by what they score, one alone or several fused, without a model, come out."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmrank.catalog import Catalog
from llmrank.evaluation.running.baselines import MOST_RANKED, Baseline, Ordered, Parts, RandomBaseline, seen_by
from llmrank.fusion import Fusion
from llmrank.protocols import Retriever
from llmrank.types import Item, ResolvedRequest


class Found:
    """What a retriever finds in a whole catalogue for a user: the best items that the user does not have.

    Args:
        baseline: Decides between equals.
        catalog: The items.

    Attributes:
        place_of: The place of each item in the catalogue, by id: made once, as a catalogue may hold a million.
    """

    def __init__(self, baseline: Baseline, catalog: Catalog) -> None:
        self._baseline, self._items = baseline, catalog.items
        self._random = RandomBaseline(catalog, baseline.seed)
        self.place_of = {item.id: place for place, item in enumerate(catalog.items)}

    def best(self, request: ResolvedRequest, scores: NDArray[np.float32], floor: float | None) -> list[Item]:
        """Up to `MOST_RANKED` items above the floor, best first, equals by chance; none where all score the same."""
        found = np.ones(len(scores), dtype=np.bool_) if floor is None else scores > floor
        if not len(scores) or scores.min() == scores.max():
            return []  # it says nothing of anything
        found[[self.place_of[item_id] for item_id in seen_by(request) if item_id in self.place_of]] = False
        places = np.flatnonzero(found)
        if len(places) > MOST_RANKED:
            least = np.partition(scores[places], len(places) - MOST_RANKED)[len(places) - MOST_RANKED]
            surely = places[scores[places] > least]
            equals = [self._items[place] for place in places[scores[places] == least].tolist()]
            last = heapq.nsmallest(MOST_RANKED - len(surely), equals, key=lambda item: self._baseline.chance(request, item))
            return [*self._sorted(request, surely, scores), *last]
        return self._sorted(request, places, scores)

    def filled(self, request: ResolvedRequest, items: Sequence[Item]) -> list[Item]:
        """The items, and behind them others in random order that the user does not have, `MOST_RANKED` in all."""
        taken = {item.id for item in items}
        others = (item for item in self._random.order(request).items if item.id not in taken)
        return [*items, *itertools.islice(others, max(0, MOST_RANKED - len(items)))]

    def _sorted(self, request: ResolvedRequest, places: NDArray[np.intp], scores: NDArray[np.float32]) -> list[Item]:
        items = [self._items[place] for place in places.tolist()]
        return [items[at] for at in best_first(self._baseline, request, items, scores[places].tolist())]


def best_first(baseline: Baseline, request: ResolvedRequest, items: Sequence[Item], scores: Sequence[float]) -> list[int]:
    """The places of items by score, equals by chance: which is a digest, and so is asked for where there are equals alone."""
    order = sorted(range(len(items)), key=lambda at: -scores[at])
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        if end - start > 1:
            order[start:end] = sorted(order[start:end], key=lambda at: baseline.chance(request, items[at]))
        start = end
    return order


class RetrieverBaseline(Baseline):
    """By one retriever's scores, equals by chance. Of a whole catalogue what it does not find follows in random order.

    Args:
        catalog, seed: As for every baseline.
        retriever: Scores; it is closed with the baseline, if it can be.
        name: What the baseline is called.
    """

    def __init__(self, catalog: Catalog, seed: int, retriever: Retriever, name: str) -> None:
        super().__init__(catalog, seed)
        self.name = name
        self._retriever = retriever
        self._found = Found(self, catalog)

    def order(self, request: ResolvedRequest) -> Ordered:
        """By score."""
        scores = self._retriever.score(request, request.candidates)
        if self.whole(request):
            items = self._found.filled(request, self._found.best(request, scores, self._retriever.floor))
            return Ordered(items, scores[[self._found.place_of[item.id] for item in items]].tolist())
        of = dict(zip((item.id for item in request.candidates), scores.tolist(), strict=True))
        items = sorted(request.candidates, key=lambda item: (-of[item.id], self.chance(request, item)))
        return Ordered(items, [of[item.id] for item in items])

    def close(self) -> None:
        """Closes the retriever."""
        close_retrievers([self._retriever])


class FusionBaseline(Baseline):
    """By a weighted sum of several retrievers' scores; each item says what each of them gave.

    A list is ranked whole. Of a whole catalogue what any of the retrievers finds is fused, at most `MOST_RANKED` items of each,
    and others drawn at random if these are fewer: scores are brought to one scale over what is fused.

    Args:
        catalog, seed: As for every baseline.
        retrievers: By the names of their parts; they are closed with the baseline, if they can be.
        fusion: The weights.
    """

    name = "fusion"

    def __init__(self, catalog: Catalog, seed: int, retrievers: Mapping[str, Retriever], fusion: Fusion) -> None:
        super().__init__(catalog, seed)
        self._retrievers, self._fusion = dict(retrievers), fusion
        self._found = Found(self, catalog)

    def order(self, request: ResolvedRequest) -> Ordered:
        """By the sum, equals by chance."""
        scores = {name: each.score(request, request.candidates) for name, each in self._retrievers.items()}
        items: Sequence[Item] = request.candidates
        if self.whole(request):
            places = self._found.place_of
            found = [self._found.best(request, scores[name], each.floor) for name, each in self._retrievers.items()]
            items = self._found.filled(request, list({item.id: item for best in found for item in best}.values()))
        else:
            places = {item.id: place for place, item in enumerate(items)}
        kept = [places[item.id] for item in items]
        told = {name: _comparable(each[kept], self._retrievers[name].floor).tolist() for name, each in scores.items()}
        fused = sorted(self._fusion.fuse(told, len(items), len(request.history)), key=lambda one: one.position)
        order = best_first(self, request, items, [one.score for one in fused])
        first = order[:MOST_RANKED] if self.whole(request) else order
        parts = [Parts(fused[at].parts, {name: its[at] for name, its in told.items()}) for at in first]
        return Ordered([items[at] for at in first], [fused[at].score for at in first], parts=parts)

    def close(self) -> None:
        """Closes the retrievers."""
        close_retrievers(self._retrievers.values())


def _comparable(scores: NDArray[np.float32], floor: float | None) -> NDArray[np.float32]:
    """Scores in which a floor far below all that was found (that of ``learned``) stands as far below the least as the best
    stands above it: brought to one scale with the floor itself, all that was found would look alike.
    """
    if floor is None or floor >= 0 or not (found := scores > floor).any():
        return scores
    least, best = scores[found].min(), scores[found].max()
    return np.where(found, scores, least - max(best - least, np.float32(1.0))).astype(np.float32)


def close_retrievers(retrievers: Iterable[Retriever]) -> None:
    """Closes those that hold something."""
    for retriever in retrievers:
        close = getattr(retriever, "close", None)
        if close is not None:
            close()
