"""An experiment and a folder go in; its variants rank the frozen cases, and findings and report come out, in that folder.

A run can be broken off at any moment and started again: each stage is a run folder that goes on where it was, with the answers
that were paid for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from llmrank.errors import ConfigError
from llmrank.evaluation.data.training import load_interactions
from llmrank.evaluation.run import Evaluation, RunOptions, evaluate, locked
from llmrank.evaluation.running.meter import Meter
from llmrank.evaluation.running.opened import OpenContenders
from llmrank.evaluation.running.prepare import Given
from llmrank.experiment.ending import refuse_published, unseal_stages
from llmrank.experiment.findings import Findings, SelectionRound
from llmrank.experiment.folder import ExperimentFolder, Stage
from llmrank.experiment.forecast import Plan, plan_of
from llmrank.experiment.freeze import freeze
from llmrank.experiment.measured import Measured, measured
from llmrank.experiment.noting import keep_prompts
from llmrank.experiment.spec import SelectionOptions, Spec, load_spec
from llmrank.experiment.statistics.halving import Round, rankings, schedule, survivors
from llmrank.experiment.stopping import stopped_at
from llmrank.files import write_whole
from llmrank.forecast import Forecast
from llmrank.registry import Registry

OPEN = 8
"""How many rankers stay open from one look, or one round of a race, to the next."""


@dataclass(frozen=True, slots=True)
class ExperimentRun:
    """What a session of an experiment came to.

    Attributes:
        folder: Where everything is.
        findings: What was found; None after a dry run, or where not all planned users are ranked and none may be read before.
        plan: What was forecast before anything was spent.
        failures: Rankings with status ``error``, of all variants, in this session.
        usd: What was spent, as far as prices are known, in all sessions.
        stopped: Why it ended before all was ranked; None if all is.
    """

    folder: ExperimentFolder
    findings: Findings | None
    plan: Plan
    failures: int = 0
    usd: float = 0.0
    stopped: str | None = None


def run_experiment(
    spec: str | Path | Mapping[str, Any] | Spec,
    out: str | Path,
    options: RunOptions | None = None,
    *,
    dry_run: bool = False,
    on_start: Callable[[ExperimentFolder, Plan], None] | None = None,
    items: Any = None,
    interactions: Any = None,
    registries: Sequence[Registry] = (),
) -> ExperimentRun:
    """Runs an experiment, or goes on with it.

    Args:
        spec: An experiment file, a dict of the same form, or a Spec.
        out: The experiment's folder, new or of the same experiment.
        options: How it is carried out, and with what budget; `limit` is not allowed: the sample is part of the experiment.
        dry_run: True freezes the cases and forecasts, and asks no model anything.
        on_start: Told of the plan before anything is spent.
        items: A Catalog or a data frame, in place of the file's `items`.
        interactions: Interactions or a data frame, in place of the file's `interactions`.
        registries: Registries of prompts that keep the variants' templates and their results, beside the experiment's own.

    Raises:
        ConfigError: the file is wrong, or differs from the one that the folder was made with; what failed is to be asked again
            after the decision was published.
        DatasetError: its data are wrong; another run is at work in the folder.
        LLMRankError: no variant could rank anything.
    """
    options = options or RunOptions()
    if options.limit is not None:
        fix = "set `users` in the experiment's file"
        raise ConfigError("an experiment's sample is part of it", field="limit", value=options.limit, fix=fix)
    spec = load_spec(spec)
    with locked(Path(out)):
        folder = freeze(spec, out, Given.of(items, interactions))
        if options.retry_errors:
            refuse_published(folder)
        with OpenContenders(OPEN) as contenders:  # closed before the report is made, or when an error ends it
            session = _Session(spec, folder, options, contenders)
            plan = session.plan()
            if on_start is not None:
                on_start(folder, plan)
            if dry_run:
                return ExperimentRun(folder, None, plan, usd=session.spent())
            keep_prompts(spec, folder, *registries)
            stopped = session.rank()
        if stopped is not None:
            return ExperimentRun(folder, None, plan, session.failures, session.spent(), stopped)
        unseal_stages(folder)
        from llmrank.experiment.publishing import publish

        findings = publish(folder, *registries, embedder=spec.embedder) if options.report else None
        return ExperimentRun(folder, findings, plan, session.failures, session.spent())


class _Session:
    """One session's work on an experiment."""

    def __init__(self, spec: Spec, folder: ExperimentFolder, options: RunOptions, contenders: OpenContenders) -> None:
        self.spec, self.folder, self.options, self._contenders = spec, folder, options, contenders
        self.failures = 0
        training = folder.frozen("training.npz")
        self._training = load_interactions(training) if training.exists() else None

    def spent(self) -> float:
        """What all sessions spent, in USD."""
        return sum(_spent(self.folder, stage) for stage in ("development", "confirmation"))

    def plan(self) -> Plan:
        """What was forecast when the experiment began; made now if it begins now."""
        path = self.folder.path / "plan.json"
        if path.exists() and self.folder.manifest["digest"] == (found := json.loads(path.read_text("utf-8")))["digest"]:
            return Plan.of_record(found)
        if self.spec.selection is not None:
            _rounds(self.spec, self.spec.selection)  # a budget that does not suffice is told before anything is asked
        whole = self._evaluate("confirmation", tuple(self.spec.variants), None, dry_run=True).forecasts
        race: Mapping[str, Forecast] = {}
        if self.spec.selection is not None:  # the control takes no part
            race = self._evaluate("development", self.spec.others, None, dry_run=True).forecasts
        plan = plan_of(self.spec, self.folder, whole, race)
        write_whole(path, [json.dumps({"digest": self.folder.manifest["digest"], **plan.record()}, indent=1) + "\n"])
        return plan

    def rank(self) -> str | None:
        """Lets the variants rank; gives the reason if that cannot be done to the end now."""
        variants: Sequence[str] = self.spec.others
        if self.spec.selection is not None:
            chosen = self._select(self.spec.selection)
            if isinstance(chosen, str):
                return chosen
            variants = chosen
        everyone = (self.spec.base, *variants)
        if self.spec.sequential is None:
            return self._evaluate("confirmation", everyone, None).stopped
        trials = self.folder.trials("confirmation")
        looks = [*range(self.spec.sequential.least, trials.count, self.spec.sequential.every), trials.count]
        for users in looks:
            done = self._evaluate("confirmation", everyone, trials.of_first(min(users, trials.count)))
            if done.stopped is not None:
                return done.stopped
            table = measured(self.folder, "confirmation", everyone, embedder=self.spec.embedder)
            if stopped_at(self.spec, table) is not None:
                return None
        return None

    def _select(self, selection: SelectionOptions) -> tuple[str, ...] | str:
        """The finalists, by successive halving on the development users; or why that stopped."""
        path = self.folder.path / "selection.json"
        if path.exists():  # who was chosen stays so: asking again for what failed would choose after a look at results
            finalists = json.loads(path.read_text("utf-8"))["finalists"]
            return tuple(name for name in self.spec.others if name in finalists)
        trials = self.folder.trials("development")
        contenders = self.spec.others
        plan = _rounds(self.spec, selection)
        rounds: list[SelectionRound] = []
        for number, each in enumerate(plan):
            done = self._evaluate("development", contenders, trials.of_first(each.users))
            if done.stopped is not None:
                return f"choosing among variants: {done.stopped}"
            table = measured(self.folder, "development", contenders, embedder=self.spec.embedder).first(each.users)
            means = _means(table, contenders, self.spec.measure)
            last = number + 1 == len(plan)
            kept = survivors(means, selection.finalists if last else plan[number + 1].contenders)
            rounds.append(SelectionRound(each.users, contenders, kept))
            contenders = kept
        record = {
            "finalists": list(contenders),
            "rankings": rankings(plan),
            "rounds": [{"users": each.users, "contenders": each.contenders, "kept": each.kept} for each in rounds],
        }
        write_whole(path, [json.dumps(record, indent=1) + "\n"])
        return tuple(name for name in self.spec.others if name in contenders)

    def _evaluate(self, stage: Stage, variants: Sequence[str], limit: int | None, *, dry_run: bool = False) -> Evaluation:
        budget = self.options.budget_usd
        if budget is not None:  # what the other stage took is gone
            other: Stage = "confirmation" if stage == "development" else "development"
            budget = max(budget - _spent(self.folder, other), 1e-9)
        suite = self.spec.suite(tuple(variants), items=self.folder.frozen("items.jsonl"), cases=self.folder.cases(stage))
        options = replace(self.options, limit=limit, budget_usd=budget, report=False)
        path = self.folder.path / stage
        self._contenders.keep(path, suite.rankers)  # who left the race, or was forecast only, is asked no more
        try:
            done = evaluate(
                suite,
                path,
                options,
                dry_run=dry_run,
                interactions=self._training,
                contenders=self._contenders,
                experiment=self.spec.name,
            )
        except ConfigError as error:
            if error.field.split(".")[0] != "rankers":
                raise
            field = error.field.replace("rankers", "variants", 1)  # as the experiment's file calls them
            raise ConfigError(error.message, field=field, value=error.value, fix=error.fix) from error
        self.failures += done.failures
        return done


