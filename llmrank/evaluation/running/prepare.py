"""A suite and a folder go in; the folder comes out with its data frozen and its manifest written, or checked if it has one.

What shapes the results (data, protocol, seed, the rankers and their templates) must be as it was when the run began; what
only reads them (metrics, intervals, prices) may change, and rankers may be added.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from llmrank import __version__
from llmrank.catalog import Catalog
from llmrank.config import build_embedder
from llmrank.errors import ConfigError, DatasetError, shorten
from llmrank.evaluation.cases import Case, json_line, write_cases
from llmrank.evaluation.data.datasets import load_items, source_file
from llmrank.evaluation.data.protocol import make_cases, training_of
from llmrank.evaluation.data.training import save_interactions
from llmrank.evaluation.fitting.provenance import fitted_on
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.measure import check_measures, parse_measure
from llmrank.evaluation.running.contenders import model_of
from llmrank.evaluation.running.learning import learners, needs_training, refuse_ignorance
from llmrank.evaluation.suite import Suite
from llmrank.files import write_whole
from llmrank.interactions import Interactions
from llmrank.retrieval.vectors import close_embedder
from llmrank.scale.recipe import content_digests, file_digest, fusion_digest, shaping

FORMAT = 1
"""The version of a run folder's form."""

SHAPING = ("protocol", "seed", "stability", "memorization", "traces")
"""The parts of a suite, beside data and rankers, that results depend on."""

TRAINING = "training.npz"
"""What may be learned from, in `data/`; there if a ranker has to learn."""

PACKAGES = ("openai", "vllm", "xllamacpp", "wordllama", "numpy")
"""Packages whose versions may matter to who repeats a run."""


@dataclass(frozen=True, slots=True)
class Given:
    """Data that a program has in its hands, in place of files that the suite names."""

    items: Catalog | None = None
    interactions: Interactions | None = None

    @classmethod
    def of(cls, items: Any = None, interactions: Any = None) -> Given:
        """A Catalog and Interactions, or data frames that become them.

        Raises:
            CatalogError, DatasetError: a frame cannot be read.
        """
        if items is not None and not isinstance(items, Catalog):
            items = Catalog.from_frame(items)
        if interactions is not None and not isinstance(interactions, Interactions):
            interactions = Interactions.from_frame(interactions)
        return cls(items, interactions)


def prepare(
    suite: Suite, out: str | Path, templates: Mapping[str, Mapping[str, str]], given: Given | None = None
) -> tuple[RunFolder, tuple[str, ...]]:
    """Begins a run, or checks that it can go on.

    Until something is ranked or paid for, a run may be begun anew by any suite: a mistake that was found in time binds nobody.

    Args:
        suite: What is asked.
        out: The run's folder.
        templates: For each ranker the fingerprints of its templates by name.
        given: Data in place of files.

    Returns:
        The folder, and what changed since the run began that does not touch its results, a sentence each.

    Raises:
        ConfigError: the suite differs from the one that the folder was made with; what differs is named.
        DatasetError: a source cannot be read, or no case comes out of it.
    """
    folder = RunFolder(out)
    given = given or Given()
    sources = sources_of(suite, given)
    digests = {name: {"path": str(path), "sha256": file_digest(source_file(path, name))} for name, path in sources.items()}
    digests |= _digests_of(given)
    untouched = _untouched(folder)
    if not folder.exists and not untouched:
        fix = "name another folder with --out; what these results are of is not known"
        raise DatasetError("there are results without a manifest", field="--out", value=str(folder.path), fix=fix)
    if not untouched:
        _check_frozen(folder)
        changes = _check(folder.manifest, suite, templates, digests)
        asked = _asked(suite, templates)
        # What is no longer asked for is remembered with its results, in case it is asked for again.
        known = {**folder.manifest.get("dropped", {}), **folder.manifest["rankers"]}
        dropped = {name: ranker for name, ranker in known.items() if name not in asked["rankers"]}
        _check_learning(suite, has_interactions="interactions" in digests)
        frozen = _with_training(suite, folder, sources, given)
        manifest = folder.manifest | asked | {"dropped": dropped, "frozen": frozen} | _fitted_on(suite, folder)
        if manifest != folder.manifest:
            _check_measures(suite, has_popularity=folder.popularity is not None)
            _write_manifest(folder, manifest)
        return RunFolder(out), changes
    _check_measures(suite, has_popularity="interactions" in digests)
    _check_learning(suite, has_interactions="interactions" in digests)
    (folder.path / "manifest.json").unlink(missing_ok=True)  # or a kill from here on would leave it beside other data
    for name in ("popularity.json", TRAINING):
        (folder.path / "data" / name).unlink(missing_ok=True)
    frozen = _freeze(suite, folder, sources, given)
    manifest = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **frozen,
        "data": digests,
        "versions": versions(),
        "dropped": {},
        **_asked(suite, templates),
        **_fitted_on(suite, folder),
    }
    _write_manifest(folder, manifest)
    return RunFolder(out), ()


