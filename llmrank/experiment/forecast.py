"""An experiment and what its variants' rankers forecast go in; what it will take, and what it can show at all, come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrank.evaluation.cases import read_cases
from llmrank.evaluation.measures.detectable import ALIKE, detectable_effect
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.measures.statistics import minimum_detectable_effect, paired_sd, sample_size
from llmrank.evaluation.report.values import label, unit, value_text
from llmrank.experiment.folder import ExperimentFolder
from llmrank.experiment.spec import SAMPLE_MARK, Spec
from llmrank.forecast import Forecast


@dataclass(frozen=True, slots=True)
class Plan:
    """What was known before anything was asked.

    Attributes:
        lines: For people.
        detectable: The smallest difference in the primary measure that so many users are likely to show between two variants
            that are alike, in the measure's unit; None where it cannot be told before.
        needed: How many users it takes to find the difference that matters (`effect`); None if the experiment names none.
    """

    lines: tuple[str, ...]
    detectable: float | None
    needed: int | None

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return {"lines": list(self.lines), "detectable": self.detectable, "needed": self.needed}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Plan:
        """The way back."""
        return cls(tuple(record["lines"]), record["detectable"], record["needed"])


def plan_of(spec: Spec, folder: ExperimentFolder, forecasts: Mapping[str, Forecast], race: Mapping[str, Forecast]) -> Plan:
    """The plan of an experiment.

    The detectable difference is that of the first step of Holm's correction: `alpha` divided by the number of variants that are
    compared with the control. The spread is that of a random order, and repeats of a user are not counted on.

    Args:
        spec: The experiment.
        folder: Its folder, frozen.
        forecasts: By ranker what it will take to rank for the users that decide; without baselines.
        race: What it will take to rank for all development users; empty if nothing is chosen.
    """
    users = folder.manifest["users"]
    compared = len(spec.others) if spec.selection is None else spec.selection.finalists
    repeats = spec.repeats.orders * spec.repeats.samples
    lines = [
        f"{users['confirmation']:,} users of {users['population']:,}"
        + (f", beside {users['development']:,} on whom variants are chosen" if users["development"] else "")
        + (f"; each is asked about {repeats} times a variant" if repeats > 1 else "")
        + f"; {compared} against {spec.base}"
    ]
    measure = parse_measure(spec.measure)
    effect = detectable_effect(measure, read_cases(folder.cases("confirmation")))
    detectable = needed = None
    if effect is not None:
        sd, alpha = paired_sd(effect.sd, ALIKE), spec.alpha / compared
        detectable = minimum_detectable_effect(sd, effect.users, alpha=alpha, power=spec.power)
        share = f"level {100 * spec.alpha:g} %" + (f", divided by {compared} comparisons" if compared > 1 else "")
        lines.append(
            f"detectable difference in {label(measure)}: {_said(measure, detectable)}, power {100 * spec.power:g} %, {share}, "
            f"between variants as alike as two prompts of one model (correlation {ALIKE:g}, spread of a random order)"
        )
        if spec.effect is not None:
            needed = sample_size(sd, spec.effect, alpha=alpha, power=spec.power)
            enough = (
                "there are enough" if needed <= effect.users else f"there are {effect.users:,}: a smaller one may stay unseen"
            )
            lines.append(f"the difference that matters, {_said(measure, spec.effect)}, takes about {needed:,} users; {enough}")
    for name, each in race.items():
        lines.append(f"{name}, on all development users: {'; '.join(_taken(each))}")
    if race:
        lines.append("halving asks most variants about fewer development users")
    for name, each in forecasts.items():
        chosen = spec.selection is not None and name.split(SAMPLE_MARK)[0] != spec.base
        lines.append(f"{name}{', if it is chosen' if chosen else ''}: {'; '.join(_taken(each))}")
    return Plan(tuple(lines), detectable, needed)


def _said(measure: Any, value: float) -> str:
    said = {"%": "points"}.get(unit(measure), unit(measure))
    return f"{value_text(measure, value)} {said}".strip()


def _taken(forecast: Forecast) -> Sequence[str]:
    return [line for line in forecast.lines() if not line.startswith(("assumed:", "differences in the primary"))]
