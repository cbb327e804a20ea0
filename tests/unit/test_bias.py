"""Position bias and order stability: examples by hand, and Kendall's tau against scipy."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmrank.errors import DatasetError, ServerError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.bias import PositionBias, Stability, kendall_tau, position_bins
from llmrank.evaluation.measures.estimate import Estimator
from llmrank.evaluation.measures.outcomes import Outcome
from llmrank.evaluation.records import full_record
from llmrank.types import Ranking
from tests.unit.small_run import ranking

ESTIMATOR = Estimator(resamples=200)
CASE = Case("u", (), tuple("abcd"), ("b",))


def outcome(number: int, case: Case, made: Ranking, value: float = 0.5) -> Outcome:
    return Outcome(number, case, full_record(made, trace=False), made.item_ids, {"ndcg@10": value})


def bias(outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    found = PositionBias("ndcg@10")
    for row, each in enumerate(outcomes):
        found.add(row, each)
    return found.result(np.arange(len(outcomes)), ESTIMATOR)


def stability(outcomes: Sequence[Outcome], again: Sequence[tuple[int, Ranking]], k: int | None = None) -> dict[str, Any] | None:
    records = [{"case": number, "shuffle": 1, **full_record(made, trace=False)} for number, made in again]
    found = Stability(records, k)
    for row, each in enumerate(outcomes):
        found.add(row, each)
    return found.result(np.arange(len(outcomes)), ESTIMATOR)


@given(st.permutations(range(30)), st.sets(st.integers(0, 29), min_size=2))
def test_tau_agrees_with_scipy(order: list[int], kept: set[int]) -> None:
    """Any two orders; items that only one of them has do not count."""
    first, second = [str(n) for n in range(30) if n in kept or n % 3], [str(n) for n in order if n in kept]
    common = [item for item in second if item in first]
    if len(common) < 2:
        assert np.isnan(kendall_tau(first, second))
        return
    expected = stats.kendalltau([first.index(item) for item in common], range(len(common))).statistic
    assert kendall_tau(first, second) == pytest.approx(expected)
    assert kendall_tau(second, first) == pytest.approx(expected)


def test_tau_by_hand() -> None:
    """The same, reversed, one of three pairs swapped, and too few items to have an order."""
    assert kendall_tau("abc", "abc") == 1.0
    assert kendall_tau("abc", "cba") == -1.0
    assert kendall_tau("abc", "acb") == pytest.approx(1 / 3)
    assert np.isnan(kendall_tau("abc", "a"))
    assert np.isnan(kendall_tau("ab", "cd"))


def test_a_ranker_that_copies_the_order_has_a_tau_of_one() -> None:
    """And the reverse is -1; a random one is near 0, with 0 inside its interval."""
    copies = [outcome(n, CASE, ranking(CASE, "abcd")) for n in range(5)]
    found = bias(copies)
    assert found is not None
    assert found["cases"] == 5
    assert found["tau"] == 1.0
    assert found["ci"] == [1.0, 1.0]
    assert found["as_given"] == 1.0
    turned = bias([outcome(0, CASE, ranking(CASE, "dcba"))])
    assert turned is not None
    assert turned["tau"] == -1.0
    assert turned["ci"] is None  # one user has no interval
    generator = random.Random(0)  # noqa: S311  # made-up data
    lucky = bias([outcome(n, CASE, ranking(CASE, generator.sample("abcd", 4))) for n in range(300)])
    assert lucky is not None
    assert lucky["ci"][0] < 0 < lucky["ci"][1]
    assert lucky["ci"][1] - lucky["ci"][0] < 0.3


def test_items_that_were_filled_in_prove_nothing() -> None:
    """The model put d before c; a and b follow in the order shown, which is ours. Without an answer nothing is the model's."""
    partial = outcome(0, CASE, ranking(CASE, "dcab", "partial", by_model=2))
    assert (bias([partial]) or {})["tau"] == -1.0
    failed = [
        outcome(1, CASE, ranking(CASE, "abcd", "fallback")),
        outcome(2, CASE, ranking(CASE, "abcd", "error", error=ServerError("502"))),
    ]
    found = bias([partial, *failed])
    assert found is not None
    assert (found["cases"], found["tau"]) == (1, -1.0)
    assert bias(failed) is None


def test_the_primary_measure_by_the_place_of_what_is_relevant() -> None:
    """Cases with one relevant item that was shown; those with two or none have no place, but a tau."""
    cases = [
        Case("1", (), tuple("abcd"), ("a",)),
        Case("2", (), tuple("abcd"), ("d",)),
        Case("3", (), tuple("abcd"), ("a", "d")),
        Case("4", (), tuple("abcd"), ("z",)),
    ]
    found = bias([outcome(n, case, ranking(case, "abcd"), value=n) for n, case in enumerate(cases)])
    assert found is not None
    assert found["cases"] == 4
    assert found["by_position"] == [
        {"from": 1, "to": 1, "cases": 1, "ndcg@10": 0.0, "ci": None},
        {"from": 4, "to": 4, "cases": 1, "ndcg@10": 1.0, "ci": None},
    ]


