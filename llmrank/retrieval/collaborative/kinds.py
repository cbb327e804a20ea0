"""The name of a kind and interactions go in, a trained model comes out; and the model of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError, DatasetError, nearest
from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative.als import Als
from llmrank.retrieval.collaborative.bpr import Bpr
from llmrank.retrieval.collaborative.ease import Ease
from llmrank.retrieval.collaborative.item_knn import ItemKnn
from llmrank.retrieval.collaborative.model import CollaborativeModel
from llmrank.retrieval.collaborative.pmi import Pmi
from llmrank.retrieval.collaborative.popularity import Popularity
from llmrank.retrieval.collaborative.storage import read_model
from llmrank.retrieval.collaborative.transitions import Transitions
from llmrank.retrieval.collaborative.user_knn import UserKnn
from llmrank.retrieval.vectors import Progress

MODEL_KINDS: Mapping[str, type[CollaborativeModel[Any]]] = {
    each.kind: each for each in (Popularity, ItemKnn, Transitions, Ease, UserKnn, Als, Bpr, Pmi)
}
"""Every kind of model; its class has the class of its options as `options_type`, and trains."""


def kind_of_model(kind: str, field: str = "kind") -> type[CollaborativeModel[Any]]:
    """The class of a kind. Raises ConfigError if there is none of that name (the nearest is named)."""
    if kind not in MODEL_KINDS:
        raise ConfigError("no such kind of model", field=field, value=kind, fix=nearest(str(kind), MODEL_KINDS))
    return MODEL_KINDS[kind]


def train(
    kind: str,
    interactions: Interactions,
    options: object | None = None,
    progress: Progress | None = None,
    *,
    name: str | None = None,
) -> CollaborativeModel[Any]:
    """Trains a model.

    Args:
        kind: One of `MODEL_KINDS`.
        interactions: Who chose what.
        options: An object of the kind's `options_type`; None for its defaults.
        progress: Called with (done, total) now and then, in the units of the kind.
        name: The name of the model's part in a fusion; None for the kind.

    Raises:
        ConfigError: there is no such kind, the options are another kind's, or do not go with the interactions.
        DatasetError: there are no interactions.
        SetupError: a package is missing; the message says how to install it.
    """
    cls = kind_of_model(kind)
    if options is None:
        options = cls.options_type()
    if not isinstance(options, cls.options_type):
        raise ConfigError(
            f"are not those of {kind}", field="options", value=options, fix=f"give {cls.options_type.__name__}(...)"
        )
    if not len(interactions):
        raise DatasetError(f"{interactions.name}: holds no interactions", field="interactions", fix="give at least one")
    model = cls.train(interactions, options, progress)
    return model if name is None else model.named(name)


def load_model(path: str | Path, *, name: str | None = None) -> CollaborativeModel[Any]:
    """The model that was saved in a file. Needs no package that trained it.

    Args:
        path: The ``.npz`` file.
        name: The name of the model's part in a fusion; None for its kind.

    Raises:
        ConfigError: the file is missing, damaged, or not that of a model.
    """
    return read_model(path, MODEL_KINDS, name)
