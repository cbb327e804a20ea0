"""Two rankings go in, one list that both teams drafted comes out; clicks on it say whose items were preferred."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeAlias

from llmrank.errors import RequestError, UnknownItemError, nearest

Team: TypeAlias = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Interleaved:
    """One list made of two rankings.

    Attributes:
        items: Ids in the order in which they are shown; none stands twice.
        teams: For each item, whose pick it was; None for one that earns nobody credit, because it was placed after one ranking
            had nothing left to pick.
    """

    items: tuple[str, ...]
    teams: tuple[Team | None, ...]


def team_draft(a: Sequence[str], b: Sequence[str], *, k: int | None = None, seed: str) -> Interleaved:
    """Team-draft interleaving (Radlinski, Kurup & Joachims, CIKM 2008).

    In each round a coin says which ranking picks first; each picks its best item that is not in the list yet. If both hold the
    same items, this is the paper's algorithm. Where they do not, a round in which only one of them could pick ends the draft
    (an item that both name last goes to the coin's winner); what is left follows in its ranking's order and belongs to no
    team. So each team has the same number of items, but for one that a coin decided, and someone who clicks anywhere at random
    gives both the same credit on average.

    Args:
        a: Ids, best first. Of an id that stands there again, only the first place counts.
        b: Ids, best first.
        k: How many items to return; None for all of both rankings.
        seed: What the coins are drawn from: the same seed gives the same list. Use one text for each list that is shown, such
            as the experiment's salt, the user and the impression; with the same seed for every list of a user, one team could
            be first in all of them.

    Raises:
        RequestError: `k` is negative.
    """
    if k is not None and k < 0:
        raise RequestError("must be 0 or more", field="k", value=k, fix="leave it out for all items")
    rankings = (deque(dict.fromkeys(a)), deque(dict.fromkeys(b)))
    most = len({*rankings[0], *rankings[1]})
    most = most if k is None else min(k, most)
    teams: dict[str, Team | None] = {}
    coins = _coins(seed)
    while len(teams) < most:
        left = [_first_two(ranking, teams) for ranking in rankings]
        if not left[0] or not left[1]:
            break
        first = next(coins)
        teams[left[first][0]] = _TEAMS[first]
        same = left[0][0] == left[1][0]
        if same and min(map(len, left)) < 2:
            break  # nobody picks a second one, or the ranking with more items would earn more whoever is better
        if len(teams) < most:
            second = 1 - first
            teams[left[second][1 if same else 0]] = _TEAMS[second]
    for item in (*rankings[0], *rankings[1]):
        if len(teams) == most:
            break
        teams.setdefault(item, None)
    return Interleaved(tuple(teams), tuple(teams.values()))


def credit(interleaved: Interleaved, clicked_ids: Iterable[str]) -> tuple[int, int]:
    """How many clicked items each team had picked: (of `a`, of `b`).

    Args:
        interleaved: What was shown.
        clicked_ids: What was clicked; several clicks on one item count once.

    Raises:
        UnknownItemError: an item that was not shown was clicked.
    """
    teams = dict(zip(interleaved.items, interleaved.teams, strict=True))
    clicked = dict.fromkeys(clicked_ids)
    for item in clicked:
        if item not in teams:
            raise UnknownItemError("was not shown", field="clicked_ids", value=item, fix=nearest(str(item), teams))
    earned = [teams[item] for item in clicked]
    return earned.count("a"), earned.count("b")


_TEAMS: tuple[Team, Team] = ("a", "b")


def _first_two(ranking: deque[str], taken: Mapping[str, object]) -> list[str]:
    """The best two items that nobody took yet; fewer, if there are fewer. Taken ones at the head are dropped for good."""
    while ranking and ranking[0] in taken:
        ranking.popleft()
    return list(islice((item for item in ranking if item not in taken), 2))


def _coins(seed: str) -> Iterator[int]:
    """Fair coins, 0 or 1, as many as are asked for; the same on every machine and in every version of Python."""
    block = 0
    while True:
        digest = hashlib.blake2b(seed.encode("utf-8", "surrogatepass"), salt=block.to_bytes(16, "big")).digest()
        yield from (byte >> bit & 1 for byte in digest for bit in range(8))
        block += 1
