"""The listwise strategy, driven by hand: prompts come out, completions go in, no backend is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.budget import Budget, EstimateCounter
from llmrank.errors import (
    BackendError,
    BudgetError,
    ConfigError,
    ContentFilterError,
    ContextLengthError,
    RequestError,
    UnreachableError,
)
from llmrank.strategies.listwise import Listwise, ListwiseOptions
from llmrank.types import AnswerFormat, Completion, Event, Item, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import shown

WIDE = Budget(100_000, EstimateCounter())


def items(count: int, prefix: str = "c") -> tuple[Item, ...]:
    return tuple(Item(f"{prefix}{number}", f"Film number {number:03d}") for number in range(count))


def request(count: int, history: int = 3) -> ResolvedRequest:
    return ResolvedRequest(tuple(Event(item) for item in items(history, "h")), items(count))


def listwise(template: str = "listwise/sequential", **options: Any) -> Listwise:
    return Listwise(writer(template), ListwiseOptions(**options), repairer=writer("listwise/repair"))


@cache
def writer(template: str) -> PromptWriter:
    """It keeps nothing of a request but item texts, so tests may share it."""
    return PromptWriter(PromptOptions(template=template))


def run(
    strategy: Listwise,
    asked: ResolvedRequest,
    answer: Callable[[Prompt], str | Completion | BackendError | None],
    budget: Budget = WIDE,
) -> tuple[Ranking, list[Prompt]]:
    """Drives a flow to its end and returns the Ranking and every prompt."""
    prompts: list[Prompt] = []
    flow = strategy.flow(asked, budget)
    try:
        step: Sequence[Prompt] = next(flow)
        while True:
            prompts += step
            answers = [answer(prompt) for prompt in step]
            step = flow.send([Completion(each, "stop") if isinstance(each, str | None) else each for each in answers])
    except StopIteration as stop:
        return stop.value, prompts


def reverse(prompt: Prompt) -> str:
    """Ranks by title, the highest number first."""
    return " > ".join(f"[{label}]" for label, _ in sorted(shown(prompt).items(), key=lambda pair: pair[1], reverse=True))


@pytest.mark.parametrize("template", ["listwise/sequential", "listwise/recency", "listwise/in-context", "listwise/nir"])
def test_the_answers_order_is_the_rankings(template: str) -> None:
    """A whole answer gives its very order with status ok, for each template; the steps before are asked first."""
    ranking, prompts = run(
        listwise(template), request(20), lambda prompt: reverse(prompt) if prompt.labels else "I like films."
    )
    assert ranking.item_ids == [f"c{number}" for number in reversed(range(20))]
    assert (ranking.status, ranking.filled, ranking.repairs) == ("ok", (), ())
    assert [each.rank for each in ranking.items] == list(range(1, 21))
    assert ranking.fingerprint == prompts[-1].fingerprint
    assert len(prompts) == (3 if template == "listwise/nir" else 1)
    assert prompts[-1].item_ids == tuple(f"c{number}" for number in range(20))


def test_the_steps_answers_are_shown_to_later_steps() -> None:
    """The three-step template shows what the model said of the preferences when it asks for the ranking."""
    said = iter(["They love submarines.", "Film number 001"])
    _, prompts = run(listwise("listwise/nir"), request(5), lambda prompt: reverse(prompt) if prompt.labels else next(said))
    last = "\n".join(message.content for message in prompts[-1].messages)
    assert "They love submarines." in last
    assert "They love submarines." in "\n".join(message.content for message in prompts[1].messages)
    assert [message.role for message in prompts[-1].messages][-1] == "user"


def test_ids_never_reach_the_prompt() -> None:
    """The model sees labels and texts; ids and the user's id run beside the prompt."""
    asked = ResolvedRequest(
        (Event(Item("secret-h", "Seen")),), (Item("secret-1", "One"), Item("secret-2", "Two")), user_id="secret-u"
    )
    _, prompts = run(listwise(), asked, reverse)
    assert "secret" not in "".join(message.content for message in prompts[0].messages)


