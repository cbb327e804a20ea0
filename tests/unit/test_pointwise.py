"""The pointwise strategy: what is asked about each candidate, and how a verdict becomes a score."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import (
    BackendError,
    BadRequestError,
    ConfigError,
    ContextLengthError,
    RequestError,
    TemplateError,
    UnreachableError,
)
from llmrank.sections import make
from llmrank.strategies.calls import Calls
from llmrank.strategies.listwise import SingleToken
from llmrank.strategies.pointwise import Pointwise, PointwiseOptions, read_word
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Completion, Event, Item, Message, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter

WIDE = Budget(1_000_000, EstimateCounter())
ITEMS = (Item("1", "Alien"), Item("2", "Babe"), Item("3", "Clue"))
HISTORY = (Event(Item("h", "Aliens")),)
Answer = Callable[[Prompt], Completion | BackendError]


def pointwise(template: str | None = None, **options: Any) -> Pointwise:
    chosen = PointwiseOptions(**options)
    name = template or f"pointwise/{chosen.method}"
    return Pointwise(PromptWriter(PromptOptions(name, answer="label", variables={"domain": "movies"})), chosen)


def probabilities(*shares: float) -> Completion:
    """An answer with these probabilities of Yes and No, or of the grades from 0 on."""
    words = ("Yes", "No") if len(shares) == 2 else tuple(map(str, range(len(shares))))
    return Completion(words[0], label_logprobs={word: math.log(share) for word, share in zip(words, shares, strict=True)})


def rank(strategy: Pointwise, answers: Sequence[Completion | BackendError], items: Sequence[Item] = ITEMS) -> Ranking:
    """The Ranking for these answers, one an item."""
    by_item = {item.id: answer for item, answer in zip(items, answers, strict=True)}
    ranking = advance(strategy.flow(ResolvedRequest(HISTORY, items), WIDE), lambda prompt: by_item[prompt.item_ids[0]])
    assert isinstance(ranking, Ranking)
    return ranking


def scores(ranking: Ranking) -> list[float | None]:
    return [each.score for each in ranking.items]


def test_each_candidate_is_asked_about_alone_and_all_at_once() -> None:
    """One step; a prompt shows one candidate without a label, and the words of the verdict stand where labels would."""
    prompts = next(pointwise().flow(ResolvedRequest(HISTORY, ITEMS), WIDE))
    assert [prompt.item_ids for prompt in prompts] == [("1",), ("2",), ("3",)]
    for prompt, item in zip(prompts, ITEMS, strict=True):
        text = prompt.messages[-1].content
        assert f"- {item.title}\n" in text
        assert "[A]" not in text
        assert [other.title for other in ITEMS if f"- {other.title}\n" in text] == [item.title]
        assert (prompt.labels, prompt.answer, prompt.label_logprobs, prompt.max_tokens) == (("Yes", "No"), "label", True, 1)


def test_the_prompts_of_one_person_differ_only_in_what_they_end_with() -> None:
    """All that is shared (instruction, history, wish, question) stands first, so that a prefix cache serves it."""
    request = ResolvedRequest(HISTORY, ITEMS, query="something tense")
    texts = [prompt.messages[-1].content for prompt in next(pointwise(method="graded").flow(request, WIDE))]
    shared = texts[0][: next(place for place in range(len(texts[0])) if len({text[place] for text in texts}) > 1)]
    assert "Aliens" in shared
    assert "something tense" in shared
    assert shared.endswith("<candidates>\n- ")


def test_yes_no_is_the_share_of_the_positive_word() -> None:
    """p(yes) / (p(yes) + p(no)): what other words take of the probability makes no difference."""
    ranking = rank(pointwise(), [probabilities(0.1, 0.3), probabilities(0.5, 0.5), probabilities(0.02, 0.005)])
    assert ranking.item_ids == ["3", "2", "1"]
    assert scores(ranking) == pytest.approx([0.8, 0.5, 0.25])
    assert (ranking.status, ranking.strategy) == ("ok", "pointwise")


def test_graded_is_the_expected_grade() -> None:
    """The sum of p(g) * g over the grades, with p made to sum to 1."""
    answers = [
        probabilities(0.1, 0.1, 0.1, 0.1, 0.1),  # 2
        probabilities(0.2, 0.1, 0.1, 0.1, 0.3),  # (0.1 + 0.2 + 0.3 + 1.2) / 0.8
        probabilities(1.0, 1e-9, 1e-9, 1e-9, 1e-9),
    ]
    ranking = rank(pointwise(method="graded"), answers)
    assert ranking.item_ids == ["2", "1", "3"]
    assert scores(ranking) == pytest.approx([2.25, 2.0, 0.0], abs=1e-6)
    assert ranking.status == "ok"


def test_grades_count_by_their_place() -> None:
    """Any words may be grades, from the lowest on: they count 0, 1, 2, and the prompt names the first and the last."""
    strategy = pointwise(method="graded", choices=("bad", "fair", "good"))
    prompt, *_ = next(strategy.flow(ResolvedRequest(HISTORY, ITEMS), WIDE))
    assert "from bad (not at all) to good (most)" in prompt.messages[-1].content
    answers = [Completion(label_logprobs=dict.fromkeys(words, 0.0)) for words in (["bad"], ["good"], ["fair"])]
    assert scores(rank(strategy, answers)) == [2.0, 1.0, 0.0]


def test_two_grades_are_no_yes_and_no() -> None:
    """The higher of two grades stands second and counts 1, where Yes stands first."""
    strategy = pointwise(method="graded", choices=("bad", "good"))
    answers = [Completion(label_logprobs={"bad": math.log(share), "good": math.log(1 - share)}) for share in (0.9, 0.2, 0.5)]
    ranking = rank(strategy, answers)
    assert ranking.item_ids == ["2", "3", "1"]
    assert scores(ranking) == pytest.approx([0.8, 0.5, 0.1])


def test_a_word_without_a_reported_probability_counts_as_improbable() -> None:
    """Servers report the likeliest tokens alone. A repair names the word, and the status tells that something was missing."""
    answers = [
        Completion(label_logprobs={"0": math.log(0.5), "4": math.log(0.5)}),
        probabilities(0.1, 0.1, 0.1, 0.5, 0.2),
        probabilities(0.6, 0.1, 0.1, 0.1, 0.1),
    ]
    ranking = rank(pointwise(method="graded"), answers)
    assert ranking.item_ids == ["2", "1", "3"]
    assert ranking.items[1].score == pytest.approx(2.0)
    assert ranking.status == "repaired"
    assert [repair.split()[-5] for repair in ranking.repairs] == ["1,", "2,", "3,"]


def test_a_word_of_several_tokens_is_told() -> None:
    """No answer has its probability: the backend's note and ours are on the Ranking, and the status is not ``ok``."""
    note = "no log-probability for labels of several tokens: Absolutely"
    answers = [Completion("No", label_logprobs={"No": -0.1}, notes=(note,))] * 3
    ranking = rank(pointwise(choices=("Absolutely", "No")), answers)
    assert (ranking.status, ranking.item_ids) == ("repaired", ["1", "2", "3"])
    assert ranking.notes == (note,)
    assert ranking.repairs == ("where the server reports no log-probability for Absolutely, it counts as 0",)


