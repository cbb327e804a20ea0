"""The learned retriever: trained on users whose last item is hidden, kept in a folder, asked like any other retriever."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank import Catalog, Item
from llmrank.config import build_embedder
from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.data.timelines import Cutting, Timelines
from llmrank.evaluation.fitting import learn as learning
from llmrank.evaluation.fitting.learn import LearnOptions, learn, parts_of
from llmrank.interactions import Interactions
from llmrank.protocols import Retriever
from llmrank.retrieval import collaborative
from llmrank.retrieval import learned as module
from llmrank.retrieval.learned import FILE, FLOOR, LearnedRetriever
from llmrank.retriever_kinds import build_retriever
from llmrank.types import Event, ResolvedRequest
from tests.unit.collaborative_data import asked, of_histories

GROUPS = 6
ITEMS = [f"{group}{number}" for group in "abcdef" for number in range(8)]
CATALOG = Catalog(Item(item_id, f"title {item_id}") for item_id in ITEMS)
PARTS = {"popularity": {"kind": "popularity"}, "item-knn": {"kind": "item-knn"}, "recent": {"kind": "item-knn", "last": 1}}
OPTIONS = LearnOptions(users=150, negatives=9, rounds=30)


def groups(users: int = 300, seed: int = 0) -> Interactions:
    """Users who choose five items, mostly of one group."""
    dice = random.Random(seed)  # noqa: S311  # made-up data
    histories = {}
    for user in range(users):
        group = "abcdef"[user % GROUPS]
        own = [item for item in ITEMS if item[0] == group]
        histories[f"u{user}"] = [*dice.sample(own, 4), dice.choice(own if dice.random() < 0.8 else ITEMS)]
    return of_histories(histories)


def no_embedding(name: str, section: Mapping[str, Any]) -> Retriever:
    """These tests combine no texts."""
    raise AssertionError(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained one."""
    out = tmp_path_factory.mktemp("learned") / "model"
    learn(groups(), CATALOG, out, parts=parts_of(PARTS), options=OPTIONS, embedding=no_embedding)
    return out


def built(folder: Path, name: str = "all") -> LearnedRetriever:
    """The retriever of a folder, by the way a configuration takes."""
    retriever = build_retriever(name, {"kind": "learned", "path": str(folder)}, CATALOG.items, embedder=build_embedder)
    assert isinstance(retriever, LearnedRetriever)
    return retriever


def scores(retriever: Retriever, history: Sequence[str], candidates: Sequence[str]) -> list[float]:
    """One score a candidate."""
    items = [CATALOG[each] for each in candidates]
    return [float(score) for score in retriever.score(asked(history, items), items)]


def test_it_ranks_what_goes_with_the_history_first(folder: Path) -> None:
    """For a user of one group, items of that group score above those of all others."""
    retriever = built(folder)
    assert retriever.name == "all"
    own, others = ["b5", "b6", "b7"], ["a5", "c5", "d5", "e5", "f5"]
    found = scores(retriever, ["b0", "b1", "b2"], [*own, *others])
    assert min(found[:3]) > max(found[3:])


def test_it_says_what_it_was_trained_on(folder: Path) -> None:
    """A tenth of the users is measured and not learned from; the figure beside those of the parts alone."""
    trained = json.loads((folder / FILE).read_text())["trained"]
    assert (trained["users"], trained["users_apart"]) == (135, 15)
    assert trained["ndcg@10_apart"] >= max(trained["parts_apart"].values()) - 0.1
    assert set(trained["parts_apart"]) == set(PARTS)
    assert trained["options"]["seed"] == 0


def test_parts_are_trained_without_what_they_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first training sees no hidden pair of user and item, the second sees all; parts of one kind share a training."""
    seen: list[Interactions] = []
    real = collaborative.train

    def train(kind: str, interactions: Interactions, *rest: Any, **more: Any) -> Any:
        seen.append(interactions)
        return real(kind, interactions, *rest, **more)

    monkeypatch.setattr(collaborative, "train", train)
    table = groups()
    learn(table, CATALOG, tmp_path / "model", parts=parts_of(PARTS), options=OPTIONS, embedding=no_embedding)
    pairs = len({(row.user_id, row.item_id) for row in table.rows()})  # a second choice of an item counts nothing
    assert [len(each) for each in seen] == [pairs - 150, pairs - 150, len(table), len(table)]
    timelines = Timelines(table)
    last = {(table.users[user], table.items[timelines.split(user, Cutting(1)).relevant[0]]) for user in range(len(table.users))}
    left = {(row.user_id, row.item_id) for row in seen[0].rows()}
    assert len(last - left) == 150


def test_the_same_seed_gives_the_same_retriever(folder: Path, tmp_path: Path) -> None:
    """Users, negatives, places and trees are drawn by the seed."""
    learn(groups(), CATALOG, tmp_path / "again", parts=parts_of(PARTS), options=OPTIONS, embedding=no_embedding)
    assert scores(built(folder), ["c1"], ITEMS) == scores(built(tmp_path / "again"), ["c1"], ITEMS)


def test_of_a_long_list_the_trees_see_what_the_parts_find(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no part finds stands at the floor; what is found keeps its order among the found."""
    retriever = built(folder)
    monkeypatch.setattr(module, "MOST", 4)
    request = ResolvedRequest((Event(CATALOG["b0"]), Event(CATALOG["b1"])), CATALOG.items)
    found = retriever.score(request, CATALOG.items)
    assert 4 <= np.count_nonzero(found > FLOOR) <= 12
    assert CATALOG.items[int(found.argmax())].id[0] == "b"
    assert np.isfinite(found).all()


