"""One event: what it may hold, what makes two the same, and its JSON form."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.experiment.online.event import Event, click, exposure, impression, outcome

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
JSON = st.dictionaries(st.text(max_size=3), st.none() | st.booleans() | st.integers() | st.text(max_size=3), max_size=3)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TIMES = st.floats(0, 4e9)


def events() -> st.SearchStrategy[Event]:
    """Events of every kind."""
    teams = st.lists(st.sampled_from(["a", "b", None]), max_size=4)
    return st.one_of(
        st.builds(exposure, TEXTS, TEXTS, TEXTS, time=TIMES, about=JSON),
        st.builds(outcome, TEXTS | st.none(), TEXTS, TEXTS, NUMBERS | st.none(), event_id=TEXTS, time=TIMES, about=JSON),
        st.builds(
            lambda one, two, three, teams, time: impression(
                one, two, three, [f"i{place}" for place in range(len(teams))], teams, {"a": one, "b": one + "'"}, time=time
            ),
            TEXTS,
            TEXTS,
            TEXTS,
            teams,
            TIMES,
        ),
        st.builds(click, TEXTS, TEXTS, TEXTS, TEXTS, time=TIMES),
    )


@given(events())
def test_an_event_comes_back_from_its_line(event: Event) -> None:
    """The line is ASCII, ends with its only line feed, begins with the id, and gives an equal event."""
    line = event.line()
    assert line.isascii()
    assert line.index(b"\n") == len(line) - 1
    assert line.startswith(b'{"id":')
    back = Event.of(json.loads(line))
    assert back == event
    assert (back.key, back.content) == (event.key, event.content)


def test_an_exposure_at_another_time_is_the_same_event() -> None:
    """A user is exposed once, however often a service says so: id and content do not depend on the time."""
    first, again = exposure("recency", "7", "plain", time=1.0), exposure("recency", "7", "plain", time=2.0)
    assert (first.id, first.content) == (again.id, again.content)
    assert (first.time, again.time) == (1.0, 2.0)


@given(st.lists(TEXTS, min_size=3, max_size=3), st.lists(TEXTS, min_size=3, max_size=3))
def test_ids_differ_where_anything_differs(one: list[str], two: list[str]) -> None:
    """Exposures share an id only if experiment, unit and variant are all the same, however the texts are cut."""
    assert (exposure(*one).id == exposure(*two).id) == (one == two)
    assert exposure(*one).id != click(one[0], one[1], one[2], "x").id


def test_a_click_is_one_event_an_item_and_impression() -> None:
    """Clicks on another item or in another list are others; a second click on the same item is not."""
    ids = [click("e", "7", "i1", "a"), click("e", "7", "i1", "b"), click("e", "7", "i2", "a"), click("e", "7", "i1", "a")]
    assert len({event.id for event in ids}) == 3


def test_what_an_event_is_about_is_its_own() -> None:
    """It keeps a plain copy: what the caller changes later changes nothing."""
    about: dict[str, Any] = {"places": (1, 2)}
    event = exposure("e", "7", "plain", about=about)
    about["places"] = ()
    assert event.about == {"places": [1, 2]}


LIST: Mapping[str, Any] = {"impression": "i", "items": ["x"], "teams": ["a"], "variants": {"a": "plain", "b": "new"}}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"id": ""}, "id"),
        ({"unit": 7}, "unit"),
        ({"unit": "\ud800"}, "unit"),
        ({"experiment": None}, "experiment"),
        ({"variant": None}, "variant"),
        ({"variant": ""}, "variant"),
        ({"kind": "exposed"}, "kind"),
        ({"time": math.nan}, "time"),
        ({"time": True}, "time"),
        ({"time": 10**400}, "time"),
        ({"time": 1_764_000_000_000}, "time"),
        ({"value": math.inf}, "value"),
        ({"value": "3"}, "value"),
        ({"about": []}, "about"),
        ({"about": {"x": math.nan}}, "about"),
        ({"about": {"x": object()}}, "about"),
        ({"kind": "outcome"}, "name"),
        ({"kind": "click"}, "about.impression"),
        ({"kind": "click", "about": {"impression": "i", "item": 3}}, "about.item"),
        ({"kind": "impression", "about": {**LIST, "items": ["x", "x"]}}, "about.items"),
        ({"kind": "impression", "about": {**LIST, "teams": []}}, "about.teams"),
        ({"kind": "impression", "about": {**LIST, "teams": ["c"]}}, "about.teams"),
        ({"kind": "impression", "about": {**LIST, "teams": [["a"]]}}, "about.teams"),
        ({"kind": "impression", "about": {**LIST, "variants": {"a": "plain"}}}, "about.variants"),
        ({"kind": "impression", "about": {**LIST, "variants": {"a": "plain", "b": "plain"}}}, "about.variants"),
        ({"kind": "impression", "about": {**LIST, "variants": {"a": "plain", "b": 3}}}, "about.variants.b"),
    ],
)
def test_what_cannot_be_stored_is_refused(changed: Mapping[str, Any], field: str) -> None:
    """One error names the field, when the event is made and not when the log is read."""
    values: dict[str, Any] = {"id": "1", "time": 0.0, "experiment": "e", "unit": "7", "kind": "exposure", "variant": "plain"}
    assert Event(**values).variant == "plain"
    with pytest.raises(InputError) as caught:
        Event(**{**values, **changed})
    assert caught.value.field == field


def test_a_record_with_an_unknown_key_is_refused() -> None:
    """A mistyped key of a log that something else wrote is named, with the nearest one."""
    record = exposure("e", "7", "plain").as_dict()
    with pytest.raises(InputError, match="did you mean 'variant'"):
        Event.of({**record, "varient": "plain"})
    with pytest.raises(InputError, match="time: is missing"):
        Event.of({name: value for name, value in record.items() if name != "time"})


def test_numbers_of_numpy_are_numbers() -> None:
    """They come out of models and tables; in the log they are plain ones."""
    event = outcome("e", "7", "score", np.float32(0.5), event_id="1", time=np.int64(3))  # type: ignore[arg-type]  # as said
    assert (type(event.value), event.value, type(event.time), event.time) == (float, 0.5, float, 3.0)
    with pytest.raises(InputError, match="value: must be a number"):
        outcome("e", "7", "score", np.True_, event_id="1")  # type: ignore[arg-type]  # the mistake under test


def test_an_outcome_may_be_every_experiments() -> None:
    """Without an experiment an outcome is kept so; nothing else may be."""
    event = outcome(None, "7", "purchase", 9.5, event_id="order-1")
    assert Event.of(event.as_dict()).experiment is None