def _fitted_on(suite: Suite, folder: RunFolder) -> dict[str, Any]:
    """For each ranker whose fusion was fitted on users of this run, of how many of its cases."""
    return {"fitted_on": fitted_on(suite.rankers, folder.cases())}


def _check_frozen(folder: RunFolder) -> None:
    """Refuses data that were edited since they were frozen."""
    for name, expected in folder.manifest["frozen"].items():
        path = folder.path / "data" / name
        if not path.exists() or file_digest(path) != expected:
            fix = "put back what was there, or name another folder with --out"
            raise DatasetError("is not what was frozen when the run began", field="run", value=str(path), fix=fix)


def _untouched(folder: RunFolder) -> bool:
    """Whether nothing was ranked or paid for yet."""
    written = [folder.path / "spent.jsonl", folder.path / "memorization.json", folder.path / "batch", folder.path / "shards"]
    logs = [*(folder.path / "results").glob("*"), *(folder.path / "stability").glob("*")]
    logs += (folder.path / "positions").glob("*/*")
    return not any(path.exists() for path in written) and not any(path.stat().st_size for path in logs)


def _digests_of(given: Given) -> dict[str, dict[str, str]]:
    """What the manifest says of data that came from a program."""
    found = {}
    if given.items is not None:
        found["items"] = {"path": "given", "sha256": _text_digest(item_lines(given.items))}
    if given.interactions is not None:
        rows = (f"{row.user_id}\0{row.item_id}\0{row.timestamp}\0{row.rating}\n" for row in given.interactions.rows())
        found["interactions"] = {"path": "given", "sha256": _text_digest(rows)}
    return found


def _text_digest(texts: Iterable[str]) -> str:
    total = hashlib.sha256()
    for text in texts:
        total.update(text.encode(errors="surrogatepass"))
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


def sources_of(suite: Suite, given: Given) -> dict[str, Path]:
    """The files that a suite names, but for what is given; a data set is fetched."""
    named = {"items": suite.items, "cases": suite.cases, "interactions": suite.interactions}
    sources = {name: Path(path) for name, path in named.items() if path is not None}
    if suite.dataset is not None:
        from llmrank.evaluation.data import movielens

        sources["items"], sources["interactions"] = movielens.fetch()
    for name in ("items", "interactions"):
        if getattr(given, name) is not None and sources.pop(name, None) is not None:
            raise ConfigError("is given twice, in the suite and by the program", field=name, fix="leave it out of the suite")
    if "items" not in sources and given.items is None:
        raise ConfigError("is missing", field="items", fix="name the item file")
    if "cases" not in sources and "interactions" not in sources and given.interactions is None:
        raise ConfigError("is missing", field="cases", fix="name a case file, or `interactions` and a `protocol`")
    for name, path in sources.items():
        if not path.exists():
            raise DatasetError("no such file or folder", field=name, value=str(path), fix="check the path")
    return sources


