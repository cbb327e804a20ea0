"""The run of an experiment's stage goes in, arrays come out: what each variant's rankings are worth, and what they took.

A row is one ranking: a trial (a case in one order) and a sample. All variants have the same rows; only users whose rankings are
all there, of every variant, have any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import DatasetError
from llmrank.evaluation.measures.embedding import fields_of, measuring
from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.outcomes import Outcome, known_of, measures_of, per_case
from llmrank.evaluation.running.contenders import price_at
from llmrank.experiment.folder import ExperimentFolder, Stage, Trials
from llmrank.experiment.spec import Spec, ranker_name
from llmrank.prices import Prices

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Rankings:
    """What one variant's rankings are worth, a row each.

    Attributes:
        values: By measure; NaN where it is not defined.
        failed: True without a readable answer.
        usd: USD as if nothing was kept from before; NaN where the price is not known.
        tokens: Prompt and answer tokens.
        seconds: The latency, also of rankings that failed; NaN where nothing was asked.
        calls: Answers of the model.
        prompt_tokens, completion_tokens: The two kinds of tokens.
        tops: The first ids of each ranking, for measures of whole runs; empty if none is wanted.
    """

    values: Mapping[str, Floats]
    failed: NDArray[np.bool_]
    usd: Floats
    seconds: Floats
    calls: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    completion_tokens: NDArray[np.int64]
    tops: tuple[tuple[str, ...], ...]

    @property
    def tokens(self) -> Floats:
        """Prompt and answer tokens."""
        return (self.prompt_tokens + self.completion_tokens).astype(np.float64)

    def rows(self, chosen: NDArray[Any]) -> Rankings:
        """Some of the rows."""
        tops = tuple(self.tops[place] for place in np.flatnonzero(chosen)) if self.tops else ()
        return Rankings(
            {name: column[chosen] for name, column in self.values.items()},
            self.failed[chosen],
            self.usd[chosen],
            self.seconds[chosen],
            self.calls[chosen],
            self.prompt_tokens[chosen],
            self.completion_tokens[chosen],
            tops,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """All variants' rankings over the same rows.

    Attributes:
        measures: What has a value for each ranking.
        users: The number of each row's user, from 0, rising: the frozen order, which is random.
        orders, samples: Which of a case's orders, and which sample, a row is of, from 0.
        histories: How long the history of each row's case is.
        variants: By name.
        planned: How many users there are to be.
    """

    measures: tuple[Measure, ...]
    users: NDArray[np.int64]
    orders: NDArray[np.int64]
    samples: NDArray[np.int64]
    histories: NDArray[np.int64]
    variants: Mapping[str, Rankings]
    planned: int

    @property
    def count(self) -> int:
        """How many users every variant has ranked for."""
        return int(self.users[-1]) + 1 if len(self.users) else 0

    @property
    def complete(self) -> bool:
        """True if these are all planned users."""
        return self.count == self.planned

    def first(self, users: int) -> Measured:
        """The first users only."""
        return self.where(self.users < users)

    def where(self, chosen: NDArray[np.bool_]) -> Measured:
        """Some of the rows."""
        arrays = (self.users[chosen], self.orders[chosen], self.samples[chosen], self.histories[chosen])
        variants = {name: each.rows(chosen) for name, each in self.variants.items()}
        return Measured(self.measures, *arrays, variants, self.planned)

    def values(self, variant: str, measure: str) -> Floats:
        """A variant's values, one a row."""
        return self.variants[variant].values[measure]

    def per_user(self, variant: str, measure: str) -> Floats:
        """Means over each user's rows, in the users' order; NaN for users for whom it is defined in no row."""
        return mean_by(self.values(variant, measure), self.users, self.count)

    def paired(self, variant: str, control: str, measure: str) -> tuple[Floats, Floats]:
        """Means of both over each user's rows, in the users' order; a row counts if the measure is defined with both. NaN for
        users without such a row.
        """
        ours, theirs = self.values(variant, measure), self.values(control, measure)
        missing = np.isnan(ours) | np.isnan(theirs)
        first, second = (mean_by(np.where(missing, np.nan, each), self.users, self.count) for each in (ours, theirs))
        return first, second


@dataclass(slots=True)
class _Columns:
    """The columns of one ranker while its results are read."""

    values: dict[str, list[float]]
    failed: list[bool] = field(default_factory=list)
    usd: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    usage: list[tuple[int, int, int]] = field(default_factory=list)
    tops: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, outcome: Outcome, usd: float, depth: int) -> None:
        for name, values in self.values.items():
            values.append(outcome.values[name])
        self.failed.append(outcome.failed)
        self.usd.append(usd)
        seconds, usage = outcome.record["latency"], outcome.record["usage"]
        self.seconds.append(float("nan") if seconds is None else float(seconds))
        self.usage.append((usage["calls"], usage["prompt_tokens"], usage["completion_tokens"]))
        if depth:
            self.tops.append(tuple(outcome.order[:depth]))


