"""Two groups of different users: against scipy and statsmodels, published examples, and what CUPED may and may not change."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ConfigError, InputError
from llmrank.experiment.statistics.groups import _score, conversion_difference, cuped, mean_difference, ratio_difference

NAN = math.nan
RATES = st.integers(1, 200).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


def users(n: int, m: int, seed: int = 1) -> tuple[Any, Any, Any, Any]:
    """Values of two groups, and what their users had done before, which is part of them."""
    generator = np.random.default_rng(seed)
    x, other = generator.exponential(size=n), generator.exponential(size=m)
    return x + generator.normal(size=n) + 0.1, other + generator.normal(size=m), x, other


def test_means_are_compared_as_by_scipy() -> None:
    """Welch's p value and interval, at two levels."""
    value, control, *_ = users(60, 45)
    theirs = importlib.import_module("scipy.stats").ttest_ind(value, control, equal_var=False)
    for confidence in (0.95, 0.8):
        found = mean_difference(value, control, confidence=confidence)
        assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
        assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(confidence)), rel=1e-9)
    assert (found.n_value, found.n_control, found.n) == (60, 45, 105)
    assert found.difference == pytest.approx(value.mean() - control.mean())
    assert found.lift == pytest.approx(value.mean() / control.mean() - 1)
    assert found.reduction is None


@pytest.mark.parametrize(
    ("value", "control", "low", "high"),
    [((56, 70), (48, 80), 0.0528, 0.3382), ((9, 10), (3, 10), 0.1700, 0.8406), ((5, 56), (0, 29), -0.0326, 0.1933)],
)
def test_rates_have_the_published_interval(value: tuple[int, int], control: tuple[int, int], low: float, high: float) -> None:
    """Newcombe 1998 ("Interval estimation for the difference between independent proportions"), table II, method 6."""
    found = conversion_difference(value, control)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(RATES, RATES)
