"""Top-down partition: what is asked about, what that costs at worst, and that it ends (the true order: `test_oracle.py`)."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import ConfigError, RequestError
from llmrank.strategies.calls import Calls
from llmrank.strategies.lists import TextLists
from llmrank.strategies.top_down import TopDown, TopDownOptions
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Completion, Item, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions
from tests.unit.oracle import WIDE, Oracle, PlainWriter


def top_down(**options: Any) -> TopDown:
    chosen = TopDownOptions(**options)
    return TopDown(TextLists(PlainWriter(PromptOptions()), chosen), chosen)


def request(count: int, top_k: int | None = None) -> ResolvedRequest:
    return ResolvedRequest((), tuple(Item(f"c{number}", f"Film {number}") for number in range(count)), top_k=top_k)


def ids(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


def run(strategy: TopDown, asked: ResolvedRequest, oracle: Any) -> Ranking:
    ranking = advance(strategy.flow(asked, WIDE), oracle)
    assert isinstance(ranking, Ranking)
    return ranking


def test_a_good_order_takes_two_steps() -> None:
    """If the first window holds the best, the others are shown once with the pivot: 6 questions, 2 steps, for 10 of 100."""
    strategy, oracle = top_down(), Oracle(ids(100))
    flow = strategy.flow(request(100, top_k=10), WIDE)
    steps = [next(flow)]
    steps.append(flow.send([oracle(prompt) for prompt in steps[0]]))
    with pytest.raises(StopIteration) as end:
        flow.send([oracle(prompt) for prompt in steps[1]])
    assert [len(step) for step in steps] == [1, 5]
    assert {prompt.item_ids[0] for prompt in steps[1]} == {"c9"}
    assert end.value.value.item_ids == ids(100)
    assert strategy.calls(100, 10).least == 6


def test_places_that_are_not_wanted_stay_as_given() -> None:
    """With k the first places are right; the others, where no one answer ordered them, follow in the order given."""
    truth = random.Random(5).sample(ids(60), 60)  # noqa: S311 - no secrets
    ranking = run(top_down(k=4), request(60), Oracle(truth))
    assert ranking.item_ids[:4] == truth[:4]
    below = [int(item_id[1:]) for item_id in ranking.item_ids[25:]]
    assert below == sorted(below)


def test_what_one_answer_ordered_is_not_asked_about_again() -> None:
    """What ranks above the pivot in the first window alone is in order; only the other side needs a third question."""
    oracle = Oracle(ids(21))
    assert run(top_down(), request(21), oracle).item_ids == ids(21)
    assert [prompt.item_ids for prompt in oracle.prompts] == [tuple(ids(20)), ("c10", "c20"), tuple(ids(21)[11:])]


@given(count=st.integers(1, 100), window=st.integers(4, 26), top_k=st.none() | st.integers(1, 100), seed=st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_it_ends_within_its_bounds_for_any_answers(count: int, window: int, top_k: int | None, seed: int) -> None:
    """A model that answers at random, against all it said before, is asked no more than stated and loses no candidate."""
    dice = random.Random(seed)  # noqa: S311 - no secrets

    def anything(prompt: Prompt) -> Completion:
        how = dice.random()
        labels = list(prompt.labels) if how < 0.4 else list(prompt.labels[::-1])
        if how > 0.7:
            dice.shuffle(labels)
        return Completion(" > ".join(f"[{label}]" for label in labels), "stop")

    strategy = top_down(window=window, max_calls=None)
    ranking = run(strategy, request(count, top_k), anything)
    calls = strategy.calls(count, top_k)
    assert sorted(ranking.item_ids) == sorted(ids(count))
    assert calls.least <= len(ranking.trace) <= calls.most


@pytest.mark.parametrize("window", [2, 3, 5, 8, 20])
def test_the_worst_case_is_no_less_than_that_of_all_possible_answers(window: int) -> None:
    """The most calls stated cover every way in which answers can divide a list, found by trying all."""

    @cache
    def worst(count: int, wanted: int) -> int:
        if count <= window:
            return min(1, count - 1) if count else 0
        pivot = min(wanted - 1, window // 2)
        ways = []
        for above in range(pivot, count - window + pivot + 1):
            # A side that nothing joins is in order.
            top = 0 if above == pivot else worst(above, min(wanted, above))
            asked = wanted > above + 1 and above < count - window + pivot
            ways.append(top + (worst(count - 1 - above, wanted - above - 1) if asked else 0))
        return 1 + -(-(count - window) // (window - 1)) + max(ways)

    strategy = top_down(window=window, max_calls=None)
    for count in range(1, 34, 2):
        for wanted in range(1, count + 1, 3):
            assert strategy.calls(count, wanted).most >= worst(count, wanted)
        assert strategy.calls(count).most <= 1.25 * worst(count, count) + 1


def test_a_list_that_fits_is_one_question() -> None:
    """A list of one window is asked about once, and one candidate not at all."""
    assert top_down().calls(20) == Calls(1, 1)
    assert top_down().calls(1) == Calls(0, 0)
    ranking = run(top_down(), request(1), Oracle(ids(1)))
    assert (ranking.item_ids, ranking.status, ranking.trace) == (["c0"], "ok", ())


def test_a_window_without_an_answer_stays_below() -> None:
    """What no readable answer compares with the pivot stays where it was given: below the first window."""
    ranking = run(top_down(k=5), request(60), Oracle(ids(60)[::-1], 1.0, faults=("refused",)))
    assert (ranking.status, ranking.item_ids) == ("error", ids(60))


def test_a_server_that_is_down_is_not_asked_again() -> None:
    """Where the next question would fail, too, no window is asked about any more."""
    ranking = run(top_down(), request(60), Oracle(ids(60), 1.0, faults=("auth",)))
    assert (ranking.status, len(ranking.trace), ranking.item_ids) == ("error", 1, ids(60))


def test_too_many_prompts_are_refused_before_any_is_asked() -> None:
    """A list that may take more prompts than `max_calls` is an error that names the option, and nothing is asked."""
    oracle = Oracle(ids(100))
    with pytest.raises(RequestError, match=r"strategy\.max_calls"):
        advance(top_down(max_calls=20).flow(request(100), WIDE), oracle)
    assert not oracle.prompts


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"window": 1}, r"strategy\.window"),
        ({"k": 0}, r"strategy\.k"),
        ({"read": "logprobs", "window": 27}, r"strategy\.window"),
        ({"max_calls": 0}, r"strategy\.max_calls"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], field: str) -> None:
    """A value that cannot work is refused by its name."""
    with pytest.raises(ConfigError, match=field):
        TopDownOptions(**options)


@pytest.mark.parametrize("kind", ["top-down", "tourrank"])
def test_a_small_window_of_the_model_takes_more_questions(kind: str) -> None:
    """Where fewer candidates fit the model than were meant, the lists are smaller, and the best still comes first."""
    long = tuple(Item(f"c{number}", f"Film {number} " + "long " * 20) for number in range(20))
    flow = build_strategy({"kind": kind}).flow(ResolvedRequest((), long), Budget(700, EstimateCounter()))
    ranking = advance(flow, Oracle(ids(20)[::-1]))
    assert isinstance(ranking, Ranking)
    assert (ranking.status, ranking.item_ids[0]) == ("ok", "c19")
    assert max(len(exchange.prompt.item_ids) for exchange in ranking.trace) < 20
