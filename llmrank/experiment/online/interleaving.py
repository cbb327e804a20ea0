"""Two rankings go in, one list in which each item belongs to one of the two, or to none, comes out; clicks become credit.

One user sees what both rankers think, so that a click is a choice between them: far fewer users are needed than for an A/B
test of the same two (Chapelle, Joachims, Radlinski and Yue 2012).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, TypeAlias

from llmrank.errors import InputError
from llmrank.experiment.online.hashing import coins
from llmrank.types import Ranking

Team: TypeAlias = Literal["a", "b"]


@dataclass(frozen=True, slots=True)
class Interleaved:
    """A list made of two.

    Attributes:
        items: Ids, best first; none twice.
        teams: Whose each one is; None for an item that speaks for neither.
    """

    items: tuple[str, ...]
    teams: tuple[Team | None, ...]

    def __post_init__(self) -> None:
        if len(self.items) != len(self.teams):
            fix = f"there are {len(self.items)} items"
            raise InputError("must be one an item", field="teams", value=len(self.teams), fix=fix)


def team_draft(
    a: Ranking | Sequence[str],
    b: Ranking | Sequence[str],
    *,
    k: int | None = None,
    seed: Sequence[str] | None = None,
    rng: random.Random | None = None,
    common_top: Literal["draft", "nobody"] = "draft",
) -> Interleaved:
    """Team-draft interleaving (Radlinski, Kurup and Joachims 2008, "How does clickthrough data reflect retrieval quality?").

    As two captains choose teams: whoever has fewer items is next, a coin decides if both have as many, and who is next puts
    their best item that is not in the list yet behind it. So either list goes first as often, and where both are the same
    every item is each one's with the same chance.

    Args:
        a: The one's ids, best first, or its Ranking. An id that stands twice counts where it stands first.
        b: The other's; it need not have the same candidates. Once one list has nothing new, what the other still has follows
            in its order and is nobody's: with it, the longer list would win by being longer.
        k: How many items to return; None for all.
        seed: Texts that decide the coins, such as salt, user and impression: the same list whenever it is made again.
        rng: The coins, in place of `seed`.
        common_top: What is done with the items at the top on which both agree, place by place. ``draft``: they are drafted as
            all others are. ``nobody``: they are nobody's, and the draft begins behind them. A click there tells nothing of
            which is better, so the test loses no power, but the shares of credit are no longer comparable with published ones.

    Raises:
        InputError: a list is a text or holds what is no text, `k` is below 1, not exactly one of `seed` and `rng` is given, or
            `common_top` is unknown.
    """
    ours, theirs = _ids("a", a), _ids("b", b)
    if k is not None and k < 1:
        raise InputError("must be at least 1", field="k", value=k, fix="or leave it out for all items")
    if common_top not in ("draft", "nobody"):
        raise InputError("unknown", field="common_top", value=common_top, fix="use draft or nobody")
    flips = _coins(seed, rng)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))
    taken: dict[str, Team | None] = dict.fromkeys(one for one, _ in same) if common_top == "nobody" else {}
    left: dict[Team, Iterator[str]] = {"a": iter(ours), "b": iter(theirs)}
    sizes: dict[Team, int] = {"a": 0, "b": 0}
    best = {team: _next(left[team], taken) for team in left}
    while (mine := best["a"]) is not None and (other := best["b"]) is not None:
        first = sizes["a"] < sizes["b"] or (sizes["a"] == sizes["b"] and next(flips))
        team: Team = "a" if first else "b"
        taken[mine if first else other] = team
        sizes[team] += 1
        # Either list's best may be the item that was just taken.
        best = {each: item if item not in taken else _next(left[each], taken) for each, item in best.items()}
    for each, item in best.items():
        if item is not None:
            taken |= dict.fromkeys([item, *(other for other in left[each] if other not in taken)])
    items = tuple(taken)[:k]
    return Interleaved(items, tuple(taken[item] for item in items))


def credit(interleaved: Interleaved, clicked: Collection[str]) -> tuple[int, int]:
    """How many of the clicked items are each one's: (a's, b's). An item clicked twice counts once.

    Args:
        interleaved: What was shown.
        clicked: Ids of the items that the user clicked, or chose otherwise.

    Raises:
        InputError: an id was not shown: the click belongs to another impression.
    """
    if isinstance(clicked, str):
        raise InputError("must be several ids", field="clicked", value=clicked, fix="write [id]")
    teams = dict(zip(interleaved.items, interleaved.teams, strict=True))
    counts = {"a": 0, "b": 0, None: 0}
    for item in dict.fromkeys(clicked):
        if item not in teams:
            raise InputError("was not shown", field="clicked", value=item, fix="join clicks by the impression's id")
        counts[teams[item]] += 1
    return counts["a"], counts["b"]


def _next(ids: Iterator[str], taken: dict[str, Team | None]) -> str | None:
    return next((item for item in ids if item not in taken), None)


def _ids(name: str, ranking: Ranking | Sequence[str]) -> Sequence[str]:
    if isinstance(ranking, Ranking):
        return list(dict.fromkeys(ranking.item_ids))
    if isinstance(ranking, str) or not all(isinstance(item, str) for item in ranking):
        raise InputError("must be ids, best first", field=name, value=ranking, fix="give a list of texts or a Ranking")
    return list(dict.fromkeys(ranking))


def _coins(seed: Sequence[str] | None, rng: random.Random | None) -> Iterator[bool]:
    if (seed is None) == (rng is None):
        raise InputError("is not exactly one", field="seed or rng", fix="give seed=(salt, user, impression), or rng=Random(7)")
    if rng is not None:
        return (rng.random() < 0.5 for _ in iter(int, 1))
    if isinstance(seed, str) or seed is None:
        raise InputError("must be several texts", field="seed", value=seed, fix="write (salt, user, impression)")
    return coins("interleaving", *seed)
