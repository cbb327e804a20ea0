"""Findings go in, one Markdown text comes out, for a repository: what the page says, without drawings and with fewer cases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from llmrank.evaluation.report.markdown import escaped, table_markdown
from llmrank.evaluation.report.numbers import day
from llmrank.evaluation.report.parts import Table
from llmrank.evaluation.report.values import label
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.findings import Findings, PromptText
from llmrank.experiment.report import tables, variance
from llmrank.experiment.report.cases import CaseView, Entry, case_views
from llmrank.experiment.report.diff import aligned, stretches
from llmrank.experiment.report.words import OUTCOMES, READINGS, asked_by, came, facts, no_diff, prompt_text

_CASES = 3
"""So many cases of each variant are shown."""

_TOP = 5
"""So many items of an order."""

_PROMPT_CHARS, _DIFF_LINES = 100_000, 150
"""The most characters of a prompt that are compared, and the most lines of a diff that are shown."""


def markdown(findings: Findings) -> str:
    """The whole text (GitHub's Markdown)."""
    return "".join(_chunks(findings))


def _chunks(findings: Findings) -> Iterator[str]:
    decision = findings.decision
    yield f"# Experiment: {_plain(findings.name)}\n\n"
    if findings.question:
        yield f"{_plain(findings.question)}\n\n"
    yield f"> **{OUTCOMES[decision.outcome]}.** {_plain(decision.sentence)}\n>\n> {_plain(decision.reason)}\n"
    if findings.stopped_early:
        yield f">\n> Stopped early: {_plain(findings.stopped_early)}\n"
    yield "\n"
    yield from (
        f"- {escaped(fact.title)}: **{escaped(fact.value)}**{f' ({escaped(fact.detail)})' if fact.detail else ''}\n"
        for fact in facts(findings)
    )
    shown = [
        tables.primary(findings),
        tables.guardrails(findings),
        *tables.others(findings),
        tables.segments(findings),
        variance.table(findings),
        tables.costs(findings),
    ]
    for table in shown:
        if table is not None and table.rows:
            yield "\n"
            # An empty caption leaves blank lines.
            yield re.sub(r"\n{3,}", "\n\n", "".join(table_markdown(_without_protocol(table, findings))))
    if findings.selection:
        yield "\n## How the variants were chosen\n\n"
        yield from _list(["On development users, who take no part in the figures above.", *tables.selection(findings)])
    if findings.forecast:
        yield "\n## What was forecast, and what came\n\nForecast:\n\n"
        yield from _list(map(visible, findings.forecast))
        yield "\nCame:\n\n"
        yield from _list(came(findings))
    yield from _prompts(findings)
    yield from _cases(findings)
    yield "\n## Method and notes\n\n"
    yield from _list([READINGS[findings.reading], *map(visible, (findings.protocol, *findings.method, *findings.notes))])
    yield f"- Frozen {_plain(day(findings.created)) or 'at an unknown time'}; manifest {_code(findings.manifest)}\n"


def _plain(text: str) -> str:
    return escaped(visible(text))


def _code(text: str) -> str:
    """A text as code, whatever it holds."""
    text = " ".join(visible(text).split())
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}"


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield from (f"- {escaped(line)}\n" for line in lines)


def _without_protocol(table: Table, findings: Findings) -> Table:
    """The protocol stands once, at the end."""
    return replace(table, caption="") if table.caption == visible(findings.protocol) else table


def _prompts(findings: Findings) -> Iterator[str]:
    by_variant = {prompt.variant: prompt for prompt in findings.prompts}
    control = by_variant.get(findings.control)
    others = [by_variant[name] for name in findings.variants if name in by_variant]
    if control is None or not others:
        return
    yield "\n## The prompts\n\n"
    yield f"- {_plain(control.variant)}: {escaped(asked_by(control))}\n"
    yield from (f"- {_plain(each.variant)}: {escaped(asked_by(each))}\n" for each in others)
    for each in others:
        why_not = no_diff(control, each)
        yield f"\n### {_plain(control.variant)} and {_plain(each.variant)}\n\n"
        yield f"{escaped(why_not)}\n" if why_not is not None else _diff(control, each)


def _diff(control: PromptText, variant: PromptText) -> str:
    texts = [prompt_text(prompt, _PROMPT_CHARS) for prompt in (control, variant)]
    lines: list[str] = []
    for stretch in stretches(aligned(*texts)):
        if stretch.folded:
            lines.append(f"@@ {len(stretch.rows):,} equal lines @@")
            continue
        for row in stretch.rows:
            if row.same and row.left is not None:
                lines.append(f" {row.left.text}")
            elif not row.same:
                lines += [f"{sign}{side.text}" for sign, side in (("-", row.left), ("+", row.right)) if side is not None]
    if len(lines) > _DIFF_LINES:
        lines[_DIFF_LINES:] = [f"@@ {len(lines) - _DIFF_LINES:,} more lines; report.html has them @@"]
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", "\n".join(lines))), default=0))
    return "\n".join([f"{fence}diff", *lines, fence]) + "\n"


def _cases(findings: Findings) -> Iterator[str]:
    views = case_views(findings)
    if not views:
        return
    yield "\n## Where the variants disagree most\n\nThe most extreme cases, not typical ones; what the user chose is bold.\n"
    seen: dict[str, int] = {}
    for view in views:
        seen[view.variant] = seen.get(view.variant, 0) + 1
        if seen[view.variant] <= _CASES:
            yield from _case(view, label(findings.primary))


def _case(view: CaseView, measure: str) -> Iterator[str]:
    yield f"\n### {escaped(view.variant)}, user {escaped(view.user_id)}\n\n{escaped(view.line)}\n\n"
    if view.query is not None:
        yield f"- The user said: {escaped(view.query)}\n"
    yield f"- History, oldest first: {escaped(', '.join(view.history)) or 'none'}\n\n"
    (name, value, control), (other, its, variant) = view.orders
    yield f"| Place | {escaped(name)} ({measure} {value}) | {escaped(other)} ({measure} {its}) |\n| ---: | --- | --- |\n"
    for place in range(min(_TOP, max(len(control), len(variant)))):
        cells = [_entry(order[place]) if place < len(order) else "" for order in (control, variant)]
        yield f"| {place + 1} | {cells[0]} | {cells[1]} |\n"


def _entry(entry: Entry) -> str:
    title = f"**{escaped(entry.title)}**" if entry.relevant and entry.title.strip() else escaped(entry.title)
    return f"{title} ({entry.shift})" if entry.shift else title
