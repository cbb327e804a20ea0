"""What of a log does not count is told with how much of it there is: no more, no less."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from llmrank.experiment.online.events import Event, EventLog, Scan, exposure, outcome
from llmrank.experiment.online.left_out import LeftOut, of_log, of_metrics
from llmrank.experiment.online.reading_options import DAY_S, MetricOptions, ReadingOptions
from llmrank.experiment.online.tally import Tally, tally

WEEK = ReadingOptions((MetricOptions("buys", "conversion", event="buy", window_days=7),))


def counted(events: list[Event], *, until: float = float("inf")) -> Tally:
    """The tally of the experiment `e`."""
    return tally(events, "e", ("plain", "new"), ["buy", "spent"], until=until)


def bought(unit: str, day: float, name: str = "buy", *, number: int = 0) -> Event:
    """An outcome on some day."""
    return outcome("e", unit, name, event_id=f"{unit} {day} {name} {number}", time=day * DAY_S)


def told(found: tuple[LeftOut, ...]) -> dict[str, int]:
    """What is told, by its words."""
    return {each.what: each.count for each in found}


def test_outcomes_outside_of_a_window_are_told() -> None:
    """Before the exposure, after the window, of other names, and users whose days are not over."""
    events = [
        exposure("e", "1", "plain", time=10 * DAY_S),
        bought("1", 9.5),
        bought("1", 10.0),
        bought("1", 16.9),
        bought("1", 17.0),
        bought("1", 30.0),
        bought("1", 12.0, "hover"),
        bought("stranger", 12.0),
        exposure("e", "2", "new", time=29 * DAY_S),
    ]
    found = counted(events)
    assert found.outside("buy", 7 * DAY_S) == (1, 2)
    assert found.outside("buy") == (1, 0)
    assert told(of_metrics(found, WEEK)) == {
        "Metric buys: users who do not count yet": 1,
        "Outcomes buy from before their user's exposure": 1,
        "Outcomes buy from after their user's 7 days": 2,
        "Outcomes that no metric asks for (hover)": 1,
    }


def test_a_covariate_counts_before_the_exposure() -> None:
    """Its outcomes are not told as left out, and those of a metric that are its covariate, too, are said to be."""
    events = [exposure("e", "1", "plain", time=0.0), bought("1", -1.0), bought("1", -1.0, "spent")]
    own = ReadingOptions((MetricOptions("revenue", "mean", event="buy", covariate="buy"),))
    (first, second) = of_metrics(counted(events), own)
    assert (first.why, second.what) == ("They count as a covariate only.", "Outcomes that no metric asks for (spent)")
    other = ReadingOptions((MetricOptions("revenue", "mean", event="buy", covariate="spent"),))
    assert told(of_metrics(counted(events), other)) == {"Outcomes buy from before their user's exposure": 1}


def test_a_log_of_several_experiments_is_told(tmp_path: Path) -> None:
    """Their events by number, and by name while there are few; what is written twice; what came after the time read for."""
    events = [exposure("e", "1", "plain", time=0.0), bought("1", 1.0), bought("1", 5.0)]
    events += [exposure(f"other {number}", "1", "plain", time=2.0) for number in range(6)]
    with EventLog.open(tmp_path / "one.jsonl") as log:
        log.write(*events)
    with EventLog.open(tmp_path / "two.jsonl") as log:
        log.write(*events[:2])
    scan = Scan()
    found = tally(scan.read(tmp_path / "one.jsonl", tmp_path / "two.jsonl"), "e", ("plain", "new"), ["buy"], until=3 * DAY_S)
    assert told(of_log(scan, found)) == {
        "Events with the id of an earlier one and its content": 2,
        "Events of other experiments (6 of them)": 6,
        "Events after the time until which the log is read": 1,
    }
    few = counted(events[:5])
    assert "Events of other experiments (other 0 and other 1)" in told(of_log(Scan(), few))


def test_a_clean_log_leaves_nothing_out() -> None:
    """Then nothing is told."""
    events = [
        exposure("e", "1", "plain", time=0.0),
        bought("1", 1.0),
        exposure("e", "2", "new", time=0.0),
        bought("2", 8.0, "spent"),
    ]
    found = counted(events)
    assert of_log(Scan(), found) == ()
    assert told(of_metrics(found, WEEK)) == {"Outcomes that no metric asks for (spent)": 1}


DAYS = st.lists(st.tuples(st.sampled_from("12"), st.integers(-20, 40)), max_size=30)


@given(days=DAYS)
def test_every_outcome_counts_or_is_told(days: list[tuple[str, int]]) -> None:
    """Inside, before and after the window: together as many as there are."""

    def events() -> Iterator[Event]:
        for unit in "12":
            yield exposure("e", unit, "plain", time=0.0)
        for number, (unit, day) in enumerate(days):
            yield bought(unit, float(day), number=number)

    found = counted(list(events()))
    inside = found.after("buy", 7 * DAY_S, count=True).sum()
    assert inside + sum(found.outside("buy", 7 * DAY_S)) == len(days)
