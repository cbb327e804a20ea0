"""A list of item ids for each user goes in, the reciprocal rank of each candidate in its user's list comes out.

The lists are somebody else's: those of a recommender that runs already, a search, an editor's choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmrank import jsonl
from llmrank.errors import DatasetError
from llmrank.retrieval.collaborative.items import ItemIndex
from llmrank.retrieval.collaborative.options import check_whole
from llmrank.retrieval.vectors import Vectors
from llmrank.types import Item, ResolvedRequest


@dataclass(frozen=True, slots=True)
class ListsOptions:
    """How places become scores.

    Args:
        rrf_k: The item at rank r scores 1 / (rrf_k + r): the larger, the less the first few places stand out.
    """

    rrf_k: int = 60

    def __post_init__(self) -> None:
        check_whole("lists.rrf_k", self.rrf_k)


class ListsRetriever:
    """Scores candidates by their place in the user's own list: 1 / (rrf_k + rank), ranks from 1; 0 for what is not on it.

    A user without a list, and a request without `user_id`, gets zeros. Of an item that stands twice on a list the first place
    counts. It is never changed, and safe to use from several threads.

    Args:
        lists: Item ids by user id, best first.
        options: See `ListsOptions`.
        name: The name of its part in a fusion.
    """

    floor: float | None = 0.0

    def __init__(self, lists: Mapping[str, Sequence[str]], options: ListsOptions | None = None, *, name: str = "lists") -> None:
        self._take(lists.items(), options, name)

    @classmethod
    def load(cls, path: str | Path, options: ListsOptions | None = None, *, name: str = "lists") -> ListsRetriever:
        """Reads lists from a JSONL file (also ``.gz``), a line a user: ``{"user_id", "items": [ids, best first]}``.

        Raises:
            DatasetError: it cannot be read, a line is wrong, or a user stands twice; file and line are named.
        """
        retriever = cls.__new__(cls)
        retriever._take(_lines(path), options, name)
        return retriever

    def _take(self, lists: Iterable[tuple[str, Sequence[str]]], options: ListsOptions | None, name: str) -> None:
        # By columns of 4 bytes and not as texts: a million users' lists of a hundred are 400 MB.
        column_of: dict[str, int] = {}
        self._list_of: dict[str, NDArray[np.int32]] = {}
        for user_id, ids in lists:
            once = dict.fromkeys(ids)
            columns = (column_of.setdefault(item_id, len(column_of)) for item_id in once)
            self._list_of[user_id] = np.fromiter(columns, dtype=np.int32, count=len(once))
        self._index = ItemIndex(column_of)
        self.options = options or ListsOptions()
        self.name = name

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> Vectors:
        """One score a candidate, float32 of shape (len(candidates),)."""
        own = None if request.user_id is None else self._list_of.get(request.user_id)
        if own is None:
            return np.zeros(len(candidates), dtype=np.float32)
        scores = np.zeros(len(self._index) + 1, dtype=np.float32)  # the last place is that of the column -1: on no list
        scores[own] = 1.0 / (self.options.rrf_k + np.arange(1, len(own) + 1))
        return scores[self._index.columns(candidates)]


def _lines(path: str | Path) -> Iterator[tuple[str, Sequence[str]]]:
    known: set[str] = set()
    for line in jsonl.lines(path, "lists"):
        user_id, ids = jsonl.id_of(line.record, "user_id", line.where), jsonl.ids(line.record, "items", line.where)
        if user_id in known:
            fix = "write all of a user's items into one line"
            raise DatasetError(f"{line.where}: the user has a line already", field="user_id", value=user_id, fix=fix)
        known.add(user_id)
        yield user_id, ids
