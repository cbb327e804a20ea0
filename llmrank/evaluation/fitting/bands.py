"""Lengths of histories at which weights may change go in; bands with enough users each come out, and users in folds."""

from __future__ import annotations

import random
from collections.abc import Sequence

from llmrank.evaluation.fitting.example import Example
from llmrank.evaluation.report.numbers import bin_label

Bounds = tuple[int | None, ...]
"""The longest history of each band, in rising order; None for the last, which has no end."""


def band_of(length: int, bounds: Bounds) -> int:
    """The number of the band that a history of so many events falls into."""
    return next(place for place, bound in enumerate(bounds) if bound is None or length <= bound)


def labels_of(bounds: Bounds) -> tuple[str, ...]:
    """The bands for people: ``0``, ``1–5``, ``6+``."""
    firsts = [0, *(bound + 1 for bound in bounds if bound is not None)]
    return tuple(bin_label(first, bound) for first, bound in zip(firsts, bounds, strict=True))


def usable(examples: Sequence[Example], ends: Sequence[int], least: int) -> tuple[Bounds, tuple[str, ...]]:
    """Bands in which no fewer than `least` users are, as far as there are so many.

    From the shortest histories on, a band with fewer is merged with the next longer one, the last with the one before.

    Args:
        examples: Whose histories are counted.
        ends: The longest history of each band but the last.
        least: How many users a band needs.

    Returns:
        The bands, and a sentence for each merger.
    """
    bounds: list[int | None] = [*ends, None]
    notes = []
    place = 0
    while place < len(bounds) and len(bounds) > 1:
        users = {each.user_id for each in examples if band_of(each.history_length, tuple(bounds)) == place}
        if len(users) >= least:
            place += 1
            continue
        labels = labels_of(tuple(bounds))
        other = place + 1 if place + 1 < len(bounds) else place - 1
        del bounds[min(place, other)]
        notes.append(
            f"only {len(users)} users have histories of {labels[place]} events, fewer than {least}: "
            f"they share weights with those of {labels[other]}"
        )
        place = min(place, other)
    return tuple(bounds), tuple(notes)


def folds_of(examples: Sequence[Example], folds: int, seed: int) -> list[int]:
    """The fold of each example, from 0; all of a user's are in one, and users are dealt out evenly.

    It depends on the users and the seed alone, not on the order of the examples.
    """
    users = sorted({example.user_id for example in examples})
    random.Random(seed).shuffle(users)  # noqa: S311  # a draw that is to be the same again, not a secret
    fold = {user: place % folds for place, user in enumerate(users)}
    return [fold[example.user_id] for example in examples]
