"""Outcomes of one ranker go in, one at a time; its worst and its best cases come out. Memory does not grow with the cases."""

from __future__ import annotations

import heapq
import math
from typing import TypeAlias

from llmrank.evaluation.measures.outcomes import Outcome

KEPT = 10
"""How many of each a report shows."""
FAILURES = KEPT // 2
"""How many of the worst may be failures, where there are other cases: a wrong order can be seen only where there is one."""

_Key: TypeAlias = tuple[bool, float, int, int]


class Extremes:
    """The worst and the best cases of a ranker, by one measure.

    Of the worst, failures stand first, then the lowest values; of equal values the case whose first relevant item stands
    lowest, then the earlier case. Cases whose relevant items no order can reach come after all others. The best are the
    highest values of cases that are no failures. Of few cases, half at most are among the worst and half among the best; of a
    single one, it is shown as the worst.

    Args:
        measure: The name of a measure that has a value for each case.
    """

    def __init__(self, measure: str) -> None:
        self._measure = measure
        self._failed, self._worst, self._best = _Heap(KEPT), _Heap(KEPT), _Heap(2 * KEPT)
        self._seen = 0

    def add(self, outcome: Outcome) -> None:
        """Looks at one more case; one for which the measure is not defined is neither good nor bad."""
        relevant = set(outcome.question.relevant)
        depth = next((place for place, item_id in enumerate(outcome.order, start=1) if item_id in relevant), None)
        value = outcome.values[self._measure]
        if math.isnan(value):
            return
        self._seen += 1
        badness: _Key = (depth is not None, -value, depth or 0, -outcome.case)
        if outcome.failed:
            self._failed.push(badness, outcome)
        else:
            self._worst.push(badness, outcome)
            self._best.push((depth is not None, value, -(depth or 0), -outcome.case), outcome)

    @property
    def worst(self) -> list[Outcome]:
        """At most `KEPT`, the worst first, failures before all."""
        room = min(KEPT, max(1, self._seen // 2))
        answered = self._worst.highest()
        failures = self._failed.highest()[: min(room, max((room + 1) // 2, room - len(answered)))]
        return failures + answered[: room - len(failures)]

    @property
    def best(self) -> list[Outcome]:
        """At most `KEPT`, the best first; none that is among the worst."""
        shown = {outcome.case for outcome in self.worst}
        room = min(KEPT, self._seen // 2)
        return [outcome for outcome in self._best.highest() if outcome.case not in shown][:room]


class _Heap:
    """Keeps the `size` outcomes with the highest keys. No two keys are equal: the case's number is in them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[_Key, Outcome]] = []

    def push(self, key: _Key, outcome: Outcome) -> None:
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (key, outcome))
        else:
            heapq.heappushpop(self._heap, (key, outcome))

    def highest(self) -> list[Outcome]:
        return [outcome for _, outcome in sorted(self._heap, key=lambda each: each[0], reverse=True)]
