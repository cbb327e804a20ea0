"""A number of rankers and cases goes in, the folder of a made-up evaluation run comes out, with all that a real one may hold.

The titles, answers and prompts are as hostile as a shop's data can be; every status, kind of trace and missing part occurs.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from llmrank.errors import BackendError, RateLimitError, ServerError
from llmrank.evaluation.cases import Case, write_cases
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.records import full_record
from llmrank.files import write_whole
from llmrank.labels import make_labels
from llmrank.types import (
    Completion,
    ContinuationScore,
    Cut,
    Exchange,
    Item,
    Message,
    Prompt,
    RankedItem,
    Ranking,
    Status,
    Usage,
)

METRICS = ["ndcg@1", "ndcg@5", "ndcg@10", "hit@10", "mrr", "coverage@10", "novelty@10"]

SCRIPT = "</script><img src=x onerror=alert(1)>"
NASTY_TITLES = [
    SCRIPT,
    "Evil \u202eReversed\u202c (1999)",
    "Nul\x00 and bell\x07 and zero\u200bwidth",
    "Long " + "very " * 58 + "long",
    "🎬👩‍👩‍👧 Family \U0001f1e9\U0001f1ea",
    "千と千尋の神隠し",
    "{{ 7 * 7 }} {% raw %} &amp; <b>bold</b>",
    "'); DROP TABLE items;--",
    "مرحبا بالعالم",
    "Line\u2028separator and\r\nbreaks\tand tabs",
    "[A] > [B] | pipes | `ticks` *stars* _lines_",
    "half \ud83d pair",
]

RANKERS: dict[str, dict[str, Any]] = {
    # skill: how much better than chance; bias: how much the order shown counts; kind: what its trace looks like
    "random": {"kind": "baseline", "skill": 0.0, "bias": 0.0},
    "popularity": {"kind": "baseline", "skill": 0.9, "bias": 0.0},
    "smol-likelihood": {"kind": "local", "skill": 1.2, "bias": 0.0, "model": "smollm2-135m", "seconds": 6.8},
    "gpt-listwise": {"kind": "openai", "skill": 2.2, "bias": 0.6, "model": "gpt-4.1-mini", "seconds": 0.9},
    "gpt-large": {"kind": "openai", "skill": 2.6, "bias": 0.3, "model": "gpt-4.1", "seconds": 2.1},
    "embedding": {"kind": "baseline", "skill": 1.1, "bias": 0.0},
    "qwen-listwise": {"kind": "vllm", "skill": 1.6, "bias": 0.9, "model": "qwen2.5-7b", "seconds": 0.4},
    "qwen-recency-window10-with-a-long-name": {
        "kind": "vllm",
        "skill": 1.8,
        "bias": 0.8,
        "model": "qwen2.5-7b",
        "seconds": 0.6,
    },
    "llama-listwise": {"kind": "vllm", "skill": 1.5, "bias": 1.4, "model": "llama-3.1-8b", "seconds": 0.5},
    "nano": {"kind": "openai", "skill": 1.0, "bias": 1.6, "model": "gpt-4.1-nano", "seconds": 0.5},
    "unpriced": {"kind": "openai", "skill": 1.9, "bias": 0.4, "model": "house-model", "seconds": 1.4},
    "fusion+popularity": {"kind": "vllm", "skill": 2.4, "bias": 0.2, "model": "qwen2.5-7b", "seconds": 0.7},
}

PRICES = {
    "gpt-4.1-mini": {"input": 0.4, "output": 1.6},
    "gpt-4.1": {"input": 2.0, "output": 8.0},
    "gpt-4.1-nano": {"input": 0.1, "output": 0.4},
}
"""USD a million tokens; `house-model` has no price."""

SEED = 7
N_CANDIDATES = 20
_TROUBLE: tuple[tuple[float, Status], ...] = (
    (0.72, "ok"),
    (0.84, "repaired"),
    (0.92, "partial"),
    (0.96, "fallback"),
    (1.0, "error"),
)


def write_sample_run(
    path: Path,
    *,
    rankers: int = 5,
    cases: int = 64,
    items: int = 120,
    failures: str = "fallback",
    id_prefix: str = "i",
) -> RunFolder:
    """Writes manifest, data, results, stability and memorisation; everything but what is computed from them."""
    generator = _random(SEED)
    catalog = _items(items, id_prefix)
    asked = [_case(generator, number, list(catalog)) for number in range(cases)]
    names = list(RANKERS)[:rankers]
    folder = RunFolder(path)
    write_whole(
        path / "data" / "items.jsonl",
        (json.dumps({"id": item.id, "title": item.title, "year": 1999}) + "\n" for item in catalog.values()),
    )
    write_cases(path / "data" / "cases.jsonl", asked)
    counts = Counter(item_id for case in asked for item_id in case.history)
    write_whole(path / "data" / "popularity.json", [json.dumps({"users": cases, "counts": counts})])
    for name in names:
        made = [_ranking(_random(f"{name}{n}"), RANKERS[name], case, catalog) for n, case in enumerate(asked)]
        write_whole(folder.results_path(name), (_line(full_record(each, trace=True), case=n) for n, each in enumerate(made)))
        if RANKERS[name]["kind"] != "baseline":
            write_whole(folder.stability_path(name), _stability(name, asked[:12], catalog))
    write_whole(path / "memorization.json", [json.dumps(_memorization(names))])
    write_whole(path / "manifest.json", [json.dumps(_manifest(names, cases, items, failures), indent=1)])
    return folder


def _items(count: int, prefix: str) -> dict[str, Item]:
    titles = NASTY_TITLES + [f"Film number {n}" for n in range(len(NASTY_TITLES), count)]
    return {item.id: item for item in (Item(f"{prefix}{n}", title) for n, title in enumerate(titles))}


def _case(generator: random.Random, number: int, ids: list[str]) -> Case:
    history_length = generator.choice([0, 1, 2, 4, 8, 15, 35]) if number else 35
    drawn = generator.sample(ids, N_CANDIDATES + history_length)
    candidates, history = drawn[:N_CANDIDATES], drawn[N_CANDIDATES:]
    if number == 0:
        candidates[:6] = [each for each in ids[:40] if each not in history][:6]
        candidates = list(dict.fromkeys(candidates))
    relevant = generator.sample(candidates, 2 if number % 9 == 0 else 1)
    query = f"something like {NASTY_TITLES[number % len(NASTY_TITLES)]}" if not history else None
    return Case(f"u {number}", tuple(history), tuple(candidates), tuple(relevant), query)


def _ranking(generator: random.Random, traits: dict[str, Any], case: Case, catalog: dict[str, Item]) -> Ranking:
    shown = case.candidates or ()
    skill, bias = float(traits["skill"]), float(traits["bias"])
    # Longer histories help, so that the plot by history length has something to show.
    help_of_history = 0.5 + min(len(case.history), 20) / 20
    scores = {
        item_id: generator.gauss(0, 1) + (skill * help_of_history if item_id in case.relevant else 0) - bias * place / 10
        for place, item_id in enumerate(shown)
    }
    order = sorted(shown, key=lambda item_id: -scores[item_id])
    if traits["kind"] == "baseline":
        ranked = tuple(RankedItem(catalog[each], n, scores[each]) for n, each in enumerate(order, start=1))
        return Ranking(ranked, user_id=case.user_id, shown=tuple(shown), strategy="baseline")
    luck = generator.random()
    status: Status = "ok" if traits["kind"] == "local" else next(name for limit, name in _TROUBLE if luck < limit)
    filled = {"partial": tuple(order[-4:]), "fallback": tuple(shown), "error": tuple(shown)}.get(status, ())
    if status in ("fallback", "error"):
        order = list(shown)
    error = RateLimitError("429: slow down") if generator.random() < 0.6 else ServerError("502: <html>Bad gateway</html>")
    exchange = _exchange(traits, case, catalog, order, status, error)
    usage = Usage(900 + 12 * len(case.history), 0 if traits["kind"] == "local" else 84, 512, 1, 0, int(luck > 0.9), 1.0)
    ranked = tuple(
        RankedItem(
            catalog[each],
            n,
            round(scores[each], 4) if traits["kind"] == "local" else None,
            "fallback" if each in filled else "model",
        )
        for n, each in enumerate(order, start=1)
    )
    return Ranking(
        ranked,
        status,
        repairs=("labels written twice were read once", f"a title was read as [C]: {SCRIPT}") if status == "repaired" else (),
        filled=filled,
        invented=("Z", SCRIPT) if status == "repaired" else (),
        cut=Cut(history=5 if len(case.history) > 20 else 0),
        usage=Usage() if status == "error" else usage,
        latency=float(traits["seconds"]) * generator.lognormvariate(0, 0.5),
        shown=tuple(shown),
        error=error if status == "error" else None,
        strategy="likelihood" if traits["kind"] == "local" else "listwise",
        model=str(traits["model"]),
        fingerprint="0123456789ab",
        user_id=case.user_id,
        notes=("the server ignored `seed`",) if traits["kind"] == "openai" else (),
        trace=(exchange,),
    )


def _exchange(
    traits: dict[str, Any], case: Case, catalog: dict[str, Item], order: list[str], status: Status, error: BackendError
) -> Exchange:
    shown = case.candidates or ()
    labels = tuple(make_labels(len(shown), "letters"))
    history = "\n".join(f"- {catalog[each].title}" for each in case.history) or case.query or ""
    if traits["kind"] == "local":
        prompt = Prompt(
            prefix=f"Movies I have watched recently, in order:\n{history}\n",
            continuations=tuple(catalog[each].title + "\n" for each in shown),
            labels=labels,
            item_ids=tuple(shown),
        )
        place = {each: n for n, each in enumerate(order)}
        return Exchange(prompt, Completion(scores=tuple(ContinuationScore(-20.0 - place[each], 9) for each in shown)))
    listed = "\n".join(f"[{label}] {catalog[each].title}" for label, each in zip(labels, shown, strict=True))
    messages = (
        Message("system", "You rank movies. Answer with the labels, best first."),
        Message("user", f"I watched:\n{history}\n\nCandidates:\n{listed}"),
    )
    prompt = Prompt(messages, labels=labels, item_ids=tuple(shown), answer="order")
    if status == "error":
        return Exchange(prompt, error)
    label_of = dict(zip(shown, labels, strict=True))
    answer = " > ".join(f"[{label_of[each]}]" for each in order)
    wrong = {"fallback": f"I cannot do that. {SCRIPT}", "repaired": f"**Sure!** {answer} [Z]\n{NASTY_TITLES[1]}\x00"}
    text = wrong.get(status, answer)
    return Exchange(prompt, Completion(text, "stop", reasoning="The user likes films." if status == "repaired" else None))


def _stability(name: str, cases: list[Case], catalog: dict[str, Item]) -> list[str]:
    lines = []
    for number, case in enumerate(cases):
        for shuffle in (1, 2):
            generator = _random(f"{name}{number}{shuffle}")
            candidates = list(case.candidates or ())
            generator.shuffle(candidates)
            shuffled = Case(case.user_id, case.history, tuple(candidates), case.relevant, case.query)
            record = full_record(_ranking(generator, RANKERS[name], shuffled, catalog), trace=False)
            lines.append(_line(record, case=number, shuffle=shuffle))
    return lines


def _memorization(names: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for n, name in enumerate(names):
        if RANKERS[name]["kind"] == "baseline":
            continue
        rates = {
            "n": 100,
            "real": 0.2 + n / 30,
            "control": 0.05,
            "difference": 0.15 + n / 30,
            "ci": [0.08 + n / 30, 0.22 + n / 30],
        }
        said = {"shown": "The Silence of", "true": "the Lambs", "said": f"the Lambs {SCRIPT}", "match": "near"}
        titles = rates | {"real_ci": [0.1, 0.9], "control_ci": [0.02, 0.11], "chance": None, "examples": [said]}
        histories = rates | {"real": 0.04, "difference": -0.01, "ci": [-0.05, 0.03], "chance": 0.1, "examples": []}
        local = RANKERS[name]["kind"] == "local"
        found[name] = {
            "method": "score" if local else "complete",
            "titles": titles,
            "histories": histories if local else None,
        }
    return found


def _manifest(names: list[str], cases: int, items: int, failures: str) -> dict[str, Any]:
    rankers = {
        name: {
            "config": _config(name, RANKERS[name]),
            "templates": {} if RANKERS[name]["kind"] == "baseline" else {"listwise/recency": "0123456789ab"},
            "model": RANKERS[name].get("model", ""),
        }
        for name in names
    }
    return {
        "format": 1,
        "suite": {
            "items": "items.jsonl",
            "cases": "cases.jsonl",
            "rankers": {name: rankers[name]["config"] for name in names},
            "prices": PRICES,
        },
        "protocol": f"Leave-last-out: the last item of each of {cases} users among 20 candidates, 19 of them drawn uniformly "
        "from what the user never chose; seed 7; ties in time broken by a hash.",
        "cases": cases,
        "items": items,
        "seed": SEED,
        "primary": "ndcg@10",
        "failures": failures,
        "metrics": METRICS,
        "rankers": rankers,
        "data": {"items": {"path": "items.jsonl", "sha256": "ab" * 32}, "cases": {"path": "cases.jsonl", "sha256": "cd" * 32}},
        "versions": {"llmrank": "0.1.0", "python": "3.11.9"},
        "created": "2026-11-22T02:00:00+00:00",
        "notes": ["3 users occur twice", f"an item has the title {SCRIPT}"],
    }


def _config(name: str, traits: dict[str, Any]) -> dict[str, Any]:
    if traits["kind"] == "baseline":
        return {"baseline": name}
    return {"backend": {"kind": traits["kind"], "model": traits["model"]}, "prompt": {"history": 20}}


def _random(seed: int | str) -> random.Random:
    return random.Random(seed)  # noqa: S311  # made-up data, not secrets


def _line(record: dict[str, Any], **more: object) -> str:
    return json.dumps(more | record) + "\n"
