"""Each kind of collaborative model: by examples that a person can check, and against second implementations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import implicit.cpu.als
import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmrank.errors import ConfigError
from llmrank.interactions import Interaction, Interactions
from llmrank.retrieval.collaborative import rows as rows_module
from llmrank.retrieval.collaborative.als import Als
from llmrank.retrieval.collaborative.bpr import Bpr
from llmrank.retrieval.collaborative.histories import histories_of
from llmrank.retrieval.collaborative.model import recent, recent_once
from llmrank.retrieval.collaborative.pmi import Pmi
from llmrank.retrieval.collaborative.rows import SparseRows, best_of_each, blocks
from tests.unit.collaborative_data import of_histories, random_interactions, scores, trained

SMALL = {"1": ["a", "b", "c"], "2": ["a", "b"], "3": ["b", "d"], "4": ["a", "c"]}
"""Users of a: 1, 2, 4; of b: 1, 2, 3; of c: 1, 4; of d: 3."""

PLAIN = {"decay": 1.0, "last": None}
HISTORIES = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8), min_size=1, max_size=8)


def table_of(histories: Sequence[Sequence[str]]) -> Interactions:
    """Histories of users 0, 1, 2 ..."""
    return of_histories({str(user): items for user, items in enumerate(histories)})


def dense(table: Interactions) -> NDArray[np.float64]:
    """Who chose what, as a matrix of ones."""
    matrix = np.zeros((len(table.users), len(table.items)))
    matrix[table.user, table.item] = 1.0
    return matrix


# -- what histories are


def test_histories_go_by_time_and_equal_times_by_the_order_of_the_source() -> None:
    """Rows of two users, mixed: each user's by time; without times, as they stand."""
    rows = [Interaction("u", "a", 5.0), Interaction("v", "a", 1.0), Interaction("u", "b", 3.0), Interaction("u", "c", 5.0)]
    table = Interactions.of(rows)
    found = histories_of(table)
    assert [table.items[at] for at in found.columns] == ["b", "a", "c", "a"]
    assert found.starts.tolist() == [0, 3, 4]
    assert found.users.tolist() == [0, 0, 0, 1]
    untimed = Interactions(table.users, table.items, table.user, table.item)
    assert [table.items[at] for at in histories_of(untimed).columns] == ["a", "b", "c", "a"]


def test_recent_events_weigh_by_age() -> None:
    """Newest first; an item that stands twice counts twice, or once where it stands last."""
    history = np.array([7, 8, 7, 9])
    numbers, weights = recent(history, 3, 0.5)
    assert (numbers.tolist(), weights.tolist()) == ([9, 7, 8], [1.0, 0.5, 0.25])
    numbers, weights = recent_once(history, None, 0.5)
    assert (numbers.tolist(), weights.tolist()) == ([9, 7, 8], [1.0, 0.5, 0.25])
    numbers, _ = recent(history, None, 0.5)
    assert numbers.tolist() == [9, 7, 8, 7]
    assert recent_once(history, 2, 1.0)[0].tolist() == [9, 7]