def test_what_the_model_leaves_out_follows_in_the_order_given() -> None:
    """A partial answer ranks first what it names; the others follow in prefilter order and are named."""
    ranking, _ = run(listwise(), request(5), lambda prompt: "[D] > [B]")
    assert ranking.item_ids == ["c3", "c1", "c0", "c2", "c4"]
    assert ranking.status == "partial"
    assert ranking.filled == ("c0", "c2", "c4")
    assert [each.ranked_by for each in ranking.items] == ["model", "model", "fallback", "fallback", "fallback"]


@pytest.mark.parametrize("answer", ["I'm sorry, but I can't help with that.", "", None])
def test_an_unreadable_answer_gives_the_order_given(answer: str | None) -> None:
    """A refusal, an empty answer and none at all: status fallback, every candidate named as not ranked."""
    ranking, _ = run(listwise(), request(4), lambda prompt: answer)
    assert ranking.item_ids == ["c0", "c1", "c2", "c3"]
    assert ranking.status == "fallback"
    assert len(ranking.filled) == 4


def test_an_error_is_no_answer() -> None:
    """When the backend fails, the order given comes back with status error and the error itself."""
    ranking, _ = run(listwise(), request(3), lambda prompt: UnreachableError("nobody there"))
    assert ranking.item_ids == ["c0", "c1", "c2"]
    assert ranking.status == "error"
    assert isinstance(ranking.error, UnreachableError)


def test_an_error_in_an_early_step_ends_the_flow() -> None:
    """Without the model's preferences there is nothing to build the ranking's prompt on."""
    ranking, prompts = run(listwise("listwise/nir"), request(3), lambda prompt: UnreachableError("nobody there"))
    assert (ranking.status, len(prompts)) == ("error", 1)


def test_sliding_windows_bring_the_best_to_the_top() -> None:
    """Windows go from the end to the beginning; with an oracle the best of any place reaches the top of the list."""
    ranking, prompts = run(listwise(window=10, step=5), request(25), reverse)
    assert ranking.item_ids[:5] == ["c24", "c23", "c22", "c21", "c20"]
    assert [len(prompt.labels) for prompt in prompts] == [10, 10, 10, 10]
    assert ranking.status == "ok"


@given(count=st.integers(2, 60), window=st.integers(2, 20), data=st.data())
def test_no_candidate_is_lost_and_the_best_wins(count: int, window: int, data: st.DataObject) -> None:
    """For any list, window and step: all candidates come back once, each was shown, and an oracle's best is first."""
    step = data.draw(st.integers(1, window - 1))
    ranking, prompts = run(listwise(window=window, step=step, max_windows=None), request(count), reverse)
    assert sorted(ranking.item_ids) == sorted(item.id for item in items(count))
    assert ranking.items[0].id == f"c{count - 1}"
    assert {item_id for prompt in prompts for item_id in prompt.item_ids} == set(ranking.item_ids)
    assert all(len(prompt.labels) <= window for prompt in prompts)


def test_a_list_that_does_not_fit_the_window_of_the_model_slides() -> None:
    """No candidate is dropped for want of room: the list is ranked in windows, and the top is still found."""
    ranking, prompts = run(listwise(), request(60), reverse, Budget(1200, EstimateCounter()))
    assert len(prompts) > 1
    assert ranking.items[0].id == "c59"
    assert len(ranking.items) == 60


@settings(deadline=None, max_examples=40)  # other work on the machine must not fail it
@given(room=st.integers(500, 1500), window=st.none() | st.integers(2, 40), step=st.integers(1, 40))
def test_a_step_for_a_larger_window_skips_no_candidate(room: int, window: int | None, step: int) -> None:
    """However few candidates the model's own window holds: each is shown, and the best of any place gets to the top."""
    step = min(step, window - 1) if window else step
    strategy = listwise(window=window, step=step, max_windows=None)
    ranking, prompts = run(strategy, request(60), reverse, Budget(room, EstimateCounter()))
    assert {item_id for prompt in prompts for item_id in prompt.item_ids} == {item.id for item in request(60).candidates}
    assert (ranking.status, ranking.filled, ranking.items[0].id) == ("ok", (), "c59")


