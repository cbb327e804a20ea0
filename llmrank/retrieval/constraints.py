"""Conditions on attributes and candidates go in; the candidates that meet them come out, before anything is paid for.

An attribute is a number (a year, a price) or a category (a text, or a list of texts such as genres). It counts as numeric if
nearly all items that have it give a number; what others give is then treated as if they lacked it. Numbers may be written as
texts (``"1995"``, ``"$9.99"``), as in CSV files; a text with bars (``"Action|Sci-Fi"``) is a list. Categories are compared
without regard to case and accents.
"""

from __future__ import annotations

import math
import re
import threading
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import RequestError, nearest
from llmrank.retrieval.subset import Subset
from llmrank.types import Item
from llmrank.wish import COMPARISONS
from llmrank.wish import Constraint as Constraint  # what this module is about
from llmrank.wish import Value as Value

Kind: TypeAlias = Literal["number", "category"]
Mask: TypeAlias = NDArray[np.bool_]

MOSTLY: Final = 0.95
"""The share of an attribute's values that must be numbers for the attribute to be numeric: files have a few odd rows."""

_NUMBER: Final = re.compile(r"[$€£¥]?\s*(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*[$€£¥]?")


@dataclass(frozen=True, slots=True)
class Attribute:
    """What the items of a catalogue have under one name.

    Attributes:
        name: The attribute's name.
        kind: ``number`` or ``category``.
        low, high: The least and the greatest number.
        whole: True if all numbers are whole.
        values: The most frequent categories, the most frequent first.
        others: How many categories there are besides `values`.
    """

    name: str
    kind: Kind
    low: float = math.nan
    high: float = math.nan
    whole: bool = False
    values: tuple[str, ...] = ()
    others: int = 0


@dataclass(frozen=True, slots=True)
class _Numbers:
    """One number an item; NaN where it has none."""

    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Categories:
    """By folded category, the places of the items that have it, the most frequent first; and how each is written."""

    places: dict[str, NDArray[np.int64]]
    spelling: dict[str, str]


class AttributeTable:
    """The attributes of a catalogue as columns, each made when it is first asked for. Safe to use from several threads.

    Args:
        items: The items. They are kept, and not looked at again once an attribute's column is made.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self._columns: dict[str, _Numbers | _Categories | None] = {}
        self._lock = threading.Lock()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._column(name) is not None

    def kind(self, name: str) -> Kind:
        """What the attribute holds.

        Raises:
            RequestError: no item has it.
        """
        return "number" if isinstance(self._known(name), _Numbers) else "category"

    def describe(self, name: str, most: int = 30) -> Attribute:
        """What the items have under a name.

        Args:
            name: The attribute's name.
            most: How many categories are named.

        Raises:
            RequestError: no item has it.
        """
        column = self._known(name)
        if isinstance(column, _Numbers):
            known = column.values[~np.isnan(column.values)]
            return Attribute(name, "number", float(known.min()), float(known.max()), bool((known == np.floor(known)).all()))
        spelt = [column.spelling[key] for key in column.places]
        return Attribute(name, "category", values=tuple(spelt[:most]), others=max(0, len(spelt) - most))

    def spellings(self, name: str) -> dict[str, str]:
        """Of a category attribute: how each category is written, by its folded text; the most frequent first.

        Raises:
            RequestError: no item has it.
        """
        column = self._known(name)
        return {} if isinstance(column, _Numbers) else {key: column.spelling[key] for key in column.places}

    def check(self, constraint: Constraint) -> None:
        """Refuses a condition that cannot be looked up.

        Raises:
            RequestError: no item has the attribute, or it holds texts where a number is needed, or the other way round.
        """
        check_kind(constraint, self.kind(constraint.attribute))

    def mask(self, constraint: Constraint) -> Mask:
        """Which items meet a condition: bool of shape (len(items),).

        Raises:
            RequestError: as `check`.
        """
        self.check(constraint)
        column = self._known(constraint.attribute)
        if isinstance(column, _Numbers):
            return _compared(column.values, constraint)
        found = np.zeros(len(self.items), dtype=np.bool_)
        for value in constraint.values:
            if (places := column.places.get(_key(value))) is not None:
                found[places] = True
        return found if constraint.positive else ~found

    def _known(self, name: str) -> _Numbers | _Categories:
        column = self._column(name)
        if column is None:
            known = {key for item in self.items[:1000] for key in item.attributes}
            raise RequestError("no item has this attribute", field="constraints", value=name, fix=nearest(name, known))
        return column

    def _column(self, name: str) -> _Numbers | _Categories | None:
        with self._lock:
            if name not in self._columns:
                self._columns[name] = _column_of([item.attributes.get(name) for item in self.items])
            return self._columns[name]


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The candidates that meet the conditions.

    Attributes:
        candidates: In the order given; never empty.
        left_out: How many were left out.
        constraints: The soft conditions that were kept.
        notes: What was relaxed, a sentence each.
    """

    candidates: Sequence[Item]
    left_out: int = 0
    constraints: tuple[Constraint, ...] = ()
    notes: tuple[str, ...] = field(default=())


