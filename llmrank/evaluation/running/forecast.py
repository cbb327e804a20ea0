"""A ranker and a sample of requests go in; what ranking all of them will take in calls, tokens, money and time comes out.

Nothing is asked, embedded or loaded: the strategy's own flows run with answers that are assumed, so that windows, steps and
cuts are those of the run. What had to be assumed is said (`Forecast.assumptions`).
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from llmrank.assets import WEIGHTS
from llmrank.backends.cache import CachedBackend
from llmrank.budget import DEFAULT_WINDOW, Budget, tiktoken_counter
from llmrank.driver import advance
from llmrank.errors import InputError, RequestError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.detectable import DetectableEffect
from llmrank.prices import MILLION, VARIABLE, Prices
from llmrank.protocols import Backend, TokenCounter
from llmrank.ranker import MOST_UNFILTERED, Ranker
from llmrank.resolve import resolve
from llmrank.types import Completion, ContinuationScore, Prompt, RankRequest, ResolvedRequest, Usage

SAMPLE = 50
"""The most requests that are looked at."""

FREE_TOKENS = 150
"""What an answer in free words (an earlier step of a template) is assumed to take: a short paragraph."""

LOCAL_READS, LOCAL_WRITES = 100, 60
"""Tokens a second of the embedded model on 2 busy cores, in round numbers; `eval/bench_local.py` measures them anew."""

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
    requests: int = 0
    sampled: int = 0
    standard_error: Mapping[str, float] = field(default_factory=dict)
    minimum_detectable_effect: DetectableEffect | None = None

    def lines(self) -> list[str]:
        """The forecast for people: what will be asked, what it costs, how long it takes, and each assumption."""
        found = [
            f"{self.requests:,} requests, forecast from {self.sampled:,}",
            f"{self._with_error('calls')} calls",
            f"{self._with_error('prompt_tokens')} prompt tokens, {self._with_error('completion_tokens')} answer tokens",
        ]
        if self.usd is None:
            found.append(f"cost unknown: no price is known; give one under `prices`, or in the file that {VARIABLE} names")
        else:
            error = self.standard_error.get("usd", 0.0)
            found.append(f"{_money(self.usd)} USD" + (f" (± {_money(2 * error)})" if error else ""))
        found.append("time unknown before the first answers" if self.seconds is None else f"about {_duration(self.seconds)}")
        if self.minimum_detectable_effect is not None:
            found.append(self.minimum_detectable_effect.line())
        return [*found, *(f"assumed: {each}" for each in self.assumptions)]

    def _with_error(self, name: str) -> str:
        error = round(2 * self.standard_error.get(name, 0.0))
        return f"{getattr(self, name):,}" + (f" (± {error:,})" if error else "")


@dataclass(slots=True)
class _Spent:
    """What one request takes. `shared` has the prefix and the tokens of each text that is scored by itself."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    shared: list[tuple[str, int]] = field(default_factory=list)


