"""The forecast of a run against the run itself, with a model that answers by hand and counts tokens exactly."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmrank.budget import TiktokenCounter
from llmrank.catalog import Catalog
from llmrank.errors import UnknownItemError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.detectable import DetectableEffect
from llmrank.forecast import FREE_TOKENS, SAMPLE, Forecast, forecast, money
from llmrank.fusion import Fusion
from llmrank.prices import VARIABLE, Prices
from llmrank.protocols import ModelInfo
from llmrank.ranker import Ranker
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Capability, Completion, ContinuationScore, Item, Prompt, RankRequest, Usage
from tests.unit.scripted import ScriptedBackend

EXACT = TiktokenCounter("cl100k_base")
WORDS = ("silver", "dark", "return", "night", "city", "of", "the", "king", "lost", "river", "moon", "war", "last", "house")
CATALOG = Catalog(
    Item(str(number), f"{' '.join(WORDS[(number * 5 + at * 3) % 14] for at in range(1 + number % 6))} {number}".title())
    for number in range(400)
)
RECENCY = {"template": "listwise/recency", "variables": {"domain": "movies"}}


class CountingBackend(ScriptedBackend):
    """Ranks at random in the form asked for, and reports the tokens of cl100k_base, as GPT-4 has them."""

    def __init__(self, *, window: int = 8192, kind: str = "scripted", model: str = "gpt-4", speaks: bool = True) -> None:
        super().__init__(self._reply, loglik=lambda prefix, text: -float(len(text)), window=window)
        self._kind, self._model, self._speaks = kind, model, speaks
        self.usage = Usage()
        self.random = random.Random(0)  # noqa: S311  # sampling, not secrets

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({"generate", "score", "label_logprobs"})

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": self._kind, "context_window": self._window}

    async def info(self) -> ModelInfo:
        assert self._speaks, "the forecast asked the backend"
        return ModelInfo(self._window, EXACT)

    async def score(self, prompt: Prompt) -> Completion:
        assert self._speaks, "the forecast asked the backend"
        tokens = EXACT.count(prompt.prefix) + sum(map(EXACT.count, prompt.continuations))
        return self._count(Completion(scores=tuple(ContinuationScore(-1.0, 1) for _ in prompt.continuations)), tokens, 0)

    def _reply(self, prompt: Prompt) -> Completion:
        assert self._speaks, "the forecast asked the backend"
        labels = self.random.sample(prompt.labels, len(prompt.labels))
        text = " > ".join(f"[{label}]" for label in labels) if labels else "I like dark stories of the night. " * 17
        if prompt.answer == "json":
            text = json.dumps({"ranking": labels})
        return self._count(Completion(text, "stop"), EXACT.count_messages(prompt.messages), EXACT.count(text))

    def _count(self, answer: Completion, prompt_tokens: int, completion_tokens: int) -> Completion:
        usage = Usage(prompt_tokens, completion_tokens, calls=1)
        self.usage += usage
        return dataclasses.replace(answer, usage=usage)


class OpinionatedBackend(CountingBackend):
    """Prefers items by what their digits are remaindered by a prime: an order of its own, whatever it is shown."""

    def _reply(self, prompt: Prompt) -> Completion:
        liking = {label: int(item_id) * 7919 % 401 for label, item_id in zip(prompt.labels, prompt.item_ids, strict=True)}
        best = max(liking, key=liking.__getitem__)
        logprobs = {label: float(value) - 500 for label, value in liking.items()} if prompt.label_logprobs else None
        return self._count(Completion(best, "stop", label_logprobs=logprobs), EXACT.count_messages(prompt.messages), 1)


def cases(count: int, *, candidates: int = 20, seed: int = 0) -> list[Case]:
    """Histories of 1 to 40 items, and candidates, drawn from the catalogue."""
    generator = random.Random(seed)  # noqa: S311  # sampling, not secrets
    ids = [item.id for item in CATALOG]
    made = []
    for number in range(count):
        chosen = generator.sample(ids, candidates + generator.randint(1, 40))
        made.append(Case(f"u{number}", tuple(chosen[candidates:]), tuple(chosen[:candidates]), (chosen[0],)))
    return made


def requests(asked: Iterable[Case]) -> Iterator[RankRequest]:
    """The cases' questions."""
    return (case.request for case in asked)


