"""A scan and its tally go in; what of the log does not count, how much of it and why, comes out, if there is any."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from llmrank.evaluation.report.numbers import joined, share
from llmrank.experiment.online.events import Scan
from llmrank.experiment.online.reading_options import ReadingOptions
from llmrank.experiment.online.tally import Tally

_NAMED = 5
"""Of so many names each is told; of more, their number."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that does not count, or not for what it seems to.

    Attributes:
        what: What it is, with its unit; it may hold names from the log.
        count: How many of these there are.
        why: What is made of them, in a sentence.
    """

    what: str
    count: int
    why: str

    def __str__(self) -> str:
        """It in a sentence or two."""
        return f"{self.what}: {self.count:,}. {self.why}"


def of_log(scan: Scan, found: Tally) -> tuple[LeftOut, ...]:
    """What is left out before any metric is looked at."""
    part = share(found.moved, len(found.units))
    every = (
        LeftOut(
            "Users who were exposed to a second variant later",
            found.moved,
            f"{part} of all: they count for their first, which makes differences look smaller than they are.",
        ),
        LeftOut("Users with outcomes and without an exposure", found.strangers, "They do not count."),
        LeftOut("Events with the id of an earlier one and other content", scan.other, "The first one counts."),
        LeftOut("Events with the id of an earlier one and its content", scan.again, "However often written, it counts once."),
        LeftOut("Lines of the log that were never written to their end", scan.torn, "They do not count."),
        LeftOut(f"Events of other experiments{_named(found.others)}", found.foreign, "They do not count here."),
        LeftOut("Events after the time until which the log is read", found.later, "They do not count yet."),
    )
    return tuple(each for each in every if each.count)


def of_metrics(found: Tally, options: ReadingOptions) -> tuple[LeftOut, ...]:
    """What no metric counts: users and outcomes outside of the windows, and outcomes that none asks for."""
    if not found.units:
        return ()
    return tuple(each for each in _of_metrics(found, options) if each.count)


def _of_metrics(found: Tally, options: ReadingOptions) -> Iterator[LeftOut]:
    asked: dict[tuple[str, float], None] = {}  # in the metrics' order, each once
    for metric in options.ordered:
        young = len(found.units) - found.over(metric.window_s)
        days = f"{metric.window_days or 0:g} days"
        yield LeftOut(
            f"Metric {metric.name}: users who do not count yet", young, f"They will, as soon as their {days} are over."
        )
        for name in (metric.outcomes, metric.denominator):
            if name is not None:
                asked[name, metric.window_s] = None
    before = {metric.covariate for metric in options.metrics}
    told = set()
    for name, window_s in asked:
        early, late = found.outside(name, window_s)
        if name not in told:
            why = "They count as a covariate only." if name in before else "Only what came after it counts."
            yield LeftOut(f"Outcomes {name} from before their user's exposure", early, why)
        told.add(name)
        window = f"{window_s / 86_400:g} days"
        yield LeftOut(f"Outcomes {name} from after their user's {window}", late, f"Only what came within the {window} counts.")
    rest = sorted(set(found.names) - told - before)
    yield LeftOut(f"Outcomes that no metric asks for{_named(rest)}", sum(found.names[name] for name in rest), "Not counted.")


def _named(names: tuple[str, ...] | list[str]) -> str:
    if not names:
        return ""
    return f" ({joined(names)})" if len(names) <= _NAMED else f" ({len(names)} of them)"
