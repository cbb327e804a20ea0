"""Every kind of strategy with the embedded model, and with a vLLM server: real answers, no right ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import pytest

from llmrank.backends.local import LocalBackend, LocalOptions
from llmrank.backends.vllm import VLLMBackend, VLLMOptions
from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import run_flow
from llmrank.protocols import Backend
from llmrank.strategy_kinds import KINDS, build_strategy
from llmrank.types import Completion, Event, Item, Ranking, ResolvedRequest
from llmrank.usage import Usage
from tests.integration.vllm_server import VLLMServer

WINDOW = 1024
REQUEST = ResolvedRequest(
    (Event(Item("h1", "The Terminator (1984)")), Event(Item("h2", "Predator (1987)"))),
    (
        Item("1", "Aliens (1986)"),
        Item("2", "Babe (1995)"),
        Item("3", "RoboCop (1987)"),
        Item("4", "Emma (1996)"),
        Item("5", "Toy Story (1995)"),
    ),
    query="a film about robots",
)
INNER = {"of": {"kind": "single-token"}}
SECTIONS: Mapping[str, Mapping[str, Any]] = {
    kind: {"kind": kind, **(INNER if kind in ("self-consistency", "calibrated") else {})} for kind in KINDS
}
PROMPT = {"variables": {"domain": "movies"}}


@pytest.fixture(scope="module")
def local(weights: Path) -> Iterator[LocalBackend]:
    """The embedded model in the form that is read fastest, made at first use from the weights that are there; one for all."""
    pytest.importorskip("gguf", reason="the package 'gguf' is in the extra `local`")
    backend = LocalBackend(LocalOptions(model="smollm2-135m-instruct-q8", context_window=WINDOW, slots=2))
    yield backend
    asyncio.run(backend.aclose())


@pytest.fixture
async def vllm(vllm_server: VLLMServer) -> AsyncIterator[VLLMBackend]:
    """The server's one model."""
    backend = VLLMBackend(VLLMOptions(base_url=vllm_server.base_url, timeout_s=300.0))
    yield backend
    await backend.aclose()


async def check(kind: str, backend: Backend) -> None:
    """Ranks once; all candidates are there, the model ranked each of them, and the figures add up."""
    strategy = build_strategy(SECTIONS[kind], PROMPT)
    ranking = await run_flow(strategy.flow(REQUEST, Budget(WINDOW, EstimateCounter())), backend)
    assert isinstance(ranking, Ranking)
    assert sorted(ranking.item_ids) == ["1", "2", "3", "4", "5"]
    assert (ranking.status, ranking.filled, ranking.error) == ("ok", (), None), (ranking.repairs, ranking.notes)
    calls = strategy.calls(len(REQUEST.candidates))
    assert calls.least <= len(ranking.trace) <= calls.most
    answers = [exchange.answer for exchange in ranking.trace if isinstance(exchange.answer, Completion)]
    assert len(answers) == len(ranking.trace)
    assert ranking.usage == reduce(add, (answer.usage for answer in answers), Usage())
    assert ranking.usage.calls >= len(answers)
    assert ranking.usage.prompt_tokens > 0


@pytest.mark.local
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_ranks_with_the_embedded_model(local: LocalBackend, kind: str) -> None:
    """A short list comes back whole with status ok, for as many prompts as the strategy states, and their usage together."""
    await check(kind, local)


@pytest.mark.vllm
async def test_every_kind_ranks_with_a_vllm_server(vllm: VLLMBackend) -> None:
    """The same with a server whose answers come side by side."""
    for kind in KINDS:
        await check(kind, vllm)
