"""A history's vectors and perhaps a query's go in, the one vector that stands for what the user wants comes out."""

from __future__ import annotations

import numpy as np

from llmrank.retrieval.vectors import Vectors, normalise


def history_vector(vectors: Vectors, decay: float) -> Vectors:
    """The mean of a history's vectors, weighted by decay^age.

    The last things chosen tell most about the next; by how much depends on the data (`eval/prefilter_quality.py` compares).

    Args:
        vectors: Shape (n, d), oldest first; the last has age 0.
        decay: In (0, 1]; 1 weights all alike.

    Returns:
        A unit vector of shape (d,), float32; zeros if there is nothing, or only zeros.
    """
    ages = np.arange(len(vectors) - 1, -1, -1, dtype=np.float64)
    return normalise(np.power(decay, ages) @ vectors)


def blend(history: Vectors, query: Vectors, query_weight: float) -> Vectors:
    """`query_weight` of the query's direction and the rest of the history's; one that is zero leaves all to the other.

    Args:
        history, query: Unit vectors of shape (d,), or zeros.
        query_weight: In [0, 1].

    Returns:
        A unit vector of shape (d,), float32, or zeros.
    """
    if not history.any():
        return query
    if not query.any():
        return history
    return normalise(query_weight * query + (1.0 - query_weight) * history)


def away_from(wanted: Vectors, unwanted: Vectors, weight: float) -> Vectors:
    """The direction of what is wanted less `weight` of the direction of what is not (Rocchio's negative feedback).

    Args:
        wanted, unwanted: Unit vectors of shape (d,), or zeros.
        weight: In [0, 1].

    Returns:
        A unit vector of shape (d,), float32; `wanted` itself where nothing would be left of it.
    """
    moved = normalise(wanted - weight * unwanted)
    return moved if moved.any() else wanted
