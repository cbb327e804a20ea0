"""Fitting a fusion: the search, what is learned, and that cross-validation sees no label of the users it measures."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ConfigError, InputError, SetupError
from llmrank.evaluation.fitting.bands import band_of, folds_of, labels_of, usable
from llmrank.evaluation.fitting.example import Example
from llmrank.evaluation.fitting.fit import CROSS_VALIDATED, EQUAL, IN_SAMPLE, Fitted, fit_examples
from llmrank.evaluation.fitting.gain import Lists, padded
from llmrank.evaluation.fitting.linear import fit_linear
from llmrank.evaluation.fitting.options import FitMethod, FitOptions
from llmrank.evaluation.fitting.provenance import user_key
from llmrank.evaluation.fitting.search import coordinate_search
from llmrank.evaluation.fitting.trees import fit_trees
from llmrank.evaluation.measures.metrics import ndcg_at
from llmrank.fusion import Fusion, LinearModel, TreeModel, WeightedSum
from llmrank.fusion.file import read_fusion
from llmrank.fusion.trees import HISTORY

SKILL = {"llm": 1.0, "crowd": 2.0, "noise": 0.0}
"""How much higher a part scores what is relevant than the rest, in standard deviations."""


def examples(
    users: int, *, seed: int = 0, candidates: int = 8, skill: Callable[[str, int], float] = lambda part, length: SKILL[part]
) -> list[Example]:
    """One list a user, with one relevant candidate and histories of 0 to 9 events."""
    generator = np.random.default_rng(seed)
    made = []
    for user in range(users):
        relevant = np.zeros(candidates, dtype=bool)
        relevant[generator.integers(candidates)] = True
        length = user % 10
        scores = {part: generator.normal(size=candidates) + skill(part, length) * relevant for part in SKILL}
        made.append(Example(f"u{user}", length, {part: values.tolist() for part, values in scores.items()}, relevant.tolist()))
    return made


def mean(found: Fitted, by: str, place: int = 0) -> float:
    """What was measured for all users, or for a band."""
    value = found.slices[place].values[by].mean
    assert value is not None
    return value


LIST = st.lists(st.tuples(st.integers(0, 3).map(float), st.booleans()), min_size=1, max_size=6)


@given(st.lists(LIST, min_size=1, max_size=4), st.sampled_from([None, 1, 3]), st.integers(0, 2))
@settings(max_examples=60)
def test_tied_candidates_share_their_places(lists: list[list[tuple[float, bool]]], k: int | None, missed: int) -> None:
    """The NDCG is the mean over all orders of equals, as the metric itself gives it when they are enumerated."""
    made = [Example("u", 0, {"a": [value for value, _ in each]}, [relevant for _, relevant in each], missed) for each in lists]
    side_by_side = Lists(made, k)
    found = side_by_side.ndcg(padded([each.scores["a"] for each in made], side_by_side.shape))
    for value, each in zip(found, lists, strict=True):
        orders = [
            order
            for order in permutations(range(len(each)))
            if all(each[first][0] >= each[second][0] for first, second in pairwise(order))
        ]
        wanted = [str(at) for at, (_, relevant) in enumerate(each) if relevant] + [f"m{at}" for at in range(missed)]
        by_hand = [ndcg_at([str(at) for at in order], wanted, k) for order in orders]
        assert value == pytest.approx(sum(by_hand) / len(by_hand))


def test_the_search_finds_a_planted_optimum() -> None:
    """Only x + 4 y tells what is relevant, and noise nothing: these weights rank every list without a fault."""
    generator = np.random.default_rng(3)
    values = generator.normal(size=(60, 6, 3))
    best = (values @ np.array([1.0, 4.0, 0.0])).argmax(axis=1)
    made = [
        Example(
            str(row),
            0,
            {name: values[row, :, column].tolist() for column, name in enumerate("xyz")},
            [at == best[row] for at in range(6)],
        )
        for row in range(60)
    ]
    lists = Lists(made, 10)
    weights = coordinate_search(values, lists)
    assert lists.ndcg(values @ weights).mean() == pytest.approx(1.0)
    assert weights[1] / weights[0] == pytest.approx(4, rel=0.3)
    assert weights[2] < 0.03
    assert weights.sum() == pytest.approx(1)
    ways = np.stack([values @ weights, values @ np.eye(3)[0], values @ np.eye(3)[1]])
    assert lists.means(ways) == pytest.approx([lists.ndcg(way).mean() for way in ways])


def test_the_search_takes_no_part_that_adds_nothing() -> None:
    """A part that is the same for all candidates gets no weight, and one part alone gets all of it."""
    made = examples(20)
    lists = Lists(made, 10)
    crowd = padded([each.scores["crowd"] for each in made], lists.shape)
    flat = np.zeros_like(crowd)
    assert coordinate_search(np.stack([flat, crowd], axis=2), lists).tolist() == [0.0, 1.0]
    assert coordinate_search(crowd[:, :, None], lists).tolist() == [1.0]


@pytest.mark.parametrize("method", ["weights", "minmax", "rrf", "linear", "trees"])
def test_a_fitted_fusion_is_better_than_its_parts(method: FitMethod) -> None:
    """For users apart, too, and than equal weights, where one of three parts is noise; the file gives the same fusion."""
    made = examples(200)
    found = fit_examples(made, FitOptions(method, resamples=100, rounds=40))
    assert mean(found, CROSS_VALIDATED) > max(mean(found, "llm"), mean(found, "noise"), mean(found, EQUAL))
    assert mean(found, CROSS_VALIDATED) > mean(found, "crowd")
    assert mean(found, IN_SAMPLE) > mean(found, CROSS_VALIDATED)
    fused = found.fusion.fuse(made[0].scores, 8, made[0].history_length)
    assert all(one.score == pytest.approx(sum(one.parts.values())) for one in fused)


@pytest.mark.parametrize("method", ["weights", "linear", "trees"])
def test_cross_validation_does_not_see_the_labels_of_those_it_measures(method: FitMethod) -> None:
    """Where nothing can be learned, in-sample NDCG is above chance all the same, and cross-validated NDCG is not."""
    generator = np.random.default_rng(5)
    made = [
        Example(
            each.user_id, each.history_length, {f"p{at}": generator.normal(size=8).tolist() for at in range(8)}, each.relevant
        )
        for each in examples(60)
    ]
    chance = sum(1 / math.log2(place + 1) for place in range(1, 9)) / 8
    found = fit_examples(made, FitOptions(method, resamples=500, rounds=40, l2=0.1))
    interval = found.slices[0].values[CROSS_VALIDATED].ci
    assert interval is not None
    assert interval[0] < chance < interval[1]
    assert mean(found, IN_SAMPLE) > chance + 0.05
    assert mean(found, IN_SAMPLE) > interval[1]


def test_weights_are_those_of_each_length_of_history() -> None:
    """The crowd knows users with histories only, the model all: the bands' weights, and what they are worth, say so."""
    made = examples(300, skill=lambda part, length: {"llm": 1.5, "crowd": 2.5 * (length > 2), "noise": 0.0}[part])
    found = fit_examples(made, FitOptions(bands=(2,), resamples=100))
    combination = found.fusion.combination
    assert isinstance(combination, WeightedSum)
    new, known = combination.bands
    assert (new.up_to, known.up_to) == (2, None)
    assert new.weights["llm"] > 0.7
    assert known.weights["crowd"] > known.weights["llm"]
    assert [(each.label, each.users) for each in found.slices] == [("all", 300), ("0–2", 90), ("3+", 210)]
    assert mean(found, "crowd", 1) < mean(found, "llm", 1)
    without = fit_examples(made, FitOptions(resamples=100))
    assert mean(found, CROSS_VALIDATED) > mean(without, CROSS_VALIDATED)


