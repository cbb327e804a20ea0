"""Sorting by questions: numbers are sorted, the least one first, and a test answers which of a few is best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.strategies.calls import Calls
from llmrank.strategies.shrink import Flowing
from llmrank.strategies.sorting import (
    Best,
    all_pairs,
    bubblesort,
    bubblesort_calls,
    heapsort,
    heapsort_calls,
)
from llmrank.types import Completion, Prompt

Sort = Callable[[Sequence[int], int, int, Best[int]], Flowing[list[int]]]
Bound = Callable[[int, int, int], Calls]

SORTS: list[tuple[Sort, Bound]] = [(heapsort, heapsort_calls), (bubblesort, bubblesort_calls)]
both = pytest.mark.parametrize(("sort", "bound"), SORTS, ids=["heapsort", "bubblesort"])

orders = st.integers(1, 100).flatmap(lambda count: st.permutations(range(count)))


class Asked:
    """Answers questions by a function, and keeps what was asked."""

    def __init__(self, answer: Callable[[Sequence[int]], int]) -> None:
        self.answer = answer
        self.groups: list[tuple[int, ...]] = []
        self.steps = 0

    def best(self, group: Sequence[int]) -> Flowing[int]:
        self.groups.append(tuple(group))
        yield [Prompt()]
        return self.answer(group)

    def sort(self, sort: Sort, items: Sequence[int], k: int, size: int) -> list[int]:
        flow = sort(items, k, size, self.best)
        try:
            step = next(flow)
            while True:
                self.steps += 1
                step = flow.send([Completion()] * len(step))
        except StopIteration as stop:
            return list(stop.value)


def oracle(group: Sequence[int]) -> int:
    return group.index(min(group))


def first(group: Sequence[int]) -> int:
    """What comes out where there is no telling."""
    return 0


def erratic(seed: int) -> Callable[[Sequence[int]], int]:
    """Answers that agree with no order; the same one to the same question."""
    return lambda group: Random(str((seed, *group))).randrange(len(group))  # noqa: S311  # no secret


@both
@settings(max_examples=50, deadline=None)
@given(items=orders, data=st.data())
def test_the_first_places_are_right_at_the_cost_stated(sort: Sort, bound: Bound, items: list[int], data: st.DataObject) -> None:
    """True answers put the first k places right, for any order, k and size; every question shows 2 to `size` items, and there
    are as many as the bounds say.
    """
    k, size = data.draw(st.integers(1, len(items))), data.draw(st.integers(2, 12))
    asked = Asked(oracle)
    order = asked.sort(sort, items, k, size)
    assert order[:k] == sorted(items)[:k]
    assert sorted(order) == sorted(items)
    assert all(2 <= len(group) <= size for group in asked.groups)
    calls = bound(len(items), k, size)
    assert calls.least <= len(asked.groups) <= calls.most


@settings(max_examples=50, deadline=None)
@given(items=orders, data=st.data())
def test_heapsort_leaves_the_rest_in_the_order_given(items: list[int], data: st.DataObject) -> None:
    """Behind the first k places the others stand as they were given."""
    k, size = data.draw(st.integers(1, len(items))), data.draw(st.integers(2, 12))
    order = Asked(oracle).sort(heapsort, items, k, size)
    assert order[k:] == [item for item in items if item in order[k:]]


@both
@settings(max_examples=50, deadline=None)
@given(items=orders, data=st.data())
def test_wrong_answers_lose_no_item_and_cost_no_more(sort: Sort, bound: Bound, items: list[int], data: st.DataObject) -> None:
    """Answers that agree with no order give a permutation all the same, within the same bound."""
    k, size, seed = data.draw(st.integers(1, len(items))), data.draw(st.integers(2, 12)), data.draw(st.integers(0, 9999))
    asked = Asked(erratic(seed))
    assert sorted(asked.sort(sort, items, k, size)) == sorted(items)
    assert len(asked.groups) <= bound(len(items), k, size).most


@both
@settings(max_examples=50, deadline=None)
@given(items=orders, data=st.data())
def test_without_answers_the_order_given_comes_back(sort: Sort, bound: Bound, items: list[int], data: st.DataObject) -> None:
    """Where no question can be told, nothing moves."""
    k, size = data.draw(st.integers(1, len(items))), data.draw(st.integers(2, 12))
    assert Asked(first).sort(sort, items, k, size) == items


@settings(max_examples=50, deadline=None)
@given(items=orders, data=st.data())
def test_in_heapsort_the_first_of_a_group_is_the_first_given(items: list[int], data: st.DataObject) -> None:
    """So a tie is decided by the order given, whatever other answers moved before."""
    k, size, seed = data.draw(st.integers(1, len(items))), data.draw(st.integers(2, 12)), data.draw(st.integers(0, 9999))
    asked = Asked(erratic(seed))
    asked.sort(heapsort, items, k, size)
    assert all(list(group) == sorted(group, key=items.index) for group in asked.groups)


@pytest.mark.parametrize("sort", [heapsort, bubblesort])
def test_an_empty_list_and_a_single_item_need_no_question(sort: Sort) -> None:
    """There is nothing to ask."""
    asked = Asked(oracle)
    assert asked.sort(sort, [], 3, 2) == []
    assert asked.sort(sort, [7], 3, 2) == [7]
    assert not asked.groups


@given(count=st.integers(2, 3000), k=st.integers(1, 3000), size=st.integers(2, 26))
def test_heapsort_costs_what_the_paper_says(count: int, k: int, size: int) -> None:
    """n / d turns to build and log_d n questions a place: the closed form that the docstring states."""
    k = min(k, count)
    arity = max(2, size - 1)
    height = 0
    while (arity ** (height + 1) - 1) // (arity - 1) <= count - 1:
        height += 1
    turn = 2 if size == 2 else 1
    most = heapsort_calls(count, k, size).most
    assert most <= turn * ((count - 1) / (arity - 1) + height) + (k - 1) * height
    if size == 2:
        assert most <= 2 * (count - 1) + (k - 1) * math.floor(math.log2(count))


@given(count=st.integers(1, 500), k=st.integers(1, 500), size=st.integers(2, 26))
def test_bubblesort_costs_what_the_papers_say(count: int, k: int, size: int) -> None:
    """n - 1 - i pairs in pass i (Qin et al.), k n / (c - 1) questions about c items (Zhuang et al.)."""
    k = min(k, count)
    most = bubblesort_calls(count, k, size).most
    if size == 2:
        assert most == sum(count - 1 - done for done in range(k))
    assert most <= k * math.ceil((count - 1) / (size - 1))


def test_bubblesort_reaches_its_bound_and_stops_early() -> None:
    """A list the wrong way round needs every pair of every pass; one in order needs one pass."""
    backwards, sorted_already = Asked(oracle), Asked(oracle)
    assert backwards.sort(bubblesort, range(20, 0, -1), 10, 2) == [*range(1, 11), *range(20, 10, -1)]
    assert len(backwards.groups) == sum(19 - done for done in range(10))
    assert sorted_already.sort(bubblesort, range(20), 10, 2) == list(range(20))
    assert len(sorted_already.groups) == 19


def test_the_top_of_a_list_that_is_no_multiple_of_the_step_is_reached() -> None:
    """The last group of a pass is shorter, and ends at the place that the pass is for."""
    asked = Asked(oracle)
    assert asked.sort(bubblesort, [5, 4, 3, 2, 1, 0], 1, 4)[0] == 0
    assert asked.groups == [(3, 2, 1, 0), (5, 4, 0)]


@settings(max_examples=50, deadline=None)
@given(items=orders, data=st.data())
def test_passes_side_by_side_are_passes_one_after_the_other(items: list[int], data: st.DataObject) -> None:
    """Bubble sort asks the same questions and ends the same as when each pass waits for the one before, in n + k steps."""
    k, size = data.draw(st.integers(1, len(items))), data.draw(st.integers(2, 6))
    seed = data.draw(st.integers(0, 9999))
    answer = erratic(seed)
    order, groups = list(items), set()
    for top in range(k):
        end = len(order)
        while end - top > 1:
            start = max(top, end - size)
            groups.add(tuple(order[start:end]))
            order.insert(start, order.pop(start + answer(order[start:end])))
            end = start + 1
    asked = Asked(answer)
    assert asked.sort(bubblesort, items, k, size) == order
    assert len(asked.groups) == len(set(asked.groups))
    assert set(asked.groups) == groups
    assert asked.steps <= len(items) + k


def test_a_heap_is_built_a_level_a_step() -> None:
    """Questions about different branches go out together."""
    asked = Asked(first)
    asked.sort(heapsort, range(100), 1, 5)
    assert len(asked.groups) == 25
    assert asked.steps == 4  # 4 of the 25 inner nodes are on the fourth level


@given(items=orders)
@settings(max_examples=25, deadline=None)
def test_all_pairs_count_wins_and_halve_ties(items: list[int]) -> None:
    """Each pair meets once, all in one step: the best wins all, and the points add up to the number of pairs."""
    met: list[frozenset[int]] = []

    def duel(one: int, other: int) -> Flowing[float]:
        met.append(frozenset({one, other}))
        yield [Prompt()]
        return 0.5 if {one, other} == {0, 1} else float(one < other)

    flow = all_pairs(items, duel)
    pairs = len(items) * (len(items) - 1) // 2
    try:
        assert len(next(flow)) == pairs
        flow.send([Completion()] * pairs)
    except StopIteration as stop:
        points: list[float] = stop.value
    assert len(set(met)) == len(met) == pairs
    assert sum(points) == pairs
    expected = {item: float(len(items) - 1 - item) for item in items}
    if len(items) > 1:
        expected[0], expected[1] = len(items) - 1.5, len(items) - 1.5
    assert dict(zip(items, points, strict=True)) == expected
