"""Fusion: whose scores count how much in the final order."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import ConfigError, UnreachableError
from llmrank.fusion import Fused, Fusion, z_scores
from llmrank.types import Item, RankedItem, Ranking

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCORES = st.integers(0, 25).flatmap(
    lambda count: st.tuples(st.lists(FINITE, min_size=count, max_size=count), st.lists(FINITE, min_size=count, max_size=count))
)


def positions(fused: tuple[Fused, ...]) -> list[int]:
    """Where each stood in the model's order."""
    return [one.position for one in fused]


@given(SCORES, st.floats(0.01, 100), st.floats(-100, 100))
def test_a_permutation_comes_out_sorted_by_the_sum_of_its_parts(
    scores: tuple[list[float], list[float]], llm: float, prefilter: float
) -> None:
    """Whatever the scores and weights: each candidate once, best sum first, and its parts add up to its score."""
    count = len(scores[0])
    fused = Fusion({"llm": llm, "prefilter": prefilter}).fuse({"llm": scores[0], "prefilter": scores[1]}, count, 0)
    assert sorted(positions(fused)) == list(range(count))
    assert all(one.score == pytest.approx(sum(one.parts.values())) for one in fused)
    if prefilter:
        assert [(-one.score, one.position) for one in fused] == sorted((-one.score, one.position) for one in fused)


@given(SCORES, st.floats(0.01, 100))
def test_weight_on_the_model_alone_leaves_its_order(scores: tuple[list[float], list[float]], weight: float) -> None:
    """Whether or not the model gave scores, and whatever they are, its order is its order."""
    count = len(scores[0])
    for own in (scores[0], None):
        fused = Fusion({"llm": weight, "prefilter": 0}).fuse({"llm": own, "prefilter": scores[1]}, count, 0)
        assert positions(fused) == list(range(count))


@given(SCORES)
def test_weight_on_another_part_alone_gives_its_order(scores: tuple[list[float], list[float]]) -> None:
    """The prefilter's own order, where normalisation does not make close scores equal; ties by the model's order."""
    fused = positions(Fusion({"prefilter": 2.0}).fuse({"llm": None, "prefilter": scores[1]}, len(scores[1]), 0))
    normal = z_scores(scores[1])
    assert fused == sorted(range(len(normal)), key=lambda at: (-normal[at], at))
    assert [scores[1][at] for at in fused] == pytest.approx(sorted(scores[1], reverse=True), rel=1e-6, abs=1e308 * 1e-9)


@given(st.lists(FINITE, max_size=25))
def test_z_scores_have_mean_0_and_deviation_1_and_keep_the_order(values: list[float]) -> None:
    """For any finite values, however large, small or close; equal values give zeros."""
    normal = z_scores(values)
    if len(set(values)) <= 1:
        assert normal == [0.0] * len(values)
        return
    assert statistics.fmean(normal) == pytest.approx(0, abs=1e-9)
    assert statistics.pstdev(normal) == pytest.approx(1)
    assert all(first <= second for _, first, second in pairs(values, normal))


def pairs(values: list[float], normal: list[float]) -> list[tuple[float, float, float]]:
    """Normalised neighbours in the order of the values."""
    order = sorted(range(len(values)), key=lambda at: values[at])
    return [(values[a], normal[a], normal[b]) for a, b in itertools.pairwise(order)]


def test_by_hand() -> None:
    """Three candidates: the model's places give +1.22, 0, -1.22; the prefilter prefers the last by as much, weighted double."""
    fused = Fusion({"llm": 1.0, "prefilter": 2.0}).fuse({"llm": None, "prefilter": [0.1, 0.2, 0.3]}, 3, 0)
    unit = math.sqrt(1.5)
    assert positions(fused) == [2, 1, 0]
    assert fused[0].parts == pytest.approx({"llm": -unit, "prefilter": 2 * unit})
    assert [one.score for one in fused] == pytest.approx([unit, 0.0, -unit])


def test_a_part_without_differences_decides_nothing() -> None:
    """Where the prefilter had nothing to compare with (all zeros) the model's order stands, whatever the weights."""
    fused = Fusion({"llm": 0.1, "prefilter": 50}).fuse({"llm": None, "prefilter": [0.0] * 4}, 4, 0)
    assert positions(fused) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"lmm": 1.0}, "fusion: there is no such part .*did you mean 'llm'"),
        ({}, "no part has a weight above 0"),
        ({"llm": 0, "prefilter": 0.0}, "no part has a weight above 0"),
        ({"llm": -1.0}, "no part has a weight above 0"),
        ({"llm": math.nan}, "fusion.llm: must be a finite number"),
        ({"llm": "1"}, "fusion.llm: must be a finite number"),
        ({"llm": True}, "fusion.llm: must be a finite number"),
        ({"llm": 1, "prefilter": math.inf}, "fusion.prefilter: must be a finite number"),
    ],
)
def test_bad_weights_are_refused(weights: dict[str, float], message: str) -> None:
    """When the Fusion is made, naming the key and what would be right."""
    with pytest.raises(ConfigError, match=message):
        Fusion(weights)


def test_scores_that_are_lacking_or_broken_are_refused() -> None:
    """A weighted part without scores, or with too few, or with NaN, is never taken for zeros."""
    fusion = Fusion({"llm": 1, "prefilter": 1})
    assert fusion.needs == {"prefilter"}
    with pytest.raises(ConfigError, match="nothing gives its scores"):
        fusion.fuse({"llm": None}, 2, 0)
    with pytest.raises(ValueError, match="1 scores for 2"):
        fusion.fuse({"llm": None, "prefilter": [1.0]}, 2, 0)
    with pytest.raises(ValueError, match="not a number"):
        fusion.fuse({"llm": None, "prefilter": [1.0, math.nan]}, 2, 0)


