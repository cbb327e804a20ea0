"""Retrievers that learn, small enough to check by hand, in place of the real kinds: for tests of what evaluations do with them.

``popularity`` scores an item by how many users chose it, the others by how many chose it together with an item of the history.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmrank import retriever_kinds
from llmrank.errors import ConfigError
from llmrank.interactions import Interactions
from llmrank.protocols import Retriever
from llmrank.retrieval import collaborative
from llmrank.retrieval.embedding import EmbeddingOptions, EmbeddingRetriever
from llmrank.sections import make
from llmrank.types import Item, ResolvedRequest


@dataclass(frozen=True, slots=True)
class FakeOptions:
    """Of every kind."""

    neighbours: int = 10
    half_life_days: float | None = None

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ConfigError("must be at least 1", field="neighbours", value=self.neighbours, fix="try 100")


class FakeModel:
    """Counts of pairs of items, or of items alone."""

    options_type = FakeOptions
    floor: float | None = 0.0

    def __init__(self, kind: str, name: str, options: FakeOptions, counts: Mapping[tuple[str, str], int]) -> None:
        self.kind, self.name, self.options, self.counts = kind, name, options, counts
        self.closed = 0

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> NDArray[np.float32]:
        """The counts."""
        beside = [""] if self.kind == "popularity" else [item.id for item in request.history_items]
        return np.array([sum(self.counts.get((one, item.id), 0) for one in beside) for item in candidates], dtype=np.float32)

    def save(self, path: str | Path) -> None:
        """As JSON, whatever the name says."""
        record = {"kind": self.kind, "options": asdict(self.options), "counts": [[*key, n] for key, n in self.counts.items()]}
        Path(path).write_text(json.dumps(record), encoding="utf-8")

    def close(self) -> None:
        """Counts."""
        self.closed += 1


class Trained(list[tuple[str, FakeOptions, Interactions]]):
    """What was trained, in order: kind, options and what it learned from."""

    def train(
        self,
        kind: str,
        interactions: Interactions,
        options: FakeOptions,
        progress: Callable[[int, int], None] | None = None,
    ) -> FakeModel:
        """Counts, and remembers that it did."""
        self.append((kind, options, interactions))
        baskets: dict[str, set[str]] = {}
        for row in interactions.rows():
            baskets.setdefault(row.user_id, set()).add(row.item_id)
        if progress is not None:
            progress(len(baskets), len(baskets))
        pairs = (("", item) for basket in baskets.values() for item in basket)
        if kind != "popularity":
            pairs = (pair for basket in baskets.values() for pair in permutations(basket, 2))
        return FakeModel(kind, kind, options, Counter(pairs))


def load_model(path: str | Path, *, name: str | None = None) -> FakeModel:
    """What `FakeModel.save` wrote."""
    record = json.loads(Path(path).read_text(encoding="utf-8"))
    counts = {(one, other): n for one, other, n in record["counts"]}
    return FakeModel(record["kind"], name or record["kind"], FakeOptions(**record["options"]), counts)


def build_retriever(
    name: str,
    section: Mapping[str, Any],
    catalog_items: Sequence[Item] | None,
    *,
    embedder: Callable[[Mapping[str, Any]], Any],
    where: str,
) -> Retriever:
    """A retriever from its section."""
    options = dict(section)
    if options.pop("kind") == "embedding":
        inner = options.pop("embedder", None) or {}
        return EmbeddingRetriever(embedder(inner), make(EmbeddingOptions, options, where), catalog_items, name=name)
    if set(options) != {"path"}:
        raise ConfigError("only a path is wanted", field=where, value=options, fix="train it first")
    return load_model(options["path"], name=name)


def install(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Puts them in the places of the real ones; gives what is trained from then on."""
    trained = Trained()
    monkeypatch.setattr(collaborative, "MODEL_KINDS", dict.fromkeys(("popularity", "item-knn", "transitions"), FakeModel))
    monkeypatch.setattr(collaborative, "train", trained.train)
    monkeypatch.setattr(collaborative, "load_model", load_model)
    monkeypatch.setattr(retriever_kinds, "build_retriever", build_retriever)
    return trained