def _freeze(suite: Suite, folder: RunFolder, sources: Mapping[str, Path], given: Given) -> dict[str, Any]:
    """Writes `data/`; gives what the manifest says of it."""
    catalog = load_items(sources["items"]) if given.items is None else given.items
    interactions = _interactions(sources, given)
    embedder = None
    if _retrieves(suite):
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
    write_whole(data / "items.jsonl", item_lines(catalog))
    if split.training is not None:
        counts = dict(sorted(split.training.counts.items()))
        write_whole(data / "popularity.json", [json.dumps({"users": split.training.users, "counts": counts})])
    if _learns(suite) and split.training_interactions is not None:
        save_interactions(data / TRAINING, split.training_interactions)
    return {
        "protocol": split.sentence + (f"; {counted.candidates} candidates a case" if suite.protocol.source == "given" else ""),
        "cases": counted.count,
        "items": len(catalog),
        "notes": list(split.notes),
        "frozen": {path.name: file_digest(path) for path in sorted(data.iterdir())},
    }


def _interactions(sources: Mapping[str, Path], given: Given) -> Interactions | None:
    return Interactions.load(sources["interactions"]) if "interactions" in sources else given.interactions


def _learns(suite: Suite) -> bool:
    """Whether some ranker has to learn from interactions."""
    return any(needs_training(config, f"rankers.{name}") for name, config in suite.rankers.items())


def _check_learning(suite: Suite, *, has_interactions: bool) -> None:
    """Refuses what has to learn where there is nothing to learn from, and options that no kind of model has."""
    for name, config in suite.rankers.items():
        for each in learners(config, f"rankers.{name}"):
            if not has_interactions:
                raise refuse_ignorance(each.where)


def _with_training(suite: Suite, folder: RunFolder, sources: Mapping[str, Path], given: Given) -> dict[str, str]:
    """The digests of a run's frozen data; with what may be learned from, if a ranker was added that has to learn.

    It is made anew from the sources, which are as they were when the run began: that was checked before.
    """
    frozen: dict[str, str] = folder.manifest["frozen"]
    if TRAINING in frozen or not _learns(suite):
        return frozen
    found = training_of(
        suite.protocol,
        catalog=folder.catalog,
        interactions=_interactions(sources, given),
        cases=sources.get("cases"),
        seed=suite.seed,
    )
    if found is None:
        return frozen
    interactions, popularity = found
    if popularity != folder.popularity:
        raise ConfigError(
            "what may be learned from is not what it was when this run began, as this version splits the data otherwise",
            field="suite",
            fix="name another folder with --out",
        )
    save_interactions(folder.path / "data" / TRAINING, interactions)
    return frozen | {TRAINING: file_digest(folder.path / "data" / TRAINING)}


def _retrieves(suite: Suite) -> bool:
    """Whether candidates are found by the suite's embedder."""
    return suite.protocol.source == "retrieved" and suite.protocol.candidates.by in (None, "embedding")


class _Counted:
    """Counts cases that pass, and their candidates."""

    def __init__(self) -> None:
        self.count = 0
        self._least, self._most = sys.maxsize, 0
        self._whole = False

    def each(self, cases: Iterable[Case]) -> Iterator[Case]:
        for case in cases:
            self.count += 1
            self._whole |= case.candidates is None
            count = len(case.candidates or ())
            self._least, self._most = min(self._least, count), max(self._most, count)
            yield case

    @property
    def candidates(self) -> str:
        """How many candidates a case has."""
        if self._whole:
            return "all items or listed"
        return f"{self._least}" if self._least == self._most else f"{self._least} to {self._most}"


def item_lines(catalog: Catalog) -> Iterator[str]:
    """The lines of an item file."""
    for item in catalog:
        record = {"id": item.id, "title": item.title, **item.attributes}
        yield json_line(json.loads(json.dumps(record, default=str)))  # dates of a Parquet file become texts


