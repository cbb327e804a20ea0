"""Team-draft interleaving: one list of two rankings, fair to both, the same for a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import RequestError, UnknownItemError
from llmrank.experiment.online.interleaving import Interleaved, credit, team_draft

RANKINGS = st.lists(st.sampled_from("abcdefghij"), max_size=14)
SEEDS = st.text(max_size=5)


def papers(a: Sequence[str], b: Sequence[str], coin: Sequence[int]) -> tuple[list[str], list[str]]:
    """Algorithm 2 of the paper, word by word: coin 1 lets `a` pick where both teams are equal."""
    shown: list[str] = []
    team_a: list[str] = []
    team_b: list[str] = []
    coins = iter(coin)
    while any(each not in shown for each in a) and any(each not in shown for each in b):
        if len(team_a) < len(team_b) or (len(team_a) == len(team_b) and next(coins) == 1):
            pick = next(each for each in a if each not in shown)
            team_a.append(pick)
        else:
            pick = next(each for each in b if each not in shown)
            team_b.append(pick)
        shown.append(pick)
    return shown, ["a" if each in team_a else "b" for each in shown]


@given(RANKINGS, RANKINGS, st.none() | st.integers(0, 16), SEEDS)
def test_the_list_holds_all_items_once(a: list[str], b: list[str], k: int | None, seed: str) -> None:
    """All items of both rankings, or the first `k` of that very list, none twice, and a team for each or None."""
    whole = team_draft(a, b, seed=seed)
    assert sorted(whole.items) == sorted({*a, *b})
    assert len(whole.teams) == len(whole.items)
    cut = team_draft(a, b, k=k, seed=seed)
    assert cut == Interleaved(whole.items[:k], whole.teams[:k])


@given(RANKINGS, RANKINGS, SEEDS)
def test_a_team_picks_its_best_item_that_is_left(a: list[str], b: list[str], seed: str) -> None:
    """No item of a team stands before one that its ranking prefers; those of no team come last."""
    found = team_draft(a, b, seed=seed)
    drafted = [team for team in found.teams if team is not None]
    assert list(found.teams[: len(drafted)]) == drafted
    for place, (item, team) in enumerate(zip(found.items, found.teams, strict=True)):
        ranking = a if team == "a" else b if team == "b" else None
        if ranking is not None:
            assert set(ranking[: ranking.index(item)]) <= set(found.items[:place])


@given(RANKINGS, RANKINGS, SEEDS)
def test_teams_are_of_one_size(a: list[str], b: list[str], seed: str) -> None:
    """At every even place both teams have as many items, and at odd ones they differ by one."""
    teams = team_draft(a, b, seed=seed).teams
    for end in range(len(teams)):
        if None in teams[:end]:
            break
        assert abs(teams[:end].count("a") - teams[:end].count("b")) == end % 2


@given(st.permutations("abcdefg"), st.permutations("abcdefg"), SEEDS)
def test_over_the_same_items_it_is_the_papers_algorithm(a: list[str], b: list[str], seed: str) -> None:
    """With the coins that were drawn, the paper's own loop gives the same list and the same teams."""
    found = team_draft(a, b, seed=seed)
    coins = [int(team == "a") for team in found.teams[::2]]
    assert papers(a, b, coins) == (list(found.items), list(found.teams))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("abcde", "abcde"),
        ("abcde", "edcba"),
        ("abc", "a"),
        ("xyz", "y"),
        ("ab", "b"),
        ("abcd", "wx"),
        ("abcdefg", "gaz"),
    ],
)
def test_random_clicks_give_both_the_same_credit(a: str, b: str) -> None:
    """Whatever the rankings are, someone who clicks by place alone, or anywhere, prefers neither."""
    lists = [team_draft(a, b, seed=f"{number}") for number in range(2000)]
    dice = np.random.default_rng(3)
    by_place = anywhere = 0
    for each in lists:
        for place, team in enumerate(each.teams):
            sign = {"a": 1, "b": -1, None: 0}[team]
            by_place += sign * (dice.random() < 1 / (1 + place))
            anywhere += sign * (dice.random() < 0.5)
    # Each list has a difference of variance below 2 in both cases: four standard errors.
    assert abs(by_place) < 4 * (2 * len(lists)) ** 0.5
    assert abs(anywhere) < 4 * (2 * len(lists)) ** 0.5


def test_of_equal_rankings_each_item_is_anybodys() -> None:
    """Over many seeds each item of two equal rankings belongs to each team in half of the lists."""
    lists = [team_draft("abcd", "abcd", seed=f"user {number}") for number in range(2000)]
    for place in range(4):
        share = sum(each.teams[place] == "a" for each in lists) / len(lists)
        assert abs(share - 0.5) < 4 * 0.5 / 2000**0.5
    assert {each.items for each in lists} == {tuple("abcd")}


def test_the_better_ranking_earns_more_credit() -> None:
    """One who clicks what `a` has at the top and `b` at the end gives `a` the credit of most lists."""
    earned = [credit(team_draft("abcdef", "fedcba", k=4, seed=str(number)), "a") for number in range(100)]
    assert sum(a for a, _ in earned) > 90
    assert sum(b for _, b in earned) < 10


def test_a_list_by_hand() -> None:
    """A hand-sized example: the seed's coins, turned over, give the two lists that a person would draft."""
    found = {team_draft(["1", "2", "3"], ["2", "3", "9"], seed=str(number)) for number in range(50)}
    # Round 1: 1 and 2 in either order. Round 2: both want 3, one gets it; b then has 9, a has nothing and the draft ends.
    expected = set()
    for first in (("1", "2"), ("2", "1")):
        for winner in ("a", "b"):
            teams = tuple("a" if item == "1" else "b" for item in first)
            expected.add(((*first, "3", "9"), (*teams, winner, None)))
    assert {(each.items, each.teams) for each in found} == expected


def test_the_same_seed_gives_the_same_list_for_ever() -> None:
    """Seeds are texts, also odd ones; other coins in another version would unsettle running experiments."""
    assert "".join(team or "-" for team in team_draft("abcdefgh", "abcdefgh", seed="salt/user/1").teams) == "baababba"
    assert team_draft("ab", "ba", seed="\ud800") == team_draft("ab", "ba", seed="\ud800")


@pytest.mark.parametrize(("clicked", "expected"), [([], (0, 0)), (["1"], (1, 0)), (["1", "1", "2"], (1, 1)), (["9"], (0, 0))])
def test_clicks_are_credited_to_teams(clicked: list[str], expected: tuple[int, int]) -> None:
    """Each clicked item counts once for the team that picked it, and for nobody if it has no team."""
    assert credit(Interleaved(("1", "2", "9"), ("a", "b", None)), clicked) == expected


def test_what_cannot_be_is_refused() -> None:
    """A click on an item that was not shown and a negative number of items are named."""
    with pytest.raises(UnknownItemError, match=r"clicked_ids: was not shown \(got '12'\)"):
        credit(Interleaved(("1", "2"), ("a", "b")), ["12"])
    with pytest.raises(RequestError, match=r"k: must be 0 or more \(got -1\)"):
        team_draft("ab", "ba", k=-1, seed="")
    assert team_draft([], [], seed="") == Interleaved((), ())
