"""Each part's normalised scores of lists of candidates go in; the weights under which their sum ranks best come out."""

from __future__ import annotations

import numpy as np

from llmrank.evaluation.fitting.gain import Floats, Lists

GRID = 2.0 ** (np.arange(-12, 13) / 2)
"""What a weight may be, as a multiple of all other weights together; beside it, 0."""

LEAST_GAIN = 1e-9
"""A step that gains less gains by rounding only."""


def coordinate_search(values: Floats, lists: Lists) -> Floats:
    """Coordinate ascent on the mean NDCG (Metzler and Croft, "Linear feature-based models for information retrieval", 2007).

    From equal weights, and from each part alone, one weight after the other takes the best value of a grid that is even in
    logarithms, until no single change gains anything; the best of the ends counts, the first of equals. NDCG is constant but
    for jumps, so that many values are equally good: the middle one of those is taken, which is farthest from where the next
    user would fall off. In the end a part that nothing is lost without gets no weight. Nothing is drawn at random.

    Args:
        values: Shape (lists, candidates, parts).
        lists: The same lists, with what is relevant.

    Returns:
        Shape (parts,), none below 0, with the sum 1.
    """
    count = values.shape[2]
    starts = [np.full(count, 1 / count), *np.eye(count)] if count > 1 else [np.ones(1)]
    ends = [_ascend(start, values, lists) for start in starts]
    best, reached = ends[0]
    for weights, value in ends[1:]:
        if value > reached + LEAST_GAIN:
            best, reached = weights, value
    return _pruned(best, reached, values, lists)


def _pruned(weights: Floats, reached: float, values: Floats, lists: Lists) -> Floats:
    """Without the parts that add nothing, the lightest first."""
    for part in np.argsort(weights, kind="stable"):
        others = weights.copy()
        others[part] = 0.0
        if others.sum() and lists.ndcg(values @ others).mean() >= reached - LEAST_GAIN:
            weights = others / others.sum()
    return weights


def _ascend(weights: Floats, values: Floats, lists: Lists) -> tuple[Floats, float]:
    reached = float(lists.ndcg(values @ weights).mean())
    gained = True
    while gained:
        gained = False
        for part in range(len(weights)):
            others = weights.copy()
            others[part] = 0.0
            if not others.sum():
                continue  # alone, its size does not matter
            rest, own = values @ others, values[:, :, part]
            steps = np.concatenate([[0.0], GRID * others.sum()])
            found = lists.means(rest + steps[:, None, None] * own)
            if found.max() <= reached + LEAST_GAIN:
                continue
            best = np.flatnonzero(found >= found.max() - LEAST_GAIN)
            others[part] = steps[best[len(best) // 2]]
            weights = others / others.sum()
            reached, gained = float(lists.ndcg(values @ weights).mean()), True
    return weights, reached
