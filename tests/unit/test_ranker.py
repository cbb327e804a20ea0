"""The Ranker: one request, streams of them, synchronous and asynchronous, errors, closing."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank import Catalog, Item, Limits, Ranker, RankRequest
from llmrank.budget import Budget, EstimateCounter
from llmrank.errors import (
    AuthenticationError,
    BackendError,
    CapabilityError,
    ClosedError,
    ConfigError,
    RateLimitError,
    RequestError,
    SetupError,
    UnknownItemError,
    UnreachableError,
)
from llmrank.fusion import Fusion
from llmrank.protocols import Flow, ModelInfo
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.retrieval.vectors import Vectors
from llmrank.strategies.likelihood import Likelihood
from llmrank.strategies.listwise import Listwise
from llmrank.types import Capability, Completion, Message, Prompt, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import ScriptedBackend, shown

CATALOG = Catalog([Item(str(number), f"Film {number:02d}") for number in range(30)])
QUICK = Limits(max_attempts=2, initial_wait_s=0.0, max_wait_s=0.0)


def backwards(prompt: Prompt) -> str:
    """Ranks by title, the highest number first."""
    return " > ".join(f"[{label}]" for label, _ in sorted(shown(prompt).items(), key=lambda pair: pair[1], reverse=True))


def make(backend: ScriptedBackend | None = None, **options: Any) -> Ranker:
    strategy = Listwise(PromptWriter(PromptOptions()))
    return Ranker(backend or ScriptedBackend(backwards), strategy, **{"catalog": CATALOG, "limits": QUICK, **options})


def test_rank_and_arank_give_the_same() -> None:
    """A request of ids gives a Ranking of items, from a script and from an event loop alike."""
    with make() as ranker:
        ranking = ranker.rank(history=["1", "2"], candidates=["3", "9", "5"], user_id="u")
        assert ranking.item_ids == ["9", "5", "3"]
        assert (ranking.status, ranking.model, ranking.strategy, ranking.user_id) == ("ok", "by-hand", "listwise", "u")
        assert ranking.usage.calls == 1
        assert ranking.usage.prompt_tokens == 100
        assert ranking.items[0].title == "Film 09"
        assert len(ranking.trace) == 1

        async def ask() -> list[str]:
            return (await ranker.arank(history=["1", "2"], candidates=["3", "9", "5"])).item_ids

        assert asyncio.run(ask()) == ranking.item_ids


async def test_the_synchronous_call_works_where_a_loop_runs() -> None:
    """In a notebook a loop runs already; `rank` uses its own, in a thread."""
    with make() as ranker:
        assert ranker.rank(candidates=["1", "2"]).item_ids == ["2", "1"]


def test_top_k_returns_the_best() -> None:
    """All candidates are ranked, the best `top_k` returned."""
    with make() as ranker:
        assert ranker.rank(candidates=["1", "2", "3", "4"], top_k=2).item_ids == ["4", "3"]


def test_bad_input_is_refused_before_anything_is_asked() -> None:
    """Unknown ids, no candidates and doubles raise; the backend is not asked."""
    backend = ScriptedBackend(backwards)
    with make(backend) as ranker:
        with pytest.raises(UnknownItemError):
            ranker.rank(["nope"], ["1"])
        with pytest.raises(RequestError):
            ranker.rank(["1"], [])
        with pytest.raises(RequestError):
            ranker.rank(["1"], ["2", "2"])
    assert backend.prompts == []


def test_an_error_is_raised_or_becomes_the_fallback_order() -> None:
    """`on_error` says what a single call does when the backend fails: raise its error, or say so on a fallback order."""
    backend = ScriptedBackend(lambda prompt: AuthenticationError("the key is wrong"))
    with make(backend) as ranker, pytest.raises(AuthenticationError):
        ranker.rank(candidates=["1", "2"])
    with make(backend, on_error="fallback") as ranker:
        ranking = ranker.rank(candidates=["1", "2"])
    assert (ranking.status, ranking.item_ids, ranking.filled) == ("error", ["1", "2"], ("1", "2"))
    assert isinstance(ranking.error, AuthenticationError)


def test_retryable_errors_are_retried_and_counted() -> None:
    """A rate limit that passes costs a retry, not the ranking."""
    errors: Iterator[BackendError] = iter([RateLimitError("slow down")])
    with make(ScriptedBackend(lambda prompt: next(errors, None) or backwards(prompt))) as ranker:
        ranking = ranker.rank(candidates=["1", "2"])
    assert (ranking.status, ranking.usage.retries) == ("ok", 1)


def requests(count: int) -> Iterator[RankRequest]:
    for number in range(count):
        yield RankRequest(["0"], [str(1 + (number + step) % 29) for step in range(3)], user_id=str(number))


def test_many_stream_in_order_within_their_bounds() -> None:
    """One Ranking a request, in order; no more requests are read and no more prompts in flight than allowed."""
    backend = ScriptedBackend(backwards, delay=0.001)
    read = 0

    def counted() -> Iterator[RankRequest]:
        nonlocal read
        for request in requests(200):
            read += 1
            yield request

    with make(backend, max_concurrency=5) as ranker:
        users = []
        for number, ranking in enumerate(ranker.rank_many(counted())):
            assert read <= number + 10
            users.append(ranking.user_id)
    assert users == [str(number) for number in range(200)]
    assert 1 < backend.most_in_flight <= 5


async def test_many_stream_from_asynchronous_iterables() -> None:
    """`arank_many` takes asynchronous iterables and streams within the same bounds."""
    backend = ScriptedBackend(backwards, delay=0.001)

    async def source() -> AsyncIterator[RankRequest]:
        for request in requests(50):
            yield request

    async with make(backend, max_concurrency=5) as ranker:
        users = [ranking.user_id async for ranking in ranker.arank_many(source())]
        again = [ranking.user_id async for ranking in ranker.arank_many(requests(50))]
    assert users == again == [str(number) for number in range(50)]
    assert backend.most_in_flight <= 5


def test_one_bad_request_does_not_lose_the_others() -> None:
    """In a stream bad input and failures become Rankings with status error; the others are ranked."""

    def answer(prompt: Prompt) -> str | BackendError:
        return UnreachableError("gone") if "13" in prompt.item_ids else backwards(prompt)

    asked = [
        RankRequest([], ["1", "2"]),
        RankRequest([], ["nope"], user_id="u1"),
        RankRequest([], ["13", "14"]),
        RankRequest([], ["3", "4"]),
    ]
    with make(ScriptedBackend(answer)) as ranker:
        rankings = list(ranker.rank_many(asked))
    assert [ranking.status for ranking in rankings] == ["ok", "error", "error", "ok"]
    assert isinstance(rankings[1].error, UnknownItemError)
    assert (rankings[1].item_ids, rankings[1].user_id) == ([], "u1")
    assert rankings[2].item_ids == ["13", "14"]
    with pytest.raises(UnreachableError):
        rankings[2].raise_for_status()


def test_closing_a_stream_cancels_what_is_in_flight() -> None:
    """A caller who stops early leaves nothing running."""
    backend = ScriptedBackend(backwards, delay=0.01)
    with make(backend, max_concurrency=4) as ranker:
        stream = ranker.rank_many(requests(1000))
        next(stream)
        stream.close()  # type: ignore[attr-defined]  # it is a generator
        deadline = time.monotonic() + 5
        while backend.in_flight and time.monotonic() < deadline:
            time.sleep(0.005)
        assert backend.in_flight == 0
        asked = len(backend.prompts)
        time.sleep(0.05)
        assert len(backend.prompts) == asked


async def test_leaving_an_asynchronous_stream_cancels_what_is_in_flight() -> None:
    """The same for `arank_many`."""
    backend = ScriptedBackend(backwards, delay=0.01)
    async with make(backend, max_concurrency=4) as ranker:
        stream = ranker.arank_many(requests(1000))
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        assert backend.in_flight == 0


def test_a_strategy_that_the_backend_cannot_serve_is_refused_at_once() -> None:
    """The error comes when the Ranker is built and names the backends that could."""
    with pytest.raises(CapabilityError, match=r"needs score.*'scripted'.*vllm, vllm-inprocess, local"):
        Ranker(ScriptedBackend(), Likelihood(PromptWriter(PromptOptions(template="likelihood/next-line"))))


def test_a_fusion_without_its_prefilter_is_refused() -> None:
    """A weight for scores that nobody computes is a mistake, not a zero."""
    with pytest.raises(ConfigError, match=r"fusion\.prefilter"):
        make(fusion=Fusion({"llm": 1.0, "prefilter": 0.5}))


def test_answers_come_from_the_cache_the_second_time(tmp_path: Path) -> None:
    """With a cache, a second Ranker asks nothing and spends nothing."""
    first, second = ScriptedBackend(backwards), ScriptedBackend(backwards)
    with make(first, cache=tmp_path / "answers.sqlite") as ranker:
        ranking = ranker.rank(["1"], ["2", "3"])
    with make(second, cache=tmp_path / "answers.sqlite") as ranker:
        again = ranker.rank(["1"], ["2", "3"])
    assert (len(first.prompts), second.prompts) == (1, [])
    assert again.item_ids == ranking.item_ids
    assert (again.usage.cache_hits, again.usage.calls, again.usage.total_tokens) == (1, 0, 0)


def test_many_threads_may_share_a_ranker() -> None:
    """A web server's worker threads call one Ranker at once."""
    results: list[list[str]] = []
    with make(ScriptedBackend(backwards, delay=0.001)) as ranker:
        threads = [
            threading.Thread(target=lambda n=number: results.append(ranker.rank([], [str(n), "0"]).item_ids))
            for number in range(1, 17)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == sorted([str(number), "0"] for number in range(1, 17))


def test_closing_frees_the_backend_and_may_be_repeated() -> None:
    """`close` closes the backend, ends the thread, and may be called twice; a dropped Ranker closes itself."""
    backend = ScriptedBackend(backwards)
    ranker = make(backend)
    ranker.rank([], ["1", "2"])
    ranker.close()
    ranker.close()
    assert backend.closed == 1
    dropped = ScriptedBackend(backwards)
    make(dropped).rank([], ["1", "2"])
    gc.collect()
    assert dropped.closed == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "llmrank-loop"]


