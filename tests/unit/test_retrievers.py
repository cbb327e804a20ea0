"""Retrievers beside the model: found by name in a configuration, united by the prefilter, weighed by the fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Catalog, ConfigError, Fusion, Item, Ranker
from llmrank.config import build_ranker
from llmrank.errors import RequestError, UnreachableError
from llmrank.protocols import Retriever
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.retrieval.subset import Subset
from llmrank.retrieval.vectors import Vectors
from llmrank.strategies.listwise import Listwise, ListwiseOptions
from llmrank.types import Event, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.bag_embedder import BagEmbedder
from tests.unit.scripted import ScriptedBackend

CATALOG = Catalog(Item(str(number), f"film {number}") for number in range(12))


class Table:
    """A retriever with a score for each id; 0 for others."""

    def __init__(self, name: str, scores: dict[str, float], floor: float | None = 0.0) -> None:
        self.name, self.scores, self.floor = name, scores, floor
        self.closed = 0

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        return np.array([self.scores.get(item.id, 0.0) for item in candidates], dtype=np.float32)

    def close(self) -> None:
        self.closed += 1


class Down(Table):
    """A retriever whose server does not answer."""

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        raise UnreachableError("the retriever's server is down")


def ranker(**parts: Any) -> Ranker:
    """A Ranker over a scripted model that ranks as shown."""
    strategy = Listwise(PromptWriter(PromptOptions()), ListwiseOptions())
    backend = ScriptedBackend(lambda prompt: " > ".join(f"[{label}]" for label in prompt.labels))
    return Ranker(backend, strategy, catalog=CATALOG, **parts)


def request(candidates: Sequence[Item] = CATALOG.items, history: Sequence[str] = ()) -> ResolvedRequest:
    """A request for some of the catalogue, or all of it by identity."""
    return ResolvedRequest(tuple(Event(CATALOG[item_id]) for item_id in history), candidates)


def kept(prefilter: Prefilter, asked: ResolvedRequest) -> list[str]:
    """The ids that the prefilter keeps."""
    return [item.id for item in prefilter.select(asked).candidates]


def test_a_stand_in_is_a_retriever() -> None:
    """What these tests use has the methods of the protocol."""
    assert isinstance(Table("crowd", {}), Retriever)


def test_what_several_find_is_united_by_reciprocal_ranks() -> None:
    """1/(60 + rank) is added up: found twice at place 2 comes before found once at place 1; what nobody finds is left out."""
    first, second = Table("first", {"3": 9.0, "4": 8.0}), Table("second", {"5": 0.2, "4": 0.1})
    prefilter = Prefilter(None, PrefilterOptions(keep=6), CATALOG.items, [first, second])
    selection = prefilter.select(request())
    assert [item.id for item in selection.candidates] == ["4", "3", "5"]
    assert selection.scores == pytest.approx([2 / 62, 1 / 61, 1 / 61], rel=1e-6)
    assert selection.dropped == 9


def test_equal_scores_share_their_rank() -> None:
    """Items that a retriever cannot tell apart get the mean of their ranks, so the order given does not matter."""
    prefilter = Prefilter(
        None, PrefilterOptions(keep=6), CATALOG.items, [Table("a", {"1": 1.0, "2": 1.0}), Table("b", {"9": 1.0})]
    )
    assert dict(zip(kept(prefilter, request()), prefilter.select(request()).scores, strict=True)) == pytest.approx(
        {"9": 1 / 61, "1": 1 / 61.5, "2": 1 / 61.5}, rel=1e-6
    )


def test_seen_items_are_left_out_and_a_list_keeps_what_nobody_finds() -> None:
    """Of a caller's list all candidates but those seen stay, as far as `keep` reaches: the found ones first."""
    crowd = Table("crowd", {"3": 1.0, "5": 2.0})
    prefilter = Prefilter(None, PrefilterOptions(keep=4), CATALOG.items, [crowd])
    listed = tuple(CATALOG[item_id] for item_id in ("1", "2", "3", "5", "7"))
    assert kept(prefilter, request(listed, ["5"])) == ["3", "1", "2", "7"]
    assert kept(prefilter, request(history=["5"])) == ["3"]
    nothing = Prefilter(None, PrefilterOptions(keep=2), CATALOG.items, [Table("none", {})]).select(request())
    assert [item.id for item in nothing.candidates] == ["0", "1"]
    assert "no history or query" in nothing.notes[0]


