"""Vectors that somebody made already go in as files; those of the texts or item ids asked for come out."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.assets import cache_dir
from llmrank.errors import ConfigError, RequestError
from llmrank.protocols import Embedder
from llmrank.retrieval.vectors import Progress, Rows, Vectors, close_embedder, normalise, table_of

KeyedBy: TypeAlias = Literal["text", "id"]

CHECKED_ROWS = 65_536
"""Rows looked at together when a file is checked: bounds the memory."""

FIELD = "prefilter.embedder"


@dataclass(frozen=True, slots=True)
class PrecomputedOptions:
    """Where the vectors are.

    Args:
        vectors: A ``.npy`` of shape (n, d), beside `keys`; or an ``.npz`` with the arrays ``vectors`` and ``ids`` or ``texts``.
        keys: For ``.npy``: a JSONL file of n lines, each an object with ``id`` (an item file serves) or else ``text``.
        model: Names what made the vectors; None takes the file's name.
    """

    vectors: str
    keys: str | None = None
    model: str | None = None


class PrecomputedEmbedder:
    """Finds vectors in a file. A float32 ``.npy`` of unit rows stays on disk, memory-mapped; others are normalised into memory.

    Args:
        options: See `PrecomputedOptions`.
        fallback: Embeds the texts that the files do not have (queries, new items); it must be the same model.

    Raises:
        ConfigError: a file is missing or malformed, the numbers of rows differ, or the fallback's dimension does.
    """

    def __init__(self, options: PrecomputedOptions, fallback: Embedder | None = None) -> None:
        path = Path(options.vectors)
        table, names, self._keyed_by = _read_npz(path) if path.suffix == ".npz" else _read_npy(path, options.keys)
        if table.ndim != 2 or table.dtype.kind != "f" or not table.shape[1]:
            raise _wrong(path, f"holds {table.dtype} of shape {table.shape}", "store floats of shape (rows, dimension)")
        if len(table) != len(names):
            raise _wrong(path, f"has {len(table):,} rows, and there are {len(names):,} keys", "give one key for each row")
        self._table = _unit_rows(path, table)
        self._rows = {name: row for row, name in enumerate(names)}
        if len(self._rows) != len(names):
            raise _wrong(path, "has two rows for one key", "give each row a key of its own")
        self._model = options.model or path.name
        if fallback is not None and fallback.dimension != self.dimension:
            raise ConfigError(
                f"its vectors have {fallback.dimension} numbers, those on disk {self.dimension}",
                field=f"{FIELD}.fallback",
                value=fallback.model,
                fix="use the model that made the vectors on disk",
            )
        self._fallback = fallback

    @property
    def model(self) -> str:
        """What made the vectors."""
        return self._model

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return int(self._table.shape[1])

    @property
    def keyed_by(self) -> KeyedBy:
        """Whether the file knows its vectors by text or by item id."""
        return self._keyed_by

    @property
    def folder(self) -> Path:
        """Where an index of the vectors is kept: in the cache folder, for their own may be read-only."""
        return cache_dir() / "indexes"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector a text, shape (len(texts), dimension); zero for an empty text.

        Raises:
            RequestError: a text that neither the files nor a fallback know.
        """
        return self._embed(texts, None)

    def close(self) -> None:
        """Closes the fallback. What is in the files can still be looked up."""
        if self._fallback is not None:
            close_embedder(self._fallback)

    def _embed(self, texts: Sequence[str], progress: Progress | None) -> Vectors:
        known = self._rows if self.keyed_by == "text" else {}
        rows = np.fromiter((known.get(text, -1) for text in texts), dtype=np.int64, count=len(texts))
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        vectors[rows >= 0] = self._table[rows[rows >= 0]]
        unknown = [at for at in np.flatnonzero(rows < 0).tolist() if texts[at].strip()]
        if unknown and self._fallback is None:
            raise RequestError(
                f"{self.model} has no vector for this text",
                field="text",
                value=texts[unknown[0]],
                fix="name the model that made the vectors under prefilter.embedder.fallback",
            )
        if unknown and self._fallback is not None:
            table, places = table_of(self._fallback, [texts[at] for at in unknown], progress)
            vectors[unknown] = table if places is None else table[places]
        return vectors

    def table(self, keys: Sequence[str], progress: Progress | None = None) -> tuple[Vectors, Rows | None]:
        """The vectors of texts or ids (see `keyed_by`), where they lie: the whole file's matrix and each key's row.

        Raises:
            RequestError: a key that neither the file nor (for texts) a fallback knows.
        """
        rows = np.fromiter((self._rows.get(key, -1) for key in keys), dtype=np.int64, count=len(keys))
        if (rows >= 0).all():
            return self._table, rows
        if self.keyed_by == "text":
            return self._embed(keys, progress), None
        raise RequestError(
            f"{self.model} has no vector for this item",
            field="item id",
            value=keys[int(np.flatnonzero(rows < 0)[0])],
            fix="add its vector to the file",
        )


