"""The events of an experiment go in; its users come out in the order of exposure, with their variants and what came after."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import InputError, nearest
from llmrank.experiment.online.event import Event

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """The users of an experiment.

    Attributes:
        units: Ids, in the order of their first exposure.
        places: Shape (units,): the place of each one's variant, that of its first exposure, in `variants`.
        exposed: Shape (units,): when that was, in Unix seconds.
        variants: The experiment's, in its order.
        moved: How many units were exposed to another variant later.
        impressions: Of interleaved lists, in the order of the log.
        clicks: On these.
        strangers: How many units have outcomes and no exposure.
        names: How often each outcome's name stands in the log.
        others: Names of other experiments in the log.
        foreign: How many events of these there are.
        later: How many events come after the time until which the log was read.
        begin, end: The times of the earliest and the latest event; NaN without one.
    """

    units: tuple[str, ...]
    places: Integers
    exposed: Floats
    variants: tuple[str, ...]
    moved: int
    impressions: tuple[Event, ...]
    clicks: tuple[Event, ...]
    strangers: int
    names: Mapping[str, int]
    others: tuple[str, ...]
    foreign: int
    later: int
    begin: float
    end: float
    _outcomes: Mapping[str, _Column] = field(repr=False)

    @property
    def counts(self) -> list[int]:
        """How many units each variant has."""
        return [int(number) for number in np.bincount(self.places, minlength=len(self.variants))]

    def after(self, name: str, window_s: float = math.inf, *, count: bool = False) -> Floats:
        """What each unit did from its exposure on, for so many seconds: shape (units,), 0 for nothing.

        Args:
            name: Of the outcomes.
            window_s: Outcomes count up to here, the end not included.
            count: True counts them; False sums their values.
        """
        units, times, values = self._outcome(name)
        since = times - self.exposed[units]
        return self._summed(units, values, (since >= 0) & (since < window_s), count=count)

    def before(self, name: str) -> Floats:
        """The sum of the values of each unit's outcomes from before its exposure: shape (units,), 0 for none."""
        units, times, values = self._outcome(name)
        return self._summed(units, values, times < self.exposed[units], count=False)

    def outside(self, name: str, window_s: float = math.inf) -> tuple[int, int]:
        """How many outcomes came before their unit's exposure, and how many after its window."""
        units, times, _ = self._outcome(name)
        since = times - self.exposed[units]
        return int((since < 0).sum()), int((since >= window_s).sum())

    def over(self, window_s: float) -> int:
        """How many units, the first ones, have had all of their window when the log ends."""
        if not math.isfinite(window_s):
            return len(self.units)
        return int(np.searchsorted(self.exposed + window_s, self.end, side="right"))

    def _outcome(self, name: str) -> tuple[Integers, Floats, Floats]:
        column = self._outcomes.get(name)
        if column is None:
            return np.empty(0, np.int64), np.empty(0), np.empty(0)
        return np.asarray(column.units, np.int64), np.asarray(column.times, np.float64), np.asarray(column.values, np.float64)

    def _summed(self, units: Integers, values: Floats, counted: NDArray[np.bool_], *, count: bool) -> Floats:
        weights = np.ones(int(counted.sum())) if count else values[counted]
        return np.bincount(units[counted], weights, minlength=len(self.units)).astype(np.float64)


class _Column:
    """The outcomes of one name: whose, when, how much. Arrays, for there may be many millions."""

    __slots__ = ("times", "units", "values")

    def __init__(self) -> None:
        self.units, self.times, self.values = array("q"), array("d"), array("d")

    def renumbered(self, numbers: Integers) -> _Column:
        """The same with other numbers for the units; those whose number is -1 are left out."""
        renumbered = _Column()
        units = numbers[np.asarray(self.units, np.int64)]
        known = units >= 0
        for name, values in (("units", units), ("times", np.asarray(self.times)), ("values", np.asarray(self.values))):
            getattr(renumbered, name).frombytes(np.ascontiguousarray(values[known]).tobytes())
        return renumbered


def tally(
    events: Iterable[Event], experiment: str, variants: Sequence[str], outcomes: Iterable[str], *, until: float = math.inf
) -> Tally:
    """Reads the events once, in whatever order of time they are.

    Args:
        events: Each once, also of other experiments.
        experiment: Its name.
        variants: Its variants.
        outcomes: The names of the outcomes that are asked for later.
        until: Events after this time are left out.

    Raises:
        InputError: a unit was exposed to, or was shown a list of, a variant that the experiment does not have.
    """
    variants = tuple(variants)
    first: dict[str, tuple[float, str]] = {}
    moved: set[str] = set()
    wanted = set(outcomes)
    columns: dict[str, _Column] = {}
    numbers: dict[str, int] = {}
    names: Counter[str] = Counter()
    lists: list[Event] = []
    clicks: list[Event] = []
    others: Counter[str] = Counter()
    later = 0
    begin, end = math.inf, -math.inf
    for event in events:
        if event.time > until:
            later += 1
            continue
        if event.experiment not in (experiment, None):
            others[str(event.experiment)] += 1
            end = max(end, event.time)  # of the log, which may hold several experiments
            continue
        begin, end = min(begin, event.time), max(end, event.time)
        if event.kind == "exposure":
            variant = str(event.variant)
            _check_variant(variant, variants)
            before = first.get(event.unit)
            if before is not None and before[1] != variant:
                moved.add(event.unit)
            if before is None or event.time < before[0]:
                first[event.unit] = (event.time, variant)
        elif event.kind == "outcome":
            name = str(event.name)
            names[name] += 1
            if name in wanted:
                column = columns.setdefault(name, _Column())
                column.units.append(numbers.setdefault(event.unit, len(numbers)))
                column.times.append(event.time)
                column.values.append(1.0 if event.value is None else event.value)
        elif event.kind == "impression":
            for variant in event.about["variants"].values():
                _check_variant(variant, variants)
            lists.append(event)
        else:
            clicks.append(event)
    # A stable sort: of two units of one moment the one that was logged first comes first.
    units = tuple(sorted(first, key=lambda unit: first[unit][0]))
    place = {unit: number for number, unit in enumerate(units)}
    renumbering = np.fromiter((place.get(unit, -1) for unit in numbers), np.int64, len(numbers))
    return Tally(
        units=units,
        places=np.array([variants.index(first[unit][1]) for unit in units], np.int64),
        exposed=np.array([first[unit][0] for unit in units], np.float64),
        variants=variants,
        moved=len(moved),
        impressions=tuple(lists),
        clicks=tuple(clicks),
        strangers=int((renumbering < 0).sum()),
        names=dict(names),
        others=tuple(sorted(others)),
        foreign=others.total(),
        later=later,
        begin=begin if math.isfinite(begin) else math.nan,
        end=end if math.isfinite(end) else math.nan,
        _outcomes={name: column.renumbered(renumbering) for name, column in columns.items()},
    )


def _check_variant(variant: str, variants: tuple[str, ...]) -> None:
    if variant not in variants:
        fix = f"read the log with the experiment's file of that time; {nearest(variant, variants)}"
        raise InputError("the log names a variant that the experiment does not have", field="log", value=variant, fix=fix)
