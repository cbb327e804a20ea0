"""Differences of online metrics: the planned sample once and never before, intervals that may be read at any time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from llmrank.evaluation.measures.statistics import holm
from llmrank.experiment.online.effects import MetricEffect, _looks, metric_effects
from llmrank.experiment.online.event import Event, exposure, outcome
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions
from llmrank.experiment.online.tally import Tally, tally
from llmrank.experiment.statistics.asymptotic import AsymptoticDifference
from llmrank.experiment.statistics.groups import conversion_difference, mean_difference, ratio_difference
from llmrank.experiment.statistics.multiplicity import benjamini_hochberg

VARIANTS = ("plain", "new", "newer")
NAMES = ("buy", "view", "before")
SHARES = (1 / 3, 1 / 3, 1 / 3)


def simulated(users: int, *, effect: float = 0.0, seed: int = 0) -> Tally:
    """Users who come one a second, in turn to each variant, and have bought before what foretells what they buy.

    The variant `new` has `effect` more.
    """
    draw = np.random.default_rng(seed)
    events: list[Event] = []
    for number in range(users):
        unit, variant = str(number), VARIANTS[draw.integers(3)]
        before = draw.normal(10, 2)
        events += [
            outcome("e", unit, "before", before, event_id=f"b{number}", time=number - 0.5),
            exposure("e", unit, variant, time=float(number)),
            outcome("e", unit, "view", float(draw.integers(1, 5)), event_id=f"v{number}", time=number + 0.1),
        ]
        if draw.random() < 0.5 + effect * (variant == "new"):
            value = before + draw.normal() + 3 * effect * (variant == "new")
            events.append(outcome("e", unit, "buy", value, event_id=f"o{number}", time=number + 0.2))
    return tally(events, "e", VARIANTS, NAMES)


def effects(found: Tally, *metrics: MetricOptions, planned: int | None = None, early: float = 0.2) -> list[MetricEffect]:
    """The effects at the level 5 %."""
    return list(metric_effects(found, "plain", SHARES, ReadingOptions(metrics, planned=planned, early=early)))


CONVERSION = MetricOptions("buys", "conversion", event="buy")
MEAN = MetricOptions("revenue", "mean", event="buy")
CUPED = MetricOptions("adjusted", "mean", event="buy", covariate="before")
RATIO = MetricOptions("per view", "ratio", event="buy", denominator="view")


def test_the_planned_sample_is_the_first_users_and_no_others() -> None:
    """The tests are those of `statistics.groups` on the first 500 users of 600, at the level that is left for them."""
    found = simulated(600)
    new, plain = (np.flatnonzero(found.places[:500] == place) for place in (1, 0))
    bought, views = found.after("buy"), found.after("view")
    counts = found.after("buy", count=True)
    shown = {
        each.metric.name: each for each in effects(found, CONVERSION, MEAN, CUPED, RATIO, planned=500) if each.variant == "new"
    }
    hits = [(int(counts[users].sum()), len(users)) for users in (new, plain)]
    assert shown["buys"].fixed == conversion_difference(*hits, confidence=0.96)
    assert shown["revenue"].fixed == mean_difference(bought[new], bought[plain], confidence=0.96)
    before = found.before("before")
    assert shown["adjusted"].fixed == mean_difference(
        bought[new], bought[plain], before=(before[new], before[plain]), confidence=0.96
    )
    assert shown["per view"].fixed == ratio_difference(
        (bought[new], views[new]), (bought[plain], views[plain]), confidence=0.96
    )


def test_the_planned_sample_is_not_read_before() -> None:
    """With one user fewer than planned there is no test of a fixed sample, with that one there is."""
    found = simulated(300)
    assert all(each.fixed is None and math.isnan(each.adjusted) for each in effects(found, MEAN, RATIO, planned=301))
    assert all(each.fixed is not None for each in effects(found, MEAN, RATIO, planned=300))
    assert all(each.fixed is None for each in effects(found, MEAN))


def test_users_whose_window_is_not_over_do_not_count() -> None:
    """Neither in the planned sample nor in the interval of any time."""
    found = simulated(300)  # one a second; the log ends within a second of the last
    windowed = replace(MEAN, window_days=100 / 86_400)
    (effect, _) = effects(found, windowed, planned=250)
    assert effect.fixed is None
    assert effect.users + effect.control_users == int((found.places[:200] < 2).sum())


def test_the_interval_of_any_time_is_that_of_the_users_so_far() -> None:
    """With a look after each user of a log of 201 of both variants, it is `AsymptoticDifference` fed by hand."""
    found = simulated(301)
    effect = effects(found, MEAN)[0]
    values, places = found.after("buy"), found.places
    sequence = AsymptoticDifference(expected_n=10_000, confidence=0.95)
    pair = np.flatnonzero(places < 2)
    for begin, end in [(0, 200), (200, len(pair))]:
        users = pair[begin:end]
        sequence.extend(values[users[places[users] == 1]], values[users[places[users] == 0]])
    assert effect.any_time is not None
    assert (effect.any_time.low, effect.any_time.high, effect.any_time.p) == (sequence.low, sequence.high, sequence.p)


@pytest.mark.parametrize("metric", [CONVERSION, MEAN, CUPED, RATIO], ids=lambda metric: metric.name)
def test_the_difference_of_any_time_is_that_of_the_metric(metric: MetricOptions) -> None:
    """One value a user stands for the metric: of ratios too, and of both kinds of reading at the same users."""
    effect = effects(simulated(900), metric, planned=900)[0]
    assert effect.any_time is not None
    assert effect.fixed is not None
    assert effect.any_time.difference == pytest.approx(effect.fixed.difference)
    assert effect.value == pytest.approx(effect.fixed.value)
    assert effect.control == pytest.approx(effect.fixed.control)
    assert effect.any_time.high - effect.any_time.low > effect.fixed.high - effect.fixed.low


def test_a_p_value_of_any_time_never_rises_while_the_log_grows() -> None:
    """The looks come after the same numbers of users, however long the log is, so that a decision stands."""
    whole = simulated(900, effect=0.3, seed=3)
    pair = np.flatnonzero(whole.places < 2)
    last = 1.0
    for look in [each for each in _looks(len(pair)) if each < len(pair)][::12]:
        effect = effects(simulated(int(pair[look - 1]) + 1, effect=0.3, seed=3), MEAN)[0]
        assert effect.users + effect.control_users == look
        assert effect.any_time is not None
        assert effect.any_time.p <= last
        last = effect.any_time.p
    assert last < 0.05


def test_a_covariate_makes_the_interval_narrower() -> None:
    """What users bought before foretells part of what they buy."""
    found = simulated(900)
    plain, adjusted = effects(found, MEAN)[0], effects(found, CUPED)[0]
    assert plain.any_time is not None
    assert adjusted.any_time is not None
    assert adjusted.reduction is not None
    assert adjusted.reduction > 0
    assert adjusted.any_time.high - adjusted.any_time.low < plain.any_time.high - plain.any_time.low


def test_p_values_are_corrected_for_their_number() -> None:
    """Holm over the variants of the primary metric; Benjamini and Hochberg over all comparisons of the others together."""
    found = effects(simulated(900, effect=0.1), MEAN, CONVERSION, RATIO, planned=900)
    primary, others = found[:2], found[2:]
    assert [each.metric.name for each in primary] == ["revenue", "revenue"]
    for correct, some in ((holm, primary), (benjamini_hochberg, others)):
        assert [each.adjusted for each in some] == correct([each.fixed.p for each in some if each.fixed is not None])
        now = [each.any_time for each in some if each.any_time is not None]
        assert [each.adjusted for each in now] == correct([each.p for each in now])


def test_nobody_yet_is_no_error() -> None:
    """One user, a variant without any, or nothing below the line: no difference, and an interval that says nothing."""
    for users in (1, 3):
        for effect in effects(simulated(users), CONVERSION, MEAN, CUPED, replace(RATIO, denominator="nothing")):
            assert effect.any_time is not None
            assert (effect.any_time.low, effect.any_time.high, effect.any_time.p) == (-math.inf, math.inf, 1.0)


def test_without_early_looks_there_is_no_interval_of_any_time() -> None:
    """All of the level is for the plan then."""
    found = effects(simulated(300), MEAN, planned=300, early=0)
    assert all(each.any_time is None for each in found)
    assert found[0].fixed == effects(simulated(300), MEAN, planned=300, early=0)[0].fixed
