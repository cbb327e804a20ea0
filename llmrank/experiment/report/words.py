"""What was found goes in, the words for it come out: outcomes, verdicts, values with units. Every report says the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.statistics import Difference
from llmrank.evaluation.report.numbers import MISSING, count, dollars, fixed, percent, significant
from llmrank.evaluation.report.values import label, signed, value_text
from llmrank.evaluation.report.visible import shortened, visible
from llmrank.experiment.findings import Effect, Findings, Guardrail, Outcome, PromptText, Unit
from llmrank.experiment.report.forest import side
from llmrank.experiment.statistics.noninferiority import Verdict

NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

OUTCOMES: Mapping[Outcome, str] = {
    "ship": "Ship it",
    "keep": "Keep the control",
    "equivalent": "No difference that matters",
    "unclear": "Not clear yet",
    "invalid": "The experiment is not valid",
}
"""The outcome of an experiment in a few words."""

READINGS: Mapping[str, str] = {
    "fixed sample": "Fixed sample: the number of users was set before, and the figures are true for one look at the end, not "
    "for looks on the way.",
    "always valid": "Always valid: the figures are true at every moment, so the experiment may be looked at, and stopped, at "
    "any time.",
}
"""How the figures may be read."""

VERDICTS: Mapping[Verdict, str] = {"kept": "holds", "broken": "broken", "unclear": "unclear"}
"""What became of a guardrail."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One of the few figures that stand under the decision.

    Attributes:
        title: What it is.
        value: The figure.
        detail: What stands smaller below it.
    """

    title: str
    value: str
    detail: str = ""


def confidence(findings: Findings) -> str:
    """How much of such intervals is to hold the truth: ``95 %``."""
    return f"{100 * (1 - findings.alpha):g}{NBSP}%"


def interval_name(findings: Findings) -> str:
    """What the interval of a difference is; confidence sequences hold for all variants at once."""
    kind = "interval" if findings.reading == "fixed sample" else "confidence sequence"
    return f"{confidence(findings)} {kind}"


def points(measure: Measure) -> str:
    """The unit of differences, with a space before it; empty for a number without one."""
    return {"share": f"{NBSP}points", "bits": f"{NBSP}bits", "users": f"{NBSP}users"}.get(measure.unit, "")


def interval(measure: Measure, difference: Difference) -> str:
    """The interval of a difference, with signs and brackets; empty if it is not known."""
    if math.isnan(difference.low):
        return ""
    return f"[{signed(measure, difference.low)}, {signed(measure, difference.high)}]"


def value(measure: Measure, number: float) -> str:
    """A mean without its unit; a dash if it is not known."""
    return value_text(measure, None if math.isnan(number) else number)


def relative(effect: Effect) -> str:
    """The difference as a part of the control's mean: ``+9.3 %``."""
    return MISSING if math.isnan(effect.relative) else f"{with_sign(percent(abs(effect.relative)), effect.relative)}{NBSP}%"


def with_sign(text: str, number: float) -> str:
    """The text of a number's size with the number's sign before it; none where the text is all zeros."""
    return text if not text.strip("0.,") else ("+" if number > 0 else MINUS) + text


def wins(difference: Difference) -> str:
    """In how many cases the variant is higher, the same, lower."""
    return f"{count(difference.wins)} / {count(difference.ties)} / {count(difference.losses)}"


def amount(unit: Unit, number: float, *, sign: bool = False) -> str:
    """A guardrail's value, or with `sign` a difference of two: ``2.0 %``, ``+$0.0041``, ``1.30 s``; a dash if not known."""
    if not math.isfinite(number):
        return MISSING
    size = abs(number) if sign else number
    if unit == "share":
        text = percent(size)
    elif unit == "usd":
        text = dollars(abs(size))
    elif unit == "seconds":
        text = seconds(size)
    else:
        text = significant(size)
    unsigned = ("$" if unit == "usd" else "") + text
    if sign and text.strip("0.,"):
        unsigned = ("+" if number > 0 else MINUS) + unsigned
    ending = {"share": f"{NBSP}points" if sign else f"{NBSP}%", "seconds": f"{NBSP}s"}.get(unit, "")
    return unsigned + ending


def seconds(number: float | None) -> str:
    """A time in seconds without its unit: to the hundredth, and below a tenth to two significant digits."""
    return fixed(number, 2) if number is None or abs(number) >= 0.1 else significant(number, 2)


def change(guardrail: Guardrail, number: float) -> str:
    """A difference of a guardrail's value, with its sign; in percent of the control's value if its margin is a part of it."""
    if not guardrail.relative:
        return amount(guardrail.unit, number, sign=True)
    return f"{with_sign(percent(abs(number)), number)}{NBSP}%" if math.isfinite(number) else MISSING


def margin(guardrail: Guardrail) -> float:
    """How far a difference may reach, with the sign of the direction that is worse."""
    return math.copysign(guardrail.result.margin, 1 if guardrail.worse == "higher" else -1)


