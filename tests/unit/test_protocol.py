"""Protocols: how interactions and case files become cases, what may be learned from, and what is said of it."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.catalog import Catalog
from llmrank.errors import ConfigError, DatasetError, UnknownItemError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.data import chosen
from llmrank.evaluation.data.candidates import Question, Sampled, Shuffled
from llmrank.evaluation.data.protocol import CandidateOptions, ProtocolOptions, Split, make_cases
from llmrank.evaluation.data.timelines import popularity
from llmrank.evaluation.data.training import load_interactions, save_interactions
from llmrank.interactions import Interaction, Interactions
from llmrank.sections import make
from llmrank.types import Item
from tests.unit.bag_embedder import BagEmbedder

ITEMS = [f"i{number}" for number in range(40)]
CATALOG = Catalog([Item(item_id, f"title {item_id}") for item_id in ITEMS])
LAST = ProtocolOptions()
FULL = CandidateOptions("full")


def log(user_id: str, *items: str, start: float = 0.0) -> list[Interaction]:
    """One user's interactions, a second apart."""
    return [Interaction(user_id, item_id, start + second) for second, item_id in enumerate(items)]


def split_of(rows: Iterable[Interaction], options: ProtocolOptions = LAST, **more: Any) -> Split:
    """The cases of some interactions."""
    return make_cases(options, catalog=CATALOG, interactions=Interactions.of(rows), **more)


def only(rows: Iterable[Interaction], options: ProtocolOptions = LAST, **more: Any) -> Case:
    """The one case of some interactions."""
    (case,) = split_of(rows, options, **more).cases
    return case


def sampled(n: int, by: str | None = None, **more: Any) -> ProtocolOptions:
    """Options with so many sampled candidates."""
    return ProtocolOptions(candidates=CandidateOptions("sampled", n, by), **more)


LOGS = st.lists(
    st.builds(
        Interaction,
        user_id=st.sampled_from(["u", "v", "w", "x"]),
        item_id=st.sampled_from(ITEMS[:12]),
        timestamp=st.integers(0, 6).map(float),
    ),
    max_size=40,
)
PROTOCOLS = st.builds(
    ProtocolOptions,
    split=st.just("leave-last-out"),
    min_history=st.integers(0, 3),
    users=st.none() | st.integers(1, 3),
    candidates=st.builds(
        CandidateOptions, source=st.just("sampled"), n=st.integers(13, 20), by=st.sampled_from(["uniform", "popularity"])
    ),
)
PROTOCOLS |= PROTOCOLS.flatmap(
    lambda options: st.builds(replace, st.just(options), split=st.just("last-n"), n=st.integers(1, 3))
)
PROTOCOLS |= PROTOCOLS.filter(lambda options: options.split == "leave-last-out").flatmap(
    lambda options: st.builds(
        replace, st.just(options), split=st.just("temporal"), n=st.none() | st.integers(1, 3), cut=st.floats(1, 6)
    )
)


def made(rows: list[Interaction], options: ProtocolOptions, seed: int = 0) -> Split | None:
    """The cases, or None where the protocol leaves none of these interactions."""
    try:
        return split_of(rows, options, seed=seed)
    except ConfigError as error:
        if error.field in ("protocol.split", "protocol.cut", "protocol.last_history"):
            return None
        raise


@given(rows=LOGS, options=PROTOCOLS, seed=st.integers(0, 3))
def test_what_every_case_promises(rows: list[Interaction], options: ProtocolOptions, seed: int) -> None:
    """No relevant item in the history; candidates hold them all, none of them chosen; a second pass gives the same."""
    split = made(rows, options, seed)
    if split is None:
        return
    cases = list(split.cases)
    assert cases == list(split.cases)
    assert len(cases) == split.count == min(split.population, options.users or split.population)
    for case in cases:
        chosen = {row.item_id for row in rows if row.user_id == case.user_id}
        assert case.candidates is not None
        assert set(case.history).isdisjoint(case.relevant)
        assert case.relevant
        assert len(case.history) >= options.min_history
        assert len(set(case.candidates)) == len(case.candidates) == options.candidates.n
        assert set(case.candidates) & chosen == set(case.relevant)


@given(rows=LOGS, options=PROTOCOLS)
def test_nothing_that_is_asked_for_is_counted(rows: list[Interaction], options: ProtocolOptions) -> None:
    """The counts are those of users and items without every user's relevant items, of users that are not sampled, too."""
    everyone = made(rows, replace(options, users=None))
    if everyone is None:
        return
    asked = {(case.user_id, item_id) for case in everyone.cases for item_id in case.relevant}
    if options.split == "temporal":
        assert isinstance(options.cut, float)
        known = {(row.user_id, row.item_id) for row in rows if row.timestamp < options.cut}
        assert not known & asked
    else:
        known = {(row.user_id, row.item_id) for row in rows} - asked
    sample = made(rows, options)
    assert sample is not None
    assert sample.training is not None
    assert sample.training.counts == Counter(item_id for _, item_id in known)
    assert sample.training.users == len({user_id for user_id, _ in known})


