"""Readings of made-up logs, as like real ones as their page needs: users who come over weeks, buy, click and come back."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmrank.experiment.online.assignment import OnlineOptions, assign, online_of
from llmrank.experiment.online.events import Event, EventLog, click, exposure, impression, outcome
from llmrank.experiment.online.findings import OnlineReading
from llmrank.experiment.online.interleaving import team_draft
from llmrank.experiment.online.reading import read_log
from llmrank.experiment.online.reading_options import reading_of
from tests.unit.sample_findings import HOSTILE

DAY = 86_400.0
BEGIN = 1_790_000_000.0

METRICS: dict[str, Any] = {
    "purchase": {"kind": "conversion", "event": "order", "window_days": 7},
    "revenue": {"kind": "mean", "event": "order", "window_days": 7, "covariate": "spent before"},
    "clicks per view": {"kind": "ratio", "event": "click", "denominator": "view", "window_days": 7},
    "complaints": {"kind": "mean", "event": "complaint", "better": "lower"},
}


def visits(
    options: OnlineOptions, users: int, rates: Mapping[str, float], *, days: float, seed: int = 1, lost: str | None = None
) -> Iterator[Event]:
    """Users who come evenly over so many days; `rates` says which part of a variant's users orders. A third of the exposures
    of the variant `lost` never reaches the log.
    """
    draw = random.Random(seed)  # noqa: S311  # a simulation
    for number in range(users):
        user, time = f"user-{number}", BEGIN + DAY * days * number / users
        variant = assign(options, user).variant
        spent = draw.lognormvariate(3, 0.6)
        yield outcome(None, user, "spent before", round(spent, 2), event_id=f"before-{number}", time=time - 9 * DAY)
        if variant == lost and draw.random() < 1 / 3:
            continue
        yield exposure("shop", user, variant, time=time)
        for view in range(draw.randint(1, 5)):
            moment = time + draw.expovariate(1 / DAY)
            yield outcome("shop", user, "view", event_id=f"view-{number}-{view}", time=moment)
            if draw.random() < 0.6 * rates[variant]:
                yield outcome("shop", user, "click", event_id=f"click-{number}-{view}", time=moment + 5)
        if draw.random() < rates[variant]:
            value = round(0.8 * spent + draw.lognormvariate(2, 0.5), 2)
            yield outcome(None, user, "order", value, event_id=f"order-{number}", time=time + draw.expovariate(1 / (2 * DAY)))
        if draw.random() < 0.03:
            yield outcome("shop", user, "complaint", event_id=f"complaint-{number}", time=time + DAY)


def mishaps(variants: tuple[str, ...]) -> Iterator[Event]:
    """What happens to logs: second variants, unexposed users, ids that are used twice, other experiments."""
    for number in range(7):
        for variant in variants[:2]:
            yield exposure("shop", f"user-{number}", variant, time=BEGIN + 5 * DAY)
        yield outcome(None, f"stranger-{number}", "order", 5.0, event_id=f"stranger-{number}", time=BEGIN + DAY)
        yield outcome("shop", "user-1", "hover", event_id=f"hover-{number}", time=BEGIN + DAY)
        yield exposure("another", f"user-{number}", variants[0], time=BEGIN + DAY)
    for value in (1.0, 2.0):
        yield outcome("shop", "user-1", "complaint", value, event_id="used twice", time=BEGIN + DAY)
    yield click("shop", "user-1", "no such list", "a", time=BEGIN + DAY)


def lists(control: str, variant: str, users: int, liking: float, *, seed: int = 1) -> Iterator[Event]:
    """Interleaved lists, two a user; an item that the variant alone has is clicked with a chance that is higher by `liking`."""
    draw = random.Random(seed)  # noqa: S311  # a simulation
    ours, theirs = [f"new-{place}" for place in range(6)], [f"old-{place}" for place in range(6)]
    for number in range(users):
        for page in range(2):
            user, time, name = f"reader-{number}", BEGIN + 600.0 * number + page, f"{variant}-{page}"
            drafted = team_draft(theirs, ours, k=6, seed=f"{user} {name}")
            yield impression("shop", user, name, drafted.items, drafted.teams, {"a": control, "b": variant}, time=time)
            for item in drafted.items:
                if draw.random() < 0.12 + liking * item.startswith("new"):
                    yield click("shop", user, name, item, time=time + 30)


def reading(variants: tuple[str, ...], *parts: Iterator[Event], torn: bool = False, **section: Any) -> OnlineReading:
    """What a log of these events says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        with EventLog.open(path) as log:
            for events in parts:
                log.write(*events)
        if torn:
            with path.open("ab") as file:
                file.write(b'{"id":"torn')
        online = online_of(None, variants, variants[0], "shop")
        return read_log(path, "shop", online, reading_of({"metrics": METRICS, **section}))