def _rounds(spec: Spec, selection: SelectionOptions) -> tuple[Round, ...]:
    """The rounds of the race, without those that would leave fewer than the finalists."""
    contenders, least = len(spec.others), min(selection.least, selection.users)
    budget = selection.budget or max(contenders * selection.users // 2, contenders * least)
    try:
        plan = schedule(contenders, budget, keep=selection.keep, least=least, users=selection.users)
    except ConfigError as error:
        raise ConfigError(error.message, field=f"selection.{error.field}", value=error.value, fix=error.fix) from error
    return tuple(each for each in plan if each.contenders > selection.finalists)


def _means(table: Measured, variants: Sequence[str], measure: str) -> dict[str, float]:
    """Means over the users for whom the measure is defined with every variant, so that all are of the same ones."""
    values = np.stack([table.per_user(name, measure) for name in variants])
    defined = values[:, ~np.isnan(values).any(axis=0)]
    means = defined.mean(axis=1) if defined.size else np.full(len(variants), np.nan)
    return dict(zip(variants, means.tolist(), strict=True))


def _spent(folder: ExperimentFolder, stage: Stage) -> float:
    path = folder.path / stage / "spent.jsonl"
    if not path.exists():
        return 0.0
    with Meter(path) as meter:
        return meter.usd
