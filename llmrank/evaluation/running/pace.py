"""What a run has done and spent so far goes in; whether it may spend more, and what its progress bar says, come out."""

from __future__ import annotations

import time
from collections.abc import Callable

from llmrank.backends.wrapper import Ask, BackendWrapper
from llmrank.evaluation.running.meter import Meter
from llmrank.progress import Report
from llmrank.protocols import Backend
from llmrank.types import Completion, Prompt


class Purse:
    """Says whether another request may be made without spending more than the budget.

    Each request under way is reckoned at what one has cost on average, or was forecast to cost if that is more.

    Args:
        budget: In USD; None for no bound.
        meter: What was spent.
        expected: What one request was forecast to cost, in USD.
    """

    def __init__(self, budget: float | None, meter: Meter, expected: float = 0.0) -> None:
        self._budget, self._meter, self._expected = budget, meter, expected
        self._before = meter.usd
        self.answered = 0
        self.empty = False

    def allows(self, under_way: int) -> bool:
        """True if one more may be asked while `under_way` others are."""
        if self._budget is None:
            return True
        each = max(self._expected, (self._meter.usd - self._before) / max(1, self.answered))
        # What has no price would be spent unseen.
        self.empty = self._meter.usd + (under_way + 1) * each > self._budget or self._meter.unpriced > 0
        return not self.empty


class WatchedBackend(BackendWrapper):
    """Tells how many prompts were answered.

    Args:
        inner: Answers them.
        watch: Told the number after each.
    """

    def __init__(self, inner: Backend, watch: Callable[[int], None]) -> None:
        super().__init__(inner)
        self._watch, self._done = watch, 0

    async def around(self, prompt: Prompt, ask: Ask) -> Completion:
        """Asks, and counts."""
        answer = await ask(prompt)
        self._done += 1
        self._watch(self._done)
        return answer


class Pace:
    """Shows how far a ranker is: rate, failures, money so far.

    Args:
        done: How many results there are from before.
        total: How many there will be.
        meter: What was spent.
        report: The progress bar.
    """

    def __init__(self, done: int, total: int, meter: Meter, report: Report) -> None:
        self._begun, self._before, self._total, self._meter, self._report = time.monotonic(), done, total, meter, report
        self._done = done
        report(done, total)

    def show(self, done: int, failed: int) -> None:
        """Moves the bar."""
        self._done = done
        rate = (done - self._before) / max(1e-9, time.monotonic() - self._begun)
        pace = f"{rate:.1f}/s" if rate >= 1 else f"{1 / max(1e-9, rate):.1f} s each"
        money = f", {self._meter.usd:.4f} USD" if self._meter.usd else ""
        self._report(done, self._total, f"{pace}, {failed} failed{money}")

    def say(self, note: str) -> None:
        """Puts something else beside the bar, where it stays until the bar moves."""
        self._report(self._done, self._total, note)
