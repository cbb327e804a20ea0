"""A suite, a folder and places go in; every case is ranked with its relevant candidate at each place, NDCG by place comes out.

The measurement of Hou et al. 2024, "Large Language Models are Zero-Shot Rankers for Recommender Systems" (ECIR), figure 3. The
folder is one of `evaluate`: data are frozen in it, answers kept, results on disk one by one, so that a study that was broken
off goes on and nothing is paid for twice; the same folder may hold a run of the suite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrank.errors import ConfigError, DatasetError, LLMRankError, nearest
from llmrank.evaluation.cases import Case
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.estimate import Estimate, Estimator, number
from llmrank.evaluation.measures.metrics import ndcg_at
from llmrank.evaluation.measures.outcomes import FAILED
from llmrank.evaluation.measures.statistics import Spread, spread_of_means
from llmrank.evaluation.run import Evaluation, locked
from llmrank.evaluation.running.asking import Question, ask_here
from llmrank.evaluation.running.contenders import Contender, is_baseline, templates_of
from llmrank.evaluation.running.log import ResultLog
from llmrank.evaluation.running.meter import Meter
from llmrank.evaluation.running.opened import OpenContenders
from llmrank.evaluation.running.pace import Pace, Purse
from llmrank.evaluation.running.prepare import Given, prepare
from llmrank.evaluation.running.session import FATAL
from llmrank.evaluation.seal import refuse_sealed
from llmrank.evaluation.suite import Suite, load_suite
from llmrank.files import read_lines, write_whole
from llmrank.forecast import Forecast, evenly, forecast
from llmrank.prices import Prices
from llmrank.progress import progress
from llmrank.ranker import Ranker

if TYPE_CHECKING:
    from llmrank.evaluation.report.parts import Table

STEPS = 4
"""Into how many steps the shortest list is cut, unless the caller says otherwise: about as in figure 3."""

CASES = 50
"""How many cases are ranked, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class AtPlace:
    """A ranker with what is relevant at one place.

    Attributes:
        place: In the list given, from 1.
        ndcg: Mean NDCG@k with its interval.
        failed: In how many cases no answer could be read, errors included.
        errors: In how many there was no answer.
        moved: In how many cases the model was shown it at another place, as a prefilter orders what it lets through.
    """

    place: int
    ndcg: Estimate
    failed: int
    errors: int
    moved: int


@dataclass(frozen=True, slots=True)
class RankerPositions:
    """A ranker by the place of what is relevant.

    Attributes:
        places: In the order of the places.
        spread: Of the means; its `p` is of "the place does not matter".
    """

    places: tuple[AtPlace, ...]
    spread: Spread


@dataclass(frozen=True, slots=True)
class Positions:
    """What a study came to.

    Attributes:
        folder: Where everything is.
        protocol: How the cases were made, a sentence.
        k: Of NDCG@k.
        cases: How many cases were ranked, at every place.
        users: Of how many users they are.
        confidence: Of the intervals.
        rankers: By name.
        forecasts: By ranker with a model, what was still to be asked.
    """

    folder: RunFolder
    protocol: str
    k: int
    cases: int
    users: int
    confidence: float
    rankers: Mapping[str, RankerPositions]
    forecasts: Mapping[str, Forecast]

    @property
    def failures(self) -> int:
        """Rankings with status ``error``, of all rankers."""
        return sum(each.errors for found in self.rankers.values() for each in found.places)

    def as_dict(self) -> dict[str, Any]:
        """What `positions.json` holds."""
        return {
            "protocol": self.protocol,
            "measure": f"ndcg@{self.k}",
            "cases": self.cases,
            "users": self.users,
            "confidence": self.confidence,
            "rankers": {
                name: {
                    "places": [asdict(each) for each in found.places],
                    "spread": {
                        "value": number(found.spread.value),
                        "by_chance": number(found.spread.by_chance),
                        "p": number(found.spread.p),
                    },
                }
                for name, found in self.rankers.items()
            },
        }

    def tables(self) -> tuple[Table, ...]:
        """A table a ranker."""
        from llmrank.evaluation.report.tables.positions import positions_tables

        return positions_tables(self)