def test_bands_with_few_users_are_merged() -> None:
    """From the shortest on with the next longer one, the last with the one before; each merger is told."""
    made = [
        Example(f"u{at}", length, {"llm": [1.0]}, [True]) for at, length in enumerate([0] * 3 + [1] * 40 + [5] * 35 + [9] * 2)
    ]
    bounds, notes = usable(made, (0, 1, 5), 30)
    assert bounds == (1, None)
    assert notes == (
        "only 3 users have histories of 0 events, fewer than 30: they share weights with those of 1",
        "only 2 users have histories of 6+ events, fewer than 30: they share weights with those of 2–5",
    )
    assert labels_of(bounds) == ("0–1", "2+")
    assert [band_of(length, bounds) for length in (0, 1, 2, 99)] == [0, 0, 1, 1]
    assert usable(made, (0, 1, 5), 1) == ((0, 1, 5, None), ())
    assert usable(made[:3], (0, 1), 30)[0] == (None,)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), st.integers(2, 5), st.integers(0, 3))
def test_folds_are_even_and_tell_no_user_apart(users: list[str], folds: int, seed: int) -> None:
    """All of a user's examples are in one fold, whatever their order, and folds differ by one user at most."""
    made = [Example(user, 0, {"llm": [1.0]}, [True]) for user in users]
    dealt = folds_of(made, folds, seed)
    by_user = dict(zip(users, dealt, strict=True))
    assert [by_user[user] for user in users] == dealt
    sizes = [list(by_user.values()).count(fold) for fold in range(folds)]
    assert max(sizes) - min(sizes) <= 1
    again = dict(zip(reversed(users), folds_of(made[::-1], folds, seed), strict=True))
    assert again == by_user


