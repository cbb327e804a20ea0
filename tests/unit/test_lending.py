"""Rankers that share a backend: it is built once and closed once, its limit is one, and nobody ends another's prompts."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmrank import Catalog, Item, Ranker, config
from llmrank._portal import LoopThread, Portal
from llmrank.backends.lending import BackendPool
from llmrank.config import build_ranker
from llmrank.errors import CapabilityError, ClosedError, ConfigError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.run import evaluate
from llmrank.evaluation.running import opened
from llmrank.evaluation.running.session import RunOptions
from llmrank.experiment import Experiment
from llmrank.prices import Prices
from llmrank.protocols import Backend
from llmrank.types import Completion, Prompt
from tests.unit.scripted import ScriptedBackend
from tests.unit.small_suite import write_data

CATALOG = Catalog([Item(each, f"Title {each}") for each in "0123456789"])
LOCAL = {"kind": "local", "context_window": 1024}


def keeps(prompt: Prompt) -> str:
    """The order shown."""
    return " > ".join(f"[{label}]" for label in prompt.labels)


class Builder:
    """Builds scripted backends in place of all others, and counts them."""

    def __init__(self) -> None:
        self.built: list[ScriptedBackend] = []
        self.delay = 0.0
        self.script: Callable[[Prompt], str] = keeps

    def __call__(self, section: Mapping[str, Any]) -> Backend:
        self.built.append(ScriptedBackend(self.script, delay=self.delay))
        return self.built[-1]

    @property
    def closed(self) -> list[bool]:
        return [each.closed > 0 for each in self.built]


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    found = Builder()
    monkeypatch.setattr(config, "build_backend", found)
    return found


def ranker(pool: BackendPool | None, backend: Mapping[str, Any] = LOCAL, **sections: Any) -> Ranker:
    return build_ranker({"backend": backend, **sections}, catalog=CATALOG, pool=pool)


def test_equal_sections_share_one_backend(builder: Builder) -> None:
    """Whatever the order of the keys; another value is another backend, and without a pool each has its own."""
    pool = BackendPool()
    same = ranker(pool), ranker(pool, {"context_window": 1024, "kind": "local"}, prompt={"template": "listwise/sequential"})
    other = ranker(pool, {**LOCAL, "context_window": 512})
    limited = ranker(pool, {**LOCAL, "max_concurrency": 3})
    assert len(builder.built) == 3
    own = ranker(None)
    assert len(builder.built) == 4
    for each in (*same, other, limited, own):
        assert each.rank(candidates=["1", "2"]).item_ids == ["1", "2"]
        each.close()
    assert [len(each.prompts) for each in builder.built] == [2, 1, 1, 1]


def test_the_last_one_closes_it_once(builder: Builder) -> None:
    """However often each is closed; a Ranker that comes later gets a new one."""
    pool = BackendPool()
    first, second = ranker(pool), ranker(pool)
    first.rank(candidates=["1", "2"])
    for _ in range(3):
        first.close()
    assert builder.built[0].closed == 0
    with pytest.raises(ClosedError):
        first.rank(candidates=["1", "2"])
    assert second.rank(candidates=["1", "2"]).status == "ok"
    second.close()
    second.close()
    assert builder.built[0].closed == 1
    with ranker(pool) as third:
        assert third.rank(candidates=["1", "2"]).status == "ok"
    assert len(builder.built) == 2
    assert builder.closed == [True, True]


async def test_aclose_gives_back_once(builder: Builder) -> None:
    """`aclose` closes the backend here and in the Ranker's own loop; neither counts the Ranker twice."""
    pool = BackendPool()
    first, second, third = ranker(pool), ranker(pool), ranker(pool)
    await first.arank(candidates=["1", "2"])
    await first.aclose()
    await first.aclose()
    await second.aclose()
    assert builder.closed == [False]
    assert (await third.arank(candidates=["1", "2"])).status == "ok"
    await third.aclose()
    assert builder.closed == [True]


