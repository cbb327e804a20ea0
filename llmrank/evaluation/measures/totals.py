"""Outcomes of one ranker go in one by one; how they ended, what they cost, how their answers read, and whose they are come out.

What is kept of a case is 16 bytes: a number for its user and its latency.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np

from llmrank.evaluation.measures.estimate import Codes, number
from llmrank.evaluation.measures.outcomes import Outcome
from llmrank.types import Usage

Cost: TypeAlias = Callable[[str, Mapping[str, Any], bool], float | None]
"""A model's name, a usage (the fields of `Usage`) and whether a batch API was asked go in, USD come out; None if the price is
not known."""

_USAGE = tuple(each.name for each in fields(Usage))
_ANSWERS = (
    "repaired_cases",
    "filled_cases",
    "filled_items",
    "invented_cases",
    "invented_items",
    "cut_cases",
    "cut_history_items",
)


class Users:
    """Numbers for users, in 8 bytes a case instead of their names."""

    def __init__(self) -> None:
        self._digests = array("Q")

    def add(self, user_id: str) -> None:
        """Counts one case of this user."""
        digest = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._digests.append(int.from_bytes(digest, "big"))

    def codes(self) -> Codes:
        """One a case, from 0; the same for cases of one user."""
        codes: Codes = np.unique(np.array(self._digests, dtype=np.uint64), return_inverse=True)[1].astype(np.int64)
        return codes


class Counts:
    """What all outcomes of a ranker cost, and how they ended."""

    def __init__(self) -> None:
        self.cases = 0
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        # Dicts rather than sets: in the order in which they occur.
        self.models: dict[str, None] = {}
        self.strategies: dict[str, None] = {}
        self.fingerprints: dict[str, None] = {}
        # By the model, and whether it was asked by a batch API, which costs less.
        self._spent: dict[tuple[str, bool], dict[str, float]] = {}
        self._seconds = array("d")
        self._asked = False

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome."""
        record = outcome.record
        self.cases += 1
        self.statuses[outcome.status] += 1
        if record["error"]:
            self.errors[record["error"].partition(":")[0]] += 1
        for seen, name in ((self.models, "model"), (self.strategies, "strategy"), (self.fingerprints, "fingerprint")):
            if record[name]:
                seen[record[name]] = None
        spent = self._spent.setdefault((record["model"], record.get("batch", False)), dict.fromkeys(_USAGE, 0))
        for name in _USAGE:
            spent[name] += record["usage"][name]
        if record["latency"] is not None:
            self._seconds.append(record["latency"])
        self._asked |= bool(record["usage"]["calls"] or (outcome.status == "error" and record["latency"]))

    def usage(self) -> dict[str, float]:
        """The sum over models."""
        total = {name: sum(spent[name] for spent in self._spent.values()) for name in _USAGE}
        return total | {"seconds": number(total["seconds"]) or 0.0}

    def usd(self, cost: Cost) -> float | None:
        """What it costs; 0 without a call, None if the price of any model that was asked is not known."""
        total = 0.0
        for (model, batch), spent in self._spent.items():
            if not any(spent[name] for name in ("calls", "prompt_tokens", "completion_tokens")):
                continue  # failures take retries and seconds, and cost nothing
            usd = cost(model, spent, batch)
            if usd is None:
                return None
            total += usd
        return number(total)

    def latency(self) -> dict[str, float | None] | None:
        """Exact percentiles (linear between neighbours), over cases that were asked about, also those that failed; None if no
        model was asked.
        """
        if not self._seconds or not self._asked:
            return None
        seconds = np.array(self._seconds)
        p50, p95, p99 = np.percentile(seconds, [50, 95, 99]).tolist()
        found = {"mean": math.fsum(self._seconds) / len(seconds), "p50": p50, "p95": p95, "p99": p99}
        return {name: number(value) for name, value in found.items()}


class Answers:
    """What had to be done to read the answers, over cases with one."""

    def __init__(self) -> None:
        self._answers = 0
        self._sums: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Counts one outcome."""
        record = outcome.record
        if outcome.status == "error":
            return
        self._answers += 1
        cut = record["cut"]
        for name, count in (("filled", len(record["filled"])), ("invented", len(record["invented"]))):
            self._sums[f"{name}_cases"] += count > 0
            self._sums[f"{name}_items"] += count
        self._sums["repaired_cases"] += bool(record["repairs"])
        self._sums["cut_cases"] += bool(cut["history"] or cut["item_texts"])
        self._sums["cut_history_items"] += cut["history"]

    def result(self) -> dict[str, float | None] | None:
        """Shares and means; None without an answer."""
        return {name: number(self._sums[name] / self._answers) for name in _ANSWERS} if self._answers else None
