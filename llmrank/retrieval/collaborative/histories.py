"""Interactions go in; each user's items in the order of time, and the matrix of who chose what, come out."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrank.errors import SetupError
from llmrank.interactions import Interactions
from llmrank.retrieval.vectors import Rows

EXTRA = "pip install 'llmrank[collaborative]'"


@dataclass(frozen=True, slots=True)
class Histories:
    """What each user chose, oldest first: user u's are ``columns[starts[u]:starts[u + 1]]``.

    Attributes:
        starts: int64, shape (users + 1,).
        columns: Places in `Interactions.items`, int64, shape (interactions,).
    """

    starts: Rows
    columns: Rows

    @property
    def users(self) -> Rows:
        """The user of each place, int64, shape (interactions,)."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


def histories_of(interactions: Interactions) -> Histories:
    """Every user's interactions by time; those of one time, or of a source without times, in the order of the source."""
    if interactions.timestamp is None:
        order = np.argsort(interactions.user, kind="stable")
    else:
        order = np.lexsort((interactions.timestamp, interactions.user))  # stable: equal times keep their order
    counts = np.bincount(interactions.user, minlength=len(interactions.users))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Histories(starts, interactions.item[order].astype(np.int64))


def chosen(interactions: Interactions) -> Any:
    """Who ever chose what: a scipy ``csr_matrix`` of ones, float32, shape (users, items), columns in order."""
    sparse = scipy_sparse()
    ones = np.ones(len(interactions), dtype=np.float32)
    shape = (len(interactions.users), len(interactions.items))
    matrix = sparse.coo_matrix((ones, (interactions.user, interactions.item)), shape=shape).tocsr()
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def scipy_sparse() -> Any:
    """The module ``scipy.sparse``. Raises SetupError where it is not installed."""
    return needed("scipy.sparse")


def needed(module: str) -> Any:
    """A module of the extra `collaborative`, imported when it is needed: it takes seconds of CPU, and most runs never do.

    Raises:
        SetupError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise SetupError(f"training this kind needs {package}, which is not installed; run: {EXTRA}") from error
