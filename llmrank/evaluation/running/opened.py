"""Names and configurations go in, contenders come out that stay open for the next who asks: models are loaded once.

A session asks each ranker several times (to forecast, to rank, to shuffle), and an experiment that is looked at asks all of
them at every look. Rankers with equal sections `backend` share one, also one that is opened as the other is closed. What is
open is bounded: who was not asked for longest is closed when there are too many.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from llmrank.backends.lending import BackendPool
from llmrank.errors import ConfigError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.running.baselines import Baseline
from llmrank.evaluation.running.contenders import backend_kind, build_contender
from llmrank.evaluation.running.meter import CurrentMeter, Meter
from llmrank.prices import Prices
from llmrank.ranker import Ranker

_Key: TypeAlias = tuple[Path, str]

ENGINES = 2
"""How many models are held in the memory of this process: those of a variant and its control."""


@dataclass(frozen=True, slots=True)
class _Opened:
    config: Mapping[str, Any]
    contender: Ranker | Baseline
    meter: CurrentMeter
    engine: str | None  # the section of the backend, if the model is in this process


class OpenContenders:
    """The contenders that are open. Used by one thread; leaving a ``with`` block closes them, also when an error ends it.

    Args:
        most: How many are open at once; one: the one that was asked for last, until another is asked for.
        engines: How many models in this process they have together.

    Raises:
        ConfigError: a number is less than 1.
    """

    def __init__(self, most: int = 1, engines: int = ENGINES) -> None:
        for field, value in (("most", most), ("engines", engines)):
            if value < 1:
                raise ConfigError("must be at least 1", field=field, value=value, fix="1 keeps only the last one open")
        self._most, self._engines = most, engines
        self._pool = BackendPool()
        self._opened: OrderedDict[_Key, _Opened] = OrderedDict()  # who was asked for last stands last

    def get(
        self, name: str, config: Mapping[str, Any], folder: RunFolder, *, seed: int, prices: Prices, meter: Meter | None
    ) -> Ranker | Baseline:
        """A contender of a run, as `build_contender` builds it; one that is open, if its configuration is still the same.

        Args:
            name, config, folder, seed, prices: As for `build_contender`.
            meter: Where its answers are noted from now on; None for nowhere.

        Returns:
            The contender; it is closed here, not by the caller.

        Raises:
            LLMRankError: the configuration is wrong, or this machine lacks what it needs.
        """
        key = folder.path, name
        found = self._opened.get(key)
        if found is not None and found.config != config:
            self._close(key)
            found = None
        if found is None:
            current = CurrentMeter()
            contender = build_contender(name, config, folder, seed=seed, prices=prices, meter=current, pool=self._pool)
            found = self._opened[key] = _Opened(config, contender, current, _engine(contender, config))
        self._opened.move_to_end(key)
        found.meter.meter = meter
        # After the new one was built, which loads no model yet: what both of them need stays open.
        while len(self._opened) > self._most or self._models > self._engines:
            self._close(next(iter(self._opened)))
        return found.contender

    @property
    def _models(self) -> int:
        """How many models there may be in this process."""
        return len({each.engine for each in self._opened.values()} - {None})

    def keep(self, path: Path, names: Collection[str]) -> None:
        """Closes all but these contenders of one run.

        Args:
            path: The run's folder.
            names: Who may be asked for again.
        """
        for key in list(self._opened):
            if key[0] != path or key[1] not in names:
                self._close(key)

    def close(self) -> None:
        """Closes all. May be called twice."""
        while self._opened:
            self._close(next(iter(self._opened)))

    def _close(self, key: _Key) -> None:
        self._opened.pop(key).contender.close()

    def __enter__(self) -> OpenContenders:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _engine(contender: Ranker | Baseline, config: Mapping[str, Any]) -> str | None:
    """What tells the model of a contender from others, if it runs in this process."""
    if not isinstance(contender, Ranker) or contender.backend.remote or backend_kind(config) == "replay":
        return None
    return json.dumps(config["backend"], sort_keys=True, default=repr)
