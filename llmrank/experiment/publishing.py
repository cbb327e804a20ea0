"""The folder of an experiment goes in; its findings are written there for people and programs, and noted with the prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llmrank.errors import DatasetError
from llmrank.experiment.analysis import analyse
from llmrank.experiment.ending import has_ended, unseal_stages
from llmrank.experiment.findings import Findings
from llmrank.experiment.folder import ExperimentFolder
from llmrank.experiment.noting import note_results
from llmrank.files import write_whole
from llmrank.registry import Registry


def publish(folder: ExperimentFolder, *registries: Registry, embedder: Mapping[str, Any] | None = None) -> Findings:
    """Analyses an experiment and writes ``findings.json``, ``report.html`` and ``report.md``.

    What each variant came to is noted beside its templates, in the experiment's own registry of prompts and in others.

    Args:
        folder: The experiment's; it may be somebody else's.
        registries: Registries of prompts.
        embedder: As for `measured`.

    Raises:
        ConfigError: a measure needs an embedder (see `measured`).
        DatasetError: nothing may be read yet (see `analyse`), or the folder cannot be written.
    """
    from llmrank.experiment.report.markdown import markdown
    from llmrank.experiment.report.page import page

    findings = analyse(folder, embedder=embedder)
    written = {
        "findings.json": json.dumps(findings.as_dict(), indent=1, ensure_ascii=False) + "\n",
        "report.html": page(findings),
        "report.md": markdown(findings),
    }
    try:
        for name, text in written.items():
            write_whole(folder.path / name, [text])
    except OSError as error:
        raise DatasetError(
            f"cannot be written ({error.strerror})", field="experiment", value=str(folder.path), fix="check the path"
        ) from error
    if findings.users == findings.planned or has_ended(folder):
        unseal_stages(folder)
    note_results(findings, folder, *registries)
    return findings
