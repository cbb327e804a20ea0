"""An embedder for tests: a text's vector counts its words, so that texts which share words are alike; it counts its calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from llmrank.retrieval.vectors import Vectors, normalise


class BagEmbedder:
    """Counts words by their digest, in `dimension` buckets."""

    def __init__(self, dimension: int = 256, model: str = "bag of words") -> None:
        self.model = model
        self.asked: list[str] = []
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector a text."""
        self.asked += texts
        vectors = np.zeros((len(texts), self._dimension))
        for row, text in enumerate(texts):
            for word in text.casefold().split():
                vectors[row, int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % self._dimension] += 1
        return normalise(vectors)