async def test_a_live_source_gets_each_ranking_before_its_next_request() -> None:
    """A source that sends a request only after the last Ranking came back does not wait for ever."""
    answered = asyncio.Event()
    answered.set()

    async def source() -> AsyncIterator[RankRequest]:
        for request in requests(5):
            await answered.wait()
            answered.clear()
            yield request

    users = []
    async with make() as ranker, asyncio.timeout(10):
        async for ranking in ranker.arank_many(source()):
            users.append(ranking.user_id)
            answered.set()
    assert users == ["0", "1", "2", "3", "4"]


def failing(count: int) -> Iterator[RankRequest]:
    yield from requests(count)
    raise OSError("the disk is gone")


async def test_a_source_that_fails_loses_no_ranking() -> None:
    """What was read before is ranked and handed over; then the source's own exception comes."""
    rankings = []
    with make() as ranker, pytest.raises(OSError, match="disk"):  # noqa: PT012  # the loop is what raises
        for ranking in ranker.rank_many(failing(7)):
            rankings.append(ranking)
    assert [ranking.status for ranking in rankings] == ["ok"] * 7
    async with make() as ranker:
        rankings = []
        with pytest.raises(OSError, match="disk"):  # noqa: PT012  # the loop is what raises
            async for ranking in ranker.arank_many(failing(7)):
                rankings.append(ranking)
    assert [ranking.status for ranking in rankings] == ["ok"] * 7


