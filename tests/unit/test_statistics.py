"""Bootstrap intervals, paired tests and sample sizes: against scipy, against enumeration, and by simulation."""

from __future__ import annotations

import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures import statistics
from llmrank.evaluation.measures.statistics import (
    bootstrap_means,
    holm,
    minimum_detectable_effect,
    paired_differences,
    paired_sd,
    sample_size,
)

NAN = math.nan


@pytest.fixture(scope="module")
def stats() -> Any:
    """scipy.stats, the second implementation; it has no type information of its own."""
    return importlib.import_module("scipy.stats")


def skewed(n: int, m: int, seed: int = 1) -> statistics.Floats:
    return np.random.default_rng(seed).exponential(size=(n, m))


def paired_difference(a: Any, b: Any, clusters: Any = None, **options: Any) -> statistics.Difference:
    """`paired_differences` of one column."""
    return paired_differences(np.reshape(a, (-1, 1)), np.reshape(b, (-1, 1)), clusters, **options)[0]


def test_intervals_agree_with_scipy(stats: Any) -> None:
    """Mean and BCa interval are those of scipy.stats.bootstrap, up to what 20,000 resamples leave to chance."""
    for column in (skewed(60, 1)[:, 0], (skewed(80, 1, 2)[:, 0] > 1.2).astype(float)):
        ours = bootstrap_means(column[:, None], resamples=20_000, seed=3)
        theirs = stats.bootstrap((column,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(4))
        width = theirs.confidence_interval.high - theirs.confidence_interval.low
        assert ours.mean[0] == pytest.approx(column.mean(), rel=1e-12)
        assert ours.low[0] == pytest.approx(theirs.confidence_interval.low, abs=0.03 * width)
        assert ours.high[0] == pytest.approx(theirs.confidence_interval.high, abs=0.03 * width)
        assert ours.error[0] == pytest.approx(column.std(ddof=1) / math.sqrt(len(column)), rel=1e-12)


def test_intervals_of_clusters_agree_with_scipy(stats: Any) -> None:
    """Users with different numbers of cases: the mean over cases is a ratio of sums over users, which scipy can draw too."""
    generator = np.random.default_rng(5)
    users = np.repeat(np.arange(40), generator.integers(1, 6, size=40))
    values = generator.exponential(size=40)[users] + 0.1 * generator.normal(size=len(users))
    sums, sizes = np.bincount(users, values), np.bincount(users).astype(float)

    def ratio(some: Any, counts: Any, axis: int = -1) -> Any:
        return some.sum(axis=axis) / counts.sum(axis=axis)

    theirs = stats.bootstrap(
        (sums, sizes), ratio, paired=True, n_resamples=20_000, method="BCa", rng=np.random.default_rng(6)
    ).confidence_interval
    ours = bootstrap_means(values[:, None], [f"user {user}" for user in users], resamples=20_000, seed=7)
    assert ours.low[0] == pytest.approx(theirs.low, abs=0.03 * (theirs.high - theirs.low))
    assert ours.high[0] == pytest.approx(theirs.high, abs=0.03 * (theirs.high - theirs.low))
    assert (ours.n[0], ours.clusters[0]) == (len(values), 40)
    assert theirs.high - theirs.low > 1.3 * float(np.diff([*_plain(values)])[0])  # cases taken for independent look surer


def _plain(values: statistics.Floats) -> tuple[float, float]:
    intervals = bootstrap_means(values[:, None])
    return float(intervals.low[0]), float(intervals.high[0])


def test_clusters_of_one_case_are_the_plain_bootstrap() -> None:
    """Naming each case's own user, in any way, changes nothing."""
    values = skewed(30, 2)
    plain, named = bootstrap_means(values), bootstrap_means(values, [f"{place:02}" for place in range(30)])
    assert np.array_equal(plain.low, named.low)
    assert np.array_equal(plain.high, named.high)


def test_a_column_depends_on_itself_alone() -> None:
    """Other columns, their order, and how many draws fit into memory at once leave an interval and a p value as they are."""
    values, others = skewed(50, 4), skewed(50, 4, 9)
    values[3, 1] = values[7, 2] = NAN
    together, differences = bootstrap_means(values), paired_differences(values, others)
    backwards = bootstrap_means(values[:, ::-1])
    assert np.allclose(together.low, backwards.low[::-1], rtol=1e-12)
    for column in range(4):
        alone = bootstrap_means(values[:, [column]])
        assert together.low[column] == pytest.approx(alone.low[0], rel=1e-12)
        assert together.high[column] == pytest.approx(alone.high[0], rel=1e-12)
        assert differences[column].p == paired_difference(values[:, column], others[:, column]).p


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws come out, however few of them are held in memory at once."""
    values = skewed(24, 3)
    whole = bootstrap_means(values)
    monkeypatch.setattr(statistics, "CHUNK", 100)
    assert np.allclose(bootstrap_means(values).low, whole.low, rtol=1e-12)


def test_a_seed_decides() -> None:
    """The same seed gives the same bits, another seed another interval close by."""
    values = skewed(40, 1)
    first, again, other = (bootstrap_means(values, seed=seed) for seed in (1, 1, 2))
    assert first.low[0] == again.low[0] != other.low[0]
    assert first.low[0] == pytest.approx(other.low[0], abs=first.error[0] / 4)


def test_what_is_not_defined_is_left_out() -> None:
    """NaN counts as no case at all: the column is what it is without those rows."""
    values = skewed(30, 1)
    gaps = np.vstack([values[:10], np.full((5, 1), NAN), values[10:]])
    whole, gappy = bootstrap_means(values), bootstrap_means(gaps)
    assert (gappy.mean[0], gappy.low[0], gappy.high[0]) == (whole.mean[0], whole.low[0], whole.high[0])
    assert gappy.n[0] == 30


def test_constant_columns_have_no_width() -> None:
    """Values that never vary (0.1 cannot even be written exactly) leave nothing uncertain, with users of any size."""
    found = bootstrap_means(np.full((7, 2), [0.1, 0.0]), [1, 1, 1, 2, 2, 3, 3])
    assert np.array_equal(found.low, found.mean)
    assert np.array_equal(found.high, found.mean)
    assert found.mean == pytest.approx([0.1, 0.0])


def test_too_few_clusters_give_no_interval() -> None:
    """One user, or no value at all, says nothing of how users differ: NaN, not a width of 0."""
    found = bootstrap_means([[1.0, NAN], [2.0, NAN]], ["a", "a"])
    assert found.mean[0] == 1.5
    assert np.isnan([found.low[0], found.high[0], found.error[0], found.mean[1], found.low[1]]).all()
    assert bootstrap_means(np.empty((0, 1))).n[0] == 0


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(0, 9)), min_size=1, max_size=25),
    st.floats(0.5, 0.999),
)
def test_every_interval_is_in_order_and_in_range(rows: list[tuple[float, int]], confidence: float) -> None:
    """Whatever the values: low <= high, and both within the range of the clusters' means; nothing warns."""
    values, users = np.array([value for value, _ in rows]), np.array([user for _, user in rows])
    found = bootstrap_means(values[:, None], users, confidence=confidence, resamples=100)
    if len(set(users)) < 2:
        assert np.isnan(found.low[0])
        return
    means = [values[users == user].mean() for user in set(users)]
    slack = 1e-9 * max(1.0, np.abs(values).max())
    assert min(means) - slack <= found.low[0] <= found.high[0] <= max(means) + slack


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    """400 samples of 60 from an exponential distribution: the 95 % interval holds its mean in 92 to 97 % of them."""
    found = bootstrap_means(skewed(60, 400, 11), resamples=1000)
    assert 0.92 <= float(((found.low <= 1) & (found.high >= 1)).mean()) <= 0.97


def test_intervals_of_clusters_hold_the_mean_as_often_as_they_say() -> None:
    """The same for 80 users with three cases each that are much alike; taken as 240 cases, the interval would be too sure."""
    generator = np.random.default_rng(12)
    users = np.repeat(np.arange(80), 3)
    values = (generator.exponential(size=(80, 300)) - 1)[users] + 0.3 * generator.normal(size=(240, 300))
    clustered, plain = (bootstrap_means(values, each, resamples=500) for each in (users, None))
    covered, too_sure = (float(((each.low <= 0) & (each.high >= 0)).mean()) for each in (clustered, plain))
    assert 0.91 <= covered <= 0.975
    assert too_sure < 0.85


def test_p_is_exact_where_all_flips_can_be_counted() -> None:
    """Five differences of one sign: only 2 of 32 ways to flip are as far from 0. One of the other sign, small: 4 of 32."""
    assert paired_difference([1, 2, 3, 4, 5], [0] * 5).p == 2 / 32
    assert paired_difference([-1, 2, 3, 4, 5], [0] * 5).p == 4 / 32


def test_p_agrees_with_scipy(stats: Any) -> None:
    """The exact p value is that of scipy.stats.permutation_test; the drawn one comes near it."""
    generator = np.random.default_rng(13)
    a, b = generator.normal(0.4, 1, size=12), generator.normal(size=12)
    theirs = stats.permutation_test((a, b), lambda x, y: (x - y).mean(), permutation_type="samples", n_resamples=10_000).pvalue
    assert paired_difference(a, b).p == pytest.approx(theirs, abs=1e-12)
    assert paired_difference(a, b, permutations=4000).p == pytest.approx(theirs, abs=0.03)


def test_whole_clusters_are_flipped() -> None:
    """Three users with four equal wins each are three observations, not twelve: p = 2 / 2^3."""
    users = np.repeat(["a", "b", "c"], 4)
    assert paired_difference(np.ones(12), np.zeros(12), users).p == 0.25


def test_drawn_p_is_never_zero() -> None:
    """40 wins of 40 cannot be enumerated; no draw comes as far, and (0 + 1) / (999 + 1) is said."""
    assert paired_difference(np.ones(40), np.zeros(40), permutations=999).p == 0.001


def test_p_is_uniform_without_a_difference() -> None:
    """500 comparisons of two alike: p is at most 0.05 in about 5 % of them, at most 0.5 in about half."""
    generator = np.random.default_rng(14)
    a, b = generator.exponential(size=(2, 40, 500))
    ps = np.array([each.p for each in paired_differences(a, b, resamples=100, permutations=999)])
    assert 0.03 <= float((ps <= 0.05).mean()) <= 0.075
    assert 0.43 <= float((ps <= 0.5).mean()) <= 0.57


def test_wins_ties_and_losses_count_cases() -> None:
    """Pairs with an undefined value do not count; what differs by rounding only is a tie."""
    found = paired_difference([1, 0.1 + 0.2, 0, 5, NAN], [0, 0.3, 2, NAN, 5])
    assert (found.wins, found.ties, found.losses, found.n) == (1, 1, 1, 3)
    assert found.mean == pytest.approx(-1 / 3)


def test_no_pair_gives_no_p() -> None:
    """Nothing to compare is not "no difference": NaN."""
    found = paired_difference([1, NAN], [NAN, 1])
    assert math.isnan(found.p)
    assert math.isnan(found.mean)


def test_equal_columns_are_not_told_apart() -> None:
    """A ranker against itself: difference 0 with no width, p = 1."""
    values = skewed(30, 1)[:, 0]
    found = paired_difference(values, values)
    assert (found.mean, found.low, found.high, found.p, found.ties) == (0, 0, 0, 1, 30)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=8))
