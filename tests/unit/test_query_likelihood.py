"""Query likelihood: what is scored after each candidate, and how a score becomes a place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.budget import Budget
from llmrank.driver import advance
from llmrank.errors import (
    BackendError,
    BadRequestError,
    ConfigError,
    ContextLengthError,
    RequestError,
    UnreachableError,
)
from llmrank.strategies.calls import Calls
from llmrank.strategies.query_likelihood import QueryLikelihood, QueryLikelihoodOptions
from llmrank.types import Completion, ContinuationScore, Event, Item, Message, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.oracle import WIDE, Oracle

ITEMS = (Item("1", "Alien"), Item("2", "Babe"), Item("3", "Clue"))
HISTORY = (Event(Item("h", "Aliens")),)
QUERY = "something  tense\n"
REQUEST = ResolvedRequest(HISTORY, ITEMS, QUERY)


def writer(template: str = "query-likelihood/item-first", **options: Any) -> PromptWriter:
    return PromptWriter(PromptOptions(template, variables={"domain": "movies"}, **options))


def query_likelihood(**options: Any) -> QueryLikelihood:
    return QueryLikelihood(writer(), QueryLikelihoodOptions(**options))


def scored(logprob: float, tokens: int = 2) -> Completion:
    return Completion(scores=(ContinuationScore(logprob, tokens),), model="m", notes=("a note",))


def rank(answers: Sequence[Completion | BackendError], **options: Any) -> Ranking:
    """The Ranking for these answers, one an item."""
    by_item = {item.id: answer for item, answer in zip(ITEMS, answers, strict=True)}
    ranking = advance(query_likelihood(**options).flow(REQUEST, WIDE), lambda prompt: by_item[prompt.item_ids[0]])
    assert isinstance(ranking, Ranking)
    return ranking


def test_the_query_continues_a_text_about_one_candidate() -> None:
    """One step, one prompt a candidate: the history, the candidate, and the clean query as the only continuation."""
    prompts = next(query_likelihood().flow(REQUEST, WIDE))
    assert [prompt.item_ids for prompt in prompts] == [("1",), ("2",), ("3",)]
    assert {prompt.continuations for prompt in prompts} == {("something tense",)}
    for prompt, item in zip(prompts, ITEMS, strict=True):
        assert prompt.prefix == (
            "Movies I have watched recently, in order:\nAliens\n\n"
            f"Movie that I would like to watch next:\n{item.title}\nI chose it because I am looking for:\n"
        )
    (alone, *_) = next(query_likelihood().flow(ResolvedRequest((), ITEMS, QUERY), WIDE))
    assert alone.prefix.startswith("Movie that I would like")


def test_the_likelier_the_query_the_higher_the_rank() -> None:
    """The score is the mean log-likelihood of a token; a model's name and notes come through."""
    ranking = rank([scored(-6.0), scored(-2.0), scored(-4.0)])
    assert ranking.item_ids == ["2", "3", "1"]
    assert [each.score for each in ranking.items] == [-1.0, -2.0, -3.0]
    assert (ranking.status, ranking.model, ranking.notes) == ("ok", "m", ("a note",))
    whole = rank([scored(-6.0), scored(-2.0), scored(-4.0)], normalize="none")
    assert [each.score for each in whole.items] == [-2.0, -4.0, -6.0]


@given(st.permutations([f"c{number}" for number in range(12)]), st.integers(1, 12))
def test_a_model_that_knows_the_order_gives_it(truth: list[str], count: int) -> None:
    """Any true order comes out whole, for as many calls as stated."""
    truth = truth[:count]
    request = ResolvedRequest(HISTORY, tuple(Item(item_id, item_id) for item_id in sorted(truth)), QUERY)
    strategy, oracle = query_likelihood(), Oracle(truth)
    ranking = advance(strategy.flow(request, WIDE), oracle)
    assert isinstance(ranking, Ranking)
    assert (ranking.item_ids, ranking.status) == (truth, "ok")
    assert strategy.calls(count) == Calls(len(oracle.prompts), len(oracle.prompts)) == Calls(count, count)


