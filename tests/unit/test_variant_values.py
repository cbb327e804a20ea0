"""Each variant's own value: how many users and events it is from, and its interval by either way to read."""

from __future__ import annotations

import math

import numpy as np
import pytest

from llmrank.evaluation.measures.proportions import wilson
from llmrank.experiment.online.event import Event, exposure, outcome
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions
from llmrank.experiment.online.tally import Tally, tally
from llmrank.experiment.online.variant_values import VariantValue, variant_values
from llmrank.experiment.statistics.asymptotic import AsymptoticSequence

BUYS = MetricOptions("buys", "conversion", event="buy")
REVENUE = MetricOptions("revenue", "mean", event="buy")
RATIO = MetricOptions("per view", "ratio", event="buy", denominator="view")


def counted(*users: tuple[str, list[float], int]) -> Tally:
    """Users in the order of exposure: a variant, what each purchase was worth, how many views."""
    events: list[Event] = []
    for number, (variant, bought, views) in enumerate(users):
        unit = str(number)
        events.append(exposure("e", unit, variant, time=float(number)))
        events += [
            outcome("e", unit, "buy", value, event_id=f"b{number}-{place}", time=number + 0.1)
            for place, value in enumerate(bought)
        ]
        events += [outcome("e", unit, "view", event_id=f"v{number}-{place}", time=number + 0.1) for place in range(views)]
    return tally(events, "e", ("plain", "new"), ("buy", "view"))


def found(users: Tally, *metrics: MetricOptions, planned: int | None = None, early: float = 0.2) -> list[VariantValue]:
    """The values at the level 5 %, of equal shares."""
    return list(variant_values(users, (0.5, 0.5), ReadingOptions(metrics, planned=planned, early=early)))


def test_a_value_has_its_users_and_events() -> None:
    """A user who buys twice is one conversion, two events, and the sum of both; a ratio is of sums."""
    users = counted(("plain", [3.0, 5.0], 4), ("new", [], 1), ("plain", [], 2), ("plain", [2.0], 0))
    buys, other, revenue, _, ratio, none = found(users, BUYS, REVENUE, RATIO)
    assert (buys.variant, buys.users, buys.events, buys.value) == ("plain", 3, 3, 2 / 3)
    assert (other.variant, other.users, other.events, other.value) == ("new", 1, 0, 0.0)
    assert revenue.value == pytest.approx(10 / 3)
    assert ratio.value == pytest.approx(10 / 6)
    assert none.value == 0.0
    assert all(math.isinf(each.low) and each.fixed is None for each in (buys, other, revenue, ratio))


def many() -> Tally:
    """400 users, half of each variant, who buy more or less at random."""
    draw = np.random.default_rng(1)
    variants = ("plain", "new")
    return counted(
        *(
            (variants[number % 2], [float(draw.exponential(5))] if draw.random() < 0.3 else [], int(draw.integers(1, 4)))
            for number in range(400)
        )
    )


def test_the_planned_users_have_the_intervals_of_a_fixed_sample() -> None:
    """Wilson's for a conversion; Student's, as scipy has it, for a mean; for a ratio the delta method's error: of the first
    300 users, and at the level that looks leave.
    """
    stats = pytest.importorskip("scipy.stats")
    users = many()
    place = np.flatnonzero(users.places[:300] == 1)
    bought, views = users.after("buy")[place], users.after("view")[place]
    for each in found(users, BUYS, REVENUE, RATIO, planned=300):
        assert each.fixed is not None
        if each.variant == "plain":
            continue
        assert each.fixed.users == 150
        if each.metric is BUYS:
            assert (each.fixed.low, each.fixed.high) == wilson(float((bought > 0).sum()), 150, 0.96)
        elif each.metric is REVENUE:
            ends = stats.t.interval(0.96, 149, loc=bought.mean(), scale=stats.sem(bought))
            assert (each.fixed.low, each.fixed.high) == pytest.approx(ends)
        else:
            ratio = bought.sum() / views.sum()
            error = stats.sem(bought - ratio * views) / views.mean()
            assert (each.fixed.low, each.fixed.high) == pytest.approx(stats.t.interval(0.96, 149, loc=ratio, scale=error))


def test_before_the_planned_users_there_is_the_always_valid_interval_only() -> None:
    """That of a confidence sequence over the variant's users, in the order of exposure; none where looks have no level."""
    users = many()
    (_, new) = found(users, REVENUE, planned=1000)
    sequence = AsymptoticSequence(expected_n=500, confidence=0.99)
    sequence.extend(users.after("buy")[users.places == 1])
    assert (new.low, new.high, new.fixed) == (sequence.low, sequence.high, None)
    (_, blind) = found(users, REVENUE, planned=1000, early=0)
    assert (blind.low, blind.high, blind.fixed) == (-math.inf, math.inf, None)


def test_a_rate_is_never_below_nothing() -> None:
    """The interval of a rare conversion is cut at 0, that of a frequent one at 1."""
    rare = counted(*(("plain" if number % 2 else "new", [1.0] if number < 3 else [], 1) for number in range(300)))
    for each in found(rare, BUYS):
        assert each.low == 0.0
        assert each.value < each.high < 1
    frequent = counted(*(("plain" if number % 2 else "new", [] if number < 3 else [1.0], 1) for number in range(300)))
    assert all(each.high == 1.0 for each in found(frequent, BUYS))


def test_what_has_no_value_has_no_interval() -> None:
    """A variant without users; a ratio without anything below the line; a mean of one planned user."""
    alone = counted(("plain", [2.0], 0), ("plain", [], 0))
    plain, new = found(alone, RATIO, planned=2)
    assert math.isnan(plain.value)
    assert math.isnan(new.value)
    assert new.users == 0
    for each in (*found(alone, RATIO, planned=2), found(alone, REVENUE, planned=2)[1]):
        assert each.fixed is not None
        assert math.isnan(each.fixed.low)
