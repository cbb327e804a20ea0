"""The text of a LightGBM model goes in; what each part of a list of candidates gives to each of them comes out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from llmrank.errors import ConfigError, SetupError
from llmrank.fusion.features import FEATURES, features
from llmrank.fusion.tree_text import checked_text

HISTORY = "history_length"
"""The name under which a candidate's score has what the length of the history gave, and what every candidate starts with."""


@dataclass(frozen=True)
class TreeModel:
    """Boosted regression trees that rank (LambdaMART: Burges, "From RankNet to LambdaRank to LambdaMART", 2010).

    They see `FEATURES` of each part and the length of the history. What a part gave is the sum of its features' SHAP values
    (Lundberg et al., "Consistent individualized feature attribution for tree ensembles", 2018), which add up to the score.
    `llmrank.evaluation.fitting` fits one.

    Args:
        names: The parts, in the order of the model's columns.
        model: LightGBM's text of the model.

    Raises:
        ConfigError: the text is no model, or one of other columns.
        SetupError: LightGBM is not installed.
    """

    names: tuple[str, ...]
    model: str

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ConfigError("names no part, or one twice", field="fusion.parts", value=list(self.names), fix="fit it anew")
        _ = self._booster  # now, and not at the first request

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts whose features it sees."""
        return self.names

    def contributions(self, scores: Mapping[str, Sequence[float]], history_length: int) -> Mapping[str, Sequence[float]]:
        """The SHAP values of each part's features, summed; under `HISTORY` those of the length of the history and the base."""
        rows = matrix(self.names, scores, history_length)
        if not len(rows):
            return {}
        shares = np.asarray(self._booster.predict(rows, pred_contrib=True, num_threads=1))
        width = len(FEATURES)
        given = {
            name: shares[:, width * place : width * (place + 1)].sum(axis=1).tolist() for place, name in enumerate(self.names)
        }
        return given | {HISTORY: shares[:, -2:].sum(axis=1).tolist()}

    def sums(self, scores: Mapping[str, Sequence[float]], history_length: int) -> NDArray[np.float64]:
        """What all parts give together, one number a candidate: the sum of `contributions`, many times as fast."""
        rows = matrix(self.names, scores, history_length)
        return np.asarray(self._booster.predict(rows, num_threads=1), dtype=np.float64) if len(rows) else np.zeros(0)

    def record(self) -> dict[str, Any]:
        """As JSON values, with a digest of the model's text."""
        return {"kind": "trees", "parts": list(self.names), "model": self.model, "digest": _digest(self.model)}

    @classmethod
    def from_record(cls, section: Mapping[str, Any]) -> Self:
        """The model of a `record`; one without a digest is of an older version.

        Raises:
            ConfigError: the text is not the one that was written, or no model.
            KeyError: a value is missing.
            SetupError: LightGBM is not installed.
        """
        model = str(section["model"])
        if section.get("digest", _digest(model)) != _digest(model):
            problem = "the trees are not those that were written: the digest is another one"
            raise ConfigError(problem, field="fusion.model", value=str(section["digest"]), fix="fit it anew")
        return cls(tuple(map(str, section["parts"])), model)

    @cached_property
    def _booster(self) -> Any:
        lightgbm = require_lightgbm()
        columns = len(self.names) * len(FEATURES) + 1
        try:
            return lightgbm.Booster(model_str=checked_text(self.model, columns))
        except (ValueError, lightgbm.basic.LightGBMError) as error:
            problem = f"is no LightGBM model of {len(self.names)} parts ({error})"
            raise ConfigError(problem, field="fusion.model", value=list(self.names), fix="fit it anew") from error


def _digest(model: str) -> str:
    return hashlib.blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def matrix(names: Sequence[str], scores: Mapping[str, Sequence[float]], history_length: int) -> NDArray[np.float64]:
    """What the trees see of a list: one row a candidate, `FEATURES` of each part in turn, and the length of the history."""
    columns = [column for name in names for column in features(scores[name])]
    count = len(columns[0])
    return np.array([*columns, [float(history_length)] * count], dtype=np.float64).T.reshape(count, len(columns) + 1)


def require_lightgbm() -> ModuleType:
    """LightGBM. Raises SetupError if it is not installed."""
    try:
        import lightgbm
    except ImportError as error:
        raise SetupError(f"a fusion by trees needs the package lightgbm ({error}): pip install 'llmrank[learned]'") from error
    found: ModuleType = lightgbm
    return found
