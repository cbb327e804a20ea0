"""Reading a log: the split first, then what is shown; decisions, refusals, and all forms of the result."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from llmrank.cli.ab import ab_app
from llmrank.errors import ConfigError, DatasetError, InputError
from llmrank.experiment.online.assignment import online_of
from llmrank.experiment.online.events import Event, EventLog, click, exposure, impression, outcome
from llmrank.experiment.online.findings import OnlineReading
from llmrank.experiment.online.reading import read_experiment, read_log
from llmrank.experiment.online.reading_options import reading_of

VARIANTS = ("plain", "new")
DAY = 86_400.0


def users(count: int, rates: dict[str, float], *, seed: int = 1, lost: float = 0.0) -> Iterator[Event]:
    """Users who come one a minute; a part of them buys, and a part of those of `new` is lost before the log."""
    draw = random.Random(seed)  # noqa: S311  # a simulation
    names = list(rates)
    for number in range(count):
        variant, time = names[number % len(names)], 60.0 * number
        if variant == "new" and draw.random() < lost:
            continue
        yield exposure("e", str(number), variant, time=time)
        yield outcome("e", str(number), "visit", draw.randint(1, 4), event_id=f"v{number}", time=time + 1)
        if draw.random() < rates[variant]:
            yield outcome("e", str(number), "buy", draw.uniform(1, 9), event_id=f"b{number}", time=time + 5)


METRICS = {"buy": {"kind": "conversion"}, "revenue": {"kind": "mean", "event": "buy"}}


def read(
    folder: Path, events: Iterable[Event], *, variants: tuple[str, ...] = VARIANTS, weights: Any = None, **section: Any
) -> OnlineReading:
    """What a log of these events says."""
    with EventLog.open(folder / "log.jsonl") as log:
        log.write(*events)
    online = online_of({"weights": weights}, variants, variants[0], "e")
    return read_log(folder / "log.jsonl", "e", online, reading_of({"metrics": METRICS, **section}))


def shown(reading: OnlineReading) -> str:
    """What a terminal shows, in one line."""
    out = io.StringIO()
    Console(file=out, width=200, color_system=None, highlight=False).print(reading.terminal())
    return " ".join(out.getvalue().split())


def test_a_better_variant_is_shipped_at_the_planned_sample(tmp_path: Path) -> None:
    """The decision, the figures of the planned users, and the check of the split."""
    found = read(tmp_path, users(800, {"plain": 0.2, "new": 0.4}), planned=800, early=0)
    assert found.verdict == "ship"
    assert found.decision == "Ship new: it is better than plain."
    assert "from 800 users" in found.reason
    assert "always-valid" not in shown(found)
    assert found.sample_ratio_p == 1.0
    assert (found.users, found.planned) == (800, 800)


def test_a_clear_difference_may_be_read_before(tmp_path: Path) -> None:
    """By the always-valid interval, at the part of the level that looks have; there is no other p value yet."""
    found = read(tmp_path, users(1000, {"plain": 0.2, "new": 0.6}), planned=5000)
    assert found.verdict == "ship"
    assert "always-valid 99\N{NO-BREAK SPACE}% interval" in found.reason
    assert all(effect.fixed is None for effect in found.effects)
    assert "not shown before 5,000 users count" in shown(found)
    values = found.as_dict()["metrics"]["buy"]["variants"]["new"]
    assert values["planned"] is None
    assert values["any_time"]["p_adjusted"] < 0.01


def test_an_unclear_difference_goes_on_and_says_how_far(tmp_path: Path) -> None:
    """Until the planned users are there, nothing is decided by a p value of a fixed sample, small as it may be."""
    found = read(tmp_path, users(500, {"plain": 0.3, "new": 0.4}), planned=600)
    assert (found.verdict, found.planned) == ("go on", 500)
    assert found.reason.startswith("500 of 600 planned users count so far.")
    done = read(tmp_path / "done", users(500, {"plain": 0.3, "new": 0.32}), planned=500)
    assert (done.verdict, done.decision) == ("keep", "Keep plain: no variant is shown to be better.")


def test_a_worse_variant_keeps_the_control(tmp_path: Path) -> None:
    """Also where less is better: then the variant with more is worse."""
    found = read(
        tmp_path,
        users(800, {"plain": 0.2, "new": 0.4}),
        planned=800,
        metrics={"buy": {"kind": "conversion", "better": "lower"}},
    )
    assert (found.verdict, found.decision) == ("keep", "Keep plain: new is worse.")
    assert "Lower is better." in shown(found)
    fewer = read(
        tmp_path / "2",
        users(800, {"plain": 0.4, "new": 0.2}),
        planned=800,
        metrics={"buy": {"kind": "conversion", "better": "lower"}},
    )
    assert fewer.decision == "Ship new: it is better than plain."


def test_of_several_variants_the_best_is_shipped(tmp_path: Path) -> None:
    """And one that is shown to be worse may be stopped while others go on."""
    names = ("plain", "new", "newer")
    rates = {"plain": 0.2, "new": 0.4, "newer": 0.6}
    found = read(tmp_path, users(1200, rates), variants=names, planned=1200)
    assert found.decision == "Ship newer: it is better than plain."
    rates = {"plain": 0.5, "new": 0.5, "newer": 0.05}
    found = read(tmp_path / "worse", users(1200, rates), variants=names, planned=6000)
    assert found.decision == "Go on: no difference is shown yet. newer may be stopped: worse than plain."


def test_a_broken_split_refuses_all_the_rest(tmp_path: Path) -> None:
    """No effect in any form, however clear it looks: only who is there and who should be."""
    found = read(tmp_path, users(1000, {"plain": 0.2, "new": 0.9}, lost=0.3), planned=600)
    assert (found.verdict, found.decision) == ("invalid", "Invalid: do not read the rest.")
    assert "plain has 500 of" in found.reason
    assert found.effects == ()
    assert found.as_dict()["metrics"] == {}
    assert [table.key for table in found.tables()] == ["users"]
    assert "buy" not in shown(found)


def test_the_split_is_checked_against_the_weights(tmp_path: Path) -> None:
    """One to three is broken for equal weights and right for weights of one to three."""
    events = [exposure("e", str(number), "new" if number % 4 else "plain", time=float(number)) for number in range(400)]
    assert read(tmp_path, events).verdict == "invalid"
    assert read(tmp_path, [], weights={"plain": 1, "new": 3}).verdict == "go on"
    assert read(tmp_path, [], weights={"plain": 1, "new": 0}).verdict == "invalid"


def test_users_whose_days_are_not_over_are_waited_for(tmp_path: Path) -> None:
    """All planned users have come; the reading says until when it waits, and how many do not count yet."""
    metrics = {"buy": {"kind": "conversion", "window_days": 7}}
    found = read(tmp_path, users(400, {"plain": 0.2, "new": 0.6}), planned=400, metrics=metrics)
    assert found.verdict == "go on"
    assert found.reason == "All 400 planned users have come; the days of the last one are over on 1970-01-08 06:39 UTC."
    said = [str(each) for each in found.left_out]
    assert "Metric buy: users who do not count yet: 400. They will, as soon as their 7 days are over." in said
    later = outcome("e", "0", "visit", event_id="later", time=8 * DAY)
    found = read(tmp_path, [later], planned=400, metrics=metrics)
    assert (found.verdict, found.planned) == ("ship", 400)


def test_what_is_wrong_with_a_log_is_told(tmp_path: Path) -> None:
    """Second variants, unexposed users, other content, torn lines, names that never occur."""
    events = [
        *users(40, {"plain": 0.5, "new": 0.5}),
        exposure("e", "0", "new", time=9e4),
        outcome("e", "nobody", "buy", event_id="x", time=9.0),
        outcome("e", "1", "visit", 99, event_id="v1", time=9.0),
    ]
    found = read(tmp_path, events)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"id":"torn')
    found = read(tmp_path, [], metrics={"buy": {"kind": "conversion"}, "visits": {"kind": "mean"}})
    said = " ".join([*map(str, found.left_out), *found.notes])
    assert "Users who were exposed to a second variant later: 1. 2.5 % of all" in said
    assert "Users with outcomes and without an exposure: 1." in said
    assert "Events with the id of an earlier one and other content: 1." in said
    assert "Lines of the log that were never written to their end: 1." in said
    assert "Metric visits: no outcome of the log is called visits; did you mean 'visit'?" in said


def interleaved(count: int, share: float, *, seed: int = 1) -> Iterator[Event]:
    """Users with one interleaved list each, who click the variant's item with the chance `share`, else the control's."""
    draw = random.Random(seed)  # noqa: S311  # a simulation
    for number in range(count):
        unit = str(number)
        yield impression("e", unit, "i", ["x", "y"], ["a", "b"], {"a": "plain", "b": "new"}, time=float(number))
        yield click("e", unit, "i", "y" if draw.random() < share else "x", time=number + 0.5)


def test_interleaved_lists_alone_decide(tmp_path: Path) -> None:
    """Without exposures the preference is the decision; before the planned users by the always-valid interval."""
    found = read(tmp_path, interleaved(200, 0.8), planned=1000)
    assert found.decision == "Ship new: users prefer its items to those of plain."
    assert "always-valid" in found.reason
    assert [table.key for table in found.tables()] == ["interleaving"]
    assert math.isnan(found.sample_ratio_p)
    found = read(tmp_path / "2", interleaved(200, 0.2), interleaved=200, early=0)
    assert found.decision == "Keep plain: users prefer its items."
    found = read(tmp_path / "3", interleaved(60, 0.5), planned=1000)
    assert found.decision == "Go on: no preference is shown yet."
    found = read(tmp_path / "4", interleaved(60, 0.5), planned=1000, interleaved=60)
    assert found.decision == "Keep plain: no variant's items are shown to be preferred."
    assert found.as_dict()["interleaving"][0]["planned"]["users"] == 60


def test_interleaved_lists_stand_beside_metrics(tmp_path: Path) -> None:
    """The primary metric decides; a preference that is shown is a note, and clicks on no list are told."""
    events = [*users(300, {"plain": 0.3, "new": 0.3}), *interleaved(200, 0.9), click("e", "0", "none", "x", time=3.0)]
    found = read(tmp_path, events, planned=5000)
    assert found.verdict == "go on"
    said = " ".join([*map(str, found.left_out), *found.notes])
    assert "Interleaved lists: Of the lists with a credit new wins" in said
    assert "Clicks on no list of the log, or on no item of their list: 1." in said
    assert [table.key for table in found.tables()] == ["users", "metric-buy", "metric-revenue", "interleaving"]


def test_every_form_shows_the_same(tmp_path: Path) -> None:
    """Markdown, JSON and terminal have the decision and every variant's figures; names are shown, not obeyed."""
    strange = ("plain", "<b>[new]|*")
    events = list(users(600, {"plain": 0.2, "<b>[new]|*": 0.5}))
    found = read(tmp_path, events, variants=strange, planned=600, primary="revenue")
    for path in (tmp_path / "out" / "reading.md", tmp_path / "reading.json"):
        found.write(path)
    values = json.loads((tmp_path / "reading.json").read_text(encoding="utf-8"))
    assert values == found.as_dict()
    assert values["decision"] == found.decision
    markdown = (tmp_path / "out" / "reading.md").read_text(encoding="utf-8")
    assert markdown == found.markdown()
    assert "<b>" not in markdown
    assert "| \\<b\\>\\[new\\]\\|\\* |" in markdown
    assert "## revenue (primary)" in markdown
    assert "<b>[new]|*" in shown(found)
    (first,) = found.of(found.options.ordered[0])
    assert first.fixed is not None
    assert values["metrics"]["revenue"]["variants"]["<b>[new]|*"]["planned"]["difference"] == first.fixed.difference
    for table in found.tables():
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
    with pytest.raises(ConfigError, match=r"use one of: \.html, \.md, \.json"):
        found.write(tmp_path / "reading.pdf")


