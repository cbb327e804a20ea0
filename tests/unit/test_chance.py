"""What a random order reaches, against all orders, listed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.beyond import Known
from llmrank.evaluation.measures.chance import chance, expected_value
from llmrank.evaluation.measures.measure import FAMILIES, Measure, parse_measure

RELEVANCE = sorted(name for name, family in FAMILIES.items() if family.about == "relevance")


@settings(max_examples=60)
@given(
    st.sampled_from(RELEVANCE),
    st.none() | st.integers(1, 8),
    st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    st.integers(0, 3),
)
def test_it_is_the_mean_over_all_orders(family: str, k: int | None, size: tuple[int, int], beyond: int) -> None:
    """Any measure of relevance and any k, also when some relevant items, or all of them, are no candidates."""
    candidates, found = size
    relevant = [*range(found), *range(100, 100 + beyond)]
    measure = Measure(family, k)
    case = Case("u", (), None, tuple(map(str, relevant)))
    score = measure.scorer(Known(0))
    orders = list(itertools.permutations([str(n) for n in range(candidates)]))
    mean = sum(score(order, case) for order in orders) / len(orders)
    assert expected_value(measure, candidates, found, found + beyond) == pytest.approx(mean, abs=1e-12)


def case(candidates: str | None, relevant: str) -> Case:
    return Case("u", (), None if candidates is None else tuple(candidates), tuple(relevant))


def test_a_run_of_unequal_cases_has_the_mean_of_theirs() -> None:
    """Hit@1 by chance is 1/2 of two, 1/4 of four and 0 of none. Measures of lists have no row of chance."""
    measures = [parse_measure(name) for name in ("hit@1", "coverage@10", "novelty@10")]
    found = chance(measures, [case("ab", "a"), case("abcd", "c"), case("ab", "z")])
    assert found is not None
    assert list(found) == ["hit@1"]
    assert found["hit@1"] == pytest.approx((1 / 2 + 1 / 4 + 0) / 3)


def test_a_whole_catalogue_has_no_chance_row() -> None:
    """How many items are ranked of it is the ranker's affair; and no case has no mean."""
    measures = [parse_measure("mrr")]
    assert chance(measures, [case("ab", "a"), case(None, "a")]) is None
    assert chance(measures, []) is None
