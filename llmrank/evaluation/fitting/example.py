"""What a fusion learns from: one list of candidates, each part's scores of them, and which of them were relevant."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmrank.errors import InputError


@dataclass(frozen=True, slots=True)
class Example:
    """One list.

    Args:
        user_id: Whose; cross-validation never tells examples of one user apart.
        history_length: How many events the user's history had.
        scores: For each part one finite score a candidate, higher is better. All examples have the same parts.
        relevant: Of each candidate, whether it was.
        missed: How many relevant items are not among the candidates: no order of them finds these.

    Raises:
        InputError: there are no parts or no candidates, or not one finite score a candidate.
    """

    user_id: str
    history_length: int
    scores: Mapping[str, Sequence[float]] = field(hash=False)
    relevant: Sequence[bool]
    missed: int = 0

    def __post_init__(self) -> None:
        if not self.scores or not len(self.relevant):
            raise InputError(
                "has no part or no candidate", field="examples", value=self.user_id, fix="leave this user's example out"
            )
        for name, values in self.scores.items():
            if len(values) != len(self.relevant) or not all(math.isfinite(value) for value in values):
                raise InputError(
                    f"{name} does not give one finite score for each of {len(self.relevant)} candidates",
                    field="examples",
                    value=self.user_id,
                    fix="give 0 where a part knows nothing",
                )


def parts_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """The parts that the examples have.

    Raises:
        InputError: there is no example, two have other parts, or nothing is relevant in any of them.
    """
    if not examples:
        raise InputError("there are none to learn from", field="examples", fix="rank some cases first")
    parts = tuple(examples[0].scores)
    for example in examples:
        if set(example.scores) != set(parts):
            fix = f"give each example scores of {', '.join(parts)}"
            raise InputError("has other parts", field="examples", value=sorted(example.scores), fix=fix)
    if not any(any(example.relevant) for example in examples):
        fix = "let the prefilter keep more, or check `relevant`"
        raise InputError("no candidate of any list is relevant", field="examples", fix=fix)
    return parts
