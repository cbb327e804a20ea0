"""Digests of texts and their vectors go in, and stay on disk; the vectors come out memory-mapped. One folder a model.

Layout of a folder::

    meta.json     {"format": 1, "model": "...", "dimension": 256}
    keys.bin      16 bytes a row: the digest of the text
    vectors.f32   4 * dimension bytes a row, little-endian
    lock          held while rows are appended

Both row files only grow. Vectors are written, and forced to the disk, before their keys, and the number of rows is that of
the shorter file: whatever moment a process dies at, all rows counted are whole, and the next writer cuts the torn rest off.
So readers need no lock, and a long run that is interrupted has lost at most one chunk.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from llmrank.errors import SetupError
from llmrank.retrieval.keys import KEY_BYTES, KeyIndex, Keys
from llmrank.retrieval.vectors import Rows, Vectors

FORMAT = 1
LOCK_SECONDS = 120.0
"""How long a writer waits for another, who holds the lock only while one chunk is written."""


class VectorStore:
    """The vectors of one model's texts; safe to use from several threads and processes.

    Args:
        directory: The cache folder; the model gets a folder of its own in it, made at the first write.
        model: The name of the model (`Embedder.model`).

    Raises:
        SetupError: what lies there is not a store that this version can read.
    """

    def __init__(self, directory: str | Path, model: str) -> None:
        slug = re.sub(r"[^A-Za-z0-9.-]+", "-", model).strip("-.")[:60]
        # The digest tells apart models whose names differ only in what a file name cannot hold.
        self.path = Path(directory) / f"{slug}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"
        self.model = model
        self._lock = threading.Lock()  # guards what is held in memory; never while another process is waited for
        self._writing = threading.Lock()
        self._dimension: int | None = None
        self._forget()
        with self._lock:
            self._refresh()

    @property
    def dimension(self) -> int | None:
        """The length of a vector; None while nothing is stored."""
        return self._dimension

    def __len__(self) -> int:
        """The number of rows, with those that other processes have added."""
        with self._lock:
            self._refresh()
            return len(self._index)

    def lookup(self, keys: Keys) -> tuple[Rows, Vectors]:
        """Finds rows.

        Args:
            keys: From `digests`.

        Returns:
            The row of each key, -1 for an unknown one, and the matrix they are rows of: memory-mapped, read-only,
            shape (rows, dimension). Rows stored later do not appear in it.
        """
        with self._lock:
            self._refresh()
            return self._index.find(keys), self._vectors

    def append(self, keys: Keys, vectors: Vectors) -> None:
        """Stores rows; keys that are stored already are left out.

        Args:
            keys: From `digests`.
            vectors: float32, shape (len(keys), dimension).

        Raises:
            ValueError: the shape is not that.
            SetupError: the folder cannot be written, is locked for too long, or holds vectors of another dimension.
        """
        if vectors.ndim != 2 or len(vectors) != len(keys):
            raise ValueError(f"{len(keys)} keys need as many vectors, not an array of shape {vectors.shape}")
        if not len(keys):
            return
        with self._writing, self._written():
            with self._lock:
                self._open_meta(vectors.shape[1])
                self._refresh()
                new = _first_of_each(keys, self._index.find(keys) < 0)
                rows = len(self._index)
            # Both torn tails go before anything is written: an old key must never meet a new vector.
            _cut(self.path / "keys.bin", rows * KEY_BYTES)
            _cut(self.path / "vectors.f32", rows * 4 * vectors.shape[1])
            _add(self.path / "vectors.f32", vectors[new].astype("<f4", copy=False), durable=True)
            _add(self.path / "keys.bin", keys[new], durable=False)

    @contextmanager
    def _written(self) -> Iterator[None]:
        """The lock among processes; what the file system refuses becomes one line."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / "lock", timeout=LOCK_SECONDS):
                yield
        except Timeout as error:
            message = f"another process has been writing to {self.path} for {LOCK_SECONDS:g} s"
            raise SetupError(f"{message}; end it, or use another cache folder") from error
        except OSError as error:
            raise SetupError(f"cannot write to the cache folder {self.path} ({error}); free space or use another") from error

    def _open_meta(self, dimension: int) -> None:
        self._read_meta()
        if self._dimension is None:
            meta = {"format": FORMAT, "model": self.model, "dimension": dimension}
            part = self.path / "meta.json.part"
            part.write_text(json.dumps(meta), encoding="utf-8")
            part.replace(self.path / "meta.json")
            self._dimension = dimension
        if self._dimension != dimension:
            raise SetupError(
                f"{self.path} holds vectors of {self._dimension} numbers and the model now gives {dimension}; delete the folder"
            )

    def _read_meta(self) -> None:
        path = self.path / "meta.json"
        try:
            meta: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._dimension = None
            return
        except (OSError, ValueError) as error:
            raise SetupError(f"{path} cannot be read ({error}); delete the folder, it is only a cache") from error
        known = isinstance(meta, dict) and meta.get("format") == FORMAT
        if not known or not isinstance(meta.get("dimension"), int) or meta["dimension"] < 1:
            raise SetupError(f"{path} is of a format that this version does not know; delete the folder, it is only a cache")
        self._dimension = meta["dimension"]

    def _forget(self) -> None:
        self._index = KeyIndex()
        self._vectors: Vectors = np.empty((0, 0), dtype=np.float32)
        self._file: tuple[int, int] | None = None

    def _refresh(self) -> None:
        """Takes in the rows that were stored since, by whomever."""
        try:
            with (self.path / "vectors.f32").open("rb") as vectors, (self.path / "keys.bin").open("rb") as keys:
                self._take_in(vectors, keys)
        except FileNotFoundError:
            self._forget()  # nothing stored yet, or the folder was deleted
            self._read_meta()
        except OSError as error:
            raise SetupError(f"cannot read the cache folder {self.path} ({error}); mend its rights, or use another") from error

    def _take_in(self, vectors: IO[bytes], keys: IO[bytes]) -> None:
        state = os.fstat(vectors.fileno())
        file = (state.st_dev, state.st_ino)
        if file != self._file:
            # Another file under the same name: somebody deleted the folder and began anew. The old one's number cannot
            # have been given to a new file, for the old one is still mapped here.
            self._forget()
            self._read_meta()
            self._file = file
        if self._dimension is None:
            return
        rows = min(state.st_size // (4 * self._dimension), os.fstat(keys.fileno()).st_size // KEY_BYTES)
        held = len(self._index)
        if rows <= held:
            return
        keys.seek(held * KEY_BYTES)
        self._index.extend(np.frombuffer(keys.read((rows - held) * KEY_BYTES), dtype="<u8").reshape(-1, 2))
        # As a plain array: a memmap carries slow extras through each operation, and the pages are the same.
        mapped = np.memmap(vectors, dtype="<f4", mode="r", shape=(rows, self._dimension))
        self._vectors = np.asarray(mapped)


def digests(texts: Sequence[str]) -> Keys:
    """The keys of texts: BLAKE2b (RFC 7693) of 16 bytes each, as two integers; shape (len(texts), 2).

    With a billion texts the chance that any two share a key is below 1e-20.
    """
    joined = b"".join(
        [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest() for text in texts]
    )
    return np.frombuffer(joined, dtype="<u8").reshape(-1, 2)


def _first_of_each(keys: Keys, wanted: NDArray[np.bool_]) -> Rows:
    """The positions of the keys that are wanted, each different key once, in the order given."""
    at = np.flatnonzero(wanted)
    _, first = np.unique(keys[at], axis=0, return_index=True)
    return at[np.sort(first)]


def _cut(path: Path, size: int) -> None:
    """Makes a file, if it is not there, and cuts it to `size` bytes."""
    with path.open("ab") as file:
        file.truncate(size)


def _add(path: Path, data: NDArray[Any], *, durable: bool) -> None:
    """Adds to a file's end; durably: not before it returns is it safe from a power failure, but then it is."""
    with path.open("ab") as file:
        file.write(np.ascontiguousarray(data).data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
