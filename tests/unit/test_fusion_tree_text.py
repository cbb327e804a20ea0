"""LightGBM's text of a model: read here before LightGBM sees it, which ends the process on one that is damaged."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import ConfigError
from llmrank.evaluation.fitting.example import Example
from llmrank.evaluation.fitting.trees import fit_trees
from llmrank.fusion import TreeModel
from llmrank.fusion.tree_text import checked_text

lightgbm = pytest.importorskip("lightgbm")

PARTS = ("a", "b")
COLUMNS = 7
DICE = random.Random(0)  # noqa: S311  # made-up data
EXAMPLES = [
    Example(f"u{user}", user % 5, {part: [DICE.random() for _ in range(10)] for part in PARTS}, [True] + [False] * 9)
    for user in range(60)
]
TEXT = fit_trees(EXAMPLES, PARTS, 10, 3, 0).model
FLAT = fit_trees([Example("u", 1, {part: [1.0, 1.0] for part in PARTS}, [True, False])] * 4, PARTS, 10, 3, 0).model
ROWS = np.random.default_rng(0).normal(size=(500, COLUMNS))


def edited(key: str, value: str) -> str:
    """The text with another value of a key in its first tree, which is said to be as long as it then is."""
    changed = re.sub(rf"(?m)^{key}=.*$", f"{key}={value}", TEXT, count=1)
    sizes = re.search(r"(?m)^tree_sizes=(.*)$", changed)
    assert sizes is not None
    first, *others = map(int, sizes[1].split())
    longer = len(changed) - len(TEXT)
    return changed.replace(sizes[0], "tree_sizes=" + " ".join(map(str, [first + longer, *others])), 1)


@pytest.mark.parametrize("text", [TEXT, FLAT])
def test_the_checked_text_predicts_the_same(text: str) -> None:
    """What is left out of the text does not change any score or contribution, also where trees have one leaf."""
    whole, checked = (lightgbm.Booster(model_str=each) for each in (text, checked_text(text, COLUMNS)))
    assert (whole.predict(ROWS) == checked.predict(ROWS)).all()
    assert (whole.predict(ROWS, pred_contrib=True) == checked.predict(ROWS, pred_contrib=True)).all()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "ends before its first tree"),
        ("nonsense\n\n", "does not begin like a model"),
        (TEXT[: len(TEXT) // 4], "no end"),
        (TEXT.replace("lambdarank", "regression"), "objective is 'regression'"),
        (TEXT.replace("max_feature_idx=6", "max_feature_idx=9"), "last column is '9' and not 6"),
        (TEXT.replace("Tree=1", "Tree=7"), "tree 1: it does not begin where it should"),
        (TEXT.replace("\nnum_cat=0", "", 1), "characters"),
        (edited("num_leaves", "100000"), "from 1 to 1024 leaves"),
        (edited("num_leaves", "6"), "6 values and not 5"),
        (edited("split_feature", "1 3 2 0 3 7"), "a column that is not there"),
        (edited("split_feature", "1 3 2 0 3 -1"), "a column that is not there"),
        (edited("decision_type", "1 2 2 2 2 2"), "compares in a way"),
        (edited("threshold", "nan 1 2 3 4 5"), "'nan' is no number"),
        (edited("threshold", "1e999 1 2 3 4 5"), "is no number"),
        (edited("left_child", "0 0 0 0 0 0"), "leads to what cannot follow it"),
        (edited("left_child", "99999 2 -2 -1 -3 -6"), "leads to what cannot follow it"),
        (edited("left_child", "-1 -1 -1 -1 -1 -1"), "two nodes lead to the same one"),
        (edited("leaf_value", "1 2 3"), "leaf_value has 3 values and not 7"),
        (edited("leaf_count", "0 1 1 1 1 1 1"), "nothing is in one of its nodes"),
        (edited("is_linear", "1"), "compare numbers alone"),
    ],
)
def test_what_is_wrong_is_named(text: str, problem: str) -> None:
    """A text that was cut short or edited is refused before LightGBM reads it, with what is wrong with it."""
    with pytest.raises(ValueError, match=re.escape(problem)):
        checked_text(text, COLUMNS)


def test_a_model_says_what_to_do() -> None:
    """A damaged model is one error of the fusion's, with a remedy."""
    with pytest.raises(ConfigError, match=r"no LightGBM model of 2 parts \(its trees have no end\).*fit it anew"):
        TreeModel(PARTS, TEXT[:900])
    with pytest.raises(ConfigError, match="names no part, or one twice"):
        TreeModel(("a", "a"), TEXT)


@given(
    st.integers(0, TEXT.index("end of trees")),
    st.integers(1, 12),
    st.text("0123456789-. e\n=", max_size=12),
)
def test_whatever_is_accepted_can_be_asked(start: int, length: int, instead: str) -> None:
    """A text with any few characters replaced is refused, or it predicts a finite number for every row."""
    try:
        checked = checked_text(TEXT[:start] + instead + TEXT[start + length :], COLUMNS)
    except ValueError:
        return
    booster = lightgbm.Booster(model_str=checked)
    assert np.isfinite(booster.predict(ROWS)).all()
    assert np.isfinite(booster.predict(ROWS[:5], pred_contrib=True)).all()
