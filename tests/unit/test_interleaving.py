"""Team-draft interleaving: by hand, against a transcription of the paper's figure, and fair over all coins."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import InputError
from llmrank.experiment.online.hashing import coins, joined
from llmrank.experiment.online.interleaving import Interleaved, credit, team_draft
from llmrank.types import Item, RankedItem, Ranking

LISTS = st.lists(st.sampled_from("abcdefgh"), max_size=10)


class Coins(random.Random):
    """A generator whose coins are written down: heads is a's turn."""

    def __init__(self, heads: tuple[bool, ...]) -> None:
        super().__init__(0)
        self._heads = iter(heads)

    def random(self) -> float:
        return 0.0 if next(self._heads, True) else 0.9


def papers(a: list[str], b: list[str], heads: tuple[bool, ...]) -> tuple[list[str], dict[str, str]]:
    """The figure of the paper, line by line; without what follows when one list is exhausted."""
    flips = iter(heads)
    interleaved: list[str] = []
    teams: dict[str, str] = {}
    while any(item not in interleaved for item in a) and any(item not in interleaved for item in b):
        size_a, size_b = Counter(teams.values())["a"], Counter(teams.values())["b"]
        if size_a < size_b or (size_a == size_b and next(flips)):
            item = next(item for item in a if item not in interleaved)
            teams[item] = "a"
        else:
            item = next(item for item in b if item not in interleaved)
            teams[item] = "b"
        interleaved.append(item)
    return interleaved, teams


def test_the_example_of_a_draft() -> None:
    """a begins, b takes its best that is left, then b wins the coin: x y z w and y w x z make x y w z."""
    made = team_draft(["x", "y", "z", "w"], ["y", "w", "x", "z"], rng=Coins((True, False)))
    assert made == Interleaved(("x", "y", "w", "z"), ("a", "b", "b", "a"))


@given(LISTS, LISTS, st.tuples(*[st.booleans()] * 10))
def test_it_is_the_algorithm_of_the_paper(a: list[str], b: list[str], heads: tuple[bool, ...]) -> None:
    """For any lists, also with items twice and with other candidates; what is left of one list is appended, nobody's."""
    made = team_draft(a, b, rng=Coins(heads))
    items, teams = papers(a, b, heads)
    assert list(made.items[: len(items)]) == items
    assert [team for team in made.teams if team] == [teams[item] for item in items]
    rest = [item for item in dict.fromkeys([*a, *b]) if item not in items]
    assert list(made.items[len(items) :]) == rest
    assert set(made.teams[len(items) :]) <= {None}


@given(LISTS, LISTS, st.integers(1, 12))
def test_a_part_is_the_beginning_of_the_whole(a: list[str], b: list[str], k: int) -> None:
    """`k` cuts; it does not change what stands before."""
    whole = team_draft(a, b, seed=("salt", "user", "1"))
    part = team_draft(a, b, k=k, seed=("salt", "user", "1"))
    assert part == Interleaved(whole.items[:k], whole.teams[:k])


@given(st.permutations("abcd"), st.permutations("abcd"))
def test_neither_list_has_an_advantage(a: list[str], b: list[str]) -> None:
    """Over all coins, swapping the lists swaps the teams, and the teams are as large and go first as often."""
    ways = list(product((True, False), repeat=2))
    drafts = Counter(team_draft(a, b, rng=Coins(heads)) for heads in ways)
    other = {"a": "b", "b": "a", None: None}
    swapped: Counter[Interleaved] = Counter()
    for heads in ways:
        made = team_draft(b, a, rng=Coins(heads))
        swapped[Interleaved(made.items, tuple(other[team] for team in made.teams))] += 1  # type: ignore[misc]  # still teams
    assert drafts == swapped
    for made in drafts:
        assert Counter(made.teams) == {"a": 2, "b": 2}
    firsts = sum((Fraction(made.teams[0] == "a") * count for made, count in drafts.items()), Fraction())
    assert firsts / drafts.total() == Fraction(1, 2)