def verdict(guardrail: Guardrail) -> str:
    """What became of it, in words."""
    return VERDICTS[guardrail.result.verdict]


def better(measure: Measure, difference: Difference) -> str:
    """Where the interval of a difference lies: ``better``, ``worse``, ``higher``, ``lower`` (where neither is better), or
    ``unclear`` if it holds 0 or is not known.
    """
    return side(difference.low, difference.high, measure.direction)


def facts(findings: Findings) -> tuple[Fact, ...]:
    """The few figures that stand under the decision: the difference, users, guardrails, and how to read them."""
    measure = findings.primary
    found = []
    about = findings.decision.variant or (findings.variants[0] if len(findings.variants) == 1 else None)
    effects = {effect.variant: effect for effect in findings.of(measure)}
    if about in effects:
        effect = effects[about]
        found.append(
            Fact(
                f"{label(measure)}, {visible(about)} against {visible(findings.control)}",
                f"{signed(measure, effect.difference.mean)}{points(measure)}",
                f"{interval_name(findings)} {interval(measure, effect.difference) or MISSING}",
            )
        )
    elif findings.variants:
        found.append(Fact("Compared with the control", f"{len(findings.variants)} variants", visible(findings.control)))
    planned = f"of {findings.planned:,} planned" if findings.planned != findings.users else "as planned"
    found.append(Fact("Users", f"{findings.users:,}", f"{planned}; {findings.rankings:,} rankings of each variant"))
    if findings.guardrails:
        found.append(_guardrails(findings, about))
    found.append(Fact("Reading", findings.reading.capitalize(), READINGS[findings.reading].partition(": ")[2].capitalize()))
    return tuple(found)


def _guardrails(findings: Findings, about: str | None) -> Fact:
    those = [each for each in findings.guardrails if about is None or each.variant == about]
    holding = [each for each in those if each.result.verdict == "kept"]
    value = f"{len(holding)} of {len(those)} hold"
    if about is None:
        return Fact("Guardrails", value, "of all variants")
    others = [f"{visible(each.name)} {verdict(each)}" for each in those if each not in holding]
    return Fact("Guardrails", value, "; ".join(others))


def came(findings: Findings) -> tuple[str, ...]:
    """What came of what was forecast, a line each."""
    lines = [f"{findings.users:,} of {findings.planned:,} users, {findings.rankings:,} rankings of each variant"]
    if findings.costs:
        calls, asked, answered = (
            sum(getattr(each, name) for each in findings.costs) for name in ("calls", "prompt_tokens", "completion_tokens")
        )
        lines.append(f"{calls:,} calls, {asked:,} prompt tokens, {answered:,} completion tokens")
        prices = [each.usd for each in findings.costs]
        known = [price for price in prices if price is not None]
        part = (
            "" if len(known) == len(prices) else f" for {len(known)} of {len(prices)} variants; the others' price is not known"
        )
        lines.append(f"${dollars(sum(known))}{part}" if known else "cost: no price is known")
    detectable = [effect.detectable for effect in findings.of(findings.primary) if not math.isnan(effect.detectable)]
    if detectable:
        low, high = (value_text(findings.primary, each) for each in (min(detectable), max(detectable)))
        size = low if low == high else f"{low} to {high}"
        power = f"{100 * findings.power:g}{NBSP}%"
        lines.append(
            f"minimum detectable effect on {label(findings.primary)}: {size}{points(findings.primary)} (chance {power})"
        )
    return tuple(lines)


def asked_by(prompt: PromptText) -> str:
    """What asks this prompt, in a line: model, strategy, templates with their fingerprints."""
    parts = [
        part for part in (prompt.model and f"model {prompt.model}", prompt.strategy and f"strategy {prompt.strategy}") if part
    ]
    parts += [f"{template}@{fingerprint}" for template, fingerprint in prompt.templates.items()]
    return visible("; ".join(parts)) if parts else "asks no model"


def prompt_text(prompt: PromptText, room: int) -> str:
    """The prompt in at most about so many characters, all of them visible; line feeds stay."""
    # What cannot be seen becomes several characters, so it is cut before, to save time, and after.
    return shortened(visible(shortened(prompt.text, room), lines=True), room)


def no_diff(control: PromptText, variant: PromptText) -> str | None:
    """Why there is no diff to show, in a sentence; None if there is one."""
    name, other = visible(variant.variant), visible(control.variant)
    for prompt, who in ((control, other), (variant, name)):
        if not prompt.text:
            reason = "its prompts were not kept" if prompt.model else "it asks no model"
            return f"There is no prompt of {who} to show: {reason}."
    if control.text != variant.text:
        return None
    differing = [
        what
        for what, mine, its in (
            ("the model", control.model, variant.model),
            ("the strategy", control.strategy, variant.strategy),
        )
        if mine != its
    ]
    same = f"The prompt of {name} is that of {other}, letter for letter"
    if differing:
        return f"{same}: only {' and '.join(differing)} {'differ' if len(differing) > 1 else 'differs'}."
    return f"{same}, as are model and strategy: what differs is set elsewhere in the configuration."
