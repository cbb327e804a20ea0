"""Measures what online experiments cost a request: assigning a user, logging an exposure, interleaving two lists.

Each line is the median of several rounds, in microseconds a call, on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llmrank.experiment.online.assignment import Assigner
from llmrank.experiment.online.events import EventLog
from llmrank.experiment.online.interleaving import team_draft
from llmrank.experiment.online.options import LayerOptions, OnlineOptions

ROUNDS = 7


def main() -> None:
    """Prints a line a measure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--calls", type=int, default=20_000, help="a round")
    calls = arguments.parse_args().calls
    users = [f"user-{number:09}" for number in range(calls)]
    every = OnlineOptions(traffic=0.5, holdout=0.05, layer=LayerOptions("ranking", 0.0, 0.9))
    for words, options in (("weights alone", OnlineOptions()), ("holdout, layer, traffic and weights", every)):
        assign = Assigner("bench", ("plain", "recency"), "plain", options).assign
        told(f"assign: {words}", measured(assign, users))
    lists = [f"item {number}" for number in range(20)], [f"item {number}" for number in range(19, -1, -1)]
    told("interleave two lists of 20 items", measured(lambda user: team_draft(*lists, seed=("bench", user, "1")), users[:2000]))
    assign = Assigner("bench", ("plain", "recency"), "plain").assign
    with tempfile.TemporaryDirectory() as folder:
        for name in ("events.jsonl", "events.sqlite"):
            with EventLog.open(Path(folder) / name) as log:
                dealt = {user: assign(user) for user in users[: ROUNDS * 1000]}
                fresh = iter(dealt.values())
                told(f"{name}: expose a user", measured(lambda _: log.expose(next(fresh)), users[:1000]))
                told(f"{name}: expose them again", measured(lambda user: log.expose(dealt[user]), users[:1000]))
                told(f"{name}: an outcome", measured(lambda user: log.outcome(user, "click"), users[:1000]))


def measured(call: Callable[[str], object], users: list[str]) -> float:
    """The median over rounds of the microseconds a call."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for user in users:
            call(user)
        rounds.append((time.perf_counter() - start) / len(users))
    return 1e6 * statistics.median(rounds)


def told(words: str, microseconds: float) -> None:
    """Prints one line."""
    print(f"{words:<50} {microseconds:8.2f} us a call")


if __name__ == "__main__":
    main()
