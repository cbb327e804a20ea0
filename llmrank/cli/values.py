"""The text of an option goes in, the value that YAML reads in it comes out; what cannot be read is one line with the option."""

from __future__ import annotations

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