def _wrong(path: Path, what: str, fix: str, field: str = "vectors") -> ConfigError:
    return ConfigError(what, field=f"{FIELD}.{field}", value=str(path), fix=fix)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Names the file if it cannot be read; NumPy raises all of these for what is not its own, or is damaged."""
    try:
        yield
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise _wrong(path, "no such file", "check the path") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        fix = "write it with numpy.save or numpy.savez, ids and texts as arrays of text, not of objects"
        raise _wrong(path, f"cannot be read as a NumPy file ({error})", fix) from error


def _read_npz(path: Path) -> tuple[NDArray[Any], list[str], KeyedBy]:
    # Opened here, because NumPy leaves a damaged archive open. Never unpickled: that would be code from a file.
    with _reading(path), path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise _wrong(path, "is one array", "write it with numpy.savez, or name it .npy")
        name = next((name for name in ("ids", "texts") if name in archive), None)
        if "vectors" not in archive or name is None:
            raise _wrong(path, f"holds the arrays {sorted(archive)}", "store `vectors`, and `ids` or `texts`")
        vectors, keys = archive["vectors"], archive[name]
    return vectors, [str(key) for key in keys.tolist()], "id" if name == "ids" else "text"


def _read_npy(path: Path, keys: str | None) -> tuple[NDArray[Any], list[str], KeyedBy]:
    if keys is None:
        raise _wrong(path, "needs a file of keys", "name the JSONL file whose lines hold `id` or `text`", "keys")
    with _reading(path):
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(vectors, np.ndarray):
        raise _wrong(path, "is not one array", "write it with numpy.save, or name it .npz")
    names = list(_read_keys(Path(keys)))
    kinds = {kind for kind, _ in names}
    if len(kinds) > 1:
        raise _wrong(
            Path(keys), "has lines with `id` and lines without", "give every line an `id`, or every line a `text`", "keys"
        )
    return vectors, [name for _, name in names], "id" if "id" in kinds else "text"


def _read_keys(path: Path) -> Iterator[tuple[KeyedBy, str]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _key(line, path, number)
    except FileNotFoundError as error:
        raise _wrong(path, "no such file", "check the path", "keys") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read ({error})", "name a readable JSONL file in UTF-8", "keys") from error


def _key(line: str, path: Path, number: int) -> tuple[KeyedBy, str]:
    fix = f"line {number}: write an object with `id` or `text`"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _wrong(path, f"has a line that is not JSON ({error})", fix, "keys") from error
    row = row if isinstance(row, dict) else {}
    item_id = row.get("id")
    if isinstance(item_id, str) or (isinstance(item_id, int) and not isinstance(item_id, bool)):
        return "id", str(item_id)
    if isinstance(row.get("text"), str):
        return "text", row["text"]
    raise _wrong(path, "has a line without a key", fix, "keys")


def _unit_rows(path: Path, table: NDArray[Any]) -> Vectors:
    """The table itself if it is float32 with rows of length 1 or 0, else a normalised copy in memory."""
    as_it_is = table.dtype == np.float32 and table.flags.c_contiguous
    for start in range(0, len(table), CHECKED_ROWS):
        block = np.asarray(table[start : start + CHECKED_ROWS], dtype=np.float64)
        if not np.isfinite(block).all():
            raise _wrong(path, "holds an infinite value or one that is not a number", "mend the vectors")
        lengths = np.linalg.norm(block, axis=1)
        as_it_is = as_it_is and bool((np.isclose(lengths, 1.0, atol=1e-4) | (lengths == 0)).all())
    if as_it_is:
        return np.asarray(table)
    unit = np.empty(table.shape, dtype=np.float32)
    for start in range(0, len(table), CHECKED_ROWS):
        unit[start : start + CHECKED_ROWS] = normalise(table[start : start + CHECKED_ROWS])
    return unit
