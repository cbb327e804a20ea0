"""The check of the sample ratio: against scipy, and where there is nothing to check."""

from __future__ import annotations

import importlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM, sample_ratio_mismatch

GROUPS = st.lists(st.tuples(st.integers(0, 5000), st.floats(0.1, 10)), min_size=2, max_size=6)


@given(GROUPS)
def test_it_is_the_chi_square_test_of_scipy(groups: list[tuple[int, float]]) -> None:
    """p is that of scipy.stats.chisquare against the expected counts."""
    counts, weights = zip(*groups, strict=True)
    if not sum(counts):
        assert math.isnan(sample_ratio_mismatch(counts, weights))
        return
    expected = [sum(counts) * weight / sum(weights) for weight in weights]
    theirs = importlib.import_module("scipy.stats").chisquare(counts, expected).pvalue
    assert sample_ratio_mismatch(counts, weights) == pytest.approx(theirs, rel=1e-9, abs=1e-300)


def test_a_known_mismatch_alarms() -> None:
    """821,588 against 815,482 users of an even split (the example of Fabijan et al.) is no chance; 5,050 to 4,950 may be."""
    assert sample_ratio_mismatch([821_588, 815_482], [1, 1]) < 2e-6 < SAMPLE_RATIO_ALARM
    assert sample_ratio_mismatch([5050, 4950], [1, 1]) == pytest.approx(0.3173, abs=1e-4)


def test_weights_of_zero() -> None:
    """A user in a variant that can have none is a mismatch for sure; without one the variant does not count."""
    assert sample_ratio_mismatch([50, 50, 1], [1, 1, 0]) == 0.0
    assert sample_ratio_mismatch([60, 50, 0], [1, 1, 0]) == sample_ratio_mismatch([60, 50], [1, 1])
    assert math.isnan(sample_ratio_mismatch([60, 0], [1, 0]))


@pytest.mark.parametrize(
    ("counts", "weights", "field"),
    [([1], [1, 1], "weights"), ([-1, 1], [1, 1], "counts"), ([1, 1], [1, -1], "weights"), ([1, 1], [1, math.nan], "weights")],
)
def test_what_cannot_be_is_refused(counts: list[int], weights: list[float], field: str) -> None:
    """The error names what is wrong."""
    with pytest.raises(InputError) as caught:
        sample_ratio_mismatch(counts, weights)
    assert caught.value.field == field
