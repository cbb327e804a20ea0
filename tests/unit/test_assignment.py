"""Assignment: sticky, uniform, independent between experiments, and safe to ramp up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, chi2_contingency

from llmrank.errors import ConfigError, InputError
from llmrank.experiment.online.assignment import Assigner, ends, shares
from llmrank.experiment.online.hashing import places
from llmrank.experiment.online.options import LayerOptions, OnlineOptions, online_of
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions

USERS = [f"user {number}" for number in range(40_000)]
VARIANTS = ("plain", "recency")
UNITS = st.text(min_size=1, max_size=12)
WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1e300), min_size=2).filter(lambda each: any(each.values()))
RARE = 1e-4
"""Below this p value a test of fixed draws fails: they are drawn once, so what passes now always passes."""


def assigner(name: str = "recency", variants: tuple[str, ...] = VARIANTS, **options: Any) -> Assigner:
    """An experiment whose control is the first variant."""
    return Assigner(name, variants, variants[0], OnlineOptions(**options))


def reasons(each: Assigner) -> Counter[str]:
    return Counter(each.assign(user).reason for user in USERS)


def test_assignments_are_the_same_in_every_version() -> None:
    """What a release assigns, the next one assigns: users must not move because a library was upgraded."""
    found = [assigner(traffic=0.5, holdout=0.1).assign(user) for user in ("1", "2", "3", "4", "5", "6", "ü", "\ud800")]
    assert [(each.variant, each.reason) for each in found] == GOLDEN
    assert [round(places("variant", "recency")(user), 6) for user in ("1", "2", "")] == GOLDEN_PLACES


@given(UNITS, WEIGHTS, st.floats(0, 1), st.floats(0, 1), st.booleans())
def test_a_user_gets_the_same_every_time(
    unit: str, weights: Mapping[str, float], traffic: float, holdout: float, turned: bool
) -> None:
    """Also from another object, and with the variants in another order."""
    names = sorted(weights, reverse=turned)
    options = {"traffic": traffic, "holdout": holdout}
    first = Assigner("x", names, "a" if "a" in weights else names[0], OnlineOptions(weights=dict(weights), **options))
    other = Assigner(
        "x", sorted(names), first.control, OnlineOptions(weights={each: weights[each] for each in names}, **options)
    )
    assert first.assign(unit) == other.assign(unit) == first.assign(unit)
    found = first.assign(unit)
    assert found.exposed == (found.reason == "assigned")
    assert weights[found.variant] > 0 if found.exposed else found.variant == first.control


def test_shares_are_those_of_the_weights() -> None:
    """Chi-square of 40,000 users against weights of 1 to 2 to 5; a variant of weight 0 gets nobody."""
    each = assigner(variants=("a", "b", "c", "none"), weights={"c": 5, "none": 0, "a": 1, "b": 2})
    assert each.shares == {"a": 0.125, "b": 0.25, "c": 0.625, "none": 0.0}
    counts = Counter(each.assign(user).variant for user in USERS)
    assert set(counts) == {"a", "b", "c"}
    square = sum(
        (counts[name] - len(USERS) * share) ** 2 / (len(USERS) * share) for name, share in each.shares.items() if share
    )
    assert chi2.sf(square, 2) > RARE


def test_places_are_uniform() -> None:
    """40,000 places fall into 100 equal bins as evenly as chance would have it, not more and not less."""
    counts = Counter(int(100 * places("variant", "salt")(user)) for user in USERS)
    square = sum((counts[number] - 400) ** 2 / 400 for number in range(100))
    assert RARE < chi2.sf(square, 99) < 1 - RARE


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (assigner("first"), assigner("second")),
        (assigner(traffic=0.5), assigner("second", traffic=0.5)),
        (assigner(holdout=0.3), assigner(salt="another")),
        (assigner(layer=LayerOptions("a", 0, 0.5)), assigner("second", layer=LayerOptions("b", 0, 0.5))),
        (assigner("another", layer=LayerOptions("recency", 0, 0.5)), assigner(traffic=0.5)),
    ],
)
def test_experiments_are_independent(one: Assigner, other: Assigner) -> None:
    """What a user gets in one says nothing about another: the table of both passes the chi-square test of independence."""
    both = Counter(((a.variant, a.reason), (b.variant, b.reason)) for a, b in ((one.assign(u), other.assign(u)) for u in USERS))
    rows, columns = ({pair[side] for pair in both} for side in (0, 1))
    table = [[both[row, column] for column in columns] for row in rows]
    assert min(map(min, table)) > 1000
    assert chi2_contingency(table, correction=False).pvalue > RARE


def test_the_traffic_is_like_those_outside() -> None:
    """Traffic, layer, holdout and variant use hashes of their own: none of them changes the variants' shares."""
    each = assigner(traffic=0.3, holdout=0.2, layer=LayerOptions("recency", 0.2, 0.9))
    counts = Counter(found.variant for user in USERS if (found := each.assign(user)).exposed)
    assert counts.total() == pytest.approx(40_000 * 0.8 * 0.7 * 0.3, rel=0.05)
    assert abs(counts["plain"] - counts["recency"]) < 4 * counts.total() ** 0.5
    found = reasons(each)
    assert found["holdout"] == pytest.approx(8000, rel=0.05)
    assert found["other layer"] == pytest.approx(40_000 * 0.8 * 0.3, rel=0.05)


