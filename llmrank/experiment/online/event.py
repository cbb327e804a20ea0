"""What happened to a user goes in; one checked event with an id comes out, and its JSON form goes both ways.

The id says which events are one: a service may write an event again as often as it likes (a retry, another process, the same
user at the next request), and it counts once.
"""

from __future__ import annotations

import hashlib
import json
import math
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, Final, Literal, TypeAlias, get_args

from llmrank.codec import canonical
from llmrank.errors import InputError, nearest

Kind: TypeAlias = Literal["exposure", "outcome", "impression", "click"]

KINDS: Final[tuple[str, ...]] = get_args(Kind)

LATEST: Final = 1e11
"""Seconds. Beyond it no time is one: today's in milliseconds are."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. The functions below make each kind.

    Attributes:
        id: What makes it this event; of several with one id only the first counts.
        time: Unix seconds (UTC).
        experiment: Whose; None for an outcome that is every experiment's.
        unit: Whom it happened to: the user's id.
        kind: ``exposure``, ``outcome``, ``impression`` or ``click``.
        variant: Of an exposure: what the unit was exposed to.
        name: Of an outcome: what it is called, such as ``purchase``.
        value: Of an outcome: its amount; None counts as 1.
        about: More, as JSON values. Of an impression ``impression``, ``items``, ``teams`` and ``variants``; of a click
            ``impression`` and ``item``.

    Raises:
        InputError: a field is missing, of a wrong type, or cannot be stored.
    """

    id: str
    time: float
    experiment: str | None
    unit: str
    kind: Kind
    variant: str | None = None
    name: str | None = None
    value: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _text("id", self.id)
        _text("unit", self.unit)
        if self.experiment is not None or self.kind != "outcome":
            _text("experiment", self.experiment)
        object.__setattr__(self, "time", _number("time", self.time))
        if abs(self.time) > LATEST:
            raise InputError("is beyond the year 5000", field="time", value=self.time, fix="Unix seconds, not milliseconds")
        if self.kind not in KINDS:
            raise InputError("is none of the kinds", field="kind", value=self.kind, fix=f"one of {', '.join(KINDS)}")
        for name, kind in (("variant", "exposure"), ("name", "outcome")):
            if getattr(self, name) is not None or self.kind == kind:
                _text(name, getattr(self, name))
        if self.value is not None:
            object.__setattr__(self, "value", _number("value", self.value))
        object.__setattr__(self, "about", _plain(self.about))
        if self.kind == "impression":
            _check_impression(self.about)
        elif self.kind == "click":
            for name in ("impression", "item"):
                _text(f"about.{name}", self.about.get(name))

    @property
    def key(self) -> bytes:
        """The id in 16 bytes."""
        return hashlib.blake2b(self.id.encode(), digest_size=16).digest()

    @property
    def content(self) -> bytes:
        """What it says, in 8 bytes. Its time is no part of it: what is written again is written later."""
        said = [self.experiment, self.unit, self.kind, self.variant, self.name, self.value, self.about]
        return hashlib.blake2b(canonical(said).encode(), digest_size=8).digest()

    def as_dict(self) -> dict[str, Any]:
        """It as JSON values, the id first; what is None or empty is left out."""
        record = {name: getattr(self, name) for name in _FIELDS}
        return {name: value for name, value in record.items() if value is not None and (name != "about" or value)}

    def line(self) -> bytes:
        """It as one line of JSON, in ASCII, so that a line which is torn is torn between characters."""
        return json.dumps(self.as_dict(), separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Event:
        """The way back from `as_dict`.

        Raises:
            InputError: a key is unknown or missing, or a value is wrong.
        """
        for name in record:
            if name not in _FIELDS:
                raise InputError("unknown key", field=str(name), fix=nearest(str(name), _FIELDS))
        for name in ("id", "time", "unit", "kind"):
            if name not in record:
                raise InputError("is missing", field=name, fix="write events with `EventLog.write`")
        return cls(**{"experiment": None, **record})


_FIELDS: Final = tuple(each.name for each in fields(Event))


def exposure(
    experiment: str, unit: str, variant: str, *, time: float | None = None, about: Mapping[str, Any] | None = None
) -> Event:
    """A unit saw what its variant made: from now on its outcomes count. However often it is written, it is one event.

    Args:
        experiment: Its name.
        unit: The user's id.
        variant: What the user was exposed to.
        time: Unix seconds (UTC); None for now.
        about: More, as JSON values, the same each time.

    Raises:
        InputError: an argument cannot be stored.
    """
    return Event(
        _id("exposure", experiment, unit, variant), _now(time), experiment, unit, "exposure", variant=variant, about=about or {}
    )


def outcome(
    experiment: str | None,
    unit: str,
    name: str,
    value: float | None = None,
    *,
    event_id: str,
    time: float | None = None,
    about: Mapping[str, Any] | None = None,
) -> Event:
    """A unit did something that a metric counts or sums.

    Args:
        experiment: Its name; None if it counts in every experiment, as a purchase does.
        unit: The user's id.
        name: What it is called: a metric's `event`.
        value: Its amount, such as a price; None counts as 1.
        event_id: What makes it this one and no other, such as the number of the order.
        time: Unix seconds (UTC); None for now.
        about: More, as JSON values.

    Raises:
        InputError: an argument cannot be stored.
    """
    return Event(event_id, _now(time), experiment, unit, "outcome", name=name, value=value, about=about or {})


def impression(
    experiment: str,
    unit: str,
    impression_id: str,
    items: Sequence[str],
    teams: Sequence[str | None],
    variants: Mapping[str, str],
    *,
    time: float | None = None,
) -> Event:
    """A unit was shown a list that two variants drafted (`interleaving.team_draft`).

    Args:
        experiment: Its name.
        unit: The user's id.
        impression_id: Of the list; clicks name it.
        items: Ids as shown, none twice.
        teams: For each item the team whose pick it was, ``a`` or ``b``, or None.
        variants: The variants' names by team: ``{"a": "plain", "b": "recency"}``.
        time: Unix seconds (UTC); None for now.

    Raises:
        InputError: an argument cannot be stored, or they do not fit together.
    """
    about = {"impression": impression_id, "items": list(items), "teams": list(teams), "variants": dict(variants)}
    _text("impression_id", impression_id)
    return Event(_id("impression", experiment, unit, impression_id), _now(time), experiment, unit, "impression", about=about)


def click(experiment: str, unit: str, impression_id: str, item_id: str, *, time: float | None = None) -> Event:
    """A unit clicked an item of an interleaved list; several clicks on one item of one list are one event.

    Args:
        experiment: Its name.
        unit: The user's id.
        impression_id: Of the list.
        item_id: What was clicked.
        time: Unix seconds (UTC); None for now.

    Raises:
        InputError: an argument cannot be stored.
    """
    about = {"impression": impression_id, "item": item_id}
    return Event(_id("click", experiment, unit, impression_id, item_id), _now(time), experiment, unit, "click", about=about)


def _id(kind: Kind, *parts: str) -> str:
    """The same for the same parts; a JSON list, so that no two lists of parts are alike when joined."""
    digest = hashlib.blake2b(json.dumps([kind, *map(str, parts)]).encode("ascii"), digest_size=16)
    return f"{kind}:{digest.hexdigest()}"


def _now(time: float | None) -> float:
    return clock.time() if time is None else time


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise InputError("must be a text that is not empty", field=name, value=value, fix="numbers as texts, too")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError("has half a surrogate pair", field=name, value=value, fix="write it as UTF-8") from error


def _number(name: str, value: object) -> float:
    fix = "Unix seconds" if name == "time" else "a finite number"
    if isinstance(value, bool) or not isinstance(value, Real):  # numpy's numbers are real ones, too
        raise InputError("must be a number", field=name, value=value, fix=fix)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError("must be finite", field=name, value=value, fix=fix)
    return number


def _plain(about: object) -> Mapping[str, Any]:
    """The mapping as it comes back from a file, and no longer the caller's own."""
    if about == {}:
        return {}
    if not isinstance(about, Mapping):
        raise InputError("must be a mapping", field="about", value=about, fix="keys and JSON values")
    try:
        plain: dict[str, Any] = json.loads(canonical(dict(about)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be written as JSON ({error})", field="about", value=about, fix="JSON values only") from error
    return plain


def _check_impression(about: Mapping[str, Any]) -> None:
    _text("about.impression", about.get("impression"))
    items, teams, variants = (about.get(name) for name in ("items", "teams", "variants"))
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items) or len(set(items)) < len(items):
        raise InputError("must be ids, none twice", field="about.items", value=items, fix="give the list as shown")
    if not isinstance(teams, list) or len(teams) != len(items):
        raise InputError(f"must be one for each of {len(items)} items", field="about.teams", value=teams, fix="a, b or null")
    for team in teams:
        if team not in ("a", "b", None):
            raise InputError("is no team", field="about.teams", value=team, fix="a, b or null")
    if not isinstance(variants, dict) or set(variants) != {"a", "b"} or variants["a"] == variants["b"]:
        fix = 'write {"a": "plain", "b": "recency"}'
        raise InputError("must name two variants", field="about.variants", value=variants, fix=fix)
    for team, variant in variants.items():
        _text(f"about.variants.{team}", variant)
