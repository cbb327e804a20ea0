"""The section `online.reading` of an experiment goes in; checked options come out: what a log is read for, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from llmrank.errors import ConfigError, nearest
from llmrank.sections import make, mapping_of, refuse_unknown

MetricKind: TypeAlias = Literal["conversion", "mean", "ratio"]

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """One metric: an entry of `online.reading.metrics`, whose key is its name.

    Attributes:
        name: What it is called.
        kind: ``conversion``: the share of users with at least one such outcome. ``mean``: the sum of a user's outcomes' values,
            on average over all users. ``ratio``: the sum of those values of all users over the sum of the denominator's.
        event: The outcomes' name; None for the metric's own.
        denominator: Of a ratio: the name of the outcomes below the line.
        covariate: The name of outcomes from before a user's first exposure whose sum foretells the metric; CUPED then takes
            out of it what they foretell. None for none.
        better: Which direction is good.
        window_days: So many days of each user count, from the first exposure on, and only users whose days are over. None: all
            that came after the exposure, so that early users have had more time than late ones.
    """

    name: str
    kind: MetricKind
    event: str | None = None
    denominator: str | None = None
    covariate: str | None = None
    better: Literal["higher", "lower"] = "higher"
    window_days: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("is empty", field="online.reading.metrics", value=self.name, fix="give the metric a name")
        where = f"online.reading.metrics.{self.name}"
        for key in ("event", "denominator", "covariate"):
            if getattr(self, key) == "":
                raise ConfigError("is empty", field=f"{where}.{key}", value="", fix="name outcomes as they are logged")
        if (self.kind == "ratio") != (self.denominator is not None):
            words = "is missing" if self.kind == "ratio" else f"a {self.kind} has none"
            fix = "name the outcomes below the line" if self.kind == "ratio" else "leave it out, or write kind: ratio"
            raise ConfigError(words, field=f"{where}.denominator", value=self.denominator, fix=fix)
        if self.window_days is not None and not 0 < self.window_days < math.inf:
            fix = "7 counts a week of each user"
            raise ConfigError("must be above 0", field=f"{where}.window_days", value=self.window_days, fix=fix)

    @property
    def outcomes(self) -> str:
        """The name of the outcomes that it counts or sums."""
        return self.event or self.name

    @property
    def window_s(self) -> float:
        """The window in seconds; infinite without one."""
        return math.inf if self.window_days is None else DAY_S * self.window_days

    @property
    def sign(self) -> int:
        """1 if more is better, else -1."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """What a log is read for: the section `online.reading`.

    Attributes:
        metrics: In the file's order.
        primary: The name of the one that decides; None for the first.
        planned: How many users, of all variants together, the experiment was planned for. When their days are over, they are
            read once with the tests of a fixed sample. None: it is read with always-valid intervals only.
        alpha: The chance of a false finding in the primary metric, over all looks together.
        early: The part of `alpha` that always-valid looks take; the rest is for the look at the planned sample. 0 allows no
            decision before. Without `planned` they have all of it.
        interleaved: How many users with a click on an interleaved list were planned for; None as `planned`.
    """

    metrics: tuple[MetricOptions, ...] = ()
    primary: str | None = None
    planned: int | None = None
    alpha: float = 0.05
    early: float = 0.2
    interleaved: int | None = None

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError("stands twice", field="online.reading.metrics", value=name, fix="name it once")
        if self.primary is None:
            object.__setattr__(self, "primary", names[0] if names else None)
        elif self.primary not in names:
            fix = nearest(self.primary, names)
            raise ConfigError("is none of the metrics", field="online.reading.primary", value=self.primary, fix=fix)
        for key in ("planned", "interleaved"):
            value = getattr(self, key)
            if value is not None and (isinstance(value, bool) or value < 2):
                raise ConfigError("must be at least 2", field=f"online.reading.{key}", value=value, fix="a number of users")
        if not 0 < self.alpha < 1:
            raise ConfigError("must be between 0 and 1", field="online.reading.alpha", value=self.alpha, fix="0.05 is usual")
        if not 0 <= self.early < 1:
            raise ConfigError(
                "must be from 0 to below 1", field="online.reading.early", value=self.early, fix="0.2 leaves most to the plan"
            )

    @property
    def ordered(self) -> tuple[MetricOptions, ...]:
        """The metrics, the primary one first."""
        return tuple(sorted(self.metrics, key=lambda metric: metric.name != self.primary))

    @property
    def planned_lists(self) -> int | None:
        """How many users with a click on an interleaved list were planned for."""
        return self.planned if self.interleaved is None else self.interleaved

    def levels(self, planned: int | None) -> tuple[float, float]:
        """How much of `alpha` always-valid looks take, and how much the look at a planned sample."""
        early = self.alpha if planned is None else self.alpha * self.early
        return early, self.alpha - early


def reading_of(section: Mapping[str, Any] | None, alpha: float = 0.05) -> ReadingOptions:
    """Reads the section `online.reading`.

    Args:
        section: Its keys: `metrics` (a mapping of names to `MetricOptions`) and the others of `ReadingOptions`.
        alpha: The experiment's, where the section has none.

    Raises:
        ConfigError: a key is unknown (the nearest is named) or a value is wrong.
    """
    where = "online.reading"
    values = {key: value for key, value in mapping_of(section, where).items() if value is not None}
    refuse_unknown(values, ("metrics", "primary", "planned", "alpha", "early", "interleaved"), where)
    metrics = []
    for name, given in mapping_of(values.get("metrics"), f"{where}.metrics").items():
        place = f"{where}.metrics.{name}"
        options = {key: value for key, value in mapping_of(given, place).items() if value is not None}
        if "name" in options:
            raise ConfigError("unknown key", field=f"{place}.name", fix="a metric's name is its key")
        metrics.append(make(MetricOptions, {**options, "name": str(name)}, place))
    return make(ReadingOptions, {"alpha": alpha, **values, "metrics": tuple(metrics)}, where)
