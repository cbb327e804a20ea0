"""The sections of a YAML file or a dict go in, checked options come out; a mistyped key or a wrong value gives one error."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from llmrank.errors import ConfigError, LLMRankError, nearest

T = TypeVar("T")


def load_yaml(path: str | Path, field: str) -> Any:
    """What a YAML file holds.

    Args:
        path: The file.
        field: What messages call it.

    Raises:
        ConfigError: the file is missing or no YAML, or one of its mappings has a key twice.
    """
    import yaml

    from llmrank import strict_yaml

    path = Path(path)
    try:
        return strict_yaml.load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", field=field, value=str(path), fix="check the path") from error
    except strict_yaml.TwiceError as error:
        raise ConfigError(str(error), field=field, value=str(path), fix="keep one of them") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date such as 2020-13-01
        raise ConfigError(f"not YAML ({error})", field=field, value=str(path), fix="mend the file") from error


def make(cls: type[T], values: Mapping[str, Any], where: str, *, also: tuple[str, ...] = ()) -> T:
    """An options class from a mapping.

    Args:
        cls: A dataclass.
        values: Its fields; unknown ones are refused.
        where: The section's name, for messages.
        also: Keys of the section that are read elsewhere, so that a typo of them finds its way too.

    Raises:
        ConfigError: an unknown key (the nearest is named) or a wrong value. A truth value or a text is no number.
    """
    import pydantic

    names = [each.name for each in dataclasses.fields(cls)]  # type: ignore[arg-type]  # T is a dataclass by contract
    refuse_unknown(values, (*names, *also), where)
    place = [where]
    try:
        # Strictly, or pydantic would read `true` as 1 and "5" as 5. Not the whole class: lists would be no tuples then.
        for name, hint in get_type_hints(cls).items():
            if name in values and set(get_args(hint) or (hint,)) <= _SCALARS:
                place = [where, name]
                pydantic.TypeAdapter(hint).validate_python(values[name], strict=True)
        place = [where]
        return pydantic.TypeAdapter(cls).validate_python(dict(values))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        if isinstance(own := first.get("ctx", {}).get("error"), LLMRankError):
            raise own from error  # the class refused the value itself, in its own words
        missing = first["type"] == "missing"
        fix = "give it a value" if missing else "docs/configuration.md says what it may be"
        if first["type"] == "string_type" and isinstance(first["input"], bool | int | float):
            fix = "YAML reads yes, no and numbers as something else; put them in quotes"
        raise ConfigError(
            "is missing" if missing else first["msg"],
            field=".".join(each for each in (*place, *map(str, first["loc"])) if each),
            value=None if missing else first["input"],
            fix=fix,
        ) from error


_SCALARS = frozenset({int, float, bool, str, type(None)})


def section_of(sections: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A copy of one section; empty if it is left out. Raises ConfigError if it is no mapping."""
    return mapping_of(sections.get(name), name)


def mapping_of(value: object, name: str) -> dict[str, Any]:
    """A copy of a mapping; empty for None. Raises ConfigError for anything else, under `name`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError("must be a mapping", field=name, value=value, fix=f"write {name}: {{key: value}}, or null")
    return dict(value)


def take(section: dict[str, Any], *names: str) -> dict[str, Any]:
    """Takes the named keys that are there out of a section."""
    return {name: section.pop(name) for name in names if name in section}


def kind_of(options: dict[str, Any], where: str, known: tuple[str, ...]) -> str:
    """Takes `kind` out of a section. Raises ConfigError if it is missing or none of `known` (the nearest is named)."""
    if "kind" not in options:
        meant = [key for key in options if difflib.get_close_matches(str(key), ["kind"], cutoff=0.7)]
        refuse_unknown(dict.fromkeys(meant), ("kind",), where)
    kind = options.pop("kind", None)
    if kind not in known:
        fix = f"use one of: {', '.join(known)}" if kind is None else nearest(str(kind), known)
        raise ConfigError("is missing" if kind is None else "unknown kind", field=f"{where}.kind", value=kind, fix=fix)
    return str(kind)


def refuse_unknown(values: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raises ConfigError for the first key that is not known, and names the nearest."""
    for key in values:
        if key not in known:
            field = f"{where}.{key}" if where else str(key)
            raise ConfigError("unknown key", field=field, fix=nearest(str(key), known))
