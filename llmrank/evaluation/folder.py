"""The path of a run's folder goes in, its parts come out: manifest, cases, items, what was learned from, results, summary.

::

    DIR/manifest.json             what was asked: suite, protocol, data hashes, rankers with template fingerprints, versions
    DIR/data/items.jsonl          the catalogue           } frozen when the run begins, so that the
    DIR/data/cases.jsonl          the cases, in order     } folder can be read, and the run go on,
    DIR/data/popularity.json      who chose what before   } wherever it is moved
    DIR/data/training.npz         the same row by row     } (only where a ranker has to learn from it)
    DIR/models/<digest>.npz       what rankers learned, and beside it how long it took (running/learning.py)
    DIR/results/<ranker>.jsonl    one line a case, in order, written and fsynced as each is ranked
    DIR/stability/<ranker>.jsonl  the same for shuffled candidates
    DIR/positions/<ranker>/<place>.jsonl  the same with what is relevant at that place
    DIR/memorization.json         what the probe found, by ranker
    DIR/answers.sqlite            the answer cache
    DIR/spent.jsonl               one line a call that was paid for
    DIR/summary.json, report.html, report.md, metrics.csv, cases.csv, trec/
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrank.catalog import Catalog
from llmrank.errors import DatasetError, shorten
from llmrank.evaluation.cases import Case, read_cases
from llmrank.files import read_lines

if TYPE_CHECKING:
    from llmrank.interactions import Interactions

RANKER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,79}")
"""What a ranker may be called, for its name becomes that of files."""


@dataclass(frozen=True, slots=True)
class Popularity:
    """How many of `users` chose each item, in what may be learned from (never what a case asks for)."""

    users: int
    counts: Counter[str]


class RunFolder:
    """A run on disk.

    Args:
        path: The folder. It need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        """True if a run was begun here."""
        return (self.path / "manifest.json").exists()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was asked. Raises DatasetError if there is no run here."""
        return self._json("manifest.json")

    @property
    def ranker_names(self) -> list[str]:
        """The rankers, in the suite's order."""
        return list(self.manifest["rankers"])

    @cached_property
    def catalog(self) -> Catalog:
        """The items."""
        return Catalog.load(self.path / "data" / "items.jsonl")

    @cached_property
    def popularity(self) -> Popularity | None:
        """How often each item was chosen; None if the suite names no interactions."""
        if not (self.path / "data" / "popularity.json").exists():
            return None
        found = self._json("data/popularity.json")
        return Popularity(found["users"], Counter(found["counts"]))

    @cached_property
    def training(self) -> Interactions | None:
        """What rankers may learn from; None if none of them has to, or the suite names no interactions."""
        # Only what the manifest knows: a session that was killed may have left a file that it does not vouch for.
        if "training.npz" not in self.manifest.get("frozen", {}):
            return None
        from llmrank.evaluation.data.training import load_interactions

        return load_interactions(self.path / "data" / "training.npz")

    @property
    def models_path(self) -> Path:
        """Where trained models are; there need not be any."""
        return self.path / "models"

    def cases(self) -> Iterator[Case]:
        """The cases, in order; the number of a case, counted from 0, is `case` in the results."""
        return read_cases(self.path / "data" / "cases.jsonl")

    def results_path(self, ranker: str) -> Path:
        """Where the results of a ranker are."""
        return self.path / "results" / f"{self._file(ranker)}.jsonl"

    def stability_path(self, ranker: str) -> Path:
        """Where the results of a ranker for shuffled candidates are; there need not be any."""
        return self.path / "stability" / f"{self._file(ranker)}.jsonl"

    def positions_path(self, ranker: str, place: int) -> Path:
        """Where the results of a ranker are with what is relevant at a place (from 1); there need not be any."""
        return self.path / "positions" / self._file(ranker) / f"{place}.jsonl"

    def trec_path(self, ranker: str) -> Path:
        """Where a ranker's orders are in the form of TREC."""
        return self.path / "trec" / f"{self._file(ranker)}.run"

    def results(self, ranker: str) -> Iterator[dict[str, Any]]:
        """The results of a ranker in the order of the cases, one at a time: `records.full_record` with `case`."""
        return read_lines(self.results_path(ranker))

    def stability(self, ranker: str) -> Iterator[dict[str, Any]]:
        """The results for shuffled candidates: like `results`, with `shuffle` (from 1) beside `case`; grouped by case."""
        return read_lines(self.stability_path(ranker))

    @property
    def memorization(self) -> dict[str, Any] | None:
        """What the memorisation probe found, by ranker; None if it was not asked for."""
        return self._json("memorization.json") if (self.path / "memorization.json").exists() else None

    @property
    def summary(self) -> dict[str, Any]:
        """The summary. Raises DatasetError if the run was never summarised."""
        return self._json("summary.json")

    def _file(self, ranker: str) -> str:
        """A ranker's name as that of a file. A manifest may be a stranger's: it names no file outside of the folder."""
        if not RANKER_NAME.fullmatch(ranker):
            fix = "a ranker's name has letters, digits and . _ + - only: check where the folder is from"
            raise DatasetError(f"names a ranker {shorten(ranker)}", field="run", value=str(self.path), fix=fix)
        return ranker

    def _json(self, name: str) -> dict[str, Any]:
        return json_object(self.path, name, "run", "name the folder of an evaluation run (llmrank eval run SUITE --out DIR)")


def json_object(folder: Path, name: str, field: str, fix: str) -> dict[str, Any]:
    """The JSON object that a file of a folder holds.

    Args:
        folder: The folder.
        name: The file's.
        field: What messages call the folder.
        fix: What to do if there is no such file.

    Raises:
        DatasetError: it is missing, cannot be read, or holds something else.
    """
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"there is no {name}", field=field, value=str(folder), fix=fix) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{name} cannot be read ({error})", field=field, value=str(folder), fix="check it") from error
    if not isinstance(value, dict):
        raise DatasetError(f"{name} is not a JSON object", field=field, value=str(folder), fix="run it anew")
    return value
