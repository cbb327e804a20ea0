"""A summary and its manifest go in; what all parts of a report need of them comes out: order, units, warnings, finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmrank.evaluation.measures.measure import Measure, parse_measure
from llmrank.evaluation.report.numbers import joined, percent
from llmrank.evaluation.report.values import interval_text, known_interval, label, unit, value_text
from llmrank.evaluation.report.visible import visible

FAILED = ("fallback", "error")
"""The statuses of a ranking that is not the model's."""

STATUSES = ("ok", "repaired", "partial", "fallback", "error")

FEW_USERS = 30
"""From so many users on rankers are told apart: with fewer, bootstrap intervals are known to be too short."""

_BROWSED = "ndcg@10"
_MANY_FAILURES = 0.1
"""From this part of failures on, a ranker has a warning."""
_NAMED = 4
"""The most rankers that the finding names."""


def few_users(users: int) -> str:
    """The warning where there are fewer than `FEW_USERS`."""
    whose = "1 user" if users == 1 else f"{users} users"
    return f"The cases are of {whose}; with fewer than {FEW_USERS}, this is no comparison."


def prefilter_of(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a ranker's prefilter lets through (`keep`, `recall`, `ci`); None without one, or in an older summary."""
    passed: Mapping[str, Any] | None = found.get("prefilter")
    return passed


@dataclass(frozen=True, slots=True)
class Overview:
    """A summary, read.

    Attributes:
        summary: `summary.json`.
        manifest: `manifest.json`.
    """

    summary: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def protocol(self) -> str:
        """How cases were made, and which of them were ranked if not all; the caption of every table."""
        protocol = visible(self.summary["protocol"])
        return f"{protocol.rstrip('.')}. {self.extent}" if self.extent else protocol

    @property
    def extent(self) -> str:
        """Which cases every ranker has ranked, if it is the same number and not all of them; else empty."""
        counts = {found["cases"] for found in self.summary["rankers"].values()}
        ranked, planned = max(counts, default=0), self.summary["planned"]
        if len(counts) != 1 or not 0 < ranked < planned:
            return ""
        protocol = self.manifest["suite"].get("protocol") or {}
        # Cases of a file stand in its order, unless users are drawn from it; all others in a random one.
        random = protocol.get("split") != "given" or protocol.get("users") is not None
        which = "which are a random sample of them" if random else "in the order of the case file, so no random sample"
        return f"The first {ranked:,} of {planned:,} cases, {which}."

    @property
    def primary(self) -> str:
        """The name of the measure that decides."""
        return str(self.summary["primary"])

    @property
    def browsed(self) -> Measure:
        """The measure by which worst and best cases are chosen: the primary one, if it can be had without an embedder."""
        primary = parse_measure(self.primary)
        return primary if primary.needs != "embedder" else parse_measure(_BROWSED)

    @property
    def confidence(self) -> str:
        """The intervals' confidence: ``95 %``."""
        return f"{100 * self.summary['confidence']:g} %"

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The suite's measures."""
        return tuple(parse_measure(name) for name in self.manifest["metrics"])

    @property
    def rankers(self) -> dict[str, Mapping[str, Any]]:
        """What was found of each ranker, the best by the primary measure first; those without a value last."""
        found = self.summary["rankers"]

        def badness(name: str) -> tuple[bool, float]:
            value = found[name]["metrics"].get(self.primary)
            return value is None, 0.0 if value is None else -value

        return {name: found[name] for name in sorted(found, key=badness)}

    @property
    def incomplete(self) -> dict[str, int]:
        """How many cases each ranker has results for that lacks some which another one has; see `extent`."""
        most = max((found["cases"] for found in self.summary["rankers"].values()), default=0)
        return {name: found["cases"] for name, found in self.rankers.items() if found["cases"] < most}

    @property
    def users(self) -> int:
        """Of how many users the cases are that a ranker has ranked; of rankers that ranked different cases, the fewest."""
        return min((found["users"] for found in self.summary["rankers"].values()), default=0)

    @property
    def too_few(self) -> bool:
        """True if there are too few users to tell rankers apart."""
        return self.users < FEW_USERS

    def interval(self, ranker: str, measure: str) -> tuple[float, float] | None:
        """A ranker's interval, if it has one."""
        return known_interval(self.summary["rankers"][ranker]["ci"].get(measure))

    def clear_best(self, measure: Measure) -> str | None:
        """The ranker whose interval of a relevance measure lies wholly above all others' intervals, if there is one.

        None too if an interval is not known, if there are fewer than `FEW_USERS` users, or if the rankers did not rank the
        same cases. The rule is cautious: rankers are compared on the same cases, so a paired comparison tells more of them
        apart.
        """
        known = {name: self.interval(name, measure.name) for name in self.rankers}
        bounds = {name: interval for name, interval in known.items() if interval is not None}
        if len(bounds) < max(2, len(known)) or self.incomplete or self.too_few:
            return None
        best = max(bounds, key=lambda name: bounds[name][0])
        return best if all(high < bounds[best][0] for name, (_, high) in bounds.items() if name != best) else None

    @property
    def failures_sentence(self) -> str:
        """How rankings that are not the model's count."""
        if self.summary["failures"] == "worst":
            return "A ranking of status fallback or error counts 0 in every relevance measure; none is left out."
        return "A ranking of status fallback or error counts with the order that it fell back to; none is left out."

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before the numbers, a sentence each."""
        found = []
        if self.incomplete:
            found.append("The run is incomplete: rankers that have ranked different cases cannot be compared.")
        for name, of_ranker in self.rankers.items():
            failed = sum(of_ranker["status"].get(status, 0) for status in FAILED)
            if of_ranker["cases"] and failed >= _MANY_FAILURES * of_ranker["cases"]:
                found.append(
                    f"{visible(name)}: {percent(failed / of_ranker['cases'])} % of its rankings have the status fallback or "
                    "error, so its measures say less of the model."
                )
        notes = dict.fromkeys([*self.manifest.get("notes", ()), *self.summary.get("notes", ())])
        return found + [visible(note) for note in notes]

    @property
    def finding(self) -> str:
        """What the main table says, in a sentence or two."""
        measure = parse_measure(self.primary)
        valued = [name for name, found in self.rankers.items() if found["metrics"].get(self.primary) is not None]
        if not valued:
            return "No ranker has a value of the primary measure yet."
        first = valued[0]
        sentence = f"{visible(first)} has the highest {label(measure)}: {self._value(first, measure)}."
        if len(valued) == 1:
            return sentence
        if self.incomplete:
            return f"{sentence} The run is incomplete, so this is no comparison."
        if self.too_few:
            return f"{sentence} {few_users(self.users)}"
        if any(self.interval(name, measure.name) is None for name in valued):
            return f"{sentence} Without intervals, this is no comparison."
        others = [visible(name) for name in valued[1:] if self._overlap(first, name)]
        if not others:
            rest = "that of the other ranker" if len(valued) == 2 else "those of all other rankers"
            return f"{sentence} Its {self.confidence} interval lies above {rest}."
        shown = joined(others if len(others) <= _NAMED else [*others[:_NAMED], f"{len(others) - _NAMED} more"])
        return f"{sentence} Its {self.confidence} interval overlaps with {'that' if len(others) == 1 else 'those'} of {shown}."

    def _overlap(self, first: str, second: str) -> bool:
        one, other = self.interval(first, self.primary), self.interval(second, self.primary)
        return one is None or other is None or (one[0] <= other[1] and other[0] <= one[1])

    def _value(self, name: str, measure: Measure) -> str:
        value = value_text(measure, self.rankers[name]["metrics"][measure.name])
        return " ".join(filter(None, (value, unit(measure), interval_text(measure, self.interval(name, measure.name)))))
