"""Measures by name, and what lists and runs are like beyond relevance: examples that a person can check."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Catalog, Item
from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.folder import Popularity
from llmrank.evaluation.measures.beyond import Coverage, Gini, ItemVectors, Known, PopularityLift, diversity
from llmrank.evaluation.measures.measure import FAMILIES, Measure, check_measures, parse_measure
from llmrank.retrieval.text import item_text
from llmrank.retrieval.vectors import Progress, Rows, Vectors, normalise
from tests.unit.bag_embedder import BagEmbedder

CHOSEN = Popularity(users=7, counts=Counter({"hit": 7, "known": 3, "rare": 1}))
KNOWN = Known(items=10, popularity=CHOSEN)
CASE = Case("u", ("known", "rare"), None, ("rare",))


def value(name: str, ranking: list[str], known: Known = KNOWN) -> float:
    """A measure of a case."""
    return parse_measure(name).scorer(known)(ranking, CASE)


def run_value(name: str, lists: list[list[str]], known: Known = KNOWN, history: tuple[str, ...] = ()) -> float:
    """A measure of a run of these lists."""
    tally = parse_measure(name).tally(known)
    for shown in lists:
        tally.add(shown, history)
    return tally.value()


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("ndcg@10", Measure("ndcg", 10)),
        ("ndcg", Measure("ndcg")),
        (" NDCG@5 ", Measure("ndcg", 5)),
        ("hr@3", Measure("hit", 3)),
        ("hit_rate", Measure("hit")),
        ("popularity_lift@10", Measure("popularity_lift", 10)),
    ],
)
def test_a_name_is_read(name: str, measure: Measure) -> None:
    """Family, @ and k; case does not matter and `hr` is `hit`. Its own name is read to the same measure."""
    assert parse_measure(name) == measure
    assert parse_measure(measure.name) == measure


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ndgc@10", "did you mean 'ndcg'"),
        ("hitrate", "did you mean 'hit_rate'"),
        ("ndcg@0", "write ndcg@10"),
        ("ndcg@", "write ndcg@10"),
        ("ndcg@-3", "write ndcg@10"),
        ("hr@ten", "write hit@10"),
        ("ndcg@٣", "write ndcg@10"),
        ("coverage", "coverage@10"),
        ("diversity", "diversity@10"),
        ("", "known:"),
        (10, "known:"),
        (None, "known:"),
    ],
)
def test_a_wrong_name_is_refused(name: object, words: str) -> None:
    """One error names the metrics, the value and what might have been meant."""
    with pytest.raises(ConfigError, match="metrics") as caught:
        parse_measure(name)
    assert words in str(caught.value)


@given(st.sampled_from(sorted(FAMILIES)), st.integers(1, 999_999))
def test_every_measure_says_what_it_is(family: str, k: int) -> None:
    """Name and description go with k, and each computes either a case or a run."""
    measure = parse_measure(f"{family}@{k}")
    assert measure.name == f"{family}@{k}"
    assert ("the first item" if k == 1 else f"the first {k} items") in measure.description
    assert "{" not in measure.description
    if measure.per_case:
        measure.scorer(KNOWN)
    else:
        measure.tally(KNOWN)
    with pytest.raises(TypeError, match="is a measure of"):
        measure.tally(KNOWN) if measure.per_case else measure.scorer(KNOWN)


def test_what_a_run_lacks_is_found_before_anything_is_spent() -> None:
    """Each error names the measure and what to add; without it all is well."""
    assert [each.name for each in check_measures(["mrr", "hr@5", "hit@5"], has_popularity=False)] == ["mrr", "hit@5"]
    for name in ("novelty@10", "popularity@10", "popularity_lift@10", "new_items@10"):
        with pytest.raises(ConfigError, match=rf"{name}.*`interactions`"):
            check_measures(["ndcg@10", name], has_popularity=False)
        assert check_measures([name], has_popularity=True)
    with pytest.raises(ConfigError, match=r"diversity@10.*embedder"):
        check_measures(["diversity@10"], has_popularity=True, has_vectors=False)
    assert check_measures(["diversity@10", "coverage@10"], has_popularity=False)


def test_the_primary_measure_has_a_value_for_each_case() -> None:
    """Coverage cannot decide between rankers case by case; those that could are named."""
    assert check_measures(["ndcg@10"], has_popularity=False, primary="ndcg@10")
    with pytest.raises(ConfigError, match=r"primary.*ndcg@10"):
        check_measures(["coverage@10", "ndcg@10"], has_popularity=False, primary="coverage@10")


def test_novelty_is_the_self_information_of_what_is_shown() -> None:
    """Of 7 users 7, 3, 1 and 0 chose the items: 8/8, 8/4, 8/2 and 8/1 are 0, 1, 2 and 3 bits."""
    assert value("novelty@1", ["hit", "rare"]) == 0.0
    assert value("novelty@4", ["hit", "known", "rare", "unseen"]) == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert math.isnan(value("novelty@4", []))


def test_popularity_and_new_items() -> None:
    """Means over what is shown, and over no more than there is."""
    shown = ["hit", "known", "rare", "unseen"]
    assert value("popularity@2", shown) == 5.0
    assert value("popularity@10", shown) == pytest.approx(11 / 4)
    assert value("new_items@4", shown) == 0.25
    assert value("new_items@3", shown) == 0.0
    assert math.isnan(value("popularity@10", []))
    assert math.isnan(value("new_items@10", []))


def test_coverage_counts_an_item_once() -> None:
    """Three different ones of ten; nothing shown is nothing covered."""
    assert run_value("coverage@2", [["a", "b"], ["b", "c"], []]) == pytest.approx(0.3)
    assert run_value("coverage@2", []) == 0.0
    assert math.isnan(Coverage(Known(items=0)).value())


def test_gini_goes_from_equal_to_one_takes_all() -> None:
    """4 items: each once is 0, one always is 1, two of them by turns is 2/3."""
    known = Known(items=4)
    assert run_value("gini@1", [["a"], ["b"], ["c"], ["d"]], known) == pytest.approx(0.0)
    assert run_value("gini@1", [["a"], ["a"], ["a"]], known) == pytest.approx(1.0)
    assert run_value("gini@2", [["a", "b"], ["a", "b"]], known) == pytest.approx(2 / 3)
    assert math.isnan(run_value("gini@1", [], known))
    assert math.isnan(Gini(Known(items=1)).value())


@given(st.lists(st.lists(st.integers(0, 7), max_size=4), min_size=1, max_size=20))
def test_gini_agrees_with_its_definition(lists: list[list[int]]) -> None:
    """It is half the mean difference between two items' counts over the mean count, scaled so that 1 can be reached."""
    items = 8
    counts = np.bincount(np.array([item for shown in lists for item in shown], dtype=np.int64), minlength=items)
    found = run_value("gini@5", [[str(item) for item in shown] for shown in lists], Known(items))
    if not counts.sum():
        assert math.isnan(found)
        return
    mean_difference = np.abs(counts[:, None] - counts[None, :]).sum() / items**2
    assert found == pytest.approx(mean_difference / (2 * counts.mean()) * items / (items - 1))


