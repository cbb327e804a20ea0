"""Baselines: what decides each one's order, that the order of listing does not, and what is refused."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank import config, retriever_kinds
from llmrank.catalog import Catalog
from llmrank.errors import ConfigError, UnknownItemError
from llmrank.evaluation.folder import Popularity
from llmrank.evaluation.running.baselines import MOST_RANKED, NAMES, Baseline, EmbeddingBaseline, build_baseline
from llmrank.evaluation.running.retrieved import FusionBaseline, best_first
from llmrank.fusion import Fusion
from llmrank.protocols import Embedder
from llmrank.retrieval.learned import FLOOR
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.types import Constraint, Item, Ranking, RankRequest, ResolvedRequest, Usage
from tests.unit import fake_retrievers
from tests.unit.bag_embedder import BagEmbedder
from tests.unit.fake_retrievers import FakeModel, FakeOptions

TITLES = (
    "space war",
    "space odyssey",
    "toy story",
    "toy story two",
    "crime city",
    "night train",
    "space war two",
    "silent sea",
)
CATALOG = Catalog(Item(str(number), title) for number, title in enumerate(TITLES))
COUNTS = Popularity(9, Counter({"0": 5, "1": 5, "2": 9, "3": 1}))
IDS = [item.id for item in CATALOG]


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(section: Any) -> Embedder:
        return BagEmbedder()

    monkeypatch.setattr("llmrank.evaluation.running.baselines.build_embedder", build)
    fake_retrievers.install(monkeypatch)


def baseline(name: str, *, catalog: Catalog = CATALOG, seed: int = 0, **options: Any) -> Baseline:
    """A baseline as a suite builds it, with an embedder that counts words."""
    if name == "fusion":
        options = {"retrievers": {"text": {"kind": "embedding"}}, **options}
    return build_baseline({"baseline": name, **options}, catalog=catalog, popularity=COUNTS, seed=seed)


def counting(tmp_path: Path, counts: Mapping[tuple[str, str], int], kind: str = "item-knn") -> dict[str, str]:
    """The section of a retriever whose model counts so."""
    path = tmp_path / f"{kind}.npz"
    FakeModel(kind, kind, FakeOptions(), counts).save(path)
    return {"kind": kind, "path": str(path)}


def one(built: Baseline, request: RankRequest) -> Ranking:
    """The Ranking of one request."""
    (ranking,) = built.rank_many([request])
    return ranking


def ask(candidates: Sequence[str] | None = IDS, history: Sequence[str] = ("6",), user: str = "u", **more: Any) -> RankRequest:
    """A request of a user for ids."""
    return RankRequest(history, candidates, user_id=user, **more)


@pytest.mark.parametrize("name", NAMES)
def test_a_ranking_is_a_permutation_that_cost_nothing(name: str) -> None:
    """Status ok, every candidate once with its place, no usage, the candidates as listed, the baseline's name."""
    listed = ["3", "0", "7", "2"]
    ranking = one(baseline(name), ask(listed))
    assert sorted(ranking.item_ids) == sorted(listed)
    assert [each.rank for each in ranking.items] == [1, 2, 3, 4]
    assert (ranking.status, ranking.usage, ranking.strategy, ranking.user_id) == ("ok", Usage(), name, "u")
    assert ranking.shown == tuple(listed)
    assert one(baseline(name), ask(listed, top_k=2)).item_ids == ranking.item_ids[:2]


@settings(max_examples=40)
@given(st.permutations(IDS), st.text(), st.integers(0, 3))
def test_the_order_of_listing_decides_nothing(listed: list[str], user: str, seed: int) -> None:
    """Where the target stands in the list is no hint, whatever ties there are."""
    for name in ("random", "popularity"):
        built = baseline(name, seed=seed)
        assert one(built, ask(listed, user=user)).item_ids == one(built, ask(IDS, user=user)).item_ids
    embedding = EmbeddingBaseline(CATALOG, seed, Prefilter(BagEmbedder(), PrefilterOptions(drop_seen=False), CATALOG.items))
    assert one(embedding, ask(listed, user=user)).item_ids == one(embedding, ask(IDS, user=user)).item_ids