def measured(
    folder: ExperimentFolder,
    stage: Stage,
    variants: Sequence[str],
    *,
    depth: int = 0,
    embedder: Mapping[str, Any] | None = None,
) -> Measured:
    """Reads what the variants have ranked.

    Args:
        folder: The experiment's.
        stage: Which of its runs.
        variants: Whose results; each must have begun.
        depth: How many ids of each ranking are kept.
        embedder: For measures that need vectors, if those of the experiment come from a server or a file: a section of an
            embedder of the same model. The folder tells the model, and not whom to ask.

    Raises:
        ConfigError: an embedder is needed and not given, or is one of other vectors.
        DatasetError: results are missing in between, or are not those of the run's cases.
    """
    spec, trials, run = folder.spec, folder.trials(stage), folder.run(stage)
    prices = Prices.load(spec.prices)
    embeds = any(parse.needs == "embedder" for parse in measures_of_all(run))
    histories: list[int] = []
    with measuring(spec.embedder, embedder) if embeds else nullcontext() as made:
        known = known_of(run, made, fields_of(spec.embedder))
        measures = tuple(each for each in measures_of(run, known) if each.per_case)
        columns: dict[str, _Columns] = {}
        for variant in variants:
            for sample in range(spec.repeats.samples):
                name = ranker_name(variant, sample)
                config = run.manifest["rankers"][name]["config"]
                found = columns[name] = _Columns({each.name: [] for each in measures})
                for row, outcome in enumerate(per_case(run, name, measures, known=known)):
                    if outcome.case != row:
                        break  # only the first ones without a gap count; the run fills it when it goes on
                    found.add(outcome, _usd(config, outcome, prices), depth)
                    if row == len(histories):
                        histories.append(len(outcome.question.history))
    return _aligned(spec, trials, tuple(measures), variants, columns, histories)


def measures_of_all(run: Any) -> tuple[Measure, ...]:
    """The measures that a run's suite names."""
    from llmrank.evaluation.measures.measure import parse_measure

    return tuple(parse_measure(name) for name in run.manifest["metrics"])


def mean_by(values: Floats, users: NDArray[np.int64], count: int) -> Floats:
    """The mean of each user's values, NaN left out; NaN for users without any."""
    defined = ~np.isnan(values)
    sums = np.bincount(users[defined], values[defined], minlength=count)
    sizes = np.bincount(users[defined], minlength=count)
    with np.errstate(invalid="ignore"):  # 0 / 0: a user without a value has no mean
        means: Floats = sums / sizes
    return means


def _usd(config: Mapping[str, Any], outcome: Outcome, prices: Prices) -> float:
    usage = outcome.record["usage"]
    if not any(usage[name] for name in ("calls", "prompt_tokens", "completion_tokens")):
        return 0.0
    price = price_at(config, outcome.record["model"], prices)
    usd = None if price is None else price.usd(usage, batch=outcome.record.get("batch", False))
    return float("nan") if usd is None else usd


def _aligned(
    spec: Spec,
    trials: Trials,
    measures: tuple[Measure, ...],
    variants: Sequence[str],
    columns: Mapping[str, _Columns],
    histories: Sequence[int],
) -> Measured:
    """The rows that all rankers have, of whole users."""
    samples = spec.repeats.samples
    ranked = min(len(each.failed) for each in columns.values())
    if ranked > len(trials.users):
        raise DatasetError("there are more results than trials", field="experiment", value=ranked, fix="run it anew")
    while 0 < ranked < len(trials.users) and trials.users[ranked] == trials.users[ranked - 1]:
        ranked -= 1  # a user of whom some trials are still to be ranked does not count yet
    trial = np.repeat(np.arange(ranked), samples)
    sample = np.tile(np.arange(samples), ranked)

    def woven(parts: Sequence[Sequence[Any]], kind: Any) -> NDArray[Any]:
        """Samples side by side: those of one trial stand together."""
        return np.array([part[:ranked] for part in parts], dtype=kind).reshape(samples, ranked).T.ravel()

    def rankings(variant: str) -> Rankings:
        own = [columns[ranker_name(variant, number)] for number in range(samples)]
        used = np.array([each.usage[:ranked] for each in own], dtype=np.int64).reshape(samples, ranked, 3)
        usage = used.transpose(1, 0, 2).reshape(-1, 3)
        tops = [tuple(top) for row in zip_longest(*(each.tops[:ranked] for each in own)) for top in row]
        return Rankings(
            {each.name: woven([one.values[each.name] for one in own], np.float64) for each in measures},
            woven([one.failed for one in own], np.bool_),
            woven([one.usd for one in own], np.float64),
            woven([one.seconds for one in own], np.float64),
            usage[:, 0],
            usage[:, 1],
            usage[:, 2],
            tuple(tops),
        )

    return Measured(
        measures,
        np.array(trials.users[:ranked], dtype=np.int64)[trial],
        (trial % trials.orders).astype(np.int64),
        sample.astype(np.int64),
        np.array(histories[:ranked], dtype=np.int64)[trial],
        {variant: rankings(variant) for variant in variants},
        trials.count,
    )
