"""Successive halving: rounds by hand, the budget that is never exceeded, and ties that always fall the same way."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import ConfigError
from llmrank.experiment.statistics.halving import Round, next_contenders, rankings, schedule, survivors


def test_eight_prompts_by_hand() -> None:
    """1,200 rankings in three rounds of 400: 50 users for 8, 100 more for 4, 200 more for 2."""
    rounds = schedule(8, 1200)
    assert rounds == (Round(8, 50), Round(4, 150), Round(2, 350))
    assert rankings(rounds) == 1200


def test_users_that_are_at_hand_end_the_race() -> None:
    """When a round has all development users, nothing more can be learnt: it is the last."""
    assert schedule(8, 1200, users=120) == (Round(8, 50), Round(4, 120))
    assert schedule(8, 1200, users=40) == (Round(8, 40),)


def test_the_first_round_has_enough_users() -> None:
    """The least number of users comes before equal parts of the budget; what is left is divided by the rest."""
    assert schedule(8, 1200, least=100) == (Round(8, 100), Round(4, 150), Round(2, 250))
    assert schedule(3, 60, least=20) == (Round(3, 20), Round(2, 20))


def test_nothing_to_choose() -> None:
    """One contender, or none, needs no race."""
    assert schedule(1, 100) == schedule(0, 100) == ()
    assert rankings(()) == 0


@given(st.integers(2, 60), st.integers(1, 20_000), st.floats(0.05, 0.95), st.integers(1, 50), st.none() | st.integers(1, 500))
def test_every_race_stays_within_its_budget(variants: int, budget: int, keep: float, least: int, users: int | None) -> None:
    """Users only grow, contenders only fall, to two or fewer... unless the users are used up; and no ranking is too many."""
    if budget < variants * least or (users is not None and users < least):
        with pytest.raises(ConfigError):
            schedule(variants, budget, keep=keep, least=least, users=users)
        return
    rounds = schedule(variants, budget, keep=keep, least=least, users=users)
    assert rounds[0].contenders == variants
    assert rounds[0].users >= least
    for one, other in pairwise(rounds):
        assert other.contenders == next_contenders(one.contenders, keep) < one.contenders
        assert one.users <= other.users <= (users or other.users)
    last = rounds[-1]
    assert last.users == users or next_contenders(last.contenders, keep) == 1
    assert rankings(rounds) <= budget
    if users is None and rounds[0].users > least:
        assert budget - rankings(rounds) < last.contenders  # not one user more could be paid for


@pytest.mark.parametrize(
    ("contenders", "keep", "following"), [(8, 0.5, 4), (5, 0.5, 3), (3, 0.5, 2), (2, 0.9, 1), (30, 0.1, 3)]
)
def test_how_many_go_on(contenders: int, keep: float, following: int) -> None:
    """The part rounded up, but never all."""
    assert next_contenders(contenders, keep) == following


def test_the_best_go_on() -> None:
    """Best first; of equal ones that which stands first; what has no mean is last, and still goes on if all do."""
    means = {"a": 0.3, "b": 0.5, "c": 0.3, "d": math.nan, "e": 0.1}
    assert survivors(means, 1) == ("b",)
    assert survivors(means, 2) == ("b", "a")
    assert survivors(means, 5) == ("b", "a", "c", "e", "d")


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: schedule(4, 79), "budget"),
        (lambda: schedule(4, 1000, users=10), "users"),
        (lambda: schedule(4, 1000, keep=1.0), "keep"),
        (lambda: schedule(4, 1000, least=0), "least"),
        (lambda: survivors({"a": 1.0}, 2), "keep"),
        (lambda: survivors({"a": 1.0}, 0), "keep"),
    ],
)
def test_what_cannot_be_is_named(call: Any, field: str) -> None:
    """The error names the option and says what would do."""
    with pytest.raises(ConfigError) as caught:
        call()
    assert caught.value.field == field
    assert caught.value.fix
