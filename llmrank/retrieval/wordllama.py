"""Texts go in, static word vectors averaged over each text come out: the default embedder, with no server and no key.

WordLlama (https://github.com/dleemiller/WordLlama) distils the token embeddings of large language models into one small table
(32,000 x 256); a text's vector is the mean over its tokens. The table lies inside the package's wheel.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmrank.errors import ConfigError, SetupError
from llmrank.retrieval.text import well_formed
from llmrank.retrieval.vectors import Vectors, normalise

TABLE = "l2_supercat"
DIMENSIONS = (64, 128, 256)
"""The table is trained so that its first columns are tables of their own (Matryoshka)."""

BATCH = 1024
"""Texts tokenised at once."""


@dataclass(frozen=True, slots=True)
class WordLlamaOptions:
    """Which table.

    Args:
        dimension: 64, 128 or 256 numbers a vector; fewer take less memory and find a little less.
    """

    dimension: int = 256

    def __post_init__(self) -> None:
        if self.dimension not in DIMENSIONS:
            raise ConfigError(
                "WordLlama has no table of this size",
                field="prefilter.embedder.dimension",
                value=self.dimension,
                fix=f"use one of {', '.join(map(str, DIMENSIONS))}",
            )


class WordLlamaEmbedder:
    """The default embedder; safe to use from several threads.

    Args:
        options: See `WordLlamaOptions`.

    Raises:
        SetupError: the package is not installed, or lacks its table.
    """

    def __init__(self, options: WordLlamaOptions | None = None) -> None:
        dimension = (options or WordLlamaOptions()).dimension
        self._dimension = dimension
        self._table, self._tokenizer = _load(dimension)
        # The version, too: vectors on disk must not outlive a change of the table.
        self._model = f"wordllama {importlib.metadata.version('wordllama')} {TABLE} {dimension}"

    @property
    def model(self) -> str:
        """Package, its version, table and dimension."""
        return self._model

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector a text, shape (len(texts), dimension); zero for a text without tokens."""
        vectors = np.zeros((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(texts), BATCH):
            batch = list(texts[start : start + BATCH])
            vectors[start : start + len(batch)] = self._means(batch)
        return vectors

    def _means(self, texts: list[str]) -> Vectors:
        # Not the package's own `embed`: it pads all texts of a batch to the longest, so that one text of a megabyte takes
        # gigabytes. Sums over the joined tokens need no padding, and give the same vectors a third faster.
        encodings = self._tokenizer.encode_batch_fast([well_formed(text).strip() for text in texts], add_special_tokens=False)
        counts = np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)
        sums = np.zeros((len(texts), self._dimension), dtype=np.float32)
        filled = np.flatnonzero(counts)  # reduceat cannot sum nothing
        if len(filled):
            ids = np.concatenate([np.asarray(encodings[at].ids, dtype=np.int64) for at in filled])
            starts = np.concatenate([[0], np.cumsum(counts[filled])[:-1]])
            sums[filled] = np.add.reduceat(self._table[ids], starts, axis=0)
        return normalise(sums)  # the direction of the mean is that of the sum


def _load(dimension: int) -> tuple[Vectors, Any]:
    """The table, float32 of shape (tokens, dimension), and its tokenizer."""
    if importlib.util.find_spec("wordllama") is None:
        raise SetupError("the default embedder needs wordllama, which is not installed; run: pip install 'llmrank[local]'")
    with _root_logger_kept():
        import wordllama
    try:
        # The package looks for its own tokenizer in a folder of another name than it has, so that without this
        # `cache_dir` it would try to download what lies beside it.
        loaded = wordllama.WordLlama.load(
            TABLE,
            cache_dir=Path(wordllama.__file__).parent,
            trunc_dim=dimension if dimension < max(DIMENSIONS) else None,
            disable_download=True,
        )
    except FileNotFoundError as error:
        remedy = "run: pip install --force-reinstall wordllama"
        raise SetupError(f"the installed wordllama lacks its table or tokenizer ({error}); {remedy}") from error
    loaded.tokenizer.no_padding()
    return loaded.embedding, loaded.tokenizer


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undoes the `logging.basicConfig(level=INFO)` that wordllama calls when it is imported: logging is the application's."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
