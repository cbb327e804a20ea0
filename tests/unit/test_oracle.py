"""Every kind of strategy, with a model that knows the true order, and with one that errs now and then (`oracle.py`)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from os.path import commonprefix
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank import Item, Limits, Ranker, Ranking, RankRequest, strategy_kinds
from llmrank.driver import advance
from llmrank.strategies.built import BuiltStrategy
from llmrank.strategies.tourrank import TourRank, TourRankOptions
from llmrank.types import Event, Prompt, ResolvedRequest, Status
from tests.unit.oracle import MILD, STOPPING, WIDE, Fault, Oracle, PlainWriter

ID = "zq"
"""What all ids begin with; no text does."""

Promise = Callable[[int, int], int]
"""How many first places are right, of so many candidates and so many places wanted."""


def wanted(count: int, places: int) -> int:
    """All places that are wanted."""
    return places


def windows(size: int, step: int, passes: int = 1) -> Promise:
    """What windows promise: all if the list fits one, else what each pass carries to the top."""
    return lambda count, places: count if count <= size else min(count, passes * (size - step))


def tournaments(group: int) -> Promise:
    """What TourRank states; it does not depend on how lists are ordered."""
    options = TourRankOptions(group=group)
    return lambda count, places: TourRank(None, options).certain(count)  # type: ignore[arg-type]  # no list is ordered


@dataclass(frozen=True)
class Spec:
    """A strategy as it is configured, what it promises, and the longest list that is quick enough to test."""

    section: Mapping[str, Any]
    promise: Promise = wanted
    prompt: Mapping[str, Any] = field(default_factory=dict)
    most: int = 100

    @property
    def name(self) -> str:
        return " ".join(_words({**self.section, **self.prompt}))


def _words(section: Mapping[str, Any]) -> list[str]:
    return [word for value in section.values() for word in (_words(value) if isinstance(value, Mapping) else [str(value)])]


def of(inner: Mapping[str, Any], **options: Any) -> Mapping[str, Any]:
    return {"kind": "self-consistency", "shuffles": 3, **options, "of": inner}


def calibrated(inner: Mapping[str, Any], **options: Any) -> Mapping[str, Any]:
    return {"kind": "calibrated", **options, "of": inner}


WINDOWS = {"window": 20, "max_windows": None}
TOKENS = {"kind": "single-token", **WINDOWS}
SPECS = [
    Spec({"kind": "listwise"}),
    Spec({"kind": "listwise", "repair": True}, prompt={"answer": "json"}),
    Spec({"kind": "listwise"}, prompt={"template": "listwise/nir"}),
    Spec({"kind": "listwise", "step": 5, **WINDOWS}, windows(20, 5)),
    Spec({"kind": "listwise", "step": 10, "passes": 10, **WINDOWS}, windows(20, 10, 10)),
    Spec({"kind": "listwise", **WINDOWS, "window": 4, "step": 3, "passes": 100}, most=30),
    Spec(TOKENS, windows(20, 10)),
    Spec({**TOKENS, "step": 13, "passes": 15}, windows(20, 13, 15)),
    Spec({"kind": "tourrank"}, tournaments(20)),
    Spec({"kind": "tourrank", "group": 7, "rounds": 2, "read": "logprobs"}, tournaments(7)),
    Spec({"kind": "top-down"}),
    Spec({"kind": "top-down", "window": 6, "read": "logprobs"}, most=60),
    Spec({"kind": "likelihood"}),
    Spec({"kind": "likelihood", "pmi_weight": 0.5, "normalize": "none"}),
    Spec({"kind": "query-likelihood"}),
    Spec({"kind": "query-likelihood", "normalize": "none"}),
    Spec({"kind": "pointwise"}),
    Spec({"kind": "pointwise", "method": "graded"}),
    Spec({"kind": "pairwise", "method": "allpairs"}, most=25),
    Spec({"kind": "pairwise", "method": "heapsort", "max_calls": None}, most=60),
    Spec({"kind": "pairwise", "method": "bubblesort", "max_calls": None}, most=25),
    Spec({"kind": "pairwise", "method": "heapsort", "read": "logprobs", "decide": "probability", "max_calls": None}, most=60),
    Spec({"kind": "setwise", "method": "heapsort", "max_calls": None}),
    Spec({"kind": "setwise", "method": "bubblesort", "max_calls": None}, most=30),
    Spec({"kind": "setwise", "method": "heapsort", "compare": 8, "read": "logprobs", "max_calls": None}),
    Spec({"kind": "setwise", "method": "bubblesort", "read": "logprobs", "max_calls": None}, most=30),
    Spec(of({"kind": "listwise"})),
    Spec(of({"kind": "top-down", "read": "logprobs"}, aggregate="rrf"), most=60),
    Spec(of({"kind": "pointwise"}, aggregate="kemeny"), most=40),
    Spec(of({"kind": "setwise", "max_calls": None}), most=40),
    Spec(of({"kind": "likelihood"}, shuffles=2)),
    Spec(calibrated(TOKENS), windows(20, 10)),
    Spec(calibrated({"kind": "pointwise"})),
    Spec(calibrated({"kind": "setwise", "read": "logprobs", "max_calls": None}), most=60),
    Spec(calibrated({"kind": "tourrank", "read": "logprobs"}), tournaments(20), most=60),
    Spec(of(calibrated(TOKENS)), windows(20, 10), most=20),
    Spec(calibrated(of(TOKENS)), windows(20, 10), most=20),
]
CHOOSE = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


@cache
def _built(number: int, *, plain: bool) -> BuiltStrategy:
    with pytest.MonkeyPatch.context() as patch:
        if plain:
            patch.setattr(strategy_kinds, "PromptWriter", PlainWriter)
        return strategy_kinds.build_strategy(SPECS[number].section, SPECS[number].prompt)


def built(spec: Spec, *, plain: bool = False) -> BuiltStrategy:
    """It keeps nothing of a request, so tests may share it. A plain one renders no templates, for tests of many prompts."""
    return _built(SPECS.index(spec), plain=plain)


def request(count: int, top_k: int | None = None) -> ResolvedRequest:
    history = tuple(Event(Item(f"{ID}h{number}", f"Old film {number}")) for number in range(3))
    items = tuple(Item(f"{ID}{number}", f"Film {number:03d}") for number in range(count))
    return ResolvedRequest(history, items, query="something tense", top_k=top_k)


def shuffled(ids: list[str], seed: int) -> list[str]:
    return random.Random(seed).sample(ids, len(ids))  # noqa: S311 - no secrets


@st.composite
def orders(draw: st.DrawFn, most: int) -> list[str]:
    """A true order of 1 to `most` candidates: any, or the given one, or its reverse, which are the extremes of many sorts."""
    ids = [f"{ID}{number}" for number in range(draw(st.integers(1, most)))]
    how = draw(st.sampled_from(("any", "given", "reversed")))
    if how == "any":
        ids = shuffled(ids, draw(st.integers(0, 2**16)))
    return ids[::-1] if how == "reversed" else ids


def test_no_kind_is_left_out() -> None:
    """The tests of this file are about every kind that a configuration can name."""
    assert {spec.section["kind"] for spec in SPECS} == set(strategy_kinds.KINDS)


@CHOOSE
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_the_true_order_comes_out(spec: Spec, data: st.DataObject) -> None:
    """With a model that never errs the places promised are right, status and counts say so, and the calls are as stated."""
    truth = data.draw(orders(spec.most))
    top_k = data.draw(st.none() | st.integers(1, len(truth) + 2))
    strategy, oracle = built(spec, plain=True), Oracle(truth)
    ranking = advance(strategy.flow(request(len(truth), top_k), WIDE), oracle)
    assert isinstance(ranking, Ranking)
    right = spec.promise(len(truth), len(truth) if top_k is None else min(top_k, len(truth)))
    assert ranking.item_ids[:right] == truth[:right]
    assert sorted(ranking.item_ids) == sorted(truth)
    assert (ranking.status, ranking.filled, ranking.error) == ("ok", (), None)
    calls = strategy.calls(len(truth), top_k)
    assert calls.least <= len(ranking.trace) <= calls.most
    assert [exchange.prompt for exchange in ranking.trace] == oracle.prompts


@pytest.mark.parametrize(
    ("section", "places"),
    [
        ({"kind": "setwise"}, 3),
        ({"kind": "setwise", "method": "bubblesort", "k": 30}, None),
        ({"kind": "pairwise"}, 3),
        ({"kind": "pairwise", "method": "allpairs"}, None),
        ({"kind": "top-down"}, 3),
        ({"kind": "top-down", "window": 26}, None),
        ({"kind": "single-token"}, None),
        (calibrated({"kind": "setwise", "read": "logprobs"}), 3),
        (of({"kind": "single-token"}), None),
        (of({"kind": "setwise"}), 3),
        (of(of({"kind": "setwise"})), 3),
    ],
    ids=str,
)
def test_a_ranking_tells_how_many_places_were_asked_for(section: Mapping[str, Any], places: int | None) -> None:
    """Sorts that stop at the places wanted say so, through all wrappers; one question about all of them orders all."""
    truth = shuffled([f"{ID}{number}" for number in range(22)], seed=1)
    ranking = advance(strategy_kinds.build_strategy(section).flow(request(22, top_k=3), WIDE), Oracle(truth))
    assert isinstance(ranking, Ranking)
    assert ranking.depth == places
    if places is not None:
        behind = [item for item in request(22).candidates if item.id in ranking.item_ids[places:]]
        assert ranking.item_ids == truth[:places] + [item.id for item in behind]


@CHOOSE
@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_nothing_is_lost_to_errors(spec: Spec, data: st.DataObject) -> None:
    """With a model that errs no candidate is lost or stands twice, and the Ranking says what the model did not rank."""
    truth = data.draw(orders(min(spec.most, 30)))
    faults: tuple[Fault, ...] = data.draw(st.sampled_from((MILD, MILD + STOPPING, *((fault,) for fault in MILD))))
    oracle = Oracle(truth, data.draw(st.sampled_from((0.05, 0.3, 1.0))), faults=faults, seed=data.draw(st.integers(0, 99)))
    given_ids = [item.id for item in request(len(truth)).candidates]
    ranking = advance(built(spec, plain=True).flow(request(len(truth)), WIDE), oracle)
    assert isinstance(ranking, Ranking)
    assert sorted(ranking.item_ids) == sorted(truth)
    assert [item.rank for item in ranking.items] == list(range(1, len(truth) + 1))
    assert ranking.status in get_args(Status)
    assert set(ranking.filled) == {item.id for item in ranking.items if item.ranked_by == "fallback"}
    assert len(set(ranking.filled)) == len(ranking.filled)
    if ranking.status in ("error", "fallback"):
        assert ranking.item_ids == given_ids
        assert set(ranking.filled) == set(truth)
    if ranking.status in ("ok", "repaired"):
        assert ranking.filled == ()
    assert (ranking.error is not None) or ranking.status != "error"
    assert (ranking.status == "ok") == (oracle.erred == 0)


@CHOOSE
def test_a_prompt_shows_no_id(spec: Spec) -> None:
    """Ids run beside a prompt, and no part of one that a model could read holds any."""
    oracle = Oracle([f"{ID}{number}" for number in reversed(range(9))])
    advance(built(spec).flow(request(9), WIDE), oracle)
    assert oracle.prompts
    for prompt in oracle.prompts:
        assert ID not in _read(prompt) + "".join(prompt.labels)


@CHOOSE
def test_prompts_of_one_ranking_begin_alike(spec: Spec) -> None:
    """What is shared stands first, for prefix caches: the prompts differ from the first candidate line on, not before.

    Only the number of candidates, which the line above them tells, comes sooner; so prompts about as many are compared.
    """
    oracle = Oracle(shuffled([f"{ID}{number}" for number in range(24)], seed=1))
    advance(built(spec).flow(request(24), WIDE), oracle)
    alike: dict[tuple[str, int], list[str]] = defaultdict(list)
    for prompt in oracle.prompts:
        if prompt.messages and prompt.item_ids and not prompt.shared:
            alike[prompt.fingerprint, len(prompt.item_ids)].append(_read(prompt))
    for texts in alike.values():
        shared = len(commonprefix(texts))  # noqa: RUF071 - of characters, as meant
        assert all(shared >= text.index("<candidates>") for text in texts)


def _read(prompt: Prompt) -> str:
    """All that a model reads of a prompt."""
    return "\n".join([*(message.content for message in prompt.messages), prompt.prefix, *prompt.continuations])


@CHOOSE
@pytest.mark.parametrize("errs", [0.0, 0.2])
async def test_every_driver_gives_the_same_ranking(spec: Spec, errs: float) -> None:
    """One at a time, side by side, or step by step with answers that are known: the Ranking is the same."""
    truth = shuffled([f"{ID}{number}" for number in range(9)], seed=2)
    resolved = request(9)
    asked = RankRequest(resolved.history, resolved.candidates, resolved.query, top_k=9)

    def oracle() -> Oracle:
        return Oracle(truth, errs, faults=MILD, seed=3)

    def ranker() -> Ranker:
        return Ranker(oracle().backend(), built(spec), limits=Limits(max_attempts=1), on_error="fallback")

    async with ranker() as one, ranker() as many:
        alone = await one.arank(asked.history, asked.candidates, query=asked.query, top_k=9)
        beside = [ranking async for ranking in many.arank_many([asked] * 3)]
        stepped = advance(one.flow(asked, WIDE), oracle())
    assert isinstance(stepped, Ranking)
    for ranking in (*beside, stepped):
        assert _essence(ranking) == _essence(alone)


def test_synchronous_callers_get_the_same_ranking() -> None:
    """`rank` and `rank_many` give what `advance` gives, for a strategy of many steps."""
    truth = shuffled([f"{ID}{number}" for number in range(15)], seed=4)
    resolved = request(15)
    asked = RankRequest(resolved.history, resolved.candidates, resolved.query)
    strategy = strategy_kinds.build_strategy({"kind": "setwise"})
    with Ranker(Oracle(truth).backend(), strategy) as ranker:
        alone = ranker.rank(asked.history, asked.candidates, query=asked.query)
        beside = list(ranker.rank_many([asked, replace(asked, user_id="u")]))
        stepped = advance(ranker.flow(asked, WIDE), Oracle(truth))
    assert isinstance(stepped, Ranking)
    assert alone.item_ids == truth
    assert {_essence(each) for each in (*beside, stepped)} == {_essence(alone)}


def _essence(ranking: Ranking) -> tuple[object, ...]:
    """All of a Ranking that hangs neither on time nor on who asked."""
    prompts = tuple(exchange.prompt for exchange in ranking.trace)
    return tuple(ranking.item_ids), ranking.status, ranking.repairs, ranking.filled, repr(ranking.error), ranking.notes, prompts
