"""A suite and a folder go in; the folder comes out with its data frozen and its manifest written, or checked if it has one.

What shapes the results (data, protocol, seed, the rankers and their templates) must be as it was when the run began; what
only reads them (metrics, intervals, prices) may change, and rankers may be added.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llmrank import __version__
from llmrank.catalog import Catalog
from llmrank.config import build_embedder
from llmrank.errors import ConfigError, DatasetError, shorten
from llmrank.evaluation.cases import json_line, write_cases
from llmrank.evaluation.data.datasets import load_items
from llmrank.evaluation.data.interactions import Interactions
from llmrank.evaluation.data.protocol import make_cases
from llmrank.evaluation.folder import RunFolder, write_whole
from llmrank.evaluation.measures.measure import check_measures
from llmrank.evaluation.suite import Suite

FORMAT = 1
"""The version of a run folder's form."""

SHAPING = ("protocol", "seed", "stability", "memorization", "traces")
"""The parts of a suite, beside data and rankers, that results depend on."""

PACKAGES = ("openai", "vllm", "xllamacpp", "wordllama", "numpy")
"""Packages whose versions may matter to who repeats a run."""


def prepare(suite: Suite, out: str | Path, templates: Mapping[str, Mapping[str, str]]) -> tuple[RunFolder, tuple[str, ...]]:
    """Begins a run, or checks that it can go on.

    Args:
        suite: What is asked.
        out: The run's folder.
        templates: For each ranker the fingerprints of its templates by name.

    Returns:
        The folder, and what changed since the run began that does not touch its results, a sentence each.

    Raises:
        ConfigError: the suite differs from the one that the folder was made with; what differs is named.
        DatasetError: a source cannot be read, or no case comes out of it.
    """
    folder = RunFolder(out)
    sources = _sources(suite)
    digests = {name: {"path": str(path), "sha256": digest(path)} for name, path in sources.items()}
    if folder.exists:
        changes = _check(folder.manifest, suite, templates, digests)
        manifest = folder.manifest | _asked(suite, templates)
        if manifest != folder.manifest:
            _check_measures(suite, has_popularity=folder.popularity is not None)
            _write_manifest(folder, manifest)
        return RunFolder(out), changes
    _check_measures(suite, has_popularity="interactions" in sources)
    frozen = _freeze(suite, folder, sources)
    manifest = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **frozen,
        "data": digests,
        "versions": versions(),
        **_asked(suite, templates),
    }
    _write_manifest(folder, manifest)
    return RunFolder(out), ()


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of all files of a folder with their names."""
    total = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            if path.is_dir():
                total.update(f"{each.relative_to(path)}\0".encode())
            with each.open("rb") as file:
                total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """The versions of llmrank, Python and of what else may matter, where installed."""
    found = {"llmrank": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _sources(suite: Suite) -> dict[str, Path]:
    """The files that a suite names; a data set is fetched."""
    if suite.dataset is not None:
        from llmrank.evaluation.data import movielens

        items, interactions = movielens.fetch()
        sources = {"items": items, "interactions": interactions}
        if suite.cases is not None:
            sources["cases"] = Path(suite.cases)
    else:
        named = {"items": suite.items, "cases": suite.cases, "interactions": suite.interactions}
        sources = {name: Path(path) for name, path in named.items() if path is not None}
    for name, path in sources.items():
        if not path.exists():
            raise DatasetError("no such file or folder", field=name, value=str(path), fix="check the path")
    return sources


def _freeze(suite: Suite, folder: RunFolder, sources: Mapping[str, Path]) -> dict[str, Any]:
    """Writes `data/`; gives what the manifest says of it."""
    catalog = load_items(sources["items"])
    interactions = Interactions.load(sources["interactions"]) if "interactions" in sources else None
    embedder = None
    if suite.protocol.source == "retrieved" and suite.protocol.candidates.by in (None, "embedding"):
        embedder = build_embedder({key: value for key, value in (suite.embedder or {}).items() if key != "fields"})
    split = make_cases(
        suite.protocol,
        fields=tuple((suite.embedder or {}).get("fields", ("title",))),
        catalog=catalog,
        interactions=interactions,
        cases=sources.get("cases"),
        seed=suite.seed,
        embedder=embedder,
    )
    data = folder.path / "data"
    data.mkdir(parents=True, exist_ok=True)
    counted = _Counted()
    write_cases(data / "cases.jsonl", counted.each(split.cases))
    if not counted.count:
        raise DatasetError(
            "no case is left", field="protocol", value=asdict(suite.protocol), fix="check min_history, cut and users"
        )
    write_whole(data / "items.jsonl", _item_lines(catalog))
    if split.training is not None:
        counts = dict(sorted(split.training.counts.items()))
        write_whole(data / "popularity.json", [json.dumps({"users": split.training.users, "counts": counts})])
    return {
        "protocol": split.sentence,
        "cases": counted.count,
        "items": len(catalog),
        "notes": list(split.notes),
        "frozen": {path.name: digest(path) for path in sorted(data.iterdir())},
    }


class _Counted:
    """Counts what passes."""

    def __init__(self) -> None:
        self.count = 0

    def each(self, things: Any) -> Iterator[Any]:
        for thing in things:
            self.count += 1
            yield thing


def _item_lines(catalog: Catalog) -> Iterator[str]:
    for item in catalog:
        record = {"id": item.id, "title": item.title, **item.attributes}
        yield json_line(json.loads(json.dumps(record, default=str)))  # dates of a Parquet file become texts


def _asked(suite: Suite, templates: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the manifest says of the suite itself."""
    asked = json.loads(json.dumps(suite.as_dict(), default=str))
    return {
        "suite": asked,
        "seed": suite.seed,
        "primary": suite.primary,
        "metrics": list(suite.metrics),
        "failures": suite.failures,
        "confidence": suite.confidence,
        "resamples": suite.resamples,
        "rankers": {
            name: {"config": asked["rankers"][name], "templates": dict(templates.get(name, {}))} for name in suite.rankers
        },
    }