def learned(split: Split) -> Interactions:
    """What may be learned from, checked against its counts: each pair once, no user and no item without any."""
    found = split.training_interactions
    assert found is not None
    assert split.training is not None
    pairs = [(row.user_id, row.item_id) for row in found.rows()]
    assert len(set(pairs)) == len(pairs)
    assert Counter(item_id for _, item_id in pairs) == split.training.counts
    assert len(found.users) == split.training.users == len({user_id for user_id, _ in pairs})
    assert set(found.items) == {item_id for _, item_id in pairs}
    assert split.training_interactions is found
    return found


@given(rows=LOGS, options=PROTOCOLS, last=st.none() | st.integers(0, 3), seed=st.integers(0, 3))
def test_what_may_be_learned_from_is_what_is_counted(
    rows: list[Interaction], options: ProtocolOptions, last: int | None, seed: int
) -> None:
    """Nothing that any case asks for, nothing after a cut in time, nothing hidden of who is asked; in the histories' order."""
    options = replace(options, last_history=last)
    split = made(rows, options, seed)
    if split is None:
        return
    found = learned(split)
    rows_found = list(found.rows())
    everyone = split_of(rows, replace(options, users=None, last_history=None), seed=seed)
    whole = {case.user_id: case for case in everyone.cases}
    sample = {case.user_id: case for case in split.cases}
    for user_id in {row.user_id for row in rows}:
        own = [row for row in rows_found if row.user_id == user_id]
        items = tuple(row.item_id for row in own)
        if user_id in sample:
            assert items == sample[user_id].history
        elif user_id in whole:
            assert items == whole[user_id].history
        else:
            end = float(str(options.cut)) if options.split == "temporal" else math.inf
            assert set(items) == {row.item_id for row in rows if row.user_id == user_id and row.timestamp < end}
        for row in own:  # the first time that the user chose it
            times = [each.timestamp for each in rows if (each.user_id, each.item_id) == (user_id, row.item_id)]
            assert row.timestamp == min(times)


@given(rows=LOGS, options=PROTOCOLS, last=st.integers(0, 3), seed=st.integers(0, 3))
def test_only_the_end_of_a_history_is_shown(rows: list[Interaction], options: ProtocolOptions, last: int, seed: int) -> None:
    """Same users, same relevant items; candidates avoid what is hidden as well, and are the same if nothing is learned of."""
    short, whole = made(rows, replace(options, last_history=last), seed), made(rows, options, seed)
    if short is None or whole is None:
        return
    for one, other in zip(short.cases, whole.cases, strict=True):
        assert (one.user_id, one.relevant) == (other.user_id, other.relevant)
        assert one.history == (other.history[-last:] if last else ())
        assert one.candidates is not None
        assert set(one.candidates).isdisjoint(other.history)
        if options.candidates.by == "uniform":
            assert one.candidates == other.candidates


def test_a_user_of_whom_all_is_hidden_is_new() -> None:
    """By hand: of u, who is asked, b alone is shown and learned; v, who might have been asked, keeps all but the last item."""
    rows = [*log("u", "i0", "i1", "i2"), *log("v", "i0", "i3", "i4")]
    seed = next(seed for seed in range(9) if only(rows, replace(LAST, users=1), seed=seed).user_id == "u")
    one = split_of(rows, replace(LAST, users=1, last_history=1, min_history=2), seed=seed)
    assert [(case.history, case.relevant) for case in one.cases] == [(("i1",), ("i2",))]
    assert {(row.user_id, row.item_id) for row in learned(one).rows()} == {("u", "i1"), ("v", "i0"), ("v", "i3")}
    hidden = "what is hidden of users who are asked about is not learned from"
    assert f"; only the last item of each history is shown, and {hidden}; " in one.sentence
    none = split_of(rows, replace(LAST, users=1, last_history=0), seed=seed)
    assert [case.history for case in none.cases] == [()]
    assert {row.user_id for row in learned(none).rows()} == {"v"}
    assert f"; no history is shown, and {hidden}; " in none.sentence
    assert "; only the last 2 items of each history are shown" in split_of(rows, replace(LAST, last_history=2)).sentence


def test_nothing_left_to_learn_from_is_refused() -> None:
    """Where every user is asked about and nothing is shown, the error says to ask fewer."""
    rows = [*log("u", "i0", "i1"), *log("v", "i0", "i3")]
    with pytest.raises(ConfigError, match=r"protocol\.last_history.*nothing to learn from.*protocol\.users"):
        split_of(rows, replace(LAST, last_history=0))
    assert split_of(rows, replace(LAST, last_history=0, users=1)).count == 1


