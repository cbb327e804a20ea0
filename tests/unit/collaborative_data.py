"""Small interactions for tests of collaborative models, and requests about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.interactions import Interaction, Interactions
from llmrank.retrieval.collaborative import MODEL_KINDS, CollaborativeModel, train
from llmrank.types import Event, Item, ResolvedRequest

QUICK: Mapping[str, Mapping[str, Any]] = {
    "als": {"factors": 4, "iterations": 5, "threads": 1},
    "bpr": {"factors": 4, "iterations": 10},
    "ease": {"l2": 1.0},
}
"""Options that make a kind train in no time."""


def options_of(kind: str, **changes: Any) -> Any:
    """The kind's options, quick ones."""
    return MODEL_KINDS[kind].options_type(**{**QUICK.get(kind, {}), **changes})


def trained(kind: str, interactions: Interactions, **changes: Any) -> CollaborativeModel[Any]:
    """A quick model."""
    return train(kind, interactions, options_of(kind, **changes))


def of_histories(histories: Mapping[str, Sequence[str]]) -> Interactions:
    """What each user chose, oldest first, a day apart."""
    rows = [Interaction(user, item, 86_400.0 * place) for user, items in histories.items() for place, item in enumerate(items)]
    return Interactions.of(rows)


def random_interactions(users: int, items: int, seed: int = 0) -> Interactions:
    """Users of two tastes: each mostly chooses items of one half. Some items stand twice in a history."""
    random = np.random.default_rng(seed)
    histories = {}
    for user in range(users):
        half = user % 2 * (items // 2)
        own = half + random.integers(0, items // 2, size=int(random.integers(1, 12)))
        other = random.integers(0, items, size=int(random.integers(0, 3)))
        histories[f"u{user}"] = [f"i{item}" for item in np.concatenate([own, other]).tolist()]
    return of_histories(histories)


def asked(history: Iterable[str], candidates: Sequence[Item], user_id: str | None = None) -> ResolvedRequest:
    """A request of items whose titles say nothing."""
    return ResolvedRequest(tuple(Event(Item(each, "")) for each in history), candidates, user_id=user_id)


def scores(
    model: CollaborativeModel[Any], history: Iterable[str], candidates: Iterable[str], user_id: str | None = None
) -> NDArray[np.float32]:
    """What a model thinks of items by their ids."""
    items = [Item(each, "") for each in candidates]
    return model.score(asked(history, items, user_id), items)
