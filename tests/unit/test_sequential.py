"""Confidence sequences: against the papers' formulas written out, in any number of parts, and at their ends."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmrank.errors import ConfigError, InputError
from llmrank.experiment.statistics.sequential import (
    AsymptoticDifference,
    AsymptoticSequence,
    BoundedSequence,
    asymptotic_interval,
    asymptotic_p_values,
    bounded_p_values,
)

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=40)
NUMBERS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


def stakes(values: list[float], mean: float, alpha: float) -> tuple[float, float]:
    """Both gamblers' money at the end, as theorem 3 and equation 26 of the paper have it, one observation after another."""
    up = down = 1.0
    total, squares = 0.5, 0.25
    for step, value in enumerate(values, start=1):
        bet = math.sqrt(2 * math.log(2 / alpha) / (squares / step * step * math.log(1 + step)))
        up *= 1 + (min(bet, 0.5 / mean) if mean else bet) * (value - mean)
        down *= 1 - (min(bet, 0.5 / (1 - mean)) if mean < 1 else bet) * (value - mean)
        total += value
        squares += (value - total / (step + 1)) ** 2
    return up, down


def test_ten_hits_of_ten_are_worth_what_a_hand_reckons() -> None:
    """Against a mean of 1/2 a whole stake of c / m = 1 wins 1/2 of itself each time: p is 2 / 1.5 ** 10 after ten ones."""
    sequence = BoundedSequence(0, 1, null=0.5)
    sequence.extend([1.0] * 10)
    assert sequence.p == pytest.approx(2 / 1.5**10)
    assert (sequence.n, sequence.mean, sequence.high) == (10, 1.0, 1.0)
    assert 0.45 < sequence.low < 1.0


@settings(deadline=None, max_examples=50)
@given(SHARES, st.floats(0, 1), st.floats(0.5, 0.99))
@example([0.0], 5e-324, 0.5)  # a mean so near to 0 that its inverse is no number
def test_bets_are_those_of_the_paper(values: list[float], mean: float, confidence: float) -> None:
    """p is 2 / the most that either gambler ever had, and the interval leaves out a mean exactly when p says so."""
    most = max(max(stakes(values[:stop], mean, 1 - confidence)) for stop in range(1, len(values) + 1))
    sequence = BoundedSequence(0, 1, confidence=confidence, null=mean)
    sequence.extend(values)
    assert sequence.p == pytest.approx(min(1.0, 2 / most), rel=1e-9)
    assert bounded_p_values([values], 0, 1, confidence=confidence, null=mean)[0, -1] == pytest.approx(sequence.p, rel=1e-9)
    if sequence.p > 1 - confidence:
        assert sequence.low <= mean <= sequence.high
    else:  # up to the rounding outwards to 2,000 parts
        assert not sequence.low + 0.001 < mean < sequence.high - 0.001


@settings(deadline=None, max_examples=30)
@given(SHARES, st.lists(st.integers(0, 40), max_size=4))
def test_parts_do_not_show(values: list[float], cuts: list[int]) -> None:
    """In however many parts observations come, the bits of every result are the same."""
    whole: list[Any] = [BoundedSequence(0, 1), AsymptoticSequence(expected_n=30, least=3)]
    parts: list[Any] = [BoundedSequence(0, 1), AsymptoticSequence(expected_n=30, least=3)]
    ends = sorted({0, *(min(cut, len(values)) for cut in cuts), len(values)})
    for one, other in zip(whole, parts, strict=True):
        one.extend(values)
        for start, stop in itertools.pairwise(ends):
            other.extend(values[start:stop])
        assert (one.n, one.mean, one.low, one.high, one.p) == (other.n, other.mean, other.low, other.high, other.p)


@settings(deadline=None, max_examples=30)
@given(st.lists(SHARES, min_size=1, max_size=5))
def test_an_interval_never_widens(parts: list[list[float]]) -> None:
    """What has been ruled out stays ruled out, and p never rises; low <= high, whatever comes."""
    for sequence in (BoundedSequence(0, 1), AsymptoticSequence(expected_n=10, least=2)):
        low, high, p = sequence.low, sequence.high, sequence.p
        for part in parts:
            sequence.extend(part)
            assert low <= sequence.low <= sequence.high <= high
            assert sequence.p <= p
            low, high, p = sequence.low, sequence.high, sequence.p


