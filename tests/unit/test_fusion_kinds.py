"""Fusion by its configuration: methods, weights by length of history, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import ConfigError
from llmrank.fusion import Band, Fusion, LinearModel, Method, WeightedSum
from llmrank.fusion.features import FEATURES
from llmrank.fusion.file import FusionFile, read_fusion, write_fusion
from llmrank.fusion.normalise import min_max, ranks, reciprocal_ranks
from llmrank.fusion_kinds import fusion_of

PARTS = ("llm", "prefilter", "crowd")
METHODS: tuple[Method, ...] = ("zscore", "minmax", "rrf")
COUNT = st.integers(1, 12)
SCORE = st.integers(-20, 20).map(float)
"""Whole numbers, so that ties come about and rounding makes none."""

TABLES = COUNT.flatmap(
    lambda count: st.fixed_dictionaries({part: st.lists(SCORE, min_size=count, max_size=count) for part in PARTS})
)
METHOD = st.sampled_from(METHODS)
WEIGHT = st.floats(0.01, 10)


def order(section: dict[str, Any], scores: dict[str, list[float]], history_length: int = 0) -> list[int]:
    """The places of the candidates as the section's fusion orders them."""
    fusion = fusion_of(section, PARTS)
    assert fusion is not None
    return [one.position for one in fusion.fuse(scores, len(scores["llm"]), history_length)]


@given(TABLES, METHOD, st.sampled_from(PARTS[1:]), WEIGHT)
def test_one_part_alone_gives_its_order(scores: dict[str, list[float]], method: Method, part: str, weight: float) -> None:
    """Whatever the method and the weight; equals stand in the model's order."""
    by_part = sorted(range(len(scores[part])), key=lambda at: (-scores[part][at], at))
    assert order({"method": method, part: weight}, scores) == by_part


@given(TABLES, WEIGHT, WEIGHT)
def test_rrf_is_the_formula_of_its_paper(scores: dict[str, list[float]], llm: float, crowd: float) -> None:
    """Against a plain implementation: the sum of w / (60 + rank), where a rank counts who is ahead, and half of its equals."""

    def rank(values: list[float], at: int) -> float:
        ahead = sum(other > values[at] for other in values)
        equal = sum(other == values[at] for other in values)
        return ahead + (1 + equal) / 2

    fused = Fusion({"llm": llm, "crowd": crowd}, PARTS, method="rrf").fuse(scores, len(scores["llm"]), 0)
    for one in fused:
        for part, weight in (("llm", llm), ("crowd", crowd)):
            flat = len(set(scores[part])) == 1  # says nothing, and gives nothing
            expected = 0.0 if flat else weight / (60 + rank(scores[part], one.position))
            assert one.parts[part] == pytest.approx(expected)


