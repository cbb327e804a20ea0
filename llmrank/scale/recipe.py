"""A configuration and a catalogue go in; digests of all that shapes a ranking come out, and a Ranker on request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from llmrank.catalog import Catalog
from llmrank.config import build_ranker, load_config
from llmrank.errors import ConfigError, nearest
from llmrank.fusion.file import read_fusion
from llmrank.ranker import Ranker
from llmrank.scale.schema import Keep
from llmrank.strategy_kinds import build_strategy

_NOT_SHAPING = ("limits", "cache", "catalog")
_NOT_SHAPING_BACKEND = ("max_concurrency", "timeout_s", "api_key_env", "priority")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a shard is ranked with. It can be sent to another process.

    Attributes:
        config: The configuration's sections.
        catalog: The items, or the path of their file.
        keep: What is kept of each Ranking.
        top_k: How many items a Ranking has, for rows that say none.
        digests: Of the configuration with its templates and the content of the files that it names (models, lists, vectors, its
            fitted fusion), wherever these lie, and of the catalogue. Limits, the answer cache, concurrency, timeouts and the
            name of the key's variable are not part of them: these may change between two halves of a run.
    """

    config: Mapping[str, Any]
    catalog: Catalog | str
    keep: Keep
    top_k: int | None
    digests: Mapping[str, str | None]

    def build(self) -> Ranker:
        """The Ranker.

        Raises:
            ConfigError: as for `Ranker.from_config`; also if this machine's item file is not the one that the run began with.
        """
        if isinstance(self.catalog, str) and _file_digest(self.catalog) != self.digests["catalog"]:
            raise ConfigError(
                "is not the item file that the run began with",
                field="catalog",
                value=self.catalog,
                fix="name one that all machines see, or give a Catalog",
            )
        return build_ranker(self.config, catalog=self.catalog)


def make_recipe(
    config: str | Path | Mapping[str, Any],
    catalog: Catalog | str | Path | None = None,
    *,
    ranker: Ranker | None = None,
    keep: Keep = "columns",
    top_k: int | None = None,
) -> Recipe:
    """Reads a configuration and takes the digests.

    Args:
        config: A YAML file, or a dict of the same form. With `ranker`, any mapping that says how the Ranker was made.
        catalog: Where ids are looked up; None for what `ranker` or the configuration has.
        ranker: A Ranker that is there already.
        keep: What is kept of each Ranking.
        top_k: How many items a Ranking has.

    Raises:
        ConfigError, TemplateError: the configuration cannot be read, or there is no catalogue.
    """
    if ranker is None or not isinstance(config, Mapping):
        config = load_config(config)
    if catalog is None and ranker is not None:
        catalog = ranker.catalog
    if catalog is None and isinstance(section := config.get("catalog"), Mapping):
        catalog = section.get("path")
    if catalog is None:
        raise ConfigError("is missing", field="catalog", fix="name an item file: shards hold ids, which are looked up there")
    if keep not in get_args(Keep):
        raise ConfigError("unknown", field="keep", value=keep, fix=nearest(keep, get_args(Keep)))
    if not isinstance(catalog, Catalog):
        catalog = str(Path(catalog).absolute())
    if ranker is None:
        templates = build_strategy(config.get("strategy") or {"kind": "listwise"}, config.get("prompt")).templates
    else:
        templates = getattr(ranker.strategy, "templates", {})  # a strategy of one's own need not have any
    digests = {
        "config": _json_digest(
            {
                "sections": without_files(shaping(config)),
                "templates": dict(templates),
                "keep": keep,
                "top_k": top_k,
                **fusion_digest(config),
                **content_digests(config),
            }
        ),
        "catalog": _catalog_digest(catalog),
    }
    return Recipe(config, catalog, keep, top_k, digests)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fusion_digest(config: Mapping[str, Any]) -> dict[str, str]:
    """``{"fusion": ...}`` with the SHA-256 of the file that a configuration's fusion is read from; empty if there is none.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = fusion_path(config)
    if path is None:
        return {}
    read_fusion(path)  # says what is wrong with it
    return {"fusion": file_digest(Path(path))}


def content_digests(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """``{"files": {key: SHA-256}}`` of what is in the files that a configuration names beside its fusion's; empty without any.

    These are trained models, lists, and vectors that somebody else made. Of a folder (a learned retriever) it is that of the
    names and contents of all of its files.

    Raises:
        ConfigError: one cannot be read; its key is named.
    """
    files = {}
    for where, section, key in _named_files(config):
        try:
            files[f"{where}.{key}".lstrip(".")] = _content_digest(Path(section[key]))
        except OSError as error:
            fix = "check the path"
            field = f"{where}.{key}".lstrip(".")
            raise ConfigError(f"cannot be read ({error.strerror})", field=field, value=section[key], fix=fix) from error
    return {"files": files} if files else {}


def without_files(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the places of the files whose contents `content_digests` and `fusion_digest` tell."""
    kept: dict[str, Any] = deepcopy(dict(config))
    for _, section, key in list(_named_files(kept)):
        del section[key]
    if fusion_path(kept) is not None:
        del kept["fusion"]["path"]
    return kept


def _named_files(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """The files that a configuration names: the section's name, the section, and the key in it."""
    retrievers, prefilter = (config.get(name) for name in ("retrievers", "prefilter"))
    sections = [("", config)] if "baseline" in config else []
    if isinstance(retrievers, Mapping):
        sections += [(f"retrievers.{name}", each) for name, each in retrievers.items() if isinstance(each, Mapping)]
    yield from ((where, section, "path") for where, section in sections if isinstance(section.get("path"), str))
    if isinstance(prefilter, Mapping):
        sections.append(("prefilter", prefilter))
    for where, section in sections:
        embedder = section.get("embedder")
        if isinstance(embedder, Mapping):
            inner = f"{where}.embedder".lstrip(".")
            yield from ((inner, embedder, key) for key in ("vectors", "keys") if isinstance(embedder.get(key), str))


def _content_digest(path: Path) -> str:
    if not path.is_dir():
        return file_digest(path)
    digest = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        digest.update(_canonical([file.relative_to(path).as_posix(), file_digest(file)]))
    return digest.hexdigest()


def fusion_path(config: Mapping[str, Any]) -> str | None:
    """The file that a configuration's fusion is read from; None if it is not."""
    section = config.get("fusion")
    path = section.get("path") if isinstance(section, Mapping) else None
    return None if path is None else str(path)


def _file_digest(path: str) -> str | None:
    try:
        return file_digest(Path(path))
    except OSError:
        return None  # reading it as a catalogue says why


def _catalog_digest(catalog: Catalog | str) -> str | None:
    if isinstance(catalog, str):
        return _file_digest(catalog)
    digest = hashlib.sha256()
    for item in catalog:
        digest.update(_canonical([item.id, item.title, dict(item.attributes)]))
    return digest.hexdigest()


def shaping(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that shape a ranking; null and left out are the same."""
    sections = {name: value for name, value in config.items() if name not in _NOT_SHAPING and value is not None}
    if isinstance(backend := sections.get("backend"), Mapping):
        sections["backend"] = {name: value for name, value in backend.items() if name not in _NOT_SHAPING_BACKEND}
    return sections


def _json_digest(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: object) -> bytes:
    # default=str: YAML and Parquet know dates, which JSON does not.
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode() + b"\n"