def test_given_cases_hide_what_the_interactions_know_of_their_users(tmp_path: Path) -> None:
    """Of users who are asked about only what a case shows is learned; of others all but what a case asks for."""
    rows = [*log("u", "i0", "i1", "i2", "i5", "i1"), *log("v", "i0", "i3", "i4"), *log("w", "i6")]
    path = tmp_path / "cases.jsonl"
    cases = [
        {"user_id": "u", "history": ["i0", "i1"], "candidates": ["i2", "i9"], "relevant": ["i2"]},
        {"user_id": "v", "history": ["i0", "i3"], "candidates": ["i4", "i9"], "relevant": ["i4"]},
    ]
    path.write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")

    def pairs(**more: Any) -> list[tuple[str, str]]:
        split = split_of(rows, ProtocolOptions("given", **more), cases=path)
        return [(row.user_id, row.item_id) for row in learned(split).rows()]

    others = [("v", "i0"), ("v", "i3"), ("w", "i6")]
    assert pairs() == [("u", "i0"), ("u", "i1"), ("u", "i5"), *others]
    assert pairs(last_history=1) == [("u", "i1"), ("v", "i3"), ("w", "i6")]
    assert pairs(last_history=0) == [("w", "i6")]
    sample = split_of(rows, ProtocolOptions("given", users=1, last_history=0), cases=path)
    asked = next(iter(sample.cases)).user_id
    assert asked not in learned(sample).users
    assert len(learned(sample).users) == 2
    without = make_cases(ProtocolOptions("given", last_history=1), catalog=CATALOG, cases=path)
    assert [case.history for case in without.cases] == [("i1",), ("i3",)]
    assert without.training_interactions is None
    assert "only the last item of each history is shown; candidates" in without.sentence


def test_given_users_are_all_hidden_and_nobody_is_left(tmp_path: Path) -> None:
    """The same error as for cases made of interactions."""
    path = tmp_path / "cases.jsonl"
    case = {"user_id": "u", "history": ["i0"], "candidates": ["i1", "i9"], "relevant": ["i1"]}
    path.write_text(json.dumps(case) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="nothing to learn from"):
        split_of(log("u", "i0", "i1"), ProtocolOptions("given", last_history=0), cases=path)


@given(rows=LOGS, ids=st.lists(st.text(st.characters()), min_size=2, max_size=4, unique=True), timed=st.booleans())
def test_a_file_of_interactions_gives_them_back(rows: list[Interaction], ids: list[str], timed: bool) -> None:
    """Whatever text an id is, zero bytes at its end and half surrogate pairs too; with times and ratings, or without."""
    rated = [
        replace(row, user_id=ids[len(row.item_id) % 2], rating=3.5 if number % 2 else None) for number, row in enumerate(rows)
    ]
    made_of = Interactions.of(rated, name="häuf\0")
    if not timed:
        made_of = replace(made_of, timestamp=None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "deeper" / "training.npz"
        save_interactions(path, made_of)
        found = load_interactions(path)
        assert [each.name for each in path.parent.iterdir()] == ["training.npz"]
    assert (found.users, found.items, found.name) == (made_of.users, made_of.items, made_of.name)
    for name in ("user", "item", "timestamp", "rating"):
        one, other = getattr(found, name), getattr(made_of, name)
        assert (one is None) == (other is None)
        assert one is None or (one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True))


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"no archive"])
def test_a_damaged_file_of_interactions_is_one_clear_error(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    """It names the file."""
    path = tmp_path / "training.npz"
    save_interactions(path, Interactions.of(log("u", "i0", "i1")))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DatasetError, match=r"training\.npz"):
        load_interactions(path)


@given(rows=LOGS, options=PROTOCOLS, seed=st.integers(0, 3))
def test_a_larger_sample_of_users_begins_with_a_smaller_one(
    rows: list[Interaction], options: ProtocolOptions, seed: int
) -> None:
    """So any first cases are a random sample, and more users keep those that were there."""
    few, all_of_them = made(rows, options, seed), made(rows, replace(options, users=None), seed)
    if few is not None and all_of_them is not None:
        assert list(few.cases) == list(all_of_them.cases)[: few.count]


@given(rows=LOGS, more=LOGS, seed=st.integers(0, 3))
def test_other_users_change_nothing(rows: list[Interaction], more: list[Interaction], seed: int) -> None:
    """Drawn uniformly, a user's case is the same whoever else there is, and wherever in the file their rows stand."""
    options = sampled(15)
    more = [replace(row, user_id=f"other {row.user_id}") for row in more]
    alone, among = made(rows, options, seed), made([*more, *reversed(rows)], options, seed)
    if alone is not None and among is not None:
        assert list(alone.cases) == [case for case in among.cases if not case.user_id.startswith("other")]


def test_the_draws_are_those_of_the_first_version() -> None:
    """Figures that were measured with these candidates stay comparable."""
    case = only(log("u", "i1", "i2", "i3"), sampled(6))
    assert case == Case("u", ("i1", "i2"), ("i17", "i15", "i14", "i29", "i9", "i3"), ("i3",))
    tied = only([Interaction("u", item_id, 7.0) for item_id in ("i1", "i2", "i3", "i4")], sampled(6), seed=3)
    assert tied == Case("u", ("i1", "i4", "i3"), ("i8", "i2", "i20", "i30", "i6", "i14"), ("i2",))


def test_the_last_item_is_the_target_and_the_rest_the_history() -> None:
    """Oldest first, whatever the order of the input; an item chosen twice counts the first time."""
    case = only(reversed(log("u", "i3", "i1", "i2", "i1")))
    assert (case.history, case.relevant) == (("i3", "i1"), ("i2",))