def test_a_ranker_that_nobody_closed_gives_it_back(builder: Builder) -> None:
    """When it is collected, as a Ranker of its own backend closes it then."""
    pool = BackendPool()
    kept, dropped = ranker(pool), ranker(pool)
    dropped.rank(candidates=["1", "2"])
    del dropped
    gc.collect()
    kept.close()
    assert builder.closed == [True]


@pytest.mark.parametrize("section", [LOCAL, {**LOCAL, "max_concurrency": 2}])
def test_the_limit_is_that_of_all(builder: Builder, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any]) -> None:
    """Two Rankers in two threads together have no more prompts in flight than one may have."""
    most = section.get("max_concurrency", 1)
    monkeypatch.setattr(ScriptedBackend, "concurrency", 1)
    builder.delay = 0.02
    pool = BackendPool()
    with ranker(pool, section) as one, ranker(pool, section) as two, ThreadPoolExecutor(8) as threads:
        found = [
            threads.submit(each.rank, candidates=["1", "2"], query=f"{number}") for number in range(6) for each in (one, two)
        ]
        assert {each.result().status for each in found} == {"ok"}
        assert (one.max_concurrency, two.max_concurrency) == (most, most)
    assert builder.built[0].most_in_flight == most


async def test_the_limit_holds_in_the_callers_loop(builder: Builder) -> None:
    """Two Rankers whose asynchronous calls share a loop share its slots."""
    builder.delay = 0.01
    pool = BackendPool()
    async with ranker(pool, {**LOCAL, "max_concurrency": 2}) as one, ranker(pool, {**LOCAL, "max_concurrency": 2}) as two:
        await asyncio.gather(*(each.arank(candidates=["1", "2"], query=f"{n}") for n in range(4) for each in (one, two)))
    assert builder.built[0].most_in_flight == 2


def test_closing_one_ends_its_own_prompts_alone(builder: Builder) -> None:
    """What another Ranker asks goes on; what the closed one asked is cancelled."""
    pool = BackendPool()
    one, two = (ranker(pool, {**LOCAL, "max_concurrency": 4}) for _ in range(2))
    begun, go = threading.Semaphore(0), threading.Event()

    async def waits(prompt: Prompt) -> Completion:
        begun.release()
        await asyncio.to_thread(go.wait)
        return Completion(keeps(prompt))

    builder.built[0].generate = waits  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(one.rank, candidates=["1", "2"])
        second = threads.submit(two.rank, candidates=["1", "2"], query="another")
        for _ in range(2):
            assert begun.acquire(timeout=10)
        one.close()
        with pytest.raises(CancelledError):
            first.result(timeout=10)
        assert not second.done()
        go.set()
        assert second.result(timeout=10).status == "ok"
    two.close()
    assert builder.closed == [True]


def test_what_cannot_be_built_keeps_nothing(builder: Builder) -> None:
    """A Ranker that is refused after the backend was borrowed has given it back."""
    pool = BackendPool()
    kept = ranker(pool)
    with pytest.raises(CapabilityError):
        ranker(pool, strategy={"kind": "likelihood"})
    with pytest.raises(ConfigError, match="on_error"):
        ranker(pool, limits={"on_error": "ignore"})
    kept.close()
    assert builder.closed == [True]


def test_a_replay_is_not_shared(builder: Builder) -> None:
    """It plays its answers in turn: two Rankers would each hear half of them. A backend that records is shared."""
    pool = BackendPool()
    made = [ranker(pool, {"kind": "replay", "path": "a.jsonl"}) for _ in range(2)]
    assert len(builder.built) == 2
    made += [ranker(pool, {"kind": "replay", "path": "a.jsonl", "record": LOCAL}) for _ in range(2)]
    assert len(builder.built) == 3
    for each in made:
        each.close()
    assert all(builder.closed)


