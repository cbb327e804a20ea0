"""The pointwise strategy with the embedded model: the words of a verdict stand where other prompts have labels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrank.backends.local import LocalBackend, LocalOptions
from llmrank.budget import Budget, EstimateCounter
from llmrank.driver import run_flow
from llmrank.strategies.pointwise import Method, Pointwise, PointwiseOptions
from llmrank.types import Event, Item, Ranking, ResolvedRequest
from llmrank.writer import PromptOptions, PromptWriter

pytestmark = pytest.mark.local

REQUEST = ResolvedRequest(
    (Event(Item("h1", "The Terminator (1984)")), Event(Item("h2", "Predator (1987)"))),
    (Item("1", "Aliens (1986)"), Item("2", "Babe (1995)"), Item("3", "Aliens (1986)")),
)


@pytest.fixture(scope="module")
def backend(weights: Path) -> Iterator[LocalBackend]:
    """One model for all tests."""
    backend = LocalBackend(LocalOptions(model=str(weights), context_window=1024))
    yield backend
    asyncio.run(backend.aclose())


async def rank(backend: LocalBackend, method: Method, choices: tuple[str, ...] | None = None) -> Ranking:
    writer = PromptWriter(PromptOptions(f"pointwise/{method}", answer="label", variables={"domain": "movies"}))
    strategy = Pointwise(writer, PointwiseOptions(method, choices))
    return await run_flow(strategy.flow(REQUEST, Budget(1024, EstimateCounter())), backend)


@pytest.mark.parametrize(("method", "highest"), [("yes-no", 1.0), ("graded", 4.0)])
async def test_every_candidate_gets_a_score_for_one_token(backend: LocalBackend, method: Method, highest: float) -> None:
    """The words are one token each, so all have a probability; two items of one text score nearly alike; the prefix is kept."""
    ranking = await rank(backend, method)
    scores = {each.id: each.score for each in ranking.items}
    assert ranking.status == "ok"
    assert all(score is not None and 0.0 < score < highest for score in scores.values())
    # The first prompt is computed whole, the others from where they differ: with quantised weights that moves log-probabilities
    # by up to a tenth.
    assert scores["1"] == pytest.approx(scores["3"], abs=0.05 * highest)
    assert (ranking.usage.calls, ranking.usage.completion_tokens) == (3, 3)
    assert ranking.usage.cached_tokens > ranking.usage.prompt_tokens / 3
    for exchange in ranking.trace:
        assert getattr(exchange.answer, "text", None) in exchange.prompt.labels


async def test_words_of_several_tokens_are_told(backend: LocalBackend) -> None:
    """They have no probability as one token, nor fit one: the order given stands, and the notes say why."""
    ranking = await rank(backend, "yes-no", ("Absolutely", "Certainly-not"))
    assert (ranking.status, ranking.item_ids) == ("fallback", ["1", "2", "3"])
    assert "no log-probability for labels of several tokens: Absolutely, Certainly-not" in ranking.notes


async def test_any_word_can_be_enforced(backend: LocalBackend) -> None:
    """Quotation marks and backslashes inside a word do not break the grammar."""
    ranking = await rank(backend, "graded", ('a"b', "c\\d"))
    for exchange in ranking.trace:
        assert getattr(exchange.answer, "text", "")[:1] in ("a", "c")