def test_the_seed_decides_and_either_goes_first_as_often() -> None:
    """The same salt, user and impression give the same list; over 20,000 impressions a begins 10,000 times, within 4 sd."""
    lists = ["x", "y", "z"], ["z", "x", "y"]
    first = [team_draft(*lists, seed=("salt", "user", str(number))).teams[0] for number in range(20_000)]
    assert first == [team_draft(*lists, seed=("salt", "user", str(number))).teams[0] for number in range(20_000)]
    assert abs(first.count("a") - 10_000) < 4 * 71


@given(st.permutations("abcdef"), st.sets(st.sampled_from("abcdef")))
def test_rankers_that_agree_win_as_often(a: list[str], clicked: set[str]) -> None:
    """Where both lists are the same, over all coins each gets as much credit, whatever is clicked."""
    total = [0, 0]
    for heads in product((True, False), repeat=3):
        ours, theirs = credit(team_draft(a, a, rng=Coins(heads)), clicked)
        total = [total[0] + ours, total[1] + theirs]
    assert total[0] == total[1]


def test_the_common_top_can_be_nobodys() -> None:
    """The places on which both agree belong to none, and the draft begins behind them."""
    made = team_draft(["p", "q", "x", "y"], ["p", "q", "y", "x"], rng=Coins((False,)), common_top="nobody")
    assert made == Interleaved(("p", "q", "y", "x"), (None, None, "b", "a"))
    assert credit(made, ["p", "x"]) == (1, 0)


@given(LISTS, LISTS)
def test_what_is_shown_does_not_depend_on_who_gets_the_common_top(a: list[str], b: list[str]) -> None:
    """Every item of both lists is there once, in either form."""
    for common_top in ("draft", "nobody"):
        made = team_draft(a, b, seed=("s",), common_top=common_top)  # type: ignore[arg-type]  # one of the two
        assert sorted(made.items) == sorted({*a, *b})


def test_rankings_are_taken_as_they_are() -> None:
    """A Ranking stands for its ids."""
    one = Ranking(tuple(RankedItem(Item(name, name), rank) for rank, name in enumerate("xyz", 1)))
    assert team_draft(one, ["z"], seed=("s",)) == team_draft(["x", "y", "z"], ["z"], seed=("s",))


def test_credit_counts_items() -> None:
    """Clicks on one item are one; nobody's items count for none."""
    shown = Interleaved(("x", "y", "z", "w"), ("a", "b", "b", None))
    assert credit(shown, ["y", "y", "z", "w"]) == (0, 2)
    assert credit(shown, []) == (0, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: team_draft("xy", ["x"], seed=("s",)), "a: must be ids"),
        (lambda: team_draft(["x"], [1], seed=("s",)), "b: must be ids"),  # type: ignore[list-item]  # what is refused
        (lambda: team_draft(["x"], ["y"], k=0, seed=("s",)), "k: must be at least 1"),
        (lambda: team_draft(["x"], ["y"]), "seed or rng: is not exactly one"),
        (lambda: team_draft(["x"], ["y"], seed="s"), "seed: must be several texts"),
        (lambda: team_draft(["x"], ["y"], seed=("s",), common_top="all"), "common_top: unknown"),  # type: ignore[arg-type]  # refused
        (lambda: credit(Interleaved(("x",), ("a",)), ["y"]), "clicked: was not shown"),
        (lambda: credit(Interleaved(("x",), ("a",)), "x"), "clicked: must be several ids"),
        (lambda: Interleaved(("x",), ()), "teams: must be one an item"),
    ],
)
def test_mistakes_are_named(call: object, words: str) -> None:
    """One error with field, value and fix."""
    with pytest.raises(InputError, match=words):
        call()  # type: ignore[operator]  # one of the functions above


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_other_parts_are_other_bytes(one: list[str], other: list[str]) -> None:
    """("ab", "c") is not ("a", "bc"), whatever signs the parts hold."""
    assert (joined(*one) == joined(*other)) == (one == other)


def test_coins_have_no_end_and_are_fair() -> None:
    """Several blocks of 512 differ; of 20,000 coins half are heads, within 4 sd."""
    stream = coins("salt")
    thrown = [next(stream) for _ in range(20_000)]
    assert thrown[:512] != thrown[512:1024]
    assert abs(sum(thrown) - 10_000) < 4 * 71
