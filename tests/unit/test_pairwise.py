"""The pairwise strategy, driven by answers that a test gives: by title, by place, or none at all."""

from __future__ import annotations

import math
from collections.abc import Callable
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
from llmrank.strategies.pairwise import Pairwise, PairwiseOptions
from llmrank.types import Completion, Event, Item, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter

WIDE = Budget(100_000, EstimateCounter())
METHODS = ("allpairs", "heapsort", "bubblesort")

Answer = Callable[[Prompt], Completion | BackendError]


def request(count: int, seed: int | None = None, top_k: int | None = None) -> ResolvedRequest:
    """Candidates whose id is their true place, in the order of a seed; 0 is the best."""
    places = list(range(count))
    if seed is not None:
        Random(seed).shuffle(places)  # noqa: S311  # no secret
    seen = (Event(Item("h", "An old film")),)
    return ResolvedRequest(seen, tuple(Item(str(place), f"Film number {place:03d}") for place in places), top_k=top_k)


@cache
def writer() -> PromptWriter:
    return PromptWriter(PromptOptions(template="pairwise/next", answer="label"))


def pairwise(**options: Any) -> Pairwise:
    return Pairwise(writer(), PairwiseOptions(**{"max_calls": None, **options}))


def run(strategy: Pairwise, asked: ResolvedRequest, answer: Answer, budget: Budget = WIDE) -> Ranking:
    ranking = advance(strategy.flow(asked, budget), answer)
    assert isinstance(ranking, Ranking)
    return ranking


def by_text(prompt: Prompt) -> Completion:
    """Names the better one."""
    return Completion(min(zip(map(int, prompt.item_ids), prompt.labels, strict=True))[1], "stop", model="oracle")


def by_probability(prompt: Prompt) -> Completion:
    """Gives the better one the higher probability, and says nothing else."""
    logprobs = {label: -1.0 - int(place) for place, label in zip(prompt.item_ids, prompt.labels, strict=True)}
    return Completion("", "stop", label_logprobs=logprobs, model="oracle")


def biased(lean: float) -> Answer:
    """A model whose first label is always the likelier one, by so much that it names no other; the better one adds a little."""

    def answer(prompt: Prompt) -> Completion:
        worse, better = (-1.0, -0.5)
        one, other = map(int, prompt.item_ids)
        logprobs = {"A": lean + (better if one < other else worse), "B": better if other < one else worse}
        return Completion("A", "stop", label_logprobs=logprobs)

    return answer


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 20),
    seed=st.integers(0, 999),
    method=st.sampled_from(METHODS),
    how=st.sampled_from([("text", "vote"), ("logprobs", "vote"), ("logprobs", "probability")]),
    top_k=st.none() | st.integers(1, 40),
)
def test_true_answers_give_the_true_order_at_the_cost_stated(
    count: int, seed: int, method: str, how: tuple[str, str], top_k: int | None
) -> None:
    """For any list, method and way to read: the places wanted are right, both orders of each pair are asked, and once."""
    strategy = pairwise(method=method, read=how[0], decide=how[1])
    ranking = run(strategy, request(count, seed, top_k), by_text if how[0] == "text" else by_probability)
    wanted = count if top_k is None else min(count, top_k)
    assert ranking.item_ids[:wanted] == [str(place) for place in range(wanted)]
    assert sorted(map(int, ranking.item_ids)) == list(range(count))
    assert (ranking.status, ranking.filled, ranking.strategy) == ("ok", (), "pairwise")
    pairs = [exchange.prompt.item_ids for exchange in ranking.trace]
    assert len(set(pairs)) == len(pairs)
    assert {(other, one) for one, other in pairs} == set(pairs)
    calls = strategy.calls(count, top_k)
    assert calls.least <= len(pairs) <= calls.most


@pytest.mark.parametrize("method", ["heapsort", "bubblesort"])
def test_a_hundred_candidates(method: str) -> None:
    """The longest list that the issue names, its first five places."""
    strategy = pairwise(method=method, k=5)
    ranking = run(strategy, request(100, 1), by_text)
    assert ranking.item_ids[:5] == [str(place) for place in range(5)]
    assert len(set(ranking.item_ids)) == 100
    assert strategy.calls(100).least <= len(ranking.trace) <= strategy.calls(100).most


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_the_cost_is_the_papers(count: int) -> None:
    """n (n - 1) prompts for all pairs, in one step; the sliding passes twice the sum of n - 1 - i."""
    strategy = pairwise(method="allpairs")
    prompts = advance(strategy.flow(request(count), WIDE), lambda prompt: None)
    if count > 1:
        assert isinstance(prompts, tuple)
        assert len(prompts) == count * (count - 1)
    assert strategy.calls(count).least == strategy.calls(count).most == count * (count - 1)
    k = min(count, 5)
    assert pairwise(method="bubblesort", k=k).calls(count).most == 2 * sum(count - 1 - done for done in range(k))
    most = pairwise(method="heapsort", k=k).calls(count).most
    assert most <= 4 * (count - 1) + 2 * (k - 1) * math.floor(math.log2(count))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("read", ["text", "logprobs"])
