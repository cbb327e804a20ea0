"""The seam between what orders candidates (`fusion.Fusion`) and what says how much each part gives to each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Combination(Protocol):
    """Says what each part gives to each candidate of a list; the sums order them."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts whose scores it looks at."""
        ...

    def contributions(self, scores: Mapping[str, Sequence[float]], history_length: int) -> Mapping[str, Sequence[float]]:
        """What each part gives.

        Args:
            scores: For each of `parts` one finite score a candidate, higher is better; others are not looked at.
            history_length: How many events the user's history has.

        Returns:
            By the name of a part (or of what else counts) one number a candidate. Parts that give nothing to any of them may
            be left out.
        """
        ...

    def record(self) -> dict[str, Any]:
        """The same as JSON values, with its `kind`: what a fusion's file keeps (`llmrank.fusion.file`)."""
        ...
