"""Measures what assigning a user to a variant costs: microseconds a call, beside one bare BLAKE2b hash.

Run it with ``python eval/bench_assignment.py [--calls N]``.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from time import perf_counter

from llmrank.experiment.online.assignment import LayerOptions, OnlineOptions, assign

ROUNDS = 5


def microseconds(call: Callable[[str], object], units: list[str]) -> float:
    """Microseconds a call: the fastest of some rounds over all units, as other programs can only slow it down."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        started = perf_counter()
        for unit in units:
            call(unit)
        fastest = min(fastest, perf_counter() - started)
    return 1e6 * fastest / len(units)


def main() -> None:
    """Prints one line a set of options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="How many ids are assigned in each round.")
    units = [f"user-{number}" for number in range(parser.parse_args().calls)]
    two = OnlineOptions({"plain": 1, "recency": 1}, "plain", "recency")
    eight = OnlineOptions({f"variant-{number}": 1 for number in range(8)}, "variant-0", "many")
    layer = LayerOptions("ranking", 0.0, 0.9)
    everything = OnlineOptions({"plain": 1, "recency": 1}, "plain", "recency", traffic=0.9, layer=layer, holdout=0.1)
    print(f"{len(units):,} ids, fastest of {ROUNDS} rounds, microseconds a call")
    print(f"{microseconds(lambda unit: hashlib.blake2b(unit.encode()).digest(), units):7.2f}  one bare BLAKE2b hash")
    print(f"{microseconds(lambda unit: assign(two, unit), units):7.2f}  two variants")
    print(f"{microseconds(lambda unit: assign(eight, unit), units):7.2f}  eight variants")
    print(f"{microseconds(lambda unit: assign(everything, unit), units):7.2f}  two variants, traffic, layer and holdout")


if __name__ == "__main__":
    main()