def test_the_random_order_is_another_for_another_user_or_seed_and_fair() -> None:
    """It repeats for the same user and seed; over many users each item is first about as often."""
    assert one(baseline("random"), ask()) == one(baseline("random"), ask())
    orders = {tuple(one(baseline("random", seed=seed), ask(user=user)).item_ids) for seed in range(3) for user in "abc"}
    assert len(orders) == 9
    built = baseline("random")
    firsts = Counter(ranking.item_ids[0] for ranking in built.rank_many(ask(user=f"u{number}") for number in range(2000)))
    # Of 2000 users 250 each; the standard deviation is 15.
    assert set(firsts) == set(IDS)
    assert all(abs(count - 250) < 5 * 15 for count in firsts.values())


def test_popularity_goes_by_counts_and_equals_by_chance() -> None:
    """The most chosen first, never chosen ones last; equals in an order that differs from user to user."""
    built = baseline("popularity")
    ranking = one(built, ask())
    assert ranking.item_ids[0] == "2"
    assert set(ranking.item_ids[1:3]) == {"0", "1"}
    assert ranking.item_ids[3] == "3"
    assert [each.score for each in ranking.items] == [9, 5, 5, 1, 0, 0, 0, 0]
    seconds = Counter(each.item_ids[1] for each in built.rank_many(ask(user=str(number)) for number in range(200)))
    assert set(seconds) == {"0", "1"}
    assert min(seconds.values()) > 60


def test_embedding_goes_by_likeness_and_leaves_out_what_the_user_has() -> None:
    """What shares words with the history stands first, a query counts, and items in the history are left out as asked."""
    ranking = one(baseline("embedding"), ask(history=("6",)))
    assert ranking.item_ids[:3] == ["0", "1", "3"]
    assert "6" not in ranking.item_ids
    assert ranking.cut.seen == ("6",)
    assert ranking.model == "bag of words"
    assert one(baseline("embedding", drop_seen=False), ask(history=("6",))).item_ids[0] == "6"
    assert one(baseline("embedding"), ask(history=(), query="silent night")).item_ids[0] in ("5", "7")
    everything = one(baseline("embedding"), ask(["6"], history=("6",)))
    assert everything.status == "error"
    assert "the user has all of them" in str(everything.error)


def test_embedding_knows_nothing_of_a_new_user() -> None:
    """Without history and query the order is the random one, for a list as for the whole catalogue."""
    new = ask(history=())
    assert one(baseline("embedding"), new).item_ids == one(baseline("random"), new).item_ids
    whole = replace(new, candidates=None)
    assert one(baseline("embedding"), whole).item_ids == one(baseline("random"), whole).item_ids


def test_given_is_as_listed_and_needs_a_list() -> None:
    """The order of another system is kept; a whole catalogue has none."""
    assert one(baseline("given"), ask(["5", "1", "3"])).item_ids == ["5", "1", "3"]
    assert one(baseline("given"), ask(None)).status == "error"