def test_the_last_items_are_the_targets_of_last_n() -> None:
    """In the order in which they were chosen; who has too few is left out."""
    rows = [*log("u", "i3", "i1", "i2", "i5"), *log("v", "i1", "i2")]
    case = only(rows, ProtocolOptions("last-n", n=2, candidates=FULL))
    assert case == Case("u", ("i3", "i1"), None, ("i2", "i5"))


def test_users_without_a_history_are_left_out() -> None:
    """Unless none is asked for; nothing of them is hidden from what may be learned."""
    rows = [*log("one", "i1"), *log("two", "i1", "i2"), *log("three", "i1", "i2", "i3")]
    for least, users in ((0, {"one", "two", "three"}), (1, {"two", "three"}), (2, {"three"})):
        split = split_of(rows, ProtocolOptions(min_history=least))
        assert {case.user_id for case in split.cases} == users
        assert split.training is not None
        assert sum(split.training.counts.values()) == 6 - len(users)


@pytest.mark.parametrize("cut", [100.0, "1970-01-01T00:01:40", "1970-01-01T01:01:40+01:00", 0.5])
def test_a_temporal_split_asks_for_what_came_later(cut: float | str) -> None:
    """At the cut or later; what was chosen before is no target, and later items of others may not be learned from."""
    rows = [
        *log("u", "i1", "i2"),
        *log("u", "i2", "i3", "i4", start=100.0),
        *log("early", "i9"),
        *log("late", "i8", start=200.0),
    ]
    split = split_of(rows, ProtocolOptions("temporal", cut=cut, candidates=FULL))
    assert list(split.cases) == [Case("u", ("i1", "i2"), None, ("i3", "i4"))]
    assert split.training is not None
    assert (split.training.users, split.training.counts) == (2, {"i1": 1, "i2": 1, "i9": 1})
    assert "from 1970-01-01 00:01:40 UTC on" in split.sentence
    assert only(rows, ProtocolOptions("temporal", n=1, cut=cut, candidates=FULL)).relevant == ("i3",)


def test_later_items_that_are_no_targets_are_no_candidates() -> None:
    """The user chose them, too: they would be counted as wrong."""
    rows = [*log("u", "i1"), *log("u", *ITEMS[10:20], start=100.0)]
    case = only(rows, ProtocolOptions("temporal", n=1, cut=50.0, candidates=CandidateOptions("sampled", 30)))
    assert case.relevant == ("i10",)
    assert case.candidates is not None
    assert set(case.candidates) == {"i0", *ITEMS[2:11], *ITEMS[20:]}


def test_a_date_of_a_yaml_file_is_a_cut() -> None:
    """YAML reads 1970-01-02 as a date, not as a text."""
    options = make(ProtocolOptions, {"split": "temporal", "cut": date(1970, 1, 2), "candidates": FULL}, "protocol")
    split = split_of([*log("u", "i1"), *log("u", "i2", start=86_400.0)], options)
    assert [case.relevant for case in split.cases] == [("i2",)]


def test_ties_in_time_do_not_depend_on_the_order_of_the_file() -> None:
    """They are ordered by a hash of user and item, and the sentence says for how many users that decides."""
    tied = [Interaction("u", item_id, 7.0) for item_id in ("i1", "i2", "i3", "i4")]
    assert only(tied) == only(reversed(tied))
    users = [Interaction(str(user), item_id, 7.0) for user in range(40) for item_id in ("i1", "i2", "i3")]
    clear = log("clear", "i1", "i2")
    split = split_of([*users, *clear])
    assert {case.relevant for case in split.cases if case.user_id != "clear"} == {("i1",), ("i2",), ("i3",)}
    assert "(they decide what is to be found for 40 of 41 users)" in split.sentence
    assert "ties" not in split_of(clear).sentence
    earlier = [Interaction("u", "i1", 1.0), Interaction("u", "i2", 1.0), Interaction("u", "i3", 2.0)]
    assert "ties" not in split_of(earlier).sentence