def forecast(
    ranker: Ranker, requests: Iterable[RankRequest | Case], total: int, prices: Prices, *, batch: bool = False
) -> Forecast:
    """Forecasts what ranking `total` requests takes.

    Args:
        ranker: What will rank. It is neither changed nor closed, and its backend is not asked.
        requests: Some of them, drawn without a bent; at most `SAMPLE` are looked at.
        total: How many there are to rank.
        prices: What models cost.
        batch: True for the prices of a batch API.

    Returns:
        The mean of the requests looked at times `total`. The standard error is that of a sample drawn without putting back
        (Cochran 1977, "Sampling Techniques", chapter 2).
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
        tally.begin()
        try:
            request = resolve(each.request if isinstance(each, Case) else each, ranker.catalog)
            advance(ranker.strategy.flow(_shortlist(ranker, request), budget), tally.answer)
        except InputError as error:
            refused.append(error)
    keeps = isinstance(backend, CachedBackend)
    usage, errors = tally.extrapolate(total, keeps=keeps, pool=None if ranker.catalog is None else len(ranker.catalog))
    price = prices.at_backend(backend.kind, backend.model)
    usd = None if price is None else price.usd(usage, batch=batch)
    if price is not None and usd is not None:
        # A million of each, as the errors are no whole numbers. Long prompts have long answers: their errors add up.
        million = Usage(prompt_tokens=MILLION), Usage(completion_tokens=MILLION)
        read, written = ((price.usd(each, batch=batch) or 0.0) / MILLION for each in million)
        errors["usd"] = read * errors["prompt_tokens"] + written * errors["completion_tokens"]
    assumptions = _assumptions(ranker, budget, counter, tally, keeps=keeps)
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
        requests=total,
        sampled=len(tally.spent),
        standard_error=errors,
    )


class _Tally:
    """Answers prompts as a model would that makes no mistake, and notes what each took."""

    def __init__(self, kind: str, counter: TokenCounter) -> None:
        self.kind = kind
        self.counter = counter
        self.spent: list[_Spent] = []
        self.generates = False
        self.writes_freely = False
        self.scores = False

    def begin(self) -> None:
        """The prompts that follow are another request's."""
        self.spent.append(_Spent())

    def answer(self, prompt: Prompt) -> Completion:
        """The assumed answer."""
        return self._score(prompt) if prompt.kind == "score" else self._generate(prompt)

    def _generate(self, prompt: Prompt) -> Completion:
        self.generates = True
        self.writes_freely |= prompt.answer == "free"
        text, tokens = self._assumed(prompt)
        spent = self.spent[-1]
        spent.calls += 1
        spent.prompt_tokens += self.counter.count_messages(prompt.messages)
        spent.completion_tokens += min(prompt.max_tokens, tokens)
        logprobs = dict.fromkeys(prompt.labels, -math.log(len(prompt.labels) or 1)) if prompt.label_logprobs else None
        return Completion(text, "stop", label_logprobs=logprobs)

    def _assumed(self, prompt: Prompt) -> tuple[str, int]:
        """What a model answers that keeps to the form (all labels in the order shown), and its tokens."""
        if prompt.answer == "order":
            text = " > ".join(f"[{label}]" for label in prompt.labels)
            return text, self.counter.count(text)
        if prompt.answer == "json":
            text = json.dumps({"ranking": list(prompt.labels)})
            return text, self.counter.count(text)
        if prompt.answer == "label":
            return (prompt.labels[0] if prompt.labels else ""), 1
        return " ".join(["x"] * min(FREE_TOKENS, prompt.max_tokens)), FREE_TOKENS

    def _score(self, prompt: Prompt) -> Completion:
        self.scores = True
        calls, prefixes = _score_calls(self.kind, len(prompt.continuations))
        prefix = self.counter.count(prompt.prefix)
        tokens = prefix * prefixes + sum(map(self.counter.count, prompt.continuations))
        spent = self.spent[-1]
        if len(prompt.continuations) == 1:
            spent.shared.append((prompt.prefix, tokens))
        spent.calls += calls
        spent.prompt_tokens += tokens
        return Completion(scores=tuple(ContinuationScore(-1.0, 1) for _ in prompt.continuations))

    def extrapolate(self, total: int, *, keeps: bool, pool: int | None) -> tuple[Usage, dict[str, float]]:
        """The usage of `total` requests and its standard errors.

        Texts that are scored alone after one and the same prefix (the unconditional likelihoods of `pmi_weight`) are asked once
        for all users where answers are kept (`keeps`). Of `pool` items, of which a request shows k, n requests show
        pool * (1 - (1 - k / pool)**n) different ones if each is as likely to be shown.
        """
        if not self.spent:
            return Usage(), {"calls": 0.0, "prompt_tokens": 0.0, "completion_tokens": 0.0}
        common = self._common_prefixes() if keeps and pool else frozenset[str]()
        kept = [[tokens for prefix, tokens in each.shared if prefix in common] for each in self.spent]
        rows = {
            "calls": [each.calls - len(once) for each, once in zip(self.spent, kept, strict=True)],
            "prompt_tokens": [each.prompt_tokens - sum(once) for each, once in zip(self.spent, kept, strict=True)],
            "completion_tokens": [each.completion_tokens for each in self.spent],
        }
        sums = {name: total * statistics.fmean(row) for name, row in rows.items()}
        once = [tokens for row in kept for tokens in row]
        if once and pool:
            shown = min(pool, len(once) / len(self.spent))
            different = pool * (1 - (1 - shown / pool) ** total)
            sums["calls"] += different
            sums["prompt_tokens"] += different * statistics.fmean(once)
        usage = Usage(round(sums["prompt_tokens"]), round(sums["completion_tokens"]), calls=round(sums["calls"]))
        return usage, {name: _standard_error(row, total) for name, row in rows.items()}

    def _common_prefixes(self) -> frozenset[str]:
        """The prefixes after which texts of more than one request are scored alone."""
        seen: defaultdict[str, set[int]] = defaultdict(set)
        for number, each in enumerate(self.spent):
            for prefix, _ in each.shared:
                seen[prefix].add(number)
        return frozenset(prefix for prefix, numbers in seen.items() if len(numbers) > 1)


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
    if backend.kind != "local" or backend.model not in WEIGHTS:
        return None
    return usage.prompt_tokens / LOCAL_READS + usage.completion_tokens / LOCAL_WRITES


def _assumptions(ranker: Ranker, budget: Budget, counter: TokenCounter, tally: _Tally, *, keeps: bool) -> list[str]:
    kind = ranker.backend.kind
    found = [f"tokens are counted by {counter.name}"]
    if budget.assumed:
        found.append(f"the model's window is {budget.window:,} tokens, as the configuration names none")
    if ranker.prefilter is not None:
        kept = f"the prefilter keeps the first {ranker.prefilter.options.keep} candidates that were not seen"
        found.append(f"{kept}; what an embedding server takes is left out")
    if tally.generates:
        found.append("every answer has the form asked for; hidden reasoning is left out")
    if tally.writes_freely:
        found.append(f"an answer in free words takes {FREE_TOKENS} tokens")
    if tally.generates and kind in ("vllm", "vllm-inprocess"):
        found.append("an answer takes one call; a long list that is constrained may take several")
    if any(each.shared for each in tally.spent):
        found.append(
            "a text that is scored by itself is asked once for all users, and all items are as likely to be shown"
            if keeps
            else "a text that is scored by itself is asked anew for each user, as no answers are kept"
        )
    found.append(
        "this is what will be spent, with the answer cache; the report counts each case as if ranked alone, which may be more"
        if keeps
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


def _money(usd: float) -> str:
    return f"{usd:,.2f}" if usd >= 1 or not usd else f"{usd:.2g}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
