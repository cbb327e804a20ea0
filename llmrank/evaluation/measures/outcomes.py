"""A run's folder and a ranker go in, one Outcome a case comes out: the order that counts and what each measure says of it.

A ranking of status ``fallback`` or ``error`` counts like any other. Where the suite says ``failures: worst``, all measures of
relevance are 0 for it; those of lists and runs take the order that a user would have been shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrank.errors import DatasetError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.beyond import ItemVectors, Known
from llmrank.evaluation.measures.measure import Measure, check_measures, parse_measure
from llmrank.protocols import Embedder

FAILED = frozenset({"fallback", "error"})
"""The statuses of a ranking without a readable answer."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case and what a ranker made of it.

    Attributes:
        case: Its number, from 0.
        question: The case.
        record: The line of the results: `records.full_record` with `case`.
        order: The ids as they count, best first: the ranking's, or, if there is none at all, the candidates as given.
        values: By the measures' names; NaN where a measure is not defined.
    """

    case: int
    question: Case
    record: Mapping[str, Any]
    order: Sequence[str]
    values: Mapping[str, float]

    @property
    def user_id(self) -> str:
        """Whose case it is."""
        return self.question.user_id

    @property
    def status(self) -> str:
        """The ranking's."""
        return str(self.record["status"])

    @property
    def failed(self) -> bool:
        """True if no answer of the model could be read."""
        return self.status in FAILED


def known_of(folder: RunFolder, embedder: Embedder | None = None, fields: Sequence[str] = ("title",)) -> Known:
    """What a run knows of its items.

    Args:
        folder: The run.
        embedder: For measures that need the items' vectors.
        fields: What of an item it embeds.
    """
    vectors = None if embedder is None else ItemVectors(folder.catalog, embedder, fields)
    return Known(int(folder.manifest["items"]), folder.popularity, vectors)


def measures_of(folder: RunFolder, known: Known | None = None) -> tuple[Measure, ...]:
    """The suite's measures, in its order.

    Args:
        folder: The run.
        known: None leaves out those that need an embedder.

    Raises:
        ConfigError: a measure needs what is not known.
    """
    names = folder.manifest["metrics"]
    if known is None:
        names = [name for name in names if parse_measure(name).needs != "embedder"]
        known = known_of(folder)
    return check_measures(names, has_popularity="interactions" in known.has, has_vectors="embedder" in known.has)


def per_case(
    folder: RunFolder, ranker: str, measures: Sequence[Measure] | None = None, *, known: Known | None = None
) -> Iterator[Outcome]:
    """What a ranker made of each case that has a result, in the order of the cases, one at a time.

    Args:
        folder: The run.
        ranker: Its name in the suite.
        measures: Those that have a value for a case; None: all such of the suite, but for those that need an embedder if
            `known` has none.
        known: What the measures need to know; None: what the folder has.

    Raises:
        DatasetError: the results are not those of the run's cases.
    """
    if measures is None:
        measures = [measure for measure in measures_of(folder, known) if measure.per_case]
    if known is None:
        known = known_of(folder)
    worst = folder.manifest["failures"] == "worst"
    scorers = [(measure.name, measure.scorer(known), worst and measure.about == "relevance") for measure in measures]
    for number, case, record in _joined(folder, ranker):
        order = _order(folder, case, record)
        failed = record["status"] in FAILED
        values = {name: 0.0 if failed and zero else score(order, case) for name, score, zero in scorers}
        yield Outcome(number, case, record, order, values)


def _joined(folder: RunFolder, ranker: str) -> Iterator[tuple[int, Case, Mapping[str, Any]]]:
    """Each result with its case."""
    cases = enumerate(folder.cases())
    path = folder.results_path(ranker)
    for record in folder.results(ranker):
        wanted = record.get("case")
        number, case = next(((number, case) for number, case in cases if number == wanted), (None, None))
        if number is None or case is None:
            problem = "stands twice, out of order, or is no case of this run"
            raise DatasetError(f"{path}: a result {problem}", field="case", value=wanted, fix="run the suite into a new folder")
        if record.get("user_id") != case.user_id or not {"status", "items"} <= record.keys():
            raise DatasetError(
                f"{path}: the result of case {number} is not of its user",
                field="user_id",
                value=record.get("user_id"),
                fix="run the suite into a new folder",
            )
        yield number, case, record


def _order(folder: RunFolder, case: Case, record: Mapping[str, Any]) -> Sequence[str]:
    if record["items"] or record["status"] != "error":
        return [item["id"] for item in record["items"]]
    # A request that could not be ranked at all: what a user would see is what was there.
    return case.candidates if case.candidates is not None else [item.id for item in folder.catalog.items]
