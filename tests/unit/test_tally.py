"""From events to users: first exposures, what came after them, and what does not count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.experiment.online.event import Event, click, exposure, impression, outcome
from llmrank.experiment.online.tally import Tally, tally


def bought(unit: str, time: float, value: float | None = None, *, name: str = "buy", experiment: str | None = "e") -> Event:
    """An outcome; its id is what it says."""
    return outcome(experiment, unit, name, value, event_id=f"{unit} {time} {value} {name}", time=time)


def counted(events: Sequence[Event], *, until: float = math.inf) -> Tally:
    """The tally of the experiment `e` with two variants."""
    return tally(events, "e", ("plain", "new"), ["buy", "before"], until=until)


def test_users_count_for_their_first_exposure_with_what_came_after() -> None:
    """Whatever the order in the log: outcomes before the exposure, and those of nobody who was exposed, do not count."""
    found = counted(
        [
            bought("1", 5.0, 3.0),
            bought("2", 8.0),
            exposure("e", "2", "new", time=7.0),
            exposure("e", "1", "plain", time=4.0),
            exposure("e", "1", "new", time=6.0),
            bought("1", 3.9, 100.0),
            bought("1", 4.0, 2.0),
            bought("3", 9.0, 50.0),
        ]
    )
    assert found.units == ("1", "2")
    assert found.places.tolist() == [0, 1]
    assert found.exposed.tolist() == [4.0, 7.0]
    assert found.after("buy").tolist() == [5.0, 1.0]
    assert found.after("buy", count=True).tolist() == [2.0, 1.0]
    assert found.before("buy").tolist() == [100.0, 0.0]
    assert (found.moved, found.strangers) == (1, 1)
    assert found.counts == [1, 1]
    assert found.names == {"buy": 5}


def test_a_later_line_may_be_the_first_exposure() -> None:
    """Times count, not lines: several machines write at once."""
    found = counted([exposure("e", "1", "new", time=9.0), exposure("e", "1", "plain", time=2.0)])
    assert found.places.tolist() == [0]
    assert found.moved == 1


def test_a_window_is_of_each_user() -> None:
    """Outcomes count before its end only, and users whose window the log does not cover are told apart."""
    found = counted(
        [
            exposure("e", "1", "plain", time=0.0),
            bought("1", 9.9, 1.0),
            bought("1", 10.0, 100.0),
            exposure("e", "2", "new", time=5.0),
            exposure("e", "3", "new", time=5.1),
            bought("2", 15.0, 7.0),
        ]
    )
    assert found.after("buy", 10.0).tolist() == [1.0, 0.0, 0.0]
    assert found.over(10.0) == 2
    assert found.over(math.inf) == 3


def test_other_experiments_do_not_count() -> None:
    """Only an outcome without an experiment is everybody's."""
    found = counted(
        [
            exposure("e", "1", "plain", time=0.0),
            exposure("other", "9", "strange", time=0.0),
            bought("1", 1.0, 1.0, experiment="other"),
            bought("1", 2.0, 2.0, experiment=None),
        ]
    )
    assert found.after("buy").tolist() == [2.0]
    assert found.others == ("other",)
    assert found.units == ("1",)


def test_it_can_be_read_as_of_a_time() -> None:
    """What came later is left out, exposures too."""
    events = [exposure("e", "1", "plain", time=0.0), bought("1", 2.0), bought("1", 3.0), exposure("e", "2", "new", time=2.5)]
    found = counted(events, until=2.0)
    assert found.units == ("1",)
    assert found.after("buy").tolist() == [1.0]
    assert (found.begin, found.end) == (0.0, 2.0)


def test_a_variant_that_the_experiment_does_not_have_is_refused() -> None:
    """A log and a file that do not belong together give no figures."""
    with pytest.raises(InputError, match="did you mean 'plain'"):
        counted([exposure("e", "1", "plane", time=0.0)])
    with pytest.raises(InputError, match="old"):
        counted([impression("e", "1", "i", ["x"], ["a"], {"a": "plain", "b": "old"}, time=0.0)])


def test_lists_and_clicks_are_kept() -> None:
    """For the preferences; they expose nobody."""
    shown = impression("e", "1", "i", ["x"], ["a"], {"a": "plain", "b": "new"}, time=0.0)
    clicked = click("e", "1", "i", "x", time=1.0)
    found = counted([clicked, shown])
    assert (found.units, found.impressions, found.clicks) == ((), (shown,), (clicked,))


def test_an_empty_log_has_no_users() -> None:
    """And no times."""
    found = counted([])
    assert found.counts == [0, 0]
    assert found.after("buy").tolist() == []
    assert math.isnan(found.end)


UNITS = st.sampled_from("12345")
EVENTS = st.lists(
    st.builds(
        lambda unit, variant, time: exposure("e", unit, variant, time=time),
        UNITS,
        st.sampled_from(["plain", "new"]),
        st.integers(0, 9),
    )
    | st.builds(lambda unit, time, value: bought(unit, time, value), UNITS, st.integers(0, 9), st.integers(-3, 3)),
    max_size=25,
    unique_by=lambda event: event.id,
)


@given(EVENTS, st.integers(1, 5), st.integers(0, 9))
def test_it_agrees_with_counting_by_hand(events: list[Event], window: int, until: int) -> None:
    """The same sums, counts and variants as a loop over users that looks at all events for each."""
    found = counted(events, until=until)
    events = [event for event in events if event.time <= until]
    exposures = {unit: [each for each in events if each.kind == "exposure" and each.unit == unit] for unit in "12345"}
    firsts = {unit: min(each, key=lambda event: event.time) for unit, each in exposures.items() if each}
    assert sorted(found.units) == sorted(firsts)
    assert sorted(found.exposed) == list(found.exposed)
    for place, unit in enumerate(found.units):
        first = firsts[unit]
        assert found.variants[found.places[place]] == first.variant
        mine = [event for event in events if event.kind == "outcome" and event.unit == unit]
        within = [event.value or 0.0 for event in mine if 0 <= event.time - first.time < window]
        assert found.after("buy", window)[place] == sum(within)
        assert found.after("buy", window, count=True)[place] == len(within)
        assert found.before("buy")[place] == sum(event.value or 0.0 for event in mine if event.time < first.time)
    assert found.moved == sum(len({event.variant for event in each}) > 1 for each in exposures.values())
    assert found.over(window) == sum(event.time + window <= found.end for event in firsts.values())
