"""Interleaving: Delta_AB by hand, its test against enumeration, and what does not count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from llmrank.errors import InputError
from llmrank.experiment.statistics.preference import interleaving_preference


def test_delta_by_hand() -> None:
    """Of five impressions with credit the variant wins three, one is a tie: (3 + 1/2) / 5 - 1/2; the sixth says nothing."""
    found = interleaving_preference([1, 2, 1, 1, 0, 0], [0, 1, 0, 1, 2, 0])
    assert found.delta == pytest.approx(0.2)
    assert (found.wins, found.ties, found.losses, found.impressions, found.users) == (3, 1, 1, 6, 5)
    # 16 ways to flip four outcomes: all but the 6 whose sum is 0 are as far from 0 as 3 - 1.
    assert found.p == pytest.approx(10 / 16)


def test_users_count_and_not_impressions() -> None:
    """A user's impressions are flipped together: ten wins of one user are one outcome, and no interval comes of one user."""
    one = interleaving_preference([1] * 10, [0] * 10, ["u"] * 10)
    ten = interleaving_preference([1] * 10, [0] * 10)
    assert (one.p, one.users, one.delta) == (1.0, 1, 0.5)
    assert math.isnan(one.low)
    assert ten.p == pytest.approx(2 / 1024)


def test_teams_turned_around() -> None:
    """With the teams' names swapped, delta and interval change sign and p stays."""
    generator = np.random.default_rng(2)
    value, control = generator.poisson(0.6, size=300), generator.poisson(0.5, size=300)
    users = generator.integers(0, 60, size=300).tolist()
    ours, theirs = interleaving_preference(value, control, users), interleaving_preference(control, value, users)
    assert (ours.delta, ours.p) == pytest.approx((-theirs.delta, theirs.p))
    assert (ours.low, ours.high) == pytest.approx((-theirs.high, -theirs.low), abs=0.01)
    assert ours.low < ours.delta < ours.high


def test_nobody_clicked() -> None:
    """Without any credit there is no preference, no interval and no p value."""
    found = interleaving_preference([0, 0], [0, 0], ["a", "b"])
    assert np.isnan([found.delta, found.low, found.high, found.p]).all()
    assert (found.impressions, found.users, found.ties) == (2, 0, 0)


@pytest.mark.parametrize(
    ("value", "control", "users", "field"),
    [
        ([1], [1, 2], None, "control"),
        ([[1]], [[1]], None, "control"),
        ([1], [1], ["a", "b"], "users"),
        ([-1], [1], None, "value"),
        ([1], [math.nan], None, "control"),
    ],
)
def test_credits_that_cannot_be_are_named(value: Any, control: Any, users: Any, field: str) -> None:
    """Shapes that do not fit, and credits that are no counts."""
    with pytest.raises(InputError) as caught:
        interleaving_preference(value, control, users)
    assert caught.value.field == field