def test_without_probabilities_the_word_that_was_written_counts() -> None:
    """Yes is 1 and No is 0; a grade is itself. That is a repair, and the Ranking says so."""
    ranking = rank(pointwise(), [Completion("No"), Completion("**yes**, certainly"), Completion("No.", label_logprobs={})])
    assert (ranking.item_ids, scores(ranking), ranking.status) == (["2", "1", "3"], [1.0, 0.0, 0.0], "repaired")
    assert ranking.repairs == ("no log-probabilities came; the word that was written counts",)
    assert scores(rank(pointwise(method="graded"), list(map(Completion, ("1", "4", "3."))))) == [4.0, 3.0, 1.0]


def test_an_answer_that_cannot_be_read_is_no_verdict() -> None:
    """Its candidate follows those that were judged, even with 0; the others follow in the order given."""
    ranking = rank(pointwise(), [Completion("Perhaps", "length"), Completion(None), Completion("No")])
    assert (ranking.item_ids, ranking.filled, ranking.status) == (["3", "1", "2"], ("1", "2"), "partial")
    assert scores(ranking) == [0.0, None, None]
    assert [each.ranked_by for each in ranking.items] == ["model", "fallback", "fallback"]
    assert any("cut off at 1 tokens" in note for note in ranking.notes)
    assert "the answer begins with none of the words Yes, No" in ranking.repairs
    nothing = rank(pointwise(), [Completion("Hm")] * 3)
    assert (nothing.status, nothing.item_ids) == ("fallback", ["1", "2", "3"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Yes", 0), (" yes.", 0), ("**NO**", 1), ("No, but yes", 1), ('"Yes"', 0), ("(no)", 1), ("Yes\nNo", 0),
        ("", None), (None, None), ("   ", None), ("I say yes", None), ("Yes/No", None), ("Yesterday", None), ("- Yes", None),
        ("<think>Yes? No.</think>\nYes", 0), ("It may be, no.\n</think>\n\nNo", 1), ("<think>Yes", None),
    ],
)  # fmt: skip
def test_only_the_first_word_of_an_answer_is_read(text: str | None, place: int | None) -> None:
    """Case and the punctuation around it make no difference; a word in a sentence, or in reasoning, is no verdict."""
    assert read_word(text, ("Yes", "No")) == place