def test_without_times_the_order_of_the_source_counts(tmp_path: Path) -> None:
    """And the sentence says so."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": "u", "history": ["i9", "i1", "i5"]}\n', encoding="utf-8")
    split = make_cases(ProtocolOptions(candidates=FULL), catalog=CATALOG, interactions=Interactions.load(path))
    assert list(split.cases) == [Case("u", ("i9", "i1"), None, ("i5",))]
    assert "items in the order of the source, which tells no times" in split.sentence
    with pytest.raises(ConfigError, match=r"protocol\.split: needs times"):
        make_cases(ProtocolOptions("temporal", cut=0.5, candidates=FULL), catalog=CATALOG, interactions=Interactions.load(path))


def test_seeds_differ_and_repeat() -> None:
    """One seed, one draw; another seed keeps the target and draws other candidates."""
    first, again, other = (only(log("u", "i1", "i2", "i3"), sampled(20), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.relevant == other.relevant
    assert set(first.candidates or ()) != set(other.candidates or ())


def test_the_target_stands_at_any_place() -> None:
    """Shuffled: over many users its place tells nothing."""
    split = split_of([each for user in range(60) for each in log(str(user), "i1", "i2")], sampled(4))
    assert {(case.candidates or ()).index("i2") for case in split.cases} == {0, 1, 2, 3}


def test_too_few_items_are_refused() -> None:
    """The message names the user and the remedy, instead of drawing for ever."""
    with pytest.raises(DatasetError, match=r"candidates\.n: user 'u'.*fewer candidates"):
        only(log("u", *ITEMS[:30]))
    assert set(only(log("u", *ITEMS[:30]), sampled(11)).candidates or ()) == {*ITEMS[30:], ITEMS[29]}


def test_popular_items_are_drawn_in_proportion_to_their_counts() -> None:
    """Of two items drawn one after the other, as computed by hand; an item that nobody chose weighs 1."""
    draw = Sampled(["a", "b", "c", "seen"], 3, 0, {"a": 6, "b": 1, "seen": 90})
    pairs: Counter[frozenset[str]] = Counter()
    for number in range(5_000):
        candidates = draw(Question(str(number), ("seen",), ("x",), {"seen", "x"}))
        pairs[frozenset(candidates) - {"x"}] += 1
    weights = {"a": 7, "b": 2, "c": 1}
    for pair, count in pairs.items():
        one, other = pair
        expected = weights[one] / 10 * weights[other] / (10 - weights[one])
        expected += weights[other] / 10 * weights[one] / (10 - weights[other])
        assert count / 5_000 == pytest.approx(expected, abs=0.03)  # four standard errors


def test_a_user_who_chose_what_all_chose_costs_no_endless_draws() -> None:
    """Where rejection finds too little, the rest is drawn among what is left, with the same probabilities."""
    items = [f"p{number}" for number in range(50)]
    draw = Sampled([*items, "a", "b"], 2, 0, dict.fromkeys(items, 10**9) | {"a": 2, "b": 0})
    drawn = Counter(draw(Question(str(number), tuple(items), ("x",), {*items, "x"})) for number in range(400))
    first = sum(count for candidates, count in drawn.items() if "a" in candidates)
    assert sum(drawn.values()) == 400
    assert first / 400 == pytest.approx(0.75, abs=0.09)


def test_the_most_popular_unseen_items_are_retrieved() -> None:
    """Best first, the target only if it is one of them; its share is told once the cases were read."""
    rows = [*log("a", "i1", "i2", "i3"), *log("b", "i1", "i2", "i4"), *log("c", "i1", "i5", "i2"), *log("d", "i9", "i1")]
    split = split_of(rows, ProtocolOptions(candidates=CandidateOptions("retrieved", 2, "popularity")))
    cases = {case.user_id: case.candidates or () for case in split.cases}
    # Without the targets i1 was chosen by three, i2 by two, i5 and i9 by one.
    assert cases["c"][0] == "i2"
    assert cases["d"] == ("i1", "i2")
    assert cases["a"] == cases["b"]
    assert set(cases["a"]) == {"i5", "i9"}
    assert split.notes == ("50.0 % of the relevant items (2 of 4) are among the candidates; no ranking finds the others",)
    assert "2 candidates retrieved by training popularity" in split.sentence


def test_the_most_similar_unseen_items_are_retrieved() -> None:
    """By the prefilter's index, over the fields asked for."""
    catalog = Catalog(
        [Item(str(number), "a title", {"genre": genre}) for number, genre in enumerate(["war", "love", "war", "love", "war"])]
    )
    rows = Interactions.of(log("u", "0", "1", "2"))
    rows_of_war = Interactions.of([*log("u", "0", "2", "4")])
    options = ProtocolOptions(candidates=CandidateOptions("retrieved", 1, "embedding"))
    (case,) = make_cases(options, catalog=catalog, interactions=rows_of_war, embedder=BagEmbedder(), fields=["genre"]).cases
    assert case.candidates == ("4",)
    with pytest.raises(ConfigError, match=r"protocol\.candidates\.by: needs an embedder"):
        make_cases(options, catalog=catalog, interactions=rows)


def test_the_whole_catalogue_needs_no_list() -> None:
    """None stands for it."""
    split = split_of(log("u", "i1", "i2"), ProtocolOptions(candidates=FULL))
    assert [case.candidates for case in split.cases] == [None]
    assert "all 40 items are candidates" in split.sentence


def test_popularity_leaves_out_what_is_asked_for() -> None:
    """A second choice of the same user counts once; unknown pairs do not matter."""
    rows = Interactions.of([*log("a", "i1", "i2"), *log("b", "i1", "i1", "i3")])
    assert popularity(rows).counts == {"i1": 2, "i2": 1, "i3": 1}
    hidden = popularity(rows, [("b", "i1"), ("b", "i3"), ("a", "i3"), ("nobody", "i1"), ("a", "nothing")])
    assert (hidden.users, hidden.counts) == (1, {"i1": 1, "i2": 1})
    assert popularity(Interactions.of([])).users == 0


# --- Given cases.


