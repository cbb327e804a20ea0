"""An Overview goes in; what each ranker costs in calls, tokens, money and time comes out as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmrank.evaluation.report.numbers import MISSING, count, dollars, share, significant
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.visible import visible

_COLUMNS = (
    "Cases",
    "Calls a case",
    "Prompt tokens a case",
    "Answer tokens a case",
    "Retries",
    "USD in all",
    "USD per 1,000 cases",
    "Mean latency, s",
    "p50, s",
    "p95, s",
    "p99, s",
)


def cost_table(overview: Overview) -> Table:
    """One row a ranker; what is not known is named so, and never taken for nothing."""
    notes = [
        "As if each case had been ranked alone, with no answer kept from before: an answer from the cache counts with what it "
        "cost when it was computed, and what cases share (equal prompts, texts scored by themselves) counts with each.",
        "The cases alone: what stability and memorisation ask is not in these numbers; spent.jsonl has all that was paid for.",
        "Latency: seconds that the model took for one case, with the waits between attempts (retries) and without those in our "
        "own queue; a case that failed counts as long as it was waited for.",
    ]
    if any(found["usage"].get("usd") is None for found in overview.rankers.values()):
        notes.append("Unknown: there is no price for the model; the suite's `prices` can name it.")
    if any(found["usage"]["calls"] and found["usage"].get("usd") == 0 for found in overview.rankers.values()):
        notes.append("0.00: nobody is paid by the token. What hardware of your own costs is not counted.")
    rows = tuple(Row(visible(name), _cells(found)) for name, found in overview.rankers.items())
    return Table("cost", "Cost and latency", overview.protocol, "Ranker", _COLUMNS, rows, tuple(notes))


def _cells(found: Mapping[str, Any]) -> tuple[Cell, ...]:
    cases, usage, latency = found["cases"], found["usage"], found["latency"] or {}

    def each(value: float) -> Cell:
        return Cell(significant(value / cases) if cases else MISSING)

    usd = usage.get("usd")
    cached = usage["cached_tokens"]
    prompt = each(usage["prompt_tokens"])
    return (
        Cell(count(cases)),
        each(usage["calls"]),
        Cell(prompt.text, f"{share(cached, usage['prompt_tokens'])} cached" if cached else ""),
        each(usage["completion_tokens"]),
        Cell(count(usage["retries"])),
        Cell(dollars(usd)),
        Cell(dollars(None if usd is None or not cases else 1000 * usd / cases)),
        *(Cell(significant(latency.get(name))) for name in ("mean", "p50", "p95", "p99")),
    )
