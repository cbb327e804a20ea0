"""Interleaved lists: whose items users click, user by user, with nothing of a fixed sample before it is complete."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from llmrank.experiment.online.event import Event, click, impression
from llmrank.experiment.online.preferences import Interleaving, interleavings
from llmrank.experiment.statistics.preference import interleaving_preference

ORDER = ("plain", "new", "newer")


def shown(
    unit: str, number: str, clicks: Sequence[str] = (), *, teams: Sequence[str | None] = ("a", "b", None), **variants: str
) -> tuple[Event, list[Event]]:
    """A list of x, y and z, and clicks on some of them, one a second."""
    pair = variants or {"a": "plain", "b": "new"}
    seen = impression("e", unit, number, ["x", "y", "z"], teams, pair, time=0.0)
    return seen, [click("e", unit, number, item, time=float(place)) for place, item in enumerate(clicks, start=1)]


def preferences(
    lists: Sequence[tuple[Event, list[Event]]], *, planned: int | None = None, early: float = 0.01
) -> tuple[tuple[Interleaving, ...], int]:
    """The preferences with `plain` as control."""
    clicks = [each for _, some in lists for each in some]
    return interleavings([each for each, _ in lists], clicks, "plain", ORDER, planned=planned, early=early, late=0.04)


def test_credit_goes_to_the_team_of_what_was_clicked() -> None:
    """One list won, one tied, one lost, one without any credit, and a click on an item of no team."""
    (found,), stray = preferences(
        [shown("1", "i", ["y"]), shown("1", "j", ["x", "y"]), shown("2", "i", ["x"]), shown("3", "i"), shown("4", "i", ["z"])]
    )
    assert (found.variant, found.control) == ("new", "plain")
    assert (found.impressions, found.users) == (5, 2)
    assert (found.wins, found.ties, found.losses) == (1, 1, 1)
    assert found.delta == 0.0
    assert stray == 0


def test_teams_say_whose_an_item_is_not_their_letters() -> None:
    """The variant may be team a in one list and team b in the next."""
    (found,), _ = preferences([shown("1", "i", ["x"], a="new", b="plain"), shown("2", "i", ["y"], a="plain", b="new")])
    assert (found.wins, found.losses, found.delta) == (2, 0, 0.5)


def test_clicks_that_fit_no_list_are_counted() -> None:
    """Of a list that is not in the log, of another user's list, and on an item that was not shown."""
    seen, _ = shown("1", "i")
    strays = [click("e", "1", "j", "x"), click("e", "2", "i", "x"), click("e", "1", "i", "w")]
    (found,), stray = preferences([(seen, strays)])
    assert stray == 3
    assert found.users == 0
    assert math.isnan(found.delta)
    assert (found.low, found.high, found.p) == (-0.5, 0.5, 1.0)


def test_the_planned_users_are_tested_once_they_are_there() -> None:
    """The first three with a credit, in the order of their first click, and no one else."""
    lists = [shown(str(number), "i", ["y"] if number % 3 else ["x"]) for number in range(5)]
    (found,), _ = preferences(lists, planned=6)
    assert found.fixed is None
    (found,), _ = preferences(lists, planned=3)
    assert found.fixed == interleaving_preference([0, 1, 1], [1, 0, 0], ["0", "1", "2"], confidence=0.96)
    assert found.fixed_adjusted == found.fixed.p


def test_many_clicks_for_one_variant_are_shown_at_any_time() -> None:
    """100 users of whom four in five click the variant's item: the always-valid interval leaves out 0."""
    draw = random.Random(1)  # noqa: S311  # a simulation
    lists = [shown(str(number), "i", ["y" if draw.random() < 0.8 else "x"]) for number in range(100)]
    (found,), _ = preferences(lists)
    assert found.low > 0
    assert found.p < 0.01
    assert found.low < found.delta < found.high


def test_one_user_with_many_lists_is_one_user() -> None:
    """1,000 won lists of one user say no more than one."""
    (many,), _ = preferences([shown("1", str(number), ["y"]) for number in range(1000)])
    (one,), _ = preferences([shown("1", "0", ["y"])])
    assert (many.low, many.high, many.p) == (one.low, one.high, one.p)


def test_pairs_are_apart_and_corrected_for_their_number() -> None:
    """Each pair has its own lists; of a pair without the control the later variant is the one under test."""
    lists = [shown(str(number), "i", ["y"]) for number in range(30)]
    lists += [shown(str(number), "j", ["y"], a="new", b="newer") for number in range(10)]
    first, second = preferences(lists)[0]
    assert [(each.variant, each.control, each.impressions) for each in (first, second)] == [
        ("new", "plain", 30),
        ("newer", "new", 10),
    ]
    assert first.adjusted == pytest.approx(2 * first.p)
    assert second.adjusted == pytest.approx(max(second.p, 2 * first.p))


def test_without_early_looks_nothing_is_said_before_the_plan() -> None:
    """No interval narrower than all that is possible, and no p value."""
    (found,), _ = preferences([shown(str(number), "i", ["y"]) for number in range(100)], early=0)
    assert (found.low, found.high) == (-0.5, 0.5)
    assert math.isnan(found.p)
