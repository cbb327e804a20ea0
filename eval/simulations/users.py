"""Effects go in; what users' NDCG@10 would be, under several variants at once, comes out.

A user has 20 candidates and one relevant one, and a ranker puts it at some place: NDCG@10 is 1, 0.63, 0.5 ... 0.29 at the first
ten places and 0 behind them. So values have eleven levels, many zeros, and are nothing like normal. Under two prompts of one
model they go up and down together. All of that is made from one normal number for each user and variant, which is shared in
part by a user's variants: the lower, the better the place; a better variant's numbers are lower.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmrank.evaluation.measures.statistics import Floats

CANDIDATES, DEPTH = 20, 10
CORRELATION = 0.7
"""Of the normal numbers of a user's variants."""

GAINS = np.array([1 / math.log2(place + 2) if place < DEPTH else 0.0 for place in range(CANDIDATES)])

_WEIGHTS = np.exp(-np.arange(CANDIDATES) / 8)  # how often the control has the relevant item at each place
_ENDS = np.cumsum(_WEIGHTS / _WEIGHTS.sum())
_THRESHOLDS = np.array([NormalDist().inv_cdf(end) for end in _ENDS[:-1].tolist()])


def places(generator: np.random.Generator, shape: tuple[int, ...], effects: ArrayLike = (0.0,)) -> NDArray[np.intp]:
    """The relevant item's place (from 0), shape (*shape, variants): `shape` is of users, an effect is a shift for a variant."""
    shifts = np.asarray(effects, dtype=np.float64)
    shared = generator.standard_normal((*shape, 1), dtype=np.float32)
    own = generator.standard_normal((*shape, shifts.shape[-1]), dtype=np.float32)
    own *= math.sqrt(1 - CORRELATION)
    own += math.sqrt(CORRELATION) * shared
    return np.searchsorted(_THRESHOLDS, own - shifts)


def ndcg(generator: np.random.Generator, shape: tuple[int, ...], effects: ArrayLike = (0.0,)) -> Floats:
    """NDCG@10, shape (*shape, variants)."""
    values: Floats = GAINS[places(generator, shape, effects)]
    return values


def true_mean(effect: float) -> float:
    """The mean NDCG@10 of all users there could be, exactly."""
    below = [0.0, *(NormalDist().cdf(end + effect) for end in _THRESHOLDS.tolist()), 1.0]
    return float(GAINS @ np.diff(below))


def true_difference(effect: float) -> float:
    """How much more a variant with this effect has than one without."""
    return true_mean(effect) - true_mean(0.0)


def effect_of(difference: float) -> float:
    """The effect that makes this difference."""
    low, high = -3.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if true_difference(middle) < difference else (low, middle)
    return (low + high) / 2


def described() -> str:
    """The population, in a sentence."""
    values = ndcg(np.random.default_rng(0), (200_000,), (0.0, 0.0))
    return (
        f"mean NDCG@10 {true_mean(0.0):.3f}, {100 * (values[:, 0] == 0).mean():.0f} % zeros, standard deviation "
        f"{values[:, 0].std():.2f}; between two equal variants correlation {np.asarray(np.corrcoef(values.T))[0, 1]:.2f}, "
        f"{100 * (values[:, 0] == values[:, 1]).mean():.0f} % ties, standard deviation of the difference "
        f"{(values[:, 1] - values[:, 0]).std():.2f}"
    )
