"""The section `online` of an experiment goes in, checked options come out; a mistake gives one error that names it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmrank.errors import ConfigError, nearest
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions
from llmrank.sections import make, mapping_of


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """A layer and the part of it that an experiment has: those with disjoint parts of one layer never share a user.

    Attributes:
        name: The layer's. Users have a place in [0, 1) in each layer, in one independent of that in another.
        start, stop: The part, from `start` on and below `stop`; in a file `from` and `to`.
    """

    name: str
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError("must be a text", field="online.layer.name", value=self.name, fix="give the layer a name")
        for key, value in (("from", self.start), ("to", self.stop)):
            _check_share(f"online.layer.{key}", value)
        if not self.start < self.stop:
            fix = f"it must be above {self.start:g}, where the part begins"
            raise ConfigError("leaves no user", field="online.layer.to", value=self.stop, fix=fix)


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """Who takes part and who gets what: the section `online` of an experiment. docs/experiments.md describes it.

    Attributes:
        weights: Of the variants, on any scale; empty for equal ones. A variant of weight 0 gets no new user.
        traffic: The share of users who take part; raising it moves nobody who takes part already.
        layer: Mutual exclusion with other experiments; None for none.
        holdout: The share of all users who get the control and are not exposed: the same users in every experiment.
        enabled: False is the kill switch: everybody gets the control, and nobody is exposed.
        salt: Of the assignment; None for the experiment's name. Another salt deals all users anew.
        force: Variants by user, for testers: they are not exposed, so they count nowhere.
        reading: What is measured, and when it may be read.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    traffic: float = 1.0
    layer: LayerOptions | None = None
    holdout: float = 0.0
    enabled: bool = True
    salt: str | None = None
    force: Mapping[str, str] = field(default_factory=dict)
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        _check_share("online.traffic", self.traffic)
        _check_share("online.holdout", self.holdout)
        if self.salt == "":
            raise ConfigError("is empty", field="online.salt", value="", fix="leave it out for the experiment's name")
        for name, weight in self.weights.items():
            if not _is_number(weight) or not 0 <= weight < math.inf:
                raise ConfigError("must be 0 or more", field=f"online.weights.{name}", value=weight, fix="for instance 1")
        if self.weights and not any(self.weights.values()):
            fix = "give one a weight above 0, or set enabled: false"
            raise ConfigError("are all 0", field="online.weights", value=dict(self.weights), fix=fix)

    def check_names(self, variants: Collection[str]) -> None:
        """Raises ConfigError if weights or forced variants name other variants than there are."""
        for name in self.weights:
            if name not in variants:
                raise ConfigError("no such variant", field=f"online.weights.{name}", fix=nearest(str(name), variants))
        for name in variants:
            if self.weights and name not in self.weights:
                raise ConfigError(
                    "is missing", field=f"online.weights.{name}", fix="give every variant a weight, 0 for no user"
                )
        for user, name in self.force.items():
            if name not in variants:
                raise ConfigError("no such variant", field=f"online.force.{user}", value=name, fix=nearest(name, variants))


def online_of(section: object, variants: Collection[str], control: str, name: str) -> OnlineOptions:
    """The options of an experiment's section `online`.

    Args:
        section: The section; None for the defaults.
        variants: The names of all variants.
        control: The one that the others are compared with.
        name: The experiment's.

    Raises:
        ConfigError: an unknown key (the nearest is named), a wrong value, or a name of no variant.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError("must be a text", field="name", value=name, fix="give the experiment a name")
    if len(variants) < 2:
        raise ConfigError("must be two or more", field="variants", value=list(variants), fix="compare a control with another")
    if control not in variants:
        raise ConfigError("no such variant", field="control", value=control, fix=nearest(str(control), variants))
    if isinstance(section, OnlineOptions):
        section.check_names(variants)
        return section
    values = {key: value for key, value in mapping_of(section, "online").items() if value is not None}
    if "layer" in values and not isinstance(values["layer"], LayerOptions):
        values["layer"] = _layer(mapping_of(values["layer"], "online.layer"))
    if "weights" in values:
        values["weights"] = mapping_of(values["weights"], "online.weights")
        for each, weight in values["weights"].items():
            if not _is_number(weight):  # pydantic would read true as 1
                raise ConfigError("must be a number", field=f"online.weights.{each}", value=weight, fix="for instance 1")
    if "force" in values:
        # A user's id that is a number in YAML is a text to us, as in data files.
        values["force"] = {str(user): each for user, each in mapping_of(values["force"], "online.force").items()}
    if "reading" in values and not isinstance(values["reading"], ReadingOptions):
        values["reading"] = _reading(mapping_of(values["reading"], "online.reading"))
    options = make(OnlineOptions, values, "online")
    options.check_names(variants)
    return options


def _layer(section: dict[str, Any]) -> LayerOptions:
    names = {"from": "start", "to": "stop"}
    for key in section:
        if key not in ("name", *names):
            raise ConfigError("unknown key", field=f"online.layer.{key}", fix=nearest(str(key), ("name", *names)))
    for key in names:
        if key in section and not _is_number(section[key]):
            raise ConfigError("must be a number", field=f"online.layer.{key}", value=section[key], fix="for instance 0.5")
    return make(LayerOptions, {names.get(key, key): value for key, value in section.items()}, "online.layer")


def _reading(section: dict[str, Any]) -> ReadingOptions:
    metrics = section.get("metrics")
    if metrics is not None:
        if not isinstance(metrics, Mapping):
            fix = "write metrics: {click: {kind: conversion}}"
            raise ConfigError("must be a mapping by name", field="online.reading.metrics", value=metrics, fix=fix)
        made = []
        for name, options in metrics.items():
            where = f"online.reading.metrics.{name}"
            values = mapping_of(options, where)
            if "name" in values:
                raise ConfigError("is given twice, here and as the key", field=f"{where}.name", fix="leave it out")
            made.append(make(MetricOptions, {"name": name, **values}, where))
        section = {**section, "metrics": tuple(made)}
    return make(ReadingOptions, section, "online.reading")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_share(name: str, value: float) -> None:
    if not _is_number(value) or not 0 <= value <= 1:
        raise ConfigError("must be from 0 to 1", field=name, value=value, fix="it is a share of users, for instance 0.5")
