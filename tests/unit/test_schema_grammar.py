"""The grammar of a JSON Schema for the embedded engine: whatever it lets be written is JSON of that schema."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.backends._schema_grammar import schema_grammar
from llmrank.retrieval.constraints import Attribute
from llmrank.understanding.schema import wish_schema

TEXT: dict[str, Any] = {"type": "string", "maxLength": 5}


def objects(members: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


FORMS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.just(TEXT)
    | st.just({"type": "number"})
    | st.lists(st.text(max_size=5), min_size=1, max_size=3, unique=True).map(lambda values: {"type": "string", "enum": values}),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda forms: {"anyOf": forms})
        | st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
            lambda three: {"type": "array", "items": three[0], "minItems": three[1], "maxItems": max(1, three[1] + three[2])}
        )
        | st.dictionaries(st.text(max_size=4), inner, min_size=1, max_size=3).map(objects)
    ),
    max_leaves=6,
)


def expand(grammar: str, choose: random.Random) -> str:
    """A text of the grammar's language, drawn at random: what an engine that obeys it may write."""
    rules = dict(line.split(" ::= ", 1) for line in grammar.split("\n"))

    def alternatives(body: str) -> list[list[str]]:
        found: list[list[str]] = [[]]
        for token in re.findall(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{\d*,\d*\}|[()|?]|\w+', body):
            if token == "|" and found[-1].count("(") == found[-1].count(")"):
                found.append([])
            else:
                found[-1].append(token)
        return found

    def write(tokens: list[str]) -> str:
        text, at = "", 0
        while at < len(tokens):
            end = at + 1
            if tokens[at] == "(":
                depth = 1
                while depth:
                    depth += {"(": 1, ")": -1}.get(tokens[end], 0)
                    end += 1
            again = tokens[end] if end < len(tokens) else ""
            least, most = 1, 1
            if again == "?":
                least, end = 0, end + 1
            elif again[:1] == "{":
                low, high = again[1:-1].split(",")
                least, most, end = int(low), int(high or 3), end + 1
            whole, inner = tokens[at], " ".join(tokens[at + 1 : end - 1 - (again == "?" or again[:1] == "{")])
            for _ in range(choose.randint(least, most)):
                if whole == "(":
                    text += write(choose.choice(alternatives(inner)))
                elif whole[0] == '"':
                    text += json.loads(whole)
                elif whole == r'[^"\\\x00-\x1F\x7F]':
                    text += choose.choice("abé, }]")
                elif whole == r'["\\/bfnrt]':
                    text += choose.choice('"\\/bfnrt')
                elif whole[0] == "[":
                    text += choose.choice({"[1-9]": "123456789", "[0-9]": "0123456789"}[whole])
                else:
                    text += write(choose.choice(alternatives(rules[whole])))
            at = end
        return text

    return write(choose.choice(alternatives(rules["root"])))


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """JSON Schema's own meaning of what is used here."""
    if "enum" in schema:
        return value in schema["enum"]
    if "anyOf" in schema:
        return any(fits(value, form) for form in schema["anyOf"])
    if schema["type"] == "object":
        return (
            isinstance(value, dict)
            and list(value) == schema["required"]
            and all(fits(value[name], form) for name, form in schema["properties"].items())
        )
    if schema["type"] == "array":
        return (
            isinstance(value, list)
            and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
            and all(fits(each, schema["items"]) for each in value)
        )
    if schema["type"] == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) and len(value) <= schema.get("maxLength", len(value))


@given(FORMS, st.randoms(use_true_random=False))
def test_what_the_grammar_allows_is_of_the_schemas_form(schema: dict[str, Any], choose: random.Random) -> None:
    """Whatever can be written by it is JSON of the schema, without loose white space."""
    grammar = schema_grammar(schema)
    assert grammar is not None
    text = expand(grammar, choose)
    value = json.loads(text)
    assert fits(value, schema)
    assert "\n" not in text


@pytest.mark.parametrize("seed", range(20))
def test_the_schema_of_a_wish_has_a_grammar(seed: int) -> None:
    """The one schema that is asked by now."""
    schema = wish_schema(
        [Attribute("year", "number", 1, 2, True), Attribute("genres", "category", values=('a"b', "c"), others=seed % 2)]
    )
    grammar = schema_grammar(schema)
    assert grammar is not None
    assert fits(json.loads(expand(grammar, random.Random(seed))), schema)  # noqa: S311  # sampling, not secrets


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "null"},
        {"$ref": "#/x"},
        {"type": "object", "properties": {"a": TEXT}, "required": []},
        {"type": "array", "items": {"type": "boolean"}},
        {"type": "array", "items": TEXT, "minItems": 3, "maxItems": 2},
    ],
)
def test_a_schema_of_other_parts_has_none(schema: dict[str, Any]) -> None:
    """Then the engine's own grammar of it is used."""
    assert schema_grammar(schema) is None
