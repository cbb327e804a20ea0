"""Retrievers and trees that were trained on other users go in; one score a candidate, of all of them together, comes out.

A folder holds such a retriever::

    learned.json   {"format": 1, "parts": {NAME: section of a retriever, with `path` in this folder},
                    "trees": what `TreeModel.record` gives, "trained": on what, and how well it did on users apart}
    NAME.npz       a part's own model

Of a part that embeds texts it tells which vectors it was trained with (`embedder_kinds.vectors_of`), not where they are had:
that is named by the configuration beside the folder's path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmrank.errors import ConfigError
from llmrank.fusion import TreeModel
from llmrank.protocols import Retriever
from llmrank.retrieval.prefilter import first_found
from llmrank.retrieval.vectors import Vectors
from llmrank.types import Item, ResolvedRequest

FORMAT = 1
FILE = "learned.json"

MOST = 1000
"""Of a longer list the trees see only what the parts find, so many of each at most."""

FLOOR = -1e9
"""The score of what no part found in a long list."""


class LearnedRetriever:
    """Scores candidates by LambdaMART over the scores of several retrievers (`llmrank.fusion.TreeModel`).

    A list of up to `MOST` candidates is scored whole. Of a longer one, a whole catalogue, each part finds candidates first, and
    the others stand at `floor`. Scores are comparable within one list only.

    Args:
        parts: By name, as the trees know them. They are closed with it, if they can be.
        trees: What was trained.
        name: The name of its part in a fusion.
        trained: What it was trained on, as JSON values.

    Raises:
        ConfigError: the trees know a part that is not there.
    """

    kind = "learned"
    floor: float | None = FLOOR

    def __init__(
        self,
        parts: Mapping[str, Retriever],
        trees: TreeModel,
        *,
        name: str = kind,
        trained: Mapping[str, Any] | None = None,
    ) -> None:
        missing = [part for part in trees.parts if part not in parts]
        if missing:
            raise ConfigError("is a part of the trees and not there", field="parts", value=missing[0], fix="train it anew")
        self.name = name
        self.parts, self.trees, self.trained = dict(parts), trees, dict(trained or {})

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """One score a candidate, float32 of shape (len(candidates),)."""
        scores = {name: self.parts[name].score(request, candidates) for name in self.trees.parts}
        length = len(request.history)
        if len(candidates) <= MOST:
            return self._together(scores, np.arange(len(candidates)), length)
        found = [first_found(self.parts[name], each, MOST).positions for name, each in scores.items()]
        places = np.unique(np.concatenate(found))
        total = np.full(len(candidates), FLOOR, dtype=np.float32)
        if len(places):
            total[places] = self._together(scores, places, length)
        return total

    def close(self) -> None:
        """Closes the parts that hold something."""
        for part in self.parts.values():
            close = getattr(part, "close", None)
            if close is not None:
                close()

    def _together(self, scores: Mapping[str, Vectors], places: Any, length: int) -> Vectors:
        return self.trees.sums({name: each[places].tolist() for name, each in scores.items()}, length).astype(np.float32)


def write_learned(
    folder: Path, sections: Mapping[str, Mapping[str, Any]], trees: TreeModel, trained: Mapping[str, Any]
) -> None:
    """Writes `learned.json` beside the parts' models.

    Args:
        folder: Where the models of the parts are.
        sections: The parts' sections, with paths inside of the folder.
        trees: What was trained.
        trained: On what, and how well it did, as JSON values.
    """
    document = {"format": FORMAT, "parts": sections, "trees": trees.record(), "trained": dict(trained)}
    (folder / FILE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_learned(path: str | Path, build: Callable[[str, Mapping[str, Any]], Retriever], *, name: str) -> LearnedRetriever:
    """Reads a folder that `llmrank train learned` wrote.

    Args:
        path: The folder.
        build: Builds a part from its name and section.
        name: The name of the retriever's part in a fusion.

    Raises:
        ConfigError: it is no such folder, or a part of it is damaged.
        SetupError: LightGBM, or what a part needs, is not installed.
    """
    folder = Path(path)
    document = _document(folder)
    sections: dict[str, dict[str, Any]] = document["parts"]
    try:
        trees = TreeModel.from_record(document["trees"])
    except ConfigError as error:
        raise _damaged(folder / FILE, f"holds no trees ({error.message})") from error
    parts = {
        part: build(part, {**section, "path": str(folder / section["path"])} if "path" in section else section)
        for part, section in sections.items()
    }
    return LearnedRetriever(parts, trees, name=name, trained=document["trained"])


def _document(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "name a folder that `llmrank train learned` wrote"
        raise ConfigError(f"has no {FILE} ({error.strerror})", field="path", value=str(folder), fix=fix) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is not JSON ({error})") from error
    shape = {"parts": dict, "trees": dict, "trained": dict}
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(path, "is not of the form that this version writes")
    if not all(isinstance(document.get(key), kind) for key, kind in shape.items()):
        raise _damaged(path, "lacks parts, trees or trained")
    trees = document["trees"]
    names = trees.get("parts")
    known = isinstance(names, list) and all(isinstance(name, str) and name in document["parts"] for name in names)
    if not known or not isinstance(trees.get("model"), str):
        raise _damaged(path, "has trees of other parts")
    for section in document["parts"].values():
        if not isinstance(section, dict) or not isinstance(section.get("path", ""), str):
            raise _damaged(path, "has a part that is no section")
        # What a folder names is opened: it may be somebody else's. Nor may it hold itself.
        inside = section.get("path", FILE)
        if section.get("kind") == LearnedRetriever.kind or inside in ("", ".", "..") or set(inside) & set("/\\:\0"):
            raise _damaged(path, f"has a part that does not lie in it as a file ({inside!r})")
    return document


def _damaged(path: Path, what: str) -> ConfigError:
    return ConfigError(what, field="path", value=str(path), fix="train it anew")