def test_a_model_that_sees_only_the_place_changes_nothing(method: str, read: str) -> None:
    """It contradicts itself in the other order: all ties, so the order given comes back, and yet all were judged."""
    asked = request(9, 3)
    ranking = run(
        pairwise(method=method, read=read),
        asked,
        lambda prompt: Completion("A", "stop", label_logprobs={"A": -0.1, "B": -2.4} if read == "logprobs" else None),
    )
    assert ranking.item_ids == [item.id for item in asked.candidates if isinstance(item, Item)]
    assert (ranking.status, ranking.filled) == ("ok", ())


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_see_through_a_leaning_to_one_place(method: str) -> None:
    """A model that always names A still ranks, by how sure it is; by vote it does not."""
    asked = request(9, 3)
    shown = [item.id for item in asked.candidates if isinstance(item, Item)]
    soft = run(pairwise(method=method, read="logprobs", decide="probability"), asked, biased(3.0))
    assert soft.item_ids == [str(place) for place in range(9)]
    assert run(pairwise(method=method, read="logprobs"), asked, biased(3.0)).item_ids == shown


def test_nothing_but_a_leaning_is_exactly_a_tie() -> None:
    """However the probabilities are rounded, a model that sees only the place moves nothing."""
    asked = request(6, 3)
    for lean in (0.1, 0.3, 1.7, 30.0, 900.0, -0.7, -900.0):
        strategy = pairwise(method="allpairs", read="logprobs", decide="probability")
        ranking = run(strategy, asked, lambda prompt, by=lean: Completion("A", label_logprobs={"A": -0.1, "B": -0.1 - by}))  # type: ignore[misc]  # mypy infers no type for a default
        assert [ranked.score for ranked in ranking.items] == [2.5] * 6


def test_a_label_that_the_server_did_not_report_is_the_less_likely_one() -> None:
    """Servers report a few alternatives; the one label among them counts as certain, and the ranking says what was missing."""

    def answer(prompt: Prompt) -> Completion:
        return Completion("", label_logprobs={by_text(prompt).text or "": -4.0})

    ranking = run(pairwise(method="allpairs", read="logprobs", decide="probability"), request(3, 2), answer)
    assert [(ranked.id, ranked.score) for ranked in ranking.items] == [("0", 2.0), ("1", 1.0), ("2", 0.0)]
    assert ranking.status == "repaired"
    assert (ranking.repairs, ranking.notes) == (("no log-probability came for 1 of 2 labels",), ())


def test_scores_are_what_was_won() -> None:
    """All pairs give points: wins and half the ties. A sort gives no scores."""

    def answer(prompt: Prompt) -> Completion:
        return Completion("A") if set(prompt.item_ids) == {"0", "1"} else by_text(prompt)  # a tie between the best two

    ranking = run(pairwise(method="allpairs"), request(4), answer)
    assert [(ranked.id, ranked.score) for ranked in ranking.items] == [("0", 2.5), ("1", 2.5), ("2", 1.0), ("3", 0.0)]
    assert {ranked.score for ranked in run(pairwise(), request(4), by_text).items} == {None}


@pytest.mark.parametrize("decide", ["vote", "probability"])
def test_one_order_without_an_answer_makes_a_tie(decide: str) -> None:
    """A single order would bring back the leaning to a place; a pair without both answers judges neither candidate."""

    def answer(prompt: Prompt) -> Completion | BackendError:
        return ContentFilterError("refused") if prompt.item_ids == ("1", "0") else by_probability(prompt)

    ranking = run(pairwise(method="allpairs", read="logprobs", decide=decide), request(2), answer)
    assert [ranked.score for ranked in ranking.items] == [None, None]
    assert (ranking.status, ranking.filled) == ("fallback", ("0", "1"))
    assert isinstance(ranking.error, ContentFilterError)
    more = run(pairwise(method="allpairs", read="logprobs", decide=decide), request(3), answer)
    assert (more.status, more.filled) == ("partial", ())  # both have met the third in both orders