def narrow(
    candidates: Sequence[Item],
    table: AttributeTable | None,
    *,
    hard: Sequence[Constraint] = (),
    soft: Sequence[Constraint] = (),
    unwanted: Collection[str] = (),
) -> Narrowed:
    """Leaves out the candidates that do not meet conditions. Of a million items in milliseconds, where they are the table's.

    Args:
        candidates: What there is to choose from.
        table: The catalogue's attributes; None if there is no catalogue.
        hard: Conditions that must be met.
        soft: Conditions that give way: one that nothing meets beside those before it is left out, so that of two that exclude
            each other the last given goes.
        unwanted: Ids that do not count as something left (what the user has seen).

    Raises:
        RequestError: no candidate has an attribute; a condition does not fit its kind; nothing meets the hard ones.
    """
    if not hard and not soft:
        return Narrowed(candidates)
    whole = table is not None and candidates is table.items
    own = AttributeTable(candidates)

    def mask(constraint: Constraint) -> Mask:
        if table is not None and whole:
            return table.mask(constraint)
        # A list is short: the items' own attributes are looked at, by the kind that the catalogue's have.
        kinds = table if table is not None and constraint.attribute in table else own
        kind = kinds.kind(constraint.attribute)
        check_kind(constraint, kind)
        return np.fromiter((meets(item, constraint, kind) for item in candidates), dtype=np.bool_, count=len(candidates))

    met = np.ones(len(candidates), dtype=np.bool_)
    for constraint in hard:
        met &= mask(constraint)
    if not met.any():
        raise RequestError(
            f"no candidate meets {' and '.join(map(str, hard))}",
            field="constraints",
            fix="loosen one, or give other candidates",
        )
    fresh = np.ones(len(candidates), dtype=np.bool_)
    if unwanted:
        fresh = np.fromiter((item.id not in unwanted for item in candidates), dtype=np.bool_, count=len(candidates))
    kept: list[Constraint] = []
    notes: list[str] = []
    for constraint in soft:
        closer = met & mask(constraint)
        if (closer & fresh).any():
            met = closer
            kept.append(constraint)
        else:
            beside = f" and {' and '.join(map(str, (*hard, *kept)))}" if hard or kept else ""
            notes.append(f"no candidate meets {constraint}{beside}: {constraint} was left out")
    places = np.flatnonzero(met)
    if len(places) == len(candidates):
        return Narrowed(candidates, 0, tuple(kept), tuple(notes))
    left = Subset(candidates, places) if whole else tuple(candidates[place] for place in places.tolist())
    return Narrowed(left, len(candidates) - len(places), tuple(kept), tuple(notes))


def meets(item: Item, constraint: Constraint, kind: Kind) -> bool:
    """Whether one item meets a condition on an attribute of that kind."""
    value = item.attributes.get(constraint.attribute)
    if kind == "number":
        found = number_of(value)
        if found is None:
            return not constraint.positive
        return bool(_compared(np.array([found]), constraint)[0])
    has = {fold(text) for text in categories_of(value)}
    return bool(has & {_key(wanted) for wanted in constraint.values}) is constraint.positive


