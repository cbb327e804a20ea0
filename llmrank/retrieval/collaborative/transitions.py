"""Interactions go in, which item follows which comes out: directed, as far as a window reaches.

Sequential rules: Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", User Modeling and User-Adapted
Interaction 28, 2018. A first-order Markov chain if the window is 1: Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing
personalized Markov chains for next-basket recommendation", WWW 2010.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.histories import histories_of, scipy_sparse
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.neighbours import ItemToItem
from llmrank.retrieval.collaborative.options import check_number, check_whole
from llmrank.retrieval.collaborative.rows import SparseRows, best_of_each
from llmrank.retrieval.collaborative.storage import learned_from
from llmrank.retrieval.vectors import Progress


@dataclass(frozen=True, slots=True)
class TransitionsOptions:
    """What counts as following, and what of a history counts.

    Args:
        window: How many events later an item may still come.
        distance_exponent: An item that comes d events later counts d^-this; 0 lets all in the window count alike.
        backward: How much an item that came before counts as one that comes after; in [0, 1], 1 forgets the direction.
        neighbours: How many of the items that follow are kept for each.
        shrinkage: Added to the denominator: what few users vouch for shrinks towards 0.
        popularity_exponent: The power of the candidate's number of events in the denominator.
        decay: The weight of a history event is decay^age, the last one having age 0; in (0, 1].
        last: How many history events, the most recent that the model knows, count; null for all.
    """

    window: int = 30
    distance_exponent: float = 0.5
    backward: float = 0.5
    neighbours: int = 2000
    shrinkage: float = 10.0
    popularity_exponent: float = 0.3
    decay: float = 0.9
    last: int | None = 50

    def __post_init__(self) -> None:
        check_whole("transitions.window", self.window)
        check_number("transitions.distance_exponent", self.distance_exponent)
        check_number("transitions.backward", self.backward, most=1.0)
        check_whole("transitions.neighbours", self.neighbours)
        check_number("transitions.shrinkage", self.shrinkage)
        check_number("transitions.popularity_exponent", self.popularity_exponent, most=1.0)
        check_number("transitions.decay", self.decay, most=1.0, above=True)
        check_whole("transitions.last", self.last, optional=True)


class Transitions(ItemToItem[TransitionsOptions]):
    """The sum over the history's last events of decay^age times how much the candidate follows each.

    How much candidate j follows item i: ``t / (n_i^0.5 * n_j^popularity_exponent + shrinkage)``, where n is the number of an
    item's events and t the sum of ``distance^-distance_exponent`` over all places where j comes at most `window` events after
    i in one user's history. Nothing follows itself.
    """

    kind: ClassVar[str] = "transitions"
    options_type: ClassVar[type[Any]] = TransitionsOptions

    @classmethod
    def train(cls, interactions: Interactions, options: TransitionsOptions, progress: Progress | None = None) -> Self:
        """Counts one distance after the other."""
        sparse = scipy_sparse()
        histories = histories_of(interactions)
        columns, users = histories.columns, histories.users
        count = len(interactions.items)
        follows = sparse.csr_matrix((count, count), dtype=np.float32)
        for distance in range(1, options.window + 1):
            same = users[distance:] == users[:-distance]
            before, after = columns[:-distance][same], columns[distance:][same]
            different = before != after
            before, after = before[different], after[different]
            weights = np.full(len(before), distance**-options.distance_exponent, dtype=np.float32)
            follows = follows + sparse.coo_matrix((weights, (before, after)), shape=(count, count)).tocsr()
            if progress is not None:
                progress(distance, options.window)
        if options.backward:
            follows = (follows + np.float32(options.backward) * follows.T).tocsr()
        events = np.bincount(columns, minlength=count).astype(np.float64)
        at = np.repeat(np.arange(count), np.diff(follows.indptr))
        denominator = np.sqrt(events[at]) * np.power(events[follows.indices], options.popularity_exponent)
        follows.data = (follows.data / (denominator + options.shrinkage)).astype(np.float32)
        rows = SparseRows.of(best_of_each(follows, options.neighbours))
        return cls(ItemIndex(interactions.items), options, learned_from(interactions), rows)