def test_the_order_of_a_prefilter_is_told_apart() -> None:
    """A list shown as the case has it, perhaps shortened, is as given; one that a prefilter sorted is not."""
    made = [
        ranking(CASE, "abcd"),
        ranking(CASE, "bd", shown="bd"),
        ranking(CASE, "dcba", shown="dcba"),
        ranking(CASE, "abcd", shown="acbd"),
    ]
    found = bias([outcome(n, CASE, each) for n, each in enumerate(made)])
    assert found is not None
    assert found["as_given"] == 0.5
    whole = Case("u", (), None, ("b",))
    assert (bias([outcome(0, whole, ranking(whole, "ab", shown="ab"))]) or {})["as_given"] == 0.0


@given(st.integers(0, 300), st.integers(1, 9))
def test_bins_cover_all_places_once(length: int, lists: int) -> None:
    """4 or 5 of about one length, if there are so many places."""
    bins = [(first, last) for first, last in position_bins([length] * lists) if last is not None]
    assert [place for first, last in bins for place in range(first, last + 1)] == list(range(1, length + 1))
    assert len(bins) == min(length, 4 if length % 4 == 0 else 5)
    sizes = [last - first + 1 for first, last in bins]
    assert not sizes or max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20))
def test_every_place_of_every_list_lies_in_a_bin(lengths: list[int]) -> None:
    """Unless most lists are empty; the bins join on, and are for half of the lists, or more, too many or just right."""
    bins = position_bins(lengths)
    if not bins:
        assert sorted(lengths)[(len(lengths) - 1) // 2] == 0
        return
    assert bins[0][0] == 1
    assert [first for first, _ in bins[1:]] == [last + 1 for _, last in bins[:-1] if last is not None]
    last = bins[-1][1]
    assert last is None or last == max(lengths)
    assert 2 * sum(length >= bins[-1][0] for length in lengths) >= len(lengths)


def test_twenty_places_are_four_bins_of_five() -> None:
    """What the usual protocol gives."""
    assert position_bins([20]) == [(1, 5), (6, 10), (11, 15), (16, 20)]


def test_one_long_list_does_not_put_all_others_into_one_bin() -> None:
    """The usual length is what is divided; what stands beyond it falls into the last bin, which has no end."""
    assert position_bins([20, 1000, 20]) == [(1, 5), (6, 10), (11, 15), (16, None)]
    long = Case("long", (), tuple(map(str, range(40))), ("39",))
    cases = [CASE, long, CASE]
    found = bias([outcome(n, case, ranking(case, case.candidates or ())) for n, case in enumerate(cases)])
    assert [(each["from"], each["to"], each["cases"]) for each in (found or {})["by_position"]] == [(2, 2, 2), (4, None, 1)]


def test_stability_compares_all_orders_of_a_case() -> None:
    """Orders abcd, abcd, dcba of one case: taus 1, -1, -1. Two of another are the same. Cases not asked again say nothing."""
    outcomes = [outcome(n, CASE, ranking(CASE, order)) for n, order in enumerate(["abcd", "dcba", "abcd"])]
    again = [(0, ranking(CASE, "abcd")), (0, ranking(CASE, "dcba")), (2, ranking(CASE, "abcd"))]
    found = stability(outcomes, again, k=2)
    assert found is not None
    assert (found["cases"], found["shuffles"], found["failed"]) == (2, 2, 0)
    assert found["kendall_tau"] == pytest.approx((-1 / 3 + 1) / 2)
    assert found["top1_same"] == pytest.approx((1 / 3 + 1) / 2)
    assert (found["overlap_at"], found["overlap"]) == (2, pytest.approx((1 / 3 + 1) / 2))
    for name in ("ci", "top1_ci", "overlap_ci"):
        low, high = found[name]
        assert low <= high
    assert stability(outcomes, []) is None


def test_answers_that_could_not_be_read_are_no_orders() -> None:
    """They are counted; with one order left there is nothing to compare, and no number is made up."""
    outcomes = [outcome(0, CASE, ranking(CASE, "abcd"))]
    failed = [ranking(CASE, "dcba", "fallback"), ranking(CASE, "", "error", error=ServerError("502"))]
    found = stability(outcomes, [(0, each) for each in failed])
    assert found is not None
    assert (found["cases"], found["failed"], found["kendall_tau"], found["ci"]) == (1, 2, None, None)


def test_shuffled_results_out_of_order_are_refused() -> None:
    """They are read beside the results, one case after the other; a case that never comes would end it silently."""
    outcomes = [outcome(n, CASE, ranking(CASE, "abcd")) for n in (0, 2)]
    with pytest.raises(DatasetError, match="out of order"):
        stability(outcomes, [(1, ranking(CASE, "abcd"))])
