"""A JSON Schema goes in, a grammar (GBNF) comes out in which only JSON of its form, without loose white space, can be written.

llama.cpp makes grammars of schemas itself, but lets any amount of white space stand between two tokens: a small model then
fills its answer with line breaks, up to the last token that it may write. The one space after a comma and a colon is what
models are used to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

_NUMBER: Final = '"-"? ("0" | [1-9] [0-9]{0,8}) ("." [0-9]{1,4})?'
_CHAR: Final = r'([^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt])'


def schema_grammar(schema: Mapping[str, Any]) -> str | None:
    """The grammar of a schema; None for one that says what this knows no rule for.

    Args:
        schema: Made of objects whose members are all required (and written in that order), arrays, texts, numbers, ``enum`` and
            ``anyOf``; ``minItems``, ``maxItems`` and ``maxLength`` are kept to.
    """
    rules: list[str] = []
    try:
        root = _rule(schema, rules)
    except _UnknownError:
        return None
    return "\n".join([f"root ::= {root}", *rules])


class _UnknownError(Exception):
    """A part of a schema that there is no rule for."""


def _rule(schema: Any, rules: list[str]) -> str:
    """The name of the rule for a part of a schema, which is added to `rules`."""
    place = len(rules)
    rules.append("")
    name = f"r{place}"
    rules[place] = f"{name} ::= {_body(schema, rules)}"
    return name


def _body(schema: Any, rules: list[str]) -> str:
    if not isinstance(schema, Mapping):
        raise _UnknownError
    match schema:
        case {"enum": [_, *_] as values}:
            return " | ".join(_literal(json.dumps(value, ensure_ascii=False)) for value in values)
        case {"anyOf": [_, *_] as forms}:
            return " | ".join(_rule(form, rules) for form in forms)
        case {"type": "object", "properties": {**members}, "required": required} if set(required) == set(members):
            return _object(members, rules)
        case {"type": "array", "items": items}:
            return _array(_rule(items, rules), schema.get("minItems", 0), schema.get("maxItems"))
        case {"type": "string"}:
            most = schema.get("maxLength")
            return f'"\\"" {_CHAR}{{0,{"" if most is None else most}}} "\\""'
        case {"type": "number"}:
            return _NUMBER
    raise _UnknownError


def _object(members: Mapping[Any, Any], rules: list[str]) -> str:
    parts = [f"{_literal(json.dumps(name, ensure_ascii=False) + ': ')} {_rule(form, rules)}" for name, form in members.items()]
    return " ".join([_literal("{"), f" {_literal(', ')} ".join(parts), _literal("}")])


def _array(item: str, least: int, most: int | None) -> str:
    if most is not None and most < max(1, least):
        raise _UnknownError
    following = f"({_literal(', ')} {item}){{{max(0, least - 1)},{'' if most is None else most - 1}}}"
    inner = f"{item} {following}"
    return f"{_literal('[')} {inner if least else f'({inner})?'} {_literal(']')}"


def _literal(text: str) -> str:
    """A terminal. JSON's escapes are GBNF's."""
    return json.dumps(text, ensure_ascii=False)