def test_the_linear_ranker_recovers_planted_weights() -> None:
    """Choices that are drawn by a softmax of known coefficients give these back, within the error of a sample."""
    generator = np.random.default_rng(1)
    made = []
    for user in range(3000):
        length = int(generator.integers(0, 20))
        scores = generator.normal(size=(2, 6))
        logits = 1.0 * scores[0] + (0.5 + 0.4 * math.log1p(length)) * scores[1]
        chosen = generator.choice(6, p=np.exp(logits) / np.exp(logits).sum())
        made.append(
            Example(str(user), length, {"x": scores[0].tolist(), "y": scores[1].tolist()}, [at == chosen for at in range(6)])
        )
    model = fit_linear(made, ("x", "y"), 1e-3)
    probe = {"x": [1.0, 0.0, -1.0], "y": [0.0, 0.0, 0.0]}
    # Raw scores and z-scores are nearly the same here and share their weight: what counts is what they give together.
    given = model.contributions({"x": generator.normal(size=2000).tolist(), "y": generator.normal(size=2000).tolist()}, 10)
    assert set(given) == {"x", "y"}
    assert model.contributions(probe, 10)["y"] == [0.0, 0.0, 0.0]
    for part, slope in (("x", 1.0), ("y", 0.5 + 0.4 * math.log1p(10))):
        scores = generator.normal(size=6).tolist()
        own = model.contributions({"x": scores, "y": scores}, 10)[part]
        assert np.polyfit(scores, own, 1)[0] == pytest.approx(slope, rel=0.15)


def test_the_linear_fit_is_at_the_minimum_of_its_loss() -> None:
    """SciPy's minimiser, which knows nothing of Newton's steps, finds no better coefficients for the same loss."""
    from scipy.optimize import minimize

    from llmrank.evaluation.fitting.linear import _design, _loss, _newton

    made = examples(15)
    table = _design(made, ("llm", "crowd"), np.array([math.log1p(each.history_length) - 1 for each in made]))
    target = padded([each.relevant for each in made], (15, 8))
    present = np.ones((15, 8), dtype=bool)
    found = _newton(table, target, present, 0.5)
    best = minimize(lambda weights: _loss(weights, table, target, present, 0.5)[0], np.zeros(table.shape[2]), method="L-BFGS-B")
    assert _loss(found, table, target, present, 0.5)[0] == pytest.approx(best.fun, rel=1e-6)


def test_lists_of_several_lengths_are_learned_from() -> None:
    """Lists that are shorter than others, and lists without anything relevant, are no fault."""
    made = [*examples(60), *examples(60, seed=1, candidates=3)]
    made.append(Example("nobody", 0, made[0].scores, [False] * 8, missed=1))
    for method in ("weights", "linear", "trees"):
        found = fit_examples(made, FitOptions(method, resamples=100, rounds=20))
        assert mean(found, CROSS_VALIDATED) > mean(found, "noise")


