"""A prepared run goes in; its rankers rank what is left to rank, and results, shuffles and probes are in its folder."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from llmrank._portal import Portal
from llmrank.errors import BackendError, ConfigError, LLMRankError, nearest
from llmrank.evaluation.cases import Case
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.detectable import DetectableEffect, detectable_effect
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.probing.probe import MAX_TOKENS, probe
from llmrank.evaluation.records import error_text
from llmrank.evaluation.running.asking import (
    Answered,
    BrokenError,
    OutOfBudgetError,
    Question,
    RunStoppedError,
    ask_here,
    ask_in_batches,
    spender,
)
from llmrank.evaluation.running.baselines import Baseline
from llmrank.evaluation.running.contenders import is_baseline, price_at
from llmrank.evaluation.running.learning import trained
from llmrank.evaluation.running.log import ResultLog
from llmrank.evaluation.running.meter import Meter
from llmrank.evaluation.running.on_ray import ask_on_ray
from llmrank.evaluation.running.opened import OpenContenders
from llmrank.evaluation.running.pace import Pace, Purse, WatchedBackend
from llmrank.evaluation.suite import StabilityOptions, Suite
from llmrank.files import write_whole
from llmrank.forecast import Forecast, forecast
from llmrank.prices import Prices
from llmrank.progress import progress
from llmrank.ranker import Ranker
from llmrank.template import Templates
from llmrank.types import Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Engine: TypeAlias = Literal["local", "ray", "openai-batch"]
Via: TypeAlias = Literal["openai", "files"]

Ask: TypeAlias = Callable[[Callable[[str], None]], Answered]
"""Begins to ask; it is given what to say progress to."""

FATAL = frozenset(
    {
        "AuthenticationError",
        "PermissionDeniedError",
        "ModelNotFoundError",
        "QuotaError",
        "SetupError",
        "ConfigError",
        "CapabilityError",
        "ClosedError",
    }
)
"""Errors that are no case's own: every other case would meet them too, so the run stops and they are no results."""

Numbers: TypeAlias = "NDArray[np.intp]"

PROBE_TOKENS = 200
"""What a prompt of the memorisation probe is reckoned at: a template's sentences and up to twenty titles."""

