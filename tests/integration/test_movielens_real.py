"""The real MovieLens 100K, as `make test` has fetched it."""

from __future__ import annotations

import pytest

from llmrank.assets import cache_dir
from llmrank.evaluation import movielens
from llmrank.evaluation.cases import leave_last_out, popularity

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def data() -> movielens.MovieLens:
    """The data set; without it the tests are skipped."""
    if not (cache_dir() / "ml-100k" / "interactions.csv").exists():
        pytest.skip("MovieLens 100K is not here: `make test` fetches it")
    return movielens.load()


def test_its_numbers_are_those_of_its_readme(data: movielens.MovieLens) -> None:
    """943 users, 1,682 items, 100,000 ratings from 1 to 5, in the seven months from September 1997."""
    assert len(data.catalog) == 1682
    assert len(data.interactions) == 100_000
    assert len({each.user_id for each in data.interactions}) == 943
    assert {each.rating for each in data.interactions} == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert min(each.timestamp for each in data.interactions) > 874_600_000  # 1997-09-19
    assert max(each.timestamp for each in data.interactions) < 893_300_000  # 1998-04-23


def test_titles_read_as_people_say_them(data: movielens.MovieLens) -> None:
    """Articles in front, accents whole, years apart; only one film has no year."""
    titles = [item.title for item in data.catalog]
    assert data.catalog["543"].title == "Les Misérables"
    assert data.catalog["1"].attributes == {"year": 1995, "genres": ["Animation", "Children's", "Comedy"]}
    assert not [title for title in titles if title.endswith((", The", ", A", ", La"))]
    assert [item.id for item in data.catalog if "year" not in item.attributes] == ["267"]


def test_every_user_gives_a_case(data: movielens.MovieLens) -> None:
    """20 candidates each, one relevant, none seen before; popularity ranks well above chance, as the literature finds."""
    cases = leave_last_out(data.interactions, item_ids=[item.id for item in data.catalog])
    assert len(cases) == 943
    assert all(len(set(case.candidates)) == 20 and not set(case.candidates) & set(case.history) for case in cases)
    counts = popularity(data.interactions, cases)
    assert sum(counts.values()) == 100_000 - 943
    first = [max(case.candidates, key=lambda item_id: counts[item_id]) in case.relevant for case in cases]
    assert sum(first) / len(first) > 0.15