def test_an_order_that_cannot_be_read_judges_nobody() -> None:
    """An unreadable answer counts as none: the tie stands for no verdict, and the status says so."""
    ranking = run(
        pairwise(), request(2), lambda prompt: Completion("Neither.") if prompt.item_ids == ("1", "0") else by_text(prompt)
    )
    assert (ranking.status, ranking.filled, ranking.item_ids) == ("fallback", ("0", "1"), ["0", "1"])


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 12), seed=st.integers(0, 999), method=st.sampled_from(METHODS), errors=st.floats(0, 1))
def test_a_backend_that_errs_loses_no_candidate(count: int, seed: int, method: str, errors: float) -> None:
    """Wrong labels, silence and refusals at random: every candidate once, and the status says what happened."""

    def answer(prompt: Prompt) -> Completion | BackendError:
        random = Random(str((seed, prompt.item_ids)))  # noqa: S311  # no secret
        if random.random() >= errors:
            return by_text(prompt)
        wrong: list[Completion | BackendError] = [Completion("A"), Completion("Neither."), Completion(None)]
        return random.choice([*wrong, ContentFilterError("refused")])

    ranking = run(pairwise(method=method), request(count, seed), answer)
    assert sorted(map(int, ranking.item_ids)) == list(range(count))
    failures = [exchange.answer for exchange in ranking.trace if isinstance(exchange.answer, BackendError)]
    assert (ranking.error is not None) == bool(failures)
    if failures:
        nothing_read = "error" if len(failures) == len(ranking.trace) else "fallback"
        assert ranking.status == (nothing_read if len(ranking.filled) == count else "partial")
    assert all((ranked.ranked_by == "fallback") == (ranked.id in ranking.filled) for ranked in ranking.items)


@pytest.mark.parametrize("method", METHODS)
def test_after_an_error_that_the_next_would_meet_nothing_is_asked(method: str) -> None:
    """A dead server is not asked again: the order given comes back, with the error."""
    asked = request(8, 5)
    ranking = run(pairwise(method=method), asked, lambda prompt: UnreachableError("nobody there"))
    assert ranking.item_ids == [item.id for item in asked.candidates if isinstance(item, Item)]
    assert ranking.status == "error"
    assert len(ranking.trace) == {"allpairs": 56, "heapsort": 2, "bubblesort": 2}[method]


def test_a_prompt_that_the_server_finds_too_long_is_asked_smaller() -> None:
    """The ranking starts anew with the window that the server names, and says so."""
    refused = ContextLengthError("too long", window=2000)
    answers = iter([refused])
    ranking = run(pairwise(), request(3), lambda prompt: next(answers, None) or by_text(prompt))
    assert ranking.item_ids == ["0", "1", "2"]
    assert "2000" in ranking.notes[-1]


def test_what_does_not_fit_is_refused_before_anything_is_asked() -> None:
    """Two candidates are the least that a comparison takes."""
    with pytest.raises(BudgetError, match="window"):
        run(pairwise(), request(3), by_text, Budget(60, EstimateCounter()))


def test_too_many_prompts_are_refused_before_anything_is_asked() -> None:
    """By the statement of the cost and by the ranking itself, both naming the option; null allows any number."""
    strategy = pairwise(method="allpairs", max_calls=100)
    with pytest.raises(RequestError, match="max_calls"):
        strategy.calls(20)
    with pytest.raises(RequestError, match="max_calls"):
        run(strategy, request(20), by_text)
    assert pairwise(method="allpairs", max_calls=None).calls(20).most == 380


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"k": 0}, "strategy.k"),
        ({"max_calls": 0}, "strategy.max_calls"),
        ({"max_tokens": 0}, "strategy.max_tokens"),
        ({"temperature": -1.0}, "strategy.temperature"),
        ({"decide": "probability"}, "strategy.decide"),
        ({"method": "allpairs", "k": 5}, "strategy.k"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], named: str) -> None:
    """The field is named."""
    with pytest.raises(ConfigError, match=named):
        PairwiseOptions(**options)


def test_needs_and_templates() -> None:
    """Probabilities need a backend that tells them; the prompts carry the template's fingerprint and ask for one token then."""
    strategy = pairwise(read="logprobs", decide="probability", seed=7)
    assert strategy.needs == {"generate", "label_logprobs"}
    assert pairwise().needs == {"generate"}
    assert strategy.templates == {"pairwise/next": writer().fingerprint}
    ranking = run(strategy, request(2), by_probability)
    assert ranking.fingerprint == writer().fingerprint
    assert {(each.prompt.max_tokens, each.prompt.seed, each.prompt.label_logprobs) for each in ranking.trace} == {(1, 7, True)}


@pytest.mark.parametrize(("method", "pairs"), [("allpairs", 6), ("heapsort", None)])
def test_pairs_that_the_model_contradicts_are_told(method: str, pairs: int | None) -> None:
    """A model that always names the first one decides nothing, and the ranking says so; one that is sure says nothing."""
    ranking = run(pairwise(method=method), request(4, 3), lambda prompt: Completion("A"))
    (note,) = ranking.notes
    told, of, *_ = (int(word) for word in note.split() if word.isdigit())
    assert told == of == (pairs or of) > 0
    assert note == f"{told} of {of} pairs were contradicted by their other order and count as ties"
    assert run(pairwise(method=method), request(4, 3), by_text).notes == ()


@pytest.mark.parametrize(("method", "named"), [("heapsort", True), ("allpairs", False)])
def test_too_many_calls_are_mended_by_what_the_strategy_has(method: str, named: bool) -> None:
    """Fewer places make a sort shorter; all pairs stay all pairs, whatever `strategy.k` says."""
    with pytest.raises(RequestError) as error:
        pairwise(method=method, max_calls=1).calls(9)
    assert ("strategy.k" in str(error.value)) is named