@pytest.mark.parametrize(
    "broken",
    ["1", {"history": []}, RankRequest(None, ["1"]), RankRequest([], 5), RankRequest(3, ["1"])],  # type: ignore[arg-type]
)
def test_what_is_no_request_is_reported_in_its_place(broken: Any) -> None:
    """A value that no type checker saw becomes a Ranking with its error; the stream goes on."""
    with make() as ranker:
        rankings = list(ranker.rank_many([broken, RankRequest([], ["1", "2"])]))
    assert [ranking.status for ranking in rankings] == ["error", "ok"]
    assert isinstance(rankings[0].error, RequestError)


def test_a_closed_ranker_says_so() -> None:
    """Using a Ranker after `close` is a clear error, not a new thread that nobody ends."""
    ranker = make()
    ranker.close()
    with pytest.raises(ClosedError):
        ranker.rank([], ["1", "2"])
    with pytest.raises(ClosedError):
        list(ranker.rank_many(requests(1)))
    with pytest.raises(ClosedError):
        asyncio.run(ranker.arank([], ["1", "2"]))


async def test_closing_where_a_loop_runs_does_not_wait_for_that_loop() -> None:
    """`with Ranker(...)` in a coroutine: what is to be closed may need the loop that `close` would block."""

    class NeedsTheLoop(ScriptedBackend):
        async def aclose(self) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop))
            await super().aclose()
            loop.call_soon_threadsafe(closed.set)

    loop, closed = asyncio.get_running_loop(), asyncio.Event()
    backend = NeedsTheLoop(backwards)
    async with asyncio.timeout(10):
        with make(backend) as ranker:
            await ranker.arank([], ["1", "2"])
            ranker.rank([], ["1", "2"])
        await closed.wait()


