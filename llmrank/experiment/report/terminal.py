"""Findings go in, what `Console.print` shows of them comes out: the decision, the measure that decides, guardrails, notes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmrank.evaluation.report.terminal import terminal_table
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.findings import Findings, Outcome
from llmrank.experiment.report import tables
from llmrank.experiment.report.words import OUTCOMES, READINGS, facts

if TYPE_CHECKING:
    from rich.console import Group

_COLOURS: dict[Outcome, str] = {
    "ship": "green",
    "keep": "yellow",
    "equivalent": "cyan",
    "unclear": "magenta",
    "invalid": "red",
}


def summary(findings: Findings) -> Group:
    """What a terminal shows. All foreign text in it is text, never markup."""
    from rich.console import Group, RenderableType
    from rich.text import Text

    decision = findings.decision
    parts: list[RenderableType] = [Text(f"Experiment: {visible(findings.name)}", "bold")]
    if findings.question:
        parts.append(Text(visible(findings.question), "dim"))
    headline = Text(OUTCOMES[decision.outcome].upper(), f"bold {_COLOURS[decision.outcome]}")
    parts += [Text(), headline, Text(visible(decision.sentence), "bold"), Text(visible(decision.reason))]
    if findings.stopped_early:
        parts.append(Text(f"Stopped early: {visible(findings.stopped_early)}"))
    parts.append(Text())
    for fact in facts(findings)[:-1]:  # the last is the reading, which stands at the end
        parts.append(Text.assemble(f"{fact.title}: ", (fact.value, "bold"), f" ({fact.detail})" if fact.detail else ""))
    parts.append(Text())
    for table in (tables.primary(findings), tables.guardrails(findings)):
        if table is not None and table.rows:
            parts.append(terminal_table(replace(table, caption="")))
    parts += [Text(visible(note)) for note in findings.notes]
    parts.append(Text(READINGS[findings.reading], "dim"))
    return Group(*parts)
