"""The folder of a run goes in; whether its results may be read comes out: those of an experiment may not be before its end.

::

    DIR/sealed.json               there as long as the experiment that the run is a stage of is not complete

Who reads what a fixed sample came to before it is whole, and goes on or stops by that, has no p value any more. The file is
put there by the experiment and taken away by it; the evaluation only heeds it.
"""

from __future__ import annotations

import json
from pathlib import Path

from llmrank.errors import DatasetError
from llmrank.evaluation.folder import json_object
from llmrank.files import write_whole

NAME = "sealed.json"


def seal(path: Path, experiment: str) -> None:
    """Seals a run.

    Args:
        path: Its folder; made if it is not there.
        experiment: The experiment's name.
    """
    path.mkdir(parents=True, exist_ok=True)
    if not (path / NAME).exists():
        write_whole(path / NAME, [json.dumps({"experiment": experiment}, ensure_ascii=False) + "\n"])


def unseal(path: Path) -> None:
    """Lets everybody read a run. One that is not sealed stays as it is."""
    (path / NAME).unlink(missing_ok=True)


def is_sealed(path: Path) -> bool:
    """Whether a run is sealed."""
    return (path / NAME).exists()


def refuse_sealed(path: Path) -> None:
    """Refuses to read a run, or to go on with it, on one's own.

    Raises:
        DatasetError: it belongs to an experiment that is not complete.
    """
    if not is_sealed(path):
        return
    name = json_object(path, NAME, "run", "").get("experiment")
    raise DatasetError(
        f"belongs to the experiment {name}, which is not complete: what is seen of it before its end proves nothing",
        field="run",
        value=str(path),
        fix=f"go on with it (llmrank ab run EXPERIMENT --out {path.parent}) and read it by: llmrank ab report {path.parent}",
    )