def _asked(suite: Suite, templates: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the manifest says of the suite itself."""
    asked = json.loads(json.dumps(suite.as_dict(), default=str))
    asked["rankers"] = {name: without_secrets(config) for name, config in asked["rankers"].items()}
    asked["embedder"] = without_secrets(asked["embedder"])
    return {
        "suite": asked,
        "seed": suite.seed,
        "primary": suite.primary,
        "metrics": list(suite.metrics),
        "failures": suite.failures,
        "confidence": suite.confidence,
        "resamples": suite.resamples,
        "rankers": {
            name: {
                "config": asked["rankers"][name],
                "templates": dict(templates.get(name, {})),
                "model": model_of(asked["rankers"][name]),
                **fusion_digest(asked["rankers"][name]),
                **content_digests(suite.rankers[name]),
            }
            for name in suite.rankers
        },
    }


def without_secrets(value: Any) -> Any:
    """A configuration with a digest in place of every header and query value, and of what stands before the @ of an address.

    Equal secrets stay equal, so a change is still seen; what is a digest already stays one.
    """
    if isinstance(value, Mapping):
        return {
            key: {name: _digested(each) for name, each in inner.items()}
            if key in _SECRET and isinstance(inner, Mapping)
            else without_secrets(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    return _CREDENTIALS.sub(lambda match: f"{match[1]}{_digested(match[2])}@", value) if isinstance(value, str) else value


def _digested(value: object) -> str:
    if _DIGEST.fullmatch(str(value)):
        return str(value)
    return f"sha256:{hashlib.sha256(str(value).encode(errors='surrogatepass')).hexdigest()[:12]}"


_SECRET = ("headers", "query")
_DIGEST = re.compile(r"sha256:[0-9a-f]{12}")
_CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)([^/@\s]+)@", re.IGNORECASE)


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
    shaping_parts = (*SHAPING, "embedder") if _retrieves(suite) else SHAPING
    for name in shaping_parts:
        # Null and left out are the same, also for keys that the version which began the run did not know.
        began = without_secrets(manifest["suite"][name])  # an older version kept those of an embedder
        if _without_nulls(began) != _without_nulls(now["suite"][name]):
            where, old, new = _difference(began, now["suite"][name], name)
            raise _changed(f"`{where}`", old, new)
    for name, ranker in now["rankers"].items():
        known = manifest["rankers"].get(name) or manifest.get("dropped", {}).get(name) or ranker
        if "files" in ranker and "files" not in known:
            known = {**known, "files": ranker["files"]}  # the version that began the run did not look into them
        before_it, now_it = ({**each, "config": shaping(each["config"])} for each in (known, ranker))
        if before_it != now_it:
            where, old, new = _difference(before_it, now_it)
            raise _changed(f"ranker {name!r} ({where})", old, new, "give the changed ranker a name of its own, or ")
    reading = [key for key in _READING if key not in shaping_parts and manifest["suite"][key] != now["suite"][key]]
    changes = [f"the suite's `{key}` changed; results stay" for key in reading]
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


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: _without_nulls(each) for key, each in value.items() if each is not None}


def _difference(before: Any, after: Any, where: str = "") -> tuple[str, Any, Any]:
    """The first place where two JSON values differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                return _difference(before.get(key), after.get(key), f"{where}.{key}" if where else key)
    return where, before, after


def _check_measures(suite: Suite, *, has_popularity: bool) -> None:
    if any(parse_measure(name).needs == "embedder" for name in suite.metrics) and suite.embedder is not None:
        # A mistake in its section is found now, and not when everything is ranked.
        close_embedder(build_embedder({key: value for key, value in suite.embedder.items() if key != "fields"}))
    vectors = suite.embedder is not None or importlib.util.find_spec("wordllama") is not None
    check_measures(suite.metrics, has_popularity=has_popularity, has_vectors=vectors, primary=suite.primary)


def _write_manifest(folder: RunFolder, manifest: Mapping[str, Any]) -> None:
    write_whole(folder.path / "manifest.json", [json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"])
