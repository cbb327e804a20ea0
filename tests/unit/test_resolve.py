"""resolve: ids become Items, and a request that cannot be ranked gives one clear error."""

from __future__ import annotations

from typing import Any

import pytest

from llmrank import Catalog, Event, Item, RankRequest
from llmrank.errors import LLMRankError, RequestError, UnknownItemError
from llmrank.resolve import resolve

CATALOG = Catalog([Item("1", "One"), Item("2", "Two"), Item("3", "Three")])


def test_ids_items_and_events_may_be_mixed() -> None:
    """History takes ids, Items and Events; candidates take ids and Items; an Item needs no catalogue entry."""
    own = Item("x", "Own")
    resolved = resolve(RankRequest(["1", own, Event("2", timestamp=5.0, rating=4)], ["3", own], query="  fun "), CATALOG)
    assert resolved.history_items == (CATALOG["1"], own, CATALOG["2"])
    assert resolved.history[2].rating == 4
    assert list(resolved.candidates) == [CATALOG["3"], own]
    assert resolved.query == "fun"


def test_no_candidates_stand_for_the_whole_catalogue_without_a_copy() -> None:
    """A million items are handed on as the very tuple that the index knows."""
    assert resolve(RankRequest(["1"]), CATALOG).candidates is CATALOG.items


@pytest.mark.parametrize("query", ["", "   ", None])
def test_an_empty_query_is_no_query(query: str | None) -> None:
    """A form that sends an empty text asks nothing."""
    assert resolve(RankRequest((), ["1"], query), CATALOG).query is None


@pytest.mark.parametrize(
    ("request_", "kind", "said"),
    [
        (RankRequest(["1"], []), RequestError, "nothing to rank"),
        (RankRequest(["1"], ["2", "3", "2"]), RequestError, r"candidates\[2\]: the same id stands twice"),
        (RankRequest(["9"], ["1"]), UnknownItemError, r"history\[0\]: not in the catalogue"),
        (RankRequest([], ["1", "9"]), UnknownItemError, r"candidates\[1\]"),
        (RankRequest("12", ["1"]), RequestError, "single text"),
        (RankRequest([], "12"), RequestError, "single text"),
        (RankRequest([], ["1"], top_k=0), RequestError, "top_k"),
    ],
)
def test_a_request_that_cannot_be_ranked_is_refused(request_: RankRequest, kind: type[LLMRankError], said: str) -> None:
    """Each fault has its error type and names the field."""
    with pytest.raises(kind, match=said):
        resolve(request_, CATALOG)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"candidates": [603]}, "ids are texts"),
        ({"candidates": [Item("", "Nameless")]}, "needs an id"),
        ({"history": [Event("1", rating=float("nan"))]}, "finite"),
        ({"query": 7}, "query"),
    ],
)
def test_values_of_a_wrong_type_are_refused(changes: dict[str, Any], said: str) -> None:
    """What a type checker would have caught is caught at run time too."""
    with pytest.raises(RequestError, match=said):
        resolve(RankRequest(**{"history": [], "candidates": ["1"], **changes}), CATALOG)


def test_without_a_catalogue_ids_cannot_be_looked_up() -> None:
    """Items do without a catalogue, ids do not."""
    assert resolve(RankRequest([], [Item("1", "One")]), None).candidates == (Item("1", "One"),)
    with pytest.raises(RequestError, match="catalogue"):
        resolve(RankRequest([], ["1"]), None)
    with pytest.raises(RequestError, match="no catalogue"):
        resolve(RankRequest([]), None)
