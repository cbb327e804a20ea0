"""Item files of every format: one Catalog."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from llmrank.errors import CatalogError, DatasetError
from llmrank.evaluation.data.datasets import load_interactions, load_items, source_file
from llmrank.types import Item

ATOMIC = (
    "item_id:token\tprice:float\ttitle:token_seq\tcategories:token_seq\tsizes:float_seq\n"
    '1\t3.5\tThe "Heron"\tGames PC\t1 2.5\n2\t\tFire Emblem\t\t\n'
)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_recboles_item_files_become_a_catalogue(packed: bool, tmp_path: Path) -> None:
    """Types as the header says; what is empty is left out; quotation marks are letters."""
    path = tmp_path / ("games.item.gz" if packed else "games.item")
    path.write_bytes(gzip.compress(ATOMIC.encode()) if packed else ATOMIC.encode())
    assert list(load_items(path)) == [
        Item("1", 'The "Heron"', {"price": 3.5, "categories": ["Games", "PC"], "sizes": [1.0, 2.5]}),
        Item("2", "Fire Emblem"),
    ]


@pytest.mark.parametrize(
    ("columns", "title"),
    [
        ("movie_title:token_seq\tname:token", "A"),
        ("name:token\tbrand:token", "A"),
        ("sub_title:token\ttitle:token_seq", "B"),
    ],
)
def test_the_title_is_found_by_its_column(columns: str, title: str, tmp_path: Path) -> None:
    """`title`, or the only column named like it, or `name`."""
    path = tmp_path / "x.item"
    path.write_text(f"item_id:token\t{columns}\n1\tA\tB\n", encoding="utf-8")
    assert load_items(path)["1"].title == title


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id:token\tbrand:token\n1\tA\n", r"not clear which column is the title .*brand"),
        ("item_id:token\ta_title:token\tb_title:token\n1\tA\tB\n", r"not clear which column is the title"),
        ("id:token\ttitle:token\n1\tA\n", r"not the header of an item file"),
        ("item_id\ttitle\n1\tA\n", r"not the header of an item file"),
        ("", r"not the header of an item file"),
        ("item_id:token\ttitle:token\n1\n", r"x\.item, line 2: not 2 columns"),
        ("item_id:token\ttitle:token\n\tA\n", r"x\.item, line 2: an id is empty"),
        ("item_id:token\ttitle:token\tprice:float\n1\tA\tcheap\n", r"x\.item, line 2: not a number .*cheap"),
    ],
)
def test_a_malformed_item_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    """With its line, and the columns that there are."""
    path = tmp_path / "x.item"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        load_items(path)


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """As in every other item file."""
    path = tmp_path / "x.item"
    path.write_text("item_id:token\ttitle:token\n1\tA\n1\tB\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="the item id stands twice"):
        load_items(path)


def test_a_movielens_folder_gives_items_and_interactions(tmp_path: Path) -> None:
    """Both from the one folder."""
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n1,"Heron, The (1996)",Comedy|Drama\n', encoding="utf-8")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,1,3.0,5\n", encoding="utf-8")
    assert list(load_items(tmp_path)) == [Item("1", "The Heron", {"year": 1996, "genres": ["Comedy", "Drama"]})]
    assert load_interactions(tmp_path).items == ("1",)
    with pytest.raises(DatasetError, match=r"items: .*no known file in the folder"):
        load_items(tmp_path / "..")


def test_the_projects_own_formats_are_read_as_ever(tmp_path: Path) -> None:
    """By Catalog.load."""
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": "1", "title": "Heron"}\n', encoding="utf-8")
    assert list(load_items(path)) == [Item("1", "Heron")]
    with pytest.raises(CatalogError, match="no such item file"):
        load_items(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("films", "ratings"), [("u.item", "u.data"), ("movies.dat", "ratings.dat"), ("movies.csv", "ratings.csv")]
)
def test_of_a_folder_only_the_files_that_are_read_are_its_source(films: str, ratings: str, tmp_path: Path) -> None:
    """Whatever else lies there, a run's own files for instance, is no part of the data; a file is its own source."""
    for name in (films, ratings, "README", "results.jsonl"):
        (tmp_path / name).touch()
    assert source_file(tmp_path, "items") == tmp_path / films
    assert source_file(str(tmp_path), "interactions") == tmp_path / ratings
    assert source_file(tmp_path / "README", "cases") == tmp_path / "README"


def test_a_folder_without_known_files_is_no_source(tmp_path: Path) -> None:
    """The message names what is missing; cases are never a folder."""
    with pytest.raises(DatasetError, match=r"interactions: .*no known file in the folder.*ratings\.csv"):
        source_file(tmp_path, "interactions")
    with pytest.raises(DatasetError, match=r"cases: is a folder.*name a file"):
        source_file(tmp_path, "cases")
