"""A unit's id goes in, its variant comes out: by salted hashes alone, so it is the same on every machine and at every time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from llmrank.errors import ConfigError, RequestError, nearest
from llmrank.sections import make, mapping_of, refuse_unknown

Reason: TypeAlias = Literal["assigned", "holdout", "other layer", "outside traffic", "disabled", "forced"]


@dataclass(frozen=True, slots=True)
class LayerOptions:
    """Which part of a layer an experiment has: the section `online.layer`.

    Experiments that name the same layer and whose parts do not overlap never share a unit.

    Attributes:
        name: The layer's name; it salts the hash that gives a unit its place in the layer.
        start: Where the part begins (``from`` in a file), from 0.
        to: Where it ends, up to 1; the end itself is not part of it.
    """

    name: str
    start: float = 0.0
    to: float = 1.0

    def __post_init__(self) -> None:
        _text("online.layer.name", self.name, fix="for instance ranking")
        _share("online.layer.from", self.start)
        _share("online.layer.to", self.to)
        if not self.start < self.to:
            fix = f"choose an end above {self.start:g}"
            raise ConfigError("is not above `from`", field="online.layer.to", value=self.to, fix=fix)


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """Who gets which variant: the section `online` of an experiment, read (`online_of` does that).

    All parts are drawn independently. Raising `traffic` moves nobody who is in the experiment already, and lowering it moves
    only those who leave. Changed `weights` move the units whose place lies between an old and a new border of the variants'
    shares, which follow each other in the order of `weights`: from 1 : 1 to 3 : 1 a quarter of the second variant's units
    out of all move to the first. They then have seen two variants: better begin anew, with another name and salt.

    Attributes:
        weights: Each variant's weight; their sum may be any. The order matters.
        control: The variant of everybody who does not take part.
        salt: What this experiment's hashes are salted with. Two experiments of one salt split units in the same way.
        traffic: The share of units that take part, of those in the layer's part and not in the holdout.
        layer: The part of a layer that the experiment has; None: it shares units with any other one.
        holdout: The share of all units, the same ones for every experiment, that never take part.
        enabled: False is the kill switch: everybody gets the control and nobody is exposed.
        force: Variants of single units, for testers; they are never counted as exposed.
    """

    weights: Mapping[str, float]
    control: str
    salt: str
    traffic: float = 1.0
    layer: LayerOptions | None = None
    holdout: float = 0.0
    enabled: bool = True
    force: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                fix = "weights are numbers from 0 on, such as 1 and 1"
                raise ConfigError("is no weight", field=f"online.weights.{name}", value=weight, fix=fix)
        if not 0 < sum(self.weights.values()) < math.inf:
            fix = "give at least one variant a weight above 0"
            raise ConfigError("have no finite sum above 0", field="online.weights", value=dict(self.weights), fix=fix)
        if self.control not in self.weights:
            fix = nearest(self.control, self.weights)
            raise ConfigError("is none of the variants", field="control", value=self.control, fix=fix)
        _text("online.salt", self.salt, fix="leave it out for the experiment's name")
        _share("online.traffic", self.traffic)
        _share("online.holdout", self.holdout)
        for unit, variant in self.force.items():
            if variant not in self.weights:
                fix = nearest(variant, self.weights)
                raise ConfigError("is none of the variants", field=f"online.force.{unit}", value=variant, fix=fix)

    @property
    def shares(self) -> dict[str, float]:
        """The share of exposed units that each variant gets; they sum to 1."""
        total = math.fsum(self.weights.values())
        return {name: weight / total for name, weight in self.weights.items()}


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a unit gets, and why.

    Attributes:
        unit: Its id, most often a user's.
        variant: The variant's name.
        exposed: Whether the unit takes part; only those that do are analysed.
        reason: ``assigned``: it takes part. Otherwise why it does not: ``disabled``, ``forced`` (by `force`), ``holdout``,
            ``other layer`` (its place in the layer belongs to another experiment), ``outside traffic``.
    """

    unit: str
    variant: str
    exposed: bool
    reason: Reason