def case_line(
    user_id: str, history: Sequence[str], candidates: Sequence[str] | None, relevant: Sequence[str], **more: Any
) -> str:
    """A line of a case file."""
    record = {"user_id": user_id, "history": history, "candidates": candidates, "relevant": relevant}
    return json.dumps(record | more) + "\n"


def given_split(path: Path, *lines: str, options: ProtocolOptions | None = None, **more: Any) -> Split:
    """The cases of a file with these lines."""
    path = path / "cases.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return make_cases(options or ProtocolOptions("given"), catalog=CATALOG, cases=path, **more)


def test_given_cases_stay_as_they_are(tmp_path: Path) -> None:
    """In the order of the file, with their queries; nothing may be learned from without interactions."""
    lines = [case_line(f"u{number}", ["i1"], ["i3", "i2"], ["i2"], query="war") for number in range(5)]
    split = given_split(tmp_path, *lines)
    assert list(split.cases) == [Case(f"u{number}", ("i1",), ("i3", "i2"), ("i2",), "war") for number in range(5)]
    assert (split.count, split.population, split.training, split.notes) == (5, 5, None, ())
    assert split.sentence == "Given cases; candidates as given, in the file's order; all 5 users with a case; seed 0"


def test_what_given_cases_ask_for_is_not_counted(tmp_path: Path) -> None:
    """Even where the interactions hold it."""
    rows = Interactions.of([*log("u", "i1", "i2"), *log("v", "i2")])
    split = given_split(tmp_path, case_line("u", ["i1"], ["i3", "i2"], ["i2"]), interactions=rows)
    assert split.training is not None
    assert (split.training.users, split.training.counts) == (2, {"i1": 1, "i2": 1})


def test_a_sample_of_given_cases_is_one_of_users(tmp_path: Path) -> None:
    """All cases of a user stay together; a larger sample begins with a smaller one."""
    lines = [case_line(f"u{number % 6}", ITEMS[: number + 1], ITEMS[20:25], ["i20"]) for number in range(12)]
    few, more, all_of_them = (
        list(given_split(tmp_path, *lines, options=ProtocolOptions("given", users=users), seed=4).cases) for users in (2, 4, 6)
    )
    assert few == more[:4] == all_of_them[:4]
    assert [len(case.history) for case in few] == sorted(len(case.history) for case in few[:2]) + sorted(
        len(case.history) for case in few[2:]
    )
    assert [case.user_id for case in all_of_them] != [f"u{number // 2}" for number in range(12)]
    split = given_split(tmp_path, *lines, options=ProtocolOptions("given", users=2))
    assert "2 of 6 users with a case, drawn at random" in split.sentence
    assert split.notes == ("users have several cases: 12 cases of 6 users",)


def test_given_candidates_can_be_drawn_anew(tmp_path: Path) -> None:
    """Those of the file do not matter then."""
    line = case_line("u", ["i1"], None, ["i2", "i3"])
    (case,) = given_split(tmp_path, line, options=ProtocolOptions("given", candidates=CandidateOptions("sampled", 10))).cases
    assert case.candidates is not None
    assert len(set(case.candidates)) == 10
    assert set(case.candidates) & {"i1", "i2", "i3"} == {"i2", "i3"}


CASES = st.lists(
    st.tuples(
        st.sampled_from(["u", "v", "w", "u:2"]),
        st.lists(st.sampled_from(ITEMS[:12]), max_size=4),
        st.lists(st.sampled_from(ITEMS[:12]), max_size=3, unique=True),
    ),
    min_size=1,
    max_size=8,
)


