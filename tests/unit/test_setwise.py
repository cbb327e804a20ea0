"""The setwise strategy, driven by answers that a test gives: by title, at random, or none at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import (
    BackendError,
    BudgetError,
    ConfigError,
    ContentFilterError,
    ContextLengthError,
    RequestError,
    UnreachableError,
)
from llmrank.protocols import Flow
from llmrank.strategies.setwise import Setwise, SetwiseOptions
from llmrank.strategies.shrink import Flowing
from llmrank.strategies.sorting import bubblesort, heapsort
from llmrank.types import Completion, Event, Item, Prompt, RankedItem, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter

WIDE = Budget(100_000, EstimateCounter())
METHODS = ("heapsort", "bubblesort")

Answer = Callable[[Prompt], Completion | BackendError]


def request(count: int, seed: int | None = None, top_k: int | None = None, words: str = "Film number") -> ResolvedRequest:
    """Candidates whose id is their true place, in the order of a seed; 0 is the best."""
    places = list(range(count))
    if seed is not None:
        Random(seed).shuffle(places)  # noqa: S311  # no secret
    seen = (Event(Item("h", "An old film")),)
    return ResolvedRequest(seen, tuple(Item(str(place), f"{words} {place:03d}") for place in places), top_k=top_k)


@cache
def writer() -> PromptWriter:
    return PromptWriter(PromptOptions(template="setwise/next", answer="label"))


def setwise(**options: Any) -> Setwise:
    return Setwise(writer(), SetwiseOptions(**{"max_calls": None, **options}))


def run(strategy: Setwise, asked: ResolvedRequest, answer: Answer, budget: Budget = WIDE) -> Ranking:
    ranking = advance(strategy.flow(asked, budget), answer)
    assert isinstance(ranking, Ranking)
    return ranking


def by_text(prompt: Prompt) -> Completion:
    """Names the best one."""
    return Completion(min(zip(map(int, prompt.item_ids), prompt.labels, strict=True))[1], "stop", model="oracle")


def by_probability(prompt: Prompt) -> Completion:
    """Gives the better ones the higher probabilities, and says nothing else."""
    logprobs = {label: -1.0 - int(place) for place, label in zip(prompt.item_ids, prompt.labels, strict=True)}
    return Completion("", "stop", label_logprobs=logprobs, model="oracle")


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 100),
    seed=st.integers(0, 999),
    method=st.sampled_from(METHODS),
    compare=st.integers(2, 26),
    read=st.sampled_from(["text", "logprobs"]),
    k=st.none() | st.integers(1, 12),
)
def test_true_answers_give_the_true_order_at_the_cost_stated(
    count: int, seed: int, method: str, compare: int, read: str, k: int | None
) -> None:
    """For any list, method and number compared: the places wanted are right, and no group is shown twice."""
    strategy = setwise(method=method, compare=compare, read=read, k=k)
    ranking = run(strategy, request(count, seed), by_text if read == "text" else by_probability)
    wanted = count if k is None else min(count, k)
    assert ranking.item_ids[:wanted] == [str(place) for place in range(wanted)]
    assert sorted(map(int, ranking.item_ids)) == list(range(count))
    assert (ranking.status, ranking.filled, ranking.strategy) == ("ok", (), "setwise")
    groups = [frozenset(exchange.prompt.item_ids) for exchange in ranking.trace]
    assert len(set(groups)) == len(groups)
    assert all(2 <= len(group) <= compare for group in groups)
    calls = strategy.calls(count)
    assert calls.least <= len(groups) <= calls.most


@pytest.mark.parametrize("method", METHODS)
def test_the_request_says_how_many_places_are_wanted(method: str) -> None:
    """`top_k` of the request is the depth unless the strategy has its own; fewer places cost less."""
    strategy = setwise(method=method)
    few = run(strategy, request(40, 1, top_k=3), by_text)
    many = run(strategy, request(40, 1), by_text)
    assert few.item_ids[:3] == ["0", "1", "2"]
    assert len(few.trace) < len(many.trace) / 2
    assert len(few.trace) <= strategy.calls(40, 3).most < strategy.calls(40).most
    own = setwise(method=method, k=5)
    assert own.calls(40, 3) == own.calls(40)
    assert run(own, request(40, 1, top_k=3), by_text).item_ids[:5] == [str(place) for place in range(5)]


@given(count=st.integers(2, 500), k=st.integers(1, 500), compare=st.integers(3, 26))
@settings(max_examples=50, deadline=None)
def test_the_cost_is_the_papers(count: int, k: int, compare: int) -> None:
    """Zhuang et al., table 1: k log_c n questions by heap sort (and n / c to build the heap), k n / (c - 1) by bubble sort."""
    k = min(k, count)
    children = compare - 1 if compare > 3 else 2
    height = math.log((count - 1) * (children - 1) + 1, children) + 1e-9
    heap = setwise(compare=compare, k=k).calls(count)
    assert heap.least == math.ceil((count - 1) / children)
    assert heap.most <= (count - 1) / (children - 1) + height + (k - 1) * height
    bubble = setwise(method="bubblesort", compare=compare, k=k).calls(count)
    assert bubble.least == math.ceil((count - 1) / (compare - 1))
    assert bubble.most <= k * math.ceil((count - 1) / (compare - 1))


def test_the_order_of_all_labels_spares_questions() -> None:
    """Probabilities say more than who is best: what an earlier answer knows is not asked again, and nothing gets worse."""
    for method in METHODS:
        asked = request(30, 4, top_k=10)
        text = run(setwise(method=method, compare=6), asked, by_text)
        probabilities = run(setwise(method=method, compare=6, read="logprobs"), asked, by_probability)
        assert len(probabilities.trace) < len(text.trace)
        assert probabilities.item_ids[:10] == text.item_ids[:10] == [str(place) for place in range(10)]
    single = run(setwise(compare=26, read="logprobs"), request(26, 4), by_probability)
    assert len(single.trace) <= 2
    assert single.item_ids == [str(place) for place in range(26)]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(2, 30), seed=st.integers(0, 999), method=st.sampled_from(METHODS), compare=st.integers(2, 6))
def test_a_later_answer_outweighs_an_earlier_one(count: int, seed: int, method: str, compare: int) -> None:
    """A question is spared where one candidate came out ahead of each other one when they were last shown together."""

    def mind(ids: Sequence[str]) -> list[str]:
        """The order that the model, which is of no settled mind, makes of these candidates."""
        return sorted(ids, key=lambda one: Random(str((seed, *ids, one))).random())  # noqa: S311  # no secret

    def answer(prompt: Prompt) -> Completion:
        order = mind(prompt.item_ids)
        label_of = dict(zip(prompt.item_ids, prompt.labels, strict=True))
        return Completion("", label_logprobs={label_of[one]: -1.0 - rank for rank, one in enumerate(order)})

    answers: list[list[str]] = []

    def best(group: Sequence[Item]) -> Flowing[int]:
        ids = [item.id for item in group]
        for place, one in enumerate(ids):
            last = [next((said for said in reversed(answers) if {one, other} <= set(said)), None) for other in ids]
            if all(
                other == one or (said is not None and said.index(one) < said.index(other))
                for other, said in zip(ids, last, strict=True)
            ):
                return place
        yield [Prompt()]
        answers.append(mind(ids))
        return ids.index(answers[-1][0])

    def reference() -> Flow:
        sort = heapsort if method == "heapsort" else bubblesort
        order = yield from sort(request(count).candidates, count, compare, best)
        return Ranking(tuple(RankedItem(item, rank) for rank, item in enumerate(order, start=1)))

    expected = advance(reference(), lambda prompt: Completion())
    assert isinstance(expected, Ranking)
    ranking = run(setwise(method=method, compare=compare, read="logprobs"), request(count), answer)
    assert ranking.item_ids == expected.item_ids
    assert len(ranking.trace) == len(expected.trace)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 40),
    seed=st.integers(0, 999),
    method=st.sampled_from(METHODS),
    compare=st.integers(2, 8),
    errors=st.floats(0, 1),
)
def test_a_backend_that_errs_loses_no_candidate(count: int, seed: int, method: str, compare: int, errors: float) -> None:
    """Wrong labels, silence and refusals at random: every candidate once, and the status says what happened."""

    def answer(prompt: Prompt) -> Completion | BackendError:
        random = Random(str((seed, prompt.item_ids)))  # noqa: S311  # no secret
        if random.random() >= errors:
            return by_text(prompt)
        wrong: list[Completion | BackendError] = [Completion(prompt.labels[-1]), Completion("None."), Completion(None)]
        return random.choice([*wrong, ContentFilterError("refused")])

    strategy = setwise(method=method, compare=compare, k=10)
    ranking = run(strategy, request(count, seed), answer)
    assert sorted(map(int, ranking.item_ids)) == list(range(count))
    failures = [exchange.answer for exchange in ranking.trace if isinstance(exchange.answer, BackendError)]
    assert (ranking.error is not None) == bool(failures)
    if failures:
        nothing_read = "error" if len(failures) == len(ranking.trace) else "fallback"
        assert ranking.status == (nothing_read if len(ranking.filled) == count else "partial")
    assert all((ranked.ranked_by == "fallback") == (ranked.id in ranking.filled) for ranked in ranking.items)
    assert len(ranking.trace) <= strategy.calls(count).most


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("answer", [Completion("I cannot say."), ContentFilterError("refused")], ids=["unreadable", "refused"])
def test_without_answers_the_order_given_comes_back(method: str, answer: Completion | BackendError) -> None:
    """No readable answer at all: nothing moves, nothing is asked twice, and the status says why."""
    asked = request(20, 5)
    ranking = run(setwise(method=method, k=5), asked, lambda prompt: answer)
    assert ranking.item_ids == [item.id for item in asked.candidates if isinstance(item, Item)]
    assert ranking.status == ("error" if isinstance(answer, BackendError) else "fallback")
    assert set(ranking.filled) == set(ranking.item_ids)
    groups = [frozenset(exchange.prompt.item_ids) for exchange in ranking.trace]
    assert len(set(groups)) == len(groups)


@pytest.mark.parametrize("method", METHODS)
def test_after_an_error_that_the_next_would_meet_nothing_is_asked(method: str) -> None:
    """A server that dies in the middle costs what was under way; what was learnt stays, and nobody is lost."""
    left = iter(range(4))
    ranking = run(
        setwise(method=method),
        request(12, 5),
        lambda prompt: UnreachableError("gone") if next(left, None) is None else by_text(prompt),
    )
    assert (ranking.status, type(ranking.error)) == ("partial", UnreachableError)
    assert sorted(map(int, ranking.item_ids)) == list(range(12))
    last = [isinstance(exchange.answer, BackendError) for exchange in ranking.trace]
    assert last == sorted(last)  # nothing readable came after the first error
    assert last.count(True) <= 4


def test_a_small_window_shows_fewer_at_once() -> None:
    """Where so many candidates do not fit, fewer are compared, a note says so, and the order is right all the same."""
    asked = request(12, 2, words="A film with a title that goes on and on, as they do, and then on again, number")
    narrow = Budget(450, EstimateCounter())
    ranking = run(setwise(compare=12, max_tokens=4), asked, by_text, narrow)
    largest = max(len(exchange.prompt.item_ids) for exchange in ranking.trace)
    assert 2 <= largest < 12
    assert ranking.item_ids == [str(place) for place in range(12)]
    assert any(f"{largest} candidates" in note and "strategy.compare" in note for note in ranking.notes)


def test_what_does_not_fit_is_refused_before_anything_is_asked() -> None:
    """Two candidates are the least that a question takes."""
    with pytest.raises(BudgetError, match="window"):
        run(setwise(), request(5), by_text, Budget(60, EstimateCounter()))


def test_a_prompt_that_the_server_finds_too_long_is_asked_smaller() -> None:
    """The ranking starts anew with the window that the server names, and says so."""
    answers = iter([ContextLengthError("too long", window=2000)])
    ranking = run(setwise(), request(5), lambda prompt: next(answers, None) or by_text(prompt))
    assert ranking.item_ids == [str(place) for place in range(5)]
    assert "2000" in ranking.notes[-1]


def test_too_many_prompts_are_refused_before_anything_is_asked() -> None:
    """By the statement of the cost and by the ranking itself, both naming the option; null allows any number."""
    strategy = setwise(method="bubblesort", max_calls=50)
    with pytest.raises(RequestError, match="max_calls"):
        strategy.calls(100)
    with pytest.raises(RequestError, match="max_calls"):
        run(strategy, request(100), by_text)
    assert strategy.calls(100, 1).most == 33


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"compare": 1}, "strategy.compare"),
        ({"compare": 27}, "strategy.compare"),
        ({"k": 0}, "strategy.k"),
        ({"max_calls": 0}, "strategy.max_calls"),
        ({"max_tokens": 0}, "strategy.max_tokens"),
        ({"temperature": math.inf}, "strategy.temperature"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], named: str) -> None:
    """The field is named."""
    with pytest.raises(ConfigError, match=named):
        SetwiseOptions(**options)


def test_needs_and_templates() -> None:
    """Probabilities need a backend that tells them; the prompts carry the template's fingerprint and ask for one token then."""
    strategy = setwise(read="logprobs", seed=7)
    assert strategy.needs == {"generate", "label_logprobs"}
    assert setwise().needs == {"generate"}
    assert strategy.templates == {"setwise/next": writer().fingerprint}
    ranking = run(strategy, request(4), by_probability)
    assert ranking.fingerprint == writer().fingerprint
    assert {(each.prompt.max_tokens, each.prompt.seed, each.prompt.label_logprobs) for each in ranking.trace} == {(1, 7, True)}