def test_bounds_may_be_any() -> None:
    """The interval moves with the values and their bounds."""
    values = np.random.default_rng(1).random(300)
    plain, moved = BoundedSequence(0, 1, null=0.5), BoundedSequence(-1, 3, null=1.0)
    plain.extend(values)
    moved.extend(4 * values - 1)
    assert moved.low == pytest.approx(4 * plain.low - 1)
    assert moved.high == pytest.approx(4 * plain.high - 1)
    assert moved.p == pytest.approx(plain.p)


def test_a_mean_that_moves_leaves_an_interval() -> None:
    """A thousand zeros, then a thousand ones: no mean fits all of it, and the ends still are in order."""
    sequence = BoundedSequence(0, 1)
    sequence.extend([0.0] * 1000 + [1.0] * 1000)
    assert 0 <= sequence.low <= sequence.high < 0.1


def test_nothing_is_known_of_nothing() -> None:
    """Before the first observation: the bounds, no mean, p 1."""
    bounded, free, groups = BoundedSequence(-1, 1), AsymptoticSequence(expected_n=100), AsymptoticDifference(expected_n=100)
    bounded.extend([])
    free.extend([])
    groups.extend()
    assert (bounded.n, bounded.low, bounded.high, bounded.p) == (0, -1, 1, 1)
    assert (free.n, free.low, free.high, free.p) == (0, -math.inf, math.inf, 1)
    assert (groups.n, groups.low, groups.high, groups.p) == ((0, 0), -math.inf, math.inf, 1)
    assert math.isnan(bounded.mean)
    assert math.isnan(free.mean)
    assert math.isnan(groups.mean)


@settings(deadline=None, max_examples=50)
@given(NUMBERS, st.floats(0.5, 0.99), st.integers(1, 1000))
def test_the_mixture_is_that_of_the_paper(values: list[float], confidence: float, expected: int) -> None:
    """Mean -+ sd * sqrt(2 (t r^2 + 1) / (t^2 r^2) * log(sqrt(t r^2 + 1) / alpha)), and nothing where the values never vary."""
    sequence = AsymptoticSequence(expected_n=expected, confidence=confidence, running=False, least=2)
    sequence.extend(values)
    t, alpha = len(values), 1 - confidence
    sd = np.std(values, ddof=1) if t > 1 else 0.0
    assert sequence.mean == pytest.approx(np.mean(values), abs=1e-9)
    if sd < 1e-3:
        return
    square = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / expected
    reach = sd * math.sqrt(2 * (t * square + 1) / (t * t * square) * math.log(math.sqrt(t * square + 1) / alpha))
    assert sequence.low == pytest.approx(sequence.mean - reach, rel=1e-6, abs=1e-6)
    assert sequence.high == pytest.approx(sequence.mean + reach, rel=1e-6, abs=1e-6)
    assert asymptotic_p_values([values], expected_n=expected, confidence=confidence, least=2)[0, -1] == pytest.approx(
        sequence.p, rel=1e-6
    )


@given(st.floats(-5, 5), st.floats(0.01, 5), st.integers(1, 10_000), st.floats(0.5, 0.99))
def test_the_interval_leaves_out_what_p_rejects(estimate: float, error: float, n: int, confidence: float) -> None:
    """0 lies outside exactly when p is below the level."""
    low, high, p = (float(each) for each in asymptotic_interval(estimate, error, n, expected_n=500, confidence=confidence))
    if abs(p - (1 - confidence)) > 1e-9:
        assert (low <= 0 <= high) == (p > 1 - confidence)


def test_the_mixture_is_narrowest_where_it_is_expected() -> None:
    """Of several tunings, each is the narrowest at its own number of observations."""
    tunings = (100, 1000, 10_000)
    for n in tunings:
        widths = [float(asymptotic_interval(0.0, 1.0, n, expected_n=expected)[1]) for expected in tunings]
        assert min(widths) == widths[tunings.index(n)]


