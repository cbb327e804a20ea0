"""Items in the order given and a question for the best of a few go in; the order by the fewest such questions comes out.

Pure sorting, over items of any kind: a question is a part of a flow (`Best`), and what it asks is not known here. Questions
that do not wait for each other are asked in one step: a question is a call of a model, so the calls count, and the steps
(Wisznia et al. 2025, "Are Optimal Algorithms Still Optimal?", arXiv:2505.24643). Where the answers agree with some order, the
first `k` places follow it; where no question is answered, the order given comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

from llmrank.strategies.calls import Calls
from llmrank.strategies.shrink import Flowing
from llmrank.strategies.together import together

T = TypeVar("T")

Best: TypeAlias = Callable[[Sequence[T]], Flowing[int]]
"""Finds the place of the best of two items or more. 0, where the incumbent stands, if there is no telling."""

Duel: TypeAlias = Callable[[T, T], Flowing[float]]
"""What the first of two items wins against the second: 1 it wins, 0 it loses, 0.5 there is no telling."""


def heapsort(items: Sequence[T], k: int, size: int, best: Best[T]) -> Flowing[list[T]]:
    """Puts the best `k` items first, by a heap whose inner nodes have ``size - 1`` children (two at least).

    The heap is built from below, each level in lockstep. When the best leaves the root, the best of its children rises, and
    the gap that it leaves is filled only once that is needed. Textbooks move the last leaf to the root and let it sink, which
    compares one item a level more, asks for places that nobody wants, and changes the order where no question is answered.

    Args:
        items: In the order given.
        k: How many first places are wanted.
        size: The most items a question may show, from 2 on. Larger groups are knocked out in several questions.
        best: The question. The first of a group stands first in the order given.

    Returns:
        The first `k`, sorted, then the others in the order given.
    """
    heap = _Heap(items, size, best)
    for level in reversed(heap.levels):
        yield from together([heap.settle(node) for node in level])
    first: list[int] = []
    for _ in range(min(k, len(items))):
        if first:
            yield from heap.rise(0)
        first.append(heap.take())
    taken = frozenset(first)
    return [items[place] for place in first] + [item for place, item in enumerate(items) if place not in taken]


def heapsort_calls(count: int, k: int, size: int) -> Calls:
    """How many questions `heapsort` asks.

    With d children a node the heap's height h is the floor of ``log_d((n - 1) (d - 1) + 1)``. To build it takes at most
    ``(n - 1) / (d - 1) + h`` turns (one question each, two where a question shows two items), and each place but the first at
    most h questions. That is O(n / d + k log_d n), of which the table of Zhuang et al. (2024) gives the second part.

    Args:
        count: How many items there are.
        k: How many first places are put right.
        size: The most items that a question shows, from 2 on.

    Returns:
        The least where answers that are known already need no question, and the most.
    """
    arity = _arity(size)
    inner = _inner(count, arity)
    longest = [0] * max(count, 1)  # the questions on the longest way down from each node
    depths = [0] * max(count, 1)
    least = 0
    for node in reversed(range(inner)):
        children = _children(node, arity, count)
        turn = _questions(1 + len(children), size)
        longest[node] = turn + max(longest[child] for child in children)
        least += turn
    for node in range(1, count):
        depths[node] = depths[(node - 1) // arity] + 1
    # Before the place i (from 0) is filled, i items have left, so that at most i gaps hang together. And in a whole sort items
    # rise by their depths in all, the last one through each inner node without a question, as nothing is beside it.
    rises = min(sum(min(place, depths[-1]) for place in range(1, k)), sum(depths) - inner)
    return Calls(least, sum(longest) + rises)


def bubblesort(items: Sequence[T], k: int, size: int, best: Best[T]) -> Flowing[list[T]]:
    """Brings the best `k` items to the front, by `k` passes of overlapping groups from the end to the beginning.

    The best of a group moves to its front, which is the end of the next group; the last group of a pass is as small as need
    be to end at the place that the pass is for. A group met again as it was is not asked again: so after a pass over pairs
    that exchanges none, nothing is asked, while larger groups go on for the places behind their best. Each pass runs two groups
    behind the one before it, which changes no question and takes ``n + k`` steps instead of ``n k``.

    Args:
        items: In the order given.
        k: How many first places are wanted.
        size: How many items a group has, from 2 on.
        best: The question.

    Returns:
        The first `k`, sorted, then the others as the passes left them.
    """
    order = list(range(len(items)))
    known: dict[tuple[int, ...], int] = {}

    def turn(start: int, end: int) -> Flowing[None]:
        group = tuple(order[start:end])
        if group not in known:
            known[group] = yield from best([items[place] for place in group])
        order.insert(start, order.pop(start + known[group]))

    passes = [_groups(top, len(items), size) for top in range(min(k, len(items) - 1))]
    for step in range(max((2 * number + len(groups) for number, groups in enumerate(passes)), default=0)):
        # Groups of one step have no place in common: the pass before is two groups on.
        yield from together(
            [turn(*groups[at]) for number, groups in enumerate(passes) if 0 <= (at := step - 2 * number) < len(groups)]
        )
    return [items[place] for place in order]


def bubblesort_calls(count: int, k: int, size: int) -> Calls:
    """How many questions `bubblesort` asks: at most ``ceil((n - 1 - i) / (size - 1))`` in pass i, from 0 on.

    Args:
        count: How many items there are.
        k: How many first places are put right.
        size: The most items that a question shows, from 2 on.

    Returns:
        The least where no pass but the first has to ask, and the most.
    """
    passes = [_questions(count - top, size) for top in range(min(k, count - 1))]
    return Calls(passes[0] if passes else 0, sum(passes))


def all_pairs(items: Sequence[T], duel: Duel[T]) -> Flowing[list[float]]:
    """Has each item meet each other once, all in one step.

    Args:
        items: What meets.
        duel: What the first of two wins against the second, from 0 to 1.

    Returns:
        What each item wins in all, parallel to `items`: a win counts 1, a draw 0.5.
    """
    pairs = [(one, other) for other in range(len(items)) for one in range(other)]
    shares = yield from together([duel(items[one], items[other]) for one, other in pairs])
    points = [0.0] * len(items)
    for (one, other), share in zip(pairs, shares, strict=True):
        points[one] += share
        points[other] += 1 - share
    return points


class _Heap(Generic[T]):
    """A heap of places in the order given, best on top, whose first children of node p stands at ``p * arity + 1``."""

    def __init__(self, items: Sequence[T], size: int, best: Best[T]) -> None:
        self._items, self._size, self._best = items, size, best
        self._arity = _arity(size)
        self._nodes: list[int | None] = list(range(len(items)))
        self._gaps: set[int] = set()
        """Nodes whose item left and that may have items below."""

    @property
    def levels(self) -> list[range]:
        """The inner nodes of each level, from the root on."""
        inner = _inner(len(self._items), self._arity)
        levels, start, width = [], 0, 1
        while start < inner:
            levels.append(range(start, min(start + width, inner)))
            start, width = start + width, width * self._arity
        return levels

    def settle(self, node: int) -> Flowing[None]:
        """Lets the item at `node` sink below all that are better, where all below is in order."""
        while children := _children(node, self._arity, len(self._items)):
            better = yield from self._best_of([node, *children])
            if better == node:
                return
            self._nodes[node], self._nodes[better] = self._nodes[better], self._nodes[node]
            node = better

    def take(self) -> int:
        """The best item's place in the order given; it leaves."""
        place = self._nodes[0]
        if place is None:
            raise ValueError("the root is empty")
        self._nodes[0] = None
        self._gaps.add(0)
        return place

    def rise(self, gap: int) -> Flowing[None]:
        """Fills `gap` with the best item below, which leaves a gap in its turn."""
        children = _children(gap, self._arity, len(self._items))
        for child in children:
            if child in self._gaps:
                yield from self.rise(child)
        self._gaps.discard(gap)
        there = [child for child in children if self._nodes[child] is not None]
        if there:
            risen = yield from self._best_of(there)
            self._nodes[gap], self._nodes[risen] = self._nodes[risen], None
            self._gaps.add(risen)

    def _best_of(self, nodes: Sequence[int]) -> Flowing[int]:
        """The node with the best item; on a tie, with the one that stands first in the order given."""
        places = sorted((place, node) for node in nodes if (place := self._nodes[node]) is not None)
        winner = yield from _knock_out([self._items[place] for place, _ in places], self._size, self._best)
        return places[winner][1]


def _knock_out(group: Sequence[T], size: int, best: Best[T]) -> Flowing[int]:
    """The place of the best of a group, by as many questions as it takes to show `size` items at a time.

    It goes from the end to the beginning: the incumbent comes last, so that the others have met when one of them follows it.
    """
    left = list(range(len(group)))
    while len(left) > 1:
        shown = left[-size:]
        left[-size:] = [shown[(yield from best([group[place] for place in shown]))]]
    return left[0]


def _questions(count: int, size: int) -> int:
    """How many questions about `size` items find the best of `count`."""
    return -(-max(0, count - 1) // (size - 1))


def _groups(top: int, count: int, size: int) -> list[tuple[int, int]]:
    """The groups of the pass that brings the best to `top`, from the end on."""
    return [(max(top, end - size), end) for end in range(count, top + 1, 1 - size)]


def _arity(size: int) -> int:
    # One child a node would be no heap but a list, which takes n^2 questions.
    return max(2, size - 1)


def _inner(count: int, arity: int) -> int:
    """How many nodes have children."""
    return max(0, (count - 2) // arity + 1)


def _children(node: int, arity: int, count: int) -> range:
    return range(min(node * arity + 1, count), min((node + 1) * arity + 1, count))
