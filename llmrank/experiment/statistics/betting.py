"""Bounded observations go in, in order; an interval of their mean comes out that may be looked at, and acted on, at any time.

An interval of a fixed sample holds its value with 95 % at one moment that was fixed before. Who looks after every user and
stops at the first "significant" look is wrong far more often. A confidence sequence holds the mean at all times at once with
95 %, so any rule to stop is allowed, also one that looks at the numbers.

The one here is exact for every number of observations: no normal approximation, nothing else assumed than the bounds, and that
each observation's mean, given those before, is the same (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random
variables by betting", theorem 3: the hedged capital process, with predictable plug-in bets). For every value that the mean
might have, two gamblers bet that it is higher and that it is lower, in a game that is fair if the mean is that value; values at
which either has multiplied the stake by 2 / alpha are ruled out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures.statistics import Floats

MOST = 0.5
"""The part of what can be lost that is staked at most (c in the paper)."""

CELLS = 1 << 17
"""How many numbers are held in memory at once."""


@dataclass(slots=True)
class _Moments:
    """What the next bet rests on: everything before it, of one stream an entry; values are in [0, 1]."""

    n: int
    total: Floats  # 1/2 + the sum of the values
    squares: Floats  # 1/4 + the sum of their squared distances from the mean as it was known

    @classmethod
    def fresh(cls, streams: int) -> _Moments:
        return cls(0, np.full(streams, 0.5), np.full(streams, 0.25))

    def bets(self, values: Floats, reach: float) -> Floats:
        """The bet on each of the values, shape (streams, more), each from the values before it alone; then knows them all."""
        more = values.shape[1]
        # Sums go on from what was carried, in the same order: the same bits, in however many parts the values come.
        totals = np.cumsum(np.column_stack([self.total, values]), axis=1)
        steps = self.n + np.arange(1, more + 1)
        squares = np.cumsum(np.column_stack([self.squares, (values - totals[:, 1:] / (steps + 1)) ** 2]), axis=1)
        bets: Floats = np.sqrt(reach / (squares[:, :-1] * np.log1p(steps)))
        self.n, self.total, self.squares = self.n + more, totals[:, -1].copy(), squares[:, -1].copy()
        return bets


class BoundedSequence:
    """A confidence sequence of the mean of observations that lie between two bounds, and always-valid p values.

    Give observations in the order in which they were made (or any order that does not depend on them), each user once. For
    the difference of two metrics from 0 to 1 the bounds are -1 and 1.

    The interval is the running intersection: what has been ruled out once stays so, and it never becomes wider. That is just as
    valid as the interval of the present moment, and is what lets a decision stand that was made on it.

    Args:
        low, high: The bounds.
        confidence: The chance that the interval holds the mean at all times.
        null: The mean that p values speak of.
        points: Into how many parts the range is divided; ends are rounded outwards to these.

    Raises:
        ConfigError: an argument is out of range.
    """

    def __init__(self, low: float, high: float, *, confidence: float = 0.95, null: float = 0.0, points: int = 2000) -> None:
        _check(low, high, confidence, null)
        if points < 10:
            raise ConfigError("must be at least 10", field="points", value=points, fix="2000 is usual")
        self._floor, self._range = float(low), float(high) - float(low)
        self._reach = _reach(confidence)
        self._bound = math.log(2 / (1 - confidence))
        # The last place of either array is the null: it is always played for.
        self._means = np.append(np.linspace(0.0, 1.0, points + 1), (null - low) / (high - low))
        self._up, self._down = (np.zeros(points + 2) for _ in range(2))
        self._first, self._last = 0, points  # the places that are not ruled out
        self._moments = _Moments.fresh(1)
        self._sum = 0.0
        self._most = -math.inf

    @property
    def n(self) -> int:
        """How many observations there are."""
        return self._moments.n

    @property
    def mean(self) -> float:
        """Of the observations; NaN without one."""
        return self._sum / self.n if self.n else math.nan

    @property
    def low(self) -> float:
        """The interval's lower end; the bound before there is anything to say."""
        return self._floor + self._range * float(self._means[max(0, self._first - 1)])

    @property
    def high(self) -> float:
        """Its upper end. Where nothing is left of the interval, as the mean changed or by bad luck (no more often than the
        confidence says), the interval stays at the last place that was left.
        """
        return self._floor + self._range * float(self._means[min(len(self._means) - 2, self._last + 1)])

    @property
    def p(self) -> float:
        """The always-valid p value of the mean being `null`: with the chance alpha at most is it ever as small as alpha."""
        return min(1.0, 2 * math.exp(-self._most)) if self.n else 1.0

    def extend(self, values: ArrayLike) -> None:
        """Takes more observations, in order; a call for each or one for all is the same.

        Args:
            values: Shape (n,).

        Raises:
            InputError: a value is not a number between the bounds, or they have more than one dimension.
        """
        given = np.atleast_1d(np.asarray(values, dtype=np.float64))
        scaled = _scaled(given[None, :] if given.ndim == 1 else given, self._floor, self._floor + self._range)
        if given.ndim != 1:
            raise InputError("must have one dimension", field="values", value=given.shape, fix="give one stream, in order")
        done = 0
        while done < len(given):
            active = np.append(np.arange(self._first, self._last + 1), len(self._means) - 1)
            part = scaled[:, done : done + max(1, CELLS // len(active))]
            bets = self._moments.bets(part, self._reach)
            self._play(active, part[0], bets[0])
            done += part.shape[1]
        self._sum = float(np.cumsum(np.append(self._sum, given))[-1])

    def _play(self, active: np.ndarray, values: Floats, bets: Floats) -> None:
        """Moves all games on by these values, and rules out."""
        means = self._means[active]
        up, down = _gains(values[:, None], bets[:, None], means)
        np.add(up[0], self._up[active], out=up[0])
        np.add(down[0], self._down[active], out=down[0])
        np.cumsum(up, axis=0, out=up)
        np.cumsum(down, axis=0, out=down)
        self._up[active], self._down[active] = up[-1], down[-1]
        self._most = max(self._most, float(up[:, -1].max()), float(down[:, -1].max()))
        # Money on "higher" falls with the mean that is played for, on "lower" it rises: what is ruled out are the two ends.
        first = self._first + int((up[:, :-1].max(axis=0) >= self._bound).sum())
        last = self._last - int((down[:, :-1].max(axis=0) >= self._bound).sum())
        if first > last:  # nothing is left
            first = last = min(max(first, self._first), self._last)
        self._first, self._last = first, last


def bounded_p_values(
    values: ArrayLike, low: float, high: float, *, confidence: float = 0.95, null: float | ArrayLike = 0.0
) -> Floats:
    """The p values of many `BoundedSequence` at once, after every observation.

    The interval leaves out `null` from the moment on at which p is 1 - confidence or less; so this also tells
    how often, and when, the interval misses a mean that is known.

    Args:
        values: Shape (streams, n), in order.
        low, high: The bounds.
        confidence: The bets are made for.
        null: The mean that p speaks of; one, or one a stream.

    Returns:
        Shape (streams, n); never rising.

    Raises:
        ConfigError: an argument is out of range.
        InputError: a value is not a number between the bounds, or the shape is another.
    """
    up, down = bounded_capitals(values, low, high, confidence=confidence, null=null)
    ps: Floats = np.minimum(1.0, 2 * np.exp(-np.maximum(up, down)))
    return ps


def bounded_capitals(
    values: ArrayLike, low: float, high: float, *, confidence: float = 0.95, null: float | ArrayLike = 0.0, most: float = MOST
) -> tuple[Floats, Floats]:
    """What the two gamblers of many streams ever had, after every observation: for questions with one side.

    Where the mean is `null` or less, the one who bets on "higher" ever has 1 / alpha with the chance alpha at most; where it is
    `null` or more, so has the one who bets on "lower".

    Args:
        values: Shape (streams, n), in order.
        low, high: The bounds.
        confidence: The bets are made for: that of both sides together, 1 - 2 alpha.
        null: The mean that the game is fair for; one, or one a stream.
        most: The part of what can be lost that is staked at most.

    Returns:
        The logarithms of the most that the one who bets on "higher", and on "lower", ever had, each of shape (streams, n).

    Raises:
        ConfigError: an argument is out of range.
        InputError: a value is not a number between the bounds, or the shape is another.
    """
    nulls = np.asarray(null, dtype=np.float64)
    for each in np.unique(nulls):
        _check(low, high, confidence, float(each))
    table = np.asarray(values, dtype=np.float64)
    scaled = _scaled(table, low, high)
    bets = _Moments.fresh(len(table)).bets(scaled, _reach(confidence))
    means = np.broadcast_to((nulls - low) / (high - low), (len(table),))[:, None]
    up, down = (np.maximum.accumulate(np.cumsum(each, axis=1), axis=1) for each in _gains(scaled, bets, means, most))
    return up, down


def _gains(values: Floats, bets: Floats, means: Floats, most: float = MOST) -> tuple[Floats, Floats]:
    """The logarithms of what one play multiplies the money on "higher" and on "lower" by."""
    with np.errstate(divide="ignore", over="ignore"):
        up = np.minimum(bets, most / means)
        down = np.minimum(bets, most / (1 - means))
    away = values - means
    up *= away
    down *= away
    return np.log1p(up, out=up), np.log1p(np.negative(down, out=down), out=down)


def _reach(confidence: float) -> float:
    return 2 * math.log(2 / (1 - confidence))


def _check(low: float, high: float, confidence: float, null: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError("must be a number above `low`", field="high", value=high, fix="-1 and 1 for differences of NDCG")
    if not 0 < confidence < 1:
        raise ConfigError("must be between 0 and 1", field="confidence", value=confidence, fix="0.95 is usual")
    if not low <= null <= high:
        raise ConfigError(f"must be from {low:g} to {high:g}", field="null", value=null, fix="a mean that is possible")


def _scaled(table: Floats, low: float, high: float) -> Floats:
    """The values as parts of the range."""
    if table.ndim != 2:
        raise InputError("must have two dimensions", field="values", value=table.shape, fix="one row a stream, in order")
    outside = ~((table >= low) & (table <= high))
    if outside.any():
        fix = "the interval is only true if no observation can lie outside; choose bounds that hold them all"
        raise InputError(f"must be a number from {low:g} to {high:g}", field="values", value=float(table[outside][0]), fix=fix)
    return (table - low) / (high - low)
