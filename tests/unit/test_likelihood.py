"""The likelihood strategy, driven by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from llmrank.budget import Budget, EstimateCounter
from llmrank.errors import ConfigError, ContextLengthError, UnreachableError
from llmrank.strategies.likelihood import Likelihood, LikelihoodOptions
from llmrank.types import Completion, ContinuationScore, Event, Item, Message, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter

BUDGET = Budget(4096, EstimateCounter())
ITEMS = (Item("1", "Alien"), Item("2", "Babe"), Item("3", "Clue"))
REQUEST = ResolvedRequest((Event(Item("h", "Aliens")),), ITEMS)


def likelihood(**options: Any) -> Likelihood:
    writer = PromptWriter(PromptOptions(template="likelihood/next-line", variables={"domain": "movies"}))
    return Likelihood(writer, LikelihoodOptions(**options))


def scored(*logprobs: float, tokens: tuple[int, ...] = (1, 1, 1)) -> Completion:
    return Completion(scores=tuple(map(ContinuationScore, logprobs, tokens)), model="m")


def finish(strategy: Likelihood, *answers: Completion | UnreachableError) -> Ranking:
    flow = strategy.flow(REQUEST, BUDGET)
    next(flow)
    with pytest.raises(StopIteration) as stop:
        flow.send(answers)
    ranking: Ranking = stop.value.value
    return ranking


def test_the_prompt_is_a_plain_list_and_each_title_its_next_line() -> None:
    """The history is the prefix, one title a line; each candidate's continuation is its line with the line break."""
    (prompt,) = next(likelihood().flow(REQUEST, BUDGET))
    assert prompt.prefix == "Movies I have watched recently, in order:\nAliens\n"
    assert prompt.continuations == ("Alien\n", "Babe\n", "Clue\n")
    assert prompt.item_ids == ("1", "2", "3")


def test_the_likelier_a_token_the_higher_the_rank() -> None:
    """By default the mean log-likelihood a token counts, so that long titles are not punished."""
    ranking = finish(likelihood(), scored(-6.0, -4.0, -9.0, tokens=(3, 1, 9)))
    assert ranking.item_ids == ["3", "1", "2"]
    assert [each.score for each in ranking.items] == [-1.0, -2.0, -4.0]
    assert (ranking.status, ranking.model) == ("ok", "m")


def test_without_normalisation_the_sum_counts() -> None:
    """`normalize: none` compares whole log-likelihoods."""
    assert finish(likelihood(normalize="none"), scored(-6.0, -4.0, -9.0, tokens=(3, 1, 9))).item_ids == ["2", "1", "3"]


def test_pmi_takes_off_what_is_likely_anyway() -> None:
    """With `pmi_weight` each title is scored without history too, in a prompt of its own that is the same for every user."""
    strategy = likelihood(pmi_weight=1.0)
    prompts = next(strategy.flow(REQUEST, BUDGET))
    assert [prompt.continuations for prompt in prompts[1:]] == [("Alien\n",), ("Babe\n",), ("Clue\n",)]
    assert {prompt.prefix for prompt in prompts[1:]} == {"Movies I have watched recently, in order:\n"}
    ranking = finish(strategy, scored(-1.0, -2.0, -3.0), scored(-0.5), scored(-5.0), scored(-3.0))
    assert ranking.item_ids == ["2", "3", "1"]
    assert [each.score for each in ranking.items] == [3.0, 0.0, -0.5]


def test_a_failed_correction_is_left_out_for_the_whole_list() -> None:
    """Scores with and without the correction cannot be compared: one failure leaves it out everywhere, and says so."""
    ranking = finish(likelihood(pmi_weight=1.0), scored(-1.0, -2.0, -3.0), scored(-9.0), UnreachableError("gone"), scored(-9.0))
    assert ranking.item_ids == ["1", "2", "3"]
    assert ranking.status == "repaired"
    assert "gone" in ranking.repairs[0]


def test_equal_scores_stay_in_the_order_given() -> None:
    """Two items of one title score alike and stay two items, in prefilter order."""
    assert finish(likelihood(), scored(-2.0, -1.0, -2.0)).item_ids == ["2", "1", "3"]


