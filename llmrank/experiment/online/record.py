"""An OnlineReading goes in, its JSON values come out. What must not be read yet is not among them."""

from __future__ import annotations

import math
from typing import Any

from llmrank.experiment.online.effects import MetricEffect
from llmrank.experiment.online.findings import OnlineReading
from llmrank.experiment.online.preferences import Interleaving
from llmrank.experiment.online.variant_values import VariantValue


def record(reading: OnlineReading) -> dict[str, Any]:
    """All of a reading; what is not known, or must not be read yet, is null."""
    options = reading.options
    return {
        "experiment": reading.name,
        "control": reading.control,
        "verdict": reading.verdict,
        "decision": reading.decision,
        "reason": reading.reason,
        "users": {each.variant: each.users for each in reading.traffic},
        "shares": {each.variant: each.share for each in reading.traffic},
        "moved": reading.moved,
        "sample_ratio_p": finite(reading.sample_ratio_p),
        "alpha": options.alpha,
        "levels": dict(zip(("any_time", "planned"), options.levels(options.planned), strict=True)),
        "planned": options.planned,
        "planned_reached": reading.planned,
        "begin": finite(reading.begin),
        "end": finite(reading.end),
        "metrics": {
            metric.name: {
                "kind": metric.kind,
                "primary": metric.name == options.primary,
                "better": metric.better,
                "window_days": metric.window_days,
                "values": {value.variant: _value(value) for value in reading.values_of(metric)},
                "variants": {effect.variant: _effect(effect) for effect in effects},
            }
            for metric in options.ordered
            if (effects := reading.of(metric))
        },
        "interleaved_planned": options.planned_lists,
        "interleaved_levels": dict(zip(("any_time", "planned"), options.levels(options.planned_lists), strict=True)),
        "interleaving": [_interleaving(each) for each in reading.interleavings],
        "events": reading.events,
        "left_out": [{"what": each.what, "count": each.count, "why": each.why} for each in reading.left_out],
        "notes": list(reading.notes),
    }


def _value(value: VariantValue) -> dict[str, Any]:
    plan = value.fixed
    return {
        "users": value.users,
        "events": value.events,
        "value": finite(value.value),
        "any_time": {"ci": [value.low, value.high]} if math.isfinite(value.low) else None,
        "planned": plan and {"users": plan.users, "value": finite(plan.value), "ci": [finite(plan.low), finite(plan.high)]},
    }


def _effect(effect: MetricEffect) -> dict[str, Any]:
    now, plan = effect.any_time, effect.fixed
    return {
        "value": finite(effect.value),
        "control": finite(effect.control),
        "users": effect.users,
        "control_users": effect.control_users,
        "variance_reduction": None if effect.reduction is None else finite(effect.reduction),
        "any_time": now
        and {
            "difference": finite(now.difference),
            "ci": [finite(now.low), finite(now.high)],
            "p": finite(now.p),
            "p_adjusted": finite(now.adjusted),
        },
        "planned": plan
        and {
            "value": finite(plan.value),
            "control": finite(plan.control),
            "difference": finite(plan.difference),
            "ci": [finite(plan.low), finite(plan.high)],
            "p": finite(plan.p),
            "p_adjusted": finite(effect.adjusted),
            "users": plan.n_value,
            "control_users": plan.n_control,
        },
    }


def _interleaving(each: Interleaving) -> dict[str, Any]:
    plan = each.fixed
    return {
        "variant": each.variant,
        "control": each.control,
        "lists": each.impressions,
        "users": each.users,
        "wins": each.wins,
        "ties": each.ties,
        "losses": each.losses,
        "delta": finite(each.delta),
        "any_time": None
        if math.isnan(each.p)
        else {"ci": [each.low, each.high], "p": each.p, "p_adjusted": finite(each.adjusted)},
        "planned": plan
        and {
            "delta": finite(plan.delta),
            "ci": [finite(plan.low), finite(plan.high)],
            "p": finite(plan.p),
            "p_adjusted": finite(each.fixed_adjusted),
            "users": plan.users,
        },
    }


def finite(value: float) -> float | None:
    """The number for JSON; None for one that is not known or infinite."""
    return value if math.isfinite(value) else None
