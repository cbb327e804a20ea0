"""Typed calls as a user writes them. Only the type checker reads this file: `mypy --strict` must accept it as it stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, assert_type

from llmrank import Catalog, Event, Fusion, Item, Limits, Ranker, Ranking, RankRequest, Usage
from llmrank.backends.base import BackendBase
from llmrank.protocols import Backend, Flow, Strategy
from llmrank.types import Capability, Completion, Prompt, RankedItem, ResolvedRequest, Status

if TYPE_CHECKING:
    from llmrank.budget import Budget


class MyBackend(BackendBase):
    """A backend of one's own overrides what it can do."""

    async def generate(self, prompt: Prompt) -> Completion:
        return Completion(text=" > ".join(prompt.labels))


class MyStrategy:
    """A strategy of one's own is a name, its needs and a generator."""

    name = "mine"
    needs: frozenset[Capability] = frozenset({"generate"})

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        yield [Prompt()]
        return Ranking(tuple(RankedItem(item, rank) for rank, item in enumerate(request.candidates, 1)))


def build(backend: Backend, strategy: Strategy, catalog: Catalog) -> Ranker:
    return Ranker(
        backend, strategy, catalog=catalog, fusion=Fusion({"llm": 1.0}), limits=Limits(max_attempts=2), cache=Path("c")
    )


def call(ranker: Ranker, requests: Sequence[RankRequest]) -> None:
    ranking = ranker.rank(
        history=["603", Event("604", rating=5), Item("1", "One")], candidates=["1", "2"], query=None, top_k=10
    )
    assert_type(ranking, Ranking)
    assert_type(ranking.item_ids, list[str])
    assert_type(ranking.status, Status)
    assert_type(ranking.usage, Usage)
    assert_type(ranking.items, tuple[RankedItem, ...])
    assert_type(ranker.rank_many(requests), Iterator[Ranking])


async def acall(ranker: Ranker, requests: AsyncIterator[RankRequest]) -> None:
    assert_type(await ranker.arank(["603"], ["1"]), Ranking)
    assert_type(ranker.arank_many(requests), AsyncIterator[Ranking])
    async with ranker:
        pass


def use() -> None:
    catalog = Catalog.load("items.jsonl")
    assert_type(catalog["1"], Item)
    call(build(MyBackend("mine", "model"), MyStrategy(), catalog), [RankRequest(["1"], ["2"])])
    assert_type(Ranker.from_config("ranker.yaml"), Ranker)
    assert_type(Ranker.from_config({"backend": {"kind": "local"}}, catalog=catalog), Ranker)
