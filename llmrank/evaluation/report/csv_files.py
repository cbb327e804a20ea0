"""An Overview or Outcomes go in, lines of metrics.csv and cases.csv come out. Values are exact; what is not known is empty."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.outcomes import Outcome
from llmrank.evaluation.report.overview import Overview, prefilter_of
from llmrank.evaluation.report.values import known_interval

_USAGE = ("prompt_tokens", "cached_tokens", "completion_tokens", "calls", "retries")


def metrics_csv(overview: Overview) -> Iterator[str]:
    """One row a ranker and measure: `ranker`, `measure`, `value`, `low`, `high`, `cases`. Shares are from 0 to 1.

    What a ranker's prefilter lets through stands behind its measures: ``prefilter recall@20``.
    """
    yield _line(("ranker", "measure", "value", "low", "high", "cases"))
    for name, found in overview.rankers.items():
        for measure in overview.measures:
            if measure.name in found["metrics"]:
                low, high = overview.interval(name, measure.name) or (None, None)
                yield _line((name, measure.name, found["metrics"][measure.name], low, high, found["cases"]))
        if (passed := prefilter_of(found)) is not None:
            low, high = known_interval(passed["ci"]) or (None, None)
            yield _line((name, f"prefilter recall@{passed['keep']}", passed["recall"], low, high, found["cases"]))


def cases_header(measures: Sequence[Measure]) -> str:
    """The first line of cases.csv, for these measures."""
    return _line(("case", "user_id", "ranker", "status", *(measure.name for measure in measures), "latency", *_USAGE, "error"))


def cases_line(ranker: str, outcome: Outcome, measures: Sequence[Measure]) -> str:
    """One case of one ranker; `latency` is in seconds."""
    record: Mapping[str, Any] = outcome.record
    return _line(
        (
            outcome.case,
            outcome.user_id,
            ranker,
            outcome.status,
            *(outcome.values[measure.name] for measure in measures),
            record.get("latency"),
            *(record["usage"][name] for name in _USAGE),
            record.get("error"),
        )
    )


def _line(cells: Sequence[object]) -> str:
    buffer = io.StringIO(newline="")
    # Written with \r\n, or Python 3.11 would not quote a cell that holds a \r alone, and readers would end the line there.
    csv.writer(buffer, lineterminator="\r\n").writerow(
        "" if cell is None or (isinstance(cell, float) and math.isnan(cell)) else cell for cell in cells
    )
    # Half surrogate pairs, which JSON may hold, cannot be written as UTF-8.
    return (buffer.getvalue().removesuffix("\r\n") + "\n").encode("utf-8", "backslashreplace").decode("utf-8")
