"""Findings of made-up experiments, as like real ones as their reports need: clear, unclear, broken and hostile ones."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.statistics import Difference
from llmrank.experiment.findings import (
    Decision,
    Disagreement,
    Effect,
    Findings,
    Guardrail,
    PromptText,
    Segment,
    SelectionRound,
    Shown,
    VariantCost,
)
from llmrank.experiment.statistics.noninferiority import NonInferiority, Verdict
from llmrank.experiment.statistics.variance import Variation
from llmrank.lint import sample_values
from llmrank.template import Templates

NDCG, NDCG5, HIT, NOVELTY = Measure("ndcg", 10), Measure("ndcg", 5), Measure("hit", 1), Measure("novelty", 10)
HOSTILE = "<script>document.title = 'taken'</script><img src=http://127.0.0.1:9/a.png onerror=alert(1)>\u202e\x07"

TITLES = (
    "The Fugitive (1993)",
    "Blade Runner (1982)",
    "Alien (1979)",
    "Toy Story (1995)",
    "Fargo (1996)",
    "The Empire Strikes Back (1980)",
    "Dr. Strangelove or: How I Learned to Stop Worrying and Love the Bomb (1963)",
    "Contact (1997)",
    "Men in Black (1997)",
    "The English Patient (1996)",
    "Twelve Monkeys (1995)",
    "Star Trek: First Contact (1996)",
    "Scream (1996)",
    "The Godfather (1972)",
    "Raising Arizona (1987)",
    "Jerry Maguire (1996)",
    "Heat (1995)",
    "Vertigo (1958)",
    "Clueless (1995)",
    "Apollo 13 (1995)",
)


def difference(mean: float, reach: float, *, n: int = 400, p: float | None = None) -> Difference:
    """A difference with a symmetrical interval; its counts of wins go with its mean."""
    found = p if p is not None else math.erfc(abs(mean) / reach * 1.96 / math.sqrt(2)) if reach else 1.0
    wins = int(n * min(0.6, max(0.05, 0.25 + 2 * mean)))
    losses = int(n * min(0.6, max(0.05, 0.25 - 2 * mean)))
    return Difference(mean, mean - reach, mean + reach, reach / 1.96, found, wins, n - wins - losses, losses, n, n)


def effect(
    measure: Measure, variant: str, mean: float, reach: float, *, control: float = 0.342, n: int = 400, correction: Any = "holm"
) -> Effect:
    """An effect with all its fields."""
    gap = difference(mean, reach, n=n)
    adjusted = math.nan if correction == "none" else min(1.0, gap.p * 1.5)
    return Effect(measure, variant, control, control + mean, gap, adjusted, correction, 1.43 * reach)


def rail(
    name: str, variant: str, unit: Any, value: float, control: float, reach: float, margin: float, *, relative: bool = False
) -> Guardrail:
    """A guardrail; less is worse if its name begins with Coverage. `reach` is from the difference to its bounds."""
    worse: Any = "lower" if name.startswith("Coverage") else "higher"
    gap = value / control - 1 if relative else value - control
    low, high = gap - reach, gap + reach
    best, worst = (low, high) if worse == "higher" else (-high, -low)
    verdict: Verdict = "kept" if worst < margin else "broken" if best > margin else "unclear"
    bound = high if worse == "higher" else low
    result = NonInferiority(value, control, gap, bound, low, high, margin, verdict, 400, 400, "bootstrap")
    return Guardrail(name, variant, unit, relative, worse, result)


def guardrails(
    variant: str, *, cost: float = 0.000212, latency: float = 1.29, coverage: float = 0.412
) -> tuple[Guardrail, ...]:
    """The four that an experiment usually has."""
    return (
        rail("failures", variant, "share", 0.0075, 0.005, 0.006, 0.02),
        rail("cost", variant, "usd", cost, 0.000205, 0.02, 0.1, relative=True),
        rail("latency (p95)", variant, "seconds", latency, 1.27, 0.06, 0.1, relative=True),
        rail("Coverage@10", variant, "share", coverage, 0.42, 0.024, 0.05, relative=True),
    )


def orders(seed: int) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
    """Two orders of the same items."""
    shown = [Shown(str(place), title, place in (seed % 20, (seed + 7) % 20)) for place, title in enumerate(TITLES)]
    return tuple(shown), tuple(sorted(shown, key=lambda item: (int(item.item_id) * (2 * seed + 3) + seed) % 23))


def disagreement(variant: str, seed: int, query: str | None = None) -> Disagreement:
    """A case."""
    control, other = orders(seed)
    return Disagreement(variant, str(400 + seed), TITLES[:12], query, control, other, 0.21, 0.0, 0.6309)


def prompt(variant: str, template: str, model: str = "qwen2.5-0.5b") -> PromptText:
    """What one of the packaged templates makes for the sample user."""
    found = Templates().get(template)
    rendered = found.render(sample_values(found, {}))
    assert not isinstance(rendered, str)
    text = "\n".join(f"[{message.role}]\n{message.content}\n" for message in rendered)
    return PromptText(variant, model, "listwise", {found.name: found.fingerprint}, text, "405")


def cost(variant: str, *, usd: float | None = 0.085, failures: int = 2) -> VariantCost:
    """What 400 rankings take."""
    return VariantCost(variant, 400, failures, 404, 251_330, 24_110, usd, 0.81, 1.27)


def ship() -> Findings:
    """A variant that is better, all of whose guardrails hold."""
    others = (
        effect(NDCG5, "recency", 0.031, 0.026, control=0.281, correction="bh"),
        effect(HIT, "recency", 0.02, 0.031, control=0.152, correction="bh"),
        effect(NOVELTY, "recency", -0.11, 0.06, control=6.12, correction="bh"),
    )
    segments = tuple(
        Segment(name, users, (effect(NDCG, "recency", mean, reach, n=users, correction="none"),))
        for name, users, mean, reach in (
            ("new users (no history)", 41, 0.002, 0.081),
            ("history of 1 to 9", 96, 0.021, 0.052),
            ("history of 10 to 49", 171, 0.044, 0.037),
            ("history of 50 or more", 92, 0.057, 0.054),
        )
    )
    return Findings(
        name="recency",
        question="Does telling the model what is recent help?",
        created="2026-11-28T09:30:00+00:00",
        manifest="3f9a1c0b77de",
        protocol="The last choice of each of 400 users (ML-100K, leave one out), 20 sampled candidates, shuffled.",
        control="plain",
        variants=("recency",),
        primary=NDCG,
        reading="fixed sample",
        planned=400,
        users=400,
        rankings=400,
        stopped_early=None,
        alpha=0.05,
        power=0.8,
        wanted=0.03,
        decision=Decision(
            "ship",
            "recency",
            "Ship recency: it ranks better than plain, and every guardrail holds.",
            "NDCG@10 is higher by 3.6 points (95 % interval +1.2 to +6.0, p = 0.004 after Holm's correction), from 400 users.",
        ),
        effects=(effect(NDCG, "recency", 0.036, 0.024), *others),
        guardrails=guardrails("recency"),
        segments=segments,
        disagreements=tuple(
            disagreement("recency", seed, "something like Alien, but funny" if seed == 2 else None) for seed in range(1, 5)
        ),
        prompts=(prompt("plain", "listwise/sequential"), prompt("recency", "listwise/recency")),
        costs=(cost("plain"), cost("recency", usd=0.0868, failures=3)),
        forecast=(
            "800 rankings, 808 calls, about 500,000 prompt tokens and 48,000 completion tokens",
            "$0.16 to $0.19",
            "minimum detectable effect on NDCG@10: 3.3 points at a chance of 80 %",
        ),
        method=(
            "Differences are paired by user; intervals are BCa bootstrap intervals of 95 % (2,000 resamples, seed 0).",
            "p: two-sided sign-flip test over users (9,999 flips, seed 0).",
            "A ranking without a readable answer counts 0 in every measure of relevance.",
        ),
        notes=("3 of 400 answers of recency and 2 of plain could not be read; they count as failures.",),
    )


def unclear() -> Findings:
    """Too few users, stopped early under an always-valid reading, without a diff: only the model differs."""
    base = ship()
    same = base.prompts[0]
    return replace(
        base,
        name="bigger model",
        question=None,
        variants=("1.5b",),
        reading="always valid",
        users=112,
        rankings=224,
        stopped_early="the budget of $0.50 was reached after 112 users",
        decision=Decision(
            "unclear",
            "1.5b",
            "112 users are too few to tell whether 1.5b ranks better than plain.",
            "NDCG@10 differs by +1.4 points, but anything from −4.1 to +6.9 is possible (95 % confidence sequence, 112 users).",
        ),
        effects=(effect(NDCG, "1.5b", 0.014, 0.055, n=112),),
        guardrails=guardrails("1.5b", cost=0.000222, latency=1.38),
        segments=(),
        prompts=(same, replace(same, variant="1.5b", model="qwen2.5-1.5b")),
        costs=(cost("plain", usd=None), cost("1.5b", usd=None)),
        disagreements=(disagreement("1.5b", 3),),
        notes=(),
    )


def broken() -> Findings:
    """Better, but too dear."""
    base = ship()
    return replace(
        base,
        name="explain first",
        decision=Decision(
            "keep",
            "recency",
            "Keep plain: recency ranks better, but costs 31 % more, and 10 % is allowed.",
            "NDCG@10 is higher by 3.6 points (95 % interval +1.2 to +6.0), from 400 users; cost is 33 % higher at worst.",
        ),
        guardrails=(
            rail("cost", "recency", "usd", 0.000268, 0.000205, 0.02, 0.1, relative=True),
            *(each for each in guardrails("recency") if each.name != "cost"),
        ),
    )


def eight() -> Findings:
    """Eight variants, chosen from sixteen."""
    base = ship()
    names = tuple(
        f"v{number} {word}"
        for number, word in enumerate(("recency", "in-context", "nir", "short", "polite", "genre", "json", "numbered"), 1)
    )
    means = (0.036, 0.022, -0.041, 0.004, -0.002, 0.051, -0.012, 0.009)
    everyone = tuple(f"v{number}" for number in range(9, 17))
    templates = ("recency", "in-context", "sequential", "cold-start", "sequential", "recency", "sequential", "recency")
    return replace(
        base,
        name="eight ways to ask",
        variants=names,
        decision=Decision(
            "ship",
            names[5],
            f"Ship {names[5]}: of eight variants it is the best that is shown to be better than plain.",
            "NDCG@10 is higher by 5.1 points (95 % interval +2.7 to +7.5, p = 0.001 after Holm's correction), from 400 users.",
        ),
        effects=tuple(
            effect(measure, name, mean * factor, 0.024, control=control, correction="holm" if measure == NDCG else "bh")
            for measure, factor, control in ((NDCG, 1, 0.342), (NDCG5, 0.9, 0.281), (HIT, 0.7, 0.152), (NOVELTY, 3, 6.1))
            for name, mean in zip(names, means, strict=True)
        ),
        guardrails=tuple(
            sorted(
                (
                    each
                    for number, name in enumerate(names)
                    for each in guardrails(
                        name,
                        cost=0.000195 + 0.000011 * ((3 * number) % 8 - 1),
                        latency=1.27 + 0.02 * number,
                        coverage=0.43 - 0.004 * number,
                    )
                ),
                key=lambda each: ("failures", "cost", "latency (p95)", "Coverage@10").index(each.name),
            )
        ),
        segments=tuple(
            Segment(
                name,
                users,
                tuple(
                    effect(NDCG, each, mean, 0.04, n=users, correction="none") for each, mean in zip(names, means, strict=True)
                ),
            )
            for name, users in (("history of 1 to 9", 137), ("history of 10 or more", 263))
        ),
        variation=Variation(
            0.061,
            0.0007,
            0.0052,
            None,
            0.0121,
            None,
            0.0204,
            0.0953,
            7200,
            400,
            9,
            ("Order and sampling cannot be told apart: each order was asked once.",),
        ),
        selection=(
            SelectionRound(25, names + everyone, names + everyone[:4]),
            SelectionRound(50, names + everyone[:4], names),
        ),
        disagreements=tuple(disagreement(name, seed) for seed, name in enumerate(names, 1)),
        prompts=(
            base.prompts[0],
            *(prompt(name, f"listwise/{template}") for name, template in zip(names, templates, strict=True)),
        ),
        costs=(cost("plain"), *(cost(name, failures=number) for number, name in enumerate(names))),
    )


def hostile() -> Findings:
    """Every foreign text is an attack, and whatever may be unknown is unknown."""
    base = ship()
    control, other = ((Shown("1", HOSTILE, True), Shown("2", "x" * 500, False), Shown("3", "", False)) for _ in range(2))
    nothing = Difference(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0, 0, 0, 0)
    text = f"[user]\n{HOSTILE}\n\n" + "y" * 3000 + "\n" + "\n".join(f"line {number}" for number in range(60))
    return replace(
        base,
        name=HOSTILE,
        question=HOSTILE,
        created=HOSTILE,
        manifest=HOSTILE,
        protocol=HOSTILE,
        control=f"plain {HOSTILE}",
        variants=(f"mine {HOSTILE}", "averylongnamewithoutanyspaceinitwhichmustbebrokensomewhere_v2"),
        stopped_early=HOSTILE,
        wanted=None,
        decision=Decision("invalid", None, f"{HOSTILE}: more users got plain than chance explains.", HOSTILE),
        effects=(
            Effect(NDCG, f"mine {HOSTILE}", math.nan, math.nan, nothing, math.nan, "holm"),
            effect(NDCG, "averylongnamewithoutanyspaceinitwhichmustbebrokensomewhere_v2", 0.0, 0.0),
        ),
        guardrails=(
            Guardrail(
                HOSTILE,
                f"mine {HOSTILE}",
                "value",
                False,
                "higher",
                NonInferiority(math.nan, 0.0, math.nan, math.nan, math.nan, math.nan, 0.0, "unclear", 0, 0, "score"),
            ),
            rail("failures", f"mine {HOSTILE}", "share", 0.9, 0.0, 0.05, 0.02),
        ),
        segments=(Segment(HOSTILE, 0, (Effect(NDCG, f"mine {HOSTILE}", math.nan, math.nan, nothing, math.nan, "none"),)),),
        selection=(SelectionRound(10, (HOSTILE, "b"), (HOSTILE,)),),
        disagreements=(Disagreement(f"mine {HOSTILE}", HOSTILE, (HOSTILE, "z" * 400), HOSTILE, control, other, 0.0, 0.0, 1.0),),
        prompts=(
            PromptText(f"plain {HOSTILE}", HOSTILE, HOSTILE, {HOSTILE: "0" * 12}, text, HOSTILE),
            PromptText(f"mine {HOSTILE}", HOSTILE, HOSTILE, {HOSTILE: "1" * 12}, text.replace("line 30", HOSTILE), HOSTILE),
        ),
        costs=(VariantCost(f"plain {HOSTILE}", 0, 0, 0, 0, 0, None, None, None),),
        forecast=(HOSTILE,),
        method=(HOSTILE,),
        notes=(HOSTILE,),
    )


ALL = {"ship": ship, "unclear": unclear, "broken": broken, "eight": eight, "hostile": hostile}
