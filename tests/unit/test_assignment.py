"""Sticky assignment: uniform, independent, monotone in traffic, disjoint in layers, and the same for ever."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import ConfigError, RequestError
from llmrank.experiment.online.assignment import Assignment, LayerOptions, OnlineOptions, assign, online_of, place

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
UNITS = TEXTS
SALTS = TEXTS
ANY = st.text(st.characters(codec="utf-8"), max_size=6)
MANY = [f"user-{number}" for number in range(20_000)]


def options(**others: Any) -> OnlineOptions:
    """Two variants of one weight, `plain` the control."""
    return OnlineOptions(**{"weights": {"plain": 1, "recency": 1}, "control": "plain", "salt": "recency", **others})


def variants(found: OnlineOptions, units: Iterable[str]) -> list[str]:
    return [assign(found, unit).variant for unit in units]


def chi_square(counts: Mapping[str, int], shares: Mapping[str, float]) -> float:
    total = sum(counts.values())
    return sum((counts.get(name, 0) - total * share) ** 2 / (total * share) for name, share in shares.items() if share)


@given(UNITS, SALTS)
def test_assignment_is_sticky(unit: str, salt: str) -> None:
    """The same options and unit give the same assignment, whoever made them; a unit that takes part is `assigned`."""
    first = assign(options(salt=salt), unit)
    assert first == assign(options(salt=salt), unit)
    assert (first.unit, first.exposed, first.reason) == (unit, True, "assigned")


def test_assignment_is_the_same_for_ever() -> None:
    """The hash is pinned: a version that hashed otherwise would move the users of running experiments."""
    text = (7).to_bytes(8, "big") + b"recency" + "Zoë".encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"llmrank variant").digest()
    assert place("variant", "recency", "Zoë") == int.from_bytes(digest, "big") // 2**11 / 2**53
    assert "".join(name[0] for name in variants(options(), MANY[:16])) == "pprpprprrpprrppp"


@given(ANY, ANY, ANY, ANY)
def test_salt_and_unit_are_kept_apart(salt: str, unit: str, other_salt: str, other_unit: str) -> None:
    """Only the same salt with the same unit has the same place, however the two run together when read as one text."""
    same = (salt, unit) == (other_salt, other_unit)
    assert (place("variant", salt, unit) == place("variant", other_salt, other_unit)) is same
    joined = salt + unit
    places = {place("variant", joined[:cut], joined[cut:]) for cut in range(len(joined) + 1)}
    assert len(places) == len(joined) + 1


@given(UNITS, SALTS)
def test_places_are_in_the_unit_interval(unit: str, salt: str) -> None:
    """From 0 to below 1, and each purpose has a place of its own."""
    places = [place(purpose, salt, unit) for purpose in ("holdout", "layer", "traffic", "variant")]
    assert all(0 <= each < 1 for each in places)
    assert len(set(places)) == 4


def test_places_are_uniform() -> None:
    """Over 20,000 ids that differ only in a number, each of 100 equal parts has its share: chi-square with 99 degrees."""
    counts = Counter(str(int(100 * place("variant", "recency", unit))) for unit in MANY)
    assert chi_square(counts, {str(part): 0.01 for part in range(100)}) < 148.2  # exceeded by 1 in 1,000 salts


@pytest.mark.parametrize(
    "weights", [{"a": 1, "b": 1}, {"a": 9, "b": 1}, {"a": 0.2, "b": 0.3, "c": 0.5}, {"a": 1, "b": 0, "c": 2}, {"a": 7, "b": 0}]
)
def test_variants_get_their_weights(weights: dict[str, float]) -> None:
    """Each variant's part of 20,000 units is its weight's part of the sum; a weight of 0 gets nobody."""
    found = OnlineOptions(weights, control="a", salt="s")
    counts = Counter(variants(found, MANY))
    assert sum(found.shares.values()) == pytest.approx(1)
    assert chi_square(counts, found.shares) < 13.8  # two degrees of freedom at most: 1 in 1,000
    assert all(counts[name] == 0 for name, weight in weights.items() if not weight)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("variant", "one"), ("variant", "two")),
        (("variant", "one"), ("traffic", "one")),
        (("variant", "one"), ("layer", "one")),
        (("holdout", ""), ("variant", "one")),
        (("holdout", ""), ("traffic", "one")),
        (("layer", "one"), ("layer", "two")),
        (("variant", "experiment-1"), ("variant", "experiment-2")),
    ],
)
def test_hashes_are_independent(first: Any, second: Any) -> None:
    """Where a unit falls for one purpose and salt tells nothing about any other: chi-square of a 4 x 4 table."""
    counts = Counter(f"{int(4 * place(first[0], first[1], unit))}{int(4 * place(second[0], second[1], unit))}" for unit in MANY)
    assert chi_square(counts, {f"{i}{j}": 1 / 16 for i in range(4) for j in range(4)}) < 37.7  # 15 degrees: 1 in 1,000


def test_two_experiments_split_users_independently() -> None:
    """Of the users of one experiment's variant, another one's variants get their equal shares."""
    one, two = variants(options(salt="one"), MANY), variants(options(salt="two"), MANY)
    counts = Counter(map(" ".join, zip(one, two, strict=True)))
    assert chi_square(counts, {f"{a} {b}": 0.25 for a in ("plain", "recency") for b in ("plain", "recency")}) < 16.3


@given(UNITS, st.floats(0, 1), st.floats(0, 1))
def test_more_traffic_moves_nobody_who_is_in(unit: str, low: float, high: float) -> None:
    """Who takes part at some traffic takes part, with the same variant, at any larger one."""
    low, high = sorted((low, high))
    before, after = assign(options(traffic=low), unit), assign(options(traffic=high), unit)
    assert before == after if before.exposed else before == Assignment(unit, "plain", False, "outside traffic")


def test_traffic_is_a_share_of_the_units() -> None:
    """A fifth of the traffic is a fifth of the units, split as the weights say; none at all and all are exact."""
    found = Counter(str(each.variant if each.exposed else None) for each in (assign(options(traffic=0.2), u) for u in MANY))
    assert chi_square(found, {"None": 0.8, "plain": 0.1, "recency": 0.1}) < 13.8
    assert not any(assign(options(traffic=0), unit).exposed for unit in MANY[:1000])
    assert all(assign(options(traffic=1), unit).exposed for unit in MANY[:1000])


@given(UNITS, st.floats(0, 1), st.sampled_from(["one", "two"]))
def test_parts_of_a_layer_are_disjoint_and_leave_nobody_out(unit: str, border: float, salt: str) -> None:
    """Two experiments with the parts before and behind a border of one layer: each unit is in exactly one of them."""
    parts = [part for part in ((0.0, border), (border, 1.0)) if part[0] < part[1]]
    found = [assign(options(salt=salt, layer=LayerOptions("ranking", *part)), unit) for part in parts]
    assert [each.reason for each in found if not each.exposed] == ["other layer"] * (len(parts) - 1)
    assert {each.variant for each in found if not each.exposed} <= {"plain"}


@given(UNITS, st.floats(0, 1))
def test_the_holdout_is_the_same_for_every_experiment(unit: str, holdout: float) -> None:
    """Whatever the salt, the layer and the traffic: a unit that one experiment holds out is held out by all."""
    others = [
        options(holdout=holdout),
        options(holdout=holdout, salt="other", weights={"plain": 1, "recency": 9}),
        options(holdout=holdout, layer=LayerOptions("ranking")),
    ]
    found = [assign(each, unit) for each in others]
    assert len({each.reason == "holdout" for each in found}) == 1
    assert all(each.variant == "plain" and not each.exposed for each in found if each.reason == "holdout")


def test_the_holdout_is_a_share_of_the_units() -> None:
    """A tenth is a tenth, and none by default."""
    counts = Counter[str](assign(options(holdout=0.1), unit).reason for unit in MANY)
    assert chi_square(counts, {"holdout": 0.1, "assigned": 0.9}) < 10.8


def test_changed_weights_move_those_between_the_borders() -> None:
    """From 1 : 1 to 3 : 1 nobody leaves the first variant, and a quarter of all move to it from the second."""
    before = variants(options(), MANY)
    after = variants(options(weights={"plain": 3, "recency": 1}), MANY)
    moved = Counter(pair for pair in zip(before, after, strict=True) if pair[0] != pair[1])
    assert set(moved) == {("recency", "plain")}
    assert abs(moved["recency", "plain"] / len(MANY) - 0.25) < 4 * (0.25 * 0.75 / len(MANY)) ** 0.5


@given(UNITS, st.floats(0.001, 1000))
def test_only_the_ratio_of_weights_matters(unit: str, scale: float) -> None:
    """1 : 1 is 50 : 50."""
    scaled = options(weights={"plain": scale, "recency": scale})
    assert assign(scaled, unit) == assign(options(), unit)


@given(UNITS)
def test_the_kill_switch_gives_everybody_the_control(unit: str) -> None:
    """Nobody is exposed, whatever else is set, forced units included."""
    killed = options(enabled=False, force={unit: "recency"}, holdout=0.5, weights={"plain": 0, "recency": 1})
    assert assign(killed, unit) == Assignment(unit, "plain", False, "disabled")


@given(UNITS)
def test_a_forced_unit_has_its_variant_but_is_not_counted(unit: str) -> None:
    """`force` comes before holdout, layer and traffic, so that a tester sees the variant; others are not touched."""
    forced = options(force={unit: "recency"}, holdout=1.0, traffic=0.0)
    assert assign(forced, unit) == Assignment(unit, "recency", False, "forced")
    assert assign(forced, unit + "x").reason == "holdout"


@pytest.mark.parametrize("unit", ["", None, 7, "user \ud800"])
def test_a_unit_without_an_id_is_refused(unit: Any) -> None:
    """An empty id, or one that is no text, would put all such users into one variant; half a character cannot be logged."""
    with pytest.raises(RequestError, match="unit: must be a text that is not empty"):
        assign(options(), unit)
    assert assign(options(), "Zoë \N{SNOWMAN}").exposed


def test_the_section_is_read() -> None:
    """All keys of the section `online` of an experiment file, with `from` of a layer."""
    section = {
        "weights": {"recency": 3, "plain": 1},
        "traffic": 0.5,
        "layer": {"name": "ranking", "from": 0, "to": 0.5},
        "holdout": 0.1,
        "enabled": False,
        "salt": "s",
        "force": {"7": "recency"},
    }
    found = online_of(section, ["plain", "recency"], "plain", "name")
    layer = LayerOptions("ranking", 0.0, 0.5)
    expected = OnlineOptions({"plain": 1, "recency": 3}, "plain", "s", 0.5, layer, 0.1, False, {"7": "recency"})
    assert found == expected
    assert list(found.weights) == ["plain", "recency"]


@pytest.mark.parametrize("section", [None, {}, {"weights": None, "layer": None, "salt": None}])
def test_an_empty_section_splits_all_units_equally(section: dict[str, Any] | None) -> None:
    """By default each variant has the same weight, everybody takes part, and the experiment's name is the salt."""
    found = online_of(section, ["plain", "recency"], "plain", "recency")
    assert found == options()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"trafic": 1}, "online.trafic: unknown key; did you mean 'traffic'"),
        ({"control": "plain"}, "online.control: unknown key"),
        ({"traffic": 1.5}, r"online.traffic: must be from 0 to 1 \(got 1.5\)"),
        ({"traffic": "half"}, "online.traffic"),
        ({"traffic": float("nan")}, "online.traffic"),
        ({"holdout": -0.1}, "online.holdout: must be from 0 to 1"),
        ({"enabled": "no"}, "online.enabled"),
        ({"salt": ""}, "online.salt: must be a text that is not empty"),
        ({"salt": 7}, "online.salt"),
        ({"weights": {"plain": 1}}, "online.weights.recency: is missing; name every variant; 0 leaves one out"),
        ({"weights": {"plain": 1, "recensy": 1}}, "online.weights.recensy: unknown key; did you mean 'recency'"),
        ({"weights": {"plain": 1, "recency": -1}}, "online.weights.recency: is no weight"),
        ({"weights": {"plain": 1, "recency": float("inf")}}, "online.weights.recency: is no weight"),
        ({"weights": {"plain": 1, "recency": True}}, "online.weights.recency: must be a number"),
        ({"weights": {"plain": 0, "recency": 0}}, "online.weights: have no finite sum above 0"),
        ({"weights": [1, 1]}, "online.weights: must be a mapping"),
        ({"layer": "ranking"}, "online.layer: must be a mapping"),
        ({"layer": {"from": 0}}, "online.layer.name: is missing"),
        ({"layer": {"name": ""}}, "online.layer.name: must be a text"),
        ({"layer": {"name": "r", "start": 0}}, "online.layer.start: unknown key; known: from"),
        ({"layer": {"name": "r", "from": "0"}}, "online.layer.from: must be a number"),
        ({"layer": {"name": "r", "from": -1}}, "online.layer.from: must be from 0 to 1"),
        ({"layer": {"name": "r", "from": 0.5, "to": 0.5}}, "online.layer.to: is not above `from`.*above 0.5"),
        ({"force": {"7": "plane"}}, "online.force.7: is none of the variants.*did you mean 'plain'"),
        ({"force": {7: "plain"}}, r"online.force: is no text \(got 7\); put the unit's id in quotes"),
        ([1], "online: must be a mapping"),
    ],
)
def test_a_wrong_section_is_refused(section: Any, message: str) -> None:
    """One error that names the key, the value and what to do."""
    with pytest.raises(ConfigError, match=message):
        online_of(section, ["plain", "recency"], "plain", "name")


def test_a_control_that_is_no_variant_is_refused() -> None:
    """Also where options are made in Python, and when they are replaced."""
    with pytest.raises(ConfigError, match=r"control: is none of the variants.*did you mean 'plain'"):
        options(control="plan")
    with pytest.raises(ConfigError, match=r"online\.traffic"):
        replace(options(), traffic=2)
