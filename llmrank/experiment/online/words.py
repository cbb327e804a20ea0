"""An OnlineReading goes in; the sentences of every report come out: how it was read, what is assumed, what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmrank.evaluation.report.numbers import joined
from llmrank.evaluation.report.visible import visible
from llmrank.experiment.online.numbers import level
from llmrank.experiment.statistics.sample_ratio import SAMPLE_RATIO_ALARM

if TYPE_CHECKING:
    from llmrank.experiment.online.findings import OnlineReading


def texts(reading: OnlineReading) -> tuple[str, ...]:
    """All that stands beside the tables, a sentence or two each."""
    said = (*method(reading), *assumed(reading), *map(str, reading.left_out), *reading.notes)
    return tuple(visible(text) for text in said)


def method(reading: OnlineReading) -> tuple[str, ...]:
    """How the numbers came about."""
    if not reading.effects:
        return ()
    options = reading.options
    early, late = options.levels(options.planned)
    said = ["A user counts for the variant of the first exposure, with what came after it."]
    if early:
        said.append(
            f"The always-valid interval holds at all looks together with a chance of {level(early)}, so it may be read at "
            "any time; that of a difference never becomes wider. Corrected p values are those for the number of variants by "
            "Holm's method in the primary metric, and by Benjamini and Hochberg's over all comparisons in the others."
        )
    if options.planned is not None:
        said.append(
            f"The test of the planned sample is made of the first {options.planned:,} users, once. Of the level "
            f"{options.alpha:g} it has {late:g}, and looks at any time have {early:g}: a false finding by either "
            f"stays below {options.alpha:g}."
        )
    said.append(
        "An interval of one variant's own value is for that value alone: two of them may overlap where the difference is shown."
    )
    return tuple(said)


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
