"""What an experiment found, as plain values: decision, differences, guardrails, segments. Reports are made of nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.statistics import Difference
from llmrank.experiment.statistics.noninferiority import NonInferiority
from llmrank.experiment.statistics.variance import Variation

Reading: TypeAlias = Literal["fixed sample", "always valid"]
Outcome: TypeAlias = Literal["ship", "keep", "equivalent", "unclear", "invalid"]
Unit: TypeAlias = Literal["share", "usd", "seconds", "value"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, for who reads one sentence only.

    Attributes:
        outcome: ``ship`` (a variant is better and every guardrail holds), ``keep`` (the control: a variant is worse, breaks a
            guardrail or no guardrail is shown to hold), ``equivalent`` (no difference that matters is left possible),
            ``unclear`` (too few users to tell), or ``invalid`` (the experiment itself is broken).
        variant: Which variant the sentence is about; None if about none of them.
        sentence: The decision.
        reason: Why, in a sentence, with the difference, its interval and how many users it is from.
    """

    outcome: Outcome
    variant: str | None
    sentence: str
    reason: str


@dataclass(frozen=True, slots=True)
class Effect:
    """One variant against the control, in one measure.

    Attributes:
        measure: What is measured.
        variant: Its name.
        control_mean, variant_mean: Over the same cases; NaN if it is defined for none.
        difference: Variant minus control, paired by user; `p` is not corrected. Under an always-valid reading `low`, `high` and
            `p` are those of the confidence sequence.
        adjusted: The p value after `correction`; NaN if it is not known.
        correction: ``holm`` over the variants for the primary measure, ``bh`` (Benjamini and Hochberg) over variants and
            measures for the others, ``none`` for segments.
        detectable: The true difference that so many users, as different as these, show with the chance `power`.
    """

    measure: Measure
    variant: str
    control_mean: float
    variant_mean: float
    difference: Difference
    adjusted: float
    correction: Literal["holm", "bh", "none"]
    detectable: float = math.nan

    @property
    def relative(self) -> float:
        """The difference as a part of the control's mean; NaN where that is 0."""
        return self.difference.mean / self.control_mean if self.control_mean else math.nan


@dataclass(frozen=True, slots=True)
class Guardrail:
    """What a variant must not make worse than by a margin.

    Attributes:
        name: For people: ``failures``, ``cost``, ``latency (p95)``, ``Coverage@10``.
        variant: Whose.
        unit: Of the values.
        relative: Whether the margin is a part of the control's value.
        worse: Which direction is worse.
        result: Values, one-sided bound, margin and verdict.
        reading: ``always valid`` if its bound holds at all looks; ``fixed sample`` if it is read once.
    """

    name: str
    variant: str
    unit: Unit
    relative: bool
    worse: Literal["higher", "lower"]
    result: NonInferiority
    reading: Reading = "fixed sample"


