"""Benjamini and Hochberg's adjustment: by hand and against statsmodels, which also has Holm's."""

from __future__ import annotations

import importlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.evaluation.measures.statistics import holm
from llmrank.experiment.statistics.multiplicity import benjamini_hochberg

PS = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_four_p_values_by_hand() -> None:
    """Each is multiplied by 4 / its rank, and none is larger than the one after it: 0.04 * 4 / 2 gives way to 0.04 * 4 / 3."""
    assert benjamini_hochberg([0.04, 0.001, 0.9, 0.04]) == pytest.approx([0.04 * 4 / 3, 0.004, 0.9, 0.04 * 4 / 3])


@settings(deadline=None)
@given(PS)
def test_both_adjustments_are_those_of_statsmodels(ps: list[float]) -> None:
    """Benjamini and Hochberg's, and Holm's."""
    multipletests = importlib.import_module("statsmodels.stats.multitest").multipletests
    assert benjamini_hochberg(ps) == pytest.approx(list(multipletests(ps, method="fdr_bh")[1]), abs=1e-12)
    assert holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]), abs=1e-12)


@given(PS, st.integers(0, 20))
def test_what_is_not_known_does_not_count(ps: list[float], place: int) -> None:
    """NaN stays NaN and leaves the others as they are."""
    place = min(place, len(ps))
    found = benjamini_hochberg([*ps[:place], math.nan, *ps[place:]])
    assert math.isnan(found.pop(place))
    assert found == benjamini_hochberg(ps)


@given(PS)
def test_it_is_never_stricter_than_holm(ps: list[float]) -> None:
    """Fewer false findings are promised by Holm, so its p values are no smaller; neither is below the plain one."""
    for plain, ours, strict in zip(ps, benjamini_hochberg(ps), holm(ps), strict=True):
        assert plain <= ours * (1 + 1e-12)
        assert ours <= strict * (1 + 1e-12)


def test_none_of_none() -> None:
    """No p value, no adjustment."""
    assert benjamini_hochberg([]) == []