async def test_cancelling_while_a_thread_counts_is_a_cancellation() -> None:
    """A counter that asks a server runs in a thread; a time limit around `arank` then still gives TimeoutError."""

    class Slow(EstimateCounter):
        remote = True

        def count_messages(self, messages: Sequence[Message]) -> int:
            time.sleep(0.3)
            return super().count_messages(messages)

    class Counting(ScriptedBackend):
        async def info(self) -> ModelInfo:
            return ModelInfo(600, Slow())

    async with make(Counting(backwards)) as ranker:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ranker.arank([str(number) for number in range(20)], ["21", "22"])


async def test_what_is_no_answer_cancels_the_other_prompts() -> None:
    """When one of a flow's prompts meets a missing package, its siblings are not paid for."""

    class Twenty:
        name = "twenty"
        needs: frozenset[Capability] = frozenset({"generate"})

        def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
            yield [Prompt(sample=number) for number in range(20)]
            raise AssertionError("never reached")

    class Missing(ScriptedBackend):
        async def generate(self, prompt: Prompt) -> Completion:
            if prompt.sample == 0:
                raise SetupError("a package is missing")
            return await super().generate(prompt)

    backend = Missing(backwards, delay=0.05)
    async with Ranker(backend, Twenty(), catalog=CATALOG, max_concurrency=2) as ranker:
        with pytest.raises(SetupError):
            await ranker.arank([], ["1"])
        asked = len(backend.prompts)
        await asyncio.sleep(0.2)
        assert len(backend.prompts) == asked < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that forking with threads is risky is the point
def test_a_forked_child_starts_a_loop_of_its_own() -> None:
    """A server that forks its workers after the first call: the child does not wait for a thread that stayed behind."""
    with make() as ranker:
        ranker.rank([], ["1", "2"])
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if ranker.rank([], ["1", "2"]).item_ids == ["2", "1"] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_large_catalogue_is_not_shown_whole() -> None:
    """Without candidates and without a prefilter a small catalogue is ranked whole; a large one is refused."""
    with make() as ranker:
        assert len(ranker.rank(["1"]).items) == 30
    large = Catalog([Item(str(number), f"Film {number}") for number in range(1001)])
    with make(catalog=large) as ranker, pytest.raises(RequestError, match="prefilter"):
        ranker.rank(["1"])


