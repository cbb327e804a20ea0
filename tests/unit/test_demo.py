"""The demo and `llmrank data`, with a small data set and a model that is played by a script."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmrank import assets
from llmrank.backends import local
from llmrank.backends.base import BackendBase
from llmrank.backends.local import LocalOptions
from llmrank.catalog import Catalog
from llmrank.cli import app
from llmrank.errors import DatasetError
from llmrank.evaluation.data import movielens
from llmrank.interactions import Interaction, Interactions
from llmrank.types import Capability, Completion, ContinuationScore, Item, Prompt, Usage

FILMS = [Item(str(number), f"Film {number} [of many]", {"year": 1990 + number, "genres": ["Drama"]}) for number in range(40)]


class LatestFirst(BackendBase):
    """Likes the latest films best: the score of a title is its year."""

    def __init__(self, options: LocalOptions | None = None) -> None:
        super().__init__("local", "scripted")

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Scores."""
        return frozenset({"score"})

    async def score(self, prompt: Prompt) -> Completion:
        """The year in brackets."""
        years = [float(text.rsplit("(", 1)[1][:4]) for text in prompt.continuations]
        return Completion(scores=tuple(ContinuationScore(year, 1) for year in years), usage=Usage(prompt_tokens=100, calls=1))


@pytest.fixture
def small_world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Six users who watched films 0 to 5, each beginning with another, and then the film of their own number + 30."""
    watched = {user: [*range(user, 6), *range(user), 30 + user] for user in range(6)}
    log = [Interaction(str(user), str(film), float(at)) for user, films in watched.items() for at, film in enumerate(films)]
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(movielens, "load", lambda: movielens.MovieLens(Catalog(FILMS), Interactions.of(log)))
    monkeypatch.setattr(assets, "fetch_weights", lambda model: tmp_path)
    monkeypatch.setattr(local, "LocalBackend", LatestFirst)


@pytest.mark.usefixtures("small_world")
def test_the_demo_shows_people_what_they_want_to_know() -> None:
    """The history, the ranking with the next film marked, the comparison, the cost, and how to see more; within 80 columns."""
    result = CliRunner().invoke(app, ["demo", "--users", "5"], catch_exceptions=False)
    assert result.exit_code == 0
    out = result.stdout
    assert "watched 6 films before; the last 6, in order:" in out
    assert "     Film 5 [of many] (1995) - Drama" in out
    assert "^ watched next" in out
    assert "of 20" in out
    assert "5 users, mean +- standard error, in %" in out
    for row in ("language model", "popularity", "chance (exact)"):
        assert row in out
    assert "500 tokens computed" in out
    assert "make demo USERS=200" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.usefixtures("small_world")
def test_the_demo_marks_the_right_place() -> None:
    """The script ranks by year, so that the place of a user's last film is known."""
    out = CliRunner().invoke(app, ["demo", "--users", "6"], catch_exceptions=False).stdout
    shown = out.split("the model's ranking")[1:]
    assert len(shown) == 3
    for block in shown:
        lines = block.splitlines()
        marked = next(number for number, line in enumerate(lines) if "^ watched next" in line)
        place, film = lines[marked - 1].split(".", 1)
        assert int(film.split()[1]) >= 30
        assert f"the film watched next is at place {place.strip()} of 20" in block


@pytest.mark.usefixtures("small_world")
def test_a_second_run_comes_from_the_cache() -> None:
    """No token is computed again, and the output says so."""
    runner = CliRunner()
    first, second = (runner.invoke(app, ["demo", "--users", "4"], catch_exceptions=False).stdout for _ in range(2))
    assert "400 tokens computed" in first
    assert "0 tokens computed; 4 of 4 users answered from the cache" in second


@pytest.mark.usefixtures("small_world")
def test_more_users_keep_those_that_were_there() -> None:
    """So that a longer run builds on a shorter one; one user has no standard error; all users need no advice."""
    runner = CliRunner()
    one, six = (runner.invoke(app, ["demo", "--users", str(users)], catch_exceptions=False).stdout for users in (1, 6))
    first = one.splitlines()[0]
    assert first.startswith("user ")
    assert six.splitlines()[0] == first
    assert "+- " in one
    assert not math.isnan(float(one.split("language model")[1].split("+-")[0].strip(" │|")))
    assert "1 of 6 users answered from the cache" in six
    assert "USERS=200" not in six


def test_an_unknown_data_set_names_the_nearest() -> None:
    """A typo is an input error."""
    result = CliRunner().invoke(app, ["data", "fetch", "ml100k"])
    assert isinstance(result.exception, DatasetError)
    assert "did you mean 'ml-100k'" in str(result.exception)


def test_fetch_prints_the_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that a script can go on with them."""
    monkeypatch.setattr(movielens, "fetch", lambda out: (out / "items.jsonl", out / "interactions.csv"))
    result = CliRunner().invoke(app, ["data", "fetch", "ml-100k", "--out", str(tmp_path)])
    assert result.stdout.split() == [str(tmp_path / "items.jsonl"), str(tmp_path / "interactions.csv")]