def ranker(strategy: Mapping[str, Any], prompt: Mapping[str, Any], backend: CountingBackend, **options: Any) -> Ranker:
    """A Ranker as a configuration builds it, around a backend of the test."""
    return Ranker(backend, build_strategy(strategy, prompt), catalog=CATALOG, **options)


LISTS: list[tuple[Mapping[str, Any], Mapping[str, Any], int]] = [
    ({"kind": "listwise"}, RECENCY, 8192),
    ({"kind": "listwise"}, {**RECENCY, "answer": "json"}, 8192),
    ({"kind": "listwise", "window": 8, "step": 4}, RECENCY, 8192),
    ({"kind": "listwise"}, RECENCY, 700),  # too small for the list: windows
    ({"kind": "listwise", "repair": True}, RECENCY, 8192),
    ({"kind": "listwise"}, {**RECENCY, "template": "listwise/nir"}, 8192),
    ({"kind": "likelihood"}, {"variables": {"domain": "movies"}}, 8192),
    ({"kind": "likelihood", "pmi_weight": 0.5}, {"variables": {"domain": "movies"}}, 8192),
]


@pytest.mark.parametrize(("strategy", "prompt", "window"), LISTS)
def test_all_requests_looked_at_are_forecast_as_they_run(
    strategy: Mapping[str, Any], prompt: Mapping[str, Any], window: int
) -> None:
    """Calls are equal and tokens within 10 %, whatever the strategy; exactly equal where answers change no later prompt."""
    asked = cases(6)
    with ranker(strategy, prompt, CountingBackend(window=window, speaks=False)) as silent:
        found = forecast(silent, requests(asked), len(asked), Prices.load())
    backend = CountingBackend(window=window)
    with ranker(strategy, prompt, backend) as running:
        assert {ranking.status for ranking in running.rank_many([case.request for case in asked])} == {"ok"}
    assert found.calls == backend.usage.calls
    assert found.prompt_tokens == pytest.approx(backend.usage.prompt_tokens, rel=0.1)
    assert found.completion_tokens == pytest.approx(backend.usage.completion_tokens, rel=0.1)
    if found.calls in (6, 6 * 21):
        assert found.prompt_tokens == backend.usage.prompt_tokens
    assert set(found.standard_error.values()) == {0.0}


SORTS: list[Mapping[str, Any]] = [
    {"kind": "pairwise", "method": "heapsort"},
    {"kind": "pairwise", "method": "bubblesort"},
    {"kind": "setwise", "method": "heapsort"},
    {"kind": "pairwise", "method": "heapsort", "read": "logprobs"},
]


@pytest.mark.parametrize("strategy", SORTS, ids=str)
def test_a_sort_is_forecast_as_it_typically_runs(strategy: Mapping[str, Any]) -> None:
    """About the calls of a model with an opinion of its own, and not those of the best case; within the strategy's bounds."""
    asked = [dataclasses.replace(case.request, top_k=5) for case in cases(6)]
    with ranker(strategy, {}, CountingBackend(speaks=False)) as silent:
        found = forecast(silent, asked, len(asked), Prices.load())
    backend = OpinionatedBackend()
    with ranker(strategy, {}, backend) as running:
        rankings = list(running.rank_many(asked))
    assert {ranking.status for ranking in rankings} == {"ok"}
    assert found.calls == pytest.approx(backend.usage.calls, rel=0.1)
    assert found.prompt_tokens == pytest.approx(backend.usage.prompt_tokens, rel=0.1)
    assert found.calls_least is not None
    assert found.calls_most is not None
    assert found.calls_least < found.calls < found.calls_most
    assert found.rounds > 1
    assert found.lines()[1].startswith(
        f"between {found.calls_least:,} and {found.calls_most:,} calls, about {found.calls:,}, in "
    )