@pytest.mark.parametrize("name", ["random", "popularity", "embedding"])
def test_of_a_whole_catalogue_the_best_that_the_user_does_not_have(name: str) -> None:
    """At most a thousand, none of the history; `shown` is empty, as nothing was listed."""
    large = Catalog(Item(str(number), f"title {number % 50} number {number}") for number in range(2500))
    counts = Counter({str(number): 2500 - number // 30 * 30 for number in range(0, 2500, 2)})
    built = build_baseline({"baseline": name}, catalog=large, popularity=Popularity(9, counts), seed=1)
    history = tuple(str(number) for number in range(0, 300, 3))
    ranking = one(built, ask(None, history))
    assert len(set(ranking.item_ids)) == MOST_RANKED
    assert not set(ranking.item_ids) & set(history)
    assert ranking.shown == ()
    few = one(build_baseline({"baseline": name}, catalog=CATALOG, popularity=COUNTS, seed=1), ask(None, ("0", "6")))
    assert sorted(few.item_ids) == ["1", "2", "3", "4", "5", "7"]
    if name == "popularity":
        listed = [item_id for item_id in (item.id for item in large) if item_id not in history]
        random.Random(0).shuffle(listed)  # noqa: S311  # sampling, not secrets
        assert one(built, ask(listed, history)).item_ids[:MOST_RANKED] == ranking.item_ids


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_request_becomes_an_error_and_stops_no_other(name: str) -> None:
    """Unknown ids and empty lists; the next request is ranked."""
    first, second, third = baseline(name).rank_many([ask(["nowhere"]), ask([]), ask(["1", "2"])])
    assert isinstance(first.error, UnknownItemError)
    assert (first.status, second.status, third.status) == ("error", "error", "ok")
    assert (first.user_id, first.strategy) == ("u", name)


def test_requests_are_read_one_by_one() -> None:
    """A stream of any length is ranked in constant memory: nothing is read ahead."""
    read: list[int] = []

    def requests() -> Any:
        for number in range(10):
            read.append(number)
            yield ask(user=str(number))

    stream = baseline("random").rank_many(requests())
    next(stream)
    assert read == [0]


def test_close_closes_the_prefilter() -> None:
    """And may be called twice."""
    built = baseline("embedding")
    built.close()
    built.close()
    assert one(built, ask()).status == "error"


def test_a_kind_that_learns_goes_by_its_scores_and_equals_by_chance(tmp_path: Path) -> None:
    """Best first; what it knows nothing of stands last, in the order of `random`; the history is not left out of a list."""
    section = counting(tmp_path, {("6", "3"): 4, ("6", "0"): 2, ("6", "6"): 1, ("5", "2"): 9})
    built = baseline("item-knn", path=section["path"])
    ranking = one(built, ask(history=("6",)))
    assert ranking.item_ids[:3] == ["3", "0", "6"]
    assert [each.score for each in ranking.items] == [4, 2, 1, 0, 0, 0, 0, 0]
    by_chance = one(baseline("random"), ask(history=("6",))).item_ids
    assert ranking.item_ids[3:] == [each for each in by_chance if each not in ("3", "0", "6")]
    assert ranking.strategy == "item-knn"
    built.close()


def test_of_a_whole_catalogue_what_it_finds_and_then_others(tmp_path: Path) -> None:
    """Items above the floor that the user does not have, then others by chance, each once; a new user gets the random order."""
    section = counting(tmp_path, {("6", "3"): 4, ("6", "0"): 2, ("6", "6"): 9})
    built = baseline("item-knn", path=section["path"])
    ranking = one(built, ask(None, history=("6",)))
    assert ranking.item_ids[:2] == ["3", "0"]
    assert sorted(ranking.item_ids) == sorted(set(IDS) - {"6"})
    assert ranking.shown == ()
    new = ask(None, history=())
    assert one(built, new).item_ids == one(baseline("random"), new).item_ids


@pytest.mark.parametrize("name", ["item-knn", "fusion"])
def test_the_best_thousand_of_a_large_catalogue(name: str, tmp_path: Path) -> None:
    """Of equals at the border those that chance prefers, whatever the place in the catalogue."""
    large = Catalog(Item(f"i{number}", f"film {number}") for number in range(3 * MOST_RANKED))
    counts = {("i0", f"i{number}"): 1 + (number < 300) for number in range(2 * MOST_RANKED)}
    section = counting(tmp_path, counts)
    options: dict[str, Any] = {"path": section["path"]} if name == "item-knn" else {"retrievers": {"crowd": section}}
    ranking = one(baseline(name, catalog=large, **options), ask(None, history=("i0",)))
    places = [int(item_id[1:]) for item_id in ranking.item_ids]
    assert len(set(places)) == MOST_RANKED
    assert set(places[:299]) == set(range(1, 300))
    assert all(300 <= place < 2 * MOST_RANKED for place in places[299:])
    assert np.mean(places[299:]) == pytest.approx(1150, abs=5 * 491 / math.sqrt(701))  # 300 to 1999, drawn evenly


def test_a_fusion_adds_what_each_part_gives(tmp_path: Path) -> None:
    """Z-scores, weighed: each item says what each part gave, and its score is the sum; a weight of 0 counts for nothing."""
    retrievers = {"crowd": counting(tmp_path, {("6", "7"): 3}), "text": {"kind": "embedding"}}
    listed = ["0", "5", "7"]
    ranking = one(baseline("fusion", retrievers=retrievers, fusion={"crowd": 2, "text": 1}), ask(listed))
    # Title 6 is "space war two" and 0 "space war": text scores (2/sqrt 6, 0, 0), z (sqrt 2, -sqrt 2/2, -sqrt 2/2).
    root = math.sqrt(2)
    expected = {"7": (2 * root, -root / 2), "0": (-root, root), "5": (-root, -root / 2)}
    assert ranking.item_ids == ["7", "0", "5"]
    for each in ranking.items:
        assert each.parts == {"crowd": pytest.approx(expected[each.id][0]), "text": pytest.approx(expected[each.id][1])}
        assert each.score == pytest.approx(sum(expected[each.id]))
    text_only = one(baseline("fusion", retrievers=retrievers, fusion={"crowd": 0, "text": 1}), ask(listed))
    assert text_only.item_ids[0] == "0"
    by_chance = one(baseline("random"), ask(listed)).item_ids
    assert text_only.item_ids[1:] == [each for each in by_chance if each != "0"]


def test_a_fusion_of_a_whole_catalogue_unites_what_is_found(tmp_path: Path) -> None:
    """What any part finds is fused; what nobody finds follows; what the user has is left out."""
    retrievers = {"crowd": counting(tmp_path, {("6", "7"): 3, ("6", "6"): 5}), "text": {"kind": "embedding"}}
    ranking = one(baseline("fusion", retrievers=retrievers), ask(None))
    assert set(ranking.item_ids[:2]) == {"7", "0"}
    assert sorted(ranking.item_ids) == sorted(set(IDS) - {"6"})
    new = one(baseline("fusion", retrievers=retrievers), ask(None, history=()))
    assert sorted(new.item_ids) == IDS
    assert {each.score for each in new.items} == {0.0}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "given"])
