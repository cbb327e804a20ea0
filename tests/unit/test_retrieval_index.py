"""Exact search: against a full sort, at ties, in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from llmrank.retrieval import index as module
from llmrank.retrieval.index import ExactIndex, top_k
from llmrank.retrieval.vectors import normalise

# Few different values, so that ties at the border are the rule.
SCORES = arrays.arrays(np.float32, st.integers(0, 60), elements=st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0, -np.inf]))


@given(SCORES, st.integers(0, 70))
def test_top_k_is_the_beginning_of_a_stable_sort(scores: np.ndarray, k: int) -> None:
    """The k best in order, equal scores by position, and never a position marked with minus infinity."""
    order = sorted(
        (place for place in range(len(scores)) if scores[place] > -np.inf), key=lambda place: (-scores[place], place)
    )
    assert top_k(scores, k).tolist() == order[:k]


@pytest.fixture
def vectors() -> np.ndarray:
    """3,000 vectors of which a third stand twice."""
    random = np.random.default_rng(7)
    made = normalise(random.standard_normal((3000, 24)))
    made[1000:2000] = made[:1000]
    return made


def expected(vectors: np.ndarray, query: np.ndarray, k: int) -> tuple[set[int], list[float]]:
    """By float64 and a full sort: who, and with which cosines."""
    cosines = vectors.astype(np.float64) @ (query / np.linalg.norm(query))
    order = np.argsort(-cosines, kind="stable")[:k]
    return set(order.tolist()), cosines[order].tolist()


def test_search_agrees_with_a_full_sort(vectors: np.ndarray) -> None:
    """The same positions and cosines as sorting everything in double precision, for a query of any length."""
    query = np.random.default_rng(1).standard_normal(24).astype(np.float32) * 40
    hits = ExactIndex(vectors).search(query, 51)
    _, cosines = expected(vectors, query, 51)
    assert hits.scores.tolist() == pytest.approx(cosines, abs=1e-6)
    assert hits.positions.dtype == np.int64
    assert vectors[hits.positions] @ normalise(query) == pytest.approx(cosines, abs=1e-6)


def test_positions_that_share_a_row_tie_exactly_and_stand_in_order() -> None:
    """Two items of one text have one score to the last bit, and the order given decides between them."""
    table = normalise(np.random.default_rng(3).standard_normal((5, 8)))
    index = ExactIndex(table, np.array([4, 2, 4, 0, 2, 4]))
    hits = index.search(table[4], 6)
    assert len(index) == 6
    assert hits.positions[:3].tolist() == [0, 2, 5]
    assert len(set(hits.scores[:3].tolist())) == 1
    assert index.scores(table[4], [5, 0]).tolist() == [hits.scores[0]] * 2


def test_excluded_positions_do_not_come_back(vectors: np.ndarray) -> None:
    """Fewer than k come back if too many are excluded; the best that is not excluded comes first."""
    index = ExactIndex(vectors[:10])
    everything = index.search(vectors[3], 10).positions.tolist()
    assert everything[0] == 3
    assert index.search(vectors[3], 10, exclude=[3]).positions.tolist() == everything[1:]


def test_scores_of_some_positions_are_those_of_all(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gathering rows block by block changes nothing, also for positions asked for twice."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 4096)
    index = ExactIndex(vectors)
    wanted = [2999, 5, 5, 1005, 0]
    scores = index.scores(vectors[8], wanted)
    assert scores == pytest.approx(index.scores(vectors[8])[wanted], abs=1e-6)
    assert scores[1] == scores[2]


def test_nothing_in_nothing_out() -> None:
    """An empty index, no queries, k of 0: empty answers of the right shape."""
    empty = ExactIndex(np.empty((0, 4), dtype=np.float32))
    one = ExactIndex(np.eye(1, 4, dtype=np.float32))
    assert empty.search(np.ones(4, dtype=np.float32), 3).positions.shape == (0,)
    assert one.search(np.ones(4, dtype=np.float32), 0).scores.shape == (0,)
    assert one.scores(np.ones(4, dtype=np.float32), []).shape == (0,)


@given(arrays.arrays(np.float64, (3, 5), elements=st.floats(-1e300, 1e300)))
def test_normalised_rows_have_length_one_or_zero(values: np.ndarray) -> None:
    """However large or small the numbers, rows get length 1 and keep their direction; zeros stay zeros."""
    unit = normalise(values)
    lengths = np.linalg.norm(unit.astype(np.float64), axis=1)
    assert unit.dtype == np.float32
    for row, length in zip(values, lengths, strict=True):
        assert length == pytest.approx(1.0 if row.any() else 0.0, abs=1e-6)
    assert (np.sign(unit) * np.sign(values) >= 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_refused(bad: float) -> None:
    """NaN would make every comparison false: it is refused at the door."""
    with pytest.raises(ValueError, match="not a number"):
        normalise(np.array([[1.0, bad]]))
