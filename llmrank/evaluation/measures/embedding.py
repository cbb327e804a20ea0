"""The section `embedder` of a run or an experiment goes in, with its user's own; the embedder that measures go by comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from llmrank.config import build_embedder
from llmrank.embedder_kinds import embedder_for
from llmrank.protocols import Embedder
from llmrank.retrieval.vectors import close_embedder


def fields_of(section: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What of an item a section says is embedded; the title if it says nothing."""
    return tuple((section or {}).get("fields") or ("title",))


@contextmanager
def measuring(made_with: Mapping[str, Any] | None, own: Mapping[str, Any] | None) -> Iterator[Embedder]:
    """The embedder, closed in the end.

    Args:
        made_with: The section in the folder's manifest; None: the default embedder. The folder may be a stranger's.
        own: The section of who measures; None if there is none.

    Raises:
        ConfigError: as for `embedder_kinds.embedder_for`, or the section is wrong.
    """
    section = embedder_for(made_with or {}, own, "embedder")
    made = build_embedder({key: value for key, value in section.items() if key != "fields"})
    try:
        yield made
    finally:
        close_embedder(made)
