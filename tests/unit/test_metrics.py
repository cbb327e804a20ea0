"""The metrics: examples that a person can check, and agreement with definitions written in another way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.evaluation.measures.metrics import expected_ndcg_at, hit_rate_at, map_at, mrr_at, ndcg_at, precision_at, recall_at

RANKING = ["a", "b", "c", "d", "e"]


def test_ndcg_of_one_relevant_item_is_its_discount() -> None:
    """Place 1 gives 1, place 3 gives 1 / log2(4) = 0.5, beyond k gives 0."""
    assert ndcg_at(RANKING, ["a"], 5) == 1.0
    assert ndcg_at(RANKING, ["c"], 5) == 0.5
    assert ndcg_at(RANKING, ["c"], 2) == 0.0


def test_ndcg_of_two_relevant_items() -> None:
    """At places 2 and 4: (1/log2 3 + 1/log2 5) / (1 + 1/log2 3)."""
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg_at(RANKING, ["b", "d"], 5) == pytest.approx(expected)
    assert ndcg_at(RANKING, ["b", "d"]) == pytest.approx(expected)


def test_the_best_possible_order_within_k_gives_one() -> None:
    """Three relevant items and k = 2: two hits are all that fit."""
    assert ndcg_at(RANKING, ["a", "b", "c"], 2) == 1.0


def test_hits_recall_precision_and_reciprocal_rank() -> None:
    """B and d are relevant: one of two within the first three, at place 2."""
    relevant = ["b", "d"]
    assert hit_rate_at(RANKING, relevant, 1) == 0.0
    assert hit_rate_at(RANKING, relevant, 3) == 1.0
    assert recall_at(RANKING, relevant, 3) == 0.5
    assert precision_at(RANKING, relevant, 3) == pytest.approx(1 / 3)
    assert precision_at(RANKING, relevant, 10) == pytest.approx(2 / 10)
    assert mrr_at(RANKING, relevant, 3) == 0.5
    assert mrr_at(RANKING, relevant, 1) == 0.0


def test_average_precision() -> None:
    """Hits at 2 (precision 1/2) and 4 (2/4): their mean is 0.5; a third relevant item that is not ranked counts as 0."""
    assert map_at(RANKING, ["b", "d"]) == pytest.approx(0.5)
    assert map_at(RANKING, ["b", "d", "z"]) == pytest.approx(1 / 3)
    assert map_at(RANKING, ["b", "d"], 2) == pytest.approx(0.25)


@pytest.mark.parametrize("metric", [ndcg_at, hit_rate_at, recall_at, precision_at, mrr_at, map_at])
def test_nothing_ranked_or_nothing_relevant_gives_zero(metric: Callable[..., float]) -> None:
    """Never an exception, except for a k that makes no sense."""
    assert metric([], ["a"], 5) == 0.0
    assert metric(RANKING, [], 5) == 0.0
    assert metric([], []) == 0.0
    with pytest.raises(ValueError, match="k counts places"):
        metric(RANKING, ["a"], 0)


def test_an_item_that_stands_twice_counts_once() -> None:
    """A ranking with a duplicate cannot gain more than one without."""
    assert recall_at(["a", "a"], ["a", "b"]) == 0.5
    assert ndcg_at(["a", "a"], ["a"]) == 1.0
    assert recall_at(["a"], ["a", "a"]) == 1.0


def test_the_expected_ndcg_of_chance_is_the_mean_over_all_places() -> None:
    """Checked against all orders of 4 items with one relevant."""
    orders = list(itertools.permutations("abcd"))
    for k in (1, 2, 4, 10):
        mean = sum(ndcg_at(order, ["a"], k) for order in orders) / len(orders)
        assert expected_ndcg_at(4, k) == pytest.approx(mean)


def brute_force(ranking: list[str], relevant: set[str], k: int) -> dict[str, float]:
    """The same metrics from vectors of 0 and 1, as textbooks write them."""
    gains = [1.0 if item in relevant else 0.0 for item in ranking] + [0.0] * k
    top = gains[:k]
    discounts = [1 / math.log2(i + 2) for i in range(k)]
    ideal = sorted([1.0] * len(relevant) + [0.0] * k, reverse=True)[:k]
    hits_by = [sum(gains[: i + 1]) for i in range(k)]
    return {
        "ndcg": sum(g * d for g, d in zip(top, discounts, strict=True))
        / sum(g * d for g, d in zip(ideal, discounts, strict=True)),
        "hit": float(any(top)),
        "recall": sum(top) / len(relevant),
        "precision": sum(top) / k,
        "mrr": next((1 / (i + 1) for i, gain in enumerate(top) if gain), 0.0),
        "map": sum(top[i] * hits_by[i] / (i + 1) for i in range(k)) / len(relevant),
    }


ITEMS = [str(number) for number in range(12)]


@given(
    ranking=st.permutations(ITEMS).flatmap(lambda order: st.integers(0, 12).map(lambda n: list(order[:n]))),
    relevant=st.sets(st.sampled_from(ITEMS), min_size=1),
    k=st.integers(1, 15),
)
def test_all_agree_with_a_second_implementation(ranking: list[str], relevant: set[str], k: int) -> None:
    """Any ranking, any relevant set, any k; and every value lies between 0 and 1."""
    ours = {
        "ndcg": ndcg_at(ranking, relevant, k),
        "hit": hit_rate_at(ranking, relevant, k),
        "recall": recall_at(ranking, relevant, k),
        "precision": precision_at(ranking, relevant, k),
        "mrr": mrr_at(ranking, relevant, k),
        "map": map_at(ranking, relevant, k),
    }
    assert ours == pytest.approx(brute_force(ranking, relevant, k))
    assert all(0.0 <= value <= 1.0 + 1e-12 for value in ours.values())