def test_popularity_lift_is_over_the_users_own_histories() -> None:
    """Histories of mean 2 and lists of mean 5: 1.5 times more popular. A user without a history says nothing."""
    tally = PopularityLift(KNOWN)
    assert math.isnan(tally.value())
    tally.add(["hit", "known"], ("known", "rare"))
    assert tally.value() == pytest.approx(1.5)
    tally.add(["hit"], ())
    tally.add([], ("hit",))
    assert tally.value() == pytest.approx(1.5)
    tally.add(["rare"], ("hit",))
    assert tally.value() == pytest.approx((5 + 1) / (2 + 7) - 1)


WORDS = Catalog([Item("1", "red house"), Item("2", "red boat"), Item("3", "red house"), Item("4", "green tree"), Item("5", "")])


def with_vectors(embedder: BagEmbedder | Table) -> Known:
    """Vectors of the words of titles."""
    return Known(items=5, vectors=ItemVectors(WORDS, embedder))


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    """Two of two words share one: 1/2. Equal titles: 0. No common word: 1. No word at all: 1."""
    known = with_vectors(BagEmbedder())
    assert diversity(["1", "2"], known) == pytest.approx(0.5, abs=1e-6)
    assert diversity(["1", "3"], known) == pytest.approx(0.0, abs=1e-6)
    assert diversity(["1", "4"], known) == pytest.approx(1.0, abs=1e-6)
    assert diversity(["1", "5"], known) == pytest.approx(1.0, abs=1e-6)
    assert diversity(["1", "2", "4"], known) == pytest.approx((0.5 + 1 + 1) / 3, abs=1e-6)
    assert math.isnan(diversity(["1"], known))
    assert value("diversity@2", ["1", "2", "4"], known) == pytest.approx(0.5, abs=1e-6)


def test_an_item_is_embedded_once() -> None:
    """However many lists ask for it."""
    embedder = BagEmbedder()
    known = with_vectors(embedder)
    assert embedder.asked == []
    for _ in range(3):
        diversity(["1", "2", "3"], known)
    assert sorted(embedder.asked) == sorted({item.title for item in WORDS})


class Table(BagEmbedder):
    """Vectors that lie in a table by the items' ids."""

    keyed_by = "id"

    def table(self, keys: Sequence[str], progress: Progress | None = None) -> tuple[Vectors, Rows | None]:
        self.asked += keys
        return normalise(np.eye(len(keys))), None


def test_vectors_may_be_kept_by_id() -> None:
    """Precomputed vectors are asked for by ids, never by texts."""
    table = Table()
    assert diversity(["1", "3"], with_vectors(table)) == pytest.approx(1.0)
    assert table.asked == [item.id for item in WORDS]


def test_an_item_that_the_catalogue_lacks_is_named() -> None:
    """It has no text to embed."""
    with pytest.raises(DatasetError, match="'99'"):
        diversity(["1", "99"], with_vectors(BagEmbedder()))


def test_what_is_not_known_is_never_made_up() -> None:
    """A measure that is asked in spite of `check_measures` says what it lacks."""
    for name, words in (("novelty@3", "interactions"), ("diversity@3", "embedder")):
        with pytest.raises(ConfigError, match=words):
            value(name, ["1", "2"], Known(items=5))


@given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=2, max_size=8))
def test_diversity_agrees_with_all_pairs(rows: list[list[float]]) -> None:
    """Against a loop over pairs of unit vectors, zeros among them."""
    vectors = normalise(np.array(rows))
    catalog = Catalog([Item(str(n), f"t{n}") for n in range(len(rows))])

    class Given(BagEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            place = {item_text(item): at for at, item in enumerate(catalog)}
            return vectors[[place[text] for text in texts]]

    found = ItemVectors(catalog, Given(3)).mean_distance([item.id for item in catalog])
    pairs = [1 - float(a.astype(np.float64) @ b) for at, a in enumerate(vectors) for b in vectors[:at]]
    assert found == pytest.approx(max(0.0, sum(pairs) / len(pairs)), abs=1e-6)
