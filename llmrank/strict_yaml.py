"""A text in YAML goes in, what it says comes out; a key that stands twice in one mapping is an error, not a value lost."""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class TwiceError(yaml.YAMLError):
    """A key stands twice in one mapping. The YAML specification (1.2.2, 3.2.1.1) forbids it; PyYAML takes the last."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Looks at keys as they are written, before ``<<`` brings in others, that a key may well override."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise TwiceError(f"line {line}: the key {key.value!r} stands twice in one mapping, first in line {lines[name]}")
            lines[name] = line
        return node


def load(text: str) -> Any:
    """What a text in YAML says: one document of plain values.

    Raises:
        TwiceError: a key stands twice in one mapping; key and lines are in the message.
        yaml.YAMLError: it is not YAML.
        ValueError: a date that does not exist.
        RecursionError: brackets in brackets in brackets ...
    """
    return yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
