"""A configuration and a catalogue go in; digests of all that shapes a ranking come out, and a Ranker on request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
        digests: Of the configuration with its templates and the content of its retrievers' models and its fitted fusion,
            wherever these lie, and of the catalogue. Limits, the answer cache, concurrency, timeouts and the name of the
            key's variable are not part of them: these may change between two halves of a run.
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
                "sections": _placeless(shaping(config)),
                "templates": dict(templates),
                "keep": keep,
                "top_k": top_k,
                **fusion_digest(config),
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


def fusion_path(config: Mapping[str, Any]) -> str | None:
    """The file that a configuration's fusion is read from; None if it is not."""
    section = config.get("fusion")
    path = section.get("path") if isinstance(section, Mapping) else None
    return None if path is None else str(path)


def _placeless(sections: dict[str, Any]) -> dict[str, Any]:
    """The sections with what models and fusions are in place of where they lie: a folder may be moved between two halves."""
    retrievers = sections.get("retrievers")
    if isinstance(retrievers, Mapping):
        sections = sections | {"retrievers": {name: _by_content(each) for name, each in retrievers.items()}}
    if fusion_path(sections) is not None:
        sections = sections | {"fusion": "fitted"}  # its digest stands beside the sections
    return sections


def _by_content(section: object) -> object:
    path = section.get("path") if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping) or not isinstance(path, str):
        return section
    try:
        return {**section, "path": {"sha256": _content_digest(Path(path))}}
    except OSError:
        return section  # building it says what is wrong with it


def _content_digest(path: Path) -> str:
    """Of a file's bytes; of a folder (that of a `learned` retriever) those of all its files, with their names in it."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return _json_digest([[each.relative_to(path).as_posix(), file_digest(each)] for each in files])


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
