"""Self-consistency: what is asked, and what several orders come to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import BackendError, BadRequestError, ConfigError, ContextLengthError, RequestError, UnreachableError
from llmrank.strategies.built import BuiltStrategy
from llmrank.strategies.self_consistency import SelfConsistency, SelfConsistencyOptions
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Completion, Event, Item, Prompt, Ranking, ResolvedRequest

BUDGET = Budget(100_000, EstimateCounter())
HISTORY = (Event(Item("h", "Heat")),)
Answer = Callable[[Prompt], "Completion | BackendError"]


def consistent(kind: str = "listwise", inner: dict[str, Any] | None = None, **options: Any) -> BuiltStrategy:
    return build_strategy({"kind": "self-consistency", "of": {"kind": kind, **(inner or {})}, **options})


def catalogue(count: int) -> tuple[Item, ...]:
    return tuple(Item(f"{number:03}", f"Film {number}") for number in range(count))


def ask(strategy: BuiltStrategy, items: Sequence[Item], answer: Answer, top_k: int | None = None) -> Ranking:
    ranking = advance(strategy.flow(ResolvedRequest(HISTORY, items, top_k=top_k), BUDGET), answer)
    assert isinstance(ranking, Ranking)
    return ranking


def by_id(prompt: Prompt) -> Completion:
    """The answer of one who ranks by the ids, which no model sees."""
    labels = [label for _, label in sorted(zip(prompt.item_ids, prompt.labels, strict=True))]
    return Completion(" > ".join(f"[{label}]" for label in labels), model="m")


def as_shown(prompt: Prompt) -> Completion:
    """The answer of one who looks at nothing but the place."""
    return Completion(" > ".join(f"[{label}]" for label in prompt.labels), model="m")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 4), st.sampled_from(["borda", "rrf", "kemeny"]), st.randoms(use_true_random=False))
def test_a_perfect_model_stays_perfect(count: int, shuffles: int, aggregate: str, dice: random.Random) -> None:
    """Orders that agree come out as they are, by every method, in as many prompts as were stated."""
    items = list(catalogue(count))
    dice.shuffle(items)
    strategy = consistent(shuffles=shuffles, aggregate=aggregate)
    ranking = ask(strategy, items, by_id)
    assert ranking.item_ids == sorted(item.id for item in items)
    assert (ranking.status, ranking.strategy, ranking.model) == ("ok", "self-consistency(listwise)", "m" if count > 1 else "")
    assert strategy.calls(count).least <= len(ranking.trace) <= strategy.calls(count).most
    scores = [each.score for each in ranking.items]
    assert None not in scores
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))


def test_the_shuffles_are_asked_side_by_side() -> None:
    """All shuffles go out in one step, each a different order of the same candidates."""
    strategy = consistent(shuffles=4)
    flow = strategy.flow(ResolvedRequest(HISTORY, catalogue(20)), BUDGET)
    step = next(flow)
    flow.close()
    assert len({prompt.item_ids for prompt in step}) == 4
    assert {tuple(sorted(prompt.item_ids)) for prompt in step} == {tuple(item.id for item in catalogue(20))}
    assert strategy.calls(20).least == strategy.calls(20).most == 4


def test_the_shuffles_follow_from_the_order_given() -> None:
    """A request has the same shuffles every time; another order of its candidates or another seed gives others.

    So a study of positions, which gives a candidate at several places, asks something else each time. Nor does the place that
    a candidate is given say at which places the shuffles show it.
    """

    def prompts(items: Sequence[Item], seed: int = 0) -> list[Prompt]:
        flow = consistent(seed=seed).flow(ResolvedRequest(HISTORY, items), BUDGET)
        step = list(next(flow))
        flow.close()
        return step

    items = catalogue(10)
    assert prompts(items) == prompts(items)
    turned = items[::-1]
    assert {prompt.item_ids for prompt in prompts(items)}.isdisjoint(prompt.item_ids for prompt in prompts(turned))
    renamed = {one.id: other.id for one, other in zip(items, turned, strict=True)}
    moved = [tuple(renamed[item_id] for item_id in prompt.item_ids) for prompt in prompts(items)]
    assert moved != [prompt.item_ids for prompt in prompts(turned)]
    assert prompts(items) != prompts(items, seed=1)


def test_a_model_that_looks_at_places_alone_says_nothing() -> None:
    """Over many shuffles such answers even out: the mean points of an item lie near the middle for all."""
    ranking = ask(consistent(shuffles=200), catalogue(5), as_shown)
    assert [each.score for each in ranking.items] == pytest.approx([3.0] * 5, abs=0.4)


def test_equal_items_stand_in_the_order_given() -> None:
    """Where the orders decide nothing, the candidates' own order does, whatever their ids."""
    items = catalogue(2)[::-1]
    turns = iter([True, False])

    def both_ways(prompt: Prompt) -> Completion:
        first, second = sorted(zip(prompt.item_ids, prompt.labels, strict=True), reverse=next(turns))
        return Completion(f"[{first[1]}] > [{second[1]}]")

    assert ask(consistent(shuffles=2), items, both_ways).item_ids == ["001", "000"]


