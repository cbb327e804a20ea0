"""Guardrails: verdicts and bounds, against other implementations, and where nothing, or nobody, failed."""

from __future__ import annotations

import importlib
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ConfigError, InputError
from llmrank.evaluation.measures.statistics import bootstrap_means, bootstrap_ratios
from llmrank.experiment.statistics.noninferiority import coverage_non_inferiority, non_inferiority
from llmrank.experiment.statistics.paired_rates import effective, score, score_interval

NAN = math.nan
COUNTS = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60)).filter(lambda counts: sum(counts) > 0)


def costs(n: int = 300, seed: int = 1) -> tuple[Any, Any]:
    """The variant costs 3 % more, and both vary alike from user to user."""
    generator = np.random.default_rng(seed)
    control = generator.lognormal(size=n)
    return control * 1.03 * generator.lognormal(0, 0.1, size=n), control


def test_a_mean_is_bounded_by_the_bootstrap() -> None:
    """The bounds are the ends of the 90 % interval of the paired differences, and the verdict is read from them."""
    value, control = costs()
    interval = bootstrap_means((value - control)[:, None], confidence=0.9)
    found = non_inferiority(value, control, margin=0.1)
    assert (found.low, found.high) == pytest.approx((interval.low[0], interval.high[0]), rel=1e-12)
    assert found.bound == found.high
    assert found.difference == pytest.approx(found.value - found.control)
    assert (found.n, found.clusters, found.method) == (300, 300, "bootstrap")
    for margin, verdict in ((1.01 * found.high, "kept"), (found.difference, "unclear"), (0.99 * found.low, "broken")):
        assert non_inferiority(value, control, margin=margin).verdict == verdict


@pytest.mark.parametrize("statistic", ["mean", "p90"])
def test_lower_is_worse_turned_around(statistic: str) -> None:
    """Of the negative values, with the other direction worse, everything is the same with the sign turned."""
    value, control = costs()
    plain = non_inferiority(value, control, margin=0.2, statistic=statistic)
    other = "p10" if statistic == "p90" else statistic
    turned = non_inferiority(-value, -control, margin=0.2, worse="lower", statistic=other)
    assert (turned.verdict, turned.bound) == (plain.verdict, turned.low)
    assert (-turned.high, -turned.low, -turned.difference) == pytest.approx((plain.low, plain.high, plain.difference), abs=0.01)


def test_a_relative_margin_bounds_the_ratio() -> None:
    """Of means that vary alike, the ratio is known far better than either: 3 % more, give or take 1 %."""
    value, control = costs(1000)
    found = non_inferiority(value, control, margin=0.1, relative=True)
    assert found.difference == pytest.approx(value.mean() / control.mean() - 1)
    assert found.verdict == "kept"
    assert 0.015 < found.low < found.difference < found.high < 0.05
    theirs = importlib.import_module("scipy.stats").bootstrap(
        (value, control),
        lambda a, b, axis: a.mean(axis) / b.mean(axis) - 1,
        paired=True,
        confidence_level=0.9,
        method="BCa",
        rng=np.random.default_rng(1),
    )
    width = found.high - found.low
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.1 * width)


def test_a_percentile_is_bounded_by_the_bootstrap() -> None:
    """Value and interval are those of scipy's percentile bootstrap of numpy's percentile."""
    value, control = costs()
    for share, relative in ((95, False), (50, True)):

        def statistic(a: Any, b: Any, axis: int, share: int = share, relative: bool = relative) -> Any:
            first, second = np.percentile(a, share, axis=axis), np.percentile(b, share, axis=axis)
            return first / second - 1 if relative else first - second

        found = non_inferiority(value, control, margin=0.1, statistic=f"p{share}", relative=relative, resamples=9999)
        theirs = importlib.import_module("scipy.stats").bootstrap(
            (value, control),
            statistic,
            paired=True,
            confidence_level=0.9,
            method="percentile",
            rng=np.random.default_rng(1),
        )
        width = found.high - found.low
        assert found.difference == pytest.approx(statistic(value, control, 0))
        assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.08 * width)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 4)), min_size=2, max_size=20), st.floats(0.01, 0.99))
