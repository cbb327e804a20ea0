"""Measures under a random order: against all orders, listed and scored one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest

from llmrank.errors import ConfigError
from llmrank.evaluation.measures.metrics import expected_ndcg_at, hit_rate_at, map_at, mrr_at, ndcg_at, precision_at, recall_at
from llmrank.evaluation.measures.random_order import random_order, random_order_sd
from llmrank.evaluation.measures.statistics import minimum_detectable_effect, paired_sd

MEASURES: dict[str, Callable[..., float]] = {
    "ndcg": ndcg_at,
    "hit": hit_rate_at,
    "recall": recall_at,
    "precision": precision_at,
    "mrr": mrr_at,
    "map": map_at,
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("k", [None, 1, 3, 10])
@pytest.mark.parametrize(("candidates", "relevant"), [(1, 1), (6, 1), (6, 3), (5, 5), (7, 2)])
def test_moments_are_those_of_all_orders(name: str, k: int | None, candidates: int, relevant: int) -> None:
    """Mean and deviation over all orders of the candidates (only where the relevant ones stand matters)."""
    values = []
    for places in itertools.combinations(range(candidates), relevant):
        ranking = [str(place) for place in range(candidates)]
        values.append(MEASURES[name](ranking, [str(place) for place in places], k))
    found = random_order(name if k is None else f"{name}@{k}", candidates, relevant)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values), abs=1e-7)


def test_the_known_mean_of_ndcg() -> None:
    """One relevant item of 20: the mean is that of `metrics.expected_ndcg_at`, 0.227."""
    assert random_order("ndcg@10", 20).mean == pytest.approx(expected_ndcg_at(20, 10))


def test_two_hundred_users_find_a_twentieth() -> None:
    """200 users, 20 candidates, correlation 0.5: differences of NDCG@10 below about 0.05 cannot be found."""
    assert minimum_detectable_effect(paired_sd(random_order_sd("ndcg@10", 20)), 200) == pytest.approx(0.054, abs=0.001)


def test_long_lists_take_no_listing() -> None:
    """100 relevant of 10,000 candidates: the share of them among the first 1,000 is hypergeometric."""
    found = random_order("recall@1000", 10_000, 100)
    variance = 100 * 0.1 * 0.9 * (9_900 / 9_999) / 100**2
    assert found.mean == pytest.approx(0.1)
    assert found.sd == pytest.approx(math.sqrt(variance), rel=1e-6)


@pytest.mark.parametrize(
    ("measure", "candidates", "relevant", "words"),
    [
        ("coverage@10", 20, 1, "measure: no measure of relevance"),
        ("ndcg@ten", 20, 1, "metrics: no number of places"),
        ("ndcg@10", 20, 0, "relevant: must fit the 20 candidates"),
        ("ndcg@10", 20, 21, "relevant: must fit the 20 candidates"),
    ],
)
def test_bad_arguments_are_named(measure: str, candidates: int, relevant: int, words: str) -> None:
    """A measure without such moments, or numbers that do not fit, are refused by name."""
    with pytest.raises(ConfigError, match=f"^{words}"):
        random_order(measure, candidates, relevant)
