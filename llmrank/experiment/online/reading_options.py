"""What an online experiment measures, and when its log may be read, as options: values go in, checked values come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmrank.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class MetricOptions:
    """One thing that is measured, from the outcomes that users had after they were first exposed.

    Attributes:
        name: Of the metric.
        kind: ``conversion``: the share of users with such an outcome. ``mean``: the sum of its values, a user, 0 without one.
            ``ratio``: the sum over all users, divided by that of another outcome; users, not outcomes, are what varies.
        numerator: The name of the outcome; None for `name`.
        denominator: Of a ratio: the name of the other outcome.
        covariate: What is known of each user from before, which makes the interval narrower (CUPED). ``before``: the values of
            `numerator` that the log has from before the user was first exposed. Another word: the values given under it when
            the log is read. None: nothing.
        worse: Which direction is worse.
        window_days: Outcomes count for so many days after the first exposure, and a user once they are over; None: all count.
    """

    name: str
    kind: Literal["conversion", "mean", "ratio"] = "conversion"
    numerator: str | None = None
    denominator: str | None = None
    covariate: str | None = None
    worse: Literal["lower", "higher"] = "lower"
    window_days: float | None = None

    def __post_init__(self) -> None:
        where = f"online.reading.metrics.{self.name}"
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError("must be a text", field="online.reading.metrics", value=self.name, fix="name each metric")
        if self.kind not in ("conversion", "mean", "ratio"):
            raise ConfigError("unknown", field=f"{where}.kind", value=self.kind, fix="use conversion, mean or ratio")
        if (self.denominator is None) == (self.kind == "ratio"):
            fix = "name the outcome to divide by" if self.denominator is None else "only a ratio has one; use kind: ratio"
            word = "is missing" if self.denominator is None else "is not used"
            raise ConfigError(word, field=f"{where}.denominator", value=self.denominator, fix=fix)
        if self.worse not in ("lower", "higher"):
            raise ConfigError("unknown", field=f"{where}.worse", value=self.worse, fix="use lower or higher")
        if self.window_days is not None and not 0 < self.window_days < 36525:
            raise ConfigError("must be above 0", field=f"{where}.window_days", value=self.window_days, fix="for instance 7")

    @property
    def outcome(self) -> str:
        """The name of the outcome that counts."""
        return self.name if self.numerator is None else self.numerator


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How a log is read: the section `online.reading` of an experiment. All of it has to be fixed before the first user.

    Attributes:
        metrics: What is measured; empty if nothing is (interleaved lists are read all the same).
        primary: The metric that decides; None for the first one.
        planned: How many users the experiment is planned for, all variants together. The analysis for a fixed sample is of the
            first so many, and is not shown before they are there. None: there is no such analysis.
        decide: What the decision goes by: ``always valid``, which may be looked at at any time, or ``fixed sample``, which
            needs fewer users than the other if the effect is as small as planned, and says nothing until then.
        alpha: The chance of a false finding, of all variants together, in the primary metric.
    """

    metrics: tuple[MetricOptions, ...] = ()
    primary: str | None = None
    planned: int | None = None
    decide: Literal["always valid", "fixed sample"] = "always valid"
    alpha: float = 0.05

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError("stands twice", field="online.reading.metrics", value=name, fix="rename one")
        if self.primary is None:
            object.__setattr__(self, "primary", names[0] if names else None)
        elif self.primary not in names:
            fix = nearest(self.primary, names) if names else "name it under metrics"
            raise ConfigError("is not among the metrics", field="online.reading.primary", value=self.primary, fix=fix)
        if self.planned is not None and self.planned < 2:
            raise ConfigError("must be at least 2", field="online.reading.planned", value=self.planned, fix="count the users")
        if self.decide not in ("always valid", "fixed sample"):
            fix = "use always valid or fixed sample"
            raise ConfigError("unknown", field="online.reading.decide", value=self.decide, fix=fix)
        if self.decide == "fixed sample" and self.planned is None:
            fix = "say for how many users it is planned"
            raise ConfigError("is missing", field="online.reading.planned", fix=fix)
        if not 0 < self.alpha <= 0.5:
            raise ConfigError("must be above 0, up to 0.5", field="online.reading.alpha", value=self.alpha, fix="0.05 is usual")
