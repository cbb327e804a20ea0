"""Sentences with the constraints that a careful reader takes from them go in; how well a model reads them comes out.

``python eval/cold_start.py --items ITEMS.jsonl --config RANKER.yaml [--sentences FILE] [--attributes year,genres]`` asks the
configuration's backend one question a sentence and prints precision and recall of the constraints twice: as the model gives
them (in the catalogue's own names), and after only what the sentence says outright was kept. A constraint is right if it is
among those expected; for a whole-numbered attribute ``> 1989`` is ``>= 1990``. ``--show`` prints each sentence with both.

The sentences beside this script (`cold_start.jsonl`) fit films with a year and MovieLens' genres.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmrank.backends.guard import Limits, guard
from llmrank.budget import Budget
from llmrank.catalog import Catalog
from llmrank.config import build_backend, load_config
from llmrank.driver import run_flow
from llmrank.protocols import Backend, Flow
from llmrank.retrieval.constraints import AttributeTable, fold
from llmrank.sections import section_of
from llmrank.types import Completion, Ranking, ResolvedRequest
from llmrank.understanding import Constraint, Understanding, UnderstandingOptions
from llmrank.understanding.reader import claimed, object_in
from llmrank.writer import PromptOptions

STEPS: Mapping[str, tuple[str, int]] = {">": (">=", 1), "<": ("<=", -1)}


def main() -> None:
    """Asks, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", required=True, help="item file with the attributes")
    parser.add_argument("--config", required=True, help="a ranker's YAML file; its backend is asked")
    parser.add_argument("--sentences", default=str(Path(__file__).with_suffix(".jsonl")))
    parser.add_argument("--attributes", default="year,genres", help="what constraints may use")
    parser.add_argument("--domain", default="movies")
    parser.add_argument("--show", action="store_true", help="print each sentence with what was read")
    given = parser.parse_args()
    catalog = Catalog.load(given.items)
    lines = [json.loads(line) for line in Path(given.sentences).read_text(encoding="utf-8").splitlines()]
    options = UnderstandingOptions(attributes=tuple(given.attributes.split(",")))
    understanding = Understanding(options, PromptOptions(variables={"domain": given.domain}))
    section = section_of(load_config(given.config), "backend")
    section.pop("max_concurrency", None)
    backend = build_backend(section)
    asyncio.run(report(backend, understanding, AttributeTable(catalog.items), lines, show=given.show))


async def report(
    backend: Backend,
    understanding: Understanding,
    table: AttributeTable,
    lines: Sequence[Mapping[str, Any]],
    *,
    show: bool,
) -> None:
    """Prints how many answers were objects, and precision and recall before and after the sentence had its say."""
    limits = Limits() if backend.remote else Limits(deadline_s=None)
    guarded = guard(backend, limits=limits, max_concurrency=backend.concurrency, cache=None)
    attributes = [table.describe(name, understanding.options.values) for name in understanding.options.attributes]
    whole = {each.name for each in attributes if each.whole}
    totals = {"as the model gives them": [0, 0], "as the sentence says outright": [0, 0]}
    expected_total = objects = exact = 0
    try:
        info = await guarded.info()
        budget = Budget.of(info, guarded.model)
        flows = [read(understanding, table, line["sentence"], budget) for line in lines]
        rankings = await asyncio.gather(*(run_flow(flow, guarded) for flow in flows))
    finally:
        await guarded.aclose()
    for line, ranking in zip(lines, rankings, strict=True):
        answer = ranking.trace[0].answer
        text = answer.text if isinstance(answer, Completion) else None
        objects += object_in(text or "") is not None
        expected = normal((Constraint(*each) for each in line["constraints"]), whole)
        wish = ranking.wish
        told = {
            "as the model gives them": normal(claimed(text, attributes, table.spellings), whole),
            "as the sentence says outright": normal(wish.constraints if wish else (), whole),
        }
        expected_total += len(expected)
        exact += told["as the sentence says outright"] == expected
        for name, found in told.items():
            totals[name][0] += len(found & expected)
            totals[name][1] += len(found)
        if show and wish is not None:
            print(f"\n{line['sentence']}")
            for name, found in told.items():
                print(f"  {name}: {'; '.join(sorted(map(shown, found))) or '-'}")
            missed = told["as the sentence says outright"] ^ expected
            print(f"  {'right' if not missed else 'differs in ' + '; '.join(sorted(map(shown, missed)))}")
            said = {"wanted": wish.wishes, "like": wish.like, "not wanted": wish.dislikes}
            print("  " + " | ".join(f"{name}: {'; '.join(phrases) or '-'}" for name, phrases in said.items()))
    print(f"\n{len(lines)} sentences, {objects} answers with an object, model {guarded.model}")
    print(f"{'constraints':32} {'right':>6} {'given':>6} {'precision':>10} {'recall':>7}")
    for name, (right, count) in totals.items():
        print(f"{name:32} {right:6} {count:6} {ratio(right, count):>10} {ratio(right, expected_total):>7}")
    print(f"{expected_total} expected; {exact} of {len(lines)} sentences with exactly the constraints expected")


def read(understanding: Understanding, table: AttributeTable, sentence: str, budget: Budget) -> Flow:
    """The reading of a sentence as a ranking of nothing, so that the driver can run it."""
    wish = yield from understanding.flow(ResolvedRequest((), table.items, sentence), table, budget)
    return Ranking((), wish=wish)


def normal(constraints: Iterable[Constraint], whole: set[str]) -> set[tuple[str, str, tuple[Any, ...]]]:
    """Constraints in a form that can be compared: strict bounds of whole numbers as bounds, one of one value as ``=``."""
    found = set()
    for each in constraints:
        op, values = str(each.op), each.values
        if op in STEPS and each.attribute in whole:
            op, step = STEPS[op]
            values = tuple(value + step for value in values if not isinstance(value, str))
        if len(values) == 1:
            op = {"in": "=", "not in": "!="}.get(op, op)
        found.add((each.attribute, op, tuple(sorted(fold(v) if isinstance(v, str) else float(v) for v in values))))
    return found


def shown(constraint: tuple[str, str, tuple[Any, ...]]) -> str:
    """A constraint for people."""
    attribute, op, values = constraint
    return f"{attribute} {op} {', '.join(value if isinstance(value, str) else f'{value:g}' for value in values)}"


def ratio(part: int, whole: int) -> str:
    """A share in percent; a dash where there is nothing to share."""
    return f"{100 * part / whole:.0f} %" if whole else "-"


if __name__ == "__main__":
    main()