def test_nested_shuffles_are_all_different() -> None:
    """Around itself it asks about as many orders as both numbers of shuffles give."""
    section = {"kind": "self-consistency", "shuffles": 3, "of": {"kind": "listwise"}}
    ranking = ask(build_strategy({**section, "of": section}), catalogue(10), by_id)
    assert len({exchange.prompt.item_ids for exchange in ranking.trace}) == len(ranking.trace) == 9


@pytest.mark.parametrize("aggregate", ["borda", "rrf", "kemeny"])
def test_places_that_no_question_was_asked_for_have_no_vote(aggregate: str) -> None:
    """Of a sort that stops after two places, two count; what is in none of those follows in the order given, and is level.

    One shuffle has a mean of places that would put the others in its own order.
    """

    def best(prompt: Prompt) -> Completion:
        return Completion(min(zip(prompt.item_ids, prompt.labels, strict=True))[1])

    items = catalogue(12)[::-1]
    ranking = ask(consistent("setwise", shuffles=3, aggregate=aggregate), items, best, top_k=2)
    assert ranking.item_ids == ["000", "001", *(item.id for item in items[:10])]
    assert (ranking.status, ranking.filled, ranking.depth) == ("ok", (), 2)
    assert len({each.score for each in ranking.items}) == 3
    first, second, third = (each.score or 0.0 for each in ranking.items[:3])
    assert first > second > third


def failing(numbers: Sequence[int], error: Completion | BackendError) -> Answer:
    """Answers by id, but for the prompts of these numbers."""
    asked: list[Prompt] = []

    def answer(prompt: Prompt) -> Completion | BackendError:
        asked.append(prompt)
        return error if len(asked) - 1 in numbers else by_id(prompt)

    return answer


@pytest.mark.parametrize(
    ("numbers", "fault", "status", "error", "counted"),
    [
        ((0,), UnreachableError("gone"), "partial", "gone", "2 of 3"),
        ((1, 2), BadRequestError("no"), "partial", "no", "1 of 3"),
        ((0, 1, 2), UnreachableError("gone"), "error", "gone", "0 of 3"),
        ((1,), Completion("I cannot."), "repaired", None, "2 of 3"),
        ((0, 1, 2), Completion("I cannot."), "fallback", None, "0 of 3"),
    ],
)
def test_shuffles_without_an_order_do_not_count(
    numbers: tuple[int, ...], fault: Completion | BackendError, status: str, error: str | None, counted: str
) -> None:
    """Those that have all answers make the order; the status, the error and a note tell; without any, the order given stays."""
    items = catalogue(4)[::-1]
    ranking = ask(consistent(shuffles=3), items, failing(numbers, fault))
    assert (ranking.status, ranking.error and str(ranking.error)) == (status, error)
    assert any(note.startswith(counted) for note in ranking.notes)
    if len(numbers) < 3:
        assert (ranking.item_ids, ranking.filled) == (["000", "001", "002", "003"], ())
    else:
        assert ranking.item_ids == list(ranking.filled) == ["003", "002", "001", "000"]
        assert {(each.score, each.ranked_by) for each in ranking.items} == {(None, "fallback")}


@pytest.mark.parametrize("aggregate", ["borda", "rrf", "kemeny"])
def test_an_order_that_lacks_an_answer_has_no_vote(aggregate: str) -> None:
    """The best of a window that failed are not the worst of the list: that shuffle does not count, unless all are such."""
    strategy = consistent(shuffles=3, aggregate=aggregate, inner={"window": 6, "step": 3})
    items = catalogue(12)
    first = ask(strategy, items, failing((5,), BadRequestError("no")))  # the second window of the last shuffle
    assert first.item_ids[:3] == ["000", "001", "002"]
    assert (first.status, str(first.error), first.filled) == ("partial", "no", ())
    assert "2 of 3 shuffles count; the others lack readable answers" in first.notes
    every = ask(strategy, items, failing((3, 4, 5), BadRequestError("no")))
    assert every.status == "partial"
    assert not any("shuffles count" in note for note in every.notes)


