"""What every strategy of ours can tell besides ranking: its templates, and how many prompts it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from llmrank.protocols import Strategy
from llmrank.strategies.calls import Calls


class BuiltStrategy(Strategy, Protocol):
    """A strategy that states its cost before it runs."""

    @property
    def templates(self) -> Mapping[str, str]:
        """The fingerprint of each template it uses, by name."""
        ...

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """The fewest and the most prompts for one ranking.

        Args:
            count: How many candidates.
            top_k: How many first places the request wants; None for all.

        Raises:
            RequestError: the strategy refuses so many candidates.
        """
        ...