def test_new_items_are_reached_through_embeddings() -> None:
    """An item that the crowd does not know is found by its text beside what the crowd finds."""
    items = (Item("old", "heat crime"), Item("known", "toy story"), Item("new", "alien space war"))
    crowd = Table("crowd", {"known": 5.0})
    asked = ResolvedRequest((Event(Item("h", "alien space horror")),), items)
    alone = Prefilter(None, PrefilterOptions(keep=2), items, [crowd])
    both = Prefilter(BagEmbedder(), PrefilterOptions(keep=2), items, [crowd])
    assert kept(alone, asked) == ["known"]
    assert set(kept(both, asked)) == {"known", "new"}


@given(
    st.lists(st.floats(0, 4, width=16), min_size=12, max_size=12), st.lists(st.floats(0, 4, width=16), min_size=12, max_size=12)
)
def test_the_union_agrees_with_a_plain_loop(first: list[float], second: list[float]) -> None:
    """Whatever the scores: each found item has the sum of 1/(60 + mean rank), in that order."""
    tables = [
        Table("a", dict(zip(map(str, range(12)), first, strict=True))),
        Table("b", dict(zip(map(str, range(12)), second, strict=True))),
    ]
    selection = Prefilter(None, PrefilterOptions(keep=12), CATALOG.items, tables).select(request())
    expected: dict[str, float] = {}
    for scores in (first, second):
        for at, score in enumerate(scores):
            if score > 0:
                better, equal = sum(each > score for each in scores), sum(each == score for each in scores)
                expected[str(at)] = expected.get(str(at), 0.0) + 1 / (60 + better + (equal + 1) / 2)
    if not expected:
        assert selection.notes
        return
    assert dict(zip([item.id for item in selection.candidates], selection.scores, strict=True)) == pytest.approx(
        expected, rel=1e-5
    )
    assert list(selection.scores) == sorted(selection.scores, reverse=True)


@given(
    st.sets(st.integers(0, 11), min_size=1),
    st.lists(st.integers(0, 11), max_size=4),
    st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=12, max_size=12),
    st.booleans(),
)
def test_what_constraints_leave_is_searched_like_a_list(
    places: set[int], history: list[int], found: list[float], embeds: bool
) -> None:
    """The places in the catalogue only spare a look at each item: the selection is that of the same items as a list."""
    table = Table("crowd", {str(at): score for at, score in enumerate(found)})
    prefilter = Prefilter(BagEmbedder() if embeds else None, PrefilterOptions(keep=3), CATALOG.items, [table])
    part = Subset(CATALOG.items, np.array(sorted(places), dtype=np.int64))
    asked = [request(candidates, list(map(str, history))) for candidates in (part, tuple(part))]
    if places <= set(history):
        for each in asked:
            with pytest.raises(RequestError, match="in the history"):
                prefilter.select(each)
    else:
        first, second = map(prefilter.select, asked)
        assert first == second
    index = ItemIndex(str(number) for number in range(0, 12, 2))
    assert index.columns(part).tolist() == index.columns(tuple(part)).tolist()


def test_the_fusion_weighs_retrievers_by_name() -> None:
    """A retriever without a prefilter: its scores order the candidates, and each item says what each part gave."""
    crowd = Table("crowd", {"7": 3.0, "2": 1.0})
    with ranker(retrievers=[crowd], fusion=Fusion({"llm": 0.1, "crowd": 1.0}, ("llm", "prefilter", "crowd"))) as built:
        ranking = built.rank(candidates=["1", "2", "7"])
    assert ranking.item_ids == ["7", "2", "1"]
    assert all(set(each.parts) == {"llm", "crowd"} for each in ranking.items)
    assert crowd.closed == 0


