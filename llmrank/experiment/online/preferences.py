"""Interleaved lists and the clicks on them go in; which variant users prefer, and how surely, comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from llmrank.evaluation.measures.statistics import holm
from llmrank.experiment.online.event import Event
from llmrank.experiment.statistics.betting import BoundedSequence
from llmrank.experiment.statistics.preference import Preference, interleaving_preference


@dataclass(frozen=True, slots=True)
class Interleaving:
    """What the lists of one pair of variants say.

    Attributes:
        variant, control: The pair; `control` is the experiment's, if it is one of them.
        impressions: Lists that were shown.
        users: Who has at least one list with a credit.
        wins, ties, losses: Lists in which the variant has more credit, as much (not 0), less.
        delta: The part of the lists with a credit that the variant wins, a tie counting half, minus a half; NaN without one.
        low, high, p: Always valid: the mean over users of the same figure; p that it is 0.
        adjusted: p, corrected for the number of pairs.
        fixed: Of the planned users; None before they are there.
        fixed_adjusted: Its p value, corrected for the number of pairs; NaN without one.
    """

    variant: str
    control: str
    impressions: int
    users: int
    wins: int
    ties: int
    losses: int
    delta: float
    low: float
    high: float
    p: float
    adjusted: float = math.nan
    fixed: Preference | None = None
    fixed_adjusted: float = math.nan


@dataclass(slots=True)
class _List:
    """One list as it was shown, and the credits so far."""

    teams: dict[str, str | None]
    variants: dict[str, str]
    unit: str
    credits: dict[str, int]
    clicked: float = math.inf


def interleavings(
    impressions: Iterable[Event],
    clicks: Iterable[Event],
    control: str,
    order: Sequence[str],
    *,
    planned: int | None,
    early: float,
    late: float,
) -> tuple[tuple[Interleaving, ...], int]:
    """The pairs' preferences, and how many clicks fit no list.

    Users come in the order of their first click that earned a credit.

    Args:
        impressions: In any order.
        clicks: Each item of a list once.
        control: The experiment's control.
        order: The variants, in the experiment's order.
        planned: After how many users with a credit the tests of a fixed sample are made; None for never.
        early, late: The levels of both ways to read.
    """
    lists = {
        (event.unit, event.about["impression"]): _List(
            dict(zip(event.about["items"], event.about["teams"], strict=True)),
            dict(event.about["variants"]),
            event.unit,
            {"a": 0, "b": 0},
        )
        for event in impressions
    }
    stray = 0
    for click in clicks:
        shown = lists.get((click.unit, click.about["impression"]))
        if shown is None or click.about["item"] not in shown.teams:
            stray += 1
            continue
        team = shown.teams[click.about["item"]]
        if team is not None:
            shown.credits[team] += 1
            shown.clicked = min(shown.clicked, click.time)
    pairs: dict[tuple[str, str], list[_List]] = {}
    for shown in lists.values():
        names = sorted(shown.variants.values(), key=order.index)
        variant = next(name for name in reversed(names) if name != control)
        pairs.setdefault((variant, next(name for name in names if name != variant)), []).append(shown)
    found = [_pair(*pair, pairs[pair], planned, early, late) for pair in sorted(pairs, key=lambda each: order.index(each[0]))]
    early_ps = holm([each.p for each in found])
    late_ps = holm([math.nan if each.fixed is None else each.fixed.p for each in found])
    corrected = [
        replace(each, adjusted=one, fixed_adjusted=two) for each, one, two in zip(found, early_ps, late_ps, strict=True)
    ]
    return tuple(corrected), stray


def _pair(variant: str, control: str, lists: Sequence[_List], planned: int | None, early: float, late: float) -> Interleaving:
    users: dict[str, list[tuple[int, int]]] = {}
    for shown in sorted((each for each in lists if any(each.credits.values())), key=lambda each: each.clicked):
        team = next(team for team, name in shown.variants.items() if name == variant)
        credit = shown.credits[team], shown.credits["b" if team == "a" else "a"]
        users.setdefault(shown.unit, []).append(credit)
    halves = [[_half(*credit) for credit in some] for some in users.values()]
    every = [half for some in halves for half in some]
    sequence = BoundedSequence(-0.5, 0.5, confidence=1 - early) if early else None
    if sequence is not None and halves:
        sequence.extend([math.fsum(some) / len(some) for some in halves])
    fixed = None
    if planned is not None and len(users) >= planned:
        chosen = [(unit, credit) for unit in list(users)[:planned] for credit in users[unit]]
        fixed = interleaving_preference(
            [credit[0] for _, credit in chosen],
            [credit[1] for _, credit in chosen],
            [unit for unit, _ in chosen],
            confidence=1 - late,
        )
    return Interleaving(
        variant=variant,
        control=control,
        impressions=len(lists),
        users=len(users),
        wins=sum(half > 0 for half in every),
        ties=sum(half == 0 for half in every),
        losses=sum(half < 0 for half in every),
        delta=math.fsum(every) / len(every) if every else math.nan,
        low=sequence.low if sequence is not None else -0.5,
        high=sequence.high if sequence is not None else 0.5,
        p=sequence.p if sequence is not None else math.nan,
        fixed=fixed,
    )


def _half(ours: int, theirs: int) -> float:
    return 0.5 if ours > theirs else -0.5 if ours < theirs else 0.0
