"""A fusion and what it was fitted on go in, a JSON file comes out; and back.

::

    {"format": 1,
     "fusion": {"kind": "weights", "method": "zscore", "bands": [{"up_to": 2, "weights": {"llm": 1.0}}, ...]}
               or {"kind": "linear", "coefficients": {"llm": {"raw": [base, slope], "z": ..., "reciprocal_rank": ...}, ...}}
               or {"kind": "trees", "parts": ["llm", ...], "model": "LightGBM's text", "digest": of the text},
     "fitted": {...}}

What was fitted is read as data alone: nothing in the file is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError, SetupError, nearest
from llmrank.files import write_whole
from llmrank.fusion.combination import Combination
from llmrank.fusion.features import FEATURES
from llmrank.fusion.linear import LinearModel
from llmrank.fusion.trees import TreeModel
from llmrank.fusion.weighted import Band, WeightedSum

FORMAT = 1
"""The version of the file's form."""


@dataclass(frozen=True, slots=True)
class FusionFile:
    """What a file holds.

    Attributes:
        combination: What says how much each part gives.
        fitted: What it was fitted on and how well it did, as JSON values; empty for one that was written by hand.
    """

    combination: Combination
    fitted: Mapping[str, Any] = field(default_factory=dict, hash=False)


def write_fusion(path: str | Path, file: FusionFile) -> None:
    """Writes the file; it appears under its name only when it is whole and on disk.

    Raises:
        SetupError: it cannot be written.
    """
    document = {"format": FORMAT, "fusion": file.combination.record(), "fitted": dict(file.fitted)}
    try:
        write_whole(Path(path), [json.dumps(document, indent=1, allow_nan=False) + "\n"])
    except OSError as error:
        raise SetupError(f"cannot write {path} ({error.strerror or error}); free space, or name another place") from error


def read_fusion(path: str | Path) -> FusionFile:
    """Reads a file that `write_fusion` wrote.

    Raises:
        ConfigError: it is missing or not of this form; what is wrong is named.
        SetupError: it holds trees, and LightGBM is not installed.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "check the path; llmrank fusion fit writes the file"
        raise ConfigError(f"cannot be read ({error.strerror})", field="fusion.path", value=str(path), fix=fix) from error
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"not JSON ({error})") from error
    section = document.get("fusion") if isinstance(document, Mapping) else None
    if not isinstance(section, Mapping) or document.get("format") != FORMAT:
        raise _broken(path, f"not a fusion of format {FORMAT}")
    kind = str(section.get("kind"))
    if kind not in _READERS:
        raise ConfigError("unknown kind of fusion", field="fusion.path", value=kind, fix=nearest(kind, _READERS))
    try:
        combination = _READERS[kind](section)
    except ConfigError as error:
        raise _broken(path, str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # a value of another shape than was written
        raise _broken(path, f"not what was written ({type(error).__name__}: {error})") from error
    fitted = document.get("fitted", {})
    if not isinstance(fitted, Mapping):
        raise _broken(path, "`fitted` is no JSON object")
    return FusionFile(combination, dict(fitted))


def _weights(section: Mapping[str, Any]) -> Combination:
    bands = tuple(Band(dict(band["weights"]), band["up_to"]) for band in section["bands"])
    return WeightedSum(bands, section["method"])


def _linear(section: Mapping[str, Any]) -> Combination:
    return LinearModel(
        {
            part: tuple((float(pairs[name][0]), float(pairs[name][1])) for name in FEATURES)
            for part, pairs in section["coefficients"].items()
        }
    )


def _trees(section: Mapping[str, Any]) -> Combination:
    return TreeModel.from_record(section)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Combination]] = {"weights": _weights, "linear": _linear, "trees": _trees}


def _broken(path: Path, problem: str) -> ConfigError:
    return ConfigError(problem, field="fusion.path", value=str(path), fix="fit it anew: llmrank fusion fit")
