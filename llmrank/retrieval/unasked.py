"""Nothing goes in; what stands for an embedder where nothing is embedded, as in a forecast, comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmrank.errors import ClosedError

if TYPE_CHECKING:
    from llmrank.protocols import Vectors


class UnaskedEmbedder:
    """An embedder that embeds nothing."""

    model = "unasked"
    dimension = 1

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Raises ClosedError: a Ranker that was built for a forecast is never asked."""
        raise ClosedError("this Ranker was built for a forecast, and embeds nothing")
