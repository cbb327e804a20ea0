"""Scores of several parts go in (the model's, the prefilter's, retrievers'), one order and what each part gave to it come out.

`normalise` brings a part's scores to a common scale, `weighted`, `linear` and `trees` say what each part gives to each
candidate, `fusion` orders by the sum, `file` keeps on disk what was fitted.
"""

from __future__ import annotations

from llmrank.fusion.combination import Combination
from llmrank.fusion.fusion import LLM, PARTS, Fused, Fusion
from llmrank.fusion.linear import LinearModel
from llmrank.fusion.normalise import z_scores
from llmrank.fusion.trees import TreeModel
from llmrank.fusion.weighted import Band, Method, WeightedSum

__all__ = [
    "LLM",
    "PARTS",
    "Band",
    "Combination",
    "Fused",
    "Fusion",
    "LinearModel",
    "Method",
    "TreeModel",
    "WeightedSum",
    "z_scores",
]
