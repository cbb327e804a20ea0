"""A ranker's configuration and a run's folder go in; out comes the same with the files of the models that it has to train.

Retrievers and baselines of a kind that learns from interactions name no file in a suite: what may be learned from depends on
the protocol, so the run trains them, once each, and keeps them::

    DIR/data/training.npz      what may be learned from
    DIR/models/<digest>.npz    a model; the digest is of its kind, its options and what it learned from
    DIR/models/<digest>.json   how it was made: kind, options, seconds, users, items, interactions
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmrank.catalog import Catalog
from llmrank.config import build_embedder
from llmrank.errors import ConfigError
from llmrank.evaluation.fitting.learn import LearnOptions, Part, embedder_of, learn, parts_of
from llmrank.evaluation.folder import RunFolder
from llmrank.files import write_whole
from llmrank.interactions import Interactions
from llmrank.progress import progress
from llmrank.retrieval import collaborative
from llmrank.retriever_kinds import build_retriever
from llmrank.sections import make, mapping_of

LEARNED = "learned"
"""The kind that is made of others (`fitting.learn`); it is a folder and no file."""


@dataclass(frozen=True, slots=True)
class Learner:
    """A part of a configuration that has to learn before it ranks.

    Attributes:
        where: Its section, for messages.
        name: Of the retriever; None for a baseline.
        kind: Its kind.
        options: Of the kind, checked.
        parts: Of kind ``learned``: what is combined, checked.
    """

    where: str
    name: str | None
    kind: str
    options: Any
    parts: tuple[Part, ...] = ()


def learning_kinds() -> tuple[str, ...]:
    """The kinds of retriever that learn from interactions."""
    return (*collaborative.MODEL_KINDS, LEARNED)


def learns_baseline(config: Mapping[str, Any]) -> bool:
    """Whether a baseline is a kind that learns. Popularity is one only where an option makes it more than counts."""
    kind = config.get("baseline")
    if kind == "popularity":
        return len(config) > 1
    return kind not in ("random", "embedding", "given", "fusion", None) and kind in learning_kinds()


def learners(config: Mapping[str, Any], where: str) -> Iterator[Learner]:
    """What of a ranker or baseline has to learn: each part of a learning kind that names no file (`path`).

    Args:
        config: The configuration.
        where: Its section, for messages.

    Raises:
        ConfigError: an option of such a part is unknown or wrong.
    """
    if learns_baseline(config):
        if config.get("path") is None:
            yield _learner({**config, "kind": config["baseline"]}, where, None, also=("baseline", "path"))
        return
    retrievers = config.get("retrievers")
    for name, section in retrievers.items() if isinstance(retrievers, Mapping) else ():
        if isinstance(section, Mapping) and section.get("path") is None and section.get("kind") in learning_kinds():
            yield _learner(section, f"{where}.retrievers.{name}", str(name), also=("kind", "path"))


def needs_training(config: Mapping[str, Any], where: str = "rankers") -> bool:
    """Whether any part of a configuration has to learn. Raises ConfigError as `learners` does."""
    return any(True for _ in learners(config, where))


def trained(config: Mapping[str, Any], folder: RunFolder, where: str) -> dict[str, Any]:
    """The configuration with the absolute path of a trained model in every part that has to learn; trains what is not there.

    Args:
        config: Of a ranker or a baseline.
        folder: The run's.
        where: Its section, for messages.

    Raises:
        ConfigError: an option is unknown or wrong, or there is nothing to learn from.
        SetupError: a package that training needs is missing.
    """
    made: dict[str, Any] = deepcopy(dict(config))
    for each in learners(config, where):
        section: dict[str, Any] = {"path": str(_model(each, folder).absolute())}
        embedder = embedder_of(each.parts)
        if embedder is not None:  # the folder of a learned retriever does not tell whom to ask
            section["embedder"] = embedder
        if each.name is None:
            made = {"baseline": each.kind, **section}
        else:
            made["retrievers"][each.name] = {"kind": each.kind, **section}
    return made


def refuse_ignorance(where: str) -> ConfigError:
    """The error for a part that has to learn where there is nothing to learn from."""
    return ConfigError(
        "has to learn who chose what, which is not known",
        field=where,
        fix="name `interactions` in the suite, or a trained model with `path`",
    )


def _learner(section: Mapping[str, Any], where: str, name: str | None, *, also: tuple[str, ...]) -> Learner:
    kind = section["kind"]
    options = {key: value for key, value in section.items() if key not in (*also, "kind")}
    try:
        if kind == LEARNED:
            parts = parts_of(mapping_of(options.pop("parts", None), f"{where}.parts"), f"{where}.parts")
            return Learner(where, name, kind, make(LearnOptions, options, where, also=(*also, "parts")), parts)
        return Learner(where, name, kind, make(collaborative.MODEL_KINDS[kind].options_type, options, where, also=also))
    except ConfigError as error:
        if error.field.startswith(where):
            raise
        # A kind names its options alone: the suite has several of them.
        raise ConfigError(error.message, field=f"{where}.{error.field}", value=error.value, fix=error.fix) from error


def _model(learner: Learner, folder: RunFolder) -> Path:
    """The file of a trained model."""
    training = folder.training
    if training is None:
        raise refuse_ignorance(learner.where)
    made = {
        "kind": learner.kind,
        "options": asdict(learner.options),
        "training": folder.manifest["frozen"]["training.npz"],
    }
    if learner.kind == LEARNED:
        made |= {
            "parts": {part.name: dict(part.section) for part in learner.parts},
            "items": folder.manifest["frozen"]["items.jsonl"],
        }
    digest = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = folder.models_path / (digest if learner.kind == LEARNED else f"{digest}.npz")
    if not path.exists():
        if learner.kind == LEARNED:
            _learn(learner, training, folder.catalog, path)
        else:
            _train(learner, training, path, made)
    return path


def _learn(learner: Learner, training: Interactions, catalog: Catalog, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    trained = learn(
        training,
        catalog,
        path,
        parts=learner.parts,
        options=learner.options,
        embedding=lambda name, section: build_retriever(name, section, catalog.items, embedder=build_embedder),
        report=_say,
    )
    _say(f"trained {LEARNED} in {trained['seconds']:.1f} s on {trained['users']:,} users")


def _train(learner: Learner, training: Interactions, path: Path, made: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with progress(f"training: {learner.kind}", "items") as report:
        began = time.perf_counter()
        model = collaborative.train(learner.kind, training, learner.options, progress=lambda done, total: report(done, total))
        seconds = time.perf_counter() - began
    sizes = {"users": len(training.users), "items": len(training.items), "interactions": len(training)}
    said = {**made, "seconds": round(seconds, 3), **sizes}
    # Before the model: a kill in between leaves a note of what is not there, which the next training replaces.
    write_whole(path.with_suffix(".json"), [json.dumps(said, indent=1, default=str) + "\n"])
    model.save(path)
    _say(f"trained {learner.kind} in {seconds:.1f} s on {sizes['interactions']:,} interactions of {sizes['users']:,} users")


def _say(text: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(text, highlight=False, markup=False)
