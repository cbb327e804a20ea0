"""An OnlineReading goes in; the sentences of every report come out: how it was read, what is assumed, what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmrank.evaluation.report.numbers import joined
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.numbers import level
from llmrank.experiment.online.reading_options import ReadingOptions
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM

if TYPE_CHECKING:
    from llmrank.experiment.online.findings import OnlineReading


def texts(reading: OnlineReading) -> tuple[str, ...]:
    """All that stands beside the tables, a sentence or two each."""
    said = (*method(reading), *assumed(reading), *map(str, reading.left_out), *reading.notes)
    return tuple(visible(text) for text in said)


def method(reading: OnlineReading) -> tuple[str, ...]:
    """How the numbers came about."""
    return (*_of_metrics(reading), *_of_lists(reading))


def _of_metrics(reading: OnlineReading) -> Iterator[str]:
    if not reading.effects:
        return
    options = reading.options
    early, _ = options.levels(options.planned)
    yield "A user counts for the variant of the first exposure, with what came after it."
    if early:
        yield (
            f"The always-valid interval holds at all looks together with a chance of {level(early)}, so it may be read at "
            "any time; it never becomes wider."
        )
    yield (
        "Both p values are corrected for the number of variants by Holm's method in the primary metric, and by Benjamini and "
        "Hochberg's over all comparisons in the others; intervals are not."
    )
    yield from _plan(options, options.planned, "users")
    yield "An interval of one variant's value is for that value alone: two may overlap although the difference is shown."


def _of_lists(reading: OnlineReading) -> Iterator[str]:
    if not reading.interleavings:
        return
    options = reading.options
    early, _ = options.levels(options.planned_lists)
    if early:
        yield (
            f"Interleaved lists: the always-valid interval, by betting, is of the mean over users; it holds at all looks "
            f"together with a chance of {level(early)}. P values are corrected for the number of pairs by Holm's method."
        )
    yield from _plan(options, options.planned_lists, "users with a click on an interleaved list that earned a credit")


def _plan(options: ReadingOptions, planned: int | None, who: str) -> Iterator[str]:
    if planned is not None:
        early, late = options.levels(planned)
        yield (
            f"The test of the planned sample is made of the first {planned:,} {who}, once. Of the level {options.alpha:g} it "
            f"has {late:g}, and looks at any time have {early:g}: a false finding by either stays below {options.alpha:g}."
        )


def assumed(reading: OnlineReading) -> tuple[str, ...]:
    """What the figures take for granted."""
    said = []
    if reading.traffic:
        due = joined([f"{100 * each.share:.1f} % {visible(each.variant)}" for each in reading.traffic])
        said.append(
            f"Assumed: the weights of all this time were those of the experiment's file ({due}); an alarm for the split comes "
            f"at p below {SAMPLE_RATIO_ALARM:g}."
        )
    if reading.effects:
        said.append(
            "Assumed: an id is a person, and what one sees changes nothing for another; exposures are logged alike for all "
            "variants, and outcomes whether the variant is liked or not."
        )
        loose = [metric.name for metric in reading.options.metrics if metric.window_days is None]
        if loose:
            said.append(
                f"Without `window_days` ({', '.join(loose)}) what a user did may still grow, so that figures of the same users "
                "change from look to look, and the guarantees hold only as far as that is little."
            )
    if reading.interleavings:
        said.append("Assumed: a click on an item of an interleaved list is a vote for the variant that put it there.")
    return tuple(said)
