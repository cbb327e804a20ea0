"""The attributes that constraints may use go in, the JSON Schema of the object that a model is asked for comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from llmrank.retrieval.constraints import Attribute
from llmrank.wish import OPERATORS

MOST_PHRASES: Final = 6
MOST_CONSTRAINTS: Final = 6
MOST_VALUES: Final = 6
PHRASE_CHARS: Final = 60
"""Bounds of the answer: a small model that goes round in circles comes to an end."""


def wish_schema(attributes: Sequence[Attribute]) -> dict[str, Any]:
    """An object with ``wishes``, ``like``, ``dislikes`` and, where there are attributes, ``constraints``.

    It keeps to what OpenAI's strict schemas, vLLM's grammar engines and llama.cpp all take: every member is required, nothing
    else may be there, and alternatives are an ``anyOf``. A category is one of those shown where they are all that there are.
    """
    phrases = {"type": "array", "items": {"type": "string", "maxLength": PHRASE_CHARS}, "maxItems": MOST_PHRASES}
    members: dict[str, Any] = dict.fromkeys(("wishes", "like", "dislikes"), phrases)
    if attributes:
        forms = [form for attribute in attributes for form in _constraints_on(attribute)]
        members["constraints"] = {"type": "array", "items": {"anyOf": forms}, "maxItems": MOST_CONSTRAINTS}
    return _object(members)


def _constraints_on(attribute: Attribute) -> list[dict[str, Any]]:
    if attribute.kind == "number":
        operators = [op for op in OPERATORS if op not in ("in", "not in")]
        return [_constraint(attribute.name, operators, {"type": "number"})]
    value: dict[str, Any] = {"type": "string", "maxLength": PHRASE_CHARS}
    if not attribute.others:
        value = {"type": "string", "enum": list(attribute.values)}
    several = {"type": "array", "items": value, "minItems": 1, "maxItems": MOST_VALUES}
    return [_constraint(attribute.name, ["=", "!="], value), _constraint(attribute.name, ["in", "not in"], several)]


def _constraint(name: str, operators: Sequence[str], value: dict[str, Any]) -> dict[str, Any]:
    return _object(
        {
            "attribute": {"type": "string", "enum": [name]},
            "op": {"type": "string", "enum": list(operators)},
            "value": value,
        }
    )


def _object(members: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}