def test_the_best_of_each_row_are_kept_the_first_of_equals() -> None:
    """By column; rows that have fewer keep all."""
    matrix = scipy.sparse.csr_matrix(np.array([[0, 3, 1, 3], [2, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=np.float32))
    kept = SparseRows.of(best_of_each(matrix, 2))
    assert [kept.row(row)[0].tolist() for row in range(4)] == [[1, 3], [0], [], [0, 1]]
    assert kept.row(0)[1].tolist() == [3, 3]


@given(st.lists(st.integers(0, 40), max_size=30))
def test_blocks_hold_what_they_may_and_nothing_is_left_out(entries: list[int]) -> None:
    """They follow one another; none but those of a single row has more entries than a block may."""
    limit = rows_module.BLOCK_ENTRIES
    rows_module.BLOCK_ENTRIES = 50
    try:
        found = list(blocks(np.array(entries)))
    finally:
        rows_module.BLOCK_ENTRIES = limit
    assert [at for block in found for at in range(block.start, block.stop)] == list(range(len(entries)))
    for block in found:
        assert block.stop - block.start == 1 or sum(entries[block]) <= 50


# -- popularity


def test_popularity_counts_users_once() -> None:
    """A user who chose an item twice is one user."""
    model = trained("popularity", of_histories({"1": ["a", "a", "b"], "2": ["a"]}))
    assert scores(model, ["b"], ["a", "b", "c"]) == pytest.approx([math.log(3), math.log(2), 0.0])


def test_a_choice_of_one_half_life_ago_counts_half() -> None:
    """Age is counted from the newest of all, and each user's latest choice of an item is the one that counts."""
    day = 86_400.0
    rows = [
        Interaction("1", "a", 10 * day),
        Interaction("2", "b", 20 * day),
        Interaction("3", "c", 0.0),
        Interaction("1", "c", 0.0),
        Interaction("1", "c", 20 * day),
    ]
    model = trained("popularity", Interactions.of(rows), half_life_days=10)
    assert scores(model, [], ["a", "b", "c"]) == pytest.approx(np.log1p([0.5, 1.0, 1.25]))


def test_without_times_nothing_ages() -> None:
    """A half-life is refused where the interactions tell the order alone."""
    table = of_histories(SMALL)
    untimed = Interactions(table.users, table.items, table.user, table.item, name="games.jsonl")
    with pytest.raises(ConfigError, match=r"popularity.half_life_days: games.jsonl has no times"):
        trained("popularity", untimed, half_life_days=30)
    assert scores(trained("popularity", untimed), [], ["b"]) == pytest.approx(math.log(4))


# -- item-knn


def test_item_knn_by_hand() -> None:
    """a and b share two of their three users each: 2 / 3; b and d one: 1 / sqrt(3 * 1); a and d none."""
    model = trained("item-knn", of_histories(SMALL), shrinkage=0, popularity_exponent=0.5, user_exponent=0, **PLAIN)
    assert scores(model, ["a"], ["a", "b", "c", "d"]) == pytest.approx([0, 2 / 3, 2 / math.sqrt(6), 0])
    assert scores(model, ["b"], ["a", "c", "d"]) == pytest.approx([2 / 3, 1 / math.sqrt(6), 1 / math.sqrt(3)])


def test_shrinkage_exponents_and_recency_by_hand() -> None:
    """All at once: c of users 1 (3 items) and 4 (2 items) with a; b is one event older than a."""
    options = {"shrinkage": 2, "popularity_exponent": 0.25, "user_exponent": 1.0, "decay": 0.5, "last": 2}
    model = trained("item-knn", of_histories(SMALL), **options)
    a_to_c = (1 / 3 + 1 / 2) / (3**0.5 * 2**0.25 + 2)
    b_to_c = (1 / 3) / (3**0.5 * 2**0.25 + 2)
    assert scores(model, ["d", "b", "a"], ["c"]) == pytest.approx([a_to_c + 0.5 * b_to_c])


@settings(max_examples=50)  # each trains a model
@given(HISTORIES, st.lists(st.sampled_from("abcdefgh"), max_size=6), st.floats(0, 20))
def test_item_knn_is_the_dense_cosine(histories: list[list[str]], history: list[str], shrinkage: float) -> None:
    """Against NumPy on the dense matrix, in blocks of hardly any entries."""
    table = table_of(histories)
    limit = rows_module.BLOCK_ENTRIES
    rows_module.BLOCK_ENTRIES = 5
    try:
        options = {"shrinkage": shrinkage, "popularity_exponent": 0.5, "user_exponent": 0.0, "decay": 0.7, "last": 4}
        model = trained("item-knn", table, **options)
    finally:
        rows_module.BLOCK_ENTRIES = limit
    matrix = dense(table)
    norms = np.linalg.norm(matrix, axis=0)
    cosines = matrix.T @ matrix / (np.outer(norms, norms) + shrinkage)
    np.fill_diagonal(cosines, 0)
    known = [table.items.index(each) for each in history if each in table.items][-4:]
    expected = sum((0.7**age * cosines[at] for age, at in enumerate(reversed(known))), np.zeros(len(table.items)))
    assert scores(model, history, table.items) == pytest.approx(expected, abs=1e-5)


def test_only_the_nearest_neighbours_are_kept() -> None:
    """With one neighbour each, a leads to c (0.82) and no more to b (0.67)."""
    model = trained("item-knn", of_histories(SMALL), neighbours=1, shrinkage=0, popularity_exponent=0.5, user_exponent=0)
    assert (scores(model, ["a"], ["b", "c"]) > 0).tolist() == [False, True]


# -- transitions


def test_transitions_by_hand() -> None:
    """a is followed by b twice at distance 1; by c at distances 2 and 1; nothing leads back."""
    options = {"window": 2, "distance_exponent": 1, "backward": 0, "shrinkage": 1, "popularity_exponent": 0.5}
    model = trained("transitions", of_histories(SMALL), **options, **PLAIN)
    expected = [2 / (math.sqrt(9) + 1), (1 / 2 + 1) / (math.sqrt(6) + 1), 0]
    assert scores(model, ["a"], ["b", "c", "d"]) == pytest.approx(expected)
    assert not scores(model, ["c"], ["a", "b", "d"]).any()


@settings(max_examples=50)  # each trains a model
@given(
    HISTORIES,
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5),
    st.integers(1, 9),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_transitions_are_those_of_a_plain_loop(
    histories: list[list[str]], history: list[str], window: int, exponent: float, backward: float
) -> None:
    """Every pair within the window of one user's history, in both directions; nothing across users or to itself."""
    table = table_of(histories)
    options = {"window": window, "distance_exponent": exponent, "backward": backward, "shrinkage": 2}
    model = trained("transitions", table, **options, popularity_exponent=0.3, decay=0.8, last=3)
    events = Counter(item for items in histories for item in items)
    follows: Counter[tuple[str, str]] = Counter()
    for items in histories:
        for at, first in enumerate(items):
            for distance, second in enumerate(items[at + 1 : at + 1 + window], start=1):
                if first != second:
                    follows[first, second] += distance**-exponent
                    follows[second, first] += backward * distance**-exponent
    recents = [item for item in history if item in events][-3:]
    expected = [
        sum(
            0.8**age * follows[item, candidate] / (events[item] ** 0.5 * events[candidate] ** 0.3 + 2)
            for age, item in enumerate(reversed(recents))
        )
        for candidate in table.items
    ]
    assert scores(model, history, table.items) == pytest.approx(expected, abs=1e-5)


# -- EASE


@pytest.mark.parametrize("l2", [1.0, 30.0])
def test_ease_is_the_closed_form(l2: float) -> None:
    """B = -P / diag(P) with P = (X'X + l2 I)^-1 by numpy.linalg.inv; an item that stands twice in the history counts once."""
    table = random_interactions(80, 30)
    model = trained("ease", table, l2=l2, neighbours=None, **PLAIN)
    matrix = dense(table)
    inverse = np.linalg.inv(matrix.T @ matrix + l2 * np.eye(len(table.items)))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    history = ["i3", "i20", "i3", "i5"]
    expected = sum(weights[table.items.index(each)] for each in set(history))
    assert scores(model, history, table.items) == pytest.approx(expected, abs=1e-4)


def test_ease_mirrors_more_than_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of 7 rows the weights are those of one block."""
    table = random_interactions(80, 30)
    whole = trained("ease", table, neighbours=None).arrays()["matrix"]
    monkeypatch.setattr("llmrank.retrieval.collaborative.ease.BLOCK", 7)
    assert trained("ease", table, neighbours=None).arrays()["matrix"] == pytest.approx(whole, abs=1e-6)


def test_ease_keeps_the_largest_weights_with_their_signs() -> None:
    """Of each row so many as `neighbours` says; those that are kept are as they were."""
    table = random_interactions(80, 30)
    whole = trained("ease", table, neighbours=None).arrays()["matrix"]
    model = trained("ease", table, neighbours=5)
    rows = SparseRows.from_arrays(model.arrays(), len(whole), len(whole))
    for number, row in enumerate(whole):
        columns, values = rows.row(number)
        assert values.tolist() == row[columns].tolist()
        assert np.abs(values).min() >= np.sort(np.abs(row))[-5]
        assert len(columns) == 5


def test_ease_leaves_out_the_least_popular_and_says_so() -> None:
    """They score the floor, in the history they count nothing, and a note counts them."""
    model = trained("ease", of_histories(SMALL), max_items=2, **PLAIN)
    assert model.index.ids == ("a", "b")
    assert model.learned.notes == ("2 of 4 items, the least popular, were left out (ease.max_items)",)
    assert scores(model, ["a"], ["b", "c", "d"]).tolist()[1:] == [0, 0]
    assert not scores(model, ["c"], ["a", "b"]).any()
    assert trained("ease", of_histories(SMALL)).learned.notes == ()


def test_an_l2_too_small_for_the_matrix_is_named() -> None:
    """Items that always come together make it singular in single precision."""
    together = of_histories({str(user): [f"i{item}" for item in range(20)] for user in range(3000)})
    with pytest.raises(ConfigError, match=r"ease.l2: is too small"):
        trained("ease", together, l2=1e-9)


# -- user-knn


def test_user_knn_by_hand() -> None:
    """Who asks with a and b is as user 2; user 1 has them among three: 2 / sqrt(6); users 3 and 4 share one of two: 1 / 2."""
    model = trained("user-knn", of_histories(SMALL), shrinkage=0, vote_exponent=1, **PLAIN)
    likeness = 2 / math.sqrt(6)
    expected = [1 + likeness + 0.5, 1 + likeness + 0.5, likeness + 0.5, 0.5]
    assert scores(model, ["a", "b"], ["a", "b", "c", "d"]) == pytest.approx(expected)


def test_the_own_row_does_not_vote() -> None:
    """Who is known by `user_id` is left out, and all others are not."""
    model = trained("user-knn", of_histories(SMALL), shrinkage=0, vote_exponent=1, **PLAIN)
    mine, others = (scores(model, ["a", "b"], ["a", "b", "c", "d"], user) for user in ("2", "9"))
    assert others - mine == pytest.approx([1, 1, 0, 0])


@settings(max_examples=50)  # each trains a model
@given(
    HISTORIES,
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6),
    st.sampled_from([None, 1, 3]),
    st.sampled_from([1, 2, 99]),
)
def test_user_knn_is_that_of_a_plain_loop(
    histories: list[list[str]], history: list[str], last: int | None, neighbours: int
) -> None:
    """Cosines of recency-weighted histories, the nearest vote for all that they chose; equals by their order."""
    table = table_of(histories)
    options: dict[str, Any] = {"shrinkage": 0.5, "decay": 0.5, "last": last, "vote_exponent": 2.0}
    model = trained("user-knn", table, neighbours=neighbours, **options)

    def vector(items: Sequence[str]) -> dict[str, float]:
        newest = list(dict.fromkeys(reversed(items)))[:last]
        return {item: 0.5**age for age, item in enumerate(newest)}

    def length(weights: dict[str, float]) -> float:
        return math.sqrt(sum(weight**2 for weight in weights.values()))

    mine = vector([each for each in history if each in table.items])
    likeness = []
    for items in histories:
        other = vector(items)
        product = sum(weight * other.get(item, 0.0) for item, weight in mine.items())
        likeness.append(product / (length(mine) * length(other) + 0.5))
    nearest = sorted((user for user, alike in enumerate(likeness) if alike > 0), key=lambda user: -round(likeness[user], 5))
    borders = {round(likeness[user], 5) for user in nearest[neighbours - 1 : neighbours + 1]}
    if len(borders) == 1 and len(nearest) > neighbours:
        return  # which of equals votes depends on the last bit
    expected = [sum(likeness[user] ** 2 for user in nearest[:neighbours] if item in histories[user]) for item in table.items]
    assert scores(model, history, table.items, "nobody") == pytest.approx(expected, abs=1e-5)


# -- factors


def test_als_folds_a_history_in_as_implicit_does() -> None:
    """Without recency the user's factors are those that `implicit` itself recalculates from the same items."""
    table = random_interactions(60, 24)
    model = trained("als", table, confidence=7.0, regularization=0.3, factors=6, **PLAIN)
    assert isinstance(model, Als)
    with threadpoolctl.threadpool_limits(1, "blas"):
        other = implicit.cpu.als.AlternatingLeastSquares(factors=6, regularization=0.3, alpha=7.0, iterations=1, num_threads=1)
        other.item_factors = model.factors
        liked = np.zeros((1, len(table.items)), dtype=np.float32)
        history = [2, 7, 11]
        liked[0, history] = 1.0
        expected = other.recalculate_user(0, scipy.sparse.csr_matrix(liked))
    assert model.user_factors(np.array(history)) == pytest.approx(np.ravel(expected), abs=1e-4)


def test_als_does_not_depend_on_the_number_of_threads() -> None:
    """Users are solved for one by one, whoever does it."""
    table = random_interactions(60, 24)
    one, two = (trained("als", table, threads=threads).arrays()["factors"] for threads in (1, 2))
    assert one.tolist() == two.tolist()


def test_als_weighs_recent_items_more() -> None:
    """The half of the last item gains on the other one when older items fade."""
    table = random_interactions(80, 24)
    history = ["i1", "i2", "i12"]
    first, second = ([f"i{number}" for number in numbers] for numbers in (range(3, 12), range(13, 24)))

    def gap(decay: float) -> float:
        model = trained("als", table, decay=decay, confidence=5.0)
        return float(scores(model, history, second).mean() - scores(model, history, first).mean())

    assert gap(0.2) > gap(0.6) > gap(1.0)


def test_bpr_scores_by_bias_and_the_mean_of_the_historys_factors() -> None:
    """By hand from its arrays: two items, the older one at half weight."""
    table = random_interactions(60, 24)
    model = trained("bpr", table, decay=0.5, strength=3.0)
    assert isinstance(model, Bpr)
    at = {item: place for place, item in enumerate(table.items)}
    user = (0.5 * model.factors[at["i4"]] + model.factors[at["i9"]]) / 1.5
    expected = model.biases[at["i6"]] + 3.0 * float(model.factors[at["i6"]] @ user)
    assert scores(model, ["i4", "i9"], ["i6"]) == pytest.approx([expected], abs=1e-5)


# -- pmi


def test_pmi_vectors_give_back_the_matrix_that_they_factor() -> None:
    """With all factors kept, of items that are chosen together more often than by chance: PMI by hand, from all pairs."""
    table = table_of(["ab", "ab", "ac", "cd", "cd", "bd"])
    together = dense(table).T @ dense(table)
    np.fill_diagonal(together, 0.0)
    context = together.sum(axis=1) ** 0.75
    with np.errstate(divide="ignore"):
        pmi = np.log(together * context.sum() / (together.sum(axis=1)[:, None] * context[None, :]))
    wanted = np.maximum(pmi, 0.0)
    wanted = (wanted + wanted.T) / 2
    left, strength, _ = np.linalg.svd(wanted)
    vectors = left * np.sqrt(strength)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = trained("pmi", table, factors=8)
    assert isinstance(model, Pmi)
    assert model.vectors @ model.vectors.T == pytest.approx(vectors @ vectors.T, abs=1e-5)
    at = {item: place for place, item in enumerate(table.items)}
    assert scores(model, ["a"], ["b"])[0] == pytest.approx(float(vectors[at["a"]] @ vectors[at["b"]]), abs=1e-5)


def test_where_nobody_chose_two_items_pmi_says_nothing() -> None:
    """There is no pair to learn from: every score is 0, which is no error, for few items and for many."""
    for count in (5, 200):
        model = trained("pmi", of_histories({f"u{each}": [f"i{each}"] for each in range(count)}))
        assert scores(model, ["i0"], ["i0", "i1", "new"]).tolist() == [0.0, 0.0, 0.0]


def test_pmi_finds_what_goes_together_through_others() -> None:
    """Two groups of items: within its group an item scores above 0 and above the other group, also where the pair never met."""
    groups = ["abc", "bcd", "acd", "wxy", "xyz", "wyz"] * 3 + ["ab", "cd", "wx", "yz"]
    model = trained("pmi", table_of(groups), factors=2)
    near, far = scores(model, ["a"], list("bcd")), scores(model, ["a"], list("wxyz"))
    assert min(near) > max(far)
    assert min(near) > 0.5


def test_pmi_of_many_items_is_the_same_by_the_iterative_method() -> None:
    """Few factors of many items come from the iterative method: the leading ones of the whole decomposition."""
    table = random_interactions(200, 40)
    few, whole = trained("pmi", table, factors=6), trained("pmi", table, factors=40)
    assert isinstance(few, Pmi)
    assert isinstance(whole, Pmi)
    assert few.vectors.shape == (len(table.items), 6)
    leading = whole.vectors[:, :6]
    leading = leading / np.linalg.norm(leading, axis=1, keepdims=True)
    assert few.vectors @ few.vectors.T == pytest.approx(leading @ leading.T, abs=1e-3)
