"""An embedder and a store go in, an embedder that embeds no text twice, in this run or any later one, comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from llmrank.errors import SetupError
from llmrank.protocols import Embedder
from llmrank.retrieval.store import VectorStore, digests
from llmrank.retrieval.vectors import CHUNK, Progress, Rows, Vectors, close_embedder

SPARSE = 2
"""A table's rows are read where they lie unless the store holds this many times as many rows between them."""


class CachedEmbedder:
    """Looks texts up on disk and embeds only those that are missing, chunk by chunk.

    Each chunk is stored as soon as it is embedded: a run over a million titles that is interrupted goes on where it stopped.
    Safe to use from several threads and processes; two that embed one catalogue at once share the chunks between them.

    Args:
        embedder: Makes the vectors that are missing. It is not asked for anything, not even its dimension, while all is there.
        store: Where they are kept; `VectorStore(folder, embedder.model)`.
        chunk: Texts embedded between two saves.

    Raises:
        ValueError: the store belongs to another model.
    """

    keyed_by: Literal["text"] = "text"

    def __init__(self, embedder: Embedder, store: VectorStore, *, chunk: int = CHUNK) -> None:
        if store.model != embedder.model:
            raise ValueError(f"a store of {store.model!r} cannot hold the vectors of {embedder.model!r}")
        self._embedder, self._store, self._chunk = embedder, store, chunk

    @property
    def model(self) -> str:
        """The embedder's."""
        return self._embedder.model

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._store.dimension or self._embedder.dimension

    @property
    def folder(self) -> Path:
        """The store's: what is made of the vectors lies beside them."""
        return self._store.path

    def stored(self, texts: Sequence[str]) -> tuple[int, int]:
        """How many of the different texts are stored, and how many different texts there are."""
        rows, _ = self._store.lookup(digests(list(dict.fromkeys(texts))))
        return int(np.count_nonzero(rows >= 0)), len(rows)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector a text, shape (len(texts), dimension), copied from the store."""
        if not len(texts):
            return np.empty((0, self.dimension), dtype=np.float32)
        rows, vectors = self._rows(texts, None)
        return vectors[rows]

    def table(self, keys: Sequence[str], progress: Progress | None = None) -> tuple[Vectors, Rows | None]:
        """The vectors of texts where they lie on disk, and each text's row.

        Args:
            keys: Texts; equal ones share a row.
            progress: Called after each chunk with the number of different texts that are stored, and of all.
        """
        if not len(keys):
            return np.empty((0, self.dimension), dtype=np.float32), None
        rows, vectors = self._rows(keys, progress)
        first, last = int(rows.min()), int(rows.max()) + 1
        used, compact = np.unique(rows, return_inverse=True)
        if last - first <= SPARSE * len(used):
            return vectors[first:last], rows - first
        # The store holds much else (other catalogues): a product with all of it would cost more than this copy.
        return vectors[used], compact

    def close(self) -> None:
        """Closes the embedder. What is stored can still be looked up."""
        close_embedder(self._embedder)

    def _rows(self, texts: Sequence[str], progress: Progress | None) -> tuple[Rows, Vectors]:
        keys = digests(texts)
        rows, vectors = self._store.lookup(keys)
        if (rows < 0).any():
            self._fill(texts, rows, progress)
            rows, vectors = self._store.lookup(keys)
        if (rows < 0).any():
            raise SetupError(f"vectors vanish from {self._store.path}; let nothing delete the folder while it is in use")
        return rows, vectors

    def _fill(self, texts: Sequence[str], rows: Rows, progress: Progress | None) -> None:
        missing = list(dict.fromkeys(texts[at] for at in np.flatnonzero(rows < 0).tolist()))
        done = len(np.unique(rows[rows >= 0]))
        total = done + len(missing)
        for start in range(0, len(missing), self._chunk):
            chunk = missing[start : start + self._chunk]
            # Again, for another process may have stored them meanwhile.
            keys = digests(chunk)
            absent = np.flatnonzero(self._store.lookup(keys)[0] < 0)
            if len(absent):
                self._store.append(keys[absent], self._embedder.embed([chunk[at] for at in absent.tolist()]))
            if progress is not None:
                progress(done + min(start + self._chunk, len(missing)), total)
