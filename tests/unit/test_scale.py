"""Scales of drawings: whatever the values, each has a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.evaluation.report.scale import axis_over


@pytest.mark.parametrize("values", [[0.1 + 0.2, 0.3], [1e15, 1e15 + 0.125], [5e-324, 1e-323], [-0.3, -0.1 - 0.2], [7.0, 7.0]])
@pytest.mark.parametrize("differences", [True, False])
def test_values_that_differ_by_rounding_alone_are_drawn(values: list[float], differences: bool) -> None:
    """Two means that are the same but for the last bit have one place on a scale of few ticks."""
    axis = axis_over(values, length=100, margin=8, differences=differences)
    assert 2 <= len(axis.ticks) <= 7
    first, second = map(axis.at, values)
    assert first == second
    assert 8 <= first <= 92


@given(st.lists(st.floats(-1e100, 1e100), min_size=1), st.booleans())
def test_each_value_lies_on_its_scale(values: list[float], differences: bool) -> None:
    """Also beside others of any size."""
    axis = axis_over(values, length=100, margin=8, differences=differences)
    assert 2 <= len(axis.ticks) <= 7
    assert all(8 - 0.1 <= axis.at(value) <= 92 + 0.1 for value in values)
