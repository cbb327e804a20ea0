"""The parts that strategies are made of: side by side, the tally, windows in several passes, and orders from one token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import advance
from llmrank.errors import BadRequestError, BudgetError, ConfigError, ContextLengthError, RequestError, ServerError
from llmrank.strategies.calls import Calls
from llmrank.strategies.listwise import Listwise, ListwiseOptions, SingleToken, SingleTokenOptions
from llmrank.strategies.shrink import Flowing, TooLong
from llmrank.strategies.tally import Tally
from llmrank.strategies.together import together
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Completion, Cut, Event, Item, Message, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter, Written
from tests.unit.oracle import WIDE, Oracle, PlainWriter


def request(count: int) -> ResolvedRequest:
    return ResolvedRequest((), tuple(Item(f"c{number}", f"Film {number}") for number in range(count)))


def ids(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


def listwise(**options: Any) -> Listwise:
    return Listwise(PlainWriter(PromptOptions()), ListwiseOptions(**options))


def single_token(**options: Any) -> SingleToken:
    writer = PlainWriter(PromptOptions(template="single-token/sequential", answer="label"))
    return SingleToken(writer, SingleTokenOptions(**options))


def run(strategy: Listwise | SingleToken, count: int, oracle: Oracle) -> Ranking:
    ranking = advance(strategy.flow(request(count), WIDE), oracle)
    assert isinstance(ranking, Ranking)
    return ranking


def part(name: str, steps: int, fails: bool = False) -> Flowing[str]:
    """Asks `steps` questions one after the other and returns what it was told."""
    told = []
    for step in range(steps):
        (answer,) = yield [Prompt(messages=(Message("user", f"{name}{step}"),))]
        assert isinstance(answer, Completion)
        told.append(answer.text or "")
    if fails:
        raise ValueError(name)
    return " ".join(told)


@given(lengths=st.lists(st.integers(0, 4), max_size=6))
@settings(max_examples=30, deadline=None)
def test_parts_run_side_by_side(lengths: list[int]) -> None:
    """As many steps as the longest part has; each is sent its own answers, and the results come in the order of the parts."""
    flow = together([part(f"p{number}-", length) for number, length in enumerate(lengths)])
    steps = 0
    try:
        prompts = next(flow)
        while True:
            steps += 1
            prompts = flow.send([Completion(prompt.messages[0].content) for prompt in prompts])
    except StopIteration as end:
        results = end.value
    assert steps == max(lengths, default=0)
    assert results == [" ".join(f"p{n}-{step}" for step in range(length)) for n, length in enumerate(lengths)]


def test_a_part_that_raises_closes_the_others() -> None:
    """An exception of one part comes out, and no other part is left running."""
    other = part("b", 3)
    flow = together([part("a", 1, fails=True), other])
    next(flow)
    with pytest.raises(ValueError, match="a"):
        flow.send([Completion("x"), Completion("y")])
    assert list(other) == []


def written(*item_ids: str) -> Written:
    labels = tuple("ABCDEFG"[: len(item_ids)])
    return Written((Message("user", "?"),), "", labels, item_ids, item_ids, (), Cut(), "f")


@pytest.mark.parametrize(
    ("judged", "errors", "clean", "status"),
    [
        (["a", "b"], [], True, "ok"),
        (["a", "b"], [], False, "repaired"),
        (["a"], [], False, "partial"),
        ([], [], False, "fallback"),
        (["a", "b"], [BadRequestError("no")], True, "partial"),
    ],
)
def test_the_tally_tells_the_status(judged: list[str], errors: list[BadRequestError], clean: bool, status: str) -> None:
    """What the questions came to becomes the status, and what no answer ranked is filled."""
    tally = Tally()
    tally.count(written("a", "b"), judged, clean=clean)
    for error in errors:
        tally.fail(written("a", "b"), error)
    ranking = tally.ranking([Item("a", "A"), Item("b", "B")], strategy="s", fingerprint="f")
    assert ranking.status == status
    assert ranking.filled == tuple(item_id for item_id in ("a", "b") if item_id not in judged)


def test_the_tally_keeps_what_answers_named() -> None:
    """Names that no candidate has are kept, once each; an answer that names no model does not blot out one that did."""
    tally = Tally()
    tally.count(written("a", "b"), ["a"], model="m", invented=["[X]", "[Y]"])
    tally.count(written("b", "a"), ["b"], model="", invented=["[X]"])
    ranking = tally.ranking([Item("a", "A"), Item("b", "B")], strategy="s", fingerprint="f")
    assert (ranking.model, ranking.invented) == ("m", ("[X]", "[Y]"))
    late = Tally()
    late.count(written("a"), ["a"], model="")
    late.count(written("a"), ["a"], model="m")
    assert late.model == "m"


def test_only_errors_are_an_error() -> None:
    """A ranking of which no question got an answer has status error; one that every question would meet stops it."""
    tally = Tally()
    tally.fail(written("a"), BadRequestError("this one"))
    assert not tally.stopped
    tally.fail(written("a"), ServerError("all"))
    assert tally.stopped
    ranking = tally.ranking([Item("a", "A")], strategy="s", fingerprint="f")
    assert (ranking.status, str(ranking.error), ranking.filled) == ("error", "all", ("a",))


def test_a_prompt_that_is_too_long_ends_the_attempt() -> None:
    """The whole ranking has to be asked anew, smaller, so this is no counted error."""
    tally = Tally()
    with pytest.raises(TooLong):
        tally.fail(written("a"), ContextLengthError("too long", window=10))
    assert tally.asked == 0


@given(count=st.integers(1, 100), window=st.integers(2, 26), data=st.data())
@settings(max_examples=30, deadline=None)
def test_each_pass_puts_its_share_right(count: int, window: int, data: st.DataObject) -> None:
    """After p passes the first p * (window - step) places are right even if the order given is the worst, by text or token."""
    step = data.draw(st.integers(1, window - 1))
    passes = data.draw(st.integers(1, 4))
    make = data.draw(st.sampled_from([listwise, single_token]))
    strategy, truth = make(window=window, step=step, passes=passes, max_windows=None), ids(count)[::-1]
    ranking = run(strategy, count, Oracle(truth))
    right = count if count <= window else min(count, passes * (window - step))
    assert ranking.item_ids[:right] == truth[:right]
    calls = strategy.calls(count)
    assert calls.least <= len(ranking.trace) <= calls.most


def test_a_pass_that_changes_nothing_is_the_last() -> None:
    """A list in the true order is looked through once, however many passes are allowed."""
    strategy = listwise(window=4, step=2, passes=9)
    assert len(run(strategy, 10, Oracle(ids(10))).trace) == 4
    assert strategy.calls(10) == Calls(4, 36)


def test_one_token_gives_scores_of_one_list_only() -> None:
    """The log-probabilities are scores where the list is shown whole; those of several windows cannot be compared."""
    whole = run(single_token(), 20, Oracle(ids(20)))
    assert len(whole.trace) == 1
    assert whole.trace[0].prompt.max_tokens == 1
    scores = [item.score for item in whole.items]
    assert all(score is not None for score in scores)
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert all(item.score is None for item in run(single_token(), 21, Oracle(ids(21))).items)


def test_one_token_leaves_room_for_what_is_thought_before_it() -> None:
    """Fewer candidates are shown where `max_tokens` takes the room of the others, and no prompt is too long for the window."""
    narrow = Budget(600, EstimateCounter())
    most = []
    for max_tokens in (1, 250):
        writer = PromptWriter(PromptOptions(template="single-token/sequential", answer="label"))
        strategy = SingleToken(writer, SingleTokenOptions(max_tokens=max_tokens))
        ranking = advance(strategy.flow(request(20), narrow), Oracle(ids(20)[::-1]))
        assert isinstance(ranking, Ranking)
        assert (ranking.status, ranking.item_ids[0]) == ("ok", "c19")
        most.append(max(len(exchange.prompt.item_ids) for exchange in ranking.trace))
    assert most[0] == 20 > most[1]


def test_labels_that_are_not_reported_come_last() -> None:
    """A server that reports some of the labels leaves the others behind them, in the order given, and named."""
    ranking = run(single_token(), 6, Oracle(ids(6)[::-1], 1.0, faults=("partial",)))
    assert ranking.item_ids == ["c5", "c4", "c3", "c0", "c1", "c2"]
    assert (ranking.status, ranking.filled) == ("partial", ("c0", "c1", "c2"))


def test_bad_windows_are_refused() -> None:
    """More candidates than letters, and more windows than allowed, are errors that name the option."""
    with pytest.raises(ConfigError, match=r"strategy\.window.*26 or less"):
        SingleTokenOptions(window=27)
    with pytest.raises(ConfigError, match=r"strategy\.window"):
        SingleTokenOptions(window=None)
    with pytest.raises(RequestError, match=r"strategy\.max_windows"):
        single_token(window=4, max_windows=5).calls(100)


@pytest.mark.parametrize("strategy", [listwise(), listwise(window=5, passes=3), single_token()])
def test_one_candidate_costs_nothing(strategy: Listwise | SingleToken) -> None:
    """There is one order of one candidate, so that nothing is asked."""
    assert strategy.calls(1) == Calls(0, 0)
    ranking = run(strategy, 1, Oracle(ids(1)))
    assert (ranking.status, ranking.item_ids, ranking.trace) == ("ok", ids(1), ())


@given(
    kind=st.sampled_from(["listwise", "single-token", "setwise", "pairwise", "tourrank", "top-down"]),
    window=st.integers(350, 1500),
    order=st.permutations(range(12)),
)
@settings(max_examples=40, deadline=None)
def test_what_fits_is_told_before_anything_is_paid_for(kind: str, window: int, order: list[int]) -> None:
    """A short text may take more tokens than a long one: what shows the costliest ones fits, or nothing is asked at all."""
    titles = [
        title.format(number) for number in range(4) for title in ("A long English title " * 12 + "{}", "電影" * 6 + "{}", "{}")
    ]
    asked = ResolvedRequest((Event(Item("h", "Seen")),), tuple(Item(f"c{place}", titles[place]) for place in order))
    oracle = Oracle(ids(12))
    try:
        ranking = advance(build_strategy({"kind": kind}).flow(asked, Budget(window, EstimateCounter())), oracle)
    except BudgetError:
        assert not oracle.prompts
        assert window < 540  # two candidates, cut short, fit from there on
    else:
        assert isinstance(ranking, Ranking)
        assert ranking.status == "ok"
