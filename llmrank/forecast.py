"""A ranker and a sample of requests go in; what ranking all of them will take in calls, tokens, money and time comes out.

Nothing is asked, embedded or loaded: the strategy's own flows run with answers that are assumed, so that windows, steps and
cuts are those of the run. The answers are those of a model with a taste of its own, one that has nothing to do with the order
shown: a sorting strategy so asks as many questions as it typically does. What had to be assumed is said
(`Forecast.assumptions`).
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from llmrank.backends.cache import CachedBackend
from llmrank.backends.local import LocalOptions
from llmrank.budget import DEFAULT_WINDOW, Budget, tiktoken_counter
from llmrank.driver import advance
from llmrank.errors import InputError, RequestError
from llmrank.prices import MILLION, VARIABLE, Prices
from llmrank.protocols import Backend, Flow, Strategy, TokenCounter
from llmrank.ranker import MOST_UNFILTERED, Ranker
from llmrank.resolve import resolve
from llmrank.strategies.calls import Calls
from llmrank.types import Completion, ContinuationScore, Prompt, RankRequest, ResolvedRequest, Usage

if TYPE_CHECKING:
    from llmrank.evaluation.measures.detectable import DetectableEffect

SAMPLE = 50
"""The most requests that are looked at."""

FREE_TOKENS = 150
"""What an answer in free words (an earlier step of a template) is assumed to take: a short paragraph."""

OBJECT_TOKENS = 100
"""What an object with the wishes, dislikes and constraints of a sentence is assumed to take."""

LOCAL_READS, LOCAL_WRITES = 100, 60
"""Tokens a second of the default embedded model on 2 busy cores, in round numbers; `eval/bench_local.py` measures them anew."""

SURE = 4.0
"""How much more likely, in natural logarithms, the most liked item is than the least liked one."""

_OWN_TOKENIZER = frozenset({"local", "vllm", "vllm-inprocess"})
"""Backends that count with the model's own tokenizer when they run."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will take.

    Attributes:
        calls: Answers that the model has to compute; retries are not among them.
        prompt_tokens, completion_tokens: Of all calls.
        usd: US dollars; None if the model's price is not known.
        seconds: How long it takes; None where only the server could tell.
        assumptions: What was assumed, a sentence each.
        calls_least, calls_most: The bounds of `calls` that the strategy states, whatever the model answers, for requests like
            those looked at; None where it states none, where one prompt takes several calls of this backend, or where the
            window was too small for the questions as they were planned.
        rounds: How many steps a ranking takes, one after the other, on average: what is asked in one step is asked at once.
        requests: How many requests the numbers are for.
        sampled: How many of them were looked at.
        standard_error: Of `calls`, `prompt_tokens`, `completion_tokens` and (where it is known) `usd`, from the differences
            between the requests looked at; 0 if these are all.
        minimum_detectable_effect: The smallest differences in the primary measure that the cases are likely to show, where the
            caller has set them.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    usd: float | None
    seconds: float | None
    assumptions: tuple[str, ...]
    calls_least: int | None = None
    calls_most: int | None = None
    rounds: float = 0.0
    requests: int = 0
    sampled: int = 0
    standard_error: Mapping[str, float] = field(default_factory=dict)
    minimum_detectable_effect: DetectableEffect | None = None

    def lines(self) -> list[str]:
        """The forecast for people: what will be asked, what it costs, how long it takes, and each assumption."""
        found = [
            f"{self.requests:,} requests, forecast from {self.sampled:,}",
            self._calls(),
            f"{self._with_error('prompt_tokens')} prompt tokens, {self._with_error('completion_tokens')} answer tokens",
        ]
        if self.usd is None:
            found.append(f"cost unknown: no price is known; give one under `prices`, or in the file that {VARIABLE} names")
        else:
            error = self.standard_error.get("usd", 0.0)
            found.append(f"{money(self.usd)} USD" + (f" (± {money(2 * error)})" if error else ""))
        found.append("time unknown before the first answers" if self.seconds is None else f"about {_duration(self.seconds)}")
        if self.minimum_detectable_effect is not None:
            found.append(self.minimum_detectable_effect.line())
        return [*found, *(f"assumed: {each}" for each in self.assumptions)]

    def record(self) -> dict[str, Any]:
        """The forecast as JSON values, without the detectable effect."""
        return {
            "requests": self.requests,
            "sampled": self.sampled,
            "calls": self.calls,
            "calls_least": self.calls_least,
            "calls_most": self.calls_most,
            "rounds": self.rounds,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usd": self.usd,
            "seconds": self.seconds,
            "standard_error": dict(self.standard_error),
            "assumptions": list(self.assumptions),
        }

    def _calls(self) -> str:
        """How many, within which bounds, and in how many steps."""
        text = f"{self._with_error('calls')} calls"
        if self.calls_least is not None and self.calls_most is not None and self.calls_least < self.calls_most:
            text = f"between {self.calls_least:,} and {self.calls_most:,} calls, about {self._with_error('calls')}"
        return text if self.rounds <= 1 else f"{text}, in {_plain(self.rounds)} steps one after the other for each request"

    def _with_error(self, name: str) -> str:
        error = round(2 * self.standard_error.get(name, 0.0))
        return f"{getattr(self, name):,}" + (f" (± {error:,})" if error else "")


