"""Evaluation: suites, runs that resume, measures with intervals, reports, comparisons. `evaluate` runs a suite.

What is named here is loaded when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmrank.evaluation.comparing.compare import compare
    from llmrank.evaluation.fitting.example import Example
    from llmrank.evaluation.fitting.fit import Fitted, fit_examples
    from llmrank.evaluation.fitting.options import FitOptions
    from llmrank.evaluation.fitting.run import fit_fusion
    from llmrank.evaluation.folder import RunFolder
    from llmrank.evaluation.positioning.study import Positions, positions
    from llmrank.evaluation.run import Evaluation, evaluate, finish
    from llmrank.evaluation.running.session import RunOptions
    from llmrank.evaluation.suite import Suite, load_suite

__all__ = [
    "Evaluation",
    "Example",
    "FitOptions",
    "Fitted",
    "Positions",
    "RunFolder",
    "RunOptions",
    "Suite",
    "compare",
    "evaluate",
    "finish",
    "fit_examples",
    "fit_fusion",
    "load_suite",
    "positions",
]

_PLACES = {
    "Evaluation": "run",
    "Example": "fitting.example",
    "FitOptions": "fitting.options",
    "Fitted": "fitting.fit",
    "Positions": "positioning.study",
    "RunFolder": "folder",
    "RunOptions": "running.session",
    "Suite": "suite",
    "compare": "comparing.compare",
    "evaluate": "run",
    "finish": "run",
    "fit_examples": "fitting.fit",
    "fit_fusion": "fitting.run",
    "load_suite": "suite",
    "positions": "positioning.study",
}


def __getattr__(name: str) -> Any:
    # As in `llmrank` itself: who reads cases only should not wait for NumPy and charts.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
