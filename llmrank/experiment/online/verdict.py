"""The checks and the effects of the primary metric go in; what to do, in a sentence with its reason, comes out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmrank.evaluation.report.numbers import joined
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.effects import MetricEffect
from llmrank.experiment.online.findings import Said, Traffic
from llmrank.experiment.online.numbers import (
    delta_interval,
    delta_text,
    interval,
    level,
    moment,
    p_equation,
    points,
    signed,
    value_text,
)
from llmrank.experiment.online.preferences import Interleaving
from llmrank.experiment.online.reading_options import ReadingOptions


def broken_split(traffic: Sequence[Traffic], p: float) -> Said:
    """What is said of an experiment whose variants have not got the users that they were due."""
    users = sum(each.users for each in traffic)
    worst = max(traffic, key=lambda each: abs(each.users - users * each.share))
    reason = (
        f"{visible(worst.variant)} has {worst.users:,} of {users:,} users ({100 * worst.users / users:.1f} %), and "
        f"{100 * worst.share:.1f} % were due (sample ratio, {p_equation(p)}). Who is missing is not missing by chance, "
        "so the variants' users differ in more than the variant. Find out where exposures are lost or doubled, and begin anew."
    )
    return "invalid", "Invalid: do not read the rest.", reason


def decide(control: str, effects: Sequence[MetricEffect], options: ReadingOptions, reached: int, ready: float) -> Said:
    """What is said of the primary metric.

    Args:
        control: Its name.
        effects: Of the primary metric.
        options: What it is read for.
        reached: How many users count, all of their window being over.
        ready: When the window of the last planned user is over, in Unix seconds; NaN if that user has not come yet.
    """
    early, late = options.levels(options.planned)
    better = [each for each in effects if _direction(each, early, late) > 0]
    worse = [each for each in effects if _direction(each, early, late) < 0]
    planned = options.planned
    done = planned is not None and reached >= planned
    if better:
        best = max(better, key=lambda each: each.metric.sign * _difference(each))
        return "ship", f"Ship {visible(best.variant)}: it is better than {visible(control)}.", _reason(best, early, late)
    if len(worse) == len(effects):
        verb = "is" if len(worse) == 1 else "are"
        least = max(worse, key=lambda each: each.metric.sign * _difference(each))
        sentence = f"Keep {visible(control)}: {_names(worse)} {verb} worse."
        return "keep", sentence, _reason(least, early, late)
    first = max(effects, key=lambda each: _or_least(each.metric.sign * _difference(each)))
    if done:
        return "keep", f"Keep {visible(control)}: no variant is shown to be better.", _reason(first, early, late)
    stop = f" {_names(worse)} may be stopped: worse than {visible(control)}." if worse else ""
    if planned is None:
        more = f"{reached:,} users count so far, and no number is planned."
    elif not math.isnan(ready):
        more = f"All {planned:,} planned users have come; the days of the last one are over on {moment(ready)}."
    else:
        more = f"{reached:,} of {planned:,} planned users count so far."
    seen = _reason(first, early, late) if first.any_time is not None and math.isfinite(first.any_time.low) else ""
    return "go on", "Go on: no difference is shown yet." + stop, f"{more} {seen}".strip()


def prefer(found: Sequence[Interleaving], control: str, options: ReadingOptions) -> Said:
    """What is said where lists were interleaved and nobody was exposed to one variant alone."""
    early, late = options.levels(options.planned_lists)
    shown = [(each, surely_preferred(each, early, late)) for each in found]
    better = [each for each, direction in shown if direction > 0 and each.control == control]
    if better:
        best = max(better, key=lambda each: each.delta)
        sentence = f"Ship {visible(best.variant)}: users prefer its items to those of {visible(control)}."
        return "ship", sentence, preference_reason(best, early, late)
    first = found[0]
    if all(direction < 0 for _, direction in shown):
        return "keep", f"Keep {visible(control)}: users prefer its items.", preference_reason(first, early, late)
    if all(each.fixed is not None for each in found):
        sentence = f"Keep {visible(control)}: no variant's items are shown to be preferred."
        return "keep", sentence, preference_reason(first, early, late)
    return "go on", "Go on: no preference is shown yet.", preference_reason(first, early, late)


def surely_preferred(each: Interleaving, early: float, late: float) -> int:
    """1 if users are shown to prefer the variant, -1 if the other one, 0 if neither."""
    if each.fixed is not None and each.fixed_adjusted <= late:
        return _sign(each.fixed.delta)
    if early and each.adjusted <= early:
        return _sign(each.low + each.high)
    return 0


def preference_reason(each: Interleaving, early: float, late: float) -> str:
    """The figures behind a preference."""
    if each.fixed is not None and not (early and each.adjusted <= early < each.fixed_adjusted):
        found, low, high, p = each.fixed.delta, each.fixed.low, each.fixed.high, each.fixed_adjusted
        how, users, alpha = "", each.fixed.users, late
    else:
        found, low, high, p, how, users, alpha = (
            each.delta,
            each.low,
            each.high,
            each.adjusted,
            "always-valid ",
            each.users,
            early,
        )
    if math.isnan(found):
        return "No click has earned a credit yet."
    ends = f" {delta_interval(low, high)}" if not math.isnan(low) else ""
    tested = f" ({how}{level(alpha)} interval), {how}{p_equation(p)}" if not math.isnan(p) else ""
    return (
        f"Of the lists with a credit {visible(each.variant)} wins {100 * (found + 0.5):.1f} %, a tie counting half: "
        f"{delta_text(found)} points{ends} beyond one half{tested}, from {users:,} users."
    )


def _direction(effect: MetricEffect, early: float, late: float) -> int:
    """1 if the variant is shown to be better, -1 if worse, 0 if neither."""
    if effect.fixed is not None and _by_plan(effect, late):
        return effect.metric.sign * _sign(effect.fixed.difference)
    if effect.any_time is not None and _by_now(effect, early):
        # The interval, not the estimate: it remembers all looks, and on which side of 0 it lies is what is shown.
        return effect.metric.sign * _sign(effect.any_time.low + effect.any_time.high)
    return 0


def _by_plan(effect: MetricEffect, late: float) -> bool:
    return effect.fixed is not None and effect.adjusted <= late


def _by_now(effect: MetricEffect, early: float) -> bool:
    return effect.any_time is not None and effect.any_time.adjusted <= early and math.isfinite(effect.any_time.low)


def _difference(effect: MetricEffect) -> float:
    if effect.fixed is not None:
        return effect.fixed.difference
    return math.nan if effect.any_time is None else effect.any_time.difference


def _reason(effect: MetricEffect, early: float, late: float) -> str:
    metric = effect.metric
    if effect.fixed is not None and (_by_plan(effect, late) or not _by_now(effect, early)):
        each, users = effect.fixed, effect.fixed.n
        values = each.value, each.control
        said = each.difference, each.low, each.high
        how, p, alpha = "", effect.adjusted, late
    elif effect.any_time is not None:
        users, values = effect.users + effect.control_users, (effect.value, effect.control)
        said = effect.any_time.difference, effect.any_time.low, effect.any_time.high
        how, p, alpha = "always-valid ", effect.any_time.adjusted, early
    else:
        return ""
    percent = "\N{NO-BREAK SPACE}%" if metric.kind == "conversion" else ""
    ends = interval(metric, said[1], said[2])
    return (
        f"{visible(metric.name)} of {visible(effect.variant)} is {value_text(metric, values[0])}{percent} instead of "
        f"{value_text(metric, values[1])}{percent}: {signed(metric, said[0])}{points(metric)}"
        f"{f' {ends}' if ends else ''} ({how}{level(alpha)} interval), {how}{p_equation(p)}, from {users:,} users."
    )


def _names(effects: Sequence[MetricEffect]) -> str:
    return joined([visible(each.variant) for each in effects])


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _or_least(value: float) -> float:
    return -math.inf if math.isnan(value) else value