def test_what_one_answer_leaves_out_another_ranks() -> None:
    """An item that no answer ranks stands last and is filled; one that some answer ranks is not."""

    def two_best(prompt: Prompt) -> Completion:
        labels = [label for item_id, label in sorted(zip(prompt.item_ids, prompt.labels, strict=True)) if item_id < "003"]
        return Completion(" > ".join(f"[{label}]" for label in labels))

    ranking = ask(consistent(shuffles=2), catalogue(5)[::-1], two_best)
    assert ranking.item_ids == ["000", "001", "002", "004", "003"]
    assert (ranking.status, ranking.filled) == ("partial", ("004", "003"))
    assert [each.score is None for each in ranking.items] == [False, False, False, True, True]


def test_what_had_to_be_done_is_said_once() -> None:
    """Repairs, notes and invented names of the shuffles are joined without repetition."""

    def inventive(prompt: Prompt) -> Completion:
        return Completion((by_id(prompt).text or "") + " > [Z]", notes=("slow",))

    ranking = ask(consistent(shuffles=3), catalogue(4), inventive)
    assert ranking.invented == ("Z",)
    assert len(ranking.notes) == len(set(ranking.notes)) >= 1
    assert ranking.status == "repaired"


def test_a_prompt_that_is_too_long_is_asked_smaller() -> None:
    """Each inner flow asks again for a smaller window, and the note about it comes once; or all give up."""
    error = ContextLengthError("too long", window=50_000)
    ranking = ask(consistent(shuffles=2), catalogue(10), failing((0, 1), error))
    assert (ranking.status, ranking.item_ids, len(ranking.trace)) == ("ok", [item.id for item in catalogue(10)], 4)
    assert [note for note in ranking.notes if "50000" in note] == list(ranking.notes)
    given_up = ask(consistent(shuffles=2), catalogue(10), lambda prompt: error)
    assert (given_up.status, given_up.item_ids) == ("error", [item.id for item in catalogue(10)])


def test_windows_and_places_are_the_inner_strategys() -> None:
    """`top_k` is passed on, and the stated cost is the inner one's, once a shuffle."""
    strategy = consistent(shuffles=3, inner={"window": 4, "passes": 2})
    inner = build_strategy({"kind": "listwise", "window": 4, "passes": 2})
    assert strategy.calls(11, 5) == inner.calls(11, 5) * 3
    assert (strategy.needs, strategy.templates) == (inner.needs, inner.templates)
    ranking = ask(strategy, catalogue(11), by_id, top_k=5)
    assert ranking.item_ids[:2] == ["000", "001"]
    assert strategy.calls(11, 5).least <= len(ranking.trace) <= strategy.calls(11, 5).most
    with pytest.raises(RequestError, match="max_windows"):
        consistent(inner={"window": 4, "max_windows": 1}).calls(11)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"shuffles": 0}, "shuffles"), ({"rrf_k": -1}, "rrf_k"), ({"aggregate": "mean"}, "aggregate"), ({"of": None}, "of")],
)
def test_a_wrong_option_is_named(options: dict[str, Any], field: str) -> None:
    """Each wrong value is one ConfigError with the name of its key."""
    with pytest.raises(ConfigError, match=f"strategy.{field}"):
        build_strategy({"kind": "self-consistency", "of": {"kind": "listwise"}, **options})


def test_it_is_built_from_objects_too() -> None:
    """Without options there are five shuffles."""
    strategy = SelfConsistency(build_strategy({"kind": "listwise"}), SelfConsistencyOptions())
    assert len(ask(strategy, catalogue(3), by_id).trace) == 5


def test_the_constant_of_reciprocal_ranks_is_the_options() -> None:
    """With `rrf_k` 0 the first of one shuffle has 1 / 1 and the second 1 / 2; left out, it is 60."""
    for strategy, k in (
        (consistent(aggregate="rrf", shuffles=1, rrf_k=0), 0),
        (consistent(aggregate="rrf", shuffles=1), 60),
    ):
        ranking = ask(strategy, catalogue(3), by_id)
        assert [item.score for item in ranking.items] == pytest.approx([1 / (k + rank) for rank in (1, 2, 3)])


def test_stability_tells_how_much_the_orders_agree() -> None:
    """1 for a model that ranks by the items; near 0 for one that looks at places alone; None without two orders."""
    items = catalogue(12)
    assert ask(consistent(shuffles=4), items, by_id).stability == 1.0
    by_place = ask(consistent(shuffles=30), items, as_shown).stability
    assert by_place is not None
    assert abs(by_place) < 0.1
    assert ask(consistent(shuffles=1), items, by_id).stability is None


def test_stability_leaves_out_what_follows_the_first_places() -> None:
    """Behind the places that were asked for an order is the shuffle's own, which would speak against a steady model."""
    steady = consistent("setwise", shuffles=4)
    assert ask(steady, catalogue(12), first_by_id, top_k=3).stability == 1.0


def first_by_id(prompt: Prompt) -> Completion:
    """The label of the candidate with the lowest id."""
    return Completion(min(zip(prompt.item_ids, prompt.labels, strict=True))[1], model="m")