@dataclass(frozen=True, slots=True)
class _Cost:
    """What one prompt takes."""

    calls: int
    prompt_tokens: int
    completion_tokens: int = 0


@dataclass(slots=True)
class _Spent:
    """What one request takes; what all requests have in common is in `shared`, each prompt once, and nowhere else."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompts: int = 0
    rounds: int = 0
    bounds: Calls | None = None
    refused: bool = False
    shared: dict[Prompt, _Cost] = field(default_factory=dict)

    def add(self, prompt: Prompt, cost: _Cost) -> None:
        """Counts one prompt."""
        self.prompts += 1
        if prompt.shared:
            self.shared[prompt] = cost
            return
        self.calls += cost.calls
        self.prompt_tokens += cost.prompt_tokens
        self.completion_tokens += cost.completion_tokens


def forecast(
    ranker: Ranker, requests: Iterable[RankRequest], total: int, prices: Prices, *, batch: bool = False, strict: bool = False
) -> Forecast:
    """Forecasts what ranking `total` requests takes.

    Args:
        ranker: What will rank. It is neither changed nor closed, and its backend is not asked.
        requests: Some of them, drawn without a bent; at most `SAMPLE` are looked at.
        total: How many there are to rank.
        prices: What models cost.
        batch: True for the prices of a batch API.
        strict: True raises what is wrong with a request; by default an assumption says that it takes nothing.

    Returns:
        The mean of the requests looked at times `total`. The standard error is that of a sample drawn without putting back
        (Cochran 1977, "Sampling Techniques", chapter 2).

    Raises:
        InputError: as `strict` says.
    """
    backend = ranker.backend
    counter = tiktoken_counter(backend.model, likely=True)
    window = _configured_window(backend)
    budget = Budget(
        DEFAULT_WINDOW if window is None else window,
        counter if backend.kind in _OWN_TOKENIZER else tiktoken_counter(backend.model),
        assumed=window is None,
    )
    tally = _Tally(backend.kind, counter)
    refused: list[InputError] = []
    for each in islice(requests, SAMPLE):
        spent = tally.begin()
        try:
            request = resolve(each, ranker.catalog)
            advance(_in_rounds(_asked(ranker, request, budget, spent), tally.begin_round), tally.answer)
        except InputError as error:
            if strict:
                raise
            spent.refused = True
            refused.append(error)
    usage, errors, saved = tally.extrapolate(total, None if ranker.catalog is None else len(ranker.catalog))
    least, most = tally.bounds(total, saved)
    price = prices.at_backend(backend.kind, backend.model)
    usd = None if price is None else price.usd(usage, batch=batch)
    if price is not None and usd is not None:
        # A million of each, as the errors are no whole numbers. Long prompts have long answers: their errors add up.
        million = Usage(prompt_tokens=MILLION), Usage(completion_tokens=MILLION)
        read, written = ((price.usd(each, batch=batch) or 0.0) / MILLION for each in million)
        errors["usd"] = read * errors["prompt_tokens"] + written * errors["completion_tokens"]
    assumptions = _assumptions(ranker, budget, counter, tally)
    if price is not None and price.note:
        assumptions.append(price.note)
    if refused:
        assumptions.append(f"{len(refused)} of {len(tally.spent)} requests looked at cannot be ranked: {refused[0]}")
    return Forecast(
        calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        usd=usd,
        seconds=_seconds(backend, usage),
        assumptions=tuple(assumptions),
        calls_least=least,
        calls_most=most,
        rounds=tally.rounds(),
        requests=total,
        sampled=len(tally.spent),
        standard_error=errors,
    )


def evenly(requests: Iterable[RankRequest], total: int) -> Iterator[RankRequest]:
    """At most `SAMPLE` of `total` requests, evenly spread: files may be sorted by what makes prompts long."""
    number = min(SAMPLE, total)
    wanted = {place * (total - 1) // max(1, number - 1) for place in range(number)}
    return (request for place, request in enumerate(requests) if place in wanted)


class _Tally:
    """Answers prompts as a model would that makes no mistake and has a taste of its own, and notes what each took."""

    def __init__(self, kind: str, counter: TokenCounter) -> None:
        self.kind = kind
        self.counter = counter
        self.spent: list[_Spent] = []
        self.generates = False
        self.writes_freely = False
        self.scores = False
        self.reads_queries = False

    def begin(self) -> _Spent:
        """The prompts that follow are another request's."""
        self.spent.append(_Spent())
        return self.spent[-1]

    def begin_round(self) -> None:
        """The prompts that follow wait for the answers before them."""
        self.spent[-1].rounds += 1

    def answer(self, prompt: Prompt) -> Completion:
        """The assumed answer."""
        return self._score(prompt) if prompt.kind == "score" else self._generate(prompt)

    def _generate(self, prompt: Prompt) -> Completion:
        self.generates = True
        self.writes_freely |= prompt.answer == "free"
        self.reads_queries |= prompt.answer == "object"
        liking = _liking(prompt, prompt.labels)
        text, tokens = self._assumed(prompt, liking)
        answer_tokens = min(prompt.max_tokens, tokens)
        self.spent[-1].add(prompt, _Cost(1, self.counter.count_messages(prompt.messages), answer_tokens))
        logprobs = dict(zip(prompt.labels, _log_softmax(liking), strict=True)) if prompt.label_logprobs else None
        return Completion(text, "stop", label_logprobs=logprobs)

    def _assumed(self, prompt: Prompt, liking: Sequence[float]) -> tuple[str, int]:
        """What a model answers that keeps to the form, and its tokens."""
        order = [prompt.labels[place] for place in sorted(range(len(liking)), key=lambda place: -liking[place])]
        if prompt.answer in _WRITTEN:
            # Tokens are those of the order shown: it matters little, and one order for all makes no noise.
            write = _WRITTEN[prompt.answer]
            return write(order), self.counter.count(write(prompt.labels))
        if prompt.answer == "label":
            return (order[0] if order else ""), 1
        if prompt.answer == "object":
            return "{}", OBJECT_TOKENS
        return " ".join(["x"] * min(FREE_TOKENS, prompt.max_tokens)), FREE_TOKENS

    def _score(self, prompt: Prompt) -> Completion:
        self.scores = True
        calls, prefixes = _score_calls(self.kind, len(prompt.continuations))
        prefix = self.counter.count(prompt.prefix)
        self.spent[-1].add(prompt, _Cost(calls, prefix * prefixes + sum(map(self.counter.count, prompt.continuations))))
        liking = _liking(prompt, prompt.continuations)
        return Completion(scores=tuple(ContinuationScore(each - SURE - 1, 1) for each in liking))

    def extrapolate(self, total: int, pool: int | None) -> tuple[Usage, dict[str, float], float]:
        """The usage of `total` requests, its standard errors, and how many prompts need not be asked again.

        Args:
            total: How many requests there are.
            pool: How many items there are; None if that is not known.
        """
        if not self.spent:
            return Usage(), {"calls": 0.0, "prompt_tokens": 0.0, "completion_tokens": 0.0}, 0.0
        rows = {
            "calls": [each.calls for each in self.spent],
            "prompt_tokens": [each.prompt_tokens for each in self.spent],
            "completion_tokens": [each.completion_tokens for each in self.spent],
        }
        sums = {name: total * statistics.fmean(row) for name, row in rows.items()}
        different = 0.0
        for kind in ("score", "generate"):
            costs = [{prompt: cost for prompt, cost in each.shared.items() if prompt.kind == kind} for each in self.spent]
            # Texts that are scored alone are one an item; chats that all requests share show none.
            number = _different(costs, total, pool if kind == "score" else None)
            shared = {prompt: cost for each in costs for prompt, cost in each.items()}
            for cost in shared.values():
                for name in sums:
                    sums[name] += number * getattr(cost, name) / len(shared)
            different += number
        usage = Usage(round(sums["prompt_tokens"]), round(sums["completion_tokens"]), calls=round(sums["calls"]))
        saved = total * statistics.fmean(len(each.shared) for each in self.spent) - different
        return usage, {name: _standard_error(row, total) for name, row in rows.items()}, saved

    def bounds(self, total: int, saved: float) -> tuple[int | None, int | None]:
        """The fewest and the most calls of `total` requests, `saved` of which need not be made; None if they are not known."""
        found = []
        for each in self.spent:
            bounds = Calls(0, 0) if each.refused else each.bounds
            one_each = each.calls + sum(cost.calls for cost in each.shared.values()) == each.prompts
            if bounds is None or not (one_each and (each.refused or bounds.least <= each.prompts <= bounds.most)):
                return None, None
            found.append(bounds)
        if not found:
            return 0, 0
        least, most = ([getattr(each, name) for each in found] for name in ("least", "most"))
        return max(0, round(total * statistics.fmean(least) - saved)), round(total * statistics.fmean(most) - saved)

    def rounds(self) -> float:
        """The mean number of steps of a request that can be ranked."""
        ranked = [each.rounds for each in self.spent if not each.refused]
        return statistics.fmean(ranked) if ranked else 0.0