def ranking(*items: tuple[str, float | None, bool]) -> Ranking:
    """A ranking of (id, score, whether the model ranked it)."""
    return Ranking(
        tuple(
            RankedItem(Item(name, name), rank, score, "model" if by_model else "fallback")
            for rank, (name, score, by_model) in enumerate(items, start=1)
        )
    )


def test_a_ranking_is_reordered_with_its_parts() -> None:
    """Ranks count anew from 1; each item tells what each part gave; all else stays."""
    before = ranking(("a", 3.0, True), ("b", 2.9, True), ("c", -4.0, True))
    after = Fusion({"llm": 1, "prefilter": 1}).apply(before, {"prefilter": [0.1, 0.9, 0.2]}, 0)
    assert after.item_ids == ["b", "a", "c"]
    assert [item.rank for item in after.items] == [1, 2, 3]
    assert set(after.items[0].parts) == {"llm", "prefilter"}
    assert after.items[0].score == pytest.approx(sum(after.items[0].parts.values()))
    assert after.status == before.status


def test_items_that_the_model_did_not_rank_share_its_lowest_score() -> None:
    """Their places come from the prefilter, and must not count as the model's word."""
    before = ranking(("a", None, True), ("b", None, True), ("c", None, False), ("d", None, False))
    after = Fusion({"llm": 1, "prefilter": 0.01}).apply(before, {"prefilter": [0.0, 0.0, 0.0, 1.0]}, 0)
    given_by_model = {item.id: item.parts["llm"] for item in after.items}
    assert given_by_model["b"] == given_by_model["c"] == given_by_model["d"] < given_by_model["a"]
    assert after.item_ids == ["a", "d", "b", "c"]


def test_items_left_out_of_an_answer_are_no_better_than_the_last_in_it() -> None:
    """Behind all ranked items, and no prompt failed: the model saw them and did not name them."""
    before = ranking(("a", -1.0, True), ("b", -3.0, True), ("c", None, False))
    parts = {item.id: item.parts["llm"] for item in Fusion({"llm": 1}).apply(before, {}, 0).items}
    assert parts["c"] == parts["b"] < parts["a"]


def test_places_that_the_model_was_not_asked_to_order_share_one_score() -> None:
    """Behind `depth` the model's part is the mean of the linear scores of those places, and the prefilter orders them."""
    before = replace(ranking(*((name, None, True) for name in "abcde")), depth=2)
    after = Fusion({"llm": 1, "prefilter": 0.01}).apply(before, {"prefilter": [0.5, 0.5, 0.1, 0.2, 0.9]}, 0)
    assert after.item_ids == ["a", "b", "e", "d", "c"]
    parts = {item.id: item.parts["llm"] for item in after.items}
    deviation = math.sqrt((4 + 1 + 3) / 5)  # of 5, 4, 2, 2, 2, whose mean is 3
    assert parts == pytest.approx({"a": 2 / deviation, "b": 1 / deviation, **dict.fromkeys("cde", -1 / deviation)})
    assert after.depth is None  # the places are not the model's any more


def test_items_behind_the_depth_count_by_the_models_scores_if_it_gave_any() -> None:
    """Scores (of an aggregate, say) tell more than places do."""
    before = ranking(("a", 3.0, True), ("b", 2.0, True), ("c", 1.0, True))
    fusion = Fusion({"llm": 1, "prefilter": 1})
    tied = {"prefilter": [0.0] * 3}
    assert fusion.apply(replace(before, depth=1), tied, 0).items == fusion.apply(before, tied, 0).items


def test_of_items_whose_window_could_not_be_read_nothing_is_known() -> None:
    """They kept their places, ahead of ranked ones: the model's part is 0 for them, and they do not fall behind its last."""
    before = ranking(("a", None, False), ("b", None, False), ("c", None, True), ("d", None, True), ("e", None, True))
    after = Fusion({"llm": 1, "prefilter": 0.01}).apply(before, {"prefilter": [0.9, 0.8, 0.1, 0.1, 0.1]}, 0)
    parts = {item.id: item.parts["llm"] for item in after.items}
    assert parts["a"] == parts["b"] == pytest.approx(0)
    assert after.item_ids == ["c", "a", "b", "d", "e"]


def test_where_a_prompt_failed_nothing_is_known_of_what_is_not_ranked() -> None:
    """The failed window may be the last one of the list, whose items stand behind the ranked ones anyway."""
    before = replace(ranking(("a", None, True), ("b", None, True), ("c", None, False)), error=UnreachableError("gone"))
    after = Fusion({"llm": 1, "prefilter": 0.01}).apply(before, {"prefilter": [0.1, 0.1, 0.9]}, 0)
    assert after.items[1].id == "c"
    assert after.items[1].parts["llm"] == pytest.approx(0)


def test_an_answer_that_ranked_nothing_has_no_weight() -> None:
    """Status fallback or error: the prefilter's scores alone decide, although the model weighs a hundred times more."""
    before = ranking(("a", None, False), ("b", None, False))
    after = Fusion({"llm": 100, "prefilter": 1}).apply(before, {"prefilter": [0.1, 0.2]}, 0)
    assert after.item_ids == ["b", "a"]
    assert [item.parts["llm"] for item in after.items] == [0.0, 0.0]
