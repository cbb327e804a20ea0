"""What a log says, as plain values: who is in the experiment, what the variants changed, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmrank.evaluation.report.writing import write_by_ending
from llmrank.experiment.online.effects import MetricEffect
from llmrank.experiment.online.left_out import LeftOut
from llmrank.experiment.online.preferences import Interleaving
from llmrank.experiment.online.reading_options import MetricOptions, ReadingOptions
from llmrank.experiment.online.variant_values import VariantValue

if TYPE_CHECKING:
    from rich.console import Group

    from llmrank.evaluation.report.parts import Table

Verdict: TypeAlias = Literal["invalid", "ship", "keep", "go on"]

Said: TypeAlias = tuple[Verdict, str, str]
"""A verdict, the decision in a sentence, and its reason."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The users of one variant.

    Attributes:
        variant: Its name.
        users: How many saw it first.
        share: The part of all users that the assignment gives it.
    """

    variant: str
    users: int
    share: float


@dataclass(frozen=True, slots=True)
class OnlineReading:
    """What a log says of an experiment.

    Attributes:
        name: The experiment's.
        control: The control's name.
        options: What the log was read for.
        traffic: The variants' users, in the experiment's order; empty if nobody was exposed (to interleaved lists only).
        moved: How many users were exposed to a second variant later; they count for their first.
        sample_ratio_p: Of the sample-ratio check; NaN without users.
        verdict: ``invalid``: the split is broken. ``ship`` or ``keep`` (the control). ``go on``: it is not decided yet.
        decision: The same in a sentence.
        reason: What that rests on, in a sentence or two; may be empty.
        effects: The primary metric first; none if the split is broken.
        values: Of every variant, in the same order of metrics; none if the split is broken.
        planned: How many planned users the primary metric has, of `options.planned`.
        interleavings: A pair of variants each; none if nothing was interleaved or the split is broken.
        begin, end: The times of the earliest and the latest event, in Unix seconds; NaN without one.
        events: How many events of this experiment the log has, each once.
        left_out: What of the log does not count.
        notes: What else a reader has to know, a sentence each.
    """

    name: str
    control: str
    options: ReadingOptions
    traffic: tuple[Traffic, ...]
    moved: int
    sample_ratio_p: float
    verdict: Verdict
    decision: str
    reason: str
    effects: tuple[MetricEffect, ...]
    planned: int
    interleavings: tuple[Interleaving, ...]
    begin: float
    end: float
    notes: tuple[str, ...] = ()
    events: int = 0
    left_out: tuple[LeftOut, ...] = ()
    values: tuple[VariantValue, ...] = ()

    @property
    def users(self) -> int:
        """How many were exposed."""
        return sum(each.users for each in self.traffic)

    def saying(self, said: Said) -> OnlineReading:
        """The same with a decision."""
        verdict, decision, reason = said
        return replace(self, verdict=verdict, decision=decision, reason=reason)

    def of(self, metric: MetricOptions) -> tuple[MetricEffect, ...]:
        """The effects in one metric."""
        return tuple(effect for effect in self.effects if effect.metric == metric)

    def values_of(self, metric: MetricOptions) -> tuple[VariantValue, ...]:
        """The variants' values in one metric."""
        return tuple(value for value in self.values if value.metric == metric)

    def tables(self) -> Iterator[Table]:
        """Users, one table a metric, the primary one first, and interleaved lists, ready to be shown."""
        from llmrank.experiment.online.tables import tables

        return tables(self)

    def terminal(self) -> Group:
        """All of it for a terminal: `Console.print` shows it."""
        from rich.console import Group, RenderableType
        from rich.text import Text

        from llmrank.evaluation.report.terminal import terminal_table
        from llmrank.experiment.online.words import texts

        parts: list[RenderableType] = []
        for table in self.tables():
            parts += [terminal_table(table), *map(Text, table.notes), Text()]
        parts += map(Text, texts(self))
        return Group(*parts, Text(self.decision, style="bold"), *([Text(self.reason)] if self.reason else []))

    def markdown(self) -> str:
        """All of it in GitHub's Markdown, the decision first."""
        from llmrank.evaluation.report.markdown import escaped, table_markdown
        from llmrank.experiment.online.words import texts

        chunks = [f"# {escaped(self.name)}\n\n**{escaped(self.decision)}** {escaped(self.reason)}".rstrip() + "\n"]
        for table in self.tables():
            chunks += ["\n", *table_markdown(table)]
        if said := texts(self):
            chunks += ["\n## How it was read\n\n", *(f"- {escaped(text)}\n" for text in said)]
        return "".join(chunks)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values; what is not known, or must not be read yet, is null."""
        from llmrank.experiment.online.record import record

        return record(self)

    def html(self) -> str:
        """All of it as one HTML page, which opens offline."""
        from llmrank.experiment.online.page import page

        return page(self)

    def write(self, path: str | Path) -> None:
        """Writes the page (``.html``), the Markdown (``.md``) or the JSON (``.json``), by the path's ending.

        Raises:
            ConfigError: another ending, or a place that cannot be written to.
        """
        forms: dict[str, Callable[[], str]] = {
            ".html": self.html,
            ".md": self.markdown,
            ".json": lambda: json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n",
        }
        write_by_ending(path, forms)
