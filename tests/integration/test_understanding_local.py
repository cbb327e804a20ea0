"""A sentence read by the embedded model: whatever so small a model says is of the form asked for, and hides nothing good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmrank import Catalog, Item, Ranker
from llmrank.backends.local import LocalBackend, LocalOptions
from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions
from llmrank.retrieval.wordllama import WordLlamaEmbedder
from llmrank.strategies.likelihood import Likelihood
from llmrank.types import Completion, Message, Prompt
from llmrank.understanding import Understanding, UnderstandingOptions
from llmrank.wish import WISH_MEMBERS
from llmrank.writer import PromptOptions, PromptWriter

pytestmark = pytest.mark.local

CATALOG = Catalog(
    [
        Item("1", "The Shining", {"year": 1980, "genres": ["Horror"]}),
        Item("2", "Airplane!", {"year": 1980, "genres": ["Comedy"]}),
        Item("3", "Ghostbusters", {"year": 1984, "genres": ["Comedy", "Horror"]}),
        Item("4", "Heat", {"year": 1995, "genres": ["Crime", "Drama"]}),
        Item("5", "Toy Story", {"year": 1995, "genres": ["Animation", "Comedy"]}),
        Item("6", "Casablanca", {"year": 1942, "genres": ["Drama", "Romance"]}),
    ]
)
MOVIES = {"domain": "movies"}


@pytest.fixture(scope="module")
def backend(weights: Path) -> Iterator[LocalBackend]:
    """One model for all tests."""
    backend = LocalBackend(LocalOptions(model=str(weights), context_window=2048))
    yield backend
    asyncio.run(backend.aclose())


async def test_the_schema_is_enforced(backend: LocalBackend) -> None:
    """The answer to a question that asks for something else is an object of the schema all the same, sampled or not."""
    value = {"type": "string", "enum": ["x", "y"]}
    members = {"one": value, "many": {"type": "array", "items": value, "minItems": 1, "maxItems": 3}}
    schema = {"type": "object", "properties": members, "required": ["one", "many"], "additionalProperties": False}
    for temperature in (0.0, 0.7):
        messages = (Message("user", "Tell me a story about a dog."),)
        answer = await backend.generate(
            Prompt(messages=messages, answer="object", schema=schema, max_tokens=600, temperature=temperature, seed=3)
        )
        found = json.loads(answer.text or "")
        assert found.keys() == {"one", "many"}
        assert {found["one"], *found["many"]} <= {"x", "y"}
        assert 1 <= len(found["many"]) <= 3
        assert answer.finish_reason == "stop"


def test_a_new_user_gets_a_ranking_by_a_sentence(weights: Path) -> None:
    """Sentence, embeddings and ranking by one small model and no server; what is not said outright filters nothing."""
    prompt = PromptOptions(template="likelihood/query", fields=("title", "year", "genres"), variables=MOVIES)
    understanding = Understanding(UnderstandingOptions(attributes=("year", "genres"), max_tokens=1000), prompt)
    prefilter = Prefilter(WordLlamaEmbedder(), PrefilterOptions(keep=3, fields=("title", "genres")), CATALOG.items)
    backend = LocalBackend(LocalOptions(model=str(weights), context_window=2048))
    strategy = Likelihood(PromptWriter(prompt))
    with Ranker(backend, strategy, catalog=CATALOG, prefilter=prefilter, understanding=understanding) as ranker:
        ranking = ranker.rank(query="something funny to watch with friends")
        bounded = ranker.rank(query="a comedy from the 80s")
    asked, answer = ranking.trace[0].prompt, ranking.trace[0].answer
    assert asked.answer == "object"
    assert isinstance(answer, Completion)
    assert set(json.loads(answer.text or "")) == set(WISH_MEMBERS)
    assert (ranking.status, len(ranking.items)) == ("ok", 3)
    assert ranking.wish is not None
    assert ranking.wish.constraints == ()  # neither a year nor a genre stands in it
    assert bounded.wish is not None
    for constraint in bounded.wish.constraints:  # what it finds of them is right; that it finds them is not promised
        assert str(constraint) in ("genres = Comedy", "year >= 1980", "year > 1979", "year <= 1989", "year < 1990")