def test_a_forecast_is_the_same_each_time() -> None:
    """The assumed answers depend on the items alone, not on the process or the order in which they are listed."""
    asked = cases(4)
    strategy = {"kind": "setwise", "method": "heapsort"}
    with ranker(strategy, {}, CountingBackend(speaks=False)) as silent:
        once, twice = (forecast(silent, requests(asked), 4, Prices.load()) for _ in range(2))
    assert once == twice


def test_bounds_are_told_only_where_they_are_those_of_calls() -> None:
    """None where the window is too small for what was planned, or where one prompt takes several calls of the backend."""
    asked = cases(3)
    with ranker({"kind": "listwise"}, RECENCY, CountingBackend(window=700, speaks=False)) as silent:
        found = forecast(silent, requests(asked), 3, Prices.load())
    assert found.calls > 3
    assert (found.calls_least, found.calls_most) == (None, None)
    with ranker({"kind": "likelihood"}, {}, CountingBackend(kind="vllm-inprocess", speaks=False)) as silent:
        found = forecast(silent, requests(asked), 3, Prices.load())
    assert (found.calls, found.calls_least, found.calls_most) == (60, None, None)


def test_what_cannot_be_ranked_is_raised_where_that_is_wanted() -> None:
    """For one request, bad input is an error as in the run."""
    with (
        ranker({"kind": "listwise"}, RECENCY, CountingBackend(speaks=False)) as silent,
        pytest.raises(UnknownItemError, match="nowhere"),
    ):
        forecast(silent, [RankRequest(("1",), ("nowhere",))], 1, Prices.load(), strict=True)


def test_a_sample_stands_for_all() -> None:
    """From 50 of 300 requests: within three standard errors of what all of them take, and within 10 %."""
    asked = cases(300)
    with ranker({"kind": "listwise"}, RECENCY, CountingBackend(speaks=False)) as silent:
        found = forecast(silent, requests(asked[::5]), len(asked), Prices.load())
    backend = CountingBackend()
    with ranker({"kind": "listwise"}, RECENCY, backend) as running:
        for _ in running.rank_many([case.request for case in asked]):
            pass
    assert (found.requests, found.sampled, found.calls) == (300, SAMPLE, 300)
    assert found.prompt_tokens == pytest.approx(backend.usage.prompt_tokens, rel=0.1)
    error = found.standard_error["prompt_tokens"]
    assert 0 < error < 0.05 * found.prompt_tokens
    assert abs(found.prompt_tokens - backend.usage.prompt_tokens) < 3 * error


@pytest.mark.parametrize("cached", [True, False])
def test_texts_that_are_scored_alone_are_asked_once_for_all_users(tmp_path: Path, cached: bool) -> None:
    """The unconditional likelihoods grow with the catalogue and not with the users; with an answer cache and without."""
    asked = cases(150)
    strategy = {"kind": "likelihood", "pmi_weight": 1.0}
    with ranker(strategy, {}, CountingBackend(speaks=False), cache=tmp_path / "a.sqlite" if cached else None) as silent:
        found = forecast(silent, requests(asked[:SAMPLE]), len(asked), Prices.load())
    backend = CountingBackend()
    with ranker(strategy, {}, backend, cache=tmp_path / "b.sqlite" if cached else None) as running:
        for _ in running.rank_many(list(requests(asked))):
            pass
    assert found.calls == pytest.approx(backend.usage.calls, rel=0.02)
    assert found.calls < 150 + len(CATALOG) + 1
    assert (found.calls_least, found.calls_most) == (found.calls, found.calls)
    assert found.prompt_tokens == pytest.approx(backend.usage.prompt_tokens, rel=0.1)
    said = "this is what will be spent, with the answer cache;" if cached else "this is what will be spent, without"
    assert any(each.startswith(said) for each in found.assumptions)


