"""A run's folder goes in, its summary comes out: for each ranker every measure with its interval, and what it did to get there.

Results are read once a ranker and one at a time; what is kept of a case is a handful of numbers. Nothing is left out of a
measure because it failed: `failures` says how it counts (see `outcomes`). The same folder gives the same bytes.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.beyond import Known
from llmrank.evaluation.measures.bias import PositionBias, Stability
from llmrank.evaluation.measures.chance import chance
from llmrank.evaluation.measures.embedding import fields_of, measuring
from llmrank.evaluation.measures.estimate import Estimator, number
from llmrank.evaluation.measures.measure import Measure, check_measures, parse_measure
from llmrank.evaluation.measures.outcomes import known_of, measures_of, per_case
from llmrank.evaluation.measures.passed import PrefilterRecall
from llmrank.evaluation.measures.totals import Answers, Cost, Counts, Users
from llmrank.evaluation.running.contenders import price_at
from llmrank.files import write_whole
from llmrank.prices import Prices
from llmrank.protocols import Embedder
from llmrank.retrieval.text import well_formed
from llmrank.types import Status

HISTORY_BINS: Sequence[tuple[int, int | None]] = ((0, 0), (1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 50), (51, None))
"""Lengths of histories, first and last, by which the primary measure is told apart."""


def write_summary(
    folder: RunFolder,
    *,
    cost: Cost | None = None,
    embedder: Embedder | Mapping[str, Any] | None = None,
    fields: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Writes `summary.json`; see `summarize`."""
    found = summarize(folder, cost=cost, embedder=embedder, fields=fields)
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder.path / "summary.json", [well_formed(text)])
    return found


def summarize(
    folder: RunFolder,
    *,
    cost: Cost | None = None,
    embedder: Embedder | Mapping[str, Any] | None = None,
    fields: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What a run found, as JSON values.

    Args:
        folder: The run; it need not be complete.
        cost: Says what a usage of a model costs; None: the suite's `prices`, before those that `Prices` knows.
        embedder: For measures that need the items' vectors: an Embedder, or a section like that of the suite, for the same
            vectors. None: those of the suite, if they ask nobody: a folder does not decide which server is asked.
        fields: What of an item is embedded; None: the suite's, or the title.

    Returns:
        ``protocol``, ``cases`` (that all rankers have ranked), ``planned``, ``seed``, ``primary``, ``failures``,
        ``confidence``, ``resamples``, ``notes``, ``chance`` (what a random order has on average, by measure; None for whole
        catalogues), ``rankers`` and ``memorization``. Of each ranker: ``metrics`` and ``ci`` by measure (no interval for
        measures of the run), ``cases``, ``users`` (whose they are), ``status``, ``usage``, ``latency``, ``answers``,
        ``position_bias``, ``by_history``, ``prefilter`` (``keep``, ``recall``, ``ci``; None without one), ``stability``,
        ``errors``, ``model``, ``strategy`` and ``fingerprints``. Shares are from 0 to 1, latencies in seconds; what is not
        known is None. ``answers`` has shares of the cases with an answer (``..._cases``) and means over them (``..._items``).

    Raises:
        ConfigError: a measure needs what the run lacks, or the primary one has no value for a case; the suite's vectors need a
            server or a file, and `embedder` names none, or one of other vectors.
        DatasetError: the folder holds no run, or results that are not of it.
    """
    manifest = folder.manifest
    primary = parse_measure(manifest["primary"])
    check_measures([], has_popularity=True, primary=primary.name)
    estimator = Estimator(manifest.get("confidence", 0.95), manifest.get("resamples", 2000), manifest["seed"])
    with _knowledge(folder, embedder, fields) as known:
        plan = _Plan(folder, measures_of(folder, known), primary, known, estimator)
        prices = Prices.load(manifest["suite"].get("prices"))
        rankers = {name: _summarize(plan, name, cost or _cost(folder, name, prices)) for name in folder.ranker_names}
    by_chance = chance(plan.measures, folder.cases())
    return {
        "protocol": manifest["protocol"],
        "cases": min((found["cases"] for found in rankers.values()), default=0),
        "planned": manifest["cases"],
        "seed": manifest["seed"],
        "primary": primary.name,
        "failures": manifest["failures"],
        "confidence": estimator.confidence,
        "resamples": estimator.resamples,
        "notes": [*manifest.get("notes", ()), *_shortfalls(rankers, manifest["cases"]), *_fitted(manifest)],
        "chance": by_chance and {name: number(value) for name, value in by_chance.items()},
        "rankers": rankers,
        "memorization": folder.memorization,
    }


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is the same for all rankers of a run."""

    folder: RunFolder
    measures: Sequence[Measure]
    primary: Measure
    known: Known
    estimator: Estimator


@contextmanager
def _knowledge(
    folder: RunFolder, embedder: Embedder | Mapping[str, Any] | None, fields: Sequence[str] | None
) -> Iterator[Known]:
    """What the run's measures need to know."""
    section = folder.manifest["suite"].get("embedder")
    wanted = fields or fields_of(section)
    if embedder is not None and not isinstance(embedder, Mapping):
        yield known_of(folder, embedder, wanted)
    elif all(parse_measure(name).needs != "embedder" for name in folder.manifest["metrics"]):
        yield known_of(folder)
    else:
        with measuring(section, embedder) as made:
            yield known_of(folder, made, wanted)


def _cost(folder: RunFolder, ranker: str, prices: Prices) -> Cost:
    """What the ranker's backend takes."""
    config = folder.manifest["rankers"][ranker]["config"]

    def cost(model: str, usage: Mapping[str, Any], batch: bool) -> float | None:
        price = price_at(config, model, prices)
        return None if price is None else price.usd(usage, batch=batch)

    return cost


def _shortfalls(rankers: Mapping[str, Mapping[str, Any]], planned: int) -> list[str]:
    """A sentence for each number of cases that rankers have ranked, if it is not all; one if it is the same for all."""
    by_count: dict[int, list[str]] = {}
    for name, found in rankers.items():
        by_count.setdefault(found["cases"], []).append(name)
    if len(by_count) == 1:
        # Of a run with a limit, starting it again changes nothing; which of both it is, is not in the folder.
        return [f"{count:,} of {planned:,} cases are ranked, by every ranker" for count in by_count if count < planned]
    return [
        f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} ranked {count:,} of {planned:,} cases; "
        "the run goes on when it is started again"
        for count, names in by_count.items()
        if count < planned
    ]


