"""A suite file (YAML) or a dict goes in, a checked Suite comes out: what is ranked, by which rankers, and what is measured."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from llmrank.errors import ConfigError, nearest
from llmrank.evaluation.data.protocol import CandidateOptions, ProtocolOptions
from llmrank.evaluation.folder import RANKER_NAME
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.sections import load_yaml, make

DATASETS = ("ml-100k",)
"""The names that `dataset` takes: what `llmrank data fetch` fetches."""

DEFAULT_METRICS = ("ndcg@10", "ndcg@5", "ndcg@1", "hit@10", "mrr")

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class StabilityOptions:
    """How often orders are asked for again, with the candidates shuffled: the section `stability` of a suite.

    Attributes:
        cases: How many cases, the first ones.
        shuffles: How many other orders of each one's candidates.
    """

    cases: int = 50
    shuffles: int = 2

    def __post_init__(self) -> None:
        for name in ("cases", "shuffles"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    "must be at least 1", field=f"stability.{name}", value=getattr(self, name), fix="or leave it out"
                )


@dataclass(frozen=True, slots=True)
class MemorizationOptions:
    """How much the memorisation probe asks each model: the section `memorization` of a suite.

    Attributes:
        titles: How many titles the model is to complete, and as many made up ones.
        histories: How many histories, and as many controls.
    """

    titles: int = 100
    histories: int = 100

    def __post_init__(self) -> None:
        for name in ("titles", "histories"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    "must be at least 0", field=f"memorization.{name}", value=getattr(self, name), fix="0 asks none"
                )


@dataclass(frozen=True, slots=True)
class Suite:
    """What an evaluation run does. docs/evaluation.md describes the file.

    Attributes:
        rankers: Configurations by name: of a Ranker (`backend` ...), or of a baseline (`baseline: popularity`).
        items: The item file, or a MovieLens folder.
        cases: The case file; then `protocol.split` is ``given``.
        interactions: What cases are made of (without `cases`), and what may be learned from.
        dataset: In place of `items` and `interactions`, a data set that is fetched if need be: ``ml-100k``.
        protocol: How cases and candidates are made.
        metrics: Names of measures, such as ``ndcg@10``.
        primary: The measure that decides; by default the first of `metrics`.
        seed: Of all that is drawn.
        failures: ``fallback``: a ranking without a readable answer counts with the order that it fell back to. ``worst``: it
            counts 0. It is never left out.
        confidence: Of the intervals.
        resamples: Of the bootstrap.
        stability: Ask again with shuffled candidates; None: no.
        memorization: Probe what the models know by heart; None: no.
        embedder: What `diversity` measures with: a section like `prefilter.embedder`, with `fields` beside.
        prices: USD a million tokens by model: ``{input, cached_input, output}``; they come before the table that is packaged.
        traces: Keep every prompt and raw answer, for the report.
    """

    rankers: Mapping[str, Mapping[str, Any]]
    items: str | None = None
    cases: str | None = None
    interactions: str | None = None
    dataset: str | None = None
    protocol: ProtocolOptions = field(default_factory=ProtocolOptions)
    metrics: tuple[str, ...] = DEFAULT_METRICS
    primary: str | None = None
    seed: int = 0
    failures: Literal["fallback", "worst"] = "fallback"
    confidence: float = 0.95
    resamples: int = 2000
    stability: StabilityOptions | None = None
    memorization: MemorizationOptions | None = None
    embedder: Mapping[str, Any] | None = None
    prices: Mapping[str, Any] | None = None
    traces: bool = True

    def __post_init__(self) -> None:
        if not self.rankers:
            raise ConfigError("names no ranker", field="rankers", fix="name at least one: {popularity: {baseline: popularity}}")
        for name in self.rankers:
            if not isinstance(name, str) or not RANKER_NAME.fullmatch(name):
                raise ConfigError(
                    "a ranker's name becomes a file's", field="rankers", value=name, fix="use letters, digits and . _ + - only"
                )
        if len({name.casefold() for name in self.rankers}) < len(self.rankers):
            raise ConfigError("two names differ in case only", field="rankers", value=list(self.rankers), fix="rename one")
        self._check_sources()
        if self.stability is not None and self.protocol.source == "full":
            raise ConfigError(
                "needs lists of candidates to shuffle", field="stability", fix="leave it out, or choose other candidates"
            )
        if not self.metrics:
            raise ConfigError("names no measure", field="metrics", fix="write [ndcg@10]")
        names = tuple(dict.fromkeys(parse_measure(name).name for name in self.metrics))
        object.__setattr__(self, "metrics", names)
        primary = names[0] if self.primary is None else parse_measure(self.primary).name
        object.__setattr__(self, "primary", primary)
        if primary not in names:
            raise ConfigError("is not among the metrics", field="primary", value=primary, fix=f"one of {', '.join(names)}")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError("must be from 0.5 to below 1", field="confidence", value=self.confidence, fix="0.95 is usual")
        if not 100 <= self.resamples <= 100_000:
            raise ConfigError("must be from 100 to 100,000", field="resamples", value=self.resamples, fix="2000 will do")

    def _check_sources(self) -> None:
        if self.dataset is not None:
            for name in ("items", "interactions"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        "is given twice, here and by `dataset`", field=name, value=getattr(self, name), fix="drop one"
                    )
            if self.dataset not in DATASETS:
                raise ConfigError("no such data set", field="dataset", value=self.dataset, fix=nearest(self.dataset, DATASETS))

    def as_dict(self) -> dict[str, Any]:
        """The suite as JSON values: what the manifest keeps."""
        return asdict(replace(self, rankers={name: dict(config) for name, config in self.rankers.items()}))


def load_suite(suite: str | Path | Mapping[str, Any], *, folder: Path | None = None) -> Suite:
    """Reads a suite file, or a dict of the same form.

    Paths in a file are relative to it; ``${NAME}`` in `items`, `cases` and `interactions` stands for an environment variable. A
    ranker may be the path of a Ranker's own YAML file.

    Args:
        suite: The file, or the dict.
        folder: What the paths in a dict are relative to; None for the working directory.

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown (the nearest is named) or a value is wrong.
    """
    folder = folder or Path()
    if isinstance(suite, str | Path):
        folder = Path(suite).parent
        suite = load_yaml(suite, "suite")
    if not isinstance(suite, Mapping):
        raise ConfigError("must be a mapping", field="suite", value=suite, fix="its keys: items, cases, rankers, metrics ...")
    values: dict[str, Any] = {key: value for key, value in suite.items() if value is not None}
    if "protocol" not in values and "cases" in values:
        values["protocol"] = {"split": "given"}
    for name, cls in (("protocol", ProtocolOptions), ("stability", StabilityOptions), ("memorization", MemorizationOptions)):
        if name in values and not isinstance(values[name], cls):
            values[name] = _options(cls, values[name], name)
    if isinstance(values.get("rankers"), Mapping):
        values["rankers"] = {name: _ranker(name, config, folder) for name, config in values["rankers"].items()}
    built = make(Suite, values, "")
    return replace(
        built,
        items=_located(built.items, "items", folder),
        cases=_located(built.cases, "cases", folder),
        interactions=_located(built.interactions, "interactions", folder),
    )


def _options(cls: type[Any], section: Any, where: str) -> Any:
    """An options class, with those inside it, each checked under its own name."""
    if not isinstance(section, Mapping):
        raise ConfigError("must be a mapping", field=where, value=section, fix=f"write {where}: {{key: value}}")
    values = dict(section)
    if cls is ProtocolOptions and not isinstance(candidates := values.get("candidates", {}), CandidateOptions):
        values["candidates"] = _options(CandidateOptions, candidates, f"{where}.candidates")
    return make(cls, values, where)


def _ranker(name: object, config: Any, folder: Path) -> dict[str, Any]:
    if isinstance(config, str):
        config = load_yaml(folder / config, f"rankers.{name}")
    if not isinstance(config, Mapping) or not ("backend" in config or "baseline" in config):
        raise ConfigError(
            "is neither a ranker nor a baseline",
            field=f"rankers.{name}",
            value=config,
            fix="write a ranker's configuration ({backend: ...}), the path of one, or {baseline: popularity}",
        )
    return dict(config)


def _located(path: str | None, field_name: str, folder: Path) -> str | None:
    if path is None:
        return None

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise ConfigError(
                f"the environment variable {match[1]} is not set",
                field=field_name,
                value=path,
                fix=f"set {match[1]} to a folder",
            )
        return found

    return str(folder / Path(_VARIABLE.sub(value, path)).expanduser())
