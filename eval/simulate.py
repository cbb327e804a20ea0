"""Nothing goes in; how often the statistics of experiments are right, in experiments whose truth is known, comes out as tables.

Run it from the root of the repository::

    python eval/simulate.py [--experiments 2000] [--only PART ...] [--seed 1]

All tests, intervals and races are the library's own functions. Only the number of random flips and resamples within each of
them is smaller than by default (`simulations/fixed.py`, `simulations/guardrails.py`), which leaves their levels as they are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence

from simulations import fixed, guardrails, online, peeking, races
from simulations.rows import Row, table
from simulations.users import described

PARTS: Mapping[str, tuple[str, tuple[Callable[[int, int], list[Row]], ...]]] = {
    "fixed": ("A fixed sample", (fixed.false_positives, fixed.coverage, fixed.power)),
    "many": ("Many comparisons", (fixed.many_variants, fixed.many_measures)),
    "peeking": ("Looking at any time", (peeking.false_alarms, peeking.false_alarms_online, peeking.coverage, peeking.price)),
    "guardrails": ("Guardrails at their margin", (guardrails.at_the_margin, guardrails.failures, guardrails.catalogue)),
    "looks": ("Guardrails at their margin, looked at", (guardrails.under_looks,)),
    "groups": ("Two groups of users", (online.groups, online.sample_ratio)),
    "interleaving": ("Interleaving against A/B", (online.interleaving,)),
    "races": ("Choosing among prompts", (races.halving,)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description="simulated experiments")
    parser.add_argument("--experiments", type=int, default=2000, help="how many of each kind")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS), help="these parts")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print(f"{options.experiments:,} experiments of each kind, seed {options.seed}. Users: {described()}.")
    for name in options.only:
        title, parts = PARTS[name]
        begun = time.process_time()
        rows = [row for part in parts for row in part(options.experiments, options.seed)]
        print(f"\n## {title}\n\n{table(rows)}\n\n{time.process_time() - begun:.0f} s of one core.", flush=True)


if __name__ == "__main__":
    main()
