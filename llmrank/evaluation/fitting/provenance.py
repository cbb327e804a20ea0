"""A fusion's file and cases go in; how many of the cases it was fitted on comes out, which are no test of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmrank.evaluation.cases import Case
from llmrank.fusion.file import read_fusion
from llmrank.scale.recipe import fusion_path


def case_key(case: Case) -> str:
    """What stands for a case in a fusion's file: a digest of whose it is and of what was relevant.

    The rest of the question is left out: with another history or other candidates the answer that was seen is the same.
    """
    text = json.dumps([case.user_id, sorted(set(case.relevant))])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def overlap(path: str | Path, cases: Iterable[Case]) -> int:
    """How many of the cases a fusion was fitted on.

    Args:
        path: The fusion's file.
        cases: Those that it is to be tested on.

    Raises:
        ConfigError: the file cannot be read.
    """
    keys = frozenset(read_fusion(path).fitted.get("keys", ()))
    return sum(case_key(case) in keys for case in cases)


def fitted_on(rankers: Mapping[str, Mapping[str, Any]], cases: Iterable[Case]) -> dict[str, int]:
    """For each ranker whose fusion was fitted on any of the cases: on how many.

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
