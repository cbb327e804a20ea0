"""The path of a data set's file or folder goes in; a Catalog, or Interactions, come out, whatever format it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from llmrank import jsonl
from llmrank.catalog import Catalog
from llmrank.errors import DatasetError
from llmrank.evaluation.data import movielens
from llmrank.interactions import Interactions
from llmrank.interactions.formats import MOVIELENS, ending, find_in, open_text, separated
from llmrank.types import Item

_TYPES = ("token", "token_seq", "float", "float_seq")


def source_file(path: str | Path, what: str) -> Path:
    """The one file that is read of a source: of a MovieLens folder its film file or its rating file, else the path itself.

    Args:
        path: A file, or a MovieLens folder.
        what: What is read of it: ``items``, ``interactions``; any other source is a file.

    Raises:
        DatasetError: it is a folder, and there is no such file in it.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    known = {"items": movielens.FILES, "interactions": MOVIELENS}
    if what not in known:
        raise DatasetError("is a folder", field=what, value=str(path), fix="name a file")
    return find_in(path, known[what], what)


def load_items(path: str | Path) -> Catalog:
    """Reads an item file of any format known here.

    - What `Catalog.load` reads: JSONL, CSV, TSV, Parquet.
    - ``.item``: RecBole's atomic files. The title is the column `title`, else the only one with ``title`` in its name, else
      `name`; the other columns become attributes, sequences as lists.
    - A MovieLens folder or its film file: titles as people say them, year and genres as attributes.

    Raises:
        DatasetError: it cannot be read, or a row is wrong; file and line are in the message.
        CatalogError: the same, said by `Catalog.load`; or an id stands twice.
        SetupError: the format is Parquet and pyarrow is not installed.
    """
    path = source_file(path, "items")
    if path.name in movielens.FILES:
        return Catalog(movielens.films(path))
    return Catalog(_atomic_items(path)) if ending(path) == ".item" else Catalog.load(path)


def load_interactions(path: str | Path) -> Interactions:
    """Reads a file of interactions, or a MovieLens folder's: `Interactions.load`."""
    return Interactions.load(path)


def _atomic_items(path: Path) -> Iterator[Item]:
    """RecBole's ``.item``: columns between tabs under a header such as ``item_id:token``, sequences between spaces."""
    with jsonl.reading(str(path), "items"), open_text(path) as file:
        rows = separated(file, "\t", str(path), "items", plain=True)
        _, header = next(rows, (0, []))
        names, kinds = _typed(header, path)
        title = _title(names, path)
        for number, row in rows:
            where = f"{path}, line {number}"
            if len(row) != len(names):
                raise DatasetError(f"{where}: not {len(names)} columns", field="items", value=row, fix="mend the line")
            values = dict(zip(names, row, strict=True))
            if not values["item_id"]:
                raise DatasetError(f"{where}: an id is empty", field="items", value=row, fix="mend the line")
            attributes = {
                name: _value(text, kind, where)
                for (name, text), kind in zip(values.items(), kinds, strict=True)
                if text and name not in ("item_id", title)
            }
            yield Item(values["item_id"], values[title], attributes)


def _typed(header: Sequence[str], path: Path) -> tuple[list[str], list[str]]:
    """Names and types of the columns."""
    names, kinds = [each.partition(":")[0] for each in header], [each.partition(":")[2] for each in header]
    if "item_id" not in names or len(set(names)) < len(names) or not set(kinds) <= set(_TYPES):
        raise DatasetError(
            f"{path}: not the header of an item file",
            field="items",
            value=list(header),
            fix=f"it names item_id:token and other columns, each once, with a type ({', '.join(_TYPES)})",
        )
    return names, kinds


def _title(names: Sequence[str], path: Path) -> str:
    """The column that holds the titles."""
    alike = [name for name in names if "title" in name]
    for known in ("title", alike[0] if len(alike) == 1 else "", "name"):
        if known in names:
            return known
    fix = "call one column `title`"
    raise DatasetError(f"{path}: it is not clear which column is the title", field="items", value=list(names), fix=fix)


def _value(text: str, kind: str, where: str) -> object:
    try:
        if kind.startswith("float"):
            return float(text) if kind == "float" else [float(each) for each in text.split(" ") if each]
    except ValueError as error:
        raise DatasetError(f"{where}: not a number", field="items", value=text, fix="mend the line") from error
    return text if kind == "token" else [each for each in text.split(" ") if each]
