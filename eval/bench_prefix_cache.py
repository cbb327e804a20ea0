"""A vLLM server's address goes in; what the order of a prompt's parts does to its prefix cache, and so to seconds, comes out.

Asks pairwise questions (``pairwise/next``) of the same kind of users twice: with what a user's questions share first, as
llmrank's templates lay prompts out, and with the two candidates moved before the history. Each round has users of its own, so
that no round finds what another one left; the two layouts take turns. Prints the hit rate that the server reports, seconds a
question, and the ratio.

Run: ``python eval/bench_prefix_cache.py --url http://127.0.0.1:8000 --users 4 --pairs 8``
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from llmrank.backends._vllm_metrics import PrefixCache
from llmrank.backends.vllm import VLLMBackend, VLLMOptions
from llmrank.budget import Budget, EstimateCounter
from llmrank.types import Event, Item, Message, Prompt, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter

Layout: TypeAlias = Callable[[tuple[Message, ...]], tuple[Message, ...]]

HISTORY = 40
CONCURRENCY = 8
WRITER = PromptWriter(PromptOptions("pairwise/next", history=HISTORY, answer="label", variables={"domain": "movies"}))
WIDE = Budget(1_000_000, EstimateCounter())


def shared_first(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """As the template has it: the instruction, the history, the question, and the candidates as the last paragraph."""
    return messages


def candidates_first(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The same paragraphs, the candidates before the history."""
    *before, user = messages
    others, blank, candidates = user.content.rpartition("\n\n")
    return (*before, replace(user, content=candidates + blank + others))


LAYOUTS: dict[str, Layout] = {"candidates first": candidates_first, "shared first": shared_first}


def prompts(layout: Layout, users: int, pairs: int, seed: int) -> list[Prompt]:
    """Questions, all of one user after the other; another seed gives other users."""
    draw = random.Random(seed)  # noqa: S311  # titles, no secrets

    def film() -> Item:
        number, road = draw.randrange(10**6), draw.choice(("lost", "red", "long", "last"))
        return Item(str(number), f"Film {number} of the {road} road ({draw.randrange(1930, 2024)})")

    asked = []
    for _ in range(users):
        request = ResolvedRequest(tuple(Event(film()) for _ in range(HISTORY)), ())
        for _ in range(pairs):
            written = WRITER.write(request, (film(), film()), WIDE, reserve=1)
            messages = layout(written.messages)
            asked.append(Prompt(messages, labels=written.labels, answer="label", max_tokens=1, label_logprobs=True))
    return asked


async def ask(backend: VLLMBackend, asked: Sequence[Prompt]) -> tuple[float, PrefixCache]:
    """Asks them all, `CONCURRENCY` at once; seconds, and what the server's cache did meanwhile."""
    gate = asyncio.Semaphore(CONCURRENCY)

    async def one(prompt: Prompt) -> None:
        async with gate:
            await backend.generate(prompt)

    before = await backend.prefix_cache()
    start = time.perf_counter()
    await asyncio.gather(*map(one, asked))
    seconds = time.perf_counter() - start
    after = await backend.prefix_cache()
    found = None if before is None or after is None else after.since(before)
    if found is None:
        sys.exit("the server has no /metrics with its prefix cache")
    return seconds, found


async def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="What the prefix cache makes of two layouts.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()

    backend = VLLMBackend(VLLMOptions(base_url=arguments.url, timeout_s=600))
    await ask(backend, prompts(shared_first, 1, 1, secrets.randbits(32)))  # what only the first question takes
    seconds = dict.fromkeys(LAYOUTS, 0.0)
    caches = dict.fromkeys(LAYOUTS, PrefixCache(0, 0))
    for _ in range(arguments.rounds):
        for name, layout in LAYOUTS.items():
            took, found = await ask(backend, prompts(layout, arguments.users, arguments.pairs, secrets.randbits(32)))
            seconds[name] += took
            caches[name] = PrefixCache(caches[name].queries + found.queries, caches[name].hits + found.hits)
    await backend.aclose()

    count = arguments.rounds * arguments.users * arguments.pairs
    print(f"{arguments.users} users, {arguments.pairs} pairs each, {arguments.rounds} rounds, {CONCURRENCY} at once")
    print(f"{'layout':<18}{'prompt tokens':>14}{'from the cache':>16}{'s a question':>14}{'ratio':>8}")
    for name, cache in caches.items():
        ratio = seconds["candidates first"] / seconds[name]
        print(f"{name:<18}{cache.queries:>14,}{cache.rate or 0.0:>16.1%}{seconds[name] / count:>14.3f}{ratio:>8.2f}")


if __name__ == "__main__":
    asyncio.run(main())