_WRITTEN: Mapping[str, Callable[[Sequence[str]], str]] = {
    "order": lambda labels: " > ".join(f"[{label}]" for label in labels),
    "json": lambda labels: json.dumps({"ranking": list(labels)}),
}
"""How all labels are written in each form of answer."""


def _different(sample: Sequence[Collection[Prompt]], total: int, pool: int | None) -> float:
    """How many different prompts `total` requests share.

    Where all requests looked at have the same ones, there are no more. If the prompts are one for each of `pool` items, of
    which a request shows k, n requests show pool * (1 - (1 - k / pool)**n) different ones if each is as likely to be shown.
    Else, how many were not seen is estimated from those that one and that two of the requests have (Chao 1987, "Estimating the
    population size for capture-recapture data with unequal catchability"; bias-corrected), and how many of these are to come
    from how many requests are (Colwell et al. 2012, "Models and estimators linking individual-based and sample-based
    rarefaction, extrapolation and comparison of assemblages").

    Args:
        sample: The shared prompts of each request looked at.
        total: How many requests there are.
        pool: How many prompts there can be; None if that is not known.
    """
    looked = len(sample)
    times = Counter(prompt for each in sample for prompt in each)
    mean = statistics.fmean(map(len, sample))
    if total <= looked or (looked > 1 and len(times) == max(map(len, sample))):
        return float(len(times))
    if pool:
        return pool * (1 - (1 - min(pool, mean) / pool) ** total)
    if looked == 1:
        return total * mean
    seen = Counter(times.values())
    once, twice = seen[1], seen[2]
    unseen = (looked - 1) / looked * once * (once - 1) / (2 * (twice + 1))
    to_come = unseen and 1 - (1 - once / (looked * unseen + once)) ** (total - looked)
    return len(times) + unseen * to_come