def test_a_retriever_without_weight_is_not_asked() -> None:
    """One that is down does no harm while nothing needs it; with a weight its error is the ranking's."""
    with ranker(retrievers=[Down("crowd", {})], fusion=Fusion({"llm": 1.0})) as built:
        assert built.rank(candidates=["1", "2"]).item_ids == ["1", "2"]
    weighed = Fusion({"llm": 1.0, "crowd": 1.0}, ("llm", "prefilter", "crowd"))
    with ranker(retrievers=[Down("crowd", {})], fusion=weighed, on_error="fallback") as built:
        ranking = built.rank(candidates=["1", "2"])
    assert (ranking.status, ranking.item_ids) == ("error", ["1", "2"])
    assert isinstance(ranking.error, UnreachableError)


def test_owned_retrievers_are_closed_with_the_ranker() -> None:
    """One that was handed in stays open unless the Ranker owns it."""
    crowd = Table("crowd", {})
    ranker(retrievers=[crowd]).close()
    assert crowd.closed == 0
    ranker(retrievers=[crowd], owns_retrieval=True).close()
    assert crowd.closed == 1


@pytest.mark.parametrize(
    ("retrievers", "fusion", "message"),
    [
        ([Table("crowd", {}), Table("crowd", {})], None, "retrievers: two parts have this name"),
        ([Table("llm", {})], None, "retrievers: two parts have this name"),
        ([Table("crowd", {})], Fusion({"crowds": 1.0}, ("crowds",)), "fusion.crowds: .*did you mean 'crowd'"),
    ],
)
def test_parts_must_have_names_of_their_own(retrievers: list[Retriever], fusion: Fusion | None, message: str) -> None:
    """A name that stands for two parts, or for none, is refused when the Ranker is built."""
    with pytest.raises(ConfigError, match=message):
        ranker(retrievers=retrievers, fusion=fusion)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"retrievers": {"crowd": {"kind": "item-nn"}}}, r"retrievers.crowd.kind: .*did you mean 'item-knn'"),
        ({"retrievers": {"crowd": {"kind": "item-knn"}}}, r"retrievers.crowd.path: is missing.*llmrank train item-knn"),
        ({"retrievers": {"llm": {"kind": "embedding"}}}, r"retrievers.llm: is taken"),
        ({"retrievers": {"text": {"kind": "embedding", "decay": 2}}}, r"retrievers.text.decay: must be a number"),
        ({"retrievers": {"text": {"kind": "embedding", "feilds": []}}}, r"retrievers.text.feilds: .*did you mean 'fields'"),
        ({"prefilter": {"by": ["embeddings"]}}, r"prefilter.by: .*did you mean 'embedding'"),
        ({"prefilter": {"by": []}}, r"prefilter.by: has no retriever"),
        ({"fusion": {"txt": 1}, "retrievers": {"text": {"kind": "embedding"}}}, r"fusion.txt: .*did you mean 'text'"),
    ],
)
def test_mistakes_in_a_configuration_are_named(sections: dict[str, Any], message: str) -> None:
    """One error that names the key, the value and the nearest that is known."""
    config = {"backend": {"kind": "local"}, **sections}
    with pytest.raises(ConfigError, match=message):
        build_ranker(config, catalog=CATALOG, unasked=True)


def test_a_configuration_names_retrievers_for_prefilter_and_fusion() -> None:
    """`prefilter.by` and `fusion` take the names; the prefilter's own embeddings are called embedding."""
    config = {
        "backend": {"kind": "local"},
        "retrievers": {"text": {"kind": "embedding", "fields": ["title"]}},
        "prefilter": {"keep": 5, "by": ["embedding", "text"]},
        "fusion": {"llm": 1, "text": 0.5, "prefilter": 0.2},
    }
    with build_ranker(config, catalog=CATALOG, unasked=True) as built:
        assert built.prefilter is not None
        assert built.prefilter.found_by == ("embedding", "text")
        assert built.fusion is not None
        assert built.fusion.needs == {"text", "prefilter"}
        assert list(built.retrievers) == ["text"]
