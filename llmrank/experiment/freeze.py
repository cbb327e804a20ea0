"""A Spec and a folder go in; the folder comes out with users, candidates, orders and seeds frozen, or checked if they are.

All variants share these, and nothing of them, nor of what decides, can change once something was asked: users, measures and
margins that are chosen after a look at results prove nothing.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmrank.catalog import Catalog
from llmrank.config import build_embedder
from llmrank.errors import ConfigError, DatasetError, shorten
from llmrank.evaluation.cases import Case, write_cases
from llmrank.evaluation.data.datasets import load_items
from llmrank.evaluation.data.protocol import ProtocolOptions, Split, make_cases
from llmrank.evaluation.data.questions import shuffled_by_hash
from llmrank.evaluation.data.training import save_interactions
from llmrank.evaluation.running.contenders import templates_of
from llmrank.evaluation.running.prepare import Given, item_lines, sources_of, versions, without_secrets
from llmrank.experiment.folder import ExperimentFolder
from llmrank.experiment.spec import Spec
from llmrank.files import write_whole
from llmrank.interactions import Interactions
from llmrank.retrieval.vectors import close_embedder
from llmrank.scale.recipe import file_digest

FORMAT = 1
"""The version of an experiment folder's form."""

MADE = ("experiment.json", "plan.json", "selection.json", "findings.json", "report.html", "report.md")
"""What belongs to one experiment and must not outlive it in its folder."""

GIVEN_ONLY = ("online", "prices", "traces")
"""What may change while an experiment runs: it shapes neither answers nor what is made of them."""


