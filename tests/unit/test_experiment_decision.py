"""The decision of an experiment: that its sentence and its reason are right in every case."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest

from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.measures.statistics import Difference
from llmrank.experiment.decision import decide
from llmrank.experiment.findings import Decision, Effect, Guardrail
from llmrank.experiment.statistics.noninferiority import NonInferiority

NAN = math.nan


def effect(variant: str, mean: float, half: float = 0.02, *, p: float | None = None, users: int = 200) -> Effect:
    """A difference in NDCG@10 with a symmetric interval; p follows from whether it has 0."""
    found = (0.01 if abs(mean) > half else 0.4) if p is None else p
    difference = Difference(mean, mean - half, mean + half, half / 2, found, 1, 1, 1, users, users)
    return Effect(parse_measure("ndcg@10"), variant, 0.3, 0.3 + mean, difference, found, "holm", 0.03)


def guard(variant: str, verdict: str, name: str = "failures") -> Guardrail:
    """A guardrail of which only the verdict counts."""
    found = NonInferiority(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.1, cast(Any, verdict), 9, 9, "bootstrap")
    return Guardrail(name, variant, "share", False, "higher", found)


def decided(effects: list[Effect], guards: list[Guardrail] | None = None, **options: Any) -> Decision:
    """The decision against `plain`."""
    asked: dict[str, Any] = {"alpha": 0.05, "power": 0.8, "wanted": None, "reading": "fixed sample", **options}
    return decide("plain", effects, guards or [], **asked)


def test_of_several_better_ones_the_best_safe_one_is_shipped_and_the_others_are_told() -> None:
    """Who reads that the second best is shipped reads why the best is not."""
    found = decided([effect("a", 0.09), effect("b", 0.05)], [guard("a", "broken", "cost"), guard("b", "kept")])
    assert (found.outcome, found.variant) == ("ship", "b")
    assert "a ranks better than the control, too, but loses too much in cost" in found.reason
    assert found.sentence == "Ship b: it is better than plain."


def test_what_more_users_may_clear_stands_before_what_is_broken() -> None:
    """The control stays "for now" as long as any better variant is not shown to break a guardrail."""
    found = decided([effect("a", 0.09), effect("b", 0.05)], [guard("a", "broken", "cost"), guard("b", "unclear")])
    assert (found.outcome, found.variant) == ("keep", "b")
    assert found.sentence == "Keep plain for now: b ranks better, but failures may be worse than allowed."
    assert "a ranks better than the control, too, but loses too much in cost" in found.reason


def test_a_broken_guardrail_is_named_though_others_are_unclear() -> None:
    """One is enough."""
    found = decided([effect("a", 0.09)], [guard("a", "unclear"), guard("a", "broken", "cost")])
    assert found.sentence == "Keep plain: a ranks better, but loses too much in cost."


def test_no_difference_between_few_users_is_no_equivalence() -> None:
    """Five users with the same values rule little out; five hundred do."""
    tie = {"half": 0.0, "p": 1.0}
    few = decided([effect("a", 0.0, users=5, **tie)], wanted=0.03)
    assert few.outcome == "unclear"
    assert "no difference to any user" in few.reason
    assert decided([effect("a", 0.0, users=500, **tie)], wanted=0.03).outcome == "equivalent"


def test_worse_ones_are_called_worse_and_a_mixture_is_not() -> None:
    """Negative differences ship nothing, whatever their p."""
    assert decided([effect("a", -0.05), effect("b", -0.09)]).sentence == "Keep plain: a and b are worse."
    mixed = decided([effect("a", -0.05), effect("b", 0.001)])
    assert (mixed.outcome, mixed.sentence) == ("unclear", "Keep plain: no variant is shown to be better.")


def test_differences_are_in_points() -> None:
    """A difference of two percentages is told in points."""
    found = decided([effect("a", 0.01)], wanted=0.02)
    assert "(2.0 points)" in found.reason
    assert "3.0 points or more" in decided([effect("a", 0.01)]).reason


@pytest.mark.parametrize("wanted", [None, 0.02, 0.2])
def test_an_always_valid_reading_promises_no_power_of_a_fixed_sample(wanted: float | None) -> None:
    """Its intervals are wider, so that what a fixed sample would have seen says nothing of it."""
    found = decided([effect("a", 0.01, 0.3)], wanted=wanted, reading="always valid")
    assert "likely" not in found.reason
    assert "probably" not in found.reason


def test_what_is_defined_for_nobody_decides_nothing() -> None:
    """No NaN reaches a reader."""
    nothing = Difference(NAN, NAN, NAN, NAN, NAN, 0, 0, 0, 0, 0)
    found = decided([Effect(parse_measure("ndcg@10"), "a", NAN, NAN, nothing, NAN, "holm")], wanted=0.03)
    assert found.outcome == "unclear"
    assert "nan" not in found.reason.casefold()
