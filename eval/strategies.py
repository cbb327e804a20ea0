"""The folders of evaluation runs go in; a Markdown table each comes out: how good each strategy is, its cost, its stability.

Run: ``python eval/strategies.py .cache/runs/strategies-ml-100k .cache/runs/strategies-games``

A run is made by ``llmrank eval run eval/strategies-ml-100k.yaml --out .cache/runs/strategies-ml-100k --limit 200``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MEASURES = ("ndcg@1", "ndcg@5", "ndcg@10")
COLUMNS = (
    "ranker",
    "users",
    "NDCG@1",
    "NDCG@5",
    "NDCG@10",
    "calls",
    "prompt tokens",
    "answer tokens",
    "model s",
    "not read",
    "stability",
    "same first",
    "follows the order shown",
)
UNREAD = ("partial", "fallback", "error")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="A Markdown table for each run.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `llmrank eval run`")
    tables = []
    for folder in parser.parse_args().runs:
        run = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        tables.append(f"## {folder.name}\n\n{table(run)}")
    print("\n\n".join(tables))


def table(run: Mapping[str, Any]) -> str:
    """A row a ranker: means over users in percent, costs a user."""
    lines = [run["protocol"] + ".", ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    if chance := run.get("chance"):
        cells = ["*chance*", "", *(percent(chance.get(name)) for name in MEASURES), *[""] * 8]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["| " + " | ".join(row(name, found)) + " |" for name, found in run["rankers"].items() if found["cases"]]
    return "\n".join(lines)


def row(name: str, found: Mapping[str, Any]) -> list[str]:
    """The cells of one ranker."""
    cases, usage = found["cases"], found["usage"]
    low, high = found["ci"]["ndcg@10"] or (None, None)
    unread = sum(found["status"][status] for status in UNREAD)
    bias, stability = found["position_bias"], found["stability"]
    return [
        name,
        str(cases),
        *(percent(found["metrics"][measure]) for measure in MEASURES[:2]),
        f"{percent(found['metrics']['ndcg@10'])} [{percent(low)}, {percent(high)}]",
        *(each(usage[key], cases) for key in ("calls", "prompt_tokens", "completion_tokens")),
        f"{usage['seconds'] / cases:.1f}" if usage["calls"] else "",
        f"{unread}" if usage["calls"] else "",
        *((tau(stability["kendall_tau"]), percent(stability["top1_same"])) if stability else ("", "")),
        tau(bias["tau"]) if bias and usage["calls"] else "",
    ]


def percent(value: float | None) -> str:
    """A share of 1 as a percentage with one decimal."""
    return "" if value is None else f"{100 * value:.1f}"


def tau(value: float | None) -> str:
    """A rank correlation; empty where one place alone was ordered."""
    return "" if value is None else f"{value:.2f}"


def each(total: float, cases: int) -> str:
    """A mean a user; empty where nothing was asked."""
    mean = total / cases
    return "" if not total else f"{mean:,.0f}" if mean >= 10 else f"{mean:.2g}"


if __name__ == "__main__":
    main()