def test_equal_scores_stay_in_the_order_given() -> None:
    """What the query fits alike is not reordered."""
    assert rank([scored(-2.0), scored(-1.0), scored(-2.0)]).item_ids == ["2", "1", "3"]


@pytest.mark.parametrize("query", [None, "", " \n\u200b"])
def test_a_request_without_a_query_is_refused(query: str | None) -> None:
    """There is nothing whose likelihood could be asked for; the remedy is the kind that ranks by the history."""
    with pytest.raises(RequestError, match=r"^query: .* strategy\.kind likelihood$"):
        query_likelihood().flow(ResolvedRequest(HISTORY, ITEMS, query), WIDE)


@pytest.mark.parametrize("broken", [scored(math.nan), scored(-math.inf), Completion()])
def test_a_score_that_is_no_number_is_not_ranked(broken: Completion) -> None:
    """Such a candidate follows the others and is named; if there is no score at all, the order given stands."""
    ranking = rank([scored(-6.0), broken, scored(-4.0)])
    assert ranking.item_ids == ["3", "1", "2"]
    assert (ranking.status, ranking.filled) == ("partial", ("2",))
    assert ranking.items[-1].score is None
    assert (rank([broken] * 3).status, rank([broken] * 3).item_ids) == ("fallback", ["1", "2", "3"])


def test_one_failed_prompt_loses_nothing() -> None:
    """The others are ranked, the one follows them, and the error is on the Ranking; if all fail, the status is error."""
    ranking = rank([BadRequestError("400: no"), scored(-6.0), scored(-4.0)])
    assert (ranking.item_ids, ranking.status, ranking.filled) == (["3", "2", "1"], "partial", ("1",))
    assert isinstance(ranking.error, BadRequestError)
    nobody = rank([UnreachableError("gone")] * 3)
    assert (nobody.status, nobody.item_ids) == ("error", ["1", "2", "3"])


class Characters:
    """A tokenizer that makes a token of each character."""

    name = "characters"
    remote = False

    def count(self, text: str) -> int:
        return len(text)

    def count_messages(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages)


@pytest.mark.parametrize("window", [210, 240])
def test_the_query_fits_behind_every_prefix_and_the_history_is_the_same(window: int) -> None:
    """The longest candidate decides how much of the history all prompts show, so that their scores can be compared."""
    history = tuple(Event(Item(f"h{number}", f"Film {number:03d}")) for number in range(30))
    items = (Item("1", "Alien"), Item("2", "A very long title of a film indeed"))
    prompts = next(query_likelihood().flow(ResolvedRequest(history, items, QUERY), Budget(window, Characters())))
    shown = [prompt.prefix.count("Film ") for prompt in prompts]
    assert 0 < shown[0] == shown[1] < 10
    assert all(1 + len(prompt.prefix + prompt.continuations[0]) + 1 <= window for prompt in prompts)


def test_what_the_server_finds_too_long_is_asked_again_shorter() -> None:
    """In the window that the server names, and the Ranking says so."""
    history = tuple(Event(Item(f"h{number}", f"Film {number:03d}")) for number in range(20))

    def answer(prompt: Prompt) -> Completion | BackendError:
        return ContextLengthError("too long", window=230) if len(prompt.prefix) > 230 else scored(-1.0)

    request = ResolvedRequest(history, ITEMS, QUERY)
    ranking = advance(query_likelihood().flow(request, Budget(4096, Characters())), answer)
    assert isinstance(ranking, Ranking)
    assert ranking.status == "ok"
    assert any("asked again for 230" in note for note in ranking.notes)
    assert ranking.cut.history > 0


@pytest.mark.parametrize("template", ["listwise/sequential", "likelihood/query", "likelihood/next-line"])
def test_templates_that_a_query_cannot_continue_are_refused(template: str) -> None:
    """A chat, a text that tells the query already, and one that shows no candidate."""
    with pytest.raises(ConfigError, match="query-likelihood/item-first"):
        QueryLikelihood(writer(template))