class Bag:
    """An embedder for tests: one dimension a digit, so that titles with the same digits are alike."""

    model = "digits"
    dimension = 10

    def embed(self, texts: Sequence[str]) -> Vectors:
        counts = np.array([[text.count(str(digit)) for digit in range(10)] for text in texts], dtype=np.float32)
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        return (counts / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def test_the_prefilter_shortens_the_list_and_orders_what_the_model_leaves_out() -> None:
    """Only the nearest `keep` reach the model, seen items do not; what the model does not name follows in that order."""
    prefilter = Prefilter(Bag(), PrefilterOptions(keep=3), CATALOG.items)
    with make(ScriptedBackend(lambda prompt: "[B]"), prefilter=prefilter) as ranker:
        ranking = ranker.rank(["11"], ["11", "5", "1", "12", "21", "29"])
    shown_ids = ranking.trace[0].prompt.item_ids
    assert set(shown_ids) == {"1", "12", "21"}
    assert ranking.item_ids == [shown_ids[1], shown_ids[0], shown_ids[2]]
    assert ranking.status == "partial"
    assert (ranking.cut.seen, ranking.cut.prefiltered) == (("11",), 2)


def test_the_whole_catalogue_is_cut_to_the_nearest() -> None:
    """Without candidates the prefilter searches the catalogue."""
    prefilter = Prefilter(Bag(), PrefilterOptions(keep=4), CATALOG.items)
    with make(prefilter=prefilter) as ranker:
        ranking = ranker.rank(["11"], top_k=2)
    assert len(ranking.trace[0].prompt.item_ids) == 4
    assert len(ranking.items) == 2
    assert "11" not in ranking.trace[0].prompt.item_ids


def test_fusion_weighs_both_orders() -> None:
    """With all weight on the prefilter its order wins; each item says what each part gave."""
    prefilter = Prefilter(Bag(), PrefilterOptions(keep=5), CATALOG.items)
    asked = (["11"], ["5", "1"])  # the embedder finds 01 nearer to 11, the scripted model prefers 05
    with make(prefilter=prefilter, fusion=Fusion({"prefilter": 1.0})) as ranker:
        ranking = ranker.rank(*asked)
    assert ranking.item_ids == ["1", "5"]
    assert [each.rank for each in ranking.items] == [1, 2]
    assert all(set(each.parts) == {"prefilter"} for each in ranking.items)
    with make(prefilter=prefilter, fusion=Fusion({"llm": 1.0})) as ranker:
        assert ranker.rank(*asked).item_ids == ["5", "1"]


def test_a_prefilter_may_be_shared_or_owned() -> None:
    """A prefilter that was handed in stays open for other Rankers; one that the Ranker owns is closed with it."""
    prefilter = Prefilter(Bag(), PrefilterOptions(keep=2), CATALOG.items)
    for _ in range(2):
        with make(prefilter=prefilter) as ranker:
            assert len(ranker.rank(["11"], ["5", "1", "12"]).items) == 2
    make(prefilter=prefilter, owns_retrieval=True).close()
    with make(prefilter=prefilter) as ranker, pytest.raises(BackendError, match="closed"):
        ranker.rank(["11"], ["5", "1", "12"])


class Unreachable(Bag):
    """An embedding server that is down."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        raise UnreachableError("the embedding server is down")


def test_without_its_embedder_the_prefilter_still_leaves_out_what_was_seen() -> None:
    """The fallback order is the order given, cut to `keep`, without seen items; the Ranking says what was left out."""
    prefilter = Prefilter(Unreachable(), PrefilterOptions(keep=3), CATALOG.items)
    with make(prefilter=prefilter, on_error="fallback") as ranker:
        ranking = ranker.rank(["0", "1"])
    assert (ranking.status, ranking.item_ids) == ("error", ["2", "3", "4"])
    assert (ranking.cut.seen, ranking.cut.prefiltered) == (("0", "1"), 25)
    assert isinstance(ranking.error, UnreachableError)
