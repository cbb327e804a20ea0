"""One question for the best of a few candidates: what is asked, and what an answer counts for."""

from __future__ import annotations

import math

import pytest

from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import ConfigError
from llmrank.strategies.choice import Chooser, Read, known_logprobs
from llmrank.strategies.lists import TextLists
from llmrank.strategies.setwise import Setwise, SetwiseOptions
from llmrank.types import Completion, Event, Item, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter

REQUEST = ResolvedRequest((Event(Item("h", "Heat")),), tuple(Item(f"c{number}", f"Film {number}") for number in range(3)))


def writer(**options: str) -> PromptWriter:
    return PromptWriter(PromptOptions(**{"template": "setwise/next", "answer": "label", **options}))  # type: ignore[arg-type]  # texts


def rank(answer: Completion, **options: object) -> Ranking:
    """Three candidates in one question with this answer, asked again as long as the sort needs it."""
    strategy = Setwise(writer(), SetwiseOptions(**options))  # type: ignore[arg-type]  # as a configuration has them
    ranking = advance(strategy.flow(REQUEST, Budget(100_000, EstimateCounter())), lambda prompt: answer)
    assert isinstance(ranking, Ranking)
    return ranking


@pytest.mark.parametrize("read", ["text", "logprobs"])
def test_temperature_and_seed_reach_the_prompt(read: Read) -> None:
    """As the options say, in every question."""
    ranking = rank(Completion("A"), read=read, temperature=0.5, seed=7)
    assert {(each.prompt.temperature, each.prompt.seed) for each in ranking.trace} == {(0.5, 7)}


@pytest.mark.parametrize("value", [-math.inf, math.nan])
def test_a_logprob_that_is_no_number_is_none(value: float) -> None:
    """A label that a server gives no probability at all is one that it did not report: it is not ranked, and this is said."""
    answer = Completion("A", label_logprobs={"A": -1.0, "B": value, "C": -2.0})
    assert known_logprobs(answer, ("A", "B", "C")) == {0: -1.0, 2: -2.0}
    ranking = rank(answer, read="logprobs")
    assert ranking.item_ids == ["c0", "c2", "c1"]
    assert ranking.repairs == ("no log-probability came for 1 of 3 labels",)


def test_an_answer_that_was_cut_off_says_how_to_allow_more() -> None:
    """If no label came before the tokens were used up, the note names the option; an answer that was read needs none."""
    cut = rank(Completion("Well, let me see", "length"), max_tokens=4)
    assert any("cut off at 4 tokens" in note and "strategy.max_tokens" in note for note in cut.notes)
    assert not any("cut off" in note for note in rank(Completion("B", "length"), max_tokens=4).notes)


def test_numbers_are_no_labels_where_probabilities_are_read() -> None:
    """From 10 on they are several tokens, of which none has the label's probability; a text may have them."""
    with pytest.raises(ConfigError, match=r"^prompt\.labels: .*letters"):
        Chooser(writer(labels="numbers"), "logprobs")
    Chooser(writer(labels="numbers"), "text")


def test_an_answer_without_a_label_is_not_said_to_be_taken() -> None:
    """Where neither probabilities nor a label came, nothing was taken; where a label was written, the repairs say so."""
    taken = "no log-probabilities came; the label that was written is taken"
    assert taken not in rank(Completion("<think>A"), read="logprobs").repairs
    assert taken in rank(Completion("B"), read="logprobs").repairs


def test_a_template_that_goes_on_after_an_answer_ranks_nothing() -> None:
    """``listwise/repair`` asks about an answer that is there already: whoever ranks by it is told when the ranker is built."""
    with pytest.raises(ConfigError, match=r"strategy\.repair uses listwise/repair by itself") as error:
        TextLists(PromptWriter(PromptOptions("listwise/repair")))
    assert error.value.field == "prompt.template"
    with pytest.raises(ConfigError, match="goes on after an earlier answer"):
        Chooser(writer(template="listwise/repair"), "text")
    TextLists(PromptWriter(PromptOptions("listwise/nir")))  # its steps ask for the answers that later ones read
