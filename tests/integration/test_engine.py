"""The whole engine with the real embedded model: history and candidates in, a validated Ranking out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from llmrank import Catalog, Item, Ranker, RankRequest

pytestmark = pytest.mark.local

FILMS = [
    ("Alien", 1979, "Horror, Sci-Fi"),
    ("Aliens", 1986, "Action, Sci-Fi"),
    ("The Terminator", 1984, "Action, Sci-Fi"),
    ("Toy Story", 1995, "Animation, Comedy"),
    ("Babe", 1995, "Children's, Comedy"),
    ("The Lion King", 1994, "Animation, Musical"),
    ("Titanic", 1997, "Drama, Romance"),
    ("Sense and Sensibility", 1995, "Drama, Romance"),
    ("Toy Story", 1995, "Animation, Comedy"),  # a second item with the same words stays an item of its own
]
CATALOG = Catalog(
    Item(str(number), title, {"year": year, "genres": genres}) for number, (title, year, genres) in enumerate(FILMS)
)
PROMPT = {"fields": ["title", "year", "genres"], "variables": {"domain": "movies"}}
HISTORY, CANDIDATES = ["0", "1"], ["3", "2", "4", "5", "6", "8"]


def config(template: str, kind: str, prompt: dict[str, Any] | None = None, **strategy: object) -> dict[str, Any]:
    return {
        "backend": {"kind": "local", "context_window": 2048},
        "prompt": {**PROMPT, "template": template, **(prompt or {})},
        "strategy": {"kind": kind, **strategy},
    }


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> str:
    """An answer cache for the module, so that what several tests ask is computed once."""
    return str(tmp_path_factory.mktemp("cache") / "answers.sqlite")


def test_likelihood_prefers_what_goes_with_the_history(answers: str) -> None:
    """After two science-fiction films the model ranks the third one above the children's films; titles' twins stay apart."""
    with Ranker.from_config(
        {**config("likelihood/next-line", "likelihood"), "cache": {"path": answers}}, catalog=CATALOG
    ) as ranker:
        ranking = ranker.rank(HISTORY, CANDIDATES)
    assert sorted(ranking.item_ids) == sorted(CANDIDATES)
    assert ranking.item_ids[0] == "2"
    assert ranking.status == "ok"
    assert ranking.usage.prompt_tokens > 50
    scores = {each.id: each.score for each in ranking.items}
    assert scores["3"] == scores["8"]


def test_pmi_changes_the_scores_and_is_paid_for_once(answers: str) -> None:
    """The unconditional likelihoods are the same for every user, so the second user's come from the cache."""
    with Ranker.from_config(
        {**config("likelihood/next-line", "likelihood", pmi_weight=1.0), "cache": {"path": answers}}, catalog=CATALOG
    ) as ranker:
        first = ranker.rank(HISTORY, CANDIDATES)
        second = ranker.rank(["6"], CANDIDATES)
    assert (first.status, second.status) == ("ok", "ok")
    assert first.item_ids[0] == "2"
    assert second.item_ids.index("2") > first.item_ids.index("2")
    assert (second.usage.calls, second.usage.cache_hits) == (1, len(CANDIDATES))


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("listwise/sequential", "order"),
        ("listwise/recency", "json"),
        ("listwise/in-context", "order"),
        ("listwise/nir", "order"),
    ],
)
def test_every_listwise_template_gives_a_permutation(template: str, answer: str, answers: str) -> None:
    """Decoding is constrained, so that even a small model's answer is a whole ranking, in both forms."""
    made = config(template, "listwise", {"answer": answer}, step_tokens=24)
    with Ranker.from_config({**made, "cache": {"path": answers}}, catalog=CATALOG) as ranker:
        ranking = ranker.rank(HISTORY, CANDIDATES)
    assert sorted(ranking.item_ids) == sorted(CANDIDATES)
    assert (ranking.status, ranking.filled) == ("ok", ())
    assert len(ranking.trace) == (3 if template == "listwise/nir" else 1)


def test_sliding_windows_and_async_and_streams_agree(answers: str) -> None:
    """The same request gives the same Ranking by `rank`, `arank`, `rank_many` and `arank_many`."""
    made = {**config("listwise/recency", "listwise", window=4, step=2), "cache": {"path": answers}}
    request = RankRequest(HISTORY, CANDIDATES)
    with Ranker.from_config(made, catalog=CATALOG) as ranker:
        ranking = ranker.rank(HISTORY, CANDIDATES)

        async def others() -> list[list[str]]:
            one = await ranker.arank(HISTORY, CANDIDATES)
            many = [each async for each in ranker.arank_many([request])]
            return [one.item_ids, many[0].item_ids]

        assert [each.item_ids for each in ranker.rank_many([request])] == [ranking.item_ids]
        assert asyncio.run(others()) == [ranking.item_ids] * 2
    assert ranking.status == "ok"
    assert len(ranking.trace) == 2


def test_a_sentence_ranks_without_a_history(answers: str) -> None:
    """Cold start: the query is read by the likelihood and the listwise template, and by the prefilter."""
    query = "a romantic drama"
    for template, kind in (("likelihood/query", "likelihood"), ("listwise/cold-start", "listwise")):
        made = {**config(template, kind), "prefilter": {"keep": 3, "embedder": {"store": None}}, "cache": {"path": answers}}
        with Ranker.from_config(made, catalog=CATALOG) as ranker:
            ranking = ranker.rank(query=query)
        assert ranking.status == "ok"
        assert len(ranking.items) == 3
        assert {"6", "7"} <= set(ranking.item_ids)
        assert ranking.cut.prefiltered == len(FILMS) - 3


def test_a_long_history_is_cut_to_the_window(answers: str) -> None:
    """A history of hundreds of events is cut, oldest first, and the Ranking says by how much."""
    made = config("listwise/sequential", "listwise", {"history": 500}) | {"backend": {"kind": "local", "context_window": 768}}
    with Ranker.from_config({**made, "cache": {"path": answers}}, catalog=CATALOG) as ranker:
        ranking = ranker.rank(HISTORY * 150, CANDIDATES)
    assert ranking.status == "ok"
    assert 0 < ranking.cut.history < 300
    assert ranking.usage.prompt_tokens <= 768
