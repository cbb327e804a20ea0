"""The path of an experiment's folder goes in, its parts come out: manifest, frozen cases, the runs of its stages, findings.

::

    DIR/experiment.json            what was fixed before anything was asked: spec, digest, templates, forecast
    DIR/frozen/items.jsonl         the catalogue               }
    DIR/frozen/development.jsonl   cases to choose variants on } the same users, candidates, orders
    DIR/frozen/confirmation.jsonl  cases that decide           } and seeds for every variant
    DIR/frozen/training.npz        what may be learned from    }
    DIR/development/               a run folder (`llmrank eval`), if variants are chosen first
    DIR/confirmation/              a run folder
    DIR/prompts.jsonl              every version of a template that was asked with, and its result (`llmrank prompts`)
    DIR/findings.json, report.html, report.md
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llmrank.errors import DatasetError
from llmrank.evaluation.cases import read_cases
from llmrank.evaluation.folder import RunFolder, json_object
from llmrank.experiment.spec import Spec, load_spec

Stage: TypeAlias = Literal["development", "confirmation"]


@dataclass(frozen=True, slots=True)
class Trials:
    """Whose the trials of a stage are. A trial is one case in one order; every variant is asked it, once a sample.

    Attributes:
        users: The number of the user of each trial; users are numbered from 0 in the frozen order, which is random.
        orders: In how many orders each case is shown: trial t is case t // orders in order t % orders.
    """

    users: tuple[int, ...]
    orders: int

    @property
    def count(self) -> int:
        """How many users there are."""
        return self.users[-1] + 1 if self.users else 0

    def of_first(self, users: int) -> int:
        """How many trials the first users have together; they are the first ones."""
        return sum(user < users for user in self.users)


class ExperimentFolder:
    """An experiment on disk.

    Args:
        path: The folder. It need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def exists(self) -> bool:
        """True if an experiment was frozen here."""
        return self.manifest_path.exists()

    @property
    def manifest_path(self) -> Path:
        """Where the manifest is."""
        return self.path / "experiment.json"

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What was fixed before anything was asked.

        Raises:
            DatasetError: there is no experiment here, or its manifest cannot be read.
        """
        fix = "name the folder of an experiment (llmrank ab run EXPERIMENT --out DIR)"
        value = json_object(self.path, self.manifest_path.name, "experiment", fix)
        if not isinstance(value.get("spec"), dict):
            raise DatasetError("experiment.json is none", field="experiment", value=str(self.path), fix="run it anew")
        return value

    @cached_property
    def spec(self) -> Spec:
        """The experiment as it was fixed; its paths are of the sources, which are needed no more."""
        return load_spec(self.manifest["spec"])

    def frozen(self, name: str) -> Path:
        """Where a frozen file is."""
        return self.path / "frozen" / name

    def cases(self, stage: Stage) -> Path:
        """Where the frozen cases of a stage are."""
        return self.frozen(f"{stage}.jsonl")

    def run(self, stage: Stage) -> RunFolder:
        """The run of a stage; it need not have begun."""
        return RunFolder(self.path / stage)

    def trials(self, stage: Stage) -> Trials:
        """Whose the stage's trials are."""
        numbers: dict[str, int] = {}
        users = tuple(numbers.setdefault(case.user_id, len(numbers)) for case in read_cases(self.cases(stage)))
        return Trials(users, int(self.manifest["orders"]))
