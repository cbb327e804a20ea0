"""Answers that a model computed go in, a file of what each cost and their sum come out: what a run has spent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from llmrank.backends.wrapper import Ask, BackendWrapper
from llmrank.evaluation.cases import json_line
from llmrank.evaluation.records import usage_record
from llmrank.evaluation.running.log import cut_torn_line
from llmrank.files import read_lines
from llmrank.protocols import Backend
from llmrank.types import Completion, Prompt, Usage


class Meter:
    """What a run has spent, of this and of earlier sessions.

    Args:
        path: The file, one line an answer; made at the first one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._lock = threading.Lock()
        self.usd = 0.0
        self.unpriced = 0
        cut_torn_line(path)
        for line in read_lines(path):
            self._count(line.get("usd"))

    def _count(self, usd: float | None) -> None:
        if usd is None:
            self.unpriced += 1
        else:
            self.usd += usd

    def add(self, ranker: str, model: str, usage: Usage, usd: float | None) -> None:
        """Notes one answer.

        Args:
            ranker: Whose.
            model: The model's name.
            usage: What it took.
            usd: What it costs; None if the model's price is not known.
        """
        line = json_line({"ranker": ranker, "model": model, "usd": usd, **usage_record(usage)})
        with self._lock:
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8")
            self._file.write(line)
            self._file.flush()  # so a kill of this process loses no line; the answer itself is kept no better
            self._count(usd)

    def close(self) -> None:
        """Closes the file. May be called twice."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class CurrentMeter:
    """What a backend notes into that lives longer than a meter does: the next session over a run opens one of its own.

    Attributes:
        meter: Where answers are noted now; None for nowhere.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self.meter = meter

    def add(self, ranker: str, model: str, usage: Usage, usd: float | None) -> None:
        """Notes one answer, as `Meter.add` does."""
        if self.meter is not None:
            self.meter.add(ranker, model, usage, usd)


class MeteredBackend(BackendWrapper):
    """Notes every answer that the inner backend computed.

    Args:
        inner: The bare backend; retries and cache stand around this wrapper, so that hits are not counted.
        meter: Where answers are noted.
        ranker: Whose they are.
        price: What a model's usage costs in USD, or None if that is not known.
    """

    def __init__(
        self, inner: Backend, meter: Meter | CurrentMeter, ranker: str, price: Callable[[str, Usage], float | None]
    ) -> None:
        super().__init__(inner)
        self._meter, self._ranker, self._price = meter, ranker, price

    async def around(self, prompt: Prompt, ask: Ask) -> Completion:
        """Asks, and notes what it took."""
        answer = await ask(prompt)
        model = answer.model or self.model
        self._meter.add(self._ranker, model, answer.usage, self._price(model, answer.usage))
        return answer
