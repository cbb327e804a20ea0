"""Where the variance of a measurement comes from goes in, its parts come out as reports name them: with shares, or unknown."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmrank.evaluation.report.numbers import percent
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import label
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.findings import Findings
from llmrank.experiment.report.words import NBSP, points, value

_PARTS = {
    "user": ("Users", "Some are easier than others, for every prompt. Cancels where variants rank the same users."),
    "prompt": ("Prompts", "One is better than another, on average over all users."),
    "user_prompt": (
        "Users and prompts",
        "One prompt is better for some users, another for others. Only more users make it smaller.",
    ),
    "order": ("Presentation order", "Alike for all variants. Cancels where they are shown the same orders."),
    "order_prompt": (
        "Order and prompts",
        "The presentation order, differently by variant. More orders a user make it smaller.",
    ),
    "sampling": ("Answers", "Between answers to the very same prompt. More answers make it smaller."),
    "rest": ("Not told apart", "What this design cannot split into the parts above."),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the variance.

    Attributes:
        name: In one or two words.
        share: Of the total; None if this design cannot tell it.
        text: What it is.
    """

    name: str
    share: float | None
    text: str

    @property
    def figure(self) -> str:
        """The share in percent, or that it cannot be told."""
        return "cannot be told" if self.share is None else f"{percent(self.share)}{NBSP}%"


def parts(findings: Findings) -> tuple[Part, ...]:
    """The parts, as the module `llmrank.experiment.statistics.variance` has them; none without a variance to split."""
    found = findings.variation
    if found is None or not found.total > 0:
        return ()
    shown = []
    for key, (name, text) in _PARTS.items():
        size = getattr(found, key)
        # There is a rest only where something could not be told apart.
        if size is not None or key != "rest":
            shown.append(Part(name, None if size is None else size / found.total, text))
    return tuple(shown)


def lead(findings: Findings) -> str:
    """How large the whole is, in a sentence; empty where there is nothing to split."""
    found = findings.variation
    if found is None or not found.total > 0:
        return ""
    size = value(findings.primary, math.sqrt(found.total)) + points(findings.primary)
    return (
        f"A single measurement of {label(findings.primary)} has a standard deviation of {size} ({found.measurements:,} "
        f"measurements: {found.users:,} users, {found.variants:,} variants, with repeats). The shares are those of its square, "
        "the variance; as estimates they need not sum to 100 %."
    )


def notes(findings: Findings) -> tuple[str, ...]:
    """What could not be told, and why."""
    return () if findings.variation is None else tuple(map(visible, findings.variation.notes))


def table(findings: Findings) -> Table | None:
    """The parts as a table; None if there are none."""
    found = parts(findings)
    if not found:
        return None
    return Table(
        key="variance",
        title="Where the variance comes from",
        caption=lead(findings),
        corner="Part",
        columns=("Share of the variance", "What it is"),
        rows=tuple(Row(part.name, (Cell(part.figure), Cell(part.text))) for part in found),
        notes=notes(findings),
    )
