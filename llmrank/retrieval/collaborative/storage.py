"""A trained model goes in, one ``.npz`` file comes out, and the model again from it: arrays and a header, nothing pickled."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import ConfigError, LLMRankError, SetupError
from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.model import CollaborativeModel, Learned

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT = "llmrank collaborative model"
VERSION = 1
"""Of the file; one that is newer than this is refused."""

_MEND = "train it anew: llmrank train KIND --interactions FILE --out MODEL.npz"
_IDS = "item_ids"


def save_model(model: CollaborativeModel[Any], path: str | Path) -> None:
    """Writes a model's file whole or not at all.

    Raises:
        SetupError: it cannot be written.
    """
    path = Path(path)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": model.kind,
        "options": dataclasses.asdict(model.options),
        "learned": dataclasses.asdict(model.learned),
    }
    arrays = {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        **text_arrays(_IDS, model.index.ids),
        **{f"model_{name}": array for name, array in model.arrays().items()},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, arrays)
    except OSError as error:
        raise SetupError(f"cannot write {path} ({error.strerror or error}); free space, or name another place") from error


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_model(
    path: str | Path, kinds: Mapping[str, type[CollaborativeModel[Any]]], name: str | None = None
) -> CollaborativeModel[Any]:
    """The model of a file.

    Args:
        path: The file.
        kinds: The class of each kind.
        name: The model's name; None for its kind.

    Raises:
        ConfigError: the file is missing, damaged, or no model's.
    """
    path = Path(path)
    try:
        # Opened here, because NumPy leaves a damaged archive open.
        with path.open("rb") as file:
            model = _from_archive(np.load(file, allow_pickle=False), kinds, path)
    except OSError as error:
        raise _wrong(path, f"cannot be read ({error.strerror or error})", "check the path") from error
    except LLMRankError as error:
        raise _wrong(path, f"cannot be used ({error})", _MEND) from error
    except _DAMAGE as error:
        raise _wrong(path, f"is not the file of a model, or is damaged ({error})", _MEND) from error
    return model if name is None else model.named(name)


# What NumPy, zipfile, json and the kinds raise for bytes that are not theirs. RuntimeError: a zip that claims to be encrypted,
# and a header of brackets in brackets in brackets. TypeError:
# places that are no whole numbers. MemoryError: an array that claims to be larger than any.
_DAMAGE = (ValueError, TypeError, KeyError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


def _from_archive(archive: Any, kinds: Mapping[str, type[CollaborativeModel[Any]]], path: Path) -> CollaborativeModel[Any]:
    if isinstance(archive, np.ndarray) or "header" not in archive:
        raise ValueError("it has no header")
    header = json.loads(archive["header"].tobytes())
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError("its header is that of something else")
    version, kind = header["version"], header["kind"]
    if version != VERSION or not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"this version of llmrank does not know version {version!r}, kind {kind!r}", value=path.name)
    cls = kinds[kind]
    options = cls.options_type(**_fields(cls.options_type, header["options"]))
    told = _fields(Learned, header["learned"])
    learned = Learned(**{**told, "notes": tuple(map(str, told.get("notes") or ""))})
    arrays = {name.removeprefix("model_"): archive[name] for name in archive.files if name.startswith("model_")}
    return cls.from_arrays(ItemIndex(texts_of(_IDS, archive)), options, learned, arrays)


def _fields(cls: type[Any], values: object) -> dict[str, Any]:
    """What a header says of a dataclass; ValueError if that is no mapping of its fields, or lacks one that must be there."""
    fields = {each.name: each.default is dataclasses.MISSING for each in dataclasses.fields(cls)}
    required = {name for name, must in fields.items() if must}
    if not isinstance(values, dict) or not required <= set(values) <= set(fields):
        raise ValueError(f"{cls.__name__} are not {values!r}")
    return values


def _wrong(path: Path, what: str, fix: str) -> ConfigError:
    return ConfigError(what, field="model", value=str(path), fix=fix)


def text_arrays(name: str, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Texts as two arrays: their bytes, and where each one ends. NumPy's own arrays of text would cut zeros off their ends."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return {
        f"{name}_bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        f"{name}_ends": np.cumsum([len(each) for each in encoded], dtype=np.int64),
    }


def texts_of(name: str, arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """The texts that `text_arrays` was given. Raises KeyError or ValueError if the arrays are none."""
    joined, ends = arrays[f"{name}_bytes"].tobytes(), arrays[f"{name}_ends"].tolist()
    starts = [0, *ends[:-1]]
    if (ends and ends[-1] != len(joined)) or any(end < start for start, end in zip(starts, ends, strict=False)):
        raise ValueError("the ids do not end where they should")
    return [joined[start:end].decode("utf-8", "surrogatepass") for start, end in zip(starts, ends, strict=False)]


def learned_from(interactions: Interactions, notes: Sequence[str] = ()) -> Learned:
    """What a model says of where it comes from."""
    digest = hashlib.blake2b(digest_size=16)
    for ids in (interactions.users, interactions.items):
        for array in text_arrays("", ids).values():
            digest.update(array.tobytes())
    for column in (interactions.user, interactions.item, interactions.timestamp):
        digest.update(b"none" if column is None else column.tobytes())
    sizes = (len(interactions.users), len(interactions.items), len(interactions))
    return Learned(*sizes, digest.hexdigest(), tuple(notes))