@given(TABLES, METHOD, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(scores: dict[str, list[float]], method: Method, random: Any) -> None:
    """Shuffled candidates get the same sums."""
    fusion = Fusion(dict.fromkeys(PARTS, 1.0), PARTS, method=method)
    count = len(scores["llm"])
    shuffled = random.sample(range(count), count)
    sums = {one.position: one.score for one in fusion.fuse(scores, count, 0)}
    moved = {name: [values[at] for at in shuffled] for name, values in scores.items()}
    for one in fusion.fuse(moved, count, 0):
        assert one.score == pytest.approx(sums[shuffled[one.position]])


@given(TABLES, METHOD, WEIGHT, WEIGHT)
def test_more_weight_never_hurts_a_parts_favourite(
    scores: dict[str, list[float]], method: Method, less: float, more: float
) -> None:
    """The candidate that a part ranks first falls behind no other when that part's weight grows."""
    favourite = max(range(len(scores["crowd"])), key=lambda at: (scores["crowd"][at], -at))
    less, more = sorted((less, more))
    places = []
    for weight in (less, more):
        fused = Fusion({"llm": 1.0, "crowd": weight}, PARTS, method=method).fuse(scores, len(scores["llm"]), 0)
        own = next(one.score for one in fused if one.position == favourite)
        places.append(sum(one.score > own + 1e-9 for one in fused))
    assert places[1] <= places[0]


def test_ranks_by_hand() -> None:
    """9 is first, the two 5 share the ranks 2 and 3, 1 is last; shares go from 0 to 1; equals give nothing."""
    assert ranks([5, 9, 1, 5]) == [2.5, 1.0, 4.0, 2.5]
    assert reciprocal_ranks([5, 9, 1, 5], 0) == [1 / 2.5, 1.0, 0.25, 1 / 2.5]
    assert min_max([5, 9, 1, 5]) == pytest.approx([0.5, 1.0, 0.0, 0.5])
    assert reciprocal_ranks([3, 3]) == min_max([3, 3]) == [0.0, 0.0]
    for normalise in (ranks, reciprocal_ranks, min_max):
        with pytest.raises(ValueError, match="not a number"):
            normalise([1.0, float("nan")])


def test_weights_follow_the_length_of_the_history() -> None:
    """A new user gets the model's order, one with up to five events both, an older one the crowd's."""
    scores = {"llm": [3.0, 2.0, 1.0], "prefilter": [0.0] * 3, "crowd": [0.0, 1.0, 5.0]}
    section = {"by_history": [{"up_to": 0, "llm": 1.0}, {"up_to": 5, "llm": 1.0, "crowd": 0.3}, {"crowd": 1}]}
    fusion = fusion_of(section, PARTS)
    assert fusion is not None
    assert fusion.needs == {"crowd"}
    given_by = [set(fusion.fuse(scores, 3, length)[0].parts) for length in (0, 1, 5, 6)]
    assert given_by == [{"llm"}, {"llm", "crowd"}, {"llm", "crowd"}, {"crowd"}]
    assert [order(section, scores, length) for length in (0, 5, 6)] == [[0, 1, 2], [0, 1, 2], [2, 1, 0]]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"crwd": 1.0}, r"fusion\.crwd: unknown key; did you mean 'crowd'"),
        ({"methd": "rrf", "llm": 1}, r"did you mean 'method'"),
        ({"method": "rff", "llm": 1}, r"fusion\.method.*'rff'"),
        ({"method": "rrf"}, "no part has a weight above 0"),
        ({"llm": "1"}, r"fusion\.llm: must be a finite number"),
        ({"llm": 1, "by_history": [{"llm": 1}]}, r"fusion\.llm: stands beside fusion\.by_history"),
        ({"llm": 1, "path": "f.json"}, r"fusion\.llm: stands beside fusion\.path"),
        ({"path": "none.json"}, r"fusion\.path: cannot be read"),
        ({"by_history": []}, r"fusion\.by_history: has no weights for long histories"),
        ({"by_history": [{"up_to": 3, "llm": 1}]}, "no weights for long histories"),
        ({"by_history": [{"up_to": 3, "llm": 1}, {"up_to": 3, "llm": 1}, {"llm": 1}]}, "do not rise"),
        ({"by_history": [{"llm": 1}, {"llm": 1}]}, "do not rise"),
        ({"by_history": [{"up_to": -1, "llm": 1}, {"llm": 1}]}, r"fusion\.by_history\.0\.up_to: must be a whole number"),
        (
            {"by_history": [{"up_to": 0, "crwd": 1}, {"llm": 1}]},
            r"fusion\.by_history\.0\.crwd: unknown key; did you mean 'crowd'",
        ),
        ({"by_history": [{"up_to": 0, "llm": 1}, {"llm": True}]}, r"fusion\.by_history\.1\.llm: must be a finite number"),
        ({"by_history": [{"llm": 0}]}, r"fusion\.by_history\.0: no part has a weight above 0"),
        ({"by_history": {"llm": 1}}, r"fusion\.by_history"),
    ],
)
def test_mistakes_in_the_section_are_named(section: dict[str, Any], message: str) -> None:
    """One ConfigError, with the field as it stands in the section."""
    with pytest.raises(ConfigError, match=message):
        fusion_of(section, PARTS)


def test_no_section_is_no_fusion() -> None:
    """Then the model's order stands."""
    assert fusion_of({}, PARTS) is None


LINEAR = LinearModel({"llm": ((1.0, 0.0),) * 3, "crowd": ((0.1, 0.5), (0.2, -0.5), (0.0, 0.25))})
WEIGHTED = WeightedSum((Band({"llm": 1 / 3, "crowd": 2.5e-7}, 2), Band({"crowd": 1.0})), "rrf")


