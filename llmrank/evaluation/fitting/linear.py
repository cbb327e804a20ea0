"""Examples go in, a linear ranker comes out that makes what was relevant most probable."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmrank.evaluation.fitting.example import Example
from llmrank.evaluation.fitting.gain import Floats, padded
from llmrank.fusion.features import FEATURES, features
from llmrank.fusion.linear import LinearModel, centred

STEPS = 100
"""More than Newton's method ever takes here; reached, the last step still stands."""


def fit_linear(examples: Sequence[Example], parts: Sequence[str], l2: float) -> LinearModel:
    """Fits by listwise softmax cross-entropy: ListNet's top-one loss for binary relevance (Cao et al., "Learning to rank: from
    pairwise approach to listwise approach", ICML 2007), which is the conditional logit of McFadden (1974).

    The loss is convex, and Newton's method with halved steps finds its minimum, the same on every run. Features are divided by
    their root mean square, and ``l2`` / 2 times the sum of squared coefficients is added to the loss summed over lists.

    Args:
        examples: Those without a relevant candidate say nothing here.
        parts: The parts, in the order of the model.
        l2: How strongly coefficients are drawn to 0: the inverse of the variance that is expected of them.
    """
    told = [example for example in examples if any(example.relevant)]
    lengths = np.array([math.log1p(example.history_length) for example in told])
    middle = float(lengths.mean())
    table = _design(told, parts, lengths - middle)
    scale = np.sqrt((table**2).mean(axis=(0, 1)))
    scale[scale == 0] = 1.0  # nowhere a difference: its coefficient stays 0
    shape = table.shape[:2]
    relevant = padded([example.relevant for example in told], shape)
    present = padded([[1.0] * len(example.relevant) for example in told], shape) > 0
    found = _newton(table / scale, relevant / relevant.sum(axis=1, keepdims=True), present, l2) / scale
    base, slope = found.reshape(2, len(parts), len(FEATURES))
    base = base - slope * middle
    return LinearModel(
        {
            part: tuple((float(base[place, column]), float(slope[place, column])) for column in range(len(FEATURES)))
            for place, part in enumerate(parts)
        }
    )


def _design(examples: Sequence[Example], parts: Sequence[str], lengths: Floats) -> Floats:
    """Shape (lists, candidates, 2 * parts * features): the features, and the same times the length of the history."""
    widest = max(len(example.relevant) for example in examples)
    table = np.zeros((len(examples), widest, len(parts) * len(FEATURES)))
    for row, example in enumerate(examples):
        columns = [centred(column) for part in parts for column in features(example.scores[part])]
        table[row, : len(example.relevant)] = np.array(columns).T
    return np.concatenate([table, table * lengths[:, None, None]], axis=2)


def _newton(table: Floats, target: Floats, present: NDArray[np.bool_], l2: float) -> Floats:
    count = table.shape[2]
    weights = np.zeros(count)
    loss, chances = _loss(weights, table, target, present, l2)
    for _ in range(STEPS):
        gradient = np.einsum("uc,ucd->d", chances - target, table) + l2 * weights
        expected = np.einsum("uc,ucd->ud", chances, table)
        weighed = (table * np.sqrt(chances)[:, :, None]).reshape(-1, count)
        curvature = weighed.T @ weighed - expected.T @ expected + l2 * np.eye(count)
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < 1e-10 * (1 + loss):
            break
        size = 1.0
        following, chances_there = _loss(weights - step, table, target, present, l2)
        while following > loss - 1e-4 * size * (gradient @ step) and size > 1e-6:
            size /= 2
            following, chances_there = _loss(weights - size * step, table, target, present, l2)
        weights, loss, chances = weights - size * step, following, chances_there
    return weights


def _loss(weights: Floats, table: Floats, target: Floats, present: NDArray[np.bool_], l2: float) -> tuple[float, Floats]:
    """The loss, and the chance of each candidate to be the first."""
    sums = np.where(present, table @ weights, -np.inf)
    sums -= sums.max(axis=1, keepdims=True)
    raised = np.exp(sums)
    total = raised.sum(axis=1, keepdims=True)
    logs = np.where(present, sums, 0.0) - np.log(total)
    return float(-(target * logs).sum() + l2 / 2 * (weights @ weights)), raised / total
