"""What was measured so far goes in; always-valid intervals, and whether they have decided, come out.

A p value of a test for a fixed sample, looked at again and again, soon finds something in nothing. A confidence sequence holds
the true difference at all times at once, so it may be looked at, and stopped at, whenever one likes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrank.evaluation.measures.measure import Measure, parse_measure
from llmrank.experiment.guarding import undecided
from llmrank.experiment.measured import Measured
from llmrank.experiment.spec import Spec
from llmrank.experiment.statistics.sequential import AsymptoticSequence, BoundedSequence


@dataclass(frozen=True, slots=True)
class Reading:
    """A confidence sequence of a difference, as it stands.

    Attributes:
        low, high: Its ends.
        p: The always-valid p value, not corrected.
    """

    low: float
    high: float
    p: float


def reading(spec: Spec, table: Measured, variant: str, measure: Measure) -> Reading:
    """The always-valid interval of a variant's difference from the control in a measure, one observation a user.

    The level is `alpha` divided by the number of variants (Bonferroni), so that all intervals hold at once.
    """
    ours, theirs = table.paired(variant, spec.base, measure.name)
    differences = ours - theirs
    differences = differences[~np.isnan(differences)]
    compared = len(table.variants) - 1
    confidence = 1 - spec.alpha / compared
    sequence: BoundedSequence | AsymptoticSequence
    if measure.unit == "share":
        sequence = BoundedSequence(-1.0, 1.0, confidence=confidence)
    else:
        sequence = AsymptoticSequence(confidence=confidence, expected_n=max(2, table.planned))
    sequence.extend(differences)
    return Reading(sequence.low, sequence.high, sequence.p)


def stopped_at(spec: Spec, table: Measured) -> str | None:
    """Why the experiment may end here; None if it is to go on.

    It ends when each variant is decided: its interval lies on one side of 0, or within the difference that matters. One that is
    better is decided when its guardrails are, too: to stop before would keep the control for want of users.
    """
    primary = parse_measure(spec.measure)
    reasons = []
    for variant in table.variants:
        if variant == spec.base:
            continue
        found = reading(spec, table, variant, primary)
        if found.low > 0:
            if undecided(spec, table, variant):
                return None
            reasons.append(f"{variant} is better")
        elif found.high < 0:
            reasons.append(f"{variant} is worse")
        elif spec.effect is not None and -spec.effect < found.low and found.high < spec.effect:
            reasons.append(f"{variant} does not differ by as much as matters")
        else:
            return None
    return f"after {table.count:,} users: {'; '.join(reasons)}"