@given(cases=CASES, rows=st.none() | LOGS, users=st.none() | st.integers(1, 4), merge=st.sampled_from([1, 3, 1 << 20]))
def test_nothing_that_the_user_chose_elsewhere_is_drawn(
    cases: list[tuple[str, list[str], list[str]]],
    rows: list[Interaction] | None,
    users: int | None,
    merge: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Not in the interactions, not in another case of the user: "others that the user never chose", as the sentence says."""
    lines = [case_line(user_id, history, None, relevant) for user_id, history, relevant in cases]
    interactions = None if rows is None else Interactions.of(rows)
    options = sampled(20, split="given", users=users)
    with patch.object(chosen, "MERGE", merge):
        split = given_split(tmp_path_factory.mktemp("given"), *lines, options=options, interactions=interactions)
    had: defaultdict[str, set[str]] = defaultdict(set)
    for user_id, history, relevant in cases:
        had[user_id] |= {*history, *relevant}
    for row in rows or ():
        had[row.user_id].add(row.item_id)
    made_cases = list(split.cases)
    assert len(made_cases) == split.count
    assert made_cases == list(split.cases)
    for case in made_cases:
        assert case.candidates is not None
        assert len(set(case.candidates)) == len(case.candidates) == 20
        assert set(case.candidates) & had[case.user_id] == set(case.relevant)


def test_each_case_of_a_user_has_draws_of_its_own(tmp_path: Path) -> None:
    """Also with histories of one length; the draws of the first are those of the first version, whatever cases follow."""
    line = case_line("u", ["i1", "i2"], None, ["i3"])
    first, again, third = given_split(tmp_path, line, line, line, options=sampled(6, split="given")).cases
    assert first == Case("u", ("i1", "i2"), ("i32", "i30", "i17", "i3", "i23", "i36"), ("i3",))
    assert len({first.candidates, again.candidates, third.candidates}) == 3
    assert [first] == list(given_split(tmp_path, line, options=sampled(6, split="given")).cases)


def test_a_sample_of_users_keeps_the_draws_of_all_their_cases(tmp_path: Path) -> None:
    """Though their lines are read in another order."""
    lines = [case_line(f"u{number % 5}", [f"i{number % 3}"], None, ["i30"]) for number in range(20)]
    all_of_them = list(given_split(tmp_path, *lines, options=sampled(6, split="given", users=5)).cases)
    few = list(given_split(tmp_path, *lines, options=sampled(6, split="given", users=2)).cases)
    assert few == all_of_them[:8]
    in_order = list(given_split(tmp_path, *lines, options=sampled(6, split="given")).cases)
    assert sorted(map(repr, in_order)) == sorted(map(repr, all_of_them))


@given(user_id=st.text(st.characters(codec=None)), seed=st.integers(0, 3))
def test_any_text_is_a_user_id(user_id: str, seed: int) -> None:
    """Half surrogate pairs, which JSON may hold, too; what a text draws is what it drew in the first version."""
    question = Question(user_id, (), ("i1",), {"i1"})
    found = Sampled(ITEMS, 5, seed)(question)
    assert len(set(found)) == 5
    shuffled = Shuffled(lambda _: tuple(ITEMS), seed)(question)
    assert sorted(shuffled or ()) == sorted(ITEMS)
    if user_id.isprintable():
        expected = list(ITEMS)
        random.Random(f"{seed}:{user_id}").shuffle(expected)  # noqa: S311  # as the code under test
        assert shuffled == tuple(expected)


def test_a_list_of_the_case_file_can_stand_for_the_candidates(tmp_path: Path) -> None:
    """The first of it that were not seen; cases for which it is too short are counted."""
    lines = [
        case_line("u", ["i1"], None, ["i2"], retrieved={"bm25": ["i1", "i3", "i2", "i4"]}),
        case_line("v", ["i1"], None, ["i9"], retrieved={"bm25": ["i1", "i3"]}),
    ]
    options = ProtocolOptions("given", candidates=CandidateOptions("retrieved", 2, "bm25"))
    split = given_split(tmp_path, *lines, options=options)
    assert [case.candidates for case in split.cases] == [("i3", "i2"), ("i3",)]
    assert split.notes == (
        "50.0 % of the relevant items (1 of 2) are among the candidates; no ranking finds the others",
        "1 of 2 cases have fewer than 2 candidates",
    )
    assert "bm25 (as listed in the case file)" in split.sentence


def test_shuffling_keeps_the_candidates(tmp_path: Path) -> None:
    """Each case has an order of its own, the same in every pass."""
    lines = [case_line(f"u{number}", ["i1"], ITEMS[10:30], ["i10"]) for number in range(30)]
    split = given_split(tmp_path, *lines, options=ProtocolOptions("given", candidates=CandidateOptions(shuffle=True)))
    cases = list(split.cases)
    assert cases == list(split.cases)
    assert all(sorted(case.candidates or ()) == ITEMS[10:30] for case in cases)
    assert len({(case.candidates or ()).index("i10") for case in cases}) > 8
    assert split.notes == ()
    assert "candidates as given, shuffled" in split.sentence


@pytest.mark.parametrize(("place", "name"), [(0, "first"), (19, "last")])
def test_an_order_that_gives_the_answer_away_is_noted(place: int, name: str, tmp_path: Path) -> None:
    """A ranker that copies it would look good."""
    candidates = ITEMS[10:30]
    candidates[place], candidates[5] = candidates[5], candidates[place]
    lines = [case_line(f"u{number}", ["i1"], candidates, [candidates[place]]) for number in range(20)]
    split = given_split(tmp_path, *lines)
    assert len(list(split.cases)) == 20
    assert split.notes == (
        f"a relevant item stands {name} in 100 % of the given candidate lists (by chance 5 %), so that their order gives it "
        "away: set candidates.shuffle",
    )


def test_oddities_of_given_cases_are_counted(tmp_path: Path) -> None:
    """They are ranked as they are, but a reader should know."""
    lines = [
        case_line("a", ["i1"], ["i1", "i2"], ["i2"]),
        case_line("b", ["i1"], ["i3", "i4"], ["i2"]),
        case_line("c", ["i1"], None, ["i2"]),
        case_line("d", ["i1"], ["i3", "i2"], []),
    ]
    split = given_split(tmp_path, *lines)
    assert len(list(split.cases)) == 4
    assert split.notes == (
        "50.0 % of the relevant items (1 of 2) are among the candidates; no ranking finds the others",
        "1 of 4 cases name no candidates: the whole catalogue is ranked",
        "1 of 4 cases have candidates that stand in their history",
        "1 of 4 cases have nothing relevant and count 0 in every measure",
    )


@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        (
            ("u", ["i1"], ["i2", "j3"], ["i2"]),
            UnknownItemError,
            r"cases\.jsonl, line 2: candidates of user 'u': not in the catalogue",
        ),
        (("u", ["j1"], ["i2", "i3"], ["i2"]), UnknownItemError, r"line 2: history of user 'u': not in the catalogue .*'j1'"),
        (("u", ["i1"], ["i2", "i3"], ["j2"]), UnknownItemError, r"line 2: relevant of user 'u'"),
        (("u", ["i1"], ["i2", "i2"], ["i2"]), DatasetError, r"candidates: .*line 2: an id stands twice"),
        (("u", ["i1"], ["i2"], ["i2", "i2"]), DatasetError, r"relevant: .*line 2: an id stands twice"),
        (("u", ["i1"], [], ["i2"]), DatasetError, r"line 2: there is nothing to rank"),
    ],
)
def test_a_case_that_cannot_be_ranked_is_named_at_once(
    case: tuple[Any, ...], error: type, message: str, tmp_path: Path
) -> None:
    """By file, line and user, before anything is spent."""
    with pytest.raises(error, match=message):
        given_split(tmp_path, "\n", case_line(*case))


def test_an_unknown_item_of_the_interactions_is_named() -> None:
    """With the file, the number of such items, and a user who chose one."""
    rows = [*log("u", "i1", "i2"), *log("v", "j1", "j2")]
    with pytest.raises(DatasetError, match=r"item_id: interactions: 2 of 4 items are not in the catalogue.*'v'.*'j1'"):
        split_of(rows)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"last_history": -1}, r"protocol\.last_history: must be a whole number of at least 0"),
        ({"last_history": True}, r"protocol\.last_history: .*"),
        ({"last_history": 0, "candidates": {"source": "retrieved"}}, r"protocol\.candidates\.by: nothing is near to users"),
        ({"split": "last-n"}, r"protocol\.n: is missing"),
        ({"split": "last-n", "n": 0}, r"protocol\.n: must be a whole number of at least 1"),
        ({"n": 2}, r"protocol\.n: is not of split leave-last-out"),
        ({"split": "temporal"}, r"protocol\.cut: is for split temporal"),
        ({"cut": 0.5}, r"protocol\.cut: is for split temporal"),
        ({"split": "temporal", "cut": "yesterday"}, r"protocol\.cut: is not an ISO date"),
        ({"users": 0}, r"protocol\.users: must be a whole number of at least 1"),
        ({"min_history": -1}, r"protocol\.min_history: must be"),
        ({"candidates": {"n": 0}}, r"protocol\.candidates\.n: must be"),
        ({"candidates": {"source": "given"}}, r"protocol\.candidates\.source: only a case file"),
        ({"candidates": {"source": "sampled", "by": "embedding"}}, r"protocol\.candidates\.by: nothing draws so"),
        ({"candidates": {"source": "retrieved", "by": "bm25"}}, r"protocol\.candidates\.by: only a case file"),
        ({"candidates": {"source": "full", "by": "popularity"}}, r"protocol\.candidates\.by: nothing is drawn"),
        ({"split": "given", "candidates": {"by": "bm25"}}, r"protocol\.candidates\.by: nothing is drawn"),
        ({"candidates": {"by": "popular"}}, r"protocol\.candidates\.by: nothing draws so"),
    ],
    ids=str,
)
def test_options_that_do_not_fit_each_other_are_refused(section: dict[str, Any], message: str) -> None:
    """When they are read, by their key."""
    with pytest.raises(ConfigError, match=message):
        make(ProtocolOptions, section, "protocol")


def test_options_that_do_not_fit_the_data_are_refused(tmp_path: Path) -> None:
    """Before any case is made."""
    rows = [*log("u", "i1", "i2", "i3"), *log("u", "i4", start=100.0)]
    for options, message in (
        (ProtocolOptions("given"), r"protocol\.split: needs a case file"),
        (ProtocolOptions(min_history=9), r"protocol\.split: leaves no case"),
        (ProtocolOptions("last-n", n=3, candidates=CandidateOptions(n=3)), r"candidates\.n: leaves no room beside the 3"),
        (ProtocolOptions("temporal", cut="2020-01-01"), r"protocol\.cut: lies outside of .*, 0 to 100 \(Unix seconds\)"),
        (ProtocolOptions("temporal", cut=0.0), r"protocol\.cut: lies outside"),
    ):
        with pytest.raises(ConfigError, match=message):
            split_of(rows, options)
    with pytest.raises(ConfigError, match=r"protocol\.split: makes cases of interactions"):
        make_cases(LAST, catalog=CATALOG)
    by_count = ProtocolOptions("given", candidates=CandidateOptions("sampled", by="popularity"))
    with pytest.raises(ConfigError, match=r"candidates\.by: needs interactions"):
        given_split(tmp_path, case_line("u", ["i1"], ["i2"], ["i2"]), options=by_count)


def test_a_single_user_is_called_so(tmp_path: Path) -> None:
    """One is not "all 1 users"."""
    assert "; the only user with a case; " in given_split(tmp_path, case_line("u", ["i1"], ["i3", "i2"], ["i2"])).sentence
