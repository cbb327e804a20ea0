"""The users' own lists: reciprocal ranks, for those who have one."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import ConfigError, DatasetError
from llmrank.protocols import Retriever
from llmrank.retrieval.collaborative.items import WORTH_REMEMBERING
from llmrank.retrieval.lists import ListsOptions, ListsRetriever
from llmrank.types import Item
from tests.unit.collaborative_data import asked

LISTS: Mapping[str, Sequence[str]] = {"u": ["b", "a", "b", "c"], "v": ["c"], "w": []}


def scored(retriever: ListsRetriever, user: str | None, *ids: str) -> list[float]:
    """The scores of items by their ids."""
    items = [Item(each, "") for each in ids]
    found = retriever.score(asked([], items, user), items)
    assert found.dtype == np.float32
    return [float(each) for each in found]


def test_scores_are_reciprocal_ranks_of_the_own_list() -> None:
    """Ranks from 1; of an item that stands twice the first counts; what is not on the list scores 0."""
    retriever = ListsRetriever(LISTS, ListsOptions(rrf_k=1))
    assert isinstance(retriever, Retriever)
    assert (retriever.name, retriever.floor) == ("lists", 0.0)
    assert scored(retriever, "u", "a", "b", "c", "d") == pytest.approx([1 / 3, 1 / 2, 1 / 4, 0])
    assert scored(retriever, "v", "a", "b", "c", "d") == [0, 0, 1 / 2, 0]
    assert scored(ListsRetriever(LISTS, name="mine"), "v", "c") == pytest.approx([1 / 61])


@pytest.mark.parametrize("user", ["w", "stranger", None])
def test_who_has_no_list_finds_nothing(user: str | None) -> None:
    """An empty list, an unknown user, and a request that does not say whose it is."""
    assert scored(ListsRetriever(LISTS), user, "a", "b") == [0, 0]


@given(st.lists(st.integers(0, 30)), st.permutations(range(40)))
def test_candidates_on_the_list_stand_in_its_order(own: list[int], shuffled: list[int]) -> None:
    """However the candidates are listed; the rest is at the floor."""
    ids = [str(each) for each in shuffled]
    found = scored(ListsRetriever({"u": [str(each) for each in own]}), "u", *ids)
    order = [ids[at] for at in np.argsort(-np.array(found), kind="stable") if found[at] > 0]
    assert order == list(dict.fromkeys(map(str, own)))


def test_a_whole_catalogue_scores_as_lists_do() -> None:
    """A tuple that is asked for again gives the same scores, for each user their own."""
    catalog = tuple(Item(each, "") for each in ["c", "b", "a", *map(str, range(WORTH_REMEMBERING))])
    retriever = ListsRetriever(LISTS)
    for _ in range(2):
        for user in ("u", "v"):
            found = retriever.score(asked([], catalog, user), catalog)
            assert found[:4].tolist() == scored(retriever, user, "c", "b", "a", "0")
            assert not found[4:].any()


@pytest.mark.parametrize("name", ["lists.jsonl", "lists.jsonl.gz"])
def test_lists_are_read_from_a_file(name: str, tmp_path: Path) -> None:
    """A line a user; ids may be numbers."""
    text = '{"user_id": 7, "items": ["b", 3]}\n\n{"user_id": "v", "items": []}\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    retriever = ListsRetriever.load(path, ListsOptions(rrf_k=1), name="mine")
    assert retriever.name == "mine"
    assert scored(retriever, "7", "3", "b", "c") == pytest.approx([1 / 3, 1 / 2, 0])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"user_id": "u"}, "items: .*line 2: must be a list of ids"),
        ({"user_id": "u", "items": "abc"}, "items: .*line 2: must be a list of ids"),
        ({"items": ["a"]}, "user_id: .*line 2: must be a text"),
        ({"user_id": "first", "items": ["a"]}, "user_id: .*line 2: the user has a line already"),
        (["u"], "lists: .*line 2: not a JSON object"),
    ],
    ids=str,
)
def test_a_wrong_line_is_named(line: object, said: str, tmp_path: Path) -> None:
    """File, line, field."""
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"user_id": "first", "items": []}) + "\n" + json.dumps(line) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=said):
        ListsRetriever.load(path)


def test_a_missing_file_and_a_wrong_constant_are_refused(tmp_path: Path) -> None:
    """One line each."""
    with pytest.raises(DatasetError, match=r"none.jsonl: cannot be read"):
        ListsRetriever.load(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"lists.rrf_k: must be a whole number of at least 1"):
        ListsOptions(rrf_k=0)
