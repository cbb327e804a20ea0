"""A/B experiments with prompts: offline on frozen users, online on live ones, and the statistics of both.

What is named here is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrank.experiment.analysis import analyse
    from llmrank.experiment.findings import Findings
    from llmrank.experiment.folder import ExperimentFolder
    from llmrank.experiment.online.events import EventLog
    from llmrank.experiment.online.interleaving import team_draft
    from llmrank.experiment.online.live import Experiment
    from llmrank.experiment.publishing import publish
    from llmrank.experiment.run import ExperimentRun, run_experiment
    from llmrank.experiment.spec import Spec, load_spec

__all__ = [
    "EventLog",
    "Experiment",
    "ExperimentFolder",
    "ExperimentRun",
    "Findings",
    "Spec",
    "analyse",
    "load_spec",
    "publish",
    "run_experiment",
    "team_draft",
]

_PLACES = {
    "EventLog": "online.events",
    "Experiment": "online.live",
    "ExperimentFolder": "folder",
    "ExperimentRun": "run",
    "Findings": "findings",
    "Spec": "spec",
    "analyse": "analysis",
    "load_spec": "spec",
    "publish": "publishing",
    "run_experiment": "run",
    "team_draft": "online.interleaving",
}


def __getattr__(name: str) -> Any:
    # As in `llmrank` itself: a service that assigns users should not wait for what analyses experiments.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