class NoEmbedder:
    """Refuses to embed."""

    model, dimension = "none", 4

    def embed(self, texts: Sequence[str]) -> Any:
        raise AssertionError("the forecast embedded something")


@pytest.mark.parametrize(("shortest", "off"), [(12, 0.1), (2, 0.2)])
def test_content_free_prompts_are_as_many_as_requests_have_shapes(shortest: int, off: float) -> None:
    """They differ by the lengths of history and list alone: 15 shapes, of which the sample has about all, or 165, few twice.

    The bounds are those of what is really asked.
    """

    class Labelling(CountingBackend):
        def _reply(self, prompt: Prompt) -> Completion:
            logprobs = {label: -1.0 - place for place, label in enumerate(prompt.labels)}
            answer = Completion(prompt.labels[0], "stop", label_logprobs=logprobs)
            return self._count(answer, EXACT.count_messages(prompt.messages), 1)

    generator = random.Random(3)  # noqa: S311  # sampling, not secrets
    ids = [item.id for item in CATALOG]
    sizes = [(generator.randint(1, 15), generator.randint(shortest, 12)) for _ in range(400)]
    asked = [RankRequest(generator.sample(ids, seen), generator.sample(ids, shown)) for seen, shown in sizes]
    strategy = {"kind": "calibrated", "of": {"kind": "single-token"}}
    with ranker(strategy, {}, Labelling(speaks=False)) as silent:
        found = forecast(silent, asked[:SAMPLE], len(asked), Prices.load())
    backend = Labelling()
    with ranker(strategy, {}, backend) as running:
        assert {ranking.status for ranking in running.rank_many(asked)} == {"ok"}
    content_free = backend.usage.calls - len(asked)
    assert content_free == 3 * len(set(sizes))
    assert found.calls - len(asked) == pytest.approx(content_free, rel=off)
    assert found.prompt_tokens == pytest.approx(backend.usage.prompt_tokens, rel=0.1)
    assert (found.calls_least, found.calls_most) == (found.calls, found.calls)
    assert "what is the same for every request is asked once for all users" in found.assumptions


def test_bounds_are_those_of_what_the_fusion_asks_for() -> None:
    """A fusion with the prefilter has all places sorted, so the bounds are those of all places, whatever the request wants."""
    asked = [dataclasses.replace(case.request, top_k=3) for case in cases(4)]
    strategy = {"kind": "pairwise", "method": "heapsort"}
    prefilter = Prefilter(NoEmbedder(), PrefilterOptions(keep=20), CATALOG.items)
    fusion = Fusion({"llm": 1.0, "prefilter": 1.0})
    with ranker(strategy, {}, CountingBackend(speaks=False), prefilter=prefilter, fusion=fusion) as silent:
        fused = forecast(silent, asked, 4, Prices.load())
    with ranker(strategy, {}, CountingBackend(speaks=False)) as silent:
        plain = forecast(silent, [dataclasses.replace(each, top_k=None) for each in asked], 4, Prices.load())
        short = forecast(silent, asked, 4, Prices.load())
    assert (fused.calls_least, fused.calls, fused.calls_most) == (plain.calls_least, plain.calls, plain.calls_most)
    assert plain.calls_most is not None
    assert short.calls_most is not None
    assert short.calls_most < plain.calls_most


def test_candidates_beyond_those_that_the_prefilter_keeps_are_not_shown() -> None:
    """Nothing is embedded, and the assumption is said; also for the whole catalogue."""
    asked = [*cases(4, candidates=30), *(dataclasses.replace(case, candidates=None) for case in cases(4))]
    with ranker({"kind": "likelihood"}, {}, CountingBackend(speaks=False)) as silent:
        silent.prefilter = Prefilter(NoEmbedder(), PrefilterOptions(keep=7), CATALOG.items)
        short = forecast(silent, requests(asked), len(asked), Prices.load())
    with ranker({"kind": "likelihood"}, {}, CountingBackend(speaks=False)) as silent:
        seven = [dataclasses.replace(case, candidates=silent_first(case)) for case in asked]
        plain = forecast(silent, requests(seven), len(asked), Prices.load())
    assert (short.calls, short.prompt_tokens) == (plain.calls, plain.prompt_tokens)
    assert any("keeps the first 7 candidates" in each for each in short.assumptions)