@settings(deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["whole", "half", "words", "refused"]), min_size=1, max_size=8),
    window=st.integers(2, 12),
    count=st.integers(1, 20),
)
def test_the_status_tells_whether_all_was_ranked(kinds: list[str], window: int, count: int) -> None:
    """Whatever becomes of each window: ok and repaired mean that the model ranked every candidate, and only these do."""
    asked = iter(kinds * 20)

    def answer(prompt: Prompt) -> str | BackendError:
        half = reverse(prompt).split(" > ")[: (len(prompt.labels) + 1) // 2]
        kind = next(asked)
        if kind == "refused":
            return ContentFilterError("refused")
        return {"whole": reverse(prompt), "half": " > ".join(half), "words": "I cannot say."}[kind]

    ranking, _ = run(listwise(window=window), request(count), answer)
    assert sorted(ranking.item_ids) == sorted(f"c{number}" for number in range(count))
    assert set(ranking.filled) == {each.id for each in ranking.items if each.ranked_by == "fallback"}
    assert (ranking.status in ("ok", "repaired")) == (not ranking.filled and ranking.error is None)
    assert (ranking.status in ("fallback", "error")) == (len(ranking.filled) == count)


def test_a_list_of_too_many_windows_is_refused_before_anything_is_asked() -> None:
    """Windows are asked one after the other, and each costs: the error tells the key, the count and what to do."""

    def never(prompt: Prompt) -> str:
        raise AssertionError("it was asked")

    tight = Budget(1200, EstimateCounter())
    for template in ("listwise/sequential", "listwise/nir"):
        with pytest.raises(RequestError, match=r"strategy\.max_windows: 2,000 candidates need \d+ windows .*prefilter\.keep"):
            run(listwise(template), request(2000), never, tight)
    ranking, prompts = run(listwise(window=4, step=2, max_windows=9), request(20), reverse)
    assert (ranking.status, len(prompts)) == ("ok", 9)
    with pytest.raises(RequestError, match=r"need 9 windows of 4, .*8 are allowed"):
        run(listwise(window=4, step=2, max_windows=8), request(20), reverse)
    assert run(listwise(window=2, step=1, max_windows=None), request(80), reverse)[0].status == "ok"


def test_a_window_too_small_for_two_candidates_is_refused() -> None:
    """There is no ranking one candidate at a time: the error names the window."""
    with pytest.raises(BudgetError, match="window of 120"):
        run(listwise(), request(10), reverse, Budget(120, EstimateCounter()))


def test_one_window_that_fails_does_not_lose_the_others() -> None:
    """A filter that refuses one window leaves it in its order; the ranking is partial and carries the error."""

    def answer(prompt: Prompt) -> str | BackendError:
        return ContentFilterError("refused") if "c9" in prompt.item_ids else reverse(prompt)

    ranking, _ = run(listwise(window=4, step=4), request(12), answer)
    assert ranking.status == "partial"
    assert isinstance(ranking.error, ContentFilterError)
    assert len(set(ranking.item_ids)) == 12
    assert set(ranking.filled) <= {"c8", "c9", "c10", "c11"}


def test_windows_stop_when_the_server_is_gone() -> None:
    """After an error that no other prompt would escape, no further window is asked."""
    ranking, prompts = run(listwise(window=4), request(20), lambda prompt: UnreachableError("gone"))
    assert (ranking.status, len(prompts)) == ("error", 1)


def test_a_repair_round_trip_asks_once_more() -> None:
    """With `repair` a partial answer is shown to the model again; the better answer counts, and the Ranking says so."""
    answers = iter(["[B] > [A]", "[C] > [B] > [A] > [D]"])
    ranking, prompts = run(listwise(repair=True), request(4), lambda prompt: next(answers))
    assert ranking.item_ids == ["c2", "c1", "c0", "c3"]
    assert ranking.status == "repaired"
    assert "asked again" in ranking.repairs[0]
    assert prompts[1].messages[: len(prompts[0].messages)] == prompts[0].messages
    assert prompts[1].messages[-2].content == "[B] > [A]"


def test_a_repair_that_makes_it_worse_is_not_taken() -> None:
    """If the second answer ranks no more candidates than the first, the first stays."""
    answers = iter(["[B] > [A]", "No."])
    ranking, prompts = run(listwise(repair=True), request(4), lambda prompt: next(answers))
    assert ranking.item_ids == ["c1", "c0", "c2", "c3"]
    assert len(prompts) == 2
    assert any("no better" in note for note in ranking.notes)


def test_a_prompt_too_long_for_the_server_is_cut_and_asked_again() -> None:
    """When the server knows its window better, the prompt is made to fit that one, and what was cut is on the Ranking."""

    def answer(prompt: Prompt) -> str | BackendError:
        size = sum(len(message.content) for message in prompt.messages)
        return ContextLengthError("too long", window=900) if size > 2700 else reverse(prompt)

    asked = replace(
        request(5), history=tuple(Event(Item(f"h{n}", f"A long title of a film, number {n:04d} " * 5)) for n in range(19))
    )
    ranking, prompts = run(listwise(), asked, answer)
    assert len(prompts) == 2
    assert ranking.cut.history > 0
    assert ranking.status == "ok"
    assert any("window of 100000 tokens too long; asked again for 900" in note for note in ranking.notes)


def test_a_server_with_a_smaller_window_than_thought_gets_sliding_windows() -> None:
    """When the server's own window holds only a part of the list, the list is ranked in windows that fit."""

    def answer(prompt: Prompt) -> str | BackendError:
        size = sum(len(message.content) for message in prompt.messages)
        return ContextLengthError("too long", window=1000) if size > 1800 else reverse(prompt)

    ranking, prompts = run(listwise(), request(100), answer)
    assert len(prompts) > 3
    assert (ranking.status, ranking.items[0].id) == ("ok", "c99")
    assert len(ranking.items) == 100


def test_a_server_that_finds_everything_too_long_is_given_up_on() -> None:
    """A server that refuses each smaller prompt, and names no window, ends as an error after a few attempts."""
    ranking, prompts = run(listwise(), request(3), lambda prompt: ContextLengthError("too long"))
    assert (ranking.status, len(prompts)) == ("error", 5)


def test_an_answer_cut_off_says_how_to_allow_more() -> None:
    """An answer that stopped at its token limit is told apart from one that left candidates out by itself."""
    ranking, _ = run(listwise(max_tokens=5), request(4), lambda prompt: Completion("[B] > [", "length"))
    assert ranking.status == "partial"
    assert any("strategy.max_tokens" in note for note in ranking.notes)


@pytest.mark.parametrize(
    "options",
    [
        {"window": 1},
        {"step": 0},
        {"window": 4, "step": 5},
        {"max_windows": 0},
        {"max_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """Each option has a stated range; a step longer than the window would skip candidates."""
    with pytest.raises(ConfigError, match="strategy"):
        listwise(**options)


def test_a_text_template_is_refused() -> None:
    """The listwise strategy asks in a chat; a template for likelihoods is no chat."""
    with pytest.raises(ConfigError, match="listwise"):
        listwise("likelihood/next-line")


@pytest.mark.parametrize("answer", ["label", "free"])
def test_an_answer_that_is_no_order_is_refused(answer: AnswerFormat) -> None:
    """One label, or free words, cannot rank a list: the error names the key and what it may be."""
    with pytest.raises(ConfigError, match=f"prompt\\.answer: .*'{answer}'.*use order or json"):
        Listwise(PromptWriter(PromptOptions(answer=answer)))


def test_an_early_step_without_text_is_told() -> None:
    """The steps after it go on, but the ranking says that they had to, and what the backend said of it."""
    thought = Completion("<think>Hm.</think>", "length", notes=("the limit was used up by thinking",))
    said = iter([thought, Completion("Film number 001", "stop", notes=("no seed",))])
    ranking, _ = run(listwise("listwise/nir"), request(3), lambda prompt: reverse(prompt) if prompt.labels else next(said))
    assert ranking.item_ids == ["c2", "c1", "c0"]
    assert ranking.status == "repaired"
    assert ranking.repairs == ("step preferences gave no text; the steps after it had to do without",)
    assert ranking.notes == (
        "the limit was used up by thinking",
        "step preferences was cut off at 512 tokens; strategy.step_tokens allows more",
        "no seed",
    )


def test_what_early_steps_said_is_kept_when_a_later_one_fails() -> None:
    """A note of the first step stands on the ranking that the second step's error ends."""
    said = Completion("Submarines.", "stop", notes=("no seed",))
    answers: Iterator[Completion | BackendError] = iter([said, UnreachableError("gone")])
    ranking, _ = run(listwise("listwise/nir"), request(3), lambda prompt: next(answers))
    assert (ranking.status, ranking.notes) == ("error", ("no seed",))
