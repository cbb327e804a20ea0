"""A model and a data set go in (both fetched if need be); what scoring 20 titles costs, in two ways, comes out.

Compares the sequential recipe (one slot, each continuation held by a grammar of token ids) with what `LocalBackend` does
(the prefix's state copied to several slots, tokens forced, decoded side by side), on the same prompts, taking turns, so that a
busy machine is busy for both. Prints seconds a user, CPU seconds a user and how far the values differ.

Run: ``python eval/bench_local.py --users 4 --slots 4 8``
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from llmrank.assets import fetch_weights
from llmrank.backends._llama import Llama
from llmrank.catalog import Catalog
from llmrank.evaluation import movielens
from llmrank.evaluation.cases import Case, leave_last_out

Way: TypeAlias = Callable[[Sequence[int], Sequence[Sequence[int]]], Sequence[float]]

HISTORY = 10
WINDOW = 1024
HEADING = "Movies I have watched recently, in order:\n"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Scoring speed of the embedded model.")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--slots", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    data = movielens.load()
    cases = leave_last_out(data.interactions, item_ids=[item.id for item in data.catalog])[: arguments.users]
    weights = fetch_weights("smollm2-135m-instruct")
    one = Llama(weights, n_ctx=WINDOW, n_threads=arguments.threads, slots=1)
    several = {slots: Llama(weights, n_ctx=WINDOW, n_threads=arguments.threads, slots=slots) for slots in arguments.slots}
    ways: dict[str, Way] = {
        "sequential, grammar": partial(by_grammar, one),
        "sequential, forced": partial(forced, one),
    }
    for slots, llama in several.items():
        ways[f"{slots} slots, forced"] = lambda prefix, texts, llama=llama: (
            llama.score(  # type: ignore[misc]  # early binding
                prefix, texts, cancelled=threading.Event()
            ).logprobs
        )
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    apart: dict[str, float] = dict.fromkeys(ways, 0.0)
    tokens = []
    for case in cases:
        prefix, texts = prompt(one, data.catalog, case)
        tokens.append((len(prefix), sum(map(len, texts))))
        reference: Sequence[float] = ()
        for name, way in ways.items():
            start, start_cpu = time.perf_counter(), time.process_time()
            values = way(prefix, texts)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
            reference = reference or values
            apart[name] = max(apart[name], *(abs(a - b) / len(t) for a, b, t in zip(values, reference, texts, strict=True)))
    for llama in (one, *several.values()):
        llama.close()

    before, scored = (statistics.fmean(counts) for counts in zip(*tokens, strict=True))
    print(f"{len(cases)} users, {before:.0f} tokens of history and {scored:.0f} of candidates each")
    print(f"{'way':<22}{'s/user':>8}{'CPU s/user':>12}{'speed-up':>10}  largest difference, nats a token")
    base = statistics.fmean(wall["sequential, grammar"])
    for name in ways:
        mean = statistics.fmean(wall[name])
        print(f"{name:<22}{mean:>8.2f}{statistics.fmean(cpu[name]):>12.2f}{base / mean:>10.2f}  {apart[name]:.5f}")


def prompt(llama: Llama, catalog: Catalog, case: Case) -> tuple[Sequence[int], list[Sequence[int]]]:
    """The token ids of a user's history as a list, and of each candidate as its next line."""

    def line(item_id: str) -> str:
        item = catalog[item_id]
        genres = item.attributes.get("genres", ())
        names = ", ".join(map(str, genres if isinstance(genres, list) else ()))
        return f"{item.title} ({item.attributes.get('year')}) - {names}\n"

    history = "".join(map(line, case.history[-HISTORY:]))
    return llama.tokenize(HEADING + history), [llama.tokenize(line(item_id)) for item_id in case.candidates]


def forced(llama: Llama, prefix: Sequence[int], texts: Sequence[Sequence[int]]) -> Sequence[float]:
    """As the backend does it."""
    return llama.score(prefix, texts, cancelled=threading.Event()).logprobs


def by_grammar(llama: Llama, prefix: Sequence[int], texts: Sequence[Sequence[int]]) -> Sequence[float]:
    """One continuation after the other, each held by a grammar of its token ids."""
    sums = []
    for ids in texts:
        request = {
            "prompt": list(prefix),
            "max_tokens": len(ids),
            "temperature": 0.0,
            "n_probs": 1,
            "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in ids),
            "cache_prompt": True,
            "id_slot": 0,
        }
        content = llama._server.handle_completions(request)["choices"][0]["logprobs"]["content"]
        sums.append(sum(entry["logprob"] for entry in content[: len(ids)]))
    return sums


if __name__ == "__main__":
    main()