def test_resampled_percentiles_are_those_of_numpy(rows: list[tuple[int, int]], share: float) -> None:
    """A percentile of values that count several times is numpy's of the list in which they stand so often."""
    from llmrank.experiment.statistics.noninferiority import _drawn_quantiles

    values, codes = (np.array(column) for column in zip(*rows, strict=True))
    codes = np.unique(codes, return_inverse=True)[1]
    times = np.random.default_rng(2).integers(0, 3, size=(3, codes.max() + 1))
    times[:, codes[0]] += 1
    found = _drawn_quantiles(values.astype(float), codes, times, share)
    for row, quantile in zip(times, found, strict=True):
        assert quantile == pytest.approx(np.quantile(np.repeat(values, row[codes]), share), abs=1e-9)


def test_nobody_failed() -> None:
    """Of 100 users none failed either way: the rate may still be z^2 / (n + z^2) higher, and the bound says so."""
    zeros = np.zeros(100)
    found = non_inferiority(zeros, zeros, margin=0.02, statistic="rate")
    assert (found.difference, found.method, found.verdict) == (0.0, "score", "unclear")
    assert found.high == pytest.approx(1.6449**2 / (100 + 1.6449**2), abs=1e-4)
    assert found.low == pytest.approx(-found.high)
    assert non_inferiority(zeros, zeros, margin=0.03, statistic="rate").verdict == "kept"
    assert non_inferiority(np.ones(100), zeros, margin=0.03, statistic="rate").verdict == "broken"


@settings(deadline=None, max_examples=60)
@given(COUNTS, st.floats(-0.95, 0.95))
def test_the_score_is_that_of_the_likeliest_rates(counts: tuple[int, int, int], delta: float) -> None:
    """The closed form of Tango's statistic against a search for the rates that are likeliest under a difference of delta."""
    wins, losses, same = counts
    n = sum(counts)

    def unlikely(rate: float) -> float:
        cells = (rate + delta, rate, 1 - 2 * rate - delta)
        return -sum(
            count * math.log(max(cell, 1e-300)) for count, cell in zip((wins, losses, same), cells, strict=True) if count
        )

    bounds = max(0.0, -delta), (1 - delta) / 2
    optimize = importlib.import_module("scipy.optimize")
    rate = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * rate + delta * (1 - delta))
    if variance > 1e-3:
        assert score(wins, losses, n, delta) == pytest.approx((wins - losses - n * delta) / math.sqrt(variance), abs=1e-3)


@settings(deadline=None)
@given(COUNTS, st.floats(0.5, 0.99))
def test_a_score_interval_holds_the_difference(counts: tuple[int, int, int], confidence: float) -> None:
    """It holds what was seen, has a width, stays in range, and is turned around where wins and losses are."""
    wins, losses, same = counts
    n = wins + losses + same
    low, high = score_interval(wins, losses, n, confidence)
    assert -1 <= low <= (wins - losses) / n <= high <= 1
    assert high - low > 0.01 / n
    assert score_interval(losses, wins, n, confidence) == pytest.approx((-high, -low), abs=1e-9)


def test_repeats_of_one_user_are_worth_less() -> None:
    """Five cases of each of 20 users that always fail together bound as 20 users do; independent ones nearly as 100."""
    users, together = np.repeat(np.arange(20), 5), np.repeat(np.arange(20) % 2, 5)
    apart = np.tile([1, 0, 1, 0, 0], 20)
    assert effective(together.astype(float), users) == pytest.approx(20, rel=0.05)
    assert effective(apart.astype(float), users) > 60
    assert effective(np.zeros(100), users) == pytest.approx(20)
    plain = non_inferiority(together, np.zeros(100), margin=0.1, statistic="rate")
    clustered = non_inferiority(together, np.zeros(100), users, margin=0.1, statistic="rate")
    assert plain.high < clustered.high
    assert (clustered.n, clustered.clusters) == (100, 20)


def test_more_failures_never_bound_less() -> None:
    """From nobody who failed to all, the bound only rises, also where users have several cases."""
    users = np.repeat(np.arange(30), 4)
    bounds = []
    for failed in range(0, 31, 3):
        value = np.zeros(120)
        value[: 4 * failed : 4] = 1
        bounds.append(non_inferiority(value, np.zeros(120), users, margin=0.1, statistic="rate").high)
    assert all(high > low - 0.005 for low, high in pairwise(bounds))