def silent_first(case: Case) -> tuple[str, ...]:
    """The first seven candidates that the user does not have."""
    given = case.candidates or tuple(item.id for item in CATALOG)
    return tuple(item_id for item_id in given if item_id not in case.history)[:7]


def test_money_is_that_of_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """USD by the model's price, half of it by a batch API; None for a model that nobody priced, and the lines say how to."""
    monkeypatch.delenv(VARIABLE, raising=False)
    asked = cases(10)
    prices = Prices.load({"house": {"input": 2.0, "output": 8.0, "batch": 0.5}})
    with ranker({"kind": "listwise"}, RECENCY, CountingBackend(model="house", speaks=False)) as silent:
        found = forecast(silent, requests(asked), 1000, prices)
        assert found.usd == pytest.approx((2 * found.prompt_tokens + 8 * found.completion_tokens) / 1e6)
        half = forecast(silent, requests(asked), 1000, prices, batch=True)
        assert half.usd is not None
        assert half.usd == pytest.approx(found.usd and found.usd / 2)
        assert found.standard_error["usd"] == pytest.approx(2 * found.standard_error["prompt_tokens"] / 1e6)
        unknown = forecast(silent, requests(asked), 1000, Prices.load())
    assert unknown.usd is None
    assert any(VARIABLE in line for line in unknown.lines())
    assert any(" USD (± " in line for line in found.lines())


@pytest.mark.parametrize(("kind", "calls"), [("local", 1), ("vllm", 1), ("vllm-inprocess", 20), ("openai", 1)])
def test_each_kind_of_backend_counts_scoring_in_its_own_way(kind: str, calls: int) -> None:
    """vLLM reads the prefix anew with each text, in process as a call of its own; those without a bill cost nothing."""
    asked = cases(3)
    with ranker({"kind": "likelihood"}, {}, CountingBackend(kind=kind, speaks=False)) as silent:
        found = forecast(silent, requests(asked), 3, Prices.load())
    with ranker({"kind": "likelihood"}, {}, CountingBackend(speaks=False)) as silent:
        once = forecast(silent, requests(asked), 3, Prices.load())
    assert found.calls == 3 * calls
    assert (found.prompt_tokens > 2 * once.prompt_tokens) == kind.startswith("vllm")
    assert (found.usd == 0.0) == (kind != "openai")
    assert found.seconds is None


def test_the_embedded_model_tells_how_long_it_takes() -> None:
    """Its speed is known roughly, and that it is rough is said."""
    with ranker(
        {"kind": "likelihood"}, {}, CountingBackend(kind="local", model="smollm2-135m-instruct", speaks=False)
    ) as silent:
        found = forecast(silent, requests(cases(5)), 1000, Prices.load())
    assert found.seconds == pytest.approx(found.prompt_tokens / 100)
    assert found.usd == 0.0
    assert "10 %" in found.assumptions[0]
    assert any(line.startswith("about ") for line in found.lines())
    with ranker(
        {"kind": "likelihood"}, {}, CountingBackend(kind="local", model="smollm2-135m-instruct-q8", speaks=False)
    ) as faster:
        found = forecast(faster, requests(cases(5)), 1000, Prices.load())
    assert found.seconds is None  # it has another speed, which was not measured
    assert not any("tokens a second" in each for each in found.assumptions)


@pytest.mark.parametrize(
    ("usd", "text"), [(0, "0.00"), (0.2, "0.20"), (0.0123, "0.012"), (1.5, "1.50"), (2345.678, "2,345.68")]
)
def test_money_has_cents_or_two_digits(usd: float, text: str) -> None:
    """A price list's way of writing: 0.20 rather than 0.2."""
    assert money(usd) == text