def positions(
    suite: str | Path | Mapping[str, Any] | Suite,
    out: str | Path,
    *,
    rankers: Sequence[str] | None = None,
    at: Sequence[int] | None = None,
    limit: int | None = CASES,
    k: int = 10,
    retry_errors: bool = False,
    on_start: Callable[[Evaluation], None] | None = None,
    items: Any = None,
    interactions: Any = None,
) -> Positions:
    """Measures how much the place of the relevant candidate decides, or goes on with it.

    Cases with exactly one relevant item, that is among at least as many candidates as the last place, are ranked once for each
    place, with that item there; the other candidates keep their order. Failures count as the suite's `failures` says.

    Args:
        suite: A suite file, a dict of the same form, or a Suite.
        out: The folder, new or of the same suite.
        rankers: Their names; None for all of the suite.
        at: The places, from 1; None for five, spread evenly over the shortest list of candidates: 1, 6, 11, 16, 20 of twenty.
        limit: Only the first so many such cases; None for all.
        k: Of NDCG@k.
        retry_errors: True asks again for what got no answer.
        on_start: Told of the forecasts before anything is spent.
        items, interactions: As for `evaluate`.

    Returns:
        What came of it; `positions.json` and `positions.md` in the folder say the same of the rankers asked for.

    Raises:
        ConfigError: the suite is wrong or not that of the folder; there is no such ranker or place.
        DatasetError: the data are wrong, no case is fit, or another run is at work in the folder, or an experiment.
        LLMRankError: what is wrong with every case: a key, a model that is not there.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    names = _names(suite, rankers)
    _check(at, limit, k)
    refuse_sealed(Path(out))
    prices = Prices.load(suite.prices)
    templates = {name: templates_of(config) for name, config in suite.rankers.items()}
    with locked(Path(out)):
        folder, changes = prepare(suite, out, templates, Given.of(items, interactions))
        with OpenContenders() as contenders:
            study = _Study(suite, folder, at, limit, prices, contenders)
            planned = study.cases * len(study.places)
            begun = Evaluation(folder, None, study.forecasts(names, retry_errors), planned, changes=changes)
            if on_start is not None:
                on_start(begun)
            with Meter(folder.path / "spent.jsonl") as meter:
                for name in names:
                    study.rank(name, meter, retry_errors)
        places = ", ".join(map(str, study.places))
        found = Positions(
            folder,
            f"{folder.manifest['protocol']}; each case ranked with what is relevant at places {places}",
            k,
            study.cases,
            study.users,
            suite.confidence,
            {name: study.measure(name, k) for name in names},
            begun.forecasts,
        )
        _write(found)
    return found


class _Study:
    """One session's work.

    Args:
        suite: What is asked.
        folder: With its data.
        at: The places; None for some that are spread over the shortest list.
        limit: How many cases; None for all.
        prices: What models cost.
        contenders: Opens the rankers; closed by the caller.

    Raises:
        DatasetError: no case is fit.
    """

    def __init__(
        self,
        suite: Suite,
        folder: RunFolder,
        at: Sequence[int] | None,
        limit: int | None,
        prices: Prices,
        contenders: OpenContenders,
    ) -> None:
        self._suite, self._folder, self._limit, self._prices = suite, folder, limit, prices
        self._contenders = contenders
        self.places = (1, 2) if at is None else tuple(sorted(at))
        chosen = [(case.user_id, len(case.candidates or ())) for _, case in self._chosen()]
        self.cases, self.users = len(chosen), len({user for user, _ in chosen})
        if not chosen:
            raise DatasetError(
                f"no case has exactly one relevant item that is among at least {self.places[-1]} candidates",
                field="cases",
                fix="name smaller places (--at), or make longer lists (protocol.candidates.n)",
            )
        if at is None:
            self.places = _spread(min(length for _, length in chosen))

    def forecasts(self, names: Sequence[str], retry_errors: bool) -> dict[str, Forecast]:
        """What is left to ask for each ranker with a model; building each finds mistakes before anything is spent."""
        found = {}
        for name in names:
            contender = self._contender(name, None)
            if isinstance(contender, Ranker):
                left = sum(1 for _ in self._left(name, retry_errors))
                requests = (question.request for question in self._left(name, retry_errors))
                found[name] = forecast(contender, evenly(requests, left), left, self._prices)
        return found

    def rank(self, name: str, meter: Meter, retry_errors: bool) -> None:
        """Asks for what has no result yet.

        Raises:
            LLMRankError: what every case would meet.
        """
        contender = self._contender(name, meter)
        total = self.cases * len(self.places)
        # A baseline costs nothing to ask again: waiting for the disk each time would be most of its work.
        sync = not is_baseline(self._suite.rankers[name])
        with progress(f"ranking by place: {name}", "items") as report:
            done, failed = total - sum(1 for _ in self._left(name, retry_errors)), 0
            pace = Pace(done, total, meter, report)
            for place in self.places:
                with self._log(name, place, retry_errors) as log:
                    questions = self._questions(place, log)
                    with closing(ask_here(contender, questions, Purse(None, meter), trace=False)) as answered:
                        for case, record in answered:
                            _refuse_fatal(name, record["error"])
                            log.add(case, record, sync=sync)
                            done, failed = done + 1, failed + (record["status"] == "error")
                            pace.show(done, failed)

    def measure(self, name: str, k: int) -> RankerPositions:
        """Means with intervals, and their spread."""
        values = np.zeros((self.cases, len(self.places)))
        failed, errors, moved = ([0] * len(self.places) for _ in range(3))
        worst = self._suite.failures == "worst"
        for column, place in enumerate(self.places):
            records = read_lines(self._folder.positions_path(name, place))
            for row, (case_number, case) in enumerate(self._chosen()):
                record = next(each for each in records if each["case"] == case_number)  # both rise
                unread = record["status"] in FAILED
                failed[column] += unread
                errors[column] += record["status"] == "error"
                moved[column] += _shown_elsewhere(case, place, record["shown"])
                order = [item["id"] for item in record["items"]] or _with_relevant_at(case, place)
                values[row, column] = 0.0 if unread and worst else ndcg_at(order, case.relevant, k)
        users = np.unique([case.user_id for _, case in self._chosen()], return_inverse=True)[1].astype(np.int64)
        estimator = Estimator(confidence=self._suite.confidence, resamples=self._suite.resamples, seed=self._suite.seed)
        means = estimator.columns(values, users, shares=range(len(self.places)))
        return RankerPositions(
            tuple(map(AtPlace, self.places, means, failed, errors, moved)),
            spread_of_means(values, users, seed=self._suite.seed),
        )

    def _contender(self, name: str, meter: Meter | None) -> Contender:
        config = self._suite.rankers[name]
        return self._contenders.get(name, config, self._folder, seed=self._suite.seed, prices=self._prices, meter=meter)

    def _log(self, name: str, place: int, retry_errors: bool) -> ResultLog:
        log = ResultLog(self._folder.positions_path(name, place), int(self._folder.manifest["cases"]))
        if retry_errors:
            log.forget_failures()
        return log

    def _left(self, name: str, retry_errors: bool) -> Iterator[Question]:
        """What has no result yet, at all places."""
        for place in self.places:
            with self._log(name, place, retry_errors) as log:
                yield from self._questions(place, log)

    def _questions(self, place: int, log: ResultLog) -> Iterator[Question]:
        """The cases that the log has no result of, with what is relevant at the place."""
        left = set(log.outstanding().tolist())
        for case_number, case in self._chosen():
            if case_number in left:
                yield Question(case_number, {}, replace(case.request, candidates=_with_relevant_at(case, place)))

    def _chosen(self) -> Iterator[tuple[int, Case]]:
        """The cases that are fit, with their numbers, in order."""
        found = 0
        for case_number, case in enumerate(self._folder.cases()):
            if found == self._limit:
                return
            listed = case.candidates or ()
            if len(set(case.relevant)) == 1 and case.relevant[0] in listed and len(listed) >= self.places[-1]:
                found += 1
                yield case_number, case


def _spread(length: int) -> tuple[int, ...]:
    """The ends of a list and places between them at even distances, as far as there are so many."""
    return tuple(sorted({1 + math.ceil(step * (length - 1) / STEPS) for step in range(STEPS + 1)}))


def _with_relevant_at(case: Case, place: int) -> tuple[str, ...]:
    """The candidates with what is relevant at a place (from 1); the others keep their order."""
    others = [each for each in case.candidates or () if each != case.relevant[0]]
    return (*others[: place - 1], case.relevant[0], *others[place - 1 :])


def _shown_elsewhere(case: Case, place: int, shown: Sequence[str]) -> bool:
    """Whether the model was shown what is relevant at another place, or not at all; False where nothing was shown."""
    return bool(shown) and (len(shown) < place or shown[place - 1] != case.relevant[0])


def _names(suite: Suite, rankers: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(suite.rankers) if not rankers else tuple(dict.fromkeys(rankers))
    for name in names:
        if name not in suite.rankers:
            raise ConfigError("no such ranker in the suite", field="ranker", value=name, fix=nearest(name, suite.rankers))
    return names


def _check(at: Sequence[int] | None, limit: int | None, k: int) -> None:
    if at is not None and (len(at) < 2 or len(set(at)) < len(at) or min(at) < 1):
        fix = "name two or more different ones, counted from 1: 1,6,11,16,20"
        raise ConfigError("are no places to compare", field="at", value=",".join(map(str, at)), fix=fix)
    for field, value in (("limit", limit), ("k", k)):
        if value is not None and value < 1:
            raise ConfigError("must be at least 1", field=field, value=value, fix="or leave it out")


def _refuse_fatal(name: str, error: str | None) -> None:
    if (error or "").partition(":")[0] in FATAL:
        raise LLMRankError(f"{name}: {error}; run again to go on when it is mended")


def _write(found: Positions) -> None:
    from llmrank.evaluation.report.markdown import table_markdown

    path = found.folder.path
    write_whole(path / "positions.json", [json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n"])
    chunks = ["# Position study\n"]
    for table in found.tables():
        chunks += ["\n", *table_markdown(table)]
    write_whole(path / "positions.md", chunks)
