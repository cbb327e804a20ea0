"""A suite of retrievers and a model goes in; it is run for known and for new users, fusions are fitted, tables come out.

Run it from the root of the repository::

    python eval/fusion.py eval/fusion-ml-100k.yaml --out .cache/runs/fusion-ml-100k --limit 300 --new 200
    python eval/fusion.py eval/fusion-games.yaml   --out .cache/runs/fusion-games   --limit 400 --new 200

``OUT/known`` is the suite as it stands. ``OUT/new-N`` shows the last N items of each history, 0, 1 or 2, and learns nothing of
what is hidden; the rankers of ``SLOW`` are left out there. Each of these folders goes on where it was. Fusions are fitted on
the scores of the ranker ``all``, and what is printed of them is cross-validated: each user by what was fitted on others.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from llmrank.errors import LLMRankError
from llmrank.evaluation.fitting.fit import CROSS_VALIDATED, EQUAL, IN_SAMPLE, fit_examples
from llmrank.evaluation.fitting.options import FitMethod, FitOptions
from llmrank.evaluation.fitting.run import examples_of
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.run import RunOptions, evaluate
from llmrank.evaluation.suite import Suite, load_suite

SLOW = ("ease", "bpr", "als", "user-knn")
SHOWN = (0, 1, 2)
METHODS: tuple[FitMethod, ...] = ("weights", "rrf", "linear")
CUTS = (1, 5, 10, 20)
BANDS = (0, 2)
ALL = "all"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is not there yet and prints the tables."""
    parser = argparse.ArgumentParser(description="Retrievers, a model and their fusion, for known and new users.")
    parser.add_argument("suite", type=Path, help="a suite with a ranker `all` whose fusion names every part")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--limit", type=int, required=True, help="how many known users")
    parser.add_argument("--new", type=int, default=0, help="how many of them as new users, too; 0 for none")
    parser.add_argument("--folds", type=int, default=5)
    asked = parser.parse_args(arguments)
    try:
        suite = load_suite(asked.suite)
        runs = {"known users": _run(suite, asked.out / "known", asked.limit)}
        for shown in SHOWN if asked.new else ():
            name = f"new users: {shown} items of the history shown"
            runs[name] = _run(_new(suite, shown), asked.out / f"new-{shown}", asked.new)
        print("\n\n".join([*(_table(name, run) for name, run in runs.items()), *_fits(runs, asked.folds)]))
    except LLMRankError as error:
        print(f"fusion.py: {error}", file=sys.stderr)
        return 2
    return 0


def _new(suite: Suite, shown: int) -> Suite:
    """The suite for users of whom so many items are known."""
    rankers = {name: config for name, config in suite.rankers.items() if name not in SLOW}
    return replace(suite, rankers=rankers, protocol=replace(suite.protocol, last_history=shown))


def _run(suite: Suite, out: Path, limit: int) -> RunFolder:
    # What is hidden of the users who are asked about is not learned from, so there have to be others.
    hidden = suite.protocol.last_history is not None and suite.protocol.split != "given"
    protocol = replace(suite.protocol, users=limit) if hidden else suite.protocol
    return evaluate(replace(suite, protocol=protocol), out, RunOptions(limit=limit)).folder


def _table(name: str, run: RunFolder) -> str:
    """A row a ranker, in percent."""
    summary = run.summary
    lines = [f"### {name[0].upper()}{name[1:]}", "", f"{run.manifest['protocol']}.", ""]
    lines += ["| ranker | users | " + " | ".join(f"NDCG@{k}" for k in CUTS) + " | new items@10 |"]
    lines += ["|---|---|" + "---|" * (len(CUTS) + 1)]
    for ranker, found in summary["rankers"].items():
        measured = {name: {"mean": mean, "ci": found["ci"][name]} for name, mean in found["metrics"].items()}
        cells = [_cell(measured[name]) for name in (*(f"ndcg@{k}" for k in CUTS), "new_items@10")]
        lines.append(f"| {ranker} | {found['cases']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(measured: Mapping[str, Any]) -> str:
    if measured["mean"] is None:
        return ""
    low, high = measured["ci"] or (None, None)
    mean = f"{100 * measured['mean']:.1f}"
    return mean if low is None or high is None else f"{mean} [{100 * low:.1f}, {100 * high:.1f}]"


def _fits(runs: Mapping[str, RunFolder], folds: int) -> list[str]:
    """Of all runs together, so that each band of histories has its users; by method, and by band."""
    examples = [each for run in runs.values() for each in examples_of(run, ALL)[0]]
    bands = BANDS if len(runs) > 1 else ()
    tables = []
    for method in METHODS:
        fitted = fit_examples(examples, FitOptions(method, bands=bands, folds=folds))
        lines = [
            f"### Fitted: {method}",
            "",
            "| history | lists | cross-validated | in sample | equal weights | best part alone |",
        ]
        lines.append("|---|---|---|---|---|---|")
        for each in fitted.slices:
            alone = {name: value for name, value in each.values.items() if name not in (CROSS_VALIDATED, IN_SAMPLE, EQUAL)}
            best = max(alone, key=lambda part: alone[part].mean or 0.0)
            cells = [_cell(asdict(each.values[name])) for name in (CROSS_VALIDATED, IN_SAMPLE, EQUAL)]
            lines.append(f"| {each.label} | {each.cases} | " + " | ".join(cells) + f" | {best} {_cell(asdict(alone[best]))} |")
        tables.append("\n".join([*lines, "", *_weights(fitted.fusion.combination.record())]))
    return tables


def _weights(record: Mapping[str, Any]) -> list[str]:
    """The weights of each band, where there are some."""
    return [
        f"- {'longer' if band['up_to'] is None else 'up to ' + str(band['up_to'])}: "
        + ", ".join(f"{name} {weight:.2f}" for name, weight in band["weights"].items() if weight)
        for band in record.get("bands", ())
    ]


if __name__ == "__main__":
    sys.exit(main())
