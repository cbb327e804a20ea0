"""A Ranking goes in, a JSON object with all that there is to know of it comes out; what programs and evaluations read.

`llmrank rank` prints these objects; the result files of an evaluation and the rows of a shard hold them with more beside.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from llmrank.errors import LLMRankError
from llmrank.types import Completion, Exchange, Prompt, RankedItem, Ranking, Usage, Wish


def ranking_record(ranking: Ranking) -> dict[str, Any]:
    """A Ranking as JSON values, without the prompts.

    Items that a fusion ordered have `parts`, what each part gave to their score, and `scores`, each part's own score, from
    which another fusion can be fitted. `wish` is there where the query was read.
    """
    record: dict[str, Any] = {
        "user_id": ranking.user_id,
        "status": ranking.status,
        "items": [_item_record(each) for each in ranking.items],
        "repairs": list(ranking.repairs),
        "filled": list(ranking.filled),
        "depth": ranking.depth,
        "stability": ranking.stability,
        "invented": list(ranking.invented),
        "cut": {
            "history": ranking.cut.history,
            "item_texts": list(ranking.cut.item_texts),
            "seen": list(ranking.cut.seen),
            "constrained": ranking.cut.constrained,
            "prefiltered": ranking.cut.prefiltered,
            "assumed_window": ranking.cut.assumed_window,
        },
        "notes": list(ranking.notes),
        "error": None if ranking.error is None else error_text(ranking.error),
        "strategy": ranking.strategy,
        "model": ranking.model,
        "fingerprint": ranking.fingerprint,
        "usage": usage_record(ranking.usage),
    }
    return record if ranking.wish is None else record | {"wish": wish_record(ranking.wish)}


def wish_record(wish: Wish) -> dict[str, Any]:
    """What was read from a query as JSON values, without its notes, which stand among the ranking's."""
    return {
        "wishes": list(wish.wishes),
        "like": list(wish.like),
        "dislikes": list(wish.dislikes),
        "constraints": [each.record() for each in wish.constraints],
    }


def _item_record(item: RankedItem) -> dict[str, Any]:
    record = {"rank": item.rank, "id": item.id, "score": item.score, "ranked_by": item.ranked_by}
    fused = {"parts": dict(item.parts), "scores": {name: _finite(score) for name, score in item.scores.items()}}
    return record | {name: values for name, values in fused.items() if values}


def full_record(ranking: Ranking, *, trace: bool) -> dict[str, Any]:
    """What an evaluation keeps of a Ranking: `ranking_record` with these differences.

    `usage` is what the ranking costs alone, with nothing kept from before (`full_cost`), so that it does not depend on what an
    earlier run, an interrupted one perhaps, left in the answer cache. `latency` is that of `latency_of`. `shown` has the ids in
    the order in which the model was given them.

    Args:
        ranking: The ranking.
        trace: True adds `trace`, every prompt with its raw answer.
    """
    record = ranking_record(ranking)
    record["usage"] = usage_record(full_cost(ranking))
    latency = latency_of(ranking)
    record["latency"] = None if latency is None else round(latency, 6)
    record["shown"] = list(ranking.shown)
    if trace:
        record["trace"] = [exchange_record(exchange) for exchange in ranking.trace]
    return record


def latency_of(ranking: Ranking) -> float | None:
    """The seconds that a ranking took, also of one that failed: who waited a minute for nothing has waited a minute.

    None where nothing was waited for: a request with a mistake, a prompt that could not be written.
    """
    if ranking.status == "error" and not ranking.trace and not ranking.latency:
        return None
    return ranking.latency


def full_cost(ranking: Ranking) -> Usage:
    """What a ranking costs alone, when the answer cache has none of its answers.

    What rankings share (equal prompts, texts that are scored by themselves) is counted with each of them, so the sum over
    rankings can be more than what was spent.
    """
    whole = ranking.usage + ranking.spared
    return Usage(**{each.name: getattr(whole, each.name) for each in fields(Usage) if each.name != "cache_hits"})


def usage_record(usage: Usage) -> dict[str, Any]:
    """A Usage as JSON values; seconds to the microsecond."""
    return {each.name: getattr(usage, each.name) for each in fields(Usage)} | {"seconds": round(usage.seconds, 6)}


def exchange_record(exchange: Exchange) -> dict[str, Any]:
    """A prompt with its raw answer: either `messages` and `text`, or `prefix` and `scores`; or `error`."""
    record = _prompt_record(exchange.prompt)
    answer = exchange.answer
    if not isinstance(answer, Completion):
        return record | {"error": error_text(answer)}
    if exchange.prompt.kind == "score":
        return record | {"scores": [[_finite(score.logprob), score.tokens] for score in answer.scores]}
    record |= {"text": answer.text, "finish_reason": answer.finish_reason}
    if answer.reasoning is not None:
        record["reasoning"] = answer.reasoning
    if answer.label_logprobs is not None:
        record["label_logprobs"] = {label: _finite(logprob) for label, logprob in answer.label_logprobs.items()}
    return record


def error_text(error: LLMRankError) -> str:
    """The class and the message of an error: ``RateLimitError: ...``."""
    return f"{type(error).__name__}: {error}"


def _finite(value: float) -> float | None:
    """The number, or None for what JSON cannot hold."""
    return value if math.isfinite(value) else None


def _prompt_record(prompt: Prompt) -> dict[str, Any]:
    shown = {"labels": list(prompt.labels), "item_ids": list(prompt.item_ids)}
    if prompt.kind == "score":
        return {"prefix": prompt.prefix, "continuations": list(prompt.continuations), **shown}
    return {"messages": [{"role": each.role, "content": each.content} for each in prompt.messages], **shown}