@pytest.mark.parametrize("combination", [LINEAR, WEIGHTED])
def test_a_file_gives_back_what_was_written(tmp_path: Path, combination: LinearModel | WeightedSum) -> None:
    """To the last digit, with what it was fitted on; and a configuration can name it."""
    path = tmp_path / "fusion.json"
    write_fusion(path, FusionFile(combination, {"run": "first", "users": ["a"]}))
    found = read_fusion(path)
    assert found.combination == combination
    assert found.fitted == {"run": "first", "users": ["a"]}
    fusion = fusion_of({"path": str(path)}, PARTS)
    assert fusion is not None
    assert fusion.combination == combination
    with pytest.raises(ConfigError, match=r"fusion\.path: it was fitted with a part 'crowd', which this ranker does not have"):
        fusion_of({"path": str(path)}, ("llm", "prefilter"))


def good() -> dict[str, Any]:
    """A file's document."""
    return {"format": 1, "fusion": WEIGHTED.record(), "fitted": {}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "not a fusion of format 1"),
        ({"fusion": []}, "not a fusion of format 1"),
        ({"fusion": {"kind": "wieghts"}}, "did you mean 'weights'"),
        ({"fusion": {"kind": "weights", "method": "rrf"}}, "not what was written"),
        (
            {"fusion": {"kind": "weights", "method": "rrf", "bands": [{"up_to": None, "weights": {"llm": "1"}}]}},
            "finite number",
        ),
        ({"fusion": {"kind": "linear", "coefficients": {"llm": {"raw": [1, 2]}}}}, "not what was written"),
        ({"fusion": {"kind": "linear", "coefficients": {}}}, "names no part"),
        ({"fusion": {"kind": "trees", "parts": ["llm"], "model": "nonsense"}}, "no LightGBM model"),
        ({"fitted": 3}, "no JSON object"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """With its path and what to do."""
    path = tmp_path / "fusion.json"
    path.write_text(json.dumps(good() | change), encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_fusion(path)
    assert caught.value.field == "fusion.path"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="not JSON"):
        read_fusion(path)


def test_a_linear_model_by_hand() -> None:
    """Its features less their means, times base + slope ln(1 + history); the parts' sums order the candidates."""
    model = LinearModel({"llm": ((2.0, 0.0), (0.0, 0.0), (0.0, 0.0)), "crowd": ((0.0, 1.0), (0.0, 0.0), (0.0, 0.0))})
    scores = {"llm": [1.0, 0.0, 0.5], "crowd": [0.0, 6.0, 0.0]}
    new = Fusion.of(model).fuse(scores, 3, 0)  # ln 1 = 0: the crowd has no say
    assert [one.position for one in new] == [0, 2, 1]
    assert new[0].parts == pytest.approx({"llm": 1.0, "crowd": 0.0})
    known = Fusion.of(model).fuse(scores, 3, 9)
    assert [one.position for one in known] == [1, 0, 2]
    assert known[0].parts == pytest.approx({"llm": -1.0, "crowd": 4 * 2.302585092994046})


@given(TABLES, st.integers(0, 100))
def test_a_linear_models_contributions_add_up_to_its_scores(scores: dict[str, list[float]], history_length: int) -> None:
    """Exactly, and the average candidate has 0; a part that says nothing gives nothing."""
    fused = Fusion.of(LINEAR).fuse(scores, len(scores["llm"]), history_length)
    assert all(one.score == pytest.approx(sum(one.parts.values())) for one in fused)
    assert sum(one.score for one in fused) == pytest.approx(0, abs=1e-6)
    if len(set(scores["crowd"])) == 1:
        assert {one.parts["crowd"] for one in fused} == {0.0}


@pytest.mark.parametrize("pairs", [((1.0, 0.0),), ((1.0,),) * len(FEATURES), ((1.0, float("nan")),) * len(FEATURES)])
def test_a_linear_model_of_another_shape_is_refused(pairs: Any) -> None:
    """One pair of finite numbers a feature."""
    with pytest.raises(ConfigError, match=r"fusion\.coefficients\.llm: must be pairs of finite numbers"):
        LinearModel({"llm": pairs})