def _fitted(manifest: Mapping[str, Any]) -> list[str]:
    """A sentence for each ranker whose fusion was fitted on users of this run."""
    return [
        f"the fusion of {name} was fitted on users with the ids of {count:,} of the {manifest['cases']:,} cases: "
        "if they are the same people, these are no test of it"
        for name, count in manifest.get("fitted_on", {}).items()
    ]


def _summarize(plan: _Plan, name: str, cost: Cost) -> dict[str, Any]:
    folder, measures, primary, known, estimator = plan.folder, plan.measures, plan.primary, plan.known, plan.estimator
    of_case = tuple(dict.fromkeys((*(measure for measure in measures if measure.per_case), primary)))
    passed = PrefilterRecall.of(folder.manifest["rankers"][name]["config"])
    of_run = {measure: measure.tally(known) for measure in measures if not measure.per_case}
    counts, answers, users = Counts(), Answers(), Users()
    values, histories = array("d"), array("q")
    bias, stability = PositionBias(primary.name), Stability(folder.stability(name), primary.k)
    for row, outcome in enumerate(per_case(folder, name, of_case, known=known)):
        values.extend(outcome.values[measure.name] for measure in of_case)
        for measure, tally in of_run.items():
            tally.add(outcome.order[: measure.k], outcome.question.history)
        histories.append(len(outcome.question.history))
        users.add(outcome.user_id)
        counts.add(outcome)
        answers.add(outcome)
        bias.add(row, outcome)
        stability.add(row, outcome)
        if passed is not None:
            passed.add(outcome)

    who = users.codes()
    table = np.array(values).reshape(-1, len(of_case))
    shares = [column for column, measure in enumerate(of_case) if measure.unit == "share"]
    means = dict(zip(of_case, estimator.columns(table, who, shares=shares), strict=True))
    lengths = np.array(histories, dtype=np.int64)
    metrics = {
        each.name: means[each].mean if each in means else number(of_run[each].value()) if counts.cases else None
        for each in measures
    }
    return {
        "metrics": metrics,
        "ci": {each.name: means[each].ci if each in means else None for each in measures},
        "cases": counts.cases,
        "users": len(np.unique(who)),
        "status": {status: counts.statuses[status] for status in get_args(Status)},
        "usage": counts.usage() | {"usd": counts.usd(cost)},
        "latency": counts.latency(),
        "answers": answers.result(),
        "position_bias": bias.result(who, estimator),
        "by_history": estimator.by_bin(HISTORY_BINS, lengths, table[:, of_case.index(primary)], who, primary.name),
        "prefilter": None if passed is None else passed.result(who, estimator),
        "stability": stability.result(who, estimator),
        "errors": dict(sorted(counts.errors.items())),
        "model": ", ".join(counts.models),
        "strategy": ", ".join(counts.strategies),
        "fingerprints": sorted(counts.fingerprints),
    }
