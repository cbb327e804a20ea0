"""The folder of an experiment goes in; whether it has come to its end, and what may be done after that, come out."""

from __future__ import annotations

from typing import get_args

from llmrank.errors import ConfigError
from llmrank.evaluation.seal import unseal
from llmrank.experiment.analysis import compared
from llmrank.experiment.folder import ExperimentFolder, Stage
from llmrank.experiment.measured import measured
from llmrank.experiment.stopping import stopped_at


def has_ended(folder: ExperimentFolder) -> bool:
    """Whether nothing more is to be asked: all planned users are ranked, or looks have decided.

    Raises:
        DatasetError: variants are still being chosen, or the results cannot be read.
    """
    spec = folder.spec
    variants, _ = compared(folder, spec)
    table = measured(folder, "confirmation", (spec.base, *variants))
    return table.complete or (spec.sequential is not None and stopped_at(spec, table) is not None)


def unseal_stages(folder: ExperimentFolder) -> None:
    """Lets everybody read the runs of an experiment that has ended."""
    for stage in get_args(Stage):
        unseal(folder.run(stage).path)


def refuse_published(folder: ExperimentFolder) -> None:
    """Refuses to ask again for what failed once the decision is known: a second answer would be had for having seen the first.

    A look at an experiment that goes on (`sequential`) decides nothing yet.

    Raises:
        ConfigError: the experiment has ended, and its findings are published.
    """
    if (folder.path / "findings.json").exists() and has_ended(folder):
        raise ConfigError(
            "the decision is published, with what failed counted as failed: asking again would change it",
            field="retry_errors",
            value=True,
            fix="mend what failed, and run the experiment anew in another folder (--out)",
        )
