"""An experiment file (YAML) or a dict goes in, a checked Spec comes out: what is compared, on whom, and what decides."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from llmrank.errors import ConfigError, nearest
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.suite import DEFAULT_METRICS, Suite, load_suite
from llmrank.sections import load_yaml, make, refuse_unknown

OF_RANKINGS = ("failures", "cost", "latency_p50", "latency_p95")
"""What a guardrail may watch beside measures."""

SAMPLE_MARK = ".sample"
"""Stands between a variant and the number of a repeated sample in the names of a run's rankers."""

_MARGIN = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<percent>%?)")


@dataclass(frozen=True, slots=True)
class RepeatOptions:
    """How often a user is asked about: the section `repeats`.

    Attributes:
        orders: In how many orders each case's candidates are shown; every variant is shown the same ones. More than one tells
            the effect of a prompt from that of the order.
        samples: How many answers to each order, with seeds of their own; more than one needs strategies that sample.
    """

    orders: int = 1
    samples: int = 1

    def __post_init__(self) -> None:
        for name in ("orders", "samples"):
            _at_least(f"repeats.{name}", getattr(self, name), 1)


@dataclass(frozen=True, slots=True)
class SelectionOptions:
    """How the best of many variants are chosen on users of their own: the section `selection`.

    Attributes:
        users: How many development users; none of them is asked about again.
        budget: How many rankings the choice may take, repeats not counted; None for half of what it would take to rank all
            development users with all variants.
        keep: The part of the contenders that goes on after each round (successive halving: one half).
        least: How many users the first round has at least.
        finalists: How many are compared with the control on the other users.
    """

    users: int
    budget: int | None = None
    keep: float = 0.5
    least: int = 20
    finalists: int = 1

    def __post_init__(self) -> None:
        _at_least("selection.users", self.users, 2)
        _at_least("selection.finalists", self.finalists, 1)
        _at_least("selection.least", self.least, 1)
        if self.budget is not None:
            _at_least("selection.budget", self.budget, 1)
        if not 0 < self.keep < 1:
            raise ConfigError("must be between 0 and 1", field="selection.keep", value=self.keep, fix="0.5 keeps one half")


@dataclass(frozen=True, slots=True)
class SequentialOptions:
    """When an experiment may stop before all users are asked about: the section `sequential`.

    Attributes:
        every: After how many users each look is taken.
        least: How many users there are at the first look.
    """

    every: int = 50
    least: int = 50

    def __post_init__(self) -> None:
        for name in ("every", "least"):
            _at_least(f"sequential.{name}", getattr(self, name), 1)


@dataclass(frozen=True, slots=True)
class Margin:
    """How much worse than the control a guardrail lets a variant be.

    Attributes:
        value: As a part of the control's value if `relative` (0.1 is written ``10 %``), else in the unit of what is watched:
            a share for failures and measures, USD a ranking for the cost, seconds for latencies.
        relative: Which of both.
    """

    value: float
    relative: bool

    def __str__(self) -> str:
        return f"{100 * self.value:g} %" if self.relative else f"{self.value:g}"


