"""Examples go in, boosted trees come out that rank what was relevant first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrank.evaluation.fitting.example import Example
from llmrank.fusion.trees import TreeModel, matrix, require_lightgbm

SETTINGS = {
    "objective": "lambdarank",
    # Hundreds of users, not millions: small trees that need many rows a leaf.
    "num_leaves": 7,
    "min_data_in_leaf": 20,
    "lambda_l2": 10.0,
    "learning_rate": 0.05,
    # The same trees on every run.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


def fit_trees(examples: Sequence[Example], parts: Sequence[str], k: int | None, rounds: int, seed: int) -> TreeModel:
    """Fits by LambdaMART, for NDCG at the first k places.

    Args:
        examples: Those without a relevant candidate say nothing here.
        parts: The parts, in the order of the model.
        k: The places that count; None for all.
        rounds: How many trees.
        seed: Of what LightGBM draws.

    Raises:
        SetupError: LightGBM is not installed.
    """
    lightgbm = require_lightgbm()
    told = [example for example in examples if any(example.relevant)]
    rows = np.concatenate([matrix(parts, example.scores, example.history_length) for example in told])
    labels = np.concatenate([np.asarray(example.relevant, dtype=np.int64) for example in told])
    sizes = [len(example.relevant) for example in told]
    settings = {**SETTINGS, "seed": seed, "lambdarank_truncation_level": max(sizes) if k is None else k}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, labels, group=sizes), num_boost_round=rounds)
    return TreeModel(tuple(parts), booster.model_to_string())
