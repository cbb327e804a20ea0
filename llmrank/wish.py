"""What a user asks for, as values: a Constraint is a condition on an item's attribute, a Wish what was read from a sentence."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from llmrank.errors import RequestError, nearest

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "in", "not in"]
"""How an attribute is compared; ``in`` and ``not in`` take several values. A list (genres) is ``=`` each of its members."""

OPERATORS: tuple[Operator, ...] = get_args(Operator)
COMPARISONS: frozenset[Operator] = frozenset({"<", "<=", ">", ">="})
"""The operators that take a number."""

WISH_MEMBERS = ("wishes", "like", "dislikes", "constraints")
"""The members of the object that a model is asked for about a sentence."""

Value: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True)
class Constraint:
    """A condition on one attribute of an item, such as ``Constraint("year", ">=", 1990)``.

    Texts are compared without regard to case and accents. An item that lacks the attribute meets ``!=`` and ``not in``, and no
    other condition.

    Args:
        attribute: The attribute's name.
        op: See `Operator`.
        value: A text or a number; for ``in`` and ``not in`` several of them.

    Raises:
        RequestError: the operator is unknown, or the value is of the wrong kind for it.
    """

    attribute: str
    op: Operator
    value: Value | tuple[Value, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.attribute, str) or not self.attribute:
            raise RequestError("needs the name of an attribute", field="constraints", value=self.attribute, fix="name one")
        if self.op not in OPERATORS:
            raise RequestError("unknown operator", field="constraints", value=self.op, fix=nearest(str(self.op), OPERATORS))
        if self.op in ("in", "not in"):
            if not isinstance(self.value, list | tuple | set | frozenset) or not self.value:
                fix = f"write Constraint({self.attribute!r}, {self.op!r}, ['...'])"
                raise RequestError(f"{self.op!r} needs a list of values", field="constraints", value=self.value, fix=fix)
            ordered = sorted(self.value, key=str) if isinstance(self.value, set | frozenset) else self.value
            object.__setattr__(self, "value", tuple(ordered))
        for value in self.values:
            number = _is_number(value)
            if not (number or (isinstance(value, str) and self.op not in COMPARISONS)):
                wanted = "a finite number" if self.op in COMPARISONS else "a text or a finite number"
                raise RequestError(f"{self.op!r} needs {wanted}", field="constraints", value=value, fix="give one")

    @property
    def values(self) -> tuple[Value, ...]:
        """The value, or the several ones, as a tuple."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    @property
    def positive(self) -> bool:
        """False for ``!=`` and ``not in``, which an item without the attribute meets."""
        return self.op not in ("!=", "not in")

    @classmethod
    def from_record(cls, record: object) -> Constraint:
        """The condition of an object ``{"attribute", "op", "value"}``, as JSON has it.

        Raises:
            RequestError: it is no such object, or no condition.
        """
        if not isinstance(record, dict) or set(record) != {"attribute", "op", "value"} or not isinstance(record["op"], str):
            fix = 'write {"attribute": "year", "op": ">=", "value": 1990}'
            raise RequestError("is no object of attribute, op and value", field="constraints", value=record, fix=fix)
        return cls(record["attribute"], record["op"], record["value"])  # type: ignore[arg-type]  # it is checked there

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """The condition of a text: ``year>=1990``, ``genres != Horror``, ``genres in Comedy, Drama``.

        What reads as a number is one.

        Raises:
            RequestError: it is no condition.
        """
        found = _IN.fullmatch(text) or _COMPARED.fullmatch(text)
        if found is None:
            fix = f"write ATTRIBUTE, one of {', '.join(OPERATORS)}, and a value: 'year>=1990'"
            raise RequestError("is no condition", field="constraints", value=text, fix=fix)
        attribute, op, value = found["attribute"], " ".join(found["op"].split()), found["value"]
        if op in ("in", "not in"):
            return cls(attribute, op, tuple(_value(part.strip()) for part in value.split(",") if part.strip()))  # type: ignore[arg-type]  # it is checked
        return cls(attribute, op, _value(value))  # type: ignore[arg-type]  # it is checked there

    def record(self) -> dict[str, Any]:
        """As JSON values: what `from_record` takes."""
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"attribute": self.attribute, "op": self.op, "value": value}

    def __str__(self) -> str:
        return f"{self.attribute} {self.op} {', '.join(map(_shown, self.values))}"


@dataclass(frozen=True, slots=True)
class Wish:
    """What was read from a user's sentence.

    Attributes:
        query: The sentence.
        wishes: What is wanted, in short phrases.
        like: Titles that the user names as examples.
        dislikes: What is not wanted, in short phrases.
        constraints: What an item has to be, in the order in which the model gave it.
        notes: What was left out of the model's answer or could not be read, a sentence each.
    """

    query: str
    wishes: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    dislikes: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What items are compared with: the wishes and the titles named; the sentence itself if there are none.

        Wishes of which no word is the user's own may be a good paraphrase or made up: then the sentence stands before them.
        """
        wanted = (*self.wishes, *self.like)
        own = _words(self.query)
        return ", ".join(wanted if any(_words(phrase) & own for phrase in wanted) else (self.query, *wanted))


_IN = re.compile(r"\s*(?P<attribute>[^\s<>=!]+)\s+(?P<op>not\s+in|in)\s+(?P<value>.*\S)\s*", re.DOTALL)
_COMPARED = re.compile(r"\s*(?P<attribute>[^<>=!]*[^\s<>=!])\s*(?P<op>[<>=!]+)\s*(?P<value>.*\S)\s*", re.DOTALL)
_WHOLE = re.compile(r"[-+]?\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[-+]?\d{0,18}\.\d{1,18}", re.ASCII)


def _value(text: str) -> Value:
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _words(text: str) -> set[str]:
    """The words that say something, as they are."""
    return {word for word in re.findall(r"\w+", text.casefold()) if len(word) > 3}


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits, which no attribute holds
        return False


def _shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
