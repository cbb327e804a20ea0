"""Models and a data set go in (fetched if need be); what scoring 20 titles costs, in two ways, comes out.

Compares the sequential recipe (one slot, each continuation held by a grammar of token ids) with what `LocalBackend` does
(the prefix's state copied to several slots, tokens forced, decoded side by side), on the same prompts, one way after the
other. Prints seconds a user, CPU seconds a user (the one to compare on a busy machine) and how far the values differ; then
what a question for one label costs whose beginning is in memory, as in pairwise prompts: with the answer decoded too, and
read off the log-probabilities. Given several models, ratios are to the first.

Run: ``python eval/bench_local.py --users 4 --slots 4 8 --model smollm2-135m-instruct smollm2-135m-instruct-q8``
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from llmrank.assets import WEIGHTS, fetch_weights
from llmrank.backends._llama import Llama
from llmrank.backends.local import LocalOptions
from llmrank.catalog import Catalog
from llmrank.evaluation.cases import Case
from llmrank.evaluation.data import movielens
from llmrank.evaluation.data.protocol import ProtocolOptions, make_cases
from llmrank.types import Message

Way: TypeAlias = Callable[[Llama, Sequence[int], Sequence[Sequence[int]]], Sequence[float]]

Question: TypeAlias = Callable[[Llama, Sequence[int]], None]

HISTORY = 10
QUESTIONS = 8
UNSHARED = 50
"""Tokens of a question that are not in memory."""
WINDOW = 1024
HEADING = "Movies I have watched recently, in order:\n"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Speed of the embedded models.")
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--slots", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", nargs="+", choices=sorted(WEIGHTS), default=[LocalOptions().model])
    arguments = parser.parse_args()

    data = movielens.load()
    protocol = ProtocolOptions(users=arguments.users)
    cases = list(make_cases(protocol, catalog=data.catalog, interactions=data.interactions).cases)
    scoring: list[tuple[str, int, Way]] = [("sequential, grammar", 1, by_grammar), ("sequential, forced", 1, forced)]
    scoring += [(f"{slots} slots, forced", slots, forced) for slots in arguments.slots]
    asking: list[tuple[str, Question]] = [("label, decoded", decoded), ("label, read", read)]
    first: dict[str, Spent] = {}
    for model in arguments.model:
        weights = fetch_weights(model)
        spent: dict[str, Spent] = {}
        apart: dict[str, float] = {}
        reference: dict[str, Sequence[float]] = {}
        for name, slots, way in scoring:
            # One engine at a time: several in one process get in each other's way.
            llama = Llama(weights, n_ctx=WINDOW, n_threads=arguments.threads, slots=slots)
            spent[name] = Spent()
            for case in cases:
                prefix, texts = prompt(llama, data.catalog, case)
                with spent[name].measured():
                    values = way(llama, prefix, texts)
                expected = reference.setdefault(case.user_id, values)
                most = max(abs(a - b) / len(t) for a, b, t in zip(values, expected, texts, strict=True))
                apart[name] = max(apart.get(name, 0.0), most)
            llama.close()
        llama = Llama(weights, n_ctx=WINDOW, n_threads=arguments.threads, slots=1)
        for name, ask in asking:
            spent[name] = Spent()
            for number in range(QUESTIONS):
                ids = question(llama, data.catalog, cases[0], number)
                llama.generate(ids[:-UNSHARED], {}, max_tokens=1, cancelled=threading.Event())
                with spent[name].measured():
                    ask(llama, ids)
        llama.close()

        print(f"\n{model}, {len(cases)} users")
        print(f"{'way':<22}{'s each':>9}{'CPU s':>9}{'CPU ratio':>11}{'to first model':>16}  largest difference, nats a token")
        for name, cost in spent.items():
            base = spent["label, decoded" if name.startswith("label") else "sequential, grammar"]
            to_first = first.setdefault(name, cost).cpu / cost.cpu
            ratios = f"{base.cpu / cost.cpu:>11.2f}{to_first:>16.2f}"
            print(f"{name:<22}{cost.wall:>9.3f}{cost.cpu:>9.3f}{ratios}  {f'{apart[name]:.5f}' if name in apart else ''}")


class Spent:
    """What each of several runs took."""

    def __init__(self) -> None:
        self._wall: list[float] = []
        self._cpu: list[float] = []

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Counts the block as one run."""
        start, start_cpu = time.perf_counter(), time.process_time()
        yield
        self._wall.append(time.perf_counter() - start)
        self._cpu.append(time.process_time() - start_cpu)

    @property
    def wall(self) -> float:
        """Seconds, the median."""
        return statistics.median(self._wall)

    @property
    def cpu(self) -> float:
        """Seconds of all processors, the median."""
        return statistics.median(self._cpu)


def question(llama: Llama, catalog: Catalog, case: Case, number: int) -> Sequence[int]:
    """The token ids of a question for the better of two films."""
    seen = "\n".join(catalog[item_id].title for item_id in case.history[-30:])
    ids = case.candidates or ()
    pair = [catalog[ids[(number + place) % len(ids)]].title for place in (0, 1)]
    return llama.chat_tokens(
        (Message("user", f"Films I watched:\n{seen}\n\nWhich one next?\n[A] {pair[0]}\n[B] {pair[1]}\nAnswer with A or B."),)
    )


def read(llama: Llama, ids: Sequence[int]) -> None:
    """The labels' log-probabilities, whose largest is the answer: as the backend does it."""
    llama.label_logprobs(ids, {label: llama.tokenize(label)[0] for label in "AB"})


def decoded(llama: Llama, ids: Sequence[int]) -> None:
    """The same, and the answer decoded after that."""
    read(llama, ids)
    llama.generate(ids, {"temperature": 0.0, "grammar": 'root ::= "A" | "B"'}, max_tokens=4, cancelled=threading.Event())


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
