"""Weights go in, by length of history if they differ; each part's normalised scores times its weight come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

from llmrank.errors import ConfigError, nearest
from llmrank.fusion.normalise import min_max, reciprocal_ranks, z_scores

Method: TypeAlias = Literal["zscore", "minmax", "rrf"]
"""How scores of different scales are made comparable; see `llmrank.fusion.normalise`."""

NORMALISE = {"zscore": z_scores, "minmax": min_max, "rrf": reciprocal_ranks}


@dataclass(frozen=True, slots=True)
class Band:
    """The weights for users with histories of some lengths.

    Args:
        weights: A weight for each part; parts left out weigh 0. A negative one counts against what the part ranks high.
        up_to: The longest history that they are for; None: any.

    Raises:
        ConfigError: a weight is no finite number, or none is above 0; `up_to` is no number of events.
    """

    weights: Mapping[str, float] = field(hash=False)
    up_to: int | None = None

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise ConfigError("must be a finite number", field=f"fusion.{name}", value=weight, fix="give a number like 1.0")
        if not any(weight > 0 for weight in self.weights.values()):
            raise ConfigError("no part has a weight above 0", field="fusion", value=dict(self.weights), fix="write {llm: 1.0}")
        up_to = self.up_to
        if up_to is not None and (isinstance(up_to, bool) or not isinstance(up_to, int) or up_to < 0):
            fix = "give the longest history in events: 0, 5, ..."
            raise ConfigError("must be a whole number, 0 or more", field="fusion.by_history.up_to", value=up_to, fix=fix)
        weights = {name: float(weight) for name, weight in self.weights.items() if weight}
        object.__setattr__(self, "weights", MappingProxyType(weights))


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """A weighted sum of normalised scores.

    Args:
        bands: In rising order of `up_to`, the last for all longer histories.
        method: ``zscore``: mean 0 and standard deviation 1 over the candidates; ``minmax``: from 0 to 1; ``rrf``: 1 / (60 +
            rank).

    Raises:
        ConfigError: the bands are not in rising order or leave out long histories; there is no such method.
    """

    bands: tuple[Band, ...]
    method: Method = "zscore"

    def __post_init__(self) -> None:
        if self.method not in NORMALISE:
            fix = nearest(str(self.method), get_args(Method))
            raise ConfigError("there is no such method", field="fusion.method", value=self.method, fix=fix)
        ends = [band.up_to for band in self.bands]
        if not ends or ends[-1] is not None:
            fix = "add a last one without up_to, for all longer histories"
            raise ConfigError("has no weights for long histories", field="fusion.by_history", value=ends, fix=fix)
        bounds = [math.inf if end is None else end for end in ends]
        if any(bounds[place] >= bounds[place + 1] for place in range(len(bounds) - 1)):
            fix = "write them from the shortest histories on, the last alone without up_to"
            raise ConfigError("the bands do not rise", field="fusion.by_history", value=ends, fix=fix)

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts with a weight in any band."""
        return tuple(dict.fromkeys(name for band in self.bands for name in band.weights))

    def weights_for(self, history_length: int) -> Mapping[str, float]:
        """The weights for a history of so many events."""
        return next(band.weights for band in self.bands if band.up_to is None or history_length <= band.up_to)

    def contributions(self, scores: Mapping[str, Sequence[float]], history_length: int) -> Mapping[str, Sequence[float]]:
        """Each part's normalised scores times its weight; parts without one are left out."""
        normalise = NORMALISE[self.method]
        return {
            name: [weight * value for value in normalise(scores[name])]
            for name, weight in self.weights_for(history_length).items()
        }

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        bands = [{"up_to": band.up_to, "weights": dict(band.weights)} for band in self.bands]
        return {"kind": "weights", "method": self.method, "bands": bands}