def _check(
    manifest: Mapping[str, Any],
    suite: Suite,
    templates: Mapping[str, Mapping[str, str]],
    digests: Mapping[str, Mapping[str, str]],
) -> tuple[str, ...]:
    """Refuses what would mix results of two suites; tells what else changed."""
    if manifest.get("format") != FORMAT:
        raise _changed("the form of the folder", manifest.get("format"), FORMAT)
    now = _asked(suite, templates)
    before = {name: each["sha256"] for name, each in manifest["data"].items()}
    after = {name: each["sha256"] for name, each in digests.items()}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            raise _changed(f"the data of `{name}`", before.get(name), after.get(name))
    for name in SHAPING:
        if manifest["suite"][name] != now["suite"][name]:
            raise _changed(f"`{name}`", manifest["suite"][name], now["suite"][name])
    for name, ranker in now["rankers"].items():
        known = manifest["rankers"].get(name)
        if known is not None and known != ranker:
            where, old, new = _difference(known, ranker)
            raise _changed(f"ranker {name!r} ({where})", old, new, "give the changed ranker a name of its own, or ")
    changes = [f"the suite's `{key}` changed; results stay" for key in _READING if manifest["suite"][key] != now["suite"][key]]
    changes += [f"ranker {name!r} is new" for name in now["rankers"] if name not in manifest["rankers"]]
    changes += [f"ranker {name!r} is no longer asked for" for name in manifest["rankers"] if name not in now["rankers"]]
    if manifest["versions"]["llmrank"] != __version__:
        changes.append(f"the run began with llmrank {manifest['versions']['llmrank']} and goes on with {__version__}")
    return tuple(changes)


_READING = ("metrics", "primary", "failures", "confidence", "resamples", "prices", "embedder")


def _changed(what: str, before: object, after: object, instead: str = "") -> ConfigError:
    return ConfigError(
        f"{what} changed since this run began: {shorten(before)} became {shorten(after)}",
        field="suite",
        fix=f"{instead}name another folder with --out, so that results do not mix",
    )


def _difference(before: Any, after: Any, where: str = "") -> tuple[str, Any, Any]:
    """The first place where two JSON values differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                return _difference(before.get(key), after.get(key), f"{where}.{key}" if where else key)
    return where, before, after


def _check_measures(suite: Suite, *, has_popularity: bool) -> None:
    vectors = suite.embedder is not None or importlib.util.find_spec("wordllama") is not None
    check_measures(suite.metrics, has_popularity=has_popularity, has_vectors=vectors, primary=suite.primary)


def _write_manifest(folder: RunFolder, manifest: Mapping[str, Any]) -> None:
    write_whole(folder.path / "manifest.json", [json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"])