@dataclass(frozen=True, slots=True)
class Spec:
    """An experiment before anything is asked. docs/experiments.md describes the file.

    Attributes:
        name: What it is called; letters, digits and . _ + -.
        variants: Rankers' configurations (or baselines) by name.
        control: The variant that the others are compared with; None for the first.
        question: What it is to answer, for the report.
        items, cases, interactions, dataset, protocol: As in a `Suite`.
        metrics, primary: Measures, and the one that decides; as in a `Suite`.
        users: How many users take part, drawn at random; None for all. Fixed before anything is asked.
        effect: The smallest difference in the primary measure that matters, in the measure's own unit (0.03 NDCG).
        alpha, power: Of the tests.
        repeats: How often each user is asked about.
        guardrails: Margins by what is watched: ``failures``, ``cost``, ``latency_p50``, ``latency_p95`` or a measure.
        selection: Choose among many variants first; None compares all of them.
        sequential: Allow stopping early, by always-valid intervals; None reads once, when all users are ranked.
        seed: Of all that is drawn.
        failures: As in a `Suite`; a ranking without a readable answer is never left out.
        resamples: Of the bootstrap.
        embedder, prices, traces: As in a `Suite`.
        online: The section of online experiments (`llmrank.experiment.online`).
    """

    name: str
    variants: Mapping[str, Mapping[str, Any]]
    control: str | None = None
    question: str | None = None
    items: str | None = None
    cases: str | None = None
    interactions: str | None = None
    dataset: str | None = None
    protocol: Any = None
    metrics: tuple[str, ...] = DEFAULT_METRICS
    primary: str | None = None
    users: int | None = None
    effect: float | None = None
    alpha: float = 0.05
    power: float = 0.8
    repeats: RepeatOptions = field(default_factory=RepeatOptions)
    guardrails: Mapping[str, Any] = field(default_factory=dict)
    selection: SelectionOptions | None = None
    sequential: SequentialOptions | None = None
    seed: int = 0
    failures: Literal["fallback", "worst"] = "fallback"
    resamples: int = 2000
    embedder: Mapping[str, Any] | None = None
    prices: Mapping[str, Any] | None = None
    traces: bool = True
    online: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}", self.name):
            raise ConfigError("must be letters, digits and . _ + -", field="name", value=self.name, fix="for instance recency")
        names = list(self.variants)
        if len(names) < 2:
            raise ConfigError(
                "takes two variants at least", field="variants", value=names, fix="name a control and another one"
            )
        control = names[0] if self.control is None else self.control
        if control not in self.variants:
            raise ConfigError("is none of the variants", field="control", value=control, fix=nearest(control, names))
        object.__setattr__(self, "control", control)
        if marked := [name for name in names if SAMPLE_MARK in name]:
            raise ConfigError(f"a name must not contain {SAMPLE_MARK}", field="variants", value=marked[0], fix="rename it")
        for name in ("alpha", "power"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(
                    "must be between 0 and 1", field=name, value=getattr(self, name), fix="0.05 and 0.8 are usual"
                )
        if self.alpha >= 0.5:
            raise ConfigError("must be below 0.5", field="alpha", value=self.alpha, fix="0.05 is usual")
        if not 100 <= self.resamples <= 100_000:
            raise ConfigError("must be from 100 to 100,000", field="resamples", value=self.resamples, fix="2000 will do")
        if self.effect is not None and not self.effect > 0:
            raise ConfigError("must be above 0", field="effect", value=self.effect, fix="the smallest difference that matters")
        if self.users is not None:
            _at_least("users", self.users, 2)
        self._check_primary()
        self._check_choices(names)
        guardrails = {_watched(name): _margin(name, margin) for name, margin in self.guardrails.items()}
        object.__setattr__(self, "guardrails", guardrails)

    def _check_primary(self) -> None:
        names = tuple(dict.fromkeys(parse_measure(name).name for name in self.metrics))
        object.__setattr__(self, "metrics", names)
        if not names:
            raise ConfigError("names no measure", field="metrics", fix="write [ndcg@10]")
        primary = names[0] if self.primary is None else parse_measure(self.primary).name
        if primary not in names:
            raise ConfigError("is not among the metrics", field="primary", value=primary, fix=f"one of {', '.join(names)}")
        if not parse_measure(primary).per_case:
            raise ConfigError("has no value for each user", field="primary", value=primary, fix="for instance ndcg@10")
        if parse_measure(primary).direction != "higher":
            fix = "choose one of which more is better, and watch this one with a guardrail"
            raise ConfigError("does not say which variant is better", field="primary", value=primary, fix=fix)
        object.__setattr__(self, "primary", primary)

    def _check_choices(self, names: list[str]) -> None:
        contenders = len(names) - 1
        if self.selection is not None and self.selection.finalists >= contenders:
            raise ConfigError(
                f"leaves nothing to choose among {contenders} variants beside the control",
                field="selection.finalists",
                value=self.selection.finalists,
                fix="name fewer finalists or more variants, or leave `selection` out",
            )
        if self.repeats.samples > 1:
            for name, config in self.variants.items():
                if "backend" not in config or not (config.get("strategy") or {}).get("temperature"):
                    raise ConfigError(
                        f"variant {name!r} answers the same each time (no strategy.temperature above 0)",
                        field="repeats.samples",
                        value=self.repeats.samples,
                        fix="give every variant's strategy a temperature, or ask for one sample",
                    )

    @property
    def base(self) -> str:
        """The control's name."""
        return self.control or next(iter(self.variants))

    @property
    def others(self) -> tuple[str, ...]:
        """The variants beside the control, in the file's order."""
        return tuple(name for name in self.variants if name != self.control)

    @property
    def measure(self) -> str:
        """The primary measure's name."""
        return self.primary or self.metrics[0]

    @property
    def margins(self) -> Mapping[str, Margin]:
        """The guardrails, read."""
        return self.guardrails

    def rankers(self, variants: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """The rankers of a run over some variants: one a variant and sample."""
        return {
            ranker_name(name, sample): self._sampled(self.variants[name], sample)
            for name in variants
            for sample in range(self.repeats.samples)
        }

    def _sampled(self, config: Mapping[str, Any], sample: int) -> dict[str, Any]:
        if self.repeats.samples == 1:
            return dict(config)
        strategy = dict(config["strategy"])
        return {**config, "strategy": {**strategy, "seed": (strategy.get("seed") or 0) + sample}}

    def sources(self) -> Suite:
        """A suite that names the experiment's data."""
        return Suite(
            self.variants,
            items=self.items,
            cases=self.cases,
            interactions=self.interactions,
            dataset=self.dataset,
            protocol=self.protocol,
        )

    def suite(self, variants: tuple[str, ...], *, items: Path, cases: Path) -> Suite:
        """The suite of a run over some variants and frozen cases."""
        return load_suite(
            {
                "rankers": self.rankers(variants),
                "items": str(items),
                "cases": str(cases),
                "metrics": list(self.run_metrics),
                "primary": self.primary,
                "seed": self.seed,
                "failures": self.failures,
                "confidence": 1 - self.alpha,
                "resamples": self.resamples,
                "embedder": self.embedder,
                "prices": self.prices,
                "traces": self.traces,
            }
        )

    @property
    def run_metrics(self) -> tuple[str, ...]:
        """The metrics, and the measures that guardrails watch."""
        return tuple(dict.fromkeys([*self.metrics, *(name for name in self.guardrails if name not in OF_RANKINGS)]))

    def as_dict(self) -> dict[str, Any]:
        """The experiment as JSON values: what its manifest keeps."""
        return asdict(replace(self, guardrails={})) | {
            "guardrails": {name: str(each) for name, each in self.guardrails.items()}
        }


def ranker_name(variant: str, sample: int) -> str:
    """What a variant's sample, counted from 0, is called among the rankers of a run."""
    return variant if not sample else f"{variant}{SAMPLE_MARK}{sample + 1}"


def load_spec(spec: str | Path | Mapping[str, Any] | Spec) -> Spec:
    """Reads an experiment file, or a dict of the same form. Paths are as in `load_suite`.

    Raises:
        ConfigError: the file is missing or no YAML, a key is unknown (the nearest is named) or a value is wrong.
    """
    if isinstance(spec, Spec):
        return spec
    folder = Path()
    if isinstance(spec, str | Path):
        folder = Path(spec).parent
        spec = load_yaml(spec, "experiment")
    if not isinstance(spec, Mapping):
        raise ConfigError("must be a mapping", field="experiment", value=spec, fix="its keys: name, variants, metrics ...")
    values: dict[str, Any] = {key: value for key, value in spec.items() if value is not None}
    for name, cls in (("repeats", RepeatOptions), ("selection", SelectionOptions), ("sequential", SequentialOptions)):
        if name in values and not isinstance(values[name], cls):
            if not isinstance(values[name], Mapping):
                raise ConfigError("must be a mapping", field=name, value=values[name], fix=f"write {name}: {{key: value}}")
            values[name] = make(cls, values[name], name)
    if not isinstance(values.get("variants"), Mapping):
        fix = "write variants: {plain: {backend: ...}, recency: {backend: ...}}"
        raise ConfigError("must be a mapping", field="variants", value=values.get("variants"), fix=fix)
    if not isinstance(values.get("guardrails", {}), Mapping):
        raise ConfigError("must be a mapping", field="guardrails", value=values["guardrails"], fix="write {failures: 0.02}")
    refuse_unknown(values, tuple(each.name for each in fields(Spec)), "")
    # A suite reads these parts, so that both files mean the same by them.
    read = load_suite_parts(values, folder)
    others = {key: value for key, value in values.items() if key not in _OF_SUITE}
    return replace(
        make(Spec, {**others, "variants": read.rankers}, ""),
        items=read.items,
        cases=read.cases,
        interactions=read.interactions,
        dataset=read.dataset,
        protocol=read.protocol,
    )


_OF_SUITE = ("items", "cases", "interactions", "dataset", "protocol")


def load_suite_parts(values: Mapping[str, Any], folder: Path) -> Suite:
    """The parts of an experiment file that are a suite's."""
    names = {"variants": "rankers"}
    try:
        return load_suite(
            {names.get(key, key): values[key] for key in ("variants", *_OF_SUITE, "embedder", "prices") if key in values},
            folder=folder,
        )
    except ConfigError as error:
        if error.field.split(".")[0] == "rankers":
            raise ConfigError(
                error.message, field=error.field.replace("rankers", "variants", 1), value=error.value, fix=error.fix
            ) from error
        raise


def _watched(name: str) -> str:
    if name in OF_RANKINGS:
        return name
    try:
        measure = parse_measure(name)
    except ConfigError as error:
        fix = f"one of {', '.join(OF_RANKINGS)}, or a measure such as coverage@10"
        raise ConfigError("is nothing that a guardrail watches", field="guardrails", value=name, fix=fix) from error
    if measure.direction == "neither":
        raise ConfigError("has no worse direction", field="guardrails", value=name, fix="watch another measure")
    if not measure.per_case and measure.family != "coverage":
        fix = "watch coverage@k or a measure with a value for each user"
        raise ConfigError("is of the whole run", field="guardrails", value=name, fix=fix)
    return measure.name


def _margin(name: str, margin: Any) -> Margin:
    if isinstance(margin, Margin):
        return margin
    fix = "a number in its own unit (0.02), or a part of the control's value (10 %)"
    if isinstance(margin, int | float) and not isinstance(margin, bool):
        value, relative = float(margin), False
    elif isinstance(margin, str) and (match := _MARGIN.fullmatch(margin.strip())):
        relative = bool(match["percent"])
        value = float(match["number"]) / (100 if relative else 1)
    else:
        raise ConfigError("is no margin", field=f"guardrails.{name}", value=margin, fix=fix)
    if not 0 <= value < float("inf"):
        raise ConfigError("must be 0 or more", field=f"guardrails.{name}", value=margin, fix=fix)
    if name == "failures" and relative:
        raise ConfigError("of a rate that may be 0 has no parts", field=f"guardrails.{name}", value=margin, fix="write 0.02")
    if value == 0:
        raise ConfigError(
            "no finite sample shows that nothing at all is lost",
            field=f"guardrails.{name}",
            value=margin,
            fix="allow a little: " + fix,
        )
    return Margin(value, relative)


def _at_least(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"must be a whole number of at least {least}", field=name, value=value, fix="or leave it out")