def test_what_cannot_be_ranked_costs_nothing_and_is_said() -> None:
    """An unknown id, no candidates, a whole catalogue without a prefilter: the others are forecast."""
    good = cases(2)
    bad = [dataclasses.replace(good[0], candidates=("nowhere",)), dataclasses.replace(good[0], candidates=())]
    with ranker({"kind": "likelihood"}, {}, CountingBackend(speaks=False)) as silent:
        found = forecast(silent, requests([*good, *bad]), 4, Prices.load())
    assert (found.calls, found.sampled) == (2, 4)
    assert any("2 of 4 requests looked at cannot be ranked" in each and "nowhere" in each for each in found.assumptions)


def test_a_whole_catalogue_without_a_prefilter_is_refused_as_in_the_run() -> None:
    """No prompt of thousands of items is written."""
    large = Catalog(Item(str(number), "x") for number in range(1001))
    backend = CountingBackend(speaks=False)
    with Ranker(backend, build_strategy({"kind": "likelihood"}, {}), catalog=large) as silent:
        found = forecast(silent, [RankRequest(("1",))], 1, Prices.load())
    assert found.calls == 0
    assert any("cannot be ranked" in each for each in found.assumptions)


def test_nothing_left_to_do_takes_nothing() -> None:
    """No requests, no calls, no money, and lines all the same."""
    with ranker({"kind": "likelihood"}, {}, CountingBackend(speaks=False)) as silent:
        found = forecast(silent, [], 0, Prices.load({"gpt-4": {"input": 1, "output": 1}}))
    assert (found.calls, found.prompt_tokens, found.completion_tokens, found.usd) == (0, 0, 0, 0.0)
    assert found.lines()[0] == "0 requests, forecast from 0"


def test_free_words_take_a_stated_number_of_tokens() -> None:
    """Of two earlier steps in free words each takes so many; the sentence says so."""
    strategy, prompt = {"kind": "listwise"}, {**RECENCY, "template": "listwise/nir"}
    with ranker(strategy, prompt, CountingBackend(speaks=False)) as silent:
        found = forecast(silent, requests(cases(1)), 1, Prices.load())
    order = EXACT.count(" > ".join(f"[{chr(65 + at)}]" for at in range(20)))
    assert found.completion_tokens == 2 * FREE_TOKENS + order
    assert f"an answer in free words takes {FREE_TOKENS} tokens" in found.assumptions


def test_lines_are_for_people() -> None:
    """Thousands apart, twice the standard error behind, what differences can be seen, then each assumption."""
    errors = {"prompt_tokens": 1050.4, "usd": 0.02}
    effect = DetectableEffect(apart=0.0438, alike=0.031, users=1000)
    found = Forecast(
        1000,
        310_400,
        24_000,
        1.5,
        7200.0,
        ("tokens are counted by hand",),
        requests=1000,
        sampled=50,
        standard_error=errors,
        minimum_detectable_effect=effect,
    )
    assert found.lines() == [
        "1,000 requests, forecast from 50",
        "1,000 calls",
        "310,400 (± 2,101) prompt tokens, 24,000 answer tokens",
        "1.50 USD (± 0.04)",
        "about 2.0 hours",
        "differences in the primary measure that 1,000 users are likely to show (power 80 %, level 5 %): 0.044 between rankers "
        "that have nothing in common, 0.031 between alike ones (correlation 0.5, such as two prompts of one model); with the "
        "spread of a random order: measured spreads are usually larger, and `llmrank eval compare` has the figure for them",
        "assumed: tokens are counted by hand",
    ]


def test_requests_are_read_no_further_than_needed() -> None:
    """Of an endless stream as many are taken as are looked at."""

    def endless() -> Iterator[Case]:
        while True:
            yield from cases(1)

    with ranker({"kind": "likelihood"}, {}, CountingBackend(speaks=False)) as silent:
        assert forecast(silent, requests(endless()), 10**6, Prices.load()).calls == 10**6
