"""Interactions go in, which items the same users choose comes out: item-based nearest neighbours.

Sarwar, Karypis, Konstan and Riedl, "Item-based collaborative filtering recommendation algorithms", WWW 2001; Deshpande and
Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 22(1), 2004.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.histories import chosen
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.neighbours import ItemToItem
from llmrank.retrieval.collaborative.options import check_number, check_whole
from llmrank.retrieval.collaborative.rows import SparseRows, best_of_each, blocks
from llmrank.retrieval.collaborative.storage import learned_from
from llmrank.retrieval.vectors import Progress


@dataclass(frozen=True, slots=True)
class ItemKnnOptions:
    """How alike two items are, and what of a history counts.

    The defaults are those that ranked held-out items best (`eval/bench_collaborative.py`); where a few neighbours are kept,
    most candidates that nobody thinks of score 0 alike.

    Args:
        neighbours: How many of the most similar items are kept for each.
        shrinkage: Added to the denominator: similarities that few users vouch for shrink towards 0.
        popularity_exponent: The power of the candidate's number of users in the denominator; 0.5 gives the cosine, less lets
            popular items gain, more lets them lose.
        user_exponent: A user who chose n items counts n^-this as much; 0 lets all count alike.
        decay: The weight of a history event is decay^age, the last one having age 0; in (0, 1].
        last: How many history events, the most recent that the model knows, count; null for all.
    """

    neighbours: int = 2000
    shrinkage: float = 10.0
    popularity_exponent: float = 0.3
    user_exponent: float = 0.5
    decay: float = 0.9
    last: int | None = 50

    def __post_init__(self) -> None:
        check_whole("item-knn.neighbours", self.neighbours)
        check_number("item-knn.shrinkage", self.shrinkage)
        check_number("item-knn.popularity_exponent", self.popularity_exponent, most=1.0)
        check_number("item-knn.user_exponent", self.user_exponent, most=1.0)
        check_number("item-knn.decay", self.decay, most=1.0, above=True)
        check_whole("item-knn.last", self.last, optional=True)


class ItemKnn(ItemToItem[ItemKnnOptions]):
    """The sum over the history's last events of decay^age times how alike the candidate is to each.

    How alike candidate j is to history item i: ``c / (n_i^0.5 * n_j^popularity_exponent + shrinkage)``, where n is the number
    of an item's users and c the number of users of both, each counting ``items^-user_exponent``. The cosine of binary columns
    if there is no shrinkage and the exponents are 0.5 and 0. A user's repeated choices of an item count once in training.
    """

    kind: ClassVar[str] = "item-knn"
    options_type: ClassVar[type[Any]] = ItemKnnOptions

    @classmethod
    def train(cls, interactions: Interactions, options: ItemKnnOptions, progress: Progress | None = None) -> Self:
        """Counts block by block, so that memory stays bounded whatever the number of items."""
        by_user = chosen(interactions)
        by_item = by_user.T.tocsr()
        users = np.diff(by_item.indptr).astype(np.float64)
        lengths = np.diff(by_user.indptr)
        if options.user_exponent:
            by_user.data = np.repeat(np.power(np.maximum(lengths, 1), -options.user_exponent), lengths).astype(np.float32)
        most = by_item @ lengths.astype(np.float64)  # entries of a row before equal columns are added up
        own, others = np.sqrt(users), np.power(users, options.popularity_exponent)

        def rows() -> Any:
            for block in blocks(most, progress):
                together = by_item[block] @ by_user
                at = np.repeat(np.arange(block.start, block.stop), np.diff(together.indptr))
                together.data = (together.data / (own[at] * others[together.indices] + options.shrinkage)).astype(np.float32)
                together.data[at == together.indices] = 0.0  # an item says nothing of itself
                together.eliminate_zeros()
                yield from best_of_each(together, options.neighbours)

        return cls(ItemIndex(interactions.items), options, learned_from(interactions), SparseRows.of(rows()))
