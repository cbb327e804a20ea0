"""Differences and guardrails go in, one decision with its reason comes out: what to do, for who reads a single sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmrank.evaluation.measures.statistics import sample_size
from llmrank.evaluation.report.numbers import joined
from llmrank.evaluation.report.values import label, signed, unit, value_text
from llmrank.experiment.findings import Decision, Effect, Guardrail, Reading


def decide(
    control: str,
    effects: Sequence[Effect],
    guardrails: Sequence[Guardrail],
    *,
    alpha: float,
    power: float,
    wanted: float | None,
    reading: Reading,
) -> Decision:
    """The decision.

    A variant is shipped if its corrected p value is at most `alpha`, its difference is above 0, and every guardrail is shown to
    hold; of several the one with the largest difference. A guardrail that is not shown to hold keeps the control: what was not
    shown is not promised.

    Args:
        control: Its name.
        effects: Of the primary measure.
        guardrails: Of all variants.
        alpha, power, wanted: As in `Findings`.
        reading: Which p values and intervals these are.
    """
    better = sorted((each for each in effects if _significant(each, alpha, 1)), key=lambda each: -each.difference.mean)
    watched = {each.variant: [guard for guard in guardrails if guard.variant == each.variant] for each in effects}
    safe = [each for each in better if all(guard.result.verdict == "kept" for guard in watched[each.variant])]
    if safe:
        best = safe[0]
        held = watched[best.variant]
        kept = "" if not held else " Its guardrail holds." if len(held) == 1 else f" All {len(held)} guardrails hold."
        too_small = wanted is not None and best.difference.high < wanted
        small = " The gain is smaller than what was said to matter." if too_small else ""
        passed = "".join(_passed(each, watched[each.variant]) for each in better[: better.index(best)])
        reason = _reason(best, reading) + kept + small + passed
        return Decision("ship", best.variant, f"Ship {best.variant}: it is better than {control}.", reason)
    if better:
        # One that more users may still clear stands before one that is shown to lose too much.
        open_ = [each for each in better if all(guard.result.verdict != "broken" for guard in watched[each.variant])]
        best = (open_ or better)[0]
        passed = "".join(_passed(each, watched[each.variant]) for each in better if each is not best)
        broken = [guard.name for guard in watched[best.variant] if guard.result.verdict == "broken"]
        unclear = [guard.name for guard in watched[best.variant] if guard.result.verdict == "unclear"]
        if broken:
            sentence = f"Keep {control}: {best.variant} ranks better, but loses too much in {joined(broken)}."
        else:
            sentence = f"Keep {control} for now: {best.variant} ranks better, but {joined(unclear)} may be worse than allowed."
        return Decision("keep", best.variant, sentence, _reason(best, reading) + passed)
    if wanted is not None and all(_within(each, wanted, alpha, reading) for each in effects):
        nearest = max(effects, key=lambda each: each.difference.mean)
        names = joined([each.variant for each in effects])
        sentence = f"Keep {control}: no difference that matters is left possible for {names}."
        return Decision("equivalent", nearest.variant, sentence, _reason(nearest, reading))
    if all(_significant(each, alpha, -1) for each in effects):
        best = max(effects, key=lambda each: each.difference.mean)
        names = joined([each.variant for each in effects])
        verb = "is" if len(effects) == 1 else "are"
        return Decision("keep", best.variant, f"Keep {control}: {names} {verb} worse.", _reason(best, reading))
    best = max(effects, key=lambda each: each.difference.mean if not math.isnan(each.difference.mean) else -math.inf)
    sentence = f"Keep {control}: no variant is shown to be better."
    more = _more(best, alpha / len(effects), power, wanted, reading)
    return Decision("unclear", best.variant, sentence, _reason(best, reading) + more)


def _significant(effect: Effect, alpha: float, sign: int) -> bool:
    return effect.adjusted <= alpha and sign * effect.difference.mean > 0


def _within(effect: Effect, wanted: float, alpha: float, reading: Reading) -> bool:
    """Whether a difference that matters is ruled out.

    Where no user's value differs, a bootstrap interval has no width however few users there are. But if a part q of all users
    has other values, none of n has with the chance (1 - q)^n: larger parts than 1 - alpha^(1/n) are ruled out, and a share
    differs by 1 at most.
    """
    each = effect.difference
    if reading == "fixed sample" and each.low == each.high == 0.0:
        return effect.measure.unit == "share" and 1 - alpha ** (1 / each.clusters) < wanted
    return -wanted < each.low and each.high < wanted


def _passed(effect: Effect, guards: Sequence[Guardrail]) -> str:
    """Why a variant that is better, too, is not the one."""
    broken = [guard.name for guard in guards if guard.result.verdict == "broken"]
    unclear = [guard.name for guard in guards if guard.result.verdict == "unclear"]
    if broken:
        return f" {effect.variant} ranks better than the control, too, but loses too much in {joined(broken)}."
    return f" {effect.variant} ranks better than the control, too, but {joined(unclear)} may be worse than allowed."


def _reason(effect: Effect, reading: Reading) -> str:
    measure, each = effect.measure, effect.difference
    if not each.clusters:
        return f"{label(measure)} of {effect.variant} and of the control is defined for no user together."
    interval = f" [{signed(measure, each.low)}, {signed(measure, each.high)}]" if not math.isnan(each.low) else ""
    how = "always-valid p" if reading == "always valid" else "p"
    p = "< 0.001" if effect.adjusted < 0.001 else f"= {effect.adjusted:.3f}"
    points = " points" if unit(measure) == "%" else ""
    return (
        f"{label(measure)} of {effect.variant} is {value_text(measure, effect.variant_mean)} instead of "
        f"{value_text(measure, effect.control_mean)}: {signed(measure, each.mean)}{points}{interval}, {how} {p}, "
        f"from {each.clusters:,} users."
    )


def _more(effect: Effect, alpha: float, power: float, wanted: float | None, reading: Reading) -> str:
    """How many users it would take, or what these could have shown."""
    sd = effect.difference.sd
    if math.isnan(sd):
        return ""
    if sd == 0:
        return "" if effect.difference.mean else " It made no difference to any user."
    sizes = {"%": "points"}.get(unit(effect.measure), unit(effect.measure))
    if wanted is None:
        if reading == "always valid":  # what a fixed sample shows is less than what is always valid does
            return ""
        said = f"{value_text(effect.measure, effect.detectable)} {sizes}".strip()
        return f" So many users are likely to show a difference of {said} or more."
    users = sample_size(sd, wanted, alpha=alpha, power=power)
    said = f"{value_text(effect.measure, wanted)} {sizes}".strip()
    if users > effect.difference.clusters:
        least = "more than" if reading == "always valid" else "about"
        return f" To find the difference that matters ({said}) it takes {least} {users:,} users."
    if reading == "always valid":
        return ""
    return f" A difference of {said} would probably have been seen with so many users."