FORECAST_CASES = 50
"""How many cases a forecast looks at."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out; nothing of this shapes its results.

    Attributes:
        limit: Only the first so many cases; a later run without it goes on with the others.
        budget_usd: Stop before more than this is spent, by this and earlier sessions together.
        retry_errors: Ask again for the cases that failed.
        engine: ``local`` asks from this process, ``ray`` schedules shards on a Ray cluster, ``openai-batch`` asks by files.
        workers: For ``ray``: how many shards at once.
        address: For ``ray``: the cluster's; None for one on this machine.
        rows: For ``ray``: how many cases a shard has.
        via: For ``openai-batch``: ``openai`` submits the files, ``files`` leaves that to you.
        poll_s: For ``openai-batch``: seconds between two looks at a batch, at first; the pauses grow.
        report: Whether to write the report at the end, which takes seconds; `finish` writes it later.
    """

    limit: int | None = None
    budget_usd: float | None = None
    retry_errors: bool = False
    engine: Engine = "local"
    workers: int = 2
    address: str | None = None
    rows: int = 500
    via: Via = "openai"
    poll_s: float = 15.0
    report: bool = True

    def __post_init__(self) -> None:
        for name in ("limit", "workers", "rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError("must be at least 1", field=name, value=value, fix="or leave it out")
        for name, known in (("engine", get_args(Engine)), ("via", get_args(Via))):
            if getattr(self, name) not in known:
                raise ConfigError(
                    "unknown", field=name, value=getattr(self, name), fix=nearest(str(getattr(self, name)), known)
                )
        if self.budget_usd is not None and not self.budget_usd > 0:
            raise ConfigError("must be above 0", field="budget_usd", value=self.budget_usd, fix="or leave it out")


class Session:
    """One session's work on a run.

    Args:
        suite: What is asked.
        folder: The run's, prepared.
        options: How it is carried out.
        prices: What models cost.
        contenders: Opens the rankers; closed by the caller.
    """

    def __init__(
        self, suite: Suite, folder: RunFolder, options: RunOptions, prices: Prices, contenders: OpenContenders
    ) -> None:
        self.suite, self.folder, self.options, self.prices = suite, folder, options, prices
        self._contenders = contenders
        self.cases = int(folder.manifest["cases"])
        self.planned = self.cases if options.limit is None else min(self.cases, options.limit)
        self.failures = 0
        self._broken = False
        self._expected: dict[str, float] = {}

    def spent(self) -> float:
        """What all sessions spent, in USD."""
        with self._meter() as meter:
            return meter.usd

    def forecasts(self) -> dict[str, Forecast]:
        """What is left to do for each ranker with a model; building each finds mistakes before anything is spent."""
        effect = self._effect()
        found = {}
        for name in self.suite.rankers:
            contender = self._contender(name, None)
            if not isinstance(contender, Ranker):
                continue
            with self._log(name) as log:
                left = log.outstanding(self.planned)
            shuffled = self._shuffles_left(name)
            # Where nothing but shuffles is left, they are like any cases.
            sample = [each.request for each in self._questions(_spread(left if len(left) else np.arange(self.planned)))]
            batch = self.options.engine == "openai-batch"
            each = forecast(contender, sample, len(left) + shuffled, self.prices, batch=batch)
            self._expected[name] = (each.usd or 0.0) / max(1, len(left) + shuffled)
            if shuffled:
                said = f"{shuffled} of the requests are for shuffled candidates (stability)"
                each = replace(each, assumptions=(*each.assumptions, said))
            found[name] = replace(self._with_probe(name, contender, each), minimum_detectable_effect=effect)
        return found

    def _shuffles_left(self, name: str) -> int:
        """How often `stability` still asks for a ranker's first cases."""
        options = self.suite.stability
        if options is None:
            return 0
        with self._shuffle_log(name, options) as log:
            return len(log.outstanding(min(options.cases, self.planned) * options.shuffles))

    def _shuffle_log(self, name: str, options: StabilityOptions) -> ResultLog:
        log = ResultLog(self.folder.stability_path(name), self.cases * options.shuffles, "question")
        if self.options.retry_errors:
            log.forget_failures()
        return log

    def _with_probe(self, name: str, ranker: Ranker, without: Forecast) -> Forecast:
        """A forecast with what the memorisation probe will take beside it, at most."""
        prompts = self._probe_prompts(name)
        if not prompts:
            return without
        usd = self._probe_usd(name, ranker)
        said = (
            f"the memorisation probe asks up to {prompts} more prompts, reckoned at {PROBE_TOKENS} tokens each "
            f"and {MAX_TOKENS} of answer, which is high"
        )
        return replace(
            without,
            calls=without.calls + prompts,
            calls_most=None if without.calls_most is None else without.calls_most + prompts,
            prompt_tokens=without.prompt_tokens + prompts * PROBE_TOKENS,
            completion_tokens=without.completion_tokens + prompts * MAX_TOKENS,
            usd=None if without.usd is None or usd is None else without.usd + usd,
            assumptions=(*without.assumptions, said),
        )

    def _probe_prompts(self, name: str) -> int:
        """How many prompts the probe asks a ranker's model at most: a history is asked in its order, and shuffled."""
        options = self.suite.memorization
        if options is None or is_baseline(self.suite.rankers[name]) or name in (self.folder.memorization or {}):
            return 0
        return options.titles + 2 * options.histories

    def _probe_usd(self, name: str, ranker: Ranker) -> float | None:
        prompts = self._probe_prompts(name)
        price = price_at(self.suite.rankers[name], ranker.backend.model, self.prices)
        usage = Usage(prompt_tokens=prompts * PROBE_TOKENS, completion_tokens=prompts * MAX_TOKENS)
        return None if price is None else price.usd(usage)

    def check_budget(self, forecasts: Mapping[str, Forecast]) -> None:
        """Refuses a budget that cannot be kept."""
        budget = self.options.budget_usd
        if budget is None:
            return
        for name, each in forecasts.items():
            if each.usd is None:
                raise ConfigError(
                    f"the price of the model of {name!r} is not known, so no budget can be kept",
                    field="budget_usd",
                    value=budget,
                    fix="give it in the suite: prices: {MODEL: {input: USD a million tokens, output: ..., batch: 0.5}}",
                )
        whole = self.spent() + sum(each.usd or 0.0 for each in forecasts.values())
        if self.options.engine != "local" and whole > budget:
            raise ConfigError(
                f"is less than what the run will cost, about {whole:.4f} USD, and {self.options.engine} asks for all at once",
                field="budget_usd",
                value=budget,
                fix="take fewer cases with --limit, or a larger budget",
            )

    def rank_everything(self) -> str | None:
        """Lets every ranker rank every case; gives the reasons if it cannot be done now.

        What stops one ranker (its model is not there) does not stop the others; an empty purse stops all.
        """
        reasons: list[str] = []
        with self._meter() as meter:
            for work in (self._rank, self._measure_stability, self._probe):
                for name in self.suite.rankers:
                    try:
                        work(name, meter)
                    except OutOfBudgetError as stop:
                        return "; ".join([*reasons, str(stop)])
                    except RunStoppedError as stop:
                        self._broken |= isinstance(stop, BrokenError)
                        reasons.append(f"{name}: {stop}")
                if reasons:
                    break  # shuffles and probes are for rankers that work
        return "; ".join(reasons) or None

    @property
    def in_vain(self) -> bool:
        """Whether something was wrong with every case, and no ranker with a model has any result."""
        names = [name for name, config in self.suite.rankers.items() if not is_baseline(config)]
        return self._broken and all(next(self.folder.results(name), None) is None for name in names)

    def _rank(self, name: str, meter: Meter) -> None:
        with self._log(name) as log:
            try:
                self._rank_all(name, log, meter, log.outstanding(self.planned))
            finally:
                self.failures += log.failed

    def _meter(self) -> Meter:
        return Meter(self.folder.path / "spent.jsonl")

    def _log(self, name: str) -> ResultLog:
        log = ResultLog(self.folder.results_path(name), self.cases)
        if self.options.retry_errors:
            log.forget_failures(self.planned)
        return log

    def _contender(self, name: str, meter: Meter | None) -> Ranker | Baseline:
        return self._contenders.get(
            name, self.suite.rankers[name], self.folder, seed=self.suite.seed, prices=self.prices, meter=meter
        )

    def _questions(self, numbers: Numbers) -> Iterator[Question]:
        """The cases with these numbers, which rise."""
        wanted = iter(numbers.tolist())
        following = next(wanted, None)
        for number, case in enumerate(self.folder.cases()):
            if following is None:
                return
            if number == following:
                yield Question(number, {}, case.request)
                following = next(wanted, None)

    def _rank_all(self, name: str, log: ResultLog, meter: Meter, numbers: Numbers) -> None:
        """Asks for the cases that have no result, with the engine that was chosen."""
        if not len(numbers):
            return
        config, options, trace = self.suite.rankers[name], self.options, self.suite.traces
        elsewhere = options.engine != "local" and not is_baseline(config)
        spend = spender(meter, name, lambda model: price_at(config, model, self.prices), batch=options.engine == "openai-batch")
        if elsewhere and options.engine == "ray":
            self._contenders.close()  # the workers have models of their own: this process keeps none beside them
            wanted = set(map(int, numbers))
            config = trained(config, self.folder, f"rankers.{name}")  # here, so that no worker has to
            places: dict[str, Any] = {"rows": options.rows, "workers": options.workers, "address": options.address}
            self._collect(
                f"ranking: {name}",
                lambda say: ask_on_ray(self.folder, name, config, wanted, trace=trace, spend=spend, **places),
                log,
                meter,
                self.planned,
            )
            return
        contender = self._contender(name, None if elsewhere else meter)
        purse = Purse(options.budget_usd, meter, self._expected.get(name, 0.0))

        def ask(say: Callable[[str], None]) -> Answered:
            if not (elsewhere and isinstance(contender, Ranker)):
                return ask_here(contender, self._questions(numbers), purse, trace=trace)
            return ask_in_batches(
                contender,
                lambda: self._questions(numbers),
                self.folder.path / "batch" / name,
                via=options.via,
                poll_s=options.poll_s,
                trace=trace,
                retry_errors=options.retry_errors,
                spend=spend,
                say=say,
            )

        # What a baseline says costs nothing to say again: waiting for the disk each time would be most of its work.
        self._collect(f"ranking: {name}", ask, log, meter, self.planned, sync=not is_baseline(config))
        self._refuse_empty(purse, meter)

    def _collect(self, title: str, ask: Ask, log: ResultLog, meter: Meter, total: int, *, sync: bool = True) -> None:
        """Asks, and writes down what is answered, as it comes."""
        with progress(title, "items") as report:
            pace = Pace(log.done, total, meter, report)
            with _stopping(), closing(ask(pace.say)) as answered:
                for number, record in answered:
                    _refuse_fatal(record["error"])
                    log.add(number, record, sync=sync)
                    pace.show(log.done, log.failed)

    def _refuse_empty(self, purse: Purse, meter: Meter) -> None:
        if purse.empty:
            raise self._out_of_budget(meter)

    def _out_of_budget(self, meter: Meter) -> OutOfBudgetError:
        if meter.unpriced:
            return OutOfBudgetError(
                f"{meter.unpriced} answers came from a model without a price, so no budget can be kept; spent.jsonl has its "
                "name: give it a price in the suite, and name another folder with --out"
            )
        return OutOfBudgetError(
            f"the budget of {self.options.budget_usd} USD is used up ({meter.usd:.4f} USD spent); "
            "run again with a larger one to go on"
        )

    def _measure_stability(self, name: str, meter: Meter) -> None:
        """Asks again with the candidates of the first cases shuffled; baselines do not look at their order."""
        options = self.suite.stability
        if options is None or is_baseline(self.suite.rankers[name]):
            return
        count = min(options.cases, self.planned)
        with self._shuffle_log(name, options) as log:
            outstanding = log.outstanding(count * options.shuffles)
            if not len(outstanding):
                return
            purse = Purse(self.options.budget_usd, meter, self._expected.get(name, 0.0))
            contender = self._contender(name, meter)
            questions = self._shuffled(set(map(int, outstanding)), count, options.shuffles)
            title, total = f"ranking shuffled candidates: {name}", count * options.shuffles
            self._collect(title, lambda say: ask_here(contender, questions, purse, trace=False), log, meter, total)
            self._refuse_empty(purse, meter)

    def _shuffled(self, outstanding: set[int], count: int, shuffles: int) -> Iterator[Question]:
        for number, case in enumerate(islice(self.folder.cases(), count)):
            for shuffle in range(1, shuffles + 1):
                question = number * shuffles + shuffle - 1
                if question in outstanding and case.candidates is not None:
                    request = replace(case.request, candidates=_shuffle(case, self.suite.seed, shuffle))
                    yield Question(question, {"case": number, "shuffle": shuffle}, request)

    def _probe(self, name: str, meter: Meter) -> None:
        """Asks a model what it knows by heart; what it answered is kept in the answer cache, so this may be done again."""
        options, prompts = self.suite.memorization, self._probe_prompts(name)
        if options is None or not prompts:
            return
        contender = self._contender(name, meter)
        portal = Portal()
        try:
            if isinstance(contender, Ranker):
                budget, usd = self.options.budget_usd, self._probe_usd(name, contender) or 0.0
                if budget is not None and meter.usd + usd > budget:
                    raise self._out_of_budget(meter)
                section = self.suite.rankers[name].get("prompt") or {}
                with progress(f"probing what it knows by heart: {name}", "items") as report:
                    ask = partial(
                        probe,
                        WatchedBackend(contender.backend, lambda done: report(done, prompts)),
                        self.folder.catalog,
                        self.folder.cases(),
                        titles=options.titles,
                        histories=options.histories,
                        seed=self.suite.seed,
                        fields=section.get("fields", ("title",)),
                        variables=section.get("variables"),
                        templates=Templates(*section.get("directories", ())),
                    )
                    self._keep_probe(name, portal.call(ask))
        except BackendError as error:
            raise RunStoppedError(f"the memorisation probe got no answer: {error_text(error)}; run again to go on") from error
        finally:
            portal.finish(_nothing)

    def _keep_probe(self, name: str, found: dict[str, Any]) -> None:
        known = {**(self.folder.memorization or {}), name: found}
        write_whole(self.folder.path / "memorization.json", [json.dumps(known, indent=1, ensure_ascii=False) + "\n"])

    def _effect(self) -> DetectableEffect | None:
        """The smallest differences in the primary measure that the planned cases are likely to show, if it can be told now."""
        return detectable_effect(parse_measure(self.suite.primary), islice(self.folder.cases(), self.planned))


async def _nothing() -> None:
    """The backend is closed with its Ranker."""


@contextmanager
def _stopping() -> Iterator[None]:
    """What an engine raises for all of its cases (no key, no such API) stops the ranker, and keeps what there is."""
    try:
        yield
    except LLMRankError as error:
        raise BrokenError(f"{error_text(error)}; run again to go on when it is mended") from error


def _refuse_fatal(error: str | None) -> None:
    if (error or "").partition(":")[0] in FATAL:
        raise BrokenError(f"{error}; run again to go on when it is mended")


def _spread(numbers: Numbers) -> Numbers:
    """At most `FORECAST_CASES` of the numbers, evenly spread: files may be sorted by what makes prompts long."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(FORECAST_CASES, len(numbers))).round().astype(np.intp))
    return np.take(numbers, places)


def _shuffle(case: Case, seed: int, shuffle: int) -> tuple[str, ...]:
    """The candidates in another order, which depends on the case's user and nothing else."""
    candidates = list(case.candidates or ())
    # As bytes, because an id may hold half a surrogate pair; the draws are the same.
    random.Random(f"{seed}:{case.user_id}:{shuffle}".encode(errors="surrogatepass")).shuffle(candidates)  # noqa: S311
    return tuple(candidates)
