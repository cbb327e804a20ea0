"""A ranking of ids and the ids that were relevant go in, a number from 0 to 1 comes out (1 is best).

Relevance is binary. All functions take the ranking best first, the relevant ids, and `k`, the number of places that count (None
for all of them), and give 0 when nothing is relevant. A ranking that is shorter than `k` counts as if the remaining places
held nothing relevant. A ranking is an order: there are no ties to break. The values are those of trec_eval (`ir_measures`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def ndcg_at(ranking: Sequence[str], relevant: Collection[str], k: int | None = None) -> float:
    """Normalised discounted cumulative gain: a hit at place p gains 1 / log2(p + 1); divided by the best possible sum.

    Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with the discount of Burges et al. 2005.
    With one relevant id at place p this is 1 / log2(p + 1).
    """
    gain = sum(_discount(place) for place in _hits(ranking, relevant, k))
    return gain / _ideal_gain(len(set(relevant)), k) if gain else 0.0


def hit_rate_at(ranking: Sequence[str], relevant: Collection[str], k: int | None = None) -> float:
    """1 if any relevant id is among the first k, else 0."""
    return 1.0 if _hits(ranking, relevant, k) else 0.0


def recall_at(ranking: Sequence[str], relevant: Collection[str], k: int | None = None) -> float:
    """The part of the relevant ids that is among the first k."""
    hits = _hits(ranking, relevant, k)
    return len(hits) / len(set(relevant)) if hits else 0.0


def precision_at(ranking: Sequence[str], relevant: Collection[str], k: int | None = None) -> float:
    """The part of the first k places that holds relevant ids; a shorter ranking is divided by k all the same."""
    hits = _hits(ranking, relevant, k)
    return len(hits) / (len(ranking) if k is None else k) if hits else 0.0


def mrr_at(ranking: Sequence[str], relevant: Collection[str], k: int | None = None) -> float:
    """Reciprocal rank: 1 / the place of the first relevant id, 0 if it is not among the first k."""
    hits = _hits(ranking, relevant, k)
    return 1.0 / hits[0] if hits else 0.0


def map_at(ranking: Sequence[str], relevant: Collection[str], k: int | None = None) -> float:
    """Average precision: the precision at the place of each hit, summed and divided by the number of relevant ids.

    The divisor is not limited to k (as in trec_eval), so that 1 is out of reach when more than k ids are relevant.
    """
    hits = _hits(ranking, relevant, k)
    return sum(count / place for count, place in enumerate(hits, start=1)) / len(set(relevant)) if hits else 0.0


def expected_ndcg_at(candidates: int, k: int) -> float:
    """The NDCG@k that a random order of so many candidates with one relevant id among them has on average."""
    return sum(map(_discount, range(1, min(k, candidates) + 1))) / candidates


def _hits(ranking: Sequence[str], relevant: Collection[str], k: int | None) -> list[int]:
    """The places (from 1) of relevant ids among the first k; an id that stands twice counts at its first place only."""
    if k is not None and k < 1:
        raise ValueError(f"k counts places from 1, so it cannot be {k}")
    wanted = set(relevant)
    hits = []
    for place, item_id in enumerate(ranking[:k], start=1):
        if item_id in wanted:
            wanted.remove(item_id)
            hits.append(place)
    return hits


def _discount(place: int) -> float:
    return 1.0 / math.log2(place + 1)


def _ideal_gain(relevant: int, k: int | None) -> float:
    return sum(map(_discount, range(1, (relevant if k is None else min(relevant, k)) + 1)))