def test_a_loop_ends_with_its_last_portal() -> None:
    """Two portals run in one thread, which lives until both are closed; then nobody can join it."""

    async def here() -> threading.Thread:
        return threading.current_thread()

    async def nothing() -> None:
        pass

    shared = LoopThread()
    one, two = Portal(shared), Portal(shared)
    thread = one.call(here)
    assert two.call(here) is thread
    one.finish(nothing)
    assert two.call(here) is thread
    two.finish(nothing)
    assert not thread.is_alive()
    with pytest.raises(ClosedError):
        Portal(shared)


@pytest.fixture
def live(builder: Builder) -> Callable[..., Experiment]:
    def made(**backends: Mapping[str, Any]) -> Experiment:
        variants = {name: {"backend": each, "prompt": {"template": f"listwise/{name}"}} for name, each in backends.items()}
        return Experiment.from_config({"name": "e", "dataset": "ml-100k", "variants": variants}, catalog=CATALOG)

    return made


def test_live_variants_share_a_model(builder: Builder, live: Callable[..., Experiment]) -> None:
    """Variants that differ in their prompts load one model, ask it one at a time, and close it once."""
    builder.delay = 0.01
    with live(sequential={**LOCAL, "max_concurrency": 1}, recency={**LOCAL, "max_concurrency": 1}) as experiment:
        for number in range(3):
            shown = experiment.interleave("user-1", f"{number}", candidates=["1", "2", "3"])
            assert len(shown.rankings) == 2
        assert len(builder.built) == 1
        assert builder.built[0].most_in_flight == 1
        assert builder.closed == [False]
    assert builder.built[0].closed == 1


def test_live_variants_of_other_models_have_their_own(builder: Builder, live: Callable[..., Experiment]) -> None:
    """What differs in anything is another backend."""
    live(sequential=LOCAL, recency={**LOCAL, "context_window": 512}).close()
    assert builder.closed == [True, True]


def suite(folder: Path, **backends: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rankers": {name: {"backend": each, "prompt": {"variables": {"domain": name}}} for name, each in backends.items()},
        "items": str(folder / "items.jsonl"),
        "cases": str(folder / "cases.jsonl"),
        "metrics": ["ndcg@3"],
        "resamples": 200,
        "stability": {"cases": 2, "shuffles": 1},
    }


def test_a_run_loads_an_equal_model_once(tmp_path: Path, builder: Builder) -> None:
    """Three rankers are forecast, rank and are shuffled in turns: nine openings, one backend."""
    write_data(tmp_path / "data", cases=4)
    evaluate(suite(tmp_path / "data", a=LOCAL, b=LOCAL, c=LOCAL), tmp_path / "run", RunOptions(report=False))
    assert len(builder.built) == 1
    assert builder.built[0].closed == 1


def test_a_run_holds_one_of_several_models(tmp_path: Path, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of a ranker whose turn is over is closed before that of the next one is asked anything."""
    monkeypatch.setattr(ScriptedBackend, "remote", False)

    def alone(prompt: Prompt) -> str:
        assert sum(not each for each in builder.closed) == 1
        return keeps(prompt)

    builder.script = alone
    write_data(tmp_path / "data", cases=4)
    evaluate(suite(tmp_path / "data", a=LOCAL, b={**LOCAL, "slots": 1}), tmp_path / "run", RunOptions(report=False))
    assert len(builder.built) == 6
    assert all(builder.closed)


def test_few_models_are_held_at_once(builder: Builder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of rankers that stay open, those of two models in this process; servers are not counted."""
    monkeypatch.setattr(RunFolder, "catalog", CATALOG)
    folder, prices = RunFolder(tmp_path), Prices.load(None)
    for remote, left in ((False, 2), (True, 4)):
        monkeypatch.setattr(ScriptedBackend, "remote", remote)
        builder.built.clear()
        with opened.OpenContenders(8) as found:
            for slots in (1, 2, 3, 4):
                for name in ("a", "b"):
                    section = {"backend": {**LOCAL, "slots": slots}}
                    found.get(f"{name}{slots}", section, folder, seed=0, prices=prices, meter=None)
            assert sum(not each for each in builder.closed) == left
        assert all(builder.closed)