def test_exact_p_is_that_of_enumeration(differences: list[int]) -> None:
    """All sign vectors, listed one by one, give the same p value."""
    observed = abs(sum(differences))
    ways = list(itertools.product((-1, 1), repeat=len(differences)))
    far = sum(abs(sum(sign * each for sign, each in zip(signs, differences, strict=True))) >= observed for signs in ways)
    assert paired_difference(differences, [0] * len(differences), resamples=100).p == pytest.approx(far / len(ways))


def test_holm_by_hand() -> None:
    """0.01 * 3, then the larger of that and 0.03 * 2, then the larger of that and 0.04; in the order given, NaN aside."""
    assert holm([0.04, 0.01, NAN, 0.03]) == pytest.approx([0.06, 0.03, NAN, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_the_order_and_lowers_nothing(ps: list[float]) -> None:
    """An adjusted p value is at least the raw one, at most 1 and at most Bonferroni's; the order of findings stays."""
    adjusted = holm(ps)
    for raw, after in zip(ps, adjusted, strict=True):
        assert raw <= after <= min(1.0, raw * len(ps)) + 1e-12
    order = sorted(range(len(ps)), key=ps.__getitem__)
    assert [adjusted[place] for place in order] == sorted(adjusted)


def test_detectable_effect_by_hand() -> None:
    """(1.960 + 0.842) * 1 / sqrt(100) = 0.280; a deviation twice as large needs four times the cases."""
    assert minimum_detectable_effect(1, 100) == pytest.approx(0.2802, abs=1e-4)
    assert sample_size(1, 0.2) == 197
    assert sample_size(2, 0.2) == pytest.approx(4 * 197, abs=4)
    assert paired_sd(1, 0.5) == 1
    assert paired_sd(1, 0) == pytest.approx(math.sqrt(2))


@given(st.floats(0.01, 10), st.integers(2, 10**7))
def test_sample_size_is_the_way_back(sd: float, n: int) -> None:
    """The sample for the effect that n cases can find is n."""
    assert sample_size(sd, minimum_detectable_effect(sd, n)) == n


def test_the_detectable_effect_is_found_as_often_as_it_says() -> None:
    """300 experiments with just that effect: the sign-flip test finds about 80 % of them."""
    effect = minimum_detectable_effect(1, 50)
    a = np.random.default_rng(15).normal(effect, 1, size=(50, 300))
    found = [each.p <= 0.05 for each in paired_differences(a, np.zeros_like(a), resamples=100, permutations=999)]
    assert 0.73 <= np.mean(found) <= 0.86


def test_the_measured_deviation_is_that_of_a_cluster() -> None:
    """What a comparison measured plans the next one: with one case a user, the differences' own deviation."""
    a, b = skewed(50, 1)[:, 0], skewed(50, 1, 3)[:, 0]
    assert paired_difference(a, b).sd == pytest.approx((a - b).std(ddof=1))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: bootstrap_means([[1.0]], confidence=1.0), ConfigError, "confidence: must be between 0 and 1"),
        (lambda: bootstrap_means([[1.0]], resamples=10), ConfigError, "resamples: must be at least 100"),
        (lambda: bootstrap_means([1.0, 2.0]), InputError, "values: must have two dimensions"),
        (lambda: bootstrap_means([[math.inf]]), InputError, "values: must be finite"),
        (lambda: bootstrap_means([[1.0], [2.0]], [1]), InputError, "clusters: must be one a case"),
        (lambda: paired_differences([[1.0]], [[1.0, 2.0]]), InputError, "b: must have the shape of a"),
        (lambda: paired_difference([1.0], [2.0], permutations=0), ConfigError, "permutations: must be at least 1"),
        (lambda: minimum_detectable_effect(1, 0), ConfigError, "n: must be above 0"),
        (lambda: minimum_detectable_effect(NAN, 9), ConfigError, "sd: must be a number"),
        (lambda: minimum_detectable_effect(1, 9, power=1), ConfigError, "power: must be between 0 and 1"),
        (lambda: sample_size(1, 0), ConfigError, "effect: must be above 0"),
    ],
)
def test_bad_arguments_are_named(call: Any, error: type[InputError], words: str) -> None:
    """An argument that makes no sense is refused by its name."""
    with pytest.raises(error, match=f"^{words}"):
        call()
