"""Repeated measurements go in; how much of one measurement's variance comes from what (users, prompt, order, chance) comes out.

A user is ranked by several variants (prompts), each time with the candidates presented in several orders, the same ones for all
variants, and with each order asked several times. A measurement is then the sum of a mean and of independent parts that are
shared by those measurements which have in common: the user; the variant; both; the user and the order; all three; nothing. So
half the mean square of the difference of two measurements is the sum of those parts' variances that the two do not share, and
the differences of such means are the variances (the method of moments; Searle, Casella and McCulloch 1992, "Variance
components", chapter 4). In a complete design these are the estimates of the analysis of variance; gaps do no harm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmrank.errors import InputError
from llmrank.evaluation.measures.statistics import Floats, Integers


@dataclass(frozen=True, slots=True)
class Variation:
    """The variance of a single measurement, in parts. None: this design cannot tell it; `notes` say where it is instead.

    An estimate below 0, which chance makes of a part that is small, is given as 0; so the parts may sum to more than `total`.

    Attributes:
        user: Between users: some are easier than others, for every prompt; with that of the order where `order` is None.
            Cancels between variants that rank the same users.
        prompt: Between variants: what one prompt is better than another, on average over all users.
        user_prompt: Of user and variant together: that one prompt is better for some users, another for others. It is what more
            repeats cannot take away: only more users do.
        order: Of the presentation order, alike for all variants. Cancels between variants that are shown the same orders.
        order_prompt: Of the presentation order, different by variant.
        sampling: Between answers to the very same prompt.
        rest: The sum of those parts (of `sampling`, `order_prompt`, `user_prompt`) that the design cannot tell apart, which are
            then None; None if there are none. With one variant and one answer each: of `sampling` and `order`.
        total: Of a single measurement by any variant for any user.
        measurements, users, variants: How many there are.
        notes: What could not be told, a sentence each.
    """

    user: float | None
    prompt: float | None
    user_prompt: float | None
    order: float | None
    order_prompt: float | None
    sampling: float | None
    rest: float | None
    total: float
    measurements: int
    users: int
    variants: int
    notes: tuple[str, ...] = ()

    def difference_sd(self, orders: int = 1, samples: int = 1) -> float | None:
        """The standard deviation of a user's paired difference of two variants, for `statistics.sample_size` and
        `minimum_detectable_effect`: what so many repeats would make of it.

        Args:
            orders: Presentation orders a user, the same for both variants.
            samples: Answers to each of them.

        Returns:
            None if the design cannot tell what repeats would take away.
        """
        if self.user_prompt is None or self.order_prompt is None or self.sampling is None:
            return None
        return math.sqrt(2 * (self.user_prompt + (self.order_prompt + self.sampling / samples) / orders))


def components(values: ArrayLike, users: ArrayLike, orders: ArrayLike, samples: ArrayLike, variants: ArrayLike) -> Variation:
    """Splits the variance of measurements.

    Args:
        values: Shape (n,): one measurement each, such as NDCG@10; NaN is left out.
        users: Shape (n,): whose it is, any ids.
        orders: Shape (n,): which presentation order; ids are a user's own, and the same for all variants.
        samples: Shape (n,): which of the repeated answers.
        variants: Shape (n,): by which variant.

    Raises:
        InputError: the shapes do not fit, a value is infinite, or a measurement stands there twice.
    """
    given = np.asarray(values, dtype=np.float64)
    labels = {"users": users, "orders": orders, "samples": samples, "variants": variants}
    codes: dict[str, Integers] = {}
    for name, label in labels.items():
        if given.ndim != 1 or np.shape(label) != given.shape:
            raise InputError("must be one a value", field=name, value=np.shape(label), fix=f"values has {given.shape}")
        codes[name] = np.unique(np.asarray(label), return_inverse=True)[1]
    if np.isinf(given).any():
        raise InputError("must be finite", field="values", value=math.inf, fix="write NaN where a value is not defined")
    known = ~np.isnan(given)
    y = given[known]
    user, order, sample, variant = (codes[name][known] for name in ("users", "orders", "samples", "variants"))
    if len(np.unique(_together(user, order, sample, variant))) < len(y):
        fix = "number the answers to one prompt"
        raise InputError("must tell the answers to one prompt apart", field="samples", fix=fix)
    return _split(_Pairs(y - y.mean() if len(y) else y), user, order, variant)


class _Pairs:
    """Pairs of measurements that have something in common: how many, and the sum of the squares of their differences."""

    def __init__(self, y: Floats) -> None:
        self.y = y

    def sharing(self, *labels: Integers) -> Floats:
        """Of all pairs that share all of these labels: (number, sum of squares)."""
        codes = np.unique(_together(*labels), return_inverse=True)[1] if labels else np.zeros(len(self.y), dtype=np.intp)
        sizes = np.bincount(codes).astype(np.float64)
        sums, squares = np.bincount(codes, self.y), np.bincount(codes, self.y**2)
        return np.array([(sizes * (sizes - 1) / 2).sum(), (sizes * squares - sums**2).sum()])


def _split(pairs: _Pairs, user: Integers, order: Integers, variant: Integers) -> Variation:
    all_ = pairs.sharing()
    by_user, by_variant, by_both = pairs.sharing(user), pairs.sharing(variant), pairs.sharing(user, variant)
    by_order, by_all = pairs.sharing(user, order), pairs.sharing(user, order, variant)
    # Half the mean square difference of pairs that share just this is the sum of the parts that they do not share. It is NaN,
    # and so is what is made of it, where the design has no such pair.
    answers = _half(by_all)  # sampling
    orders = _half(by_both - by_all)  # sampling + order_prompt + order
    across = _half(by_order - by_all)  # sampling + order_prompt + user_prompt + prompt
    within = _half(by_user - by_both - by_order + by_all)  # sampling + order_prompt + user_prompt + prompt + order
    between = _half(by_variant - by_both)  # sampling + order_prompt + user_prompt + order + user
    total = _half(all_ - by_user - by_variant + by_both)  # all six
    repeats, shuffles = not math.isnan(answers), not math.isnan(orders)
    single, alone = bool((variant == variant[:1]).all()), bool((user == user[:1]).all())
    nan = math.nan
    prompt = user_prompt = order_prompt = rest = nan
    if single:
        total = between
        order_part = orders - answers
        lowest = orders if shuffles else answers
        user_part = between - lowest
        if not repeats:
            rest = orders if shuffles else between
    else:
        prompt = total - between
        order_part = within - across
        three = across - prompt  # sampling + order_prompt + user_prompt
        two = orders - order_part  # sampling + order_prompt
        order_prompt = two - answers
        user_prompt = three - two
        user_part = between - three - (order_part if shuffles else 0.0)
        if not (repeats and shuffles):
            rest = two if shuffles else three - answers if repeats else three
    return Variation(
        user=_told(user_part),
        prompt=_told(prompt),
        user_prompt=_told(user_prompt),
        order=_told(order_part),
        order_prompt=_told(order_prompt),
        sampling=_told(answers),
        rest=_told(rest),
        total=total,
        measurements=len(pairs.y),
        users=len(np.unique(user)),
        variants=len(np.unique(variant)),
        notes=_notes(single, alone, repeats, shuffles),
    )


def _told(part: float) -> float | None:
    """None where the design cannot tell it; chance does not make a variance negative."""
    return None if math.isnan(part) else max(0.0, part)


def _notes(single: bool, alone: bool, repeats: bool, shuffles: bool) -> tuple[str, ...]:
    """What the design cannot tell, in words."""
    notes = []
    if alone:
        notes.append("There is one user, so nothing can be said of users, nor of what a variant is worth for others.")
    if single:
        notes.append("There is one variant, so what depends on the prompt cannot be told; it is part of user and order.")
    if not shuffles:
        notes.append(
            "Every user has one presentation order, so what depends on it cannot be told: it is part of user, and of rest."
        )
    if not repeats:
        notes.append("Every prompt was answered once, so sampling cannot be told: it is part of rest.")
    return tuple(notes)


def _half(pairs: Floats) -> float:
    """Half the mean square of the differences; NaN without a pair."""
    return float(pairs[1] / pairs[0] / 2) if pairs[0] > 0.5 else math.nan


def _together(*labels: Integers) -> Integers:
    """One number for each combination."""
    codes = labels[0]
    for label in labels[1:]:
        codes = np.unique(codes * (int(label.max(initial=0)) + 1) + label, return_inverse=True)[1]
    return codes