def _options(variants: tuple[str, ...]) -> OnlineOptions:
    return online_of(None, variants, variants[0], "shop")


TWO = ("plain", "recency")
FOUR = ("plain", "recency", "diverse, from the long tail of the catalogue", "explained")


@lru_cache
def two() -> OnlineReading:
    """Two variants, all planned users there, one clearly better; a log with all sorts of mishaps."""
    events = visits(_options(TWO), 2500, {"plain": 0.20, "recency": 0.25}, days=28)
    return reading(TWO, events, mishaps(TWO), torn=True, planned=1500)


@lru_cache
def four() -> OnlineReading:
    """Four variants before the planned users are there; one is clearly worse."""
    rates = dict(zip(FOUR, (0.20, 0.22, 0.05, 0.21), strict=True))
    return reading(FOUR, visits(_options(FOUR), 1600, rates, days=20), planned=20_000)


@lru_cache
def four_done() -> OnlineReading:
    """Four variants, read once: no part of the level is for looks."""
    rates = dict(zip(FOUR, (0.20, 0.27, 0.12, 0.21), strict=True))
    return reading(FOUR, visits(_options(FOUR), 1600, rates, days=20, seed=4), planned=1000, early=0)


@lru_cache
def looks() -> OnlineReading:
    """Nothing is planned: always-valid intervals alone."""
    return reading(TWO, visits(_options(TWO), 1500, {"plain": 0.20, "recency": 0.21}, days=28))


@lru_cache
def few() -> OnlineReading:
    """So few users that there is no interval yet."""
    return reading(TWO, visits(_options(TWO), 60, {"plain": 0.20, "recency": 0.25}, days=20), planned=20_000)


@lru_cache
def waiting() -> OnlineReading:
    """No looks, and the planned users are not there: nothing may be compared."""
    return reading(TWO, visits(_options(TWO), 900, {"plain": 0.20, "recency": 0.25}, days=20), planned=20_000, early=0)


@lru_cache
def broken() -> OnlineReading:
    """A third of one variant's users is missing."""
    events = visits(_options(TWO), 1500, {"plain": 0.20, "recency": 0.25}, days=20, lost="recency")
    return reading(TWO, events, mishaps(TWO), planned=1000)


@lru_cache
def interleaved() -> OnlineReading:
    """Nothing but interleaved lists, of two pairs; one has its planned users."""
    pairs = lists("plain", FOUR[1], 300, 0.10), lists("plain", FOUR[3], 90, -0.02, seed=2)
    return reading(FOUR, *pairs, interleaved=200)


@lru_cache
def both() -> OnlineReading:
    """Metrics, and interleaved lists beside them."""
    events = visits(_options(TWO), 1500, {"plain": 0.20, "recency": 0.24}, days=28)
    return reading(TWO, events, lists("plain", "recency", 150, 0.05), mishaps(TWO), planned=5000, interleaved=100)


@lru_cache
def hostile() -> OnlineReading:
    """Names, outcomes and experiments that are HTML."""
    names = ("plain", HOSTILE)
    metrics = {f"{HOSTILE} bought": {"kind": "conversion", "event": "order", "window_days": 7}, "</style>": {"kind": "mean"}}
    events = visits(_options(names), 1200, dict(zip(names, (0.2, 0.3), strict=True)), days=28)
    other = [
        outcome("shop", "user-1", f"{HOSTILE} done", event_id="x", time=BEGIN),
        exposure(f"{HOSTILE} elsewhere", "user-1", "plain", time=BEGIN),
    ]
    return reading(names, events, iter(other), lists("plain", HOSTILE, 60, 0.1), planned=600, metrics=metrics)


ALL = {each.__name__: each for each in (two, four, four_done, looks, few, waiting, broken, interleaved, both, hostile)}
"""All of them by name."""
