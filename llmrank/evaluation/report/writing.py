"""A path and the forms that a result has go in; the one that the path's ending asks for is written there, whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from llmrank.errors import ConfigError
from llmrank.files import write_whole


def write_by_ending(path: str | Path, forms: Mapping[str, Callable[[], str]]) -> None:
    """Writes one of several forms.

    Args:
        path: Where.
        forms: What makes the text, by ending: ``{".md": ..., ".json": ...}``.

    Raises:
        ConfigError: another ending, or a place that cannot be written to.
    """
    path = Path(path)
    if path.suffix.lower() not in forms:
        raise ConfigError("unknown ending", field="out", value=str(path), fix=f"use one of: {', '.join(forms)}")
    try:
        write_whole(path, [forms[path.suffix.lower()]()])
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", field="out", value=str(path), fix="check it") from error