def test_what_does_not_meet_constraints_is_left_out(name: str) -> None:
    """By every baseline, of a list and of a whole catalogue, there also what the user has."""
    years = Catalog(Item(str(number), title, {"year": 1990 + number}) for number, title in enumerate(TITLES))
    new = (Constraint("year", ">=", 1994),)
    listed = one(baseline(name, catalog=years), ask(["1", "2", "5", "7"], constraints=new))
    assert (sorted(listed.item_ids), listed.cut.constrained) == (["5", "7"], 2)
    whole = one(baseline(name, catalog=years), ask(None, constraints=new))
    assert (sorted(whole.item_ids), whole.cut.constrained, whole.shown) == (["4", "5", "7"], 4, ())
    none = one(baseline(name, catalog=years), ask(None, constraints=(Constraint("year", "=", 1996),)))
    assert none.status == "error"
    assert "the user has all items that meet them" in str(none.error)


def test_of_a_whole_catalogue_under_constraints_no_more_than_a_thousand_are_ranked() -> None:
    """As without them; and an order of listing that is not there cannot be given."""
    large = Catalog(Item(f"i{number}", "film", {"year": number}) for number in range(MOST_RANKED + 100))
    asked = ask(None, history=(), constraints=(Constraint("year", ">", 10),))
    assert len(one(baseline("random", catalog=large), asked).items) == MOST_RANKED
    assert one(baseline("given", catalog=large), asked).status == "error"


class Fixed:
    """A retriever that scores items by their ids."""

    def __init__(self, name: str, scores: Mapping[str, float], floor: float) -> None:
        self.name, self.floor, self._scores = name, floor, scores

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> np.ndarray:
        """The floor for what it does not find."""
        return np.array([self._scores.get(item.id, self.floor) for item in candidates], dtype=np.float32)


def test_what_a_learned_part_does_not_find_does_not_drown_what_it_does(tmp_path: Path) -> None:
    """Its floor is a billion below its scores: on one scale with that, all that it found would look alike."""
    learned = Fixed("learned", {"1": 0.3, "2": 0.2, "3": 0.1}, FLOOR)
    crowd = Fixed("crowd", {"3": 0.3, "4": 0.2, "5": 0.1}, 0.0)
    fusion = Fusion({"learned": 1.0, "crowd": 0.01}, ("learned", "crowd"))
    ranking = one(FusionBaseline(CATALOG, 0, {"learned": learned, "crowd": crowd}, fusion), ask(None, history=()))
    assert ranking.item_ids[:3] == ["1", "2", "3"]
    gave = [each.parts["learned"] for each in ranking.items]
    assert gave[0] - gave[1] > 0.05
    assert ranking.items[0].scores["learned"] == pytest.approx(0.3)
    assert min(each.scores["learned"] for each in ranking.items) == pytest.approx(-0.9), "a fit sees what the sum saw"