def _liking(prompt: Prompt, options: Sequence[str]) -> list[float]:
    """How much the assumed model likes each of the options of a prompt, from 0 to `SURE`.

    Where an option stands for an item, it is the taste for that item, the same in every prompt; where they are the words of a
    verdict about one item, the word whose place fits its taste is liked best.
    """
    if len(prompt.item_ids) == len(options):
        return [SURE * _taste(item_id) for item_id in prompt.item_ids]
    if len(prompt.item_ids) == 1:
        last = max(1, len(options) - 1)
        return [SURE * (1 - abs(place / last - _taste(prompt.item_ids[0]))) for place in range(len(options))]
    return [SURE * _taste(option) for option in options]


def _taste(name: str) -> float:
    """A number from 0 to 1 that depends on the name alone, and on nothing that a caller might have sorted by."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _log_softmax(values: Sequence[float]) -> list[float]:
    """Natural-log probabilities, as far apart as the values are."""
    total = math.log(sum(map(math.exp, values))) if values else 0.0
    return [value - total for value in values]


def _in_rounds(flow: Flow, begun: Callable[[], None]) -> Flow:
    """A flow that tells of each of its steps before it yields it."""
    try:
        step = next(flow)
        while True:
            begun()
            answers = yield step
            step = flow.send(answers)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]  # a flow returns a Ranking
    finally:
        flow.close()


def _asked(ranker: Ranker, request: ResolvedRequest, budget: Budget, spent: _Spent) -> Flow:
    """All that a ranking asks: about the query first, where it is read."""
    reads = ranker.understanding is not None and ranker.understanding.applies(request)
    request, _ = yield from ranker.understood(request, budget)
    request = _shortlist(ranker, request)
    ranking = yield from ranker.asked(request, budget)
    bounds = _bounds(ranker.strategy, ranker.request_asked(request))
    spent.bounds = bounds + Calls(1, 1) if reads and bounds is not None else bounds
    return ranking


def _bounds(strategy: Strategy, request: ResolvedRequest) -> Calls | None:
    """What a strategy says of its cost; None if it is somebody else's and says nothing.

    Raises:
        RequestError: it refuses so many candidates.
    """
    told: Callable[[int, int | None], Calls] | None = getattr(strategy, "calls", None)
    return None if told is None else told(len(request.candidates), request.top_k)


def _score_calls(kind: str, continuations: int) -> tuple[int, int]:
    """How many calls scoring takes, and how often the prefix is among the prompt tokens that are counted."""
    if kind == "vllm-inprocess":
        return continuations, continuations
    if kind == "vllm":
        from llmrank.backends.vllm import SCORED_AT_ONCE

        return math.ceil(continuations / SCORED_AT_ONCE), continuations
    return 1, 1


def _shortlist(ranker: Ranker, request: ResolvedRequest) -> ResolvedRequest:
    """The request with as many candidates as the prefilter would let through: the first ones, as nothing is embedded.

    Raises:
        RequestError: the run would refuse it, too.
    """
    if ranker.prefilter is not None:
        return replace(request, candidates=ranker.prefilter.as_given(request).candidates)
    if ranker.catalog is not None and request.candidates is ranker.catalog.items and len(ranker.catalog) > MOST_UNFILTERED:
        raise RequestError("the whole catalogue would be shown", field="candidates", fix="configure a prefilter")
    return request


def _configured_window(backend: Backend) -> int | None:
    """The window that the configuration names; a server that knows its own is not asked."""
    inner = backend
    while (deeper := getattr(inner, "inner", None)) is not None:  # retries, cache and what else stands around it
        inner = deeper
    # A backend of somebody else's need have no options; ours have, or name the window in their identity.
    named = getattr(getattr(inner, "options", None), "context_window", None) or inner.identity.get("context_window")
    return named if isinstance(named, int) else None


def _seconds(backend: Backend, usage: Usage) -> float | None:
    if backend.kind != "local" or backend.model != LocalOptions().model:  # another model has another speed
        return None
    return usage.prompt_tokens / LOCAL_READS + usage.completion_tokens / LOCAL_WRITES


def _assumptions(ranker: Ranker, budget: Budget, counter: TokenCounter, tally: _Tally) -> list[str]:
    kind = ranker.backend.kind
    found = [f"tokens are counted by {counter.name}"]
    if budget.assumed:
        found.append(f"the model's window is {budget.window:,} tokens, as the configuration names none")
    if ranker.prefilter is not None:
        kept = f"the prefilter keeps the first {ranker.prefilter.options.keep} candidates that were not seen"
        found.append(f"{kept}; what an embedding server takes is left out")
    if tally.generates:
        found.append("every answer has the form asked for; hidden reasoning is left out")
    if any(each.rounds > 1 for each in tally.spent):
        found.append("the model's order of the items has nothing to do with the order given")
    if tally.writes_freely:
        found.append(f"an answer in free words takes {FREE_TOKENS} tokens")
    if tally.reads_queries:
        found.append(f"what a query says takes {OBJECT_TOKENS} tokens, and leaves no candidate out")
    if tally.generates and kind in ("vllm", "vllm-inprocess"):
        found.append("an answer takes one call; a long list that is constrained may take several")
    shared = {prompt.kind for each in tally.spent for prompt in each.shared}
    if shared:
        likely = ", and all items are as likely to be shown" if "score" in shared and ranker.catalog is not None else ""
        found.append(f"what is the same for every request is asked once for all users{likely}")
    found.append(
        "this is what will be spent, with the answer cache; the report counts each case as if ranked alone, which may be more"
        if isinstance(ranker.backend, CachedBackend)
        else "this is what will be spent, without an answer cache"
    )
    found.append("no retries, no discount for prompts that a server still has in its cache, and no answers from earlier runs")
    if _seconds(ranker.backend, Usage()) is not None:
        found.append(f"the embedded model reads {LOCAL_READS} and writes {LOCAL_WRITES} tokens a second, as on 2 cores")
    return found


def _standard_error(values: Sequence[float], total: int) -> float:
    """Of `total` times the mean of `values`, which are a part of `total`."""
    if len(values) < 2 or total <= len(values):
        return 0.0
    return total * statistics.stdev(values) / math.sqrt(len(values)) * math.sqrt(1 - len(values) / total)


def money(usd: float) -> str:
    """US dollars for people: to the cent, or to two significant digits where these are finer."""
    short = f"{usd:.2g}"
    return f"{usd:,.2f}" if usd >= 1 or float(short) == round(usd, 2) else short


def _plain(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