def test_a_part_of_nothing() -> None:
    """A relative margin of a control of 0 cannot be judged, except that nothing that stays nothing is kept."""
    zeros, ones = np.zeros(10), np.ones(10)
    for statistic in ("mean", "p95"):
        found = non_inferiority(ones, zeros, margin=0.1, relative=True, statistic=statistic)
        assert (found.verdict, found.value, found.control) == ("unclear", 1.0, 0.0)
        assert math.isnan(found.difference)
        assert math.isnan(found.bound)
        still = non_inferiority(zeros, zeros, margin=0.1, relative=True, statistic=statistic)
        assert (still.verdict, still.difference, still.bound) == ("kept", 0.0, 0.0)


def test_too_few_to_tell() -> None:
    """One user, or none: no bound, and the verdict says that it is not known."""
    for statistic in ("mean", "p95"):
        found = non_inferiority([1.0, 2.0], [1.0, 1.0], ["a", "a"], margin=9, statistic=statistic)
        assert (found.verdict, found.clusters) == ("unclear", 1)
        assert found.difference > 0
        assert math.isnan(found.bound)
    for statistic in ("mean", "p95", "rate"):
        found = non_inferiority([NAN], [1.0], margin=9, statistic=statistic)
        assert (found.verdict, found.n) == ("unclear", 0)
        assert math.isnan(found.value)


def test_pairs_without_a_value_are_left_out() -> None:
    """A case in which either has no value counts for neither."""
    value, control = costs(50)
    some, others = np.append(value, [NAN, 5.0]), np.append(control, [5.0, NAN])
    assert non_inferiority(some, others, margin=0.1) == non_inferiority(value, control, margin=0.1)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"margin": -1}, "margin"),
        ({"margin": NAN}, "margin"),
        ({"margin": 0.1, "relative": True, "statistic": "rate"}, "margin"),
        ({"margin": 0.1, "worse": "up"}, "worse"),
        ({"margin": 0.1, "alpha": 0.5}, "alpha"),
        ({"margin": 0.1, "statistic": "median"}, "statistic"),
        ({"margin": 0.1, "statistic": "p0"}, "statistic"),
        ({"margin": 0.1, "resamples": 1}, "resamples"),
        ({"margin": 0.1, "resamples": 1, "statistic": "p95"}, "resamples"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], field: str) -> None:
    """The error names the option."""
    with pytest.raises(ConfigError) as caught:
        non_inferiority([1.0, 0.0], [0.0, 1.0], **options)
    assert caught.value.field == field


def test_values_that_cannot_be_judged_are_named() -> None:
    """Shapes that do not fit, infinite values, a rate of other numbers than 0 and 1, a part of something negative."""
    with pytest.raises(InputError, match="control"):
        non_inferiority([1.0], [1.0, 2.0], margin=1)
    with pytest.raises(InputError, match="clusters"):
        non_inferiority([1.0], [1.0], [1, 2], margin=1)
    with pytest.raises(InputError, match="value"):
        non_inferiority([math.inf], [1.0], margin=1)
    with pytest.raises(InputError, match="0 or 1"):
        non_inferiority([0.5, 0], [1.0, 0], margin=1, statistic="rate")
    with pytest.raises(InputError, match="absolute"):
        non_inferiority([0.5, 0], [-1.0, 0], margin=1, relative=True)


def test_coverage_by_hand() -> None:
    """Three users; the variant shows a to d, the control a to c: d and c stand with one user only."""
    value = [{"a", "b"}, {"a", "c"}, {"b", "c", "d"}]
    control = [{"a", "b"}, {"a", "b"}, {"c"}]
    found = coverage_non_inferiority(value, control, catalogue=10, margin=0.5)
    assert (found.value, found.control, found.difference) == pytest.approx((0.4, 0.3, 0.1))
    # Without the third user either falls by one item: the difference stays.
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
    assert (found.verdict, found.bound, found.method, found.clusters) == ("kept", found.low, "jackknife", 3)
    other = coverage_non_inferiority(value, [{"a"}, {"b"}, {"c"}], catalogue=10, margin=0.05)
    # Falls without each user: the variant 0, 0, 1, the control 1, 1, 1 items; the variance is 2/3 * ((1/3)^2 * 2 + (2/3)^2).
    assert other.high - other.difference == pytest.approx(2.91999 * math.sqrt(4 / 9) / 10, rel=1e-4)
    assert other.verdict == "unclear"