@pytest.mark.parametrize("text", ["-1", "1/4", "50%", "1.5", "10", "+1"])
def test_what_only_looks_like_a_grade_is_none(text: str) -> None:
    """Signs, fractions and shares are not read as the digit in them."""
    assert read_word(text, ("0", "1", "2", "3", "4", "5")) is None


def test_one_question_without_an_answer_loses_nothing() -> None:
    """Its candidate follows the others, unjudged; if none is answered, the order given stands with the error."""
    refused = BadRequestError("no")
    ranking = rank(pointwise(), [refused, probabilities(0.1, 0.9), probabilities(0.2, 0.8)])
    assert (ranking.item_ids, ranking.status, ranking.filled, ranking.error) == (["3", "2", "1"], "partial", ("1",), refused)
    gone = rank(pointwise(), [UnreachableError("gone")] * 3)
    assert (gone.item_ids, gone.status) == (["1", "2", "3"], "error")


def test_equal_scores_stay_in_the_order_given() -> None:
    """Two items that the model likes alike stay as the prefilter had them."""
    answers = [probabilities(0.2, 0.8), probabilities(0.6, 0.4), probabilities(0.2, 0.8)]
    assert rank(pointwise(), answers).item_ids == ["2", "1", "3"]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 100), seed=st.integers(0, 2**32), method=st.sampled_from(["yes-no", "graded"]), noise=st.booleans())
def test_an_oracle_gives_the_true_order_and_no_candidate_is_ever_lost(count: int, seed: int, method: str, noise: bool) -> None:
    """With a model that knows, the order is perfect; with one that errs now and then, all are there, each once, and it is said.

    The prompts asked are as many as stated beforehand: one a candidate.
    """
    rng = random.Random(seed)  # noqa: S311  # no secret is made of it
    items = [Item(str(number), f"Title {number}") for number in range(count)]
    worth = rng.sample(range(count), count)
    strategy = pointwise(method=method)
    words = strategy.flow(ResolvedRequest((), items[:1]), WIDE)
    labels = next(words)[0].labels
    words.close()
    broken: set[str] = set()
    mistakes: list[Completion | BackendError] = [
        BadRequestError("no"), UnreachableError("gone"), Completion("?"), Completion(None)
    ]  # fmt: skip

    def answer(prompt: Prompt) -> Completion | BackendError:
        item_id = prompt.item_ids[0]
        share = (worth[int(item_id)] + 1) / (count + 1)
        if noise and rng.random() < 0.2:
            broken.add(item_id)
            return rng.choice(mistakes)
        high, low = (labels[0], labels[1]) if method == "yes-no" else (labels[-1], labels[0])
        rest: dict[str, float] = dict.fromkeys(labels, -1e9)
        return Completion(high, label_logprobs=rest | {high: math.log(share), low: math.log1p(-share)})

    ranking = advance(strategy.flow(ResolvedRequest(HISTORY, items), WIDE), answer)
    assert isinstance(ranking, Ranking)
    assert strategy.calls(count) == Calls(len(ranking.trace), len(ranking.trace)) == Calls(count, count)
    true = sorted((item.id for item in items if item.id not in broken), key=lambda item_id: -worth[int(item_id)])
    assert ranking.item_ids == true + [item.id for item in items if item.id in broken]
    assert set(ranking.filled) == broken
    assert ranking.status in (("ok",) if not broken else ("partial",) if true else ("error", "fallback"))