@dataclass(frozen=True, slots=True)
class Segment:
    """Some of the users, looked at by themselves; always exploratory.

    Attributes:
        name: For instance ``history of 10 to 20``.
        users: How many.
        effects: Of each variant in the primary measure, not corrected.
    """

    name: str
    users: int
    effects: tuple[Effect, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One item of an order as a reader sees it; its id, for two items may have one title."""

    item_id: str
    title: str
    relevant: bool


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A case in which a variant and the control disagree much.

    Attributes:
        variant: Which variant.
        user_id: Whose case.
        history: Titles, oldest first, the last ones if it is long.
        query: What the user said; None if nothing.
        control_order, variant_order: Both orders, best first.
        overlap: Rank-biased overlap of the two, 1 for the same order (Webber, Moffat and Zobel 2010, p = 0.9).
        control_value, variant_value: In the primary measure.
    """

    variant: str
    user_id: str
    history: tuple[str, ...]
    query: str | None
    control_order: tuple[Shown, ...]
    variant_order: tuple[Shown, ...]
    overlap: float
    control_value: float
    variant_value: float


@dataclass(frozen=True, slots=True)
class PromptText:
    """What a variant's model reads.

    Attributes:
        variant: Its name.
        model: The model's name; empty for a baseline.
        strategy: The strategy's name; empty for a baseline.
        templates: Fingerprints by template.
        text: The prompt of one case, as it was sent; empty if traces were not kept or the variant asks no model.
        of: Whose case it is, for the same case is shown of every variant.
    """

    variant: str
    model: str
    strategy: str
    templates: Mapping[str, str]
    text: str
    of: str


@dataclass(frozen=True, slots=True)
class SelectionRound:
    """One round of the choice on the development users.

    Attributes:
        users: How many development users each contender had ranked by then.
        contenders: Who was in it.
        kept: Who went on.
    """

    users: int
    contenders: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VariantCost:
    """What a variant took in this experiment: sums over all its rankings, as if nothing had been kept from before.

    Attributes:
        variant: Its name.
        rankings: How many.
        failures: How many without a readable answer.
        calls, prompt_tokens, completion_tokens: Of all rankings.
        usd: USD; None where the price is not known.
        latency_p50, latency_p95: Seconds a ranking; None if nothing was asked.
    """

    variant: str
    rankings: int
    failures: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    latency_p50: float | None
    latency_p95: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a report shows.

    Attributes:
        name: The experiment's.
        question: What it is to answer, as its file says; None if it says nothing.
        created: When it was frozen (ISO time).
        manifest: The digest of users, candidates, orders and seeds that all variants share: 12 hexadecimal digits.
        protocol: How cases were made, in one sentence.
        control: The control's name.
        variants: The others that were compared, in the file's order.
        primary: The measure that decides.
        reading: ``fixed sample``, or ``always valid`` if it may be stopped at any time.
        planned, users, rankings: Users planned; users that count; rankings of each variant, repeats included.
        stopped_early: Why it was stopped before all planned users; None if it was not.
        alpha, power: Of the tests.
        wanted: The smallest difference that matters (`effect`), in the measure's unit; None if the file names none.
        decision: What to do.
        effects: By measure, the primary one first, then by the file's order of variants.
        guardrails, segments: In the file's order.
        variation: Where the primary measure's variance comes from; None without repeats.
        selection: The rounds on development users, whose figures are no results; empty if nothing was chosen.
        disagreements: The most extreme first, of every variant.
        prompts: What each variant's model reads, the control's first.
        costs: The control's first.
        forecast: What was forecast before anything was spent, a line each.
        method: How the numbers came about, a sentence each.
        notes: What a reader has to know, a sentence each.
    """

    name: str
    question: str | None
    created: str
    manifest: str
    protocol: str
    control: str
    variants: tuple[str, ...]
    primary: Measure
    reading: Reading
    planned: int
    users: int
    rankings: int
    stopped_early: str | None
    alpha: float
    power: float
    wanted: float | None
    decision: Decision
    effects: tuple[Effect, ...]
    guardrails: tuple[Guardrail, ...] = ()
    segments: tuple[Segment, ...] = ()
    variation: Variation | None = None
    selection: tuple[SelectionRound, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    prompts: tuple[PromptText, ...] = ()
    costs: tuple[VariantCost, ...] = ()
    forecast: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What was measured, the primary measure first."""
        return tuple(dict.fromkeys(effect.measure for effect in self.effects))

    def of(self, measure: Measure) -> tuple[Effect, ...]:
        """The effects in one measure."""
        return tuple(effect for effect in self.effects if effect.measure == measure)

    def effect(self, variant: str) -> Effect:
        """A variant's effect in the primary measure. Raises KeyError if there is none."""
        for effect in self.of(self.primary):
            if effect.variant == variant:
                return effect
        raise KeyError(variant)

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values; what is not known is null."""
        from llmrank.experiment.record import record_of

        return record_of(self)