@pytest.mark.parametrize("prior", [scored(math.nan), scored(-math.inf), Completion(scores=())])
def test_a_correction_that_is_no_number_is_left_out_for_the_whole_list(prior: Completion) -> None:
    """A text whose unconditional likelihood is not known is not ranked last for it: nobody is corrected, and this is said."""
    ranking = finish(likelihood(pmi_weight=1.0), scored(-1.0, -2.0, -3.0), scored(-0.5), prior, scored(-9.0))
    assert ranking.item_ids == ["1", "2", "3"]
    assert [each.score for each in ranking.items] == [-1.0, -2.0, -3.0]
    assert (ranking.status, ranking.filled, ranking.error) == ("repaired", (), None)
    assert ranking.repairs == ("the unconditional likelihood is not taken off: the backend gave none for 1 of 3 candidates",)


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_not_ranked(broken: float) -> None:
    """A candidate without a finite score follows the others and is named."""
    ranking = finish(likelihood(), scored(-3.0, broken, -1.0))
    assert ranking.item_ids == ["3", "1", "2"]
    assert (ranking.status, ranking.filled) == ("partial", ("2",))


def test_an_error_gives_the_order_given() -> None:
    """Nothing is ranked when the backend fails."""
    ranking = finish(likelihood(), UnreachableError("gone"))
    assert (ranking.status, ranking.item_ids) == ("error", ["1", "2", "3"])


def test_bad_options_are_refused() -> None:
    """The weight is a share; the template is a plain text."""
    with pytest.raises(ConfigError, match="pmi_weight"):
        likelihood(pmi_weight=1.5)
    with pytest.raises(ConfigError, match="likelihood/next-line"):
        Likelihood(PromptWriter(PromptOptions(template="listwise/recency")))


class Characters:
    """A tokenizer that makes a token of each character."""

    name = "characters"
    remote = False

    def count(self, text: str) -> int:
        return len(text)

    def count_messages(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages)


@pytest.mark.parametrize("window", range(120, 140))
def test_the_longest_title_fits_behind_the_prefix(window: int) -> None:
    """A server adds a token in front of a text and must generate one behind it: in any window, both find room."""
    history = tuple(Event(Item(str(number), f"Film {number}")) for number in range(100))
    (prompt,) = next(likelihood().flow(ResolvedRequest(history, ITEMS), Budget(window, Characters())))
    assert 1 + len(prompt.prefix) + max(map(len, prompt.continuations)) + 1 <= window
    assert window - len(prompt.prefix) < 24, "no more of the history is dropped than must be"


@pytest.mark.parametrize(("named", "windows"), [(90, [200, 90]), (None, [200, 150, 112, 84, 63])])
def test_a_prefix_too_long_for_the_server_is_cut_and_asked_again(named: int | None, windows: list[int]) -> None:
    """In the window that the server names, or else in smaller ones; what had to go and why is on the Ranking."""
    history = tuple(Event(Item(str(number), f"Film {number:03d}")) for number in range(20))
    flow = likelihood().flow(ResolvedRequest(history, ITEMS), Budget(200, Characters()))
    step: Sequence[Prompt] = next(flow)
    for window in windows:
        assert window - 20 < len(step[0].prefix) <= window
        if window == windows[-1]:
            break
        step = flow.send([ContextLengthError("too long", window=named)])
    with pytest.raises(StopIteration) as stop:
        flow.send([scored(-3.0, -1.0, -2.0)])
    ranking: Ranking = stop.value.value
    assert (ranking.item_ids, ranking.status) == (["2", "3", "1"], "ok")
    assert ranking.cut.history == 20 - step[0].prefix.count("Film")
    assert f"window of 200 tokens too long; asked again for {windows[-1]}" in ranking.notes[-1]


def test_a_server_that_finds_everything_too_long_is_given_up_on() -> None:
    """After a few smaller attempts its error is the ranking's."""
    flow = likelihood().flow(REQUEST, BUDGET)
    next(flow)
    for _ in range(4):
        flow.send([ContextLengthError("too long")])
    with pytest.raises(StopIteration) as stop:
        flow.send([ContextLengthError("too long")])
    assert (stop.value.value.status, stop.value.value.item_ids) == ("error", ["1", "2", "3"])