def test_more_prompts_than_allowed_are_refused_before_any_is_asked() -> None:
    """`max_calls` bounds what a ranking may cost."""
    strategy = pointwise(max_calls=2)
    assert strategy.calls(2) == Calls(2, 2)
    with pytest.raises(RequestError, match=r"max_calls.*3 candidates may take 3 prompts, and 2 are allowed"):
        strategy.flow(ResolvedRequest(HISTORY, ITEMS), WIDE)


class Characters:
    """A tokenizer that makes a token of each character."""

    name = "characters"
    remote = False

    def count(self, text: str) -> int:
        return len(text)

    def count_messages(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content) for message in messages)


def test_all_candidates_are_judged_after_the_same_history() -> None:
    """Where a long title leaves less room, the history of all is cut as much, so that they can be compared."""
    history = tuple(Event(Item(f"h{number}", f"Film {number:03}")) for number in range(10))
    items = (Item("1", "Short"), Item("2", "Long " * 12), Item("3", "Short too"))
    window = sum(len(message.content) for message in next(pointwise().flow(ResolvedRequest(history, items), WIDE))[0].messages)
    asked: list[Prompt] = []

    def answer(prompt: Prompt) -> Completion:
        asked.append(prompt)
        return probabilities(0.5, 0.5)

    ranking = advance(pointwise().flow(ResolvedRequest(history, items), Budget(window + 1, Characters())), answer)
    assert isinstance(ranking, Ranking)
    shown = [prompt.messages[-1].content.count("Film ") for prompt in asked]
    assert len(set(shown)) == 1
    assert 0 < shown[0] < 10
    assert ranking.cut.history == 10 - shown[0]
    assert all("Film 009" in prompt.messages[-1].content for prompt in asked)


