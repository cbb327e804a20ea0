"""Lists of candidates with what is relevant, and a sum for each candidate, go in; the NDCG of each list comes out.

Candidates with equal sums share the gains of their places: a list counts as it would on average over all orders of them
(McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of tied scores", ECIR
2008). So no way to break ties, and no order in which candidates happen to stand, can look like skill.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.evaluation.fitting.example import Example

Floats: TypeAlias = NDArray[np.float64]

TIED = 1e-12
"""Sums that differ by no more differ by rounding only; what parts give is about 1."""

MOST_NUMBERS = 1 << 22
"""How many sums are compared at once: it bounds the memory (8 bytes each, a few times over)."""


class Lists:
    """The lists of examples, side by side.

    Args:
        examples: At least one.
        k: The places that count; None for all.
    """

    def __init__(self, examples: Sequence[Example], k: int | None) -> None:
        counts = np.array([len(example.relevant) for example in examples])
        self.shape = (len(examples), int(counts.max()))
        self.present: NDArray[np.bool_] = np.arange(self.shape[1]) < counts[:, None]
        relevant = padded([example.relevant for example in examples], self.shape) > 0
        self._rows, self._places = np.nonzero(relevant)
        wanted = relevant.sum(axis=1) + [example.missed for example in examples]
        discounts = 1 / np.log2(np.arange(2, 2 + max(self.shape[1], int(wanted.max()))))
        if k is not None:
            discounts[k:] = 0
        self._gained = np.concatenate([[0.0], np.cumsum(discounts)])  # by the first so many places, if all are relevant
        self._ideal = np.where(wanted > 0, self._gained[wanted], 1.0)

    def ndcg(self, sums: Floats) -> Floats:
        """The NDCG of each list, shape (lists,); 0 where nothing is relevant.

        Args:
            sums: Shape `shape`; what stands behind a list's last candidate is not looked at.
        """
        return np.bincount(self._rows, self._gains(sums), minlength=self.shape[0]) / self._ideal

    def means(self, sums: Floats) -> Floats:
        """The mean NDCG of each of several ways to order the lists, shape (ways,).

        Args:
            sums: Shape (ways, lists, candidates).
        """
        together = max(1, MOST_NUMBERS // max(1, len(self._rows) * self.shape[1]))
        chunks = [self._gains(sums[start : start + together]) for start in range(0, len(sums), together)]
        found: Floats = np.concatenate(chunks) @ (1 / self._ideal[self._rows]) / self.shape[0]
        return found

    def _gains(self, sums: Floats) -> Floats:
        """What each relevant candidate gains, shape (..., relevant candidates)."""
        rivals = np.where(self.present, sums, -np.inf)[..., self._rows, :]
        own = sums[..., self._rows, self._places][..., None]
        better = (rivals > own + TIED).sum(axis=-1)
        up_to = (rivals >= own - TIED).sum(axis=-1)  # with those that are tied with it, and itself
        gains: Floats = (self._gained[up_to] - self._gained[better]) / (up_to - better)
        return gains


def padded(rows: Sequence[Sequence[float]], shape: tuple[int, int]) -> Floats:
    """Rows of several lengths as one array, with zeros behind them."""
    table = np.zeros(shape)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table
