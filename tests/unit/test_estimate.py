"""Means and intervals of few users: what the bootstrap cannot know, a share's interval says all the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.evaluation.measures.estimate import Estimator
from llmrank.evaluation.measures.proportions import wilson
from llmrank.evaluation.measures.statistics import bootstrap_means

ESTIMATOR = Estimator(resamples=200)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.integers(1, 3), st.booleans())
def test_a_share_is_never_certain(values: list[float], cases: int, same: bool) -> None:
    """From two users on, whatever their values are, the interval of a share has a width, holds the mean, and lies in 0 to 1."""
    of_users = values[:1] * len(values) if same else values
    found = ESTIMATOR.column(np.repeat(of_users, cases), np.repeat(np.arange(len(of_users)), cases), share=True)
    assert found.mean is not None
    assert found.ci is not None
    low, high = found.ci
    assert low < high
    if same:
        assert 0 <= low <= found.mean + 1e-9
        assert found.mean - 1e-9 <= high <= 1


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_where_all_users_are_the_same_they_count_like_hits(value: float) -> None:
    """The interval is Wilson's over users; a user's further cases, which are the same, make it no shorter."""
    users = np.repeat(np.arange(10), 7)
    found = ESTIMATOR.column(np.full(70, value), users, share=True)
    assert found.mean == value
    assert found.ci == pytest.approx(list(wilson(10 * value, 10)))


def test_users_without_a_value_do_not_count() -> None:
    """Two of five users have a value: the interval is that of two; of one user's there is none."""
    values = np.array([1.0, 1.0, np.nan, np.nan, np.nan])
    assert ESTIMATOR.column(values, np.arange(5), share=True).ci == pytest.approx(list(wilson(2, 2)))
    assert ESTIMATOR.column(values, np.array([0, 0, 1, 2, 3]), share=True).ci is None


def test_where_users_differ_the_bootstrap_decides() -> None:
    """And so it does where values are no shares: two equal distances say nothing of how far others may be."""
    values = np.array([[0.2, 3.0], [0.9, 3.0], [0.4, 3.0]])
    share, distance = ESTIMATOR.columns(values, np.arange(3), shares=(0,))
    plain = bootstrap_means(values, resamples=200)
    assert share.ci == pytest.approx([plain.low[0], plain.high[0]])
    assert distance.ci == [3.0, 3.0]


def test_bins_go_by_what_their_measure_is() -> None:
    """A bin with two equal users of a share has a width; of a measure in bits it has not."""
    keys, ones, users = np.array([1, 1, 5]), np.ones(3), np.arange(3)
    found, lonely = ESTIMATOR.by_bin([(1, 2), (3, None)], keys, ones, users, "ndcg@10")
    assert found == {"from": 1, "to": 2, "cases": 2, "ndcg@10": 1.0, "ci": pytest.approx(list(wilson(2, 2)))}
    assert lonely["ci"] is None
    assert ESTIMATOR.by_bin([(1, 2)], keys, ones, users, "novelty@10")[0]["ci"] == [1.0, 1.0]