def test_the_jackknife_of_coverage_leaves_out_each_user() -> None:
    """The closed form is what leaving out one user after another gives, and clusters are left out whole."""
    generator = np.random.default_rng(8)
    value, control = ([set(generator.zipf(1.5, size=5).tolist()) for _ in range(40)] for _ in range(2))
    users = np.repeat(np.arange(20), 2)
    found = coverage_non_inferiority(value, control, users, catalogue=1000, margin=0.1)

    def gap(without: int | None) -> float:
        sizes = [
            len(set().union(*(one for one, user in zip(some, users, strict=True) if user != without)))
            for some in (value, control)
        ]
        return (sizes[0] - sizes[1]) / 1000

    left = np.array([gap(user) for user in range(20)])
    error = math.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum())
    assert found.difference == pytest.approx(gap(None))
    assert found.high - found.low == pytest.approx(2 * 1.729133 * error, rel=1e-6)


def test_relative_coverage_and_its_ends() -> None:
    """The part that is lost; a control that covers nothing has no parts."""
    lists = [{str(user), "all"} for user in range(30)]
    half = [{str(user), "all"} if user % 2 else {"all"} for user in range(30)]
    found = coverage_non_inferiority(half, lists, catalogue=31, margin=0.1, relative=True)
    assert found.difference == pytest.approx(16 / 31 - 1)
    assert -1 < found.low < found.difference < found.high < -0.1
    assert found.verdict == "broken"
    assert coverage_non_inferiority(lists, lists, catalogue=31, margin=0.01, relative=True).verdict == "kept"
    nothing: list[set[str]] = [set(), set()]
    assert coverage_non_inferiority(nothing, nothing, catalogue=9, margin=0.1, relative=True).verdict == "unclear"
    assert coverage_non_inferiority([], [], catalogue=9, margin=0.1).verdict == "unclear"
    with pytest.raises(ConfigError, match="catalogue"):
        coverage_non_inferiority([], [], catalogue=0, margin=0.1)
    with pytest.raises(InputError, match="control"):
        coverage_non_inferiority(lists, half[1:], catalogue=31, margin=0.1)


def test_ratios_of_ones_are_means() -> None:
    """A ratio to as many ones is the mean, bit for bit; a pair with NaN is left out."""
    values = np.random.default_rng(3).exponential(size=(40, 2))
    users = np.arange(40) // 2
    ratios, means = bootstrap_ratios(values, np.ones((40, 2)), users), bootstrap_means(values, users)
    assert np.array_equal(ratios.low, means.low)
    assert np.array_equal(ratios.high, means.high)
    gaps = np.vstack([values, [[NAN, 1.0]]])
    again = bootstrap_ratios(gaps, np.vstack([np.ones((40, 2)), [[1.0, NAN]]]), np.append(users, 99))
    assert np.array_equal(again.low, means.low)
    assert (again.n == 40).all()


def test_ratios_without_a_denominator() -> None:
    """NaN where there is nothing to divide by: in all, without one user, or in a resample."""
    found = bootstrap_ratios(np.ones((3, 2)), [[0.0, 5.0], [0.0, 0.0], [0.0, 0.0]])
    assert math.isnan(found.mean[0])
    assert found.mean[1] == pytest.approx(0.6)
    assert np.isnan([*found.low, *found.high, *found.error]).all()
    few = bootstrap_ratios([[1.0], [2.0], [0.5]], [[1.0], [1.0], [0.0]])
    assert np.isnan([few.low[0], few.high[0]]).all()
    with pytest.raises(InputError, match="denominators"):
        bootstrap_ratios([[1.0]], [[-1.0]])
    with pytest.raises(InputError, match="denominators"):
        bootstrap_ratios([[1.0]], [[1.0, 1.0]])
