"""Nothing goes in; what stands for embedders and retrievers where nothing is asked, as in a forecast, comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmrank.errors import ClosedError
from llmrank.types import Item, ResolvedRequest

if TYPE_CHECKING:
    from llmrank.protocols import Vectors


class UnaskedEmbedder:
    """An embedder that embeds nothing."""

    model = "unasked"
    dimension = 1

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Raises ClosedError: a Ranker that was built for a forecast is never asked."""
        raise ClosedError("this Ranker was built for a forecast, and embeds nothing")


class UnaskedRetriever:
    """A retriever that scores nothing.

    Args:
        name: The name of its part.
    """

    floor: float | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """Raises ClosedError: a Ranker that was built for a forecast is never asked."""
        raise ClosedError("this Ranker was built for a forecast, and scores nothing")
