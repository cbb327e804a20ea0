"""Several orders become one: against sums made by hand, all permutations, and integer programming."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from llmrank.strategies.aggregate import MOST_EXACT, Aggregate, borda, kemeny, reciprocal_rank

METHODS = [borda, reciprocal_rank, kemeny]


@st.composite
def votes(draw: st.DrawFn, most: int, *, whole: bool = False) -> tuple[list[str], list[list[str]]]:
    """Items, and ballots of some of them."""
    items = [chr(ord("a") + number) for number in range(draw(st.integers(1, most)))]
    ballots = []
    for _ in range(draw(st.integers(0, 6))):
        ballot = draw(st.permutations(items))
        ballots.append(ballot if whole else ballot[: draw(st.integers(0, len(items)))])
    return items, ballots


def contradicted(order: Sequence[str], ballots: Sequence[Sequence[str]]) -> int:
    """How many pairs of all ballots the order has the other way round."""
    total = 0
    for ballot in ballots:
        places = {item: place for place, item in enumerate(ballot)}
        for above, below in combinations(order, 2):
            total += places.get(above, len(order)) > places.get(below, len(order))
    return total


@given(votes(8))
def test_each_item_comes_out_once_in_the_order_of_the_scores(given: tuple[list[str], list[list[str]]]) -> None:
    """Whatever the ballots, the order holds all items, and no score rises along it."""
    items, ballots = given
    for method in METHODS:
        found = method(items, ballots)
        assert sorted(found.order) == items
        scores = [found.scores[item] for item in found.order]
        assert scores == sorted(scores, reverse=True)


@given(st.permutations("abcdefgh"), st.integers(1, 5))
def test_ballots_that_agree_are_the_order(order: list[str], times: int) -> None:
    """Equal ballots come out as they are, by every method."""
    assert {method(sorted(order), [order] * times).order for method in METHODS} == {tuple(order)}


@given(votes(6))
def test_what_no_ballot_holds_stands_last(given: tuple[list[str], list[list[str]]]) -> None:
    """An item that nobody ranked stands below every item that somebody did, in the order given, and level with such."""
    items, ballots = given
    held = {item for ballot in ballots for item in ballot}
    for method in METHODS:
        found = method(items, ballots)
        order, scores = found.order, [found.scores[item] for item in found.order]
        assert set(order[: len(held)]) == held
        assert len(set(scores[len(held) :])) <= 1
        assert not held or len(held) == len(items) or scores[len(held) - 1] > scores[len(held)]
        assert list(order[len(held) :]) == [item for item in items if item not in held]


def test_without_ballots_the_order_given_stays() -> None:
    """Nobody ranked anything: nothing moves."""
    assert {method(["b", "a", "c"], []).order for method in METHODS} == {("b", "a", "c")}


def test_borda_by_hand() -> None:
    """Points n to 1; what a ballot lacks shares the points left: of 4 and 3 given, d and c get 1.5 each."""
    found = borda(["a", "b", "c", "d"], [["a", "b", "c", "d"], ["b", "a"]])
    assert found == Aggregate(("a", "b", "c", "d"), {"a": 3.5, "b": 3.5, "c": 1.75, "d": 1.25})


def test_reciprocal_rank_by_hand() -> None:
    """1 / (60 + rank) in each ballot that holds the item, nothing in the others; another constant on request."""
    found = reciprocal_rank(["a", "b", "c"], [["b", "a"], ["b", "c"]])
    assert found.order == ("b", "a", "c")
    assert found.scores == pytest.approx({"a": 1 / 62, "b": 2 / 61, "c": 1 / 62})
    assert reciprocal_rank(["a", "b"], [["b"]], k=0).scores == {"a": 0.0, "b": 1.0}


@given(votes(8), st.randoms(use_true_random=False))
def test_the_order_of_the_ballots_does_not_matter(given: tuple[list[str], list[list[str]]], dice: random.Random) -> None:
    """Ballots have no rank among each other: sums come out the same to the last bit."""
    items, ballots = given
    others = list(ballots)
    dice.shuffle(others)
    for method in METHODS:
        assert method(items, others) == method(items, ballots)


@given(votes(6))
def test_kemeny_contradicts_the_fewest_pairs(given: tuple[list[str], list[list[str]]]) -> None:
    """No permutation contradicts the ballots less, with ties and incomplete ballots too."""
    items, ballots = given
    best = min(contradicted(order, ballots) for order in permutations(items))
    assert contradicted(kemeny(items, ballots).order, ballots) == best


@settings(max_examples=15, deadline=None)
@given(votes(9, whole=True))
def test_kemeny_is_what_integer_programming_finds(given: tuple[list[str], list[list[str]]]) -> None:
    """The linear ordering problem solved by scipy has the same optimum."""
    items, ballots = given
    assert contradicted(kemeny(items, ballots).order, ballots) == _least_by_programming(items, ballots)


def _least_by_programming(items: Sequence[str], ballots: Sequence[Sequence[str]]) -> int:
    """The least number of contradicted pairs: a variable for each pair i before j, no circle of three."""
    count = len(items)
    if count == 1:
        return 0
    pairs = {pair: number for number, pair in enumerate(permutations(range(count), 2))}
    cost = [sum(ballot.index(items[j]) < ballot.index(items[i]) for ballot in ballots) for i, j in pairs]
    rows, low, high = [], [], []
    for i, j in combinations(range(count), 2):
        row = np.zeros(len(pairs))
        row[[pairs[i, j], pairs[j, i]]] = 1
        rows.append(row)
        low.append(1.0)
        high.append(1.0)
    for i, j, k in permutations(range(count), 3):
        row = np.zeros(len(pairs))
        row[[pairs[i, j], pairs[j, k], pairs[k, i]]] = 1
        rows.append(row)
        low.append(0.0)
        high.append(2.0)
    no_circles = LinearConstraint(np.array(rows), low, high)
    found = milp(cost, integrality=np.ones(len(pairs)), bounds=Bounds(0, 1), constraints=no_circles)
    assert found.success
    return round(float(found.fun))


def test_a_majority_stands_first_even_if_borda_errs() -> None:
    """Three of five prefer a to all others (a Condorcet winner); Borda puts b first, Kemeny a."""
    ballots = [["a", "b", "c"]] * 3 + [["b", "c", "a"]] * 2
    assert borda(["a", "b", "c"], ballots).order[0] == "b"
    assert kemeny(["a", "b", "c"], ballots).order == ("a", "b", "c")


def test_even_ballots_leave_the_order_given() -> None:
    """Two opposite ballots decide nothing by mean places or by pairs; reciprocal ranks prefer a first place."""
    ballots = [["a", "b", "c"], ["c", "b", "a"]]
    assert {method(["b", "c", "a"], ballots).order for method in (borda, kemeny)} == {("b", "c", "a")}


def test_opposite_ballots_are_no_circle() -> None:
    """Where as many ballots say one thing as the other, nobody beats anybody: the order is the best, however many items."""
    items = [f"{number:02}" for number in range(MOST_EXACT + 1)]
    found = kemeny(items, [items, items[::-1]])
    assert (found.order, found.notes) == (tuple(items), ())


def circle(count: int) -> tuple[list[str], list[list[str]]]:
    """Items that beat each other in a circle: every rotation of one order."""
    items = [f"{number:02}" for number in range(count)]
    return items, [items[start:] + items[:start] for start in range(count)]


def test_a_large_circle_is_searched_and_said() -> None:
    """Beyond `most_exact` items no single move mends the order, and a note says that it is not proven optimal."""
    items, ballots = circle(MOST_EXACT + 1)
    assert kemeny(*circle(MOST_EXACT)).notes == ()
    found = kemeny(items, ballots)
    assert "13 candidates" in found.notes[0]
    assert "not proven optimal" in found.notes[0]
    cost = contradicted(found.order, ballots)
    for item in items:
        rest = [other for other in found.order if other != item]
        moved = ([*rest[:place], item, *rest[place:]] for place in range(len(items)))
        assert cost == min(contradicted(order, ballots) for order in [found.order, *moved])


DOWNWARDS = list("abcd"), [list(ballot) for ballot in ("bacd", "dacb", "acdb", "cdba", "cbda")]
"""Ballots of which a search that only moves items up leaves an order that one move down mends."""
UPWARDS = list("abcde"), [list(ballot) for ballot in ("cbaed", "dbaec", "aedcb")]
"""The other way round."""


@settings(max_examples=50, deadline=None)
@given(votes(7, whole=True))
@example(DOWNWARDS)
@example(UPWARDS)
def test_no_single_move_mends_what_was_searched(given: tuple[list[str], list[list[str]]]) -> None:
    """Neither upwards nor downwards, whatever the ballots."""
    items, ballots = given
    found = kemeny(items, ballots, most_exact=1).order
    for item in items:
        rest = [other for other in found if other != item]
        moved = ([*rest[:place], item, *rest[place:]] for place in range(len(items)))
        assert contradicted(found, ballots) <= min(contradicted(order, ballots) for order in moved)


@settings(max_examples=25, deadline=None)
@given(votes(7, whole=True))
def test_the_search_is_never_worse_than_borda(given: tuple[list[str], list[list[str]]]) -> None:
    """Moving items from Borda's order on never contradicts more pairs than that, nor fewer than the optimum."""
    items, ballots = given
    searched = contradicted(kemeny(items, ballots, most_exact=1).order, ballots)
    assert contradicted(kemeny(items, ballots).order, ballots) <= searched
    assert searched <= contradicted(borda(items, ballots).order, ballots)


@pytest.mark.parametrize("method", METHODS)
def test_a_ballot_that_is_none_is_refused(method: type) -> None:
    """An item twice, or one that is not to be ranked, is a mistake of the caller."""
    with pytest.raises(ValueError, match="twice"):
        method(["a", "b"], [["a", "a"]])
    with pytest.raises(ValueError, match="'z'"):
        method(["a", "b"], [["a", "z"]])
