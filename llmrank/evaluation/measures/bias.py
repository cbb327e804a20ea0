"""Orders shown and orders returned go in; how much a ranker follows the order shown, and how stable its own is, comes out.

Both look only at what a model ranked: the places of items that were filled in from the order shown would prove themselves.
Rankings without a readable answer (status ``fallback`` or ``error``) are such as a whole, and are left out here, and counted.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import median_low
from typing import Any

import numpy as np

from llmrank.errors import DatasetError
from llmrank.evaluation.measures.estimate import Codes, Estimator, Values, number
from llmrank.evaluation.measures.outcomes import FAILED, Outcome
from llmrank.strategies.aggregate import kendall_tau as kendall_tau  # one of this module's measures, for all who read it

OVERLAP_AT = 10
"""The number of first places in which two orders of one case are compared, where the primary measure names none."""


def ranked_by_model(record: Mapping[str, Any]) -> list[str]:
    """The ids that the model itself put in order, best first: none behind the places that it was asked for (`depth`)."""
    return [item["id"] for item in record["items"][: record.get("depth")] if item["ranked_by"] == "model"]


class PositionBias:
    """Adds up a ranker's outcomes.

    Args:
        primary: The name of the measure that decides.
    """

    def __init__(self, primary: str) -> None:
        self._primary = primary
        self._tau, self._value = array("d"), array("d")
        self._target, self._row = array("q"), array("q")
        self._lengths = array("q")
        self._as_given = 0

    def add(self, row: int, outcome: Outcome) -> None:
        """Counts one outcome, which is the `row`-th of its ranker."""
        if outcome.failed:
            return
        shown = outcome.record["shown"]
        relevant = set(outcome.question.relevant)
        targets = [place for place, item_id in enumerate(shown, start=1) if item_id in relevant]
        self._row.append(row)
        self._tau.append(kendall_tau(shown, ranked_by_model(outcome.record)))
        self._value.append(outcome.values[self._primary])
        self._target.append(targets[0] if len(targets) == 1 else 0)  # among several no place is the one
        self._as_given += _within(shown, outcome.question.candidates)
        self._lengths.append(len(shown))

    def result(self, users: Codes, estimator: Estimator) -> dict[str, Any] | None:
        """What was found; None if no two items of any case were ranked by a model.

        Args:
            users: Whose each row is.
            estimator: Makes the intervals.

        Returns:
            `cases` (rankings with an answer), `tau` (mean Kendall tau of order shown and order returned) with `ci`, `as_given`
            (the share of these cases whose candidates were shown in the order of the case: where that order is random, any
            tau but 0 is bias; where a prefilter made it, a good ranker agrees with it), and `by_position`: the primary
            measure by the place at which the relevant item was shown, over cases with one such item.
        """
        tau, value = np.array(self._tau), np.array(self._value)
        target, who = np.array(self._target, dtype=np.int64), users[np.array(self._row, dtype=np.int64)]
        if not np.isfinite(tau).any():
            return None
        found = estimator.column(tau, who)
        return {
            "cases": len(tau),
            "tau": found.mean,
            "ci": found.ci,
            "as_given": number(self._as_given / len(tau)),
            "by_position": estimator.by_bin(position_bins(self._lengths), target, value, who, self._primary),
        }


def position_bins(lengths: Sequence[int]) -> list[tuple[int, int | None]]:
    """The places of lists in 4 or 5 runs of about one length: 20 places are 1-5, 6-10, 11-15, 16-20.

    Args:
        lengths: Of the lists, in any order. Their median is what is divided, so that a few long lists do not put all others
            into the first run.

    Returns:
        First and last place of each run; the last run has no end (None) if any list is longer than the median.
    """
    usual = median_low(lengths) if lengths else 0
    count = min(usual, 4 if usual % 4 == 0 else 5)
    ends = [round(usual * part / count) for part in range(count + 1)] if count else []
    bins: list[tuple[int, int | None]] = [(first + 1, last) for first, last in pairwise(ends)]
    if bins and max(lengths) > usual:
        bins[-1] = bins[-1][0], None
    return bins


class Stability:
    """Compares the orders that a ranker gave of one case with its candidates shuffled, one case after another.

    Args:
        records: The results for shuffled candidates (`RunFolder.stability`), in the order of the cases.
        k: In how many first places orders are compared; None for `OVERLAP_AT`.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], k: int | None) -> None:
        self._k = k or OVERLAP_AT
        self._groups = _grouped(records)
        self._next = next(self._groups, None)
        self._values, self._row = array("d"), array("q")
        self._cases = self._shuffles = self._failed = 0

    def add(self, row: int, outcome: Outcome) -> None:
        """Compares the orders of a case, that of the evaluation itself among them, if it was asked again.

        Raises:
            DatasetError: the results for shuffled candidates are not in the order of the cases.
        """
        if self._next is None or outcome.case < self._next[0]:
            return
        number, again = self._next
        if outcome.case != number:
            raise DatasetError(
                "results for shuffled candidates stand out of order", field="case", value=number, fix="run the suite again"
            )
        self._next = next(self._groups, None)
        answered = [each for each in (outcome.record, *again) if each["status"] not in FAILED]
        self._cases += 1
        self._shuffles = max(self._shuffles, len(again))
        self._failed += 1 + len(again) - len(answered)
        pairs = [_compared(*pair, self._k) for pair in combinations(map(ranked_by_model, answered), 2)]
        means = np.array(pairs).mean(axis=0) if pairs else np.full(3, np.nan)
        self._values.extend(means.tolist())
        self._row.append(row)

    def result(self, users: Codes, estimator: Estimator) -> dict[str, Any] | None:
        """What was found; None if no case was asked again.

        Args:
            users: Whose each row is.
            estimator: Makes the intervals.

        Returns:
            Means over cases of the mean over all pairs of orders of a case, with intervals: `kendall_tau` with `ci`,
            `top1_same` (both begin with the same item) with `top1_ci`, `overlap` (the part of the first `overlap_at` items
            that both have) with `overlap_ci`. `cases` were asked again, `shuffles` times each; `failed` answers could not be
            read.
        """
        if not self._cases:
            return None
        values: Values = np.array(self._values).reshape(-1, 3)
        tau, top, overlap = estimator.columns(values, users[np.array(self._row, dtype=np.int64)], shares=(1, 2))
        return {
            "cases": self._cases,
            "shuffles": self._shuffles,
            "kendall_tau": tau.mean,
            "ci": tau.ci,
            "top1_same": top.mean,
            "top1_ci": top.ci,
            "overlap_at": self._k,
            "overlap": overlap.mean,
            "overlap_ci": overlap.ci,
            "failed": self._failed,
        }


def _within(shown: Sequence[str], candidates: Sequence[str] | None) -> bool:
    """True if what was shown stands in the order of the candidates; some of them may be left out."""
    if candidates is None:
        return False
    rest = iter(candidates)
    return all(item_id in rest for item_id in shown)


def _grouped(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
    """The records of each case; those of one case stand together."""
    group: list[Mapping[str, Any]] = []
    for record in records:
        if group and record["case"] != group[0]["case"]:
            yield group[0]["case"], group
            group = []
        group.append(record)
    if group:
        yield group[0]["case"], group


def _compared(one: Sequence[str], other: Sequence[str], k: int) -> tuple[float, float, float]:
    """Kendall's tau, 1 or 0 for the same first item, and the overlap of the first k."""
    if not one or not other:
        return math.nan, math.nan, math.nan
    places = min(k, len(one), len(other))
    return kendall_tau(one, other), float(one[0] == other[0]), len({*one[:places]} & {*other[:places]}) / places
