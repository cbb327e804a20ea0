"""TourRank: who is sent on, what that costs, and what a failing model does to it (the true order: `test_oracle.py`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.driver import advance
from llmrank.errors import BackendError, BadRequestError, ConfigError, RequestError
from llmrank.strategies.calls import Calls
from llmrank.strategies.lists import TextLists
from llmrank.strategies.tourrank import TourRank, TourRankOptions
from llmrank.types import Completion, Item, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions
from tests.unit.oracle import WIDE, Oracle, PlainWriter


def tourrank(**options: Any) -> TourRank:
    chosen = TourRankOptions(**options)
    repairer = PlainWriter(PromptOptions(template="listwise/repair"))
    return TourRank(TextLists(PlainWriter(PromptOptions()), chosen, repairer=repairer), chosen)


def request(count: int) -> ResolvedRequest:
    return ResolvedRequest((), tuple(Item(f"c{number}", f"Film {number}") for number in range(count)))


def ids(count: int) -> list[str]:
    return [f"c{number}" for number in range(count)]


def run(strategy: TourRank, count: int, oracle: Oracle) -> Ranking:
    ranking = advance(strategy.flow(request(count), WIDE), oracle)
    assert isinstance(ranking, Ranking)
    return ranking


def test_a_hundred_cost_what_the_paper_says() -> None:
    """100 candidates in groups of 20 take 13 questions a tournament, as in the paper; ten tournaments ten times that."""
    assert tourrank().calls(100) == Calls(13, 13)
    assert tourrank(rounds=10).calls(100) == Calls(130, 130)
    assert tourrank(repair=True).calls(100) == Calls(13, 26)


def test_points_are_stages_survived() -> None:
    """Of 8 in one group, 4 get through the first stage and 2 through the second; those have two points."""
    ranking = run(tourrank(), 8, Oracle(ids(8)[::-1]))
    assert ranking.item_ids == ids(8)[::-1]
    assert [item.score for item in ranking.items] == [2, 2, 1, 1, 0, 0, 0, 0]


def test_points_of_tournaments_are_added() -> None:
    """Three tournaments give three times the points to one who wins them all, and their stages are asked side by side."""
    flow = tourrank(rounds=3).flow(request(8), WIDE)
    assert len(next(flow)) == 3
    flow.close()
    assert run(tourrank(rounds=3), 8, Oracle(ids(8))).items[0].score == 6


def test_groups_are_seeded_and_shuffled() -> None:
    """The first of the order given meet each other late: each group holds one of them, at a place that shuffling chose."""
    first = next(tourrank(group=5).flow(request(20), WIDE))
    assert [set(prompt.item_ids) for prompt in first] == [set(ids(20)[number::4]) for number in range(4)]
    assert any(prompt.item_ids != tuple(sorted(prompt.item_ids, key=ids(20).index)) for prompt in first)
    again = next(tourrank(group=5).flow(request(20), WIDE))
    assert [prompt.item_ids for prompt in again] == [prompt.item_ids for prompt in first]
    other = next(tourrank(group=5, shuffle_seed=1).flow(request(20), WIDE))
    assert [prompt.item_ids for prompt in other] != [prompt.item_ids for prompt in first]


def test_a_backends_seed_shuffles_nothing() -> None:
    """`seed` goes to the backend alone, `shuffle_seed` to the shuffles alone."""
    first, other = (next(tourrank(seed=seed).flow(request(20), WIDE)) for seed in (None, 1))
    assert [prompt.item_ids for prompt in other] == [prompt.item_ids for prompt in first]
    assert ([prompt.seed for prompt in first], [prompt.seed for prompt in other]) == ([None], [1])
    assert next(tourrank(shuffle_seed=1).flow(request(20), WIDE))[0].seed is None


def test_tournaments_are_shuffled_each_on_its_own() -> None:
    """The same group stands in another order in each tournament, or their points would say the same twice."""
    first, second, third = (prompt.item_ids for prompt in next(tourrank(rounds=3).flow(request(20), WIDE)))
    assert set(first) == set(second) == set(third)
    assert len({first, second, third}) == 3


@given(count=st.integers(1, 100), group=st.integers(2, 26), rounds=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_what_is_certain_is_right(count: int, group: int, rounds: int) -> None:
    """The places that `certain` names are right for the worst order given, whatever the size of the groups."""
    strategy, truth = tourrank(group=group, rounds=rounds, max_calls=None), ids(count)[::-1]
    ranking = run(strategy, count, Oracle(truth))
    certain = strategy.certain(count)
    assert 1 <= certain <= count
    assert certain == count or count > group
    assert ranking.item_ids[:certain] == truth[:certain]
    assert len(ranking.trace) == strategy.calls(count).most


def test_a_silent_group_keeps_the_order_given() -> None:
    """A group without a readable answer sends on its first by the order given, not by its shuffle."""
    ranking = run(tourrank(), 20, Oracle(ids(20)[::-1], 1.0, faults=("unreadable",)))
    assert ranking.status == "fallback"
    assert ranking.item_ids == ids(20)


@pytest.mark.parametrize("seed", range(3))
def test_a_tournament_takes_nothing_from_the_answers_of_others(seed: int) -> None:
    """Where the same list was answered in one tournament and not in another, only the one has points from it."""
    oracle = Oracle(["c1", "c0"])

    def answer(prompt: Prompt) -> Completion | BackendError:
        return BadRequestError("no") if len(oracle.prompts) >= 3 else oracle(prompt)

    ranking = advance(tourrank(rounds=8, shuffle_seed=seed).flow(request(2), WIDE), answer)
    assert isinstance(ranking, Ranking)
    # The five that got no answer sent on c0, the first of the order given, however their list was shuffled.
    assert {item.id: item.score for item in ranking.items} == {"c0": 5.0, "c1": 3.0}
    assert ranking.status == "partial"


def test_a_server_that_is_down_is_not_asked_again() -> None:
    """Where the next question would fail, too, no further stage is held."""
    ranking = run(tourrank(group=5), 20, Oracle(ids(20), 1.0, faults=("server",)))
    assert (ranking.status, len(ranking.trace), ranking.item_ids) == ("error", 4, ids(20))


def test_too_many_prompts_are_refused_before_any_is_asked() -> None:
    """More prompts than `max_calls` are an error that names the option, and nothing is asked."""
    oracle = Oracle(ids(100))
    with pytest.raises(RequestError, match=r"strategy\.max_calls.*13 prompts"):
        advance(tourrank(max_calls=12).flow(request(100), WIDE), oracle)
    assert not oracle.prompts


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"group": 1}, "strategy.group"),
        ({"rounds": 0}, "strategy.rounds"),
        ({"read": "logprobs", "group": 27}, "strategy.group"),
        ({"max_calls": 0}, "strategy.max_calls"),
        ({"temperature": -1.0}, "strategy.temperature"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], field: str) -> None:
    """A value that cannot work is refused by its name."""
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        TourRankOptions(**options)