def test_values_that_never_vary_say_nothing() -> None:
    """Without a spread nothing is known of what else might come: no interval of width 0."""
    sequence = AsymptoticSequence(expected_n=100, least=2)
    sequence.extend([0.1] * 50)
    assert (sequence.low, sequence.high, sequence.p) == (-math.inf, math.inf, 1.0)
    low, high, p = asymptotic_interval([0.1, math.nan], [0.0, 1.0], 100, expected_n=100)
    assert np.isinf([low, high]).all()
    assert (p == 1).all()


def test_two_groups_are_one_estimate() -> None:
    """The interval is that around the difference of the means with Welch's standard error, once both groups have enough."""
    generator = np.random.default_rng(3)
    value, control = generator.exponential(size=500), generator.exponential(size=300)
    groups = AsymptoticDifference(expected_n=1000, running=False)
    groups.extend(value, control[:99])
    assert groups.high == math.inf
    groups.extend(control=control[99:])
    error = math.sqrt(value.var(ddof=1) / 500 + control.var(ddof=1) / 300)
    low, high, p = asymptotic_interval(value.mean() - control.mean(), error, 800, expected_n=1000)
    assert (groups.low, groups.high, groups.p) == pytest.approx((float(low), float(high), float(p)))
    assert groups.n == (500, 300)


def test_many_pairs_of_groups_at_once() -> None:
    """The vectorised p values are those of a sequence that looks after one more user of each group."""
    value, control = np.random.default_rng(4).exponential(size=(2, 3, 150))
    ps = asymptotic_p_values(value, control, expected_n=200, least=20)
    for stream in range(3):
        groups = AsymptoticDifference(expected_n=200, least=20)
        for place in range(150):
            groups.extend(value[stream, place], control[stream, place])
            assert groups.p == pytest.approx(ps[stream, place], rel=1e-9)


def test_ten_thousand_observations_take_no_time() -> None:
    """Well under a second of CPU for all of them (it takes some hundredths)."""
    values = np.clip(np.random.default_rng(5).normal(0.03, 0.35, 10_000), -1, 1)
    begun = time.process_time()
    sequence = BoundedSequence(-1, 1)
    sequence.extend(values)
    assert time.process_time() - begun < 0.8
    assert 0 < sequence.low < 0.03 < sequence.high < 0.1


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: BoundedSequence(1, 1), "high"),
        (lambda: BoundedSequence(0, math.nan), "high"),
        (lambda: BoundedSequence(0, 1, confidence=1), "confidence"),
        (lambda: BoundedSequence(0, 1, null=2), "null"),
        (lambda: BoundedSequence(0, 1, points=1), "points"),
        (lambda: AsymptoticSequence(expected_n=0), "expected_n"),
        (lambda: AsymptoticSequence(expected_n=9, confidence=0), "confidence"),
        (lambda: AsymptoticDifference(expected_n=9, least=1), "least"),
    ],
)
def test_options_out_of_range_are_named(make: Any, field: str) -> None:
    """The error names the option."""
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.parametrize("values", [[1.5], [-0.1], [math.nan], [[0.5]]])
def test_observations_out_of_bounds_are_refused(values: Any) -> None:
    """What lies outside the bounds would make the guarantee untrue; nothing is taken from such a call."""
    sequence = BoundedSequence(0, 1)
    with pytest.raises(InputError):
        sequence.extend([*values])
    assert sequence.n == 0


@pytest.mark.parametrize("values", [[math.inf], [math.nan], [[0.5]]])
def test_observations_must_be_numbers(values: Any) -> None:
    """Neither a sequence nor a group takes what is not finite; nothing is taken from such a call."""
    free, groups = AsymptoticSequence(expected_n=9), AsymptoticDifference(expected_n=9)
    with pytest.raises(InputError):
        free.extend(values)
    with pytest.raises(InputError, match="control"):
        groups.extend([1.0], values)
    assert (free.n, groups.n) == (0, (0, 0))