def test_trees_are_kept_in_the_file(tmp_path: Path) -> None:
    """As LightGBM's text, and read back they give the same; what the history gave stands beside the parts."""
    made = examples(100)
    found = fit_examples(made, FitOptions("trees", resamples=100, rounds=20))
    found.save(tmp_path / "fusion.json")
    again = read_fusion(tmp_path / "fusion.json").combination
    assert isinstance(again, TreeModel)
    before = found.fusion.fuse(made[3].scores, 8, 3)
    after = Fusion.of(again).fuse(made[3].scores, 8, 3)
    assert [one.position for one in before] == [one.position for one in after]
    assert [one.score for one in before] == pytest.approx([one.score for one in after])
    assert set(after[0].parts) == {*SKILL, HISTORY}
    assert Fusion.of(again).fuse({part: [] for part in SKILL}, 0, 3) == ()


def test_contributions_of_trees_are_their_prediction() -> None:
    """SHAP values with the base add up to what LightGBM itself predicts."""
    from llmrank.fusion.trees import matrix

    made = examples(100)
    model = fit_trees(made, tuple(SKILL), 10, 20, 0)
    predicted = model._booster.predict(matrix(model.names, made[0].scores, 0))
    given = model.contributions(made[0].scores, 0)
    assert [sum(values) for values in zip(*given.values(), strict=True)] == pytest.approx(list(predicted))
    with pytest.raises(ConfigError, match="last column is '9' and not 3"):
        TreeModel(("llm",), model.model)