def test_the_holdout_is_the_same_in_every_experiment() -> None:
    """Whatever an experiment's name, salt and layer; a larger holdout holds the smaller one."""
    held = [
        {user for user in USERS[:5000] if each.assign(user).reason == "holdout"}
        for each in (
            assigner(holdout=0.1),
            assigner("other", holdout=0.1, salt="s", layer=LayerOptions("l", 0, 0.1), traffic=0.1),
            assigner(holdout=0.2),
        )
    ]
    assert held[0] == held[1]
    assert held[0] < held[2]


@given(UNITS, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_raising_the_traffic_moves_nobody(unit: str, traffics: list[float]) -> None:
    """Who takes part at a lower traffic takes part at a higher one, with the same variant."""
    found = [assigner(traffic=traffic).assign(unit) for traffic in sorted(traffics)]
    for before, after in pairwise(found):
        if before.exposed:
            assert after == before


@given(UNITS, WEIGHTS, st.floats(0.01, 100))
def test_a_weight_that_rises_takes_users_and_gives_none(unit: str, weights: dict[str, float], factor: float) -> None:
    """If the first variant's weight rises, nobody leaves it: users move between variants in the order of names only."""
    names = tuple(sorted(weights))
    weights[names[0]] = max(weights[names[0]], 1e-9)
    raised = {**weights, names[0]: weights[names[0]] * (1 + factor)}
    before = assigner(variants=names, weights=weights).assign(unit).variant
    after = assigner(variants=names, weights=raised).assign(unit).variant
    assert after <= before or shares(weights)[after] < 1e-12


@given(UNITS, st.lists(st.floats(0, 1), min_size=2, max_size=6, unique=True))
def test_disjoint_parts_of_a_layer_share_no_user(unit: str, cuts: list[float]) -> None:
    """However a layer is cut, a user takes part in at most one of its experiments, and in one if the parts fill it."""
    bounds = sorted({0.0, 1.0, *cuts})
    parts = [assigner(f"e{low}", layer=LayerOptions("ranking", low, high)) for low, high in pairwise(bounds)]
    assert sum(part.assign(unit).exposed for part in parts) == 1


@given(WEIGHTS)
def test_the_last_part_ends_at_one(weights: dict[str, float]) -> None:
    """Shares add up to 1 and ends never fall, whatever the scale of the weights."""
    found = shares(weights)
    assert sum(found.values()) == pytest.approx(1)
    bounds = ends([share for share in found.values() if share])
    assert bounds == sorted(bounds)
    assert bounds[-1] == 1.0


def test_the_kill_switch_is_before_all_else() -> None:
    """Everybody gets the control and nobody is exposed, not even testers."""
    each = assigner(enabled=False, force={"user 1": "recency"})
    assert reasons(each) == {"disabled": len(USERS)}
    found = each.assign("user 1")
    assert (found.variant, found.exposed) == ("plain", False)


def test_testers_get_what_is_forced_and_are_not_exposed() -> None:
    """Also where they are in the holdout and outside of the traffic; others are not touched."""
    each = assigner(traffic=0.0, holdout=1.0, force={"me": "recency"})
    assert each.assign("me") == replace(each.assign("you"), unit="me", variant="recency", reason="forced")
    assert each.assign("you").reason == "holdout"


@pytest.mark.parametrize("unit", ["", None, 17, b"17"])
def test_an_id_is_a_text(unit: Any) -> None:
    """17 and "17" would be two users: only a text is taken."""
    with pytest.raises(InputError, match=r"unit: must be a text.*; give the user's id as a text"):
        assigner().assign(unit)


def test_a_section_becomes_options() -> None:
    """All keys of a file, with `from` and `to` under names that Python allows; null is what is left out."""
    found = online_of(
        {
            "weights": {"plain": 1, "recency": 3},
            "traffic": 0.5,
            "layer": {"name": "ranking", "from": 0, "to": 0.5},
            "holdout": 0.05,
            "enabled": True,
            "salt": None,
            "force": {17: "recency"},
            "reading": {
                "planned": 1000,
                "metrics": {"click": None, "spent": {"kind": "mean", "numerator": "purchase", "window_days": 7}},
            },
        },
        VARIANTS,
        "plain",
        "recency",
    )
    metrics = MetricOptions("click"), MetricOptions("spent", "mean", "purchase", window_days=7)
    assert found == OnlineOptions(
        weights={"plain": 1, "recency": 3},
        traffic=0.5,
        layer=LayerOptions("ranking", 0, 0.5),
        holdout=0.05,
        force={"17": "recency"},
        reading=ReadingOptions(metrics, "click", 1000),
    )
    assert online_of(None, VARIANTS, "plain", "recency") == OnlineOptions()
    assert online_of(found, VARIANTS, "plain", "recency") is found


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"trafic": 1}, "online.trafic: unknown key; did you mean 'traffic'"),
        ({"traffic": 1.5}, "online.traffic: must be from 0 to 1 .got 1.5."),
        ({"traffic": True}, "online.traffic: .*number"),
        ({"holdout": -0.1}, "online.holdout: must be from 0 to 1"),
        ({"enabled": "no"}, "online.enabled: .*bool"),
        ({"salt": ""}, "online.salt: is empty"),
        ({"salt": 5}, "online.salt: .*quotes"),
        ({"weights": [1, 1]}, "online.weights: must be a mapping"),
        ({"weights": {"plain": 1, "recncy": 1}}, "online.weights.recncy: no such variant; did you mean 'recency'"),
        ({"weights": {"plain": 1}}, "online.weights.recency: is missing"),
        ({"weights": {"plain": 1, "recency": -1}}, "online.weights.recency: must be 0 or more"),
        ({"weights": {"plain": 1, "recency": float("nan")}}, "online.weights.recency: must be 0 or more"),
        ({"weights": {"plain": 1, "recency": True}}, "online.weights.recency: must be a number"),
        ({"weights": {"plain": 0, "recency": 0}}, "online.weights: are all 0"),
        ({"layer": {"from": 0.1}}, "online.layer.name: is missing"),
        ({"layer": {"name": ""}}, "online.layer.name: must be a text"),
        ({"layer": {"name": "l", "frm": 0}}, "online.layer.frm: unknown key; did you mean 'from'"),
        ({"layer": {"name": "l", "from": "0"}}, "online.layer.from: must be a number"),
        ({"layer": {"name": "l", "to": 1.1}}, "online.layer.to: must be from 0 to 1"),
        ({"layer": {"name": "l", "from": 0.5, "to": 0.5}}, "online.layer.to: leaves no user"),
        ({"force": {"me": "recent"}}, "online.force.me: no such variant .got 'recent'.; did you mean 'recency'"),
        ({"reading": {"metrics": ["click"]}}, "online.reading.metrics: must be a mapping by name"),
        ({"reading": {"metrics": {"c": {"kind": "sum"}}}}, "online.reading.metrics.c.kind: "),
        ({"reading": {"metrics": {"c": {"name": "c"}}}}, "online.reading.metrics.c.name: is given twice"),
        ({"reading": {"metrics": {"c": {"kind": "ratio"}}}}, "online.reading.metrics.c.denominator: is missing"),
        ({"reading": {"metrics": {"c": {"denominator": "d"}}}}, "online.reading.metrics.c.denominator: is not used"),
        ({"reading": {"metrics": {"c": {"window_days": 0}}}}, "online.reading.metrics.c.window_days: must be above 0"),
        ({"reading": {"primary": "c"}}, "online.reading.primary: is not among the metrics"),
        ({"reading": {"metrics": {"click": {}}, "primary": "clik"}}, "did you mean 'click'"),
        ({"reading": {"planned": 1}}, "online.reading.planned: must be at least 2"),
        ({"reading": {"decide": "fixed sample"}}, "online.reading.planned: is missing"),
        ({"reading": {"decide": "peek"}}, "online.reading.decide: "),
        ({"reading": {"alpha": 0}}, "online.reading.alpha: must be above 0"),
        (7, "online: must be a mapping"),
    ],
)
def test_a_mistake_in_the_section_is_named(section: Any, words: str) -> None:
    """One error with the key, its value and what to do."""
    with pytest.raises(ConfigError, match=words) as caught:
        online_of(section, VARIANTS, "plain", "recency")
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_names_is_named() -> None:
    """A control that is none, a lone variant, an experiment without a name."""
    with pytest.raises(ConfigError, match=r"control: no such variant .*did you mean 'plain'"):
        online_of(None, VARIANTS, "plan", "recency")
    with pytest.raises(ConfigError, match="variants: must be two or more"):
        online_of(None, ["plain"], "plain", "recency")
    with pytest.raises(ConfigError, match="name: must be a text"):
        online_of(None, VARIANTS, "plain", "")
    with pytest.raises(ConfigError, match=r"online\.reading\.metrics: stands twice"):
        ReadingOptions((MetricOptions("c"), MetricOptions("c")))


GOLDEN = [
    ("plain", "holdout"),
    ("plain", "outside traffic"),
    ("plain", "outside traffic"),
    ("plain", "assigned"),
    ("plain", "outside traffic"),
    ("plain", "holdout"),
    ("recency", "assigned"),
    ("plain", "assigned"),
]
GOLDEN_PLACES = [0.956018, 0.99248, 0.69145]