def freeze(spec: Spec, out: str | Path, given: Given | None = None) -> ExperimentFolder:
    """Begins an experiment, or checks that it can go on.

    Until something is ranked, an experiment may be begun anew by any file.

    Args:
        spec: What is compared.
        out: The folder.
        given: Data in place of files.

    Raises:
        ConfigError: the experiment differs from the one that the folder was made with (what differs is named), or asks for more
            users than there are.
        DatasetError: a source cannot be read, or frozen data were edited.
    """
    folder = ExperimentFolder(out)
    asked = _asked(spec)
    if _begun(folder):
        if not folder.exists:
            fix = "put back the file that was there, or name another folder with --out"
            raise DatasetError("something was asked, but experiment.json is gone", field="experiment", value=str(out), fix=fix)
        _check(folder, asked)
        return folder
    for name in MADE:  # or a kill from here on would leave them beside other data; the plan is that of another file, too
        (folder.path / name).unlink(missing_ok=True)
    frozen = _freeze(spec, folder, given or Given())
    manifest = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": _digest({"frozen": frozen["frozen"], "orders": spec.repeats.orders, "samples": spec.repeats.samples}),
        **frozen,
        "orders": spec.repeats.orders,
        "versions": versions(),
        **asked,
    }
    write_whole(folder.manifest_path, [json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"])
    return ExperimentFolder(out)


def _asked(spec: Spec) -> dict[str, Any]:
    """What the manifest says of the spec itself."""
    values = json.loads(json.dumps(spec.as_dict(), default=str))
    values["embedder"] = without_secrets(values["embedder"])
    values["variants"] = {name: without_secrets(config) for name, config in values["variants"].items()}
    return {"spec": values, "templates": {name: templates_of(config) for name, config in spec.variants.items()}}


def _begun(folder: ExperimentFolder) -> bool:
    """Whether anything was ranked or paid for."""
    runs = (folder.run("development").path, folder.run("confirmation").path)
    logs = [path for run in runs for path in (run / "results").glob("*")]
    return any((run / "spent.jsonl").exists() for run in runs) or any(path.stat().st_size for path in logs)


def _check(folder: ExperimentFolder, asked: Mapping[str, Any]) -> None:
    manifest = folder.manifest
    if manifest.get("format") != FORMAT:
        raise _changed("the form of the folder", manifest.get("format"), FORMAT)
    check_frozen(folder)
    for part in ("spec", "templates"):
        for where, old, new in _differing(manifest[part], asked[part]):
            if part == "templates" or where.split(".")[0] not in GIVEN_ONLY:
                raise _changed(f"`{where}`" if part == "spec" else f"the template of {where}", old, new)


def check_frozen(folder: ExperimentFolder) -> None:
    """Refuses data that were edited since they were frozen.

    Raises:
        DatasetError: a frozen file is not what it was.
    """
    for name, expected in folder.manifest["frozen"].items():
        path = folder.frozen(name)
        if not path.exists() or file_digest(path) != expected:
            fix = "put back what was there, or name another folder with --out"
            raise DatasetError("is not what was frozen when the experiment began", field="experiment", value=str(path), fix=fix)


def _changed(what: str, before: object, after: object) -> ConfigError:
    return ConfigError(
        f"{what} changed since something was asked: {shorten(before)} became {shorten(after)}",
        field="experiment",
        fix="what is compared, on whom and how is fixed before the first answer: name another folder with --out",
    )


def _differing(before: Any, after: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _differing(before.get(key), after.get(key), f"{where}.{key}" if where else str(key))
    elif before != after:
        yield where, before, after


def _freeze(spec: Spec, folder: ExperimentFolder, given: Given) -> dict[str, Any]:
    """Writes `frozen/`; gives what the manifest says of it."""
    sources = sources_of(spec.sources(), given)
    catalog = load_items(sources["items"]) if given.items is None else given.items
    interactions = Interactions.load(sources["interactions"]) if "interactions" in sources else given.interactions
    split = _split(spec, catalog, interactions, sources)
    by_user: dict[str, list[Case]] = {}
    for case in split.cases:
        by_user.setdefault(case.user_id, []).append(case)
    users = list(by_user)
    users = [users[place] for place in shuffled_by_hash(users, spec.seed)]
    development, confirmation = _divided(spec, users)
    # Of given cases a user may have several, and all were read; else one a user, of whom a sample was.
    population = len(users) if spec.protocol.split == "given" else split.population
    frozen = folder.path / "frozen"
    frozen.mkdir(parents=True, exist_ok=True)
    for path in frozen.iterdir():
        path.unlink()
    for name, some in (("development", development), ("confirmation", confirmation)):
        if some:
            write_cases(folder.frozen(f"{name}.jsonl"), _trials(spec, (case for user in some for case in by_user[user])))
    write_whole(folder.frozen("items.jsonl"), item_lines(catalog))
    if split.training_interactions is not None:
        save_interactions(folder.frozen("training.npz"), split.training_interactions)
    return {
        "protocol": split.sentence,
        "notes": list(split.notes),
        "users": {"development": len(development), "confirmation": len(confirmation), "population": population},
        "frozen": {path.name: file_digest(path) for path in sorted(frozen.iterdir())},
    }


def _split(spec: Spec, catalog: Catalog, interactions: Interactions | None, sources: Mapping[str, Path]) -> Split:
    protocol: ProtocolOptions = spec.protocol
    retrieves = protocol.source == "retrieved" and protocol.candidates.by in (None, "embedding")
    section = dict(spec.embedder or {})
    fields = tuple(section.pop("fields", ("title",)))
    embedder = build_embedder(section) if retrieves else None
    wanted = None if spec.users is None else spec.users + (0 if spec.selection is None else spec.selection.users)
    if wanted is not None and protocol.users is None and protocol.split != "given":
        protocol = replace(protocol, users=wanted)
    try:
        return make_cases(
            protocol,
            fields=fields,
            catalog=catalog,
            interactions=interactions,
            cases=sources.get("cases"),
            seed=spec.seed,
            embedder=embedder,
        )
    finally:
        if embedder is not None:
            close_embedder(embedder)


def _divided(spec: Spec, users: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Development users, and those that decide; no user is among both."""
    first = 0 if spec.selection is None else spec.selection.users
    left = len(users) - first
    wanted = left if spec.users is None else spec.users
    if left < 2 or wanted > left:
        named = {"users": spec.users, "selection.users": first or None, "there are": len(users)}
        raise ConfigError(
            "asks for more users than the protocol makes cases of",
            field="users",
            value={key: value for key, value in named.items() if value is not None},
            fix="ask for fewer users, or check protocol.min_history, cut and users",
        )
    return users[:first], users[first : first + wanted]


def _trials(spec: Spec, cases: Iterable[Case]) -> Iterator[Case]:
    """Each case in each of its orders: first as the protocol gave it, then shuffled."""
    for number, case in enumerate(cases):
        yield case
        for order in range(1, spec.repeats.orders):
            if case.candidates is None:
                raise ConfigError(
                    "shows candidates in several orders, and here the whole catalogue is ranked",
                    field="repeats.orders",
                    value=spec.repeats.orders,
                    fix="leave it out, or choose other candidates",
                )
            shown = list(case.candidates)
            generator = random.Random(f"{spec.seed}:{case.user_id}:{number}:{order}")  # noqa: S311  # no secret
            generator.shuffle(shown)
            yield replace(case, candidates=tuple(shown))


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
