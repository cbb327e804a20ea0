"""What the tests of batches rank, and how; imported also by programs that these tests kill, so it imports little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmrank import Catalog, Item, Limits, Ranker, Ranking, RankRequest
from llmrank.backends.openai import OpenAIBackend, OpenAIOptions
from llmrank.protocols import Backend
from llmrank.scale.batch import BatchOptions, batch_rank
from llmrank.strategies.listwise import Listwise, ListwiseOptions
from llmrank.writer import PromptOptions, PromptWriter

CATALOG = Catalog([Item(str(number), f"Film {number:02d}") for number in range(40)])
QUICK: dict[str, Any] = {"poll_s": 0.01, "poll_most_s": 0.02}


def requests(users: int = 4, candidates: int = 3) -> list[RankRequest]:
    ids = [str(number) for number in range(candidates)]
    return [RankRequest(history=[str(30 + user)], candidates=ids, user_id=f"u{user}") for user in range(users)]


def make(url: str, listwise: ListwiseOptions | None = None, *, answer: Any = "order", **options: Any) -> Ranker:
    backend: Backend = OpenAIBackend(OpenAIOptions(model="m", base_url=url))
    repairer = PromptWriter(PromptOptions(template="listwise/repair", answer=answer))
    strategy = Listwise(PromptWriter(PromptOptions(answer=answer)), listwise, repairer=repairer)
    limits = Limits(max_attempts=1)
    return Ranker(backend, strategy, **{"catalog": CATALOG, "limits": limits, "on_error": "fallback", **options})


def run(ranker: Ranker, asked: list[RankRequest], folder: Path, *, on_progress: Any = None, **options: Any) -> list[Ranking]:
    return list(batch_rank(ranker, lambda: asked, folder, BatchOptions(**{**QUICK, **options}), on_progress=on_progress))


def essence(ranking: Ranking) -> tuple[object, ...]:
    """All of a Ranking that does not hang on time."""
    usage = ranking.usage
    return (
        ranking.user_id,
        ranking.item_ids,
        ranking.status,
        ranking.repairs,
        ranking.filled,
        ranking.notes,
        ranking.fingerprint,
        ranking.model,
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.calls),
        [exchange.prompt for exchange in ranking.trace],
        repr(ranking.error),
    )
