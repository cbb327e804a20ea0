"""Cases go in, one after the other; what a reader of their results should know comes out, a sentence each."""

from __future__ import annotations

import math

from llmrank.evaluation.cases import Case

SURPRISE = 4.0
"""Standard errors beyond chance at which the place of relevant items is called a pattern."""


class Tally:
    """Counts what is odd about cases.

    Args:
        wanted: How many candidates each case should have; None for any number. It is set for retrieved candidates, of which a
            reader wants to know in any case how often the relevant ones are among them.
        order_tells: True looks whether the place of the relevant items gives them away.
    """

    def __init__(self, *, wanted: int | None = None, order_tells: bool = False) -> None:
        self._wanted, self._order_tells = wanted, order_tells
        self._cases = self._whole = self._short = self._seen = self._aimless = 0
        self._relevant = self._found = self._listed = 0
        self._at = {"first": 0, "last": 0}
        self._by_chance = 0.0

    def add(self, case: Case) -> None:
        """Counts one case."""
        self._cases += 1
        self._aimless += not case.relevant
        if case.candidates is None:
            self._whole += 1
            return
        relevant, candidates = set(case.relevant), case.candidates
        found = len(relevant.intersection(candidates))
        self._relevant += len(relevant)
        self._found += found
        self._short += self._wanted is not None and len(candidates) < self._wanted
        self._seen += not set(case.history).isdisjoint(candidates)
        if candidates:
            self._listed += 1
            self._by_chance += found / len(candidates)
            self._at["first"] += candidates[0] in relevant
            self._at["last"] += candidates[-1] in relevant

    def notes(self) -> tuple[str, ...]:
        """What was found so far."""
        return tuple(self._notes())

    def _notes(self) -> list[str]:
        notes = []
        if self._relevant and (self._found < self._relevant or self._wanted is not None):
            share = f"{100 * self._found / self._relevant:.1f} % of the relevant items ({self._found:,} of {self._relevant:,})"
            rest = "; no ranking finds the others" if self._found < self._relevant else ""
            notes.append(f"{share} are among the candidates{rest}")
        for place, count in self._at.items():
            if self._order_tells and count > self._by_chance + SURPRISE * math.sqrt(self._by_chance):
                often, chance = 100 * count / self._listed, 100 * self._by_chance / self._listed
                notes.append(
                    f"a relevant item stands {place} in {often:.0f} % of the given candidate lists (by chance {chance:.0f} %), "
                    "so that their order gives it away: set candidates.shuffle"
                )
        for count, what in (
            (self._whole if self._order_tells else 0, "name no candidates: the whole catalogue is ranked"),
            (self._short, f"have fewer than {self._wanted} candidates"),
            (self._seen, "have candidates that stand in their history"),
            (self._aimless, "have nothing relevant and count 0 in every measure"),
        ):
            if count:
                notes.append(f"{count:,} of {self._cases:,} cases {what}")
        return notes
