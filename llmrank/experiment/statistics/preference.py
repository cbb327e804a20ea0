"""The credits of two interleaved rankers go in; which one users prefer, by how much and how surely, comes out.

The credits are those of an interleaving such as team draft: how many clicks fell on items that each of the two had put into
the list that was shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmrank.errors import InputError
from llmrank.evaluation.measures.statistics import paired_differences


@dataclass(frozen=True, slots=True)
class Preference:
    """Whom the users' clicks prefer.

    Attributes:
        delta: Delta_AB: the part of the impressions with any credit that the variant wins, a tie counting half, minus a half.
            From -0.5 (the control wins all) to 0.5 (the variant does). NaN if no impression has any credit.
        low, high: Its interval by users; NaN with fewer than two.
        p: Two-sided, of the sign-flip test over users; NaN if no impression has any credit.
        wins, ties, losses: Impressions in which the variant has more credit, as much (not 0), less.
        impressions: All, also those without a credit, which say nothing and count in no other figure.
        users: Who has at least one impression with a credit.
    """

    delta: float
    low: float
    high: float
    p: float
    wins: int
    ties: int
    losses: int
    impressions: int
    users: int


def interleaving_preference(
    value: ArrayLike,
    control: ArrayLike,
    users: Sequence[object] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    permutations: int = 9999,
    seed: int = 0,
) -> Preference:
    """Delta_AB of Chapelle, Joachims, Radlinski and Yue 2012, "Large-scale validation and analysis of interleaved search
    evaluation", with a BCa bootstrap interval and a sign-flip test (`paired_differences`), both by whole users.

    If users do not care, a draw that had given the variant's items to the control would have been as likely, so all outcomes
    of a user might as well have had the other sign.

    Args:
        value: Shape (impressions,): the credit of the variant under test.
        control: The control's, for the same impressions.
        users: Shape (impressions,): who saw each; None for each impression a user of its own.
        confidence: Of the interval.
        resamples: How many the interval takes.
        permutations: How many ways to flip are drawn.
        seed: Of both.

    Raises:
        ConfigError: an option is out of range.
        InputError: the shapes do not fit, or a credit is negative or not finite.
    """
    ours, theirs = np.asarray(value, dtype=np.float64), np.asarray(control, dtype=np.float64)
    if ours.ndim != 1 or theirs.shape != ours.shape:
        fix = "give one credit an impression for both"
        raise InputError("must have one dimension and the shape of value", field="control", value=theirs.shape, fix=fix)
    if users is not None and len(users) != len(ours):
        fix = f"give one for each of the {len(ours)} impressions"
        raise InputError("must be one an impression", field="users", value=len(users), fix=fix)
    for name, credit in (("value", ours), ("control", theirs)):
        if not (np.isfinite(credit).all() and (credit >= 0).all()):
            raise InputError("must be 0 or more", field=name, fix="count the clicks that a team gets")
    said = np.flatnonzero((ours > 0) | (theirs > 0))
    halves = np.sign(ours - theirs)[said, None] / 2
    found = paired_differences(
        halves,
        np.zeros_like(halves),
        None if users is None else np.unique(np.asarray(users), return_inverse=True)[1][said],
        confidence=confidence,
        resamples=resamples,
        permutations=permutations,
        seed=seed,
    )[0]
    return Preference(
        delta=found.mean,
        low=found.low,
        high=found.high,
        p=found.p,
        wins=found.wins,
        ties=found.ties,
        losses=found.losses,
        impressions=len(ours),
        users=found.clusters,
    )
