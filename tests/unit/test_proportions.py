"""Intervals of rates and of their differences: against the published examples, and at the ends, which they are made for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.evaluation.measures.proportions import rate_difference, wilson

RATES = st.integers(1, 500).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_rate_is_the_published_one(hits: int, of: int, low: float, high: float) -> None:
    """Newcombe 1998 ("Two-sided confidence intervals for the single proportion"), table I, method 3."""
    assert wilson(hits, of) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
        ((0, 10), (0, 10), -0.2775, 0.2775),
    ],
)
def test_the_interval_of_a_difference_is_the_published_one(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe 1998 ("... the difference between independent proportions"), table II, method 10."""
    assert rate_difference(first, second) == pytest.approx((low, high), abs=5e-5)


@given(RATES, RATES)
def test_intervals_hold_their_values_and_have_a_width(first: tuple[int, int], second: tuple[int, int]) -> None:
    """Also where nothing or everything was hit; none leaves what is possible, and turning the sides turns the difference."""
    low, high = wilson(*first)
    assert 0 <= low <= first[0] / first[1] + 1e-12
    assert first[0] / first[1] <= high + 1e-12 <= 1 + 1e-9
    assert high - low > 0.001
    below, above = rate_difference(first, second)
    assert -1 - 1e-9 <= below <= first[0] / first[1] - second[0] / second[1] <= above <= 1 + 1e-9
    assert rate_difference(second, first) == pytest.approx((-above, -below))


def test_more_confidence_takes_a_wider_interval() -> None:
    """And more trials a narrower one."""
    assert wilson(5, 20, 0.99)[1] > wilson(5, 20, 0.95)[1] > wilson(50, 200, 0.95)[1]
