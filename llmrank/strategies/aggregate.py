"""Several orders of the same items go in (ballots, perhaps incomplete), one order with a score for each item comes out.

An item that a ballot lacks stands below all that are in it, level with the others that it lacks. Items that come out equal
stand in the order given.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MOST_EXACT = 12
"""The most items that beat each other in a circle of which Kemeny's order is searched exactly: 4,096 subsets, some 20 ms."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """What several orders come to.

    Attributes:
        order: All items, best first.
        scores: A score for each item, higher is better; `order` follows it.
        notes: What could not be done exactly, a sentence each.
    """

    order: tuple[str, ...]
    scores: Mapping[str, float]
    notes: tuple[str, ...] = ()


def borda(items: Sequence[str], ballots: Sequence[Sequence[str]]) -> Aggregate:
    """The Borda count: an item's score is the mean over the ballots of n points for the first place to 1 for the last.

    Items that a ballot lacks get the mean of the points that are left (Aslam and Montague, "Models for metasearch", SIGIR
    2001).

    Args:
        items: All items, without repetition, in the order in which equal ones are to stand.
        ballots: Best first; each holds some of `items`, none twice.

    Raises:
        ValueError: a ballot holds an item twice, or one that is not in `items`.
    """
    _check(items, ballots)
    count = len(items)
    points = dict.fromkeys(items, 0)  # twice the points: whole numbers, so that equal is equal
    for ballot in ballots:
        for place, item in enumerate(ballot):
            points[item] += 2 * (count - place)
        for item in set(items).difference(ballot):
            points[item] += count - len(ballot) + 1
    return _by_score(items, {item: total / (2 * max(1, len(ballots))) for item, total in points.items()})


def reciprocal_rank(items: Sequence[str], ballots: Sequence[Sequence[str]], k: int = 60) -> Aggregate:
    """Reciprocal rank fusion: an item's score is the sum of 1 / (k + rank) over the ballots that hold it.

    Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods",
    SIGIR 2009.

    Args:
        items: All items, without repetition, in the order in which equal ones are to stand.
        ballots: Best first; each holds some of `items`, none twice.
        k: The larger, the less a first place counts more than a second one; 60 in the paper.

    Raises:
        ValueError: a ballot holds an item twice, or one that is not in `items`.
    """
    _check(items, ballots)
    parts: dict[str, list[float]] = {item: [] for item in items}
    for ballot in ballots:
        for rank, item in enumerate(ballot, start=1):
            parts[item].append(1 / (k + rank))
    # fsum is exact, so that the same ranks in another order of the ballots give the same sum.
    return _by_score(items, {item: math.fsum(each) for item, each in parts.items()})


def kemeny(items: Sequence[str], ballots: Sequence[Sequence[str]], most_exact: int = MOST_EXACT) -> Aggregate:
    """Kemeny's order: the one that contradicts the ballots in the fewest pairs of items.

    It is what permutation self-consistency aggregates by (Tang et al., "Found in the Middle", NAACL 2024, arXiv:2310.07712).
    Groups of items that beat each other in a circle keep together, and each group stands before those whose items it beats
    (the extended Condorcet criterion; Truchon 1998). Within a group the order is searched over all subsets. Within one of more
    than `most_exact` items, single items are moved from Borda's order on as long as that mends anything, and a note says so.

    Args:
        items: All items, without repetition. Where the ballots leave it open, items stand in this order, as far as that breaks
            up no group.
        ballots: Best first; each holds some of `items`, none twice.
        most_exact: The most items of a group whose order is searched exactly.

    Returns:
        The order; the scores are n for the first place to 1 for the last, as more than an order is not known. Items that are in
        no ballot stand last and share the mean of their points.

    Raises:
        ValueError: a ballot holds an item twice, or one that is not in `items`.
    """
    _check(items, ballots)
    wins = _wins(items, ballots)
    notes = []
    order: list[int] = []
    for group in _groups(wins):
        if len(group) <= most_exact:
            order += _exact(group, wins)
        else:
            points = borda(items, ballots).scores
            order += _improved(sorted(group, key=lambda one: (-points[items[one]], one)), wins)
            notes.append(f"{len(group)} candidates beat each other in a circle; their Kemeny order is not proven optimal")
    count = len(items)
    ordered = tuple(items[one] for one in order)
    left = count - len(set().union(*ballots))
    scores = [*map(float, range(count, left, -1)), *[(left + 1) / 2] * left]
    return Aggregate(ordered, dict(zip(ordered, scores, strict=True)), tuple(notes))


def _check(items: Sequence[str], ballots: Iterable[Sequence[str]]) -> None:
    known = set(items)
    for ballot in ballots:
        if len(set(ballot)) < len(ballot):
            raise ValueError("a ballot holds an item twice")
        for item in ballot:
            if item not in known:
                raise ValueError(f"a ballot holds {item!r}, which is not to be ranked")


def _by_score(items: Sequence[str], scores: Mapping[str, float]) -> Aggregate:
    return Aggregate(tuple(sorted(items, key=lambda item: -scores[item])), scores)  # stable


def _wins(items: Sequence[str], ballots: Sequence[Sequence[str]]) -> list[list[int]]:
    """How many ballots have item i above item j, at [i][j]."""
    numbers = {item: number for number, item in enumerate(items)}
    wins = [[0] * len(items) for _ in items]
    for ballot in ballots:
        below = set(range(len(items)))
        for item in ballot:
            number = numbers[item]
            below.remove(number)
            row = wins[number]
            for other in below:
                row[other] += 1
    return wins


def _groups(wins: Sequence[Sequence[int]]) -> list[list[int]]:
    """Items that beat each other in a circle, together; each group before all that it beats, else in the order given.

    These are the strongly connected components of "more ballots have i above j than j above i", in topological order. Any such
    order is the best between the groups: each pair costs the least that it can.
    """
    count = len(wins)
    beats = [sum(1 << j for j in range(count) if wins[i][j] > wins[j][i]) for i in range(count)]
    reach = list(beats)  # a bit for each item; Warshall's transitive closure
    for k in range(count):
        for i in range(count):
            if reach[i] >> k & 1:
                reach[i] |= reach[k]
    reached = [sum(1 << j for j in range(count) if reach[j] >> i & 1) for i in range(count)]
    waiting = (1 << count) - 1
    placed: list[list[int]] = []
    while waiting:
        free = next(i for i in range(count) if waiting >> i & 1 and not waiting & reached[i] & ~reach[i])
        circle = 1 << free | reach[free] & reached[free]
        placed.append([i for i in range(count) if circle >> i & 1])
        waiting &= ~circle
    return placed


def _exact(group: Sequence[int], wins: Sequence[Sequence[int]]) -> list[int]:
    """The best order of a group, by dynamic programming over its subsets.

    The cost of a set is that of its best first item against the rest, and the cost of the rest (Held and Karp, 1962).
    """
    size = len(group)
    if size == 1:
        return list(group)
    full = 1 << size
    against = []  # for each item and each set, how many ballots contradict that the item stands above all of the set
    for one in group:
        row = [0] * full
        for chosen in range(1, full):
            lowest = chosen & -chosen
            row[chosen] = row[chosen ^ lowest] + wins[group[lowest.bit_length() - 1]][one]
        against.append(row)
    cost = [0] * full
    first = [0] * full
    for chosen in range(1, full):
        best = -1
        for one in range(size):
            bit = 1 << one
            if chosen & bit:
                rest = chosen ^ bit
                found = against[one][rest] + cost[rest]
                if best < 0 or found < best:  # of equally good ones, the first in the order given
                    best, first[chosen] = found, one
        cost[chosen] = best
    order = []
    left = full - 1
    while left:
        order.append(group[first[left]])
        left ^= 1 << first[left]
    return order


def _improved(order: Sequence[int], wins: Sequence[Sequence[int]]) -> list[int]:
    """The order after moving single items to better places until no single move mends anything.

    Each move lowers the number of contradicted pairs, so it ends.
    """
    order = list(order)
    moved = True
    while moved:
        moved = False
        for one in list(order):
            start = order.index(one)
            best, place = 0, start
            change = 0
            for other in range(start - 1, -1, -1):  # upwards, past each of those above
                change += wins[order[other]][one] - wins[one][order[other]]
                if change < best:
                    best, place = change, other
            change = 0
            for other in range(start + 1, len(order)):
                change += wins[one][order[other]] - wins[order[other]][one]
                if change < best:
                    best, place = change, other
            if place != start:
                order.insert(place, order.pop(start))
                moved = True
    return order


def kendall_tau(first: Sequence[str], second: Sequence[str]) -> float:
    """Kendall's rank correlation of two orders, over the items that both have: 1 the same, 0 unrelated, -1 reversed.

    Orders have no ties, so tau-a and tau-b (Kendall 1945) are one. NaN if they share fewer than two items.
    """
    place = {item_id: at for at, item_id in enumerate(first)}
    places = [place[item_id] for item_id in second if item_id in place]
    pairs = len(places) * (len(places) - 1) // 2
    if not pairs:
        return math.nan
    # Pairs in the wrong order: for each item those before it in `second` that `first` has after it.
    wrong = 0
    before: list[int] = []
    for at in places:
        found = bisect_right(before, at)
        wrong += len(before) - found
        before.insert(found, at)
    return 1.0 - 2.0 * wrong / pairs