def test_a_baseline_closes_its_retrievers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that were built before one that is wrong."""
    built: list[FakeModel] = []

    def build(name: str, section: Mapping[str, Any], *arguments: Any, **more: Any) -> FakeModel:
        built.append(fake_retrievers.load_model(section["path"]))
        return built[-1]

    monkeypatch.setattr(retriever_kinds, "build_retriever", build)
    crowd = counting(tmp_path, {})
    baseline("item-knn", path=crowd["path"]).close()
    baseline("fusion", retrievers={"crowd": crowd}).close()
    with pytest.raises(ConfigError):
        baseline("fusion", retrievers={"crowd": crowd, "wrong": 3})
    assert [each.closed for each in built] == [1, 1, 1]


@pytest.mark.parametrize(
    ("section", "field", "message"),
    [
        ({"baseline": "popularty"}, "rankers.x.baseline", "did you mean 'popularity'?"),
        ({"baseline": None}, "rankers.x.baseline", "use one of: random, popularity, embedding, given"),
        ({"baseline": "random", "sed": 3}, "rankers.x.sed", "known: baseline"),
        ({"baseline": "embedding", "decai": 0.5}, "rankers.x.decai", "did you mean 'decay'?"),
        ({"baseline": "embedding", "keep": "5"}, "rankers.x.keep", "integer"),
        ({"baseline": "embedding", "keep": 5000}, "rankers.x.keep", "at most 1000"),
        ({"baseline": "embedding", "fields": ["titel"]}, "prefilter.fields", "titel"),
        ({"baseline": "embedding", "embedder": "wordllama"}, "rankers.x.embedder", "mapping"),
        ({"baseline": "popularity"}, "rankers.x.baseline", "name `interactions`"),
        ({"baseline": "item-kn"}, "rankers.x.baseline", "did you mean 'item-knn'?"),
        ({"baseline": "item-knn"}, "rankers.x", "name `interactions`"),
        ({"baseline": "item-knn", "neighbors": 3}, "rankers.x.neighbors", "did you mean 'neighbours'?"),
        ({"baseline": "item-knn", "neighbours": 0}, "rankers.x.neighbours", "at least 1"),
        ({"baseline": "popularity", "half_life": 3}, "rankers.x.half_life", "did you mean 'half_life_days'?"),
        ({"baseline": "fusion"}, "rankers.x.retrievers", "write retrievers"),
        ({"baseline": "fusion", "retriever": {}}, "rankers.x.retriever", "did you mean 'retrievers'?"),
        ({"baseline": "fusion", "retrievers": {"text": 3}}, "rankers.x.retrievers.text", "mapping"),
        (
            {"baseline": "fusion", "retrievers": {"text": {"kind": "embedding"}}, "fusion": {"txt": 1}},
            "rankers.x.fusion.txt",
            "did you mean 'text'?",
        ),
    ],
)
def test_a_mistake_in_the_section_is_named(section: dict[str, Any], field: str, message: str) -> None:
    """Key, value and fix; popularity without interactions says what is missing."""
    with pytest.raises(ConfigError) as caught:
        build_baseline(section, catalog=CATALOG, popularity=None, seed=0, where="rankers.x")
    if field != "prefilter.fields":
        assert caught.value.field == field
    assert message in str(caught.value)


def test_the_embedder_of_the_section_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own section goes to `build_embedder`, whose errors pass."""
    monkeypatch.setattr("llmrank.evaluation.running.baselines.build_embedder", config.build_embedder)
    with pytest.raises(ConfigError, match="wordlama"):
        baseline("embedding", embedder={"kind": "wordlama"})


@pytest.mark.parametrize("candidates", [None, IDS])
def test_half_a_surrogate_pair_in_a_user_id_is_no_traceback(candidates: list[str] | None) -> None:
    """JSON may hold it."""
    assert sorted(one(baseline("random"), ask(candidates, user="\ud800")).item_ids) == [
        each for each in IDS if each != "6" or candidates
    ]


@given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 2.0]), max_size=len(TITLES)))
def test_equals_alone_stand_by_chance(scores: list[float]) -> None:
    """The same order as that of score and chance of every item, which would ask for a digest of each."""
    built = baseline("random")
    items = CATALOG.items[: len(scores)]
    asked = ResolvedRequest((), items, user_id="u")
    slow = sorted(range(len(scores)), key=lambda at: (-scores[at], built.chance(asked, items[at])))
    assert best_first(built, asked, items, scores) == slow
