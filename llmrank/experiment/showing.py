"""The run that decides goes in; what people look at comes out: cases in which variants disagree, prompts, costs."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from llmrank.evaluation.cases import Case
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.measures.outcomes import Outcome, known_of, per_case
from llmrank.experiment.findings import Disagreement, PromptText, Shown, VariantCost
from llmrank.experiment.measured import Measured
from llmrank.experiment.spec import Spec

EACH_WAY = 4
"""How many cases are shown of those that a variant gains most in, and as many of those that it loses most in."""

HISTORY_SHOWN = 20
"""How many items of a history, the last ones, are shown."""

PERSISTENCE = 0.9
"""Of rank-biased overlap: about the first ten places make 86 % of it."""

_Pair: TypeAlias = tuple[Outcome, Outcome]


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], p: float = PERSISTENCE) -> float:
    """How alike two orders of the same items are: 1 for the same, near 0 where the tops share nothing.

    Extrapolated rank-biased overlap of two lists of one length (Webber, Moffat and Zobel 2010, "A similarity measure for
    indefinite rankings", equation 30 with l = s).

    Args:
        one, other: Ids, best first; what one has beyond the other's length does not count.
        p: How much the next place counts as against this one, between 0 and 1.
    """
    depth = min(len(one), len(other))
    if not depth:
        return 1.0
    seen_one: set[str] = set()
    seen_other: set[str] = set()
    total, shared = 0.0, 0
    for place in range(1, depth + 1):
        a, b = one[place - 1], other[place - 1]
        shared += (a == b) + (a != b and a in seen_other) + (a != b and b in seen_one)
        seen_one.add(a)
        seen_other.add(b)
        total += p ** (place - 1) * shared / place
    return (1 - p) * total + shared / depth * p**depth


def disagreements(spec: Spec, run: RunFolder, table: Measured) -> tuple[Disagreement, ...]:
    """For each variant the cases that it gains and loses most in, in turns; of equal ones those whose orders differ most.

    Only first samples are looked at, and only trials that count.
    """
    rows = len(table.users) // spec.repeats.samples
    found: list[Disagreement] = []
    for variant in table.variants:
        if variant == spec.base:
            continue
        chosen = _extremes(spec, run, variant, rows)
        found += [_disagreement(spec, run, variant, pair) for pair in chosen]
    return tuple(found)


def _extremes(spec: Spec, run: RunFolder, variant: str, rows: int) -> list[_Pair]:
    name = spec.measure
    gains: list[tuple[float, float, int, _Pair]] = []
    losses: list[tuple[float, float, int, _Pair]] = []
    for number, (control, own) in enumerate(_pairs(spec, run, variant)):
        if number == rows:
            break
        gap = own.values[name] - control.values[name]
        if math.isnan(gap):
            continue
        difference = 1 - rank_biased_overlap(control.order, own.order)
        for heap, size in ((gains, gap), (losses, -gap)):
            if size > 0:
                entry = (size, difference, -number, (control, own))
                (heapq.heappush if len(heap) < EACH_WAY else heapq.heappushpop)(heap, entry)
    ordered = [sorted(heap, key=lambda each: each[:3], reverse=True) for heap in (gains, losses)]
    turns: list[_Pair] = []
    for place in range(EACH_WAY):
        turns += [heap[place][3] for heap in ordered if place < len(heap)]
    return turns


def _pairs(spec: Spec, run: RunFolder, variant: str) -> Iterator[_Pair]:
    measures = [parse_measure(spec.measure)]
    known = known_of(run)
    outcomes = [per_case(run, name, measures, known=known) for name in (spec.base, variant)]
    return zip(*outcomes, strict=False)


def _disagreement(spec: Spec, run: RunFolder, variant: str, pair: _Pair) -> Disagreement:
    control, own = pair
    case = own.question
    return Disagreement(
        variant=variant,
        user_id=case.user_id,
        history=tuple(run.catalog.get(item_id).title for item_id in case.history[-HISTORY_SHOWN:]),
        query=case.query,
        control_order=_shown(run, control.order, case),
        variant_order=_shown(run, own.order, case),
        overlap=rank_biased_overlap(control.order, own.order),
        control_value=control.values[spec.measure],
        variant_value=own.values[spec.measure],
    )


def _shown(run: RunFolder, order: Sequence[str], case: Case, most: int = 20) -> tuple[Shown, ...]:
    relevant = set(case.relevant)
    return tuple(Shown(item_id, run.catalog.get(item_id).title, item_id in relevant) for item_id in order[:most])


def prompts(
    spec: Spec, run: RunFolder, variants: Sequence[str], templates: Mapping[str, Mapping[str, str]]
) -> tuple[PromptText, ...]:
    """What each variant's model reads for the first case.

    Args:
        spec: The experiment.
        run: The run that decides.
        variants: The control and those that are compared with it.
        templates: By variant, the fingerprints by template.
    """
    found = []
    for variant in variants:
        record = next(run.results(variant), None) or {}
        found.append(
            PromptText(
                variant=variant,
                model=str(record.get("model") or ""),
                strategy=str(record.get("strategy") or ""),
                templates=dict(templates.get(variant, {})),
                text=_first_prompt(record.get("trace") or []),
                of=str(record.get("user_id") or ""),
            )
        )
    return tuple(found)


def _first_prompt(trace: Sequence[Mapping[str, Any]]) -> str:
    """The first question of a ranking, as it was sent; how many there were is said at its end."""
    if not trace:
        return ""
    first = trace[0]
    if "messages" in first:
        text = "\n\n".join(f"[{each['role']}]\n{each['content']}" for each in first["messages"])
    else:
        text = f"{first['prefix']}\n\n[scored]\n" + "\n".join(map(str, first["continuations"]))
    return text + (f"\n\n[the first of {len(trace)} prompts of this ranking]" if len(trace) > 1 else "")


def costs(table: Measured) -> tuple[VariantCost, ...]:
    """What each variant's rankings took."""
    found = []
    for variant, each in table.variants.items():
        seconds = each.seconds[~np.isnan(each.seconds) & ((each.calls > 0) | each.failed)]
        p50, p95 = np.percentile(seconds, [50, 95]).tolist() if len(seconds) else (None, None)
        found.append(
            VariantCost(
                variant=variant,
                rankings=len(each.failed),
                failures=int(each.failed.sum()),
                calls=int(each.calls.sum()),
                prompt_tokens=int(each.prompt_tokens.sum()),
                completion_tokens=int(each.completion_tokens.sum()),
                usd=None if np.isnan(each.usd).any() else math.fsum(each.usd),
                latency_p50=p50,
                latency_p95=p95,
            )
        )
    return tuple(found)