def test_rates_are_tested_as_by_statsmodels(value: tuple[int, int], control: tuple[int, int]) -> None:
    """The score test of no difference; where all, or none, were converted in both groups, p is 1."""
    found = conversion_difference(value, control)
    if value[0] + control[0] in (0, value[1] + control[1]):
        assert found.p == 1.0
        return
    proportion = importlib.import_module("statsmodels.stats.proportion")
    z, p = proportion.score_test_proportions_2indep(*value, *control, value=0, compare="diff")[:2]
    assert found.p == pytest.approx(p, rel=1e-6)
    assert _score(value, control, 0.0) == pytest.approx(z, rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(RATES, RATES, st.floats(-0.95, 0.95))
def test_the_score_is_that_of_the_likeliest_rates(value: tuple[int, int], control: tuple[int, int], delta: float) -> None:
    """The root of the cubic against a search for the rates that are likeliest (statsmodels is wrong below 0 here)."""
    (x, n), (y, m) = value, control

    def unlikely(rate: float) -> float:
        terms = ((x, rate + delta), (n - x, 1 - rate - delta), (y, rate), (m - y, 1 - rate))
        return -sum(count * math.log(max(part, 1e-300)) for count, part in terms if count)

    bounds = max(0.0, -delta), min(1.0, 1 - delta)
    optimize = importlib.import_module("scipy.optimize")
    rate = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = (rate * (1 - rate) / m + (rate + delta) * (1 - rate - delta) / n) * (n + m) / (n + m - 1)
    if variance > 1e-5:
        assert _score(value, control, delta) == pytest.approx((x / n - y / m - delta) / math.sqrt(variance), abs=2e-3, rel=2e-3)


@settings(deadline=None)
@given(RATES, RATES, st.floats(0.5, 0.99))
def test_rates_interval_and_p_agree(value: tuple[int, int], control: tuple[int, int], confidence: float) -> None:
    """The interval holds what was seen, has a width, and leaves out 0 exactly when p is below the level."""
    found = conversion_difference(value, control, confidence=confidence)
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert found.high > found.low
    if abs(found.p - (1 - confidence)) > 1e-6:
        assert (found.low <= 1e-9 and found.high >= -1e-9) == (found.p > 1 - confidence)


def test_a_ratio_of_sums_by_hand() -> None:
    """Clicks per impression of three users and of two: 4 / 8 - 1 / 4, and the error of the delta method."""
    found = ratio_difference(([1, 2, 1], [2, 3, 3]), ([1, 0], [2, 2]))
    assert (found.value, found.control, found.difference) == pytest.approx((0.5, 0.25, 0.25))
    # Deviations from the ratio: (0, 0.5, -0.5) of 8/3 impressions; (0.5, -0.5) of 2.
    first, second = 0.25 / (8 / 3) ** 2 / 3, 0.5 / 2**2 / 2
    assert found.error == pytest.approx(math.sqrt(first + second))


def test_a_ratio_to_one_is_a_mean() -> None:
    """With one impression each, the ratio of sums is the mean."""
    value, control, *_ = users(30, 40)
    ratio = ratio_difference((value, np.ones(30)), (control, np.ones(40)))
    mean = mean_difference(value, control)
    assert (ratio.difference, ratio.low, ratio.high, ratio.p) == pytest.approx((mean.difference, mean.low, mean.high, mean.p))


def test_the_delta_method_agrees_with_the_bootstrap() -> None:
    """Heavy users differ: the error is that of resampled users, not that of impressions taken for independent."""
    generator = np.random.default_rng(4)

    def group(n: int, rate: float) -> tuple[Any, Any]:
        shown = generator.geometric(0.1, size=n)
        return generator.binomial(shown, generator.beta(2, 2 / rate, size=n)), shown

    value, control = group(400, 0.3), group(400, 0.3)
    found = ratio_difference(value, control)
    drawn = []
    for _ in range(2000):
        ratios = []
        for clicks, shown in (value, control):
            some = generator.integers(0, 400, size=400)
            ratios.append(clicks[some].sum() / shown[some].sum())
        drawn.append(ratios[0] - ratios[1])
    assert found.error == pytest.approx(np.std(drawn), rel=0.06)
    pooled = math.sqrt(sum(r * (1 - r) / shown.sum() for (_, shown), r in ((value, found.value), (control, found.control))))
    assert found.error > 1.5 * pooled


def test_cuped_by_hand() -> None:
    """Within the groups y goes up by 2 with x: theta is 2, and what is left does not vary."""
    found = cuped([1.0, 3.0, 5.0], [10.0, 12.0], [0.0, 1.0, 2.0], [0.0, 1.0])
    assert found.theta == pytest.approx(2.0)
    assert found.reduction == pytest.approx(1.0)
    assert found.value - 2.6 == pytest.approx([0.0] * 3)  # the mean of x is 0.8 and not 1
    assert found.control == pytest.approx([11.6] * 2)


def test_cuped_is_a_regression() -> None:
    """The adjusted difference is the coefficient of the group beside the covariate, in ordinary least squares."""
    value, control, x, other = users(80, 70)
    found = mean_difference(value, control, before=(x, other))
    design = np.column_stack([np.ones(150), np.repeat([1.0, 0.0], [80, 70]), np.concatenate([x, other])])
    coefficients = np.linalg.lstsq(design, np.concatenate([value, control]), rcond=None)[0]
    assert found.difference == pytest.approx(coefficients[1])
    assert cuped(value, control, x, other).theta == pytest.approx(coefficients[2])
    plain = mean_difference(value, control)
    assert found.reduction == pytest.approx(0.5, abs=0.15)  # half of the variance is the covariate's
    assert found.error < 0.85 * plain.error
    assert (found.value, found.control) == (plain.value, plain.control)


def test_cuped_leaves_new_users_as_they_are() -> None:
    """Who has no covariate counts unadjusted; one that is known of nobody, or never varies, changes nothing."""
    value, control, x, other = users(50, 50)
    some = np.where(np.arange(50) < 25, x, NAN)
    found = cuped(value, control, some, other)
    assert np.array_equal(found.value[25:], value[25:])
    assert not np.isclose(found.value[:25], value[:25]).any()
    assert 0 < found.reduction < cuped(value, control, x, other).reduction
    for nothing in (NAN, 0.1):
        plain = cuped(value, control, np.full(50, nothing), np.full(50, nothing))
        assert np.array_equal(plain.value, value)
        assert (plain.theta, plain.reduction) == (0.0, 0.0)


def test_cuped_serves_ratios() -> None:
    """The covariate takes its part out of the linearised ratio."""
    generator = np.random.default_rng(6)
    taste = generator.random((2, 300))
    shown = generator.integers(1, 20, size=(2, 300))
    clicks = generator.binomial(shown, taste)
    plain = ratio_difference((clicks[0], shown[0]), (clicks[1], shown[1]))
    adjusted = ratio_difference((clicks[0], shown[0]), (clicks[1], shown[1]), before=(taste[0], taste[1]))
    assert adjusted.reduction is not None
    assert adjusted.reduction > 0.4
    assert adjusted.error == pytest.approx(plain.error * math.sqrt(1 - adjusted.reduction), rel=0.02)


def test_what_is_missing_is_left_out() -> None:
    """A user without a value counts in neither group, with a covariate or without."""
    value, control, x, other = users(30, 30)
    gaps, known = np.append(value, NAN), np.append(x, 1.0)
    assert mean_difference(gaps, control) == mean_difference(value, control)
    assert mean_difference(gaps, control, before=(known, other)).p == pytest.approx(
        mean_difference(value, control, before=(x, other)).p
    )


def test_too_few_users() -> None:
    """One user in a group says nothing of how users differ; none has no mean; no error, and no p value."""
    one, none = mean_difference([1.0], [1.0, 2.0]), mean_difference([], [1.0, 2.0])
    assert (one.difference, one.n_value) == (-0.5, 1)
    assert np.isnan([one.low, one.high, one.p, none.difference, none.p]).all()
    empty = conversion_difference((0, 0), (1, 3))
    assert np.isnan([empty.value, empty.difference, empty.low, empty.p]).all()
    assert math.isnan(ratio_difference(([0, 0], [0, 0]), ([1, 2], [2, 2])).difference)


def test_values_that_never_vary() -> None:
    """Equal constants do not differ (p 1); different ones do, but how surely cannot be told."""
    same, other = mean_difference([0.1] * 5, [0.1] * 7), mean_difference([0.1] * 5, [0.2] * 7)
    assert (same.p, same.low, same.high) == pytest.approx((1.0, 0.0, 0.0))
    assert math.isnan(other.p)
    assert math.isnan(mean_difference([1.0, 2.0], [0.0, 0.0]).lift)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: mean_difference([1.0, math.inf], [1.0]), "value"),
        (lambda: mean_difference([1.0], [[1.0]]), "control"),
        (lambda: mean_difference([1.0, 2.0], [1.0], before=([1.0], [1.0])), "value_before"),
        (lambda: ratio_difference(([1], [1, 2]), ([1], [1])), "value"),
        (lambda: ratio_difference(([1], [1]), ([1], [-1])), "control"),
        (lambda: conversion_difference((3, 2), (1, 2)), "value"),
        (lambda: conversion_difference((1, 2), (-1, 2)), "control"),
    ],
)
def test_what_cannot_be_is_named(call: Any, field: str) -> None:
    """The error names the group that is wrong."""
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.field == field


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_difference([1.0], [1.0], confidence=1),
        lambda: ratio_difference(([1], [1]), ([1], [1]), confidence=0),
        lambda: conversion_difference((1, 2), (1, 2), confidence=95),
    ],
)
def test_the_confidence_must_be_one(call: Any) -> None:
    """Between 0 and 1, for all three."""
    with pytest.raises(ConfigError, match="confidence"):
        call()
