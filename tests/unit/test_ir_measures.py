"""The metrics against ir_measures (trec_eval and MS MARCO's script), to 1e-9, on random runs."""

from __future__ import annotations

import random

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Success, nDCG

from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.beyond import Known
from llmrank.evaluation.measures.measure import Measure, parse_measure

CUTS = (1, 2, 3, 5, 10, 20, 100)
PAIRS = {
    **{f"ndcg@{k}": nDCG @ k for k in CUTS},
    **{f"hit@{k}": Success @ k for k in CUTS},
    **{f"recall@{k}": R @ k for k in CUTS},
    **{f"precision@{k}": P @ k for k in CUTS},
    **{f"mrr@{k}": RR @ k for k in CUTS},
    **{f"map@{k}": AP @ k for k in CUTS},
    "ndcg": nDCG,
    "mrr": RR,
    "map": AP,
}
"""Our names and theirs."""


def theirs(rankings: dict[str, list[str]], relevant: dict[str, list[str]]) -> dict[tuple[str, str], float]:
    """Value by case and our name. Scores fall strictly: ir_measures breaks ties by id, and an order has none."""
    runs = {case: {item: float(-place) for place, item in enumerate(ranking)} for case, ranking in rankings.items()}
    qrels = {case: dict.fromkeys(items, 1) for case, items in relevant.items()}
    names = {theirs: ours for ours, theirs in PAIRS.items()}
    return {(each.query_id, names[each.measure]): each.value for each in ir_measures.iter_calc(list(names), qrels, runs)}


def check(rankings: dict[str, list[str]], relevant: dict[str, list[str]]) -> None:
    """Every case and every measure."""
    expected = theirs(rankings, relevant)
    assert len(expected) == len(rankings) * len(PAIRS)
    measures: list[Measure] = [parse_measure(name) for name in PAIRS]
    for case, ranking in rankings.items():
        question = Case(case, (), None, tuple(relevant[case]))
        for measure in measures:
            value = measure.scorer(Known(0))(ranking, question)
            assert value == pytest.approx(expected[case, measure.name], abs=1e-9), (measure.name, ranking, relevant[case])


def test_a_large_random_run_agrees() -> None:
    """500 cases: lists of 1 to 60 items, 1 to 12 relevant ones of which some were never ranked."""
    generator = random.Random(0)  # noqa: S311  # made-up data
    rankings, relevant = {}, {}
    for number in range(500):
        ids = [f"item {n}" for n in generator.sample(range(1000), 60)]
        rankings[f"case {number}"] = ids[: generator.randint(1, 60)]
        relevant[f"case {number}"] = generator.sample(ids, generator.randint(1, 12))
    check(rankings, relevant)


@given(
    st.permutations([f"d{n}" for n in range(12)]),
    st.integers(1, 12),
    st.sets(st.sampled_from([f"d{n}" for n in range(14)]), min_size=1),
)
def test_any_small_run_agrees(order: list[str], length: int, relevant: set[str]) -> None:
    """Any order, cut anywhere, any relevant items, two of which are never ranked."""
    check({"q": order[:length]}, {"q": sorted(relevant)})