def test_bad_input_gives_one_clear_error(tmp_path: Path) -> None:
    """Nobody in the log, no metric, a single variant, no log."""
    with pytest.raises(InputError, match="it has no exposures"):
        read(tmp_path, [])
    with pytest.raises(InputError, match="did you mean 'ee'"):
        read(tmp_path, [exposure("ee", "1", "plain")])
    events = list(users(4, {"plain": 1, "new": 1}))
    with pytest.raises(ConfigError, match="names no metric"):
        read(tmp_path, events, metrics={})
    with pytest.raises(ConfigError, match="two variants"):
        read(tmp_path / "one", [exposure("e", "1", "plain")], variants=("plain",))
    with pytest.raises(DatasetError, match="no such file"):
        read_log(tmp_path / "none.db", "e", online_of({}, VARIANTS, "plain", "e"), reading_of({"metrics": METRICS}))


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment file with a section for the reading."""
    content = {
        "name": "e",
        "dataset": "ml-100k",
        "variants": {"plain": {"baseline": "popularity"}, "new": {"baseline": "random"}},
        "alpha": 0.1,
        "online": {"traffic": 0.5, "reading": {"planned": 600, "metrics": METRICS}},
    }
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def test_the_command_reads_logs(experiment: Path, tmp_path: Path) -> None:
    """Two logs of two machines as one; the level is the experiment's; the file is written; a broken split is status 1."""
    events = list(users(600, {"plain": 0.2, "new": 0.5}))
    for name, some in (("one.jsonl", events[::2]), ("two.sqlite", events[1::2])):
        with EventLog.open(tmp_path / name) as log:
            log.write(*some)
    logs = ["--log", str(tmp_path / "one.jsonl"), "--log", str(tmp_path / "two.sqlite")]
    out = tmp_path / "reading.json"
    ran = CliRunner().invoke(ab_app, ["read", str(experiment), *logs, "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert "Ship new: it is better than plain." in ran.output
    values = json.loads(out.read_text(encoding="utf-8"))
    assert (values["alpha"], sum(values["users"].values())) == (0.1, 600)
    ran = CliRunner().invoke(ab_app, ["read", str(experiment), *logs, "--out", str(tmp_path / "reading.html")])
    assert ran.exit_code == 0, ran.output
    assert "Ship new: it is better than plain." in (tmp_path / "reading.html").read_text(encoding="utf-8")
    with EventLog.open(tmp_path / "broken.db") as log:
        log.write(*users(1000, {"plain": 0.2, "new": 0.5}, lost=0.4))
    ran = CliRunner().invoke(ab_app, ["read", str(experiment), "--log", str(tmp_path / "broken.db")])
    assert ran.exit_code == 1
    assert "Invalid: do not read the rest." in ran.output


def test_it_can_be_read_as_of_a_time(experiment: Path, tmp_path: Path) -> None:
    """The first half of the users, as the log stood then."""
    with EventLog.open(tmp_path / "log.jsonl") as log:
        log.write(*users(600, {"plain": 0.2, "new": 0.5}))
    found = read_experiment(experiment, log.path, until=300 * 60.0 - 1)
    assert found.users == 300
    assert all(effect.fixed is None for effect in found.effects)
