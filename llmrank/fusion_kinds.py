"""The section `fusion` of a configuration goes in, a Fusion comes out: by weights, by weights for each band, or fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmrank.errors import ConfigError
from llmrank.fusion import Band, Fusion, WeightedSum
from llmrank.fusion.file import read_fusion
from llmrank.fusion.weighted import Method
from llmrank.sections import make, mapping_of, refuse_unknown, take

RESERVED = ("method", "by_history", "path")
"""Keys beside the names of parts, so that no part may have one of these names."""


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """What stands in the section beside the weights of parts.

    Args:
        method: How scores of different scales are made comparable: ``zscore``, ``minmax`` or ``rrf``; see `WeightedSum`.
        by_history: Weights by length of history, in place of weights: mappings of weights with `up_to`, the longest history
            in events that they are for; the last has none.
        path: A file that was fitted, in place of all else.
    """

    method: Method = "zscore"
    by_history: tuple[Mapping[str, Any], ...] | None = None
    path: str | None = None


def fusion_of(section: Mapping[str, Any], parts: Sequence[str]) -> Fusion | None:
    """Builds a Fusion.

    Args:
        section: The section `fusion`; empty for none.
        parts: The names of the parts that the Ranker has: ``llm``, ``prefilter``, and its retrievers'.

    Raises:
        ConfigError: a key or part is unknown (the nearest is named), a value is wrong, keys exclude each other, or the file
            cannot be read or needs a part that there is not.
        SetupError: the file holds trees, and LightGBM is not installed.
    """
    if not section:
        return None
    weights = dict(section)
    given = take(weights, *RESERVED)
    refuse_unknown(weights, (*parts, *RESERVED), "fusion")
    options = make(FusionOptions, given, "fusion")
    if options.path is not None:
        _refuse_beside("path", {key: value for key, value in section.items() if key != "path"})
        return _fitted(options.path, parts)
    if options.by_history is not None:
        _refuse_beside("by_history", weights)
        bands = tuple(_band(place, band, parts) for place, band in enumerate(options.by_history))
        return Fusion.of(WeightedSum(bands, options.method))
    return Fusion(weights, parts, method=options.method)


def _fitted(path: str, parts: Sequence[str]) -> Fusion:
    fusion = Fusion.of(read_fusion(path).combination)
    for name in fusion.parts:
        if name not in parts:
            raise ConfigError(
                f"it was fitted with a part {name!r}, which this ranker does not have",
                field="fusion.path",
                value=path,
                fix=f"configure {name}, or fit one of these parts: {', '.join(parts)}",
            )
    return fusion


def _band(place: int, section: object, parts: Sequence[str]) -> Band:
    where = f"fusion.by_history.{place}"
    weights = mapping_of(section, where)
    refuse_unknown(weights, ("up_to", *parts), where)
    up_to = weights.pop("up_to", None)
    try:
        return Band(weights, up_to)
    except ConfigError as error:
        key = error.field.removeprefix("fusion").removeprefix(".by_history")
        raise ConfigError(error.message, field=f"{where}{key}", value=error.value, fix=error.fix) from error


def _refuse_beside(key: str, others: Mapping[str, Any]) -> None:
    if others:
        raise ConfigError(
            f"stands beside fusion.{key}, which says it all",
            field=f"fusion.{next(iter(others))}",
            value=next(iter(others.values())),
            fix=f"drop it, or fusion.{key}",
        )
