"""The texts of an option go in, values come out: pairs of key and value, or what YAML reads; a mistake is one line with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llmrank.errors import ConfigError

EmbedderOption = Annotated[
    str | None,
    typer.Option("--embedder", help="For measures that need vectors of a server or a file: '{kind: openai, model: NAME}'."),
]
"""The option of commands that measure a folder which somebody else may have made: it does not say whom to ask."""


def section_of_option(text: str, option: str) -> dict[str, Any]:
    """A section of a configuration, from YAML or from its kind alone.

    Raises:
        ConfigError: it is neither.
    """
    import yaml

    from llmrank import strict_yaml

    try:
        value = strict_yaml.load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("not YAML", field=option, value=text, fix="write a kind, or '{kind: NAME, key: value}'") from error
    if isinstance(value, str):
        return {"kind": value}
    if not isinstance(value, dict):
        raise ConfigError("must be a kind or a mapping", field=option, value=text, fix="write '{kind: NAME, key: value}'")
    return value


def pairs_of_option(texts: Sequence[str] | None, option: str, *, example: str) -> dict[str, str]:
    """The keys and values of an option that may be given again, ``KEY=VALUE`` each time.

    Args:
        texts: What was given; None for nothing.
        option: Its name, for messages.
        example: One that is right.

    Raises:
        ConfigError: one is no key and value, or a key is given twice: neither value is what was meant for sure.
    """
    values: dict[str, str] = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError("is no key and value", field=option, value=text, fix=f"write KEY=VALUE: {example}")
        if key in values:
            fix = f"keep one of {key}={values[key]} and {text}"
            raise ConfigError("is given twice", field=f"{option} {key}", value=value, fix=fix)
        values[key] = value
    return values
