"""A model and a data set go in (both fetched if need be); what scoring 20 titles costs, in two ways, comes out.

Compares the sequential recipe (one slot, each continuation held by a grammar of token ids) with what `LocalBackend` does
(the prefix's state copied to several slots, tokens forced, decoded side by side), on the same prompts, one way after the
other. Prints seconds a user, CPU seconds a user (the one to compare on a busy machine) and how far the values differ.

Run: ``python eval/bench_local.py --users 4 --slots 4 8``
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

from llmrank.assets import fetch_weights
from llmrank.backends._llama import Llama
from llmrank.catalog import Catalog
from llmrank.evaluation.cases import Case
from llmrank.evaluation.data import movielens
from llmrank.evaluation.data.protocol import ProtocolOptions, make_cases

Way: TypeAlias = Callable[[Llama, Sequence[int], Sequence[Sequence[int]]], Sequence[float]]

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
    protocol = ProtocolOptions(users=arguments.users)
    cases = list(make_cases(protocol, catalog=data.catalog, interactions=data.interactions).cases)
    weights = fetch_weights("smollm2-135m-instruct")
    ways: list[tuple[str, int, Way]] = [("sequential, grammar", 1, by_grammar), ("sequential, forced", 1, forced)]
    ways += [(f"{slots} slots, forced", slots, forced) for slots in arguments.slots]
    wall: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    cpu: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    apart: dict[str, float] = {name: 0.0 for name, _, _ in ways}
    reference: dict[str, Sequence[float]] = {}
    tokens = {}
    for name, slots, way in ways:
        # One engine at a time: several in one process get in each other's way.
        llama = Llama(weights, n_ctx=WINDOW, n_threads=arguments.threads, slots=slots)
        for case in cases:
            prefix, texts = prompt(llama, data.catalog, case)
            tokens[case.user_id] = (len(prefix), sum(map(len, texts)))
            start, start_cpu = time.perf_counter(), time.process_time()
            values = way(llama, prefix, texts)
            wall[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
            expected = reference.setdefault(case.user_id, values)
            apart[name] = max(apart[name], *(abs(a - b) / len(t) for a, b, t in zip(values, expected, texts, strict=True)))
        llama.close()

    before, scored = (statistics.fmean(counts) for counts in zip(*tokens.values(), strict=True))
    print(f"{len(cases)} users, {before:.0f} tokens of history and {scored:.0f} of candidates each")
    print(f"{'way':<22}{'s/user':>8}{'CPU s/user':>12}{'CPU ratio':>11}  largest difference, nats a token")
    base = statistics.fmean(cpu["sequential, grammar"])
    for name in wall:
        mean = statistics.fmean(cpu[name])
        print(f"{name:<22}{statistics.fmean(wall[name]):>8.2f}{mean:>12.2f}{base / mean:>11.2f}  {apart[name]:.5f}")


def prompt(llama: Llama, catalog: Catalog, case: Case) -> tuple[Sequence[int], list[Sequence[int]]]:
    """The token ids of a user's history as a list, and of each candidate as its next line."""

    def line(item_id: str) -> str:
        item = catalog[item_id]
        genres = item.attributes.get("genres", ())
        names = ", ".join(map(str, genres if isinstance(genres, list) else ()))
        return f"{item.title} ({item.attributes.get('year')}) - {names}\n"

    history = "".join(map(line, case.history[-HISTORY:]))
    return llama.tokenize(HEADING + history), [llama.tokenize(line(item_id)) for item_id in case.candidates or ()]


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