def check_kind(constraint: Constraint, kind: Kind) -> None:
    """Refuses a condition that does not fit what an attribute holds.

    Raises:
        RequestError: a comparison of texts, or a text where a number is needed.
    """
    if kind == "category" and constraint.op in COMPARISONS:
        fix = "use =, !=, in or not in"
        raise RequestError(f"{constraint.attribute!r} holds texts", field="constraints", value=constraint.op, fix=fix)
    for value in constraint.values:
        if kind == "number" and number_of(value) is None:
            fix = "compare it with a number"
            raise RequestError(f"{constraint.attribute!r} holds numbers", field="constraints", value=value, fix=fix)


def number_of(value: object) -> float | None:
    """The number that an attribute's value is or is written as; None if it is none."""
    value = _plain(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # a whole number of hundreds of digits
            return None
    elif isinstance(value, str) and (match := _NUMBER.fullmatch(value.strip())):
        number = float(match[1].replace(",", ""))
    else:
        return None
    return number if math.isfinite(number) else None


def categories_of(value: object) -> tuple[str, ...]:
    """The texts of an attribute's value, without empty ones."""
    value = _plain(value)
    if isinstance(value, str):
        parts: Sequence[object] = value.split("|")
    elif isinstance(value, list | tuple | set | frozenset):
        parts = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
    else:
        parts = [value]
    texts = (str(part).strip() for part in map(_plain, parts) if part is not None and part == part)
    return tuple(text for text in texts if text)


def fold(text: str) -> str:
    """A text as categories and words are compared: without case, accents and repeated white space."""
    if not text.isascii():
        text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char)) or text
    return " ".join(text.casefold().split())


def _key(value: Value) -> str:
    """A wanted category as categories are compared; 2 and 2.0 are one."""
    return fold(str(int(value) if isinstance(value, float) and value.is_integer() else value))


def _plain(value: object) -> object:
    """What NumPy, Arrow and data frames hold, as Python has it."""
    tolist = getattr(value, "tolist", None)
    return tolist() if callable(tolist) else value


def _compared(values: NDArray[np.float64], constraint: Constraint) -> Mask:
    """Where numbers meet a condition; NaN meets ``!=`` and ``not in`` alone."""
    wanted = [number for value in constraint.values if (number := number_of(value)) is not None]
    match constraint.op:
        case "<":
            return values < wanted[0]
        case "<=":
            return values <= wanted[0]
        case ">":
            return values > wanted[0]
        case ">=":
            return values >= wanted[0]
        case _:
            found = np.isin(values, wanted)
            return found if constraint.positive else ~found


def _is_given(value: object) -> bool:
    if isinstance(value, int | float):  # most are, and there may be a million
        return value == value
    return bool(categories_of(value))


def _column_of(values: Sequence[object]) -> _Numbers | _Categories | None:
    """The column of one attribute; None if no item has it."""
    numbers = [number_of(value) for value in values]
    given = sum(map(_is_given, values))
    known = sum(number is not None for number in numbers)
    if not given:
        return None
    if known >= MOSTLY * given:
        return _Numbers(np.array([math.nan if number is None else number for number in numbers], dtype=np.float64))
    codes: dict[str, int] = {}
    spelling: dict[str, str] = {}
    rows, columns = [], []
    for place, value in enumerate(values):
        for text in dict.fromkeys(categories_of(value)):
            key = fold(text)
            spelling.setdefault(key, text)
            columns.append(codes.setdefault(key, len(codes)))
            rows.append(place)
    order = np.argsort(np.array(columns, dtype=np.int64), kind="stable")
    sizes = np.bincount(np.array(columns, dtype=np.int64), minlength=len(codes))
    split = np.split(np.array(rows, dtype=np.int64)[order], np.cumsum(sizes)[:-1])
    by_size = sorted(codes, key=lambda key: (-len(split[codes[key]]), key))
    return _Categories({key: split[codes[key]] for key in by_size}, spelling)