def test_a_prompt_that_the_server_finds_too_long_is_asked_again_shorter() -> None:
    """The ranking starts anew with a smaller window; if that never helps, the order given stands."""
    history = tuple(Event(Item(f"h{number}", f"Film {number}")) for number in range(20))
    request = ResolvedRequest(history, ITEMS)
    whole = next(pointwise().flow(request, WIDE))[0]
    limit = sum(len(message.content) for message in whole.messages) - 50

    def answer(prompt: Prompt) -> Completion | BackendError:
        size = sum(len(message.content) for message in prompt.messages)
        return ContextLengthError("too long", window=limit) if size > limit else probabilities(0.5, 0.5)

    ranking = advance(pointwise().flow(request, Budget(5000, Characters())), answer)
    assert isinstance(ranking, Ranking)
    assert ranking.status == "ok"
    assert ranking.cut.history > 0
    never = advance(pointwise().flow(request, WIDE), lambda prompt: ContextLengthError("too long"))
    assert isinstance(never, Ranking)
    assert (never.status, never.item_ids) == ("error", ["1", "2", "3"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choices": ("Yes",)}, "yes-no takes two words"),
        ({"choices": ("Yes", "No", "Maybe")}, "yes-no takes two words"),
        ({"choices": ()}, "yes-no takes two words"),
        ({"method": "graded", "choices": ("1",)}, "graded takes two grades or more"),
        ({"choices": ("Yes", "yes")}, "differ at most in upper and lower case"),
        ({"method": "graded", "choices": ("1", "2", "1")}, "differ at most"),
        ({"choices": ("Very much", "No")}, "is not one word"),
        ({"choices": ("Yes.", "No")}, "is not one word"),
        ({"choices": ("", "No")}, "is not one word"),
        ({"choices": ("**", "No")}, "is not one word"),
        ({"method": "stars"}, "no such method"),
        ({"max_tokens": 0}, "strategy.max_tokens"),
        ({"max_calls": 0}, "strategy.max_calls"),
        ({"temperature": -1.0}, "strategy.temperature"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    """One ConfigError that names the option."""
    with pytest.raises(ConfigError, match=message):
        PointwiseOptions(**options)


def test_words_that_yaml_reads_as_something_else_are_refused() -> None:
    """An unquoted yes is a truth value there, an unquoted 1 a number: neither is a word."""
    for choices in ([True, False], [0, 1, 2]):
        with pytest.raises(ConfigError, match=r"strategy\.choices\.0"):
            make(PointwiseOptions, {"method": "graded", "choices": choices}, "strategy")
    assert make(PointwiseOptions, {"choices": ["yes", "no"]}, "strategy").words == ("yes", "no")


@pytest.mark.parametrize(
    ("template", "answer", "message"),
    [
        ("likelihood/next-line", "label", "is a plain text"),
        ("listwise/nir", "label", "has several steps"),
        ("listwise/recency", "label", "does not show the words of the verdict"),
        ("pointwise/yes-no", "order", "asks for one label"),
    ],
)
def test_a_template_that_asks_something_else_is_refused(template: str, answer: Any, message: str) -> None:
    """A verdict needs a chat of one step that shows the words to choose from."""
    with pytest.raises(ConfigError, match=message):
        Pointwise(PromptWriter(PromptOptions(template, answer=answer)))


@pytest.mark.parametrize("method", ["yes-no", "graded"])
def test_its_templates_are_for_no_other_strategy(method: str) -> None:
    """Where nobody says which words may be answered, they refuse to be a prompt, and name the strategy that does."""
    strategy = SingleToken(PromptWriter(PromptOptions(f"pointwise/{method}", answer="label")))
    with pytest.raises(TemplateError, match="use this template with the strategy pointwise"):
        next(strategy.flow(ResolvedRequest(HISTORY, ITEMS), WIDE))


@pytest.mark.parametrize("method", ["yes-no", "graded"])
def test_it_is_built_from_a_configuration(method: str) -> None:
    """Each method has a template of its own by default."""
    strategy = build_strategy({"kind": "pointwise", "method": method})
    assert list(strategy.templates) == [f"pointwise/{method}"]
    assert strategy.needs == {"generate", "label_logprobs"}
    assert strategy.name == "pointwise"


def test_the_words_are_part_of_the_answer_caches_key() -> None:
    """The same text with other words to choose from is another question."""
    from llmrank.codec import cache_key

    prompt, *_ = next(pointwise().flow(ResolvedRequest(HISTORY, ITEMS), WIDE))
    assert cache_key(prompt, {}) != cache_key(replace(prompt, labels=("yes", "no")), {})
    assert cache_key(prompt, {}) == cache_key(replace(prompt, item_ids=("2",)), {})


@pytest.mark.parametrize(("method", "template"), [("graded", "pointwise/yes-no"), ("yes-no", "pointwise/graded")])
def test_the_template_of_the_other_method_is_refused(method: str, template: str) -> None:
    """With its words taken the other way round, the order would be turned over and nothing would say so."""
    choices = ("No", "Yes") if method == "graded" else None
    with pytest.raises(ConfigError, match=f"use pointwise/{method}") as error:
        pointwise(template, method=method, choices=choices)
    assert error.value.field == "prompt.template"


def test_a_written_word_is_not_compared_with_probabilities() -> None:
    """It would count as certain and stand above all that were measured; where others were, it is no readable answer."""
    ranking = rank(pointwise(), [probabilities(0.4, 0.6), Completion("Yes"), probabilities(0.9, 0.1)])
    assert ranking.item_ids == ["3", "1", "2"]
    assert (ranking.status, ranking.filled) == ("partial", ("2",))
    assert ranking.items[2].score is None
    assert ranking.repairs == ("no log-probabilities came; a written word cannot be compared with what others have",)