def online_of(section: Mapping[str, Any] | None, variants: Sequence[str], control: str, name: str) -> OnlineOptions:
    """Reads the section `online` of an experiment.

    Args:
        section: Its keys: `weights` (default: equal), `traffic`, `layer`, `holdout`, `enabled`, `salt` (default: `name`),
            `force`. None is an empty one. `reading`, which says what a log is read for, is left to those who read it.
        variants: The variants' names, in the experiment's order.
        control: The one that everybody gets who does not take part.
        name: The experiment's.

    Raises:
        ConfigError: a key is unknown (the nearest is named) or a value is wrong.
    """
    values = {key: value for key, value in mapping_of(section, "online").items() if value is not None}
    refuse_unknown(values, KEYS, "online")
    values.pop("reading", None)
    if "layer" in values and not isinstance(values["layer"], LayerOptions):
        values["layer"] = _layer_of(mapping_of(values["layer"], "online.layer"))
    weights = mapping_of(values.get("weights", dict.fromkeys(variants, 1)), "online.weights")
    refuse_unknown(weights, tuple(variants), "online.weights")
    for variant in variants:
        if variant not in weights:
            fix = "name every variant; 0 leaves one out"
            raise ConfigError("is missing", field=f"online.weights.{variant}", fix=fix)
        _refuse_no_number(f"online.weights.{variant}", weights[variant])
    for unit in mapping_of(values.get("force"), "online.force"):
        if not isinstance(unit, str):
            raise ConfigError("is no text", field="online.force", value=unit, fix="put the unit's id in quotes")
    values["weights"] = {variant: weights[variant] for variant in variants}  # in this order, however the section has them
    return make(OnlineOptions, {"salt": name, **values, "control": control}, "online")


KEYS = ("weights", "traffic", "layer", "holdout", "enabled", "salt", "force", "reading")
"""What the section `online` may hold."""


def assign(options: OnlineOptions, unit: str) -> Assignment:
    """The variant of a unit: a pure function, without any state or I/O, in microseconds.

    Args:
        options: Of the experiment.
        unit: The id of a user, a session or whatever else is split. Ids are told apart byte by byte.

    Raises:
        RequestError: the id is empty or no text (all that had such an id would get one variant), or cannot be UTF-8.
    """
    if not isinstance(unit, str) or not unit or not (unit.isascii() or _is_unicode(unit)):
        fix = "give each user an id of its own"
        raise RequestError("must be a text that is not empty, without half surrogate pairs", field="unit", value=unit, fix=fix)
    if not options.enabled:
        return Assignment(unit, options.control, False, "disabled")
    if unit in options.force:
        return Assignment(unit, options.force[unit], False, "forced")
    if options.holdout and place("holdout", "", unit) < options.holdout:
        return Assignment(unit, options.control, False, "holdout")
    layer = options.layer
    if layer is not None and not layer.start <= place("layer", layer.name, unit) < layer.to:
        return Assignment(unit, options.control, False, "other layer")
    if options.traffic < 1 and place("traffic", options.salt, unit) >= options.traffic:
        return Assignment(unit, options.control, False, "outside traffic")
    return Assignment(unit, _variant(options.weights, place("variant", options.salt, unit)), True, "assigned")


def place(purpose: Literal["holdout", "layer", "traffic", "variant"], salt: str, unit: str) -> float:
    """Where a unit falls between 0 and below 1: uniform over units, independent for each purpose and salt.

    The first 53 bits of BLAKE2b, personalised with ``llmrank`` and the purpose's name, of the salt's length in bytes (8 bytes,
    big-endian), the salt and the unit, both as UTF-8. The length keeps ``ab`` + ``c`` apart from ``a`` + ``bc``.
    """
    salted = salt.encode()
    text = len(salted).to_bytes(8, "big") + salted + unit.encode()
    digest = hashlib.blake2b(text, digest_size=8, person=_PERSONS[purpose]).digest()
    return (int.from_bytes(digest, "big") >> 11) / _PLACES


_PERSONS = {purpose: f"llmrank {purpose}".encode() for purpose in ("holdout", "layer", "traffic", "variant")}
_PLACES = 1 << 53  # as many as a float tells apart: with 64 bits the last places would be rounded to 1


def _variant(weights: Mapping[str, float], where: float) -> str:
    """The variant in whose share a place lies. The shares follow each other by name, so that no tool that sorts or reorders a
    file moves anybody."""
    point = where * math.fsum(weights.values())
    found, end = "", 0.0
    for name, weight in sorted(weights.items()):
        if weight:
            found, end = name, end + weight
            if point < end:
                break
    return found  # also if rounding left the last end a little below the sum


def _layer_of(section: dict[str, Any]) -> LayerOptions:
    refuse_unknown(section, ("name", "from", "to"), "online.layer")
    for key in ("from", "to"):
        if key in section:
            _refuse_no_number(f"online.layer.{key}", section[key])
    # `from` is a word of Python's own and cannot be a field.
    return make(LayerOptions, {"start" if key == "from" else key: value for key, value in section.items()}, "online.layer")


def _text(name: str, value: str, *, fix: str) -> None:
    if not value or not _is_unicode(value):
        raise ConfigError("must be a text that is not empty", field=name, value=value, fix=fix)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


def _refuse_no_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError("must be a number", field=name, value=value, fix="for instance 0.5")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError("must be from 0 to 1", field=name, value=value, fix="it is a share: 0.5 is one half")
