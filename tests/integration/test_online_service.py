"""A service with an online experiment, from its threads to the decision: the effect is found, and a broken split is refused."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest
import yaml

from llmrank.experiment.online.assignment import Assignment, assign, online_of
from llmrank.experiment.online.events import Event, EventLog, Scan, click, exposure, impression, outcome
from llmrank.experiment.online.findings import OnlineReading
from llmrank.experiment.online.interleaving import team_draft
from llmrank.experiment.online.reading import read_experiment
from llmrank.experiment.spec import load_spec

USERS = 1000
DAY = 86_400.0
BUYS = {"plain": 0.2, "recency": 0.35}
EXPERIMENT = """
name: recency
dataset: ml-100k
variants:
  plain: {baseline: popularity}
  recency: {baseline: recency}
online:
  reading:
    planned: 1000
    metrics:
      purchase: {kind: conversion, window_days: 7}
      revenue: {kind: mean, event: purchase, covariate: spent, window_days: 7}
      clicks per list: {kind: ratio, event: click, denominator: list, window_days: 7}
"""


class Service:
    """Answers requests of users and logs what came of them; each thread serves every user, as load balancers do.

    Args:
        log: Where to.
        loses: Whether exposures of the variant `recency` are lost for a third of its users, as with a crash of their page.
    """

    def __init__(self, log: EventLog, experiment: Path, *, loses: bool) -> None:
        spec = load_spec(experiment)
        section = {key: value for key, value in (spec.online or {}).items() if key != "reading"}
        self.options = online_of(section, tuple(spec.variants), spec.base, spec.name)
        self.log, self.loses = log, loses

    def request(self, number: int, thread: int) -> Assignment:
        """One request. What a user does is drawn from the user alone, so that all threads log the same."""
        draw = random.Random(number)  # noqa: S311  # a simulation
        unit, time = f"user {number}", 1.7e9 + 600.0 * number
        assigned = assign(self.options, unit)
        events: list[Event] = []
        lost = draw.random() < 1 / 3
        if not (self.loses and lost and assigned.variant == "recency"):
            events.append(exposure("recency", unit, assigned.variant, time=time + thread))
        loyal = draw.uniform(5, 15)
        events.append(outcome(None, unit, "spent", loyal, event_id=f"before {number}", time=time - DAY))
        if draw.random() < BUYS[assigned.variant]:
            events.append(outcome(None, unit, "purchase", loyal + draw.random(), event_id=f"order {number}", time=time + DAY))
        for place in range(3):
            events.append(outcome("recency", unit, "list", event_id=f"list {number} {place}", time=time + 60 * place + 10))
            if draw.random() < 0.4:
                events.append(
                    outcome("recency", unit, "click", event_id=f"click {number} {place}", time=time + 60 * place + 11)
                )
        drafted = team_draft(["a", "b", "c", "d"], ["d", "c", "b", "a"], k=2, seed=unit)
        variants = {"a": "plain", "b": "recency"}
        events.append(impression("recency", unit, "first", drafted.items, drafted.teams, variants, time=time))
        wanted = drafted.items[drafted.teams.index("b" if draw.random() < 0.7 else "a")]
        events.append(click("recency", unit, "first", wanted, time=time + 30))
        self.log.write(*events)
        return assigned


def serve(folder: Path, name: str, *, loses: bool = False) -> tuple[Path, Path]:
    """Three threads that each serve all users; the files of the experiment and of the log."""
    experiment = folder / "experiment.yaml"
    experiment.write_text(EXPERIMENT, encoding="utf-8")
    assert yaml.safe_load(EXPERIMENT)["online"]["reading"]["planned"] == USERS
    with EventLog.open(folder / name) as log:
        service = Service(log, experiment, loses=loses)

        def work(thread: int) -> None:
            order = list(range(USERS))
            random.Random(thread).shuffle(order)  # noqa: S311  # a simulation
            for number in order:
                service.request(number, thread)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.write(outcome("recency", "user 0", "list", event_id="the last one", time=1.7e9 + 600.0 * USERS + 8 * DAY))
    return experiment, folder / name


def effect(reading: OnlineReading, metric: str) -> float:
    """The variant's difference in the planned sample."""
    (found,) = (each for each in reading.effects if each.metric.name == metric)
    assert found.fixed is not None
    return found.fixed.difference


@pytest.mark.parametrize("name", ["log.jsonl", "log.sqlite"])
def test_the_effect_of_a_variant_is_found(name: str, tmp_path: Path) -> None:
    """Users are assigned as the experiment says, duplicates count once, and each metric tells what was put in."""
    experiment, log = serve(tmp_path, name)
    scan = Scan()
    units = {event.unit for event in scan.read(log) if event.kind == "exposure"}
    assert len(units) == USERS
    assert (scan.other, scan.torn) == (0, 0)
    reading = read_experiment(experiment, log)
    assert reading.decision == "Ship recency: it is better than plain."
    assert (reading.users, reading.moved, reading.planned) == (USERS, 0, USERS)
    assert effect(reading, "purchase") == pytest.approx(0.15, abs=0.06)
    assert effect(reading, "revenue") == pytest.approx(1.5, abs=0.8)
    assert effect(reading, "clicks per list") == pytest.approx(0.0, abs=0.06)
    (revenue,) = (each for each in reading.effects if each.metric.name == "revenue")
    assert revenue.reduction is not None
    assert revenue.reduction > 0.01
    (preference,) = reading.interleavings
    assert preference.impressions == preference.users == USERS
    assert preference.delta == pytest.approx(0.2, abs=0.05)
    assert preference.fixed is not None
    assert preference.fixed.p < 0.001


def test_it_reads_the_same_at_every_time_but_for_what_came_later(tmp_path: Path) -> None:
    """Before the planned users' days are over there is no test of a fixed sample, at any of the looks."""
    experiment, log = serve(tmp_path, "log.db")
    end = 1.7e9 + 600.0 * (USERS - 1) + 7 * DAY
    for until, tested in ((end - 7 * DAY, False), (end - 60, False), (end + 8 * DAY, True)):
        reading = read_experiment(experiment, log, until=until)
        assert [each.fixed is not None for each in reading.effects] == [tested] * 3
        assert ("ship" if tested else reading.verdict) == reading.verdict


def test_a_broken_split_is_refused(tmp_path: Path) -> None:
    """The same service, which loses a third of one variant's exposures: no effect is computed, and the reason is told."""
    experiment, log = serve(tmp_path, "log.jsonl", loses=True)
    reading = read_experiment(experiment, log)
    assert (reading.verdict, reading.decision) == ("invalid", "Invalid: do not read the rest.")
    assert reading.effects == ()
    assert reading.interleavings == ()
    assert "recency has" in reading.reason or "plain has" in reading.reason
    assert "Users with outcomes and without an exposure" in " ".join(map(str, reading.left_out))
