"""Repeated measurements of the same users go in; how much of their variance is users, prompts, orders and sampling comes out.

The design: every variant (prompt) is asked about every user in the same presentation orders, and answers each order a number of
times. A value is then

    mean + user + prompt + (user x prompt) + order (of one user and prompt) + sampling,

a mixed model whose variance components are estimated by the method of moments: expected mean squares of the nested analysis of
variance (Searle, Casella and McCulloch 1992, "Variance Components", chapter 4). The prompt is a fixed effect: its component is
the variance of the variants' true means, not of a population that they were drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrank.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Variation:
    """Variance components of one single measurement, in squared units of the measure.

    Attributes:
        user: Users differ: some are easy for every prompt. Pairing by user takes this away.
        prompt: The variants' means differ.
        interaction: A prompt helps some users more than others.
        order: The order in which the candidates are shown matters; with one order it is None, and part of `interaction`.
        sampling: The same prompt is answered otherwise; with one sample it is None, and part of `order`.
        users, prompts, orders, samples: How many of each.

    An estimate below 0, which comes about where the true component is small, is given as 0.
    """

    user: float
    prompt: float
    interaction: float
    order: float | None
    sampling: float | None
    users: int
    prompts: int
    orders: int
    samples: int

    @property
    def total(self) -> float:
        """The variance of one measurement: the sum of what could be told apart."""
        return self.user + self.prompt + self.interaction + (self.order or 0.0) + (self.sampling or 0.0)

    def share(self, component: float | None) -> float:
        """A component as a part of the total; NaN where it is not known or there is no variance."""
        return math.nan if component is None or not self.total else component / self.total

    def error(self, *, orders: int | None = None, samples: int | None = None) -> float:
        """The standard error of a difference of two prompts' means, with the same users.

        It says what more repeats of each user would bring, as against more users.

        Args:
            orders: How many orders each user would be asked in; None for as many as there were.
            samples: How many answers to each; None for as many as there were.
        """
        orders, samples = orders or self.orders, samples or self.samples
        within = (self.order or 0.0) / orders + (self.sampling or 0.0) / (orders * samples)
        return math.sqrt(2 * (self.interaction + within) / self.users)


def components(values: ArrayLike, users: ArrayLike, orders: ArrayLike, samples: ArrayLike, variants: ArrayLike) -> Variation:
    """The variance components of a measure.

    Args:
        values: Shape (n,): one measurement each, no NaN.
        users, orders, samples, variants: Shape (n,): which user, presentation order, sample and variant a value is of. Every
            variant has every user, and each of these pairs as many orders, and each order as many samples, as any other; a
            user with several cases has as many orders the more, and such users are cut to the fewest that any has.

    Raises:
        InputError: the shapes do not fit, a value is not finite, there are fewer than two users or variants, or some
            combination is missing.
    """
    table = _table(values, users, orders, samples, variants)
    n_users, n_prompts, n_orders, n_samples = table.shape
    cells = table.mean(axis=(2, 3))
    of_orders = table.mean(axis=3)
    of_users, of_prompts, grand = cells.mean(axis=1), cells.mean(axis=0), float(cells.mean())
    size = n_orders * n_samples
    residue = cells - of_users[:, None] - of_prompts[None, :] + grand
    mean_squares = {
        "user": size * n_prompts * float(((of_users - grand) ** 2).sum()) / (n_users - 1),
        "prompt": size * n_users * float(((of_prompts - grand) ** 2).sum()) / (n_prompts - 1),
        "both": size * float((residue**2).sum()) / ((n_users - 1) * (n_prompts - 1)),
        "order": math.nan,
        "sample": math.nan,
    }
    if n_orders > 1:
        squares = float(((of_orders - cells[:, :, None]) ** 2).sum())
        mean_squares["order"] = n_samples * squares / (n_users * n_prompts * (n_orders - 1))
    if n_samples > 1:
        squares = float(((table - of_orders[..., None]) ** 2).sum())
        mean_squares["sample"] = squares / (n_users * n_prompts * n_orders * (n_samples - 1))
    # Each mean square holds the components within it, and as many times its own as there are values in it.
    sampling = mean_squares["sample"] if n_samples > 1 else None
    order = None
    if n_orders > 1:
        order = max(0.0, (mean_squares["order"] - (sampling or 0.0)) / n_samples)
    within = mean_squares["order"] if n_orders > 1 else (sampling or 0.0)
    interaction = max(0.0, (mean_squares["both"] - within) / size)
    return Variation(
        user=max(0.0, (mean_squares["user"] - mean_squares["both"]) / (size * n_prompts)),
        prompt=max(0.0, (mean_squares["prompt"] - mean_squares["both"]) / (size * n_users)) * (n_prompts - 1) / n_prompts,
        interaction=interaction,
        order=order,
        sampling=sampling,
        users=n_users,
        prompts=n_prompts,
        orders=n_orders,
        samples=n_samples,
    )


def _table(values: ArrayLike, users: ArrayLike, orders: ArrayLike, samples: ArrayLike, variants: ArrayLike) -> Floats:
    """The values, shape (users, variants, orders, samples)."""
    column = np.asarray(values, dtype=np.float64)
    keys = [np.asarray(each) for each in (users, variants, orders, samples)]
    if column.ndim != 1 or any(each.shape != column.shape for each in keys):
        shapes = [column.shape, *(each.shape for each in keys)]
        raise InputError("must all have one dimension and one length", field="values", value=shapes, fix="a row a measurement")
    if not np.isfinite(column).all():
        raise InputError("must be finite", field="values", fix="leave such users out")
    codes = [np.unique(each, return_inverse=True)[1] for each in keys]
    n_users, n_variants = (int(each.max()) + 1 if len(each) else 0 for each in codes[:2])
    for name, count in (("users", n_users), ("variants", n_variants)):
        if count < 2:
            raise InputError("must be two at least", field=name, value=count, fix="give more of them")
    order = np.lexsort((np.arange(len(column)), codes[3], codes[2], codes[1], codes[0]))
    n_samples = int(codes[3].max()) + 1
    pairs = codes[0][order] * n_variants + codes[1][order]
    sizes = np.bincount(pairs, minlength=n_users * n_variants)
    least = int(sizes.min())
    if not least or least % n_samples:
        fix = "give every variant every user, with as many orders and samples"
        raise InputError("some combination is missing", field="values", value=least, fix=fix)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    # Sorted by order and then by sample; the first ones of each pair are whole orders only if samples stand together.
    rows = order[(starts[:, None] + np.arange(least)[None, :]).ravel()]
    return column[rows].reshape(n_users, n_variants, least // n_samples, n_samples)
