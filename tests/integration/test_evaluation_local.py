"""Forecast and memorisation probe with the embedded model: what is said before a run, and what a real model knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrank.backends.guard import guard
from llmrank.backends.local import LocalBackend, LocalOptions
from llmrank.backends.retry import Limits
from llmrank.cache import AnswerCache
from llmrank.catalog import Catalog
from llmrank.evaluation.cases import Case
from llmrank.evaluation.probing.probe import probe
from llmrank.forecast import forecast
from llmrank.prices import Prices
from llmrank.ranker import Ranker
from llmrank.strategy_kinds import build_strategy
from llmrank.types import Item

pytestmark = pytest.mark.local

FILMS = (
    ("The Silence of the Lambs", 1991, ["Drama", "Thriller"]),
    ("The Empire Strikes Back", 1980, ["Action", "Adventure", "Sci-Fi"]),
    ("Raiders of the Lost Ark", 1981, ["Action", "Adventure"]),
    ("One Flew Over the Cuckoo's Nest", 1975, ["Drama"]),
    ("The Bridge on the River Kwai", 1957, ["Drama", "War"]),
    ("It's a Wonderful Life", 1946, ["Drama"]),
    ("2001: A Space Odyssey", 1968, ["Drama", "Mystery", "Sci-Fi", "Thriller"]),
    ("Breakfast at Tiffany's", 1961, ["Drama", "Romance"]),
    ("Butch Cassidy and the Sundance Kid", 1969, ["Action", "Comedy", "Western"]),
    ("Monty Python and the Holy Grail", 1974, ["Comedy"]),
    ("The Day the Earth Stood Still", 1951, ["Drama", "Sci-Fi"]),
    ("Indiana Jones and the Last Crusade", 1989, ["Action", "Adventure"]),
    ("Willy Wonka and the Chocolate Factory", 1971, ["Adventure", "Children's", "Comedy"]),
    ("Snow White and the Seven Dwarfs", 1937, ["Animation", "Children's", "Musical"]),
    ("Around the World in 80 Days", 1956, ["Adventure", "Comedy"]),
    ("The Wizard of Oz", 1939, ["Adventure", "Children's", "Drama", "Musical"]),
)
CATALOG = Catalog(Item(str(at), title, {"year": year, "genres": genres}) for at, (title, year, genres) in enumerate(FILMS))
CASE = Case("a", ("0", "1", "2", "3"), tuple(map(str, range(4, 12))), ("5",))


@pytest.fixture
def backend(weights: Path) -> LocalBackend:
    """The model; whoever takes it closes it."""
    return LocalBackend(LocalOptions(model=str(weights), context_window=1024, slots=4))


@pytest.mark.parametrize(("kind", "fields"), [("likelihood", ["title", "year", "genres"]), ("listwise", ["title"])])
def test_a_forecast_without_the_model_is_near_to_what_it_counts(backend: LocalBackend, kind: str, fields: list[str]) -> None:
    """The same calls, and within 15 % the tokens of a vocabulary that the forecast does not have (within 10 % on ML-100K)."""
    strategy = build_strategy({"kind": kind}, {"fields": fields, "variables": {"domain": "movies"}})
    with Ranker(backend, strategy, catalog=CATALOG) as ranker:
        found = forecast(ranker, [CASE.request], 1, Prices.load())
        (ranking,) = ranker.rank_many([CASE.request])
    assert found.calls == ranking.usage.calls
    assert found.prompt_tokens == pytest.approx(ranking.usage.prompt_tokens, rel=0.15)
    assert found.usd == 0.0


async def test_a_probe_of_famous_films_finds_what_the_model_has_read(backend: LocalBackend, tmp_path: Path) -> None:
    """To it the true ends of famous titles are likelier than those of others; asked again, all answers come from the cache."""
    # As a configuration has it for a model in this process, which may wait for a busy machine.
    guarded = guard(backend, limits=Limits(deadline_s=None), cache=AnswerCache(tmp_path / "answers.sqlite"))
    try:
        first = await probe(guarded, CATALOG, (), titles=8, histories=0)
        again = await probe(guarded, CATALOG, (), titles=8, histories=0)
    finally:
        await guarded.aclose()
    assert first["method"] == "score"
    titles = first["titles"]
    assert titles["n"] >= 6
    assert titles["real"] > titles["control"]
    assert again["titles"] == titles
    assert again["usage"]["prompt_tokens"] == first["usage"]["prompt_tokens"]
