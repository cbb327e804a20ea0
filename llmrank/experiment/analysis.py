"""The folder of an experiment goes in, its Findings come out; or the reason why nothing may be read yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from llmrank.errors import DatasetError
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.values import label
from llmrank.experiment.decision import decide
from llmrank.experiment.effects import effects, segments
from llmrank.experiment.findings import Findings, SelectionRound
from llmrank.experiment.folder import ExperimentFolder
from llmrank.experiment.freeze import check_frozen
from llmrank.experiment.guarding import depth_of, guardrails, read_once
from llmrank.experiment.measured import Measured, measured
from llmrank.experiment.showing import costs, disagreements, prompts
from llmrank.experiment.spec import Spec, ranker_name
from llmrank.experiment.statistics.variance import Variation, components
from llmrank.experiment.stopping import stopped_at


def analyse(folder: ExperimentFolder, *, embedder: Mapping[str, Any] | None = None) -> Findings:
    """What an experiment found.

    Args:
        folder: The experiment's; it may be somebody else's.
        embedder: As for `measured`.

    Raises:
        ConfigError: a measure needs an embedder (see `measured`).
        DatasetError: frozen data were edited; nothing was ranked yet; or not all planned users are, and the experiment is
            read once, when they are: a p value of a fixed sample that is looked at before is no p value.
    """
    check_frozen(folder)
    spec = folder.spec
    variants, rounds = compared(folder, spec)
    everyone = (spec.base, *variants)
    run = folder.run("confirmation")
    if not run.exists or any(next(run.results(ranker_name(name, 0)), None) is None for name in everyone):
        fix = "run it first, or go on: llmrank ab run EXPERIMENT --out DIR"
        raise DatasetError("not every variant has ranked someone", field="experiment", value=str(folder.path), fix=fix)
    table = measured(folder, "confirmation", everyone, depth=depth_of(spec), embedder=embedder)
    if spec.sequential is None and not table.complete:
        raise DatasetError(
            f"{table.count:,} of {table.planned:,} users are ranked by all variants, and its p values are valid at "
            f"{table.planned:,} only",
            field="experiment",
            value=str(folder.path),
            fix="go on with `llmrank ab run`; to look at any time, begin a new experiment with a `sequential` section",
        )
    if not table.count:
        raise DatasetError("no user is ranked by all variants", field="experiment", value=str(folder.path), fix="go on with it")
    found = effects(spec, table)
    primary = [each for each in found if each.measure.name == spec.measure]
    guarded = guardrails(spec, table, int(run.manifest["items"]))
    reading: Any = "fixed sample" if spec.sequential is None else "always valid"
    decision = decide(spec.base, primary, guarded, alpha=spec.alpha, power=spec.power, wanted=spec.effect, reading=reading)
    plan = folder.path / "plan.json"
    return Findings(
        name=spec.name,
        question=spec.question,
        created=folder.manifest["created"],
        manifest=folder.manifest["digest"],
        protocol=folder.manifest["protocol"],
        control=spec.base,
        variants=variants,
        primary=parse_measure(spec.measure),
        reading=reading,
        planned=table.planned,
        users=table.count,
        rankings=len(table.users),
        stopped_early=None if table.complete else _stopped(spec, table),
        alpha=spec.alpha,
        power=spec.power,
        wanted=spec.effect,
        decision=decision,
        effects=found,
        guardrails=guarded,
        segments=segments(spec, table),
        variation=_variation(spec, table),
        selection=rounds,
        disagreements=disagreements(spec, run, table),
        prompts=prompts(spec, run, everyone, folder.manifest["templates"]),
        costs=costs(table),
        forecast=tuple(json.loads(plan.read_text(encoding="utf-8"))["lines"]) if plan.exists() else (),
        method=_method(spec, table, variants, rounds),
        notes=_notes(folder, table),
    )


def compared(folder: ExperimentFolder, spec: Spec) -> tuple[tuple[str, ...], tuple[SelectionRound, ...]]:
    """Who is compared with the control, and how they were chosen."""
    if spec.selection is None:
        return spec.others, ()
    path = folder.path / "selection.json"
    if not path.exists():
        fix = "go on with it: llmrank ab run EXPERIMENT --out DIR"
        raise DatasetError("variants are still being chosen", field="experiment", value=str(folder.path), fix=fix)
    record = json.loads(path.read_text(encoding="utf-8"))
    rounds = tuple(SelectionRound(each["users"], tuple(each["contenders"]), tuple(each["kept"])) for each in record["rounds"])
    return tuple(name for name in spec.others if name in record["finalists"]), rounds


def _stopped(spec: Spec, table: Measured) -> str:
    return stopped_at(spec, table) or f"looked at after {table.count:,} of {table.planned:,} users; not all is decided"


def _variation(spec: Spec, table: Measured) -> Variation | None:
    if spec.repeats.orders == spec.repeats.samples == 1:
        return None
    names = list(table.variants)
    values = np.concatenate([table.values(name, spec.measure) for name in names])
    if np.isnan(values).any():
        return None
    # A user's cases are told apart as orders are: each of a user's trials by its number.
    trials = np.arange(len(table.users)) // spec.repeats.samples
    firsts = np.searchsorted(table.users, table.users) // spec.repeats.samples
    rows = [np.tile(column, len(names)) for column in (table.users, trials - firsts, table.samples)]
    return components(values, rows[0], rows[1], rows[2], np.repeat(np.arange(len(names)), len(table.users)))


def _method(spec: Spec, table: Measured, variants: tuple[str, ...], rounds: tuple[SelectionRound, ...]) -> tuple[str, ...]:
    measure = label(parse_measure(spec.measure))
    repeats = spec.repeats.orders * spec.repeats.samples
    level = f"{100 * spec.alpha:g} %"
    several = f" after Holm's correction for {len(variants)} comparisons" if len(variants) > 1 else ""
    sentences = [
        f"All variants ranked the same candidates of the same {table.count:,} users in the same orders, frozen before the "
        "first answer; differences are paired by user.",
        "A ranking without a readable answer counts "
        + ("0 in every measure of relevance" if spec.failures == "worst" else "with the order that it fell back to")
        + "; none is left out.",
    ]
    if spec.sequential is None:
        sentences += [
            f"Intervals: BCa bootstrap over users, {100 * (1 - spec.alpha):g} %, {spec.resamples:,} resamples. p: two-sided "
            f"sign-flip test over users, (b + 1) / (m + 1), seed {spec.seed}. {measure} decides at {level}{several}.",
            "The sample was fixed beforehand, and nothing is shown before it is complete.",
        ]
    else:
        once = any(read_once(name) for name in spec.margins)
        kind = "betting" if parse_measure(spec.measure).unit == "share" else "asymptotic"
        sentences.append(
            f"Always-valid reading: intervals are {kind} confidence sequences, which hold at all times at once"
            + (f", at {level} divided by {len(variants)} variants" if len(variants) > 1 else "")
            + "; they are wider than those of a fixed sample, and the experiment may stop whenever they decide. So are the "
            "bounds of guardrails (bets for what has bounds, the normal mixture for other means, order statistics for "
            "percentiles)."
            + (" Catalogue coverage is read once, at the end, by a bound for a fixed sample." if once else "")
            + " Segments are read once, at the end, too."
        )
    sentences.append(
        "All other measures are secondary: their p values are corrected together by Benjamini and Hochberg's method, which "
        "keeps the share of false findings among all findings."
    )
    if spec.guardrails:
        sentences.append(
            f"Guardrails: a variant passes if the one-sided {100 * (1 - spec.alpha):g} % bound of its loss is within the "
            "margin, is broken if the loss is shown to be larger, and is unclear if neither is shown."
        )
    if repeats > 1:
        sentences.append(
            f"Each user was asked about {repeats} times a variant ({spec.repeats.orders} orders of the candidates, "
            f"{spec.repeats.samples} samples); a user counts once."
        )
    if rounds:
        sentences.append(
            "Variants were chosen by successive halving on development users, none of whom is among those that decide; how "
            "well they did there is no result and is not shown."
        )
    return tuple(sentences)


def _notes(folder: ExperimentFolder, table: Measured) -> tuple[str, ...]:
    run = folder.run("confirmation")
    notes = [*folder.manifest["notes"]]
    notes += [note for note in run.manifest["notes"] if note not in notes and "several cases" not in note]
    for name, each in table.variants.items():
        if failed := int(each.failed.sum()):
            notes.append(f"{failed:,} of {len(each.failed):,} rankings of {name} had no readable answer")
    spec = folder.spec
    if spec.repeats.orders > 1 or spec.repeats.samples > 1:
        deterministic = [
            name
            for name in table.variants
            if spec.repeats.samples > 1 and _same_samples(table, name, spec.measure, spec.repeats.samples)
        ]
        notes += [f"all samples of {name} came out the same: its model may ignore seeds" for name in deterministic]
    return tuple(notes)


def _same_samples(table: Measured, name: str, measure: str, samples: int) -> bool:
    values = table.values(name, measure).reshape(-1, samples)
    return bool((values == values[:, :1]).all())