def test_without_lightgbm_trees_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fitted for nothing."""
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(SetupError, match=r"pip install 'llmrank\[learned\]'"):
        fit_trees(examples(3), tuple(SKILL), 10, 20, 0)


@pytest.mark.parametrize("method", ["weights", "linear", "trees"])
def test_fitting_is_the_same_on_every_run(method: FitMethod) -> None:
    """Nothing depends on the clock, on threads or on hash seeds; another seed deals out other folds."""
    made = examples(60)
    first, second = (fit_examples(made, FitOptions(method, resamples=100, rounds=10)) for _ in range(2))
    assert first.record() == second.record()
    assert first.fusion.combination.record() == second.fusion.combination.record()
    other = fit_examples(made, FitOptions(method, resamples=100, rounds=10, seed=1))
    assert mean(other, CROSS_VALIDATED) != mean(first, CROSS_VALIDATED)


def test_the_record_tells_what_was_fitted_on_and_how_well() -> None:
    """Options, figures by length of history, and a digest of each user; all of it JSON values."""
    made = examples(20)
    record = fit_examples(made, FitOptions(resamples=100), source={"run": "first"}).record()
    assert (record["run"], record["method"], record["bands"]) == ("first", "weights", [])
    assert record["slices"][0]["users"] == 20
    assert set(record["slices"][0]["ndcg@10"]) == {CROSS_VALIDATED, IN_SAMPLE, EQUAL, *SKILL}
    assert record["users"] == sorted({user_key(each.user_id) for each in made})
    assert not {each.user_id for each in made} & set(record["users"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "weight"}, "method: there is no such method .*did you mean 'weights'"),
        ({"seed": -1}, "seed: must be at least 0"),
        ({"l2": float("inf")}, "l2: must be a number above 0"),
        ({"metric": "mrr"}, "metric: is nothing that a fusion can be fitted for"),
        ({"metric": "ndgc@10"}, "did you mean 'ndcg'"),
        ({"bands": (5, 2)}, "bands: are no lengths of histories"),
        ({"bands": (-1,)}, "bands: are no lengths of histories"),
        ({"folds": 1}, "folds: must be at least 2"),
        ({"rounds": 0}, "rounds: must be at least 1"),
        ({"l2": 0}, "l2: must be a number above 0"),
        ({"confidence": 1.0}, "confidence: must be between 0 and 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    """Naming the field, the value and the remedy."""
    with pytest.raises(ConfigError, match=message):
        FitOptions(**options)  # type: ignore[arg-type]  # what is wrong is the point


def without_relevant(made: Sequence[Example]) -> list[Example]:
    """The same lists, with nothing relevant among the candidates."""
    return [Example(each.user_id, each.history_length, each.scores, [False] * len(each.relevant), 1) for each in made]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "there are none to learn from"),
        (examples(3), "folds: there are 3 users only .*at most 3 folds"),
        (without_relevant(examples(9)), "no candidate of any list is relevant"),
        ([*examples(9), Example("x", 0, {"llm": [1.0]}, [True])], "has other parts"),
    ],
)
def test_examples_that_teach_nothing_are_refused(made: list[Example], message: str) -> None:
    """Before anything is computed."""
    with pytest.raises(InputError, match=message):
        fit_examples(made)


@pytest.mark.parametrize(
    ("scores", "message"),
    [({}, "no part"), ({"llm": [1.0]}, "one finite score for each of 2"), ({"llm": [1.0, math.nan]}, "one finite score")],
)
def test_an_example_without_a_score_for_each_candidate_is_refused(scores: dict[str, list[float]], message: str) -> None:
    """With the user and what to do."""
    with pytest.raises(InputError, match=message):
        Example("u", 0, scores, [True, False])


def test_a_linear_model_sees_no_difference_where_there_is_none() -> None:
    """A part whose scores are all equal in every list gets no coefficient, rather than a division by zero."""
    made = [Example(each.user_id, 0, {**each.scores, "flat": [7.0] * 8}, each.relevant) for each in examples(20)]
    model = fit_linear(made, (*SKILL, "flat"), 1.0)
    assert isinstance(model, LinearModel)
    assert model.coefficients["flat"] == ((0.0, 0.0),) * 3


@pytest.mark.parametrize("cut", [300, 700, 4000])
def test_a_piece_of_a_model_is_refused_before_lightgbm_reads_it(cut: int) -> None:
    """LightGBM ends the whole process where a tree is cut off, which no caller could catch."""
    model = fit_trees(examples(60), tuple(SKILL), 10, 20, 0).model
    for text in (model[:cut], model.replace("leaf_value", "leaf_worth", 1), model.replace("Tree=1\n", "", 1)):
        with pytest.raises(ConfigError, match="no LightGBM model"):
            TreeModel(tuple(SKILL), text)


def test_trees_that_were_changed_on_disk_are_refused(tmp_path: Path) -> None:
    """A digit that flips may let LightGBM read outside of its memory; files of before the digest are still read."""
    path = tmp_path / "fusion.json"
    fit_examples(examples(100), FitOptions("trees", resamples=100, rounds=5)).save(path)
    document = json.loads(path.read_text())
    changed = document["fusion"]["model"].replace("left_child=", "left_child=9", 1)
    path.write_text(json.dumps(document | {"fusion": document["fusion"] | {"model": changed}}))
    with pytest.raises(ConfigError, match="not those that were written"):
        read_fusion(path)
    del document["fusion"]["digest"]
    path.write_text(json.dumps(document))
    assert isinstance(read_fusion(path).combination, TreeModel)


def test_a_model_without_a_split_is_kept_in_the_file(tmp_path: Path) -> None:
    """Where nothing tells candidates apart the trees have one leaf each, and less text."""
    same = [Example(f"u{user}", 3, {"llm": [1.0, 1.0]}, [True, False]) for user in range(10)]
    path = tmp_path / "fusion.json"
    fit_examples(same, FitOptions("trees", resamples=100, rounds=5)).save(path)
    assert isinstance(read_fusion(path).combination, TreeModel)


@pytest.mark.parametrize("method", ["weights", "linear", "trees"])
def test_where_one_user_alone_has_something_relevant_the_others_folds_are_equal_weights(method: FitMethod) -> None:
    """The user's own fold is ranked by what was fitted on the others, in which there is nothing to learn from."""
    made = examples(12)
    found = fit_examples([made[0], *without_relevant(made[1:])], FitOptions(method, folds=3, resamples=100, rounds=5))
    assert mean(found, CROSS_VALIDATED) == mean(found, EQUAL)


def test_a_band_in_which_nothing_is_relevant_shares_the_weights_of_all() -> None:
    """Not those of whichever part happens to stand last, which nothing speaks for."""
    made = examples(100)
    new = [each for each in made if each.history_length < 5]
    known = [each for each in made if each.history_length >= 5]
    found = fit_examples([*without_relevant(new), *known], FitOptions(bands=(4,), resamples=100))
    combination = found.fusion.combination
    assert isinstance(combination, WeightedSum)
    assert dict(combination.bands[0].weights) == dict(fit_examples(known).fusion.combination.bands[0].weights)  # type: ignore[attr-defined]
