"""A number of variants and a budget go in, the rounds of a race between them come out; means go in, who stays in comes out.

Most of many prompts are soon seen not to be the best. Successive halving (Karnin, Koren and Somekh 2013, "Almost optimal
exploration in multi-armed bandits"; Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization") spends an equal part of the budget in every round and lets the better half go on, so that the last ones are
compared on far more users than all could have been. Unlike there, no answer is thrown away: the users of a round are those of
the round before and more, the first ones of one frozen order.

Only contenders race. The control is not one of them, and the winner's figure here is too good on average, for it was chosen
for being high: what it is worth is measured afterwards, on other users, against the control.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llmrank.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Round:
    """One round of the race.

    Attributes:
        contenders: How many variants are in it.
        users: How many users, the first ones of the frozen order, each of them ranks by the end of it: those of the rounds
            before included.
    """

    contenders: int
    users: int


def schedule(variants: int, budget: int, *, keep: float = 0.5, least: int = 20, users: int | None = None) -> tuple[Round, ...]:
    """The rounds, first to last; the best of the last one is the winner.

    Each round gets an equal part of the budget that is left. What rounding down leaves over is spent in the last one.

    Args:
        variants: How many contenders; the control does not count.
        budget: How many development rankings may be made in all: one is one variant's ranking for one user. (Repeats of a
            user multiply what it costs.) The rounds never take more.
        keep: The part of the contenders that goes on to the next round, rounded up, but never all of them.
        least: How many users the first round has at least; fewer say nothing.
        users: How many development users there are; None if that is no limit. When a round has them all, it is the last.

    Returns:
        No round for fewer than two variants: there is nothing to choose.

    Raises:
        ConfigError: an argument is out of range, or the budget (or the users) do not suffice for the first round.
    """
    if not 0 < keep < 1:
        raise ConfigError("must be between 0 and 1", field="keep", value=keep, fix="0.5 lets the better half go on")
    if least < 1:
        raise ConfigError("must be at least 1", field="least", value=least, fix="20 is usual")
    if variants < 2:
        return ()
    if users is not None and users < least:
        fix = f"take at least {least} development users, or set `least` to no more than there are"
        raise ConfigError("must be at least `least`", field="users", value=users, fix=fix)
    if budget < variants * least:
        fix = f"{variants} variants x {least} users (`least`) are {variants * least} rankings"
        raise ConfigError("does not suffice for the first round", field="budget", value=budget, fix=fix)
    contenders = [variants]
    while (following := next_contenders(contenders[-1], keep)) > 1:
        contenders.append(following)
    rounds: list[Round] = []
    left, reached = budget, 0
    for place, count in enumerate(contenders):
        more = left // ((len(contenders) - place) * count)
        reached += max(more, least) if not rounds else more
        if users is not None:
            reached = min(reached, users)
        left -= count * (reached - (rounds[-1].users if rounds else 0))
        rounds.append(Round(count, reached))
        if reached == users:
            break
    return tuple(rounds)


def next_contenders(contenders: int, keep: float = 0.5) -> int:
    """How many of the contenders of a round go on: `keep` of them, rounded up, but at least one fewer and at least one."""
    return max(1, min(contenders - 1, math.ceil(contenders * keep - 1e-9)))  # 30 * 0.1 is not quite 3


def rankings(rounds: tuple[Round, ...]) -> int:
    """How many rankings these rounds take in all, with every earlier answer used again."""
    before = 0
    total = 0
    for each in rounds:
        total += each.contenders * (each.users - before)
        before = each.users
    return total


def survivors(means: Mapping[str, float], keep: int) -> tuple[str, ...]:
    """Which variants go on: those with the highest means, best first.

    Args:
        means: By variant; all over the same users. Of equal ones, the one that stands first is taken. NaN is below all.
        keep: How many.

    Raises:
        ConfigError: `keep` is less than 1 or more than there are.
    """
    if not 1 <= keep <= len(means):
        raise ConfigError(f"must be from 1 to {len(means)}", field="keep", value=keep, fix="as many as take part, or fewer")
    ordered = sorted(means, key=lambda name: -math.inf if math.isnan(means[name]) else means[name], reverse=True)
    return tuple(ordered[:keep])
