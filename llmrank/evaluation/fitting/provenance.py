"""A fusion's file and cases go in; how many cases are of users whom it was fitted on comes out: these are no test of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmrank.errors import ConfigError
from llmrank.evaluation.cases import Case
from llmrank.fusion.file import read_fusion
from llmrank.scale.recipe import fusion_path


def user_key(user_id: str) -> str:
    """What stands for a user in a fusion's file: a digest, the same for all of the user's cases.

    What a user chose at one time tells of what they choose at another. So users are told apart, as by the folds of the
    cross-validation, and not cases.
    """
    return _digest(user_id)


def overlap(path: str | Path, cases: Iterable[Case]) -> int:
    """How many of the cases are of users whom a fusion was fitted on.

    Args:
        path: The fusion's file.
        cases: Those that it is to be tested on.

    Raises:
        ConfigError: the file cannot be read, or does not tell whom by digests.
    """
    fitted = read_fusion(path).fitted
    users = _keys(path, fitted, "users")
    older = _keys(path, fitted, "keys")  # of cases, which is all that a file of an older version tells
    return sum(user_key(case.user_id) in users or bool(older and _case_key(case) in older) for case in cases)


def fitted_on(rankers: Mapping[str, Mapping[str, Any]], cases: Iterable[Case]) -> dict[str, int]:
    """For each ranker whose fusion was fitted on users of the cases: of how many of the cases.

    Args:
        rankers: Configurations by name.
        cases: Of the run.

    Raises:
        ConfigError: a fusion's file cannot be read.
    """
    paths = {name: path for name, config in rankers.items() if (path := fusion_path(config)) is not None}
    asked = list(cases) if paths else []
    found = {name: overlap(path, asked) for name, path in paths.items()}
    return {name: count for name, count in found.items() if count}


def _keys(path: str | Path, fitted: Mapping[str, Any], name: str) -> frozenset[str]:
    keys = fitted.get(name, [])
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        fix = "fit it anew: llmrank fusion fit"
        raise ConfigError(f"`fitted.{name}` is no list of digests", field="fusion.path", value=str(path), fix=fix)
    return frozenset(keys)


def _case_key(case: Case) -> str:
    return _digest([case.user_id, sorted(set(case.relevant))])


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=8).hexdigest()
