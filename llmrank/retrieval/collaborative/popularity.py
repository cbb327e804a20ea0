"""Interactions go in, how many users chose each item comes out; recent choices may count more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import ConfigError
from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.model import CollaborativeModel, Learned
from llmrank.retrieval.collaborative.options import check_number
from llmrank.retrieval.collaborative.rows import checked
from llmrank.retrieval.collaborative.storage import learned_from
from llmrank.retrieval.vectors import Progress, Rows, Vectors

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class PopularityOptions:
    """How users are counted.

    Args:
        half_life_days: A choice that is so many days older than the newest of all counts half; null counts all alike.
    """

    half_life_days: float | None = None

    def __post_init__(self) -> None:
        check_number("popularity.half_life_days", self.half_life_days, above=True, optional=True, fix="try 90, or null")


class Popularity(CollaborativeModel[PopularityOptions]):
    """The natural logarithm of 1 + the number of users who chose an item, each at their latest choice of it.

    The logarithm changes no order; in a sum with other scores it keeps the few most popular items from drowning all else.
    """

    kind: ClassVar[str] = "popularity"
    options_type: ClassVar[type[Any]] = PopularityOptions

    def __init__(
        self, index: ItemIndex, options: PopularityOptions, learned: Learned, users: Vectors, *, name: str | None = None
    ) -> None:
        super().__init__(index, options, learned, name=name)
        self._users = users
        self._scores = np.append(np.log1p(users), np.float32(0.0))  # the last place is that of the column -1

    @classmethod
    def train(cls, interactions: Interactions, options: PopularityOptions, progress: Progress | None = None) -> Self:
        """Counts. Raises ConfigError for a half-life where the interactions have no times."""
        width = len(interactions.items)
        pairs, pair = np.unique(interactions.user.astype(np.int64) * width + interactions.item, return_inverse=True)
        weights = None
        if options.half_life_days is not None:
            if interactions.timestamp is None:
                raise ConfigError(
                    f"{interactions.name} has no times, so nothing is older than anything else",
                    field="popularity.half_life_days",
                    value=options.half_life_days,
                    fix="leave it out, or give interactions with timestamps",
                )
            latest = np.full(len(pairs), -np.inf)
            np.maximum.at(latest, pair, interactions.timestamp)
            weights = np.exp2((latest - latest.max()) / (DAY * options.half_life_days))
        users = np.bincount(pairs % width, weights, minlength=width).astype(np.float32)
        return cls(ItemIndex(interactions.items), options, learned_from(interactions), users)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The count of each item."""
        return {"users": self._users}

    @classmethod
    def from_arrays(
        cls, index: ItemIndex, options: PopularityOptions, learned: Learned, arrays: Mapping[str, NDArray[Any]]
    ) -> Self:
        """From the counts."""
        users = checked(arrays["users"], np.float32, (len(index),))
        if (users < 0).any():
            raise ValueError("a count is below zero")
        return cls(index, options, learned, users)

    def scores_of(self, history: Rows, columns: Rows, user_id: str | None) -> Vectors:
        """The same for everyone."""
        return self._scores[columns]