def test_a_new_user_and_unknown_items_are_scored(folder: Path) -> None:
    """No history, and an item that nobody ever chose: finite scores all the same."""
    new = Item("new", "a new title")
    retriever = built(folder)
    found = retriever.score(ResolvedRequest((), (new, CATALOG["a0"])), (new, CATALOG["a0"]))
    assert np.isfinite(found).all()


def test_a_folder_that_is_there_is_left_alone(folder: Path) -> None:
    """Nothing is written over."""
    before = sorted(each.name for each in folder.iterdir())
    with pytest.raises(ConfigError, match="--out: is there already"):
        learn(groups(), CATALOG, folder, parts=parts_of(PARTS), options=OPTIONS, embedding=no_embedding)
    assert sorted(each.name for each in folder.iterdir()) == before


def test_a_training_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder appears when it is whole."""

    def broken(*_: Any) -> None:
        raise RuntimeError("no space")

    monkeypatch.setattr(learning, "write_learned", broken)
    with pytest.raises(RuntimeError, match="no space"):
        learn(groups(), CATALOG, tmp_path / "model", parts=parts_of(PARTS), options=OPTIONS, embedding=no_embedding)
    assert list(tmp_path.iterdir()) == []


def test_too_few_users_are_refused(tmp_path: Path) -> None:
    """With the number that there is."""
    with pytest.raises(DatasetError, match="only 12 users chose two items"):
        learn(groups(12), CATALOG, tmp_path / "m", parts=parts_of(PARTS), options=OPTIONS, embedding=no_embedding)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"a": {"kind": "item-nn"}}, r"parts.a.kind: .*did you mean 'item-knn'"),
        ({"a": {"kind": "item-knn", "neigbours": 3}}, r"parts.a.neigbours: .*did you mean 'neighbours'"),
        ({"a/b": {"kind": "item-knn"}}, r"parts: becomes a file's name"),
    ],
)
def test_a_wrong_part_is_named(sections: dict[str, Any], message: str) -> None:
    """Key, value and the nearest that is known."""
    with pytest.raises(ConfigError, match=message):
        parts_of(sections)


@pytest.mark.parametrize(("name", "value"), [("users", 3), ("negatives", 0), ("shorten", 1.5), ("rounds", 0), ("k", True)])
def test_options_out_of_range_are_refused(name: str, value: Any) -> None:
    """The key is named."""
    with pytest.raises(ConfigError, match=f"learned.{name}: must be"):
        LearnOptions(**{name: value})


HOLLOW = {"format": 1, "parts": {}, "trees": {"parts": ["a"], "model": ""}, "trained": {}}
NAMELESS = {**HOLLOW, "trees": {"parts": [["a"]], "model": ""}}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', json.dumps(HOLLOW), json.dumps(NAMELESS)])
def test_a_damaged_folder_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    """The file is named, and the remedy."""
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"learned\.json"):
        built(tmp_path)
    with pytest.raises(ConfigError, match=r"has no learned\.json"):
        built(tmp_path / "absent")


@pytest.mark.parametrize(
    "section",
    [
        {"kind": "learned", "path": "."},
        {"kind": "learned"},
        {"kind": "item-knn", "path": "../other.npz"},
        {"kind": "item-knn", "path": "/etc/passwd"},
        {"kind": "item-knn", "path": ".."},
    ],
)
def test_a_folder_opens_nothing_outside_of_itself(section: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """It may be somebody else's: nor may it hold itself, which would be read without end."""
    document = json.loads((folder / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(document | {"parts": {**document["parts"], "recent": section}}))
    with pytest.raises(ConfigError, match="does not lie in it as a file"):
        built(tmp_path)


def test_a_folder_with_half_of_its_trees_is_refused(folder: Path, tmp_path: Path) -> None:
    """In one line with its file, where LightGBM would end the process."""
    document = json.loads((folder / FILE).read_text())
    trees = {"parts": document["trees"]["parts"], "model": document["trees"]["model"][:2000]}
    (tmp_path / FILE).write_text(json.dumps(document | {"trees": trees}))
    with pytest.raises(ConfigError, match="holds no trees") as caught:
        built(tmp_path)
    assert str(tmp_path) in str(caught.value)
