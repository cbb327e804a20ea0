"""A suite and a folder go in; every ranker ranks every case, and results, summary and report come out, in that folder.

A run can be broken off at any moment and started again: it goes on where it was. Results are on disk one by one, and answers
in the run's own cache, so that no answer is paid for twice but those that were on their way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmrank.errors import DatasetError, LLMRankError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.running.contenders import templates_of
from llmrank.evaluation.running.log import ResultLog
from llmrank.evaluation.running.opened import OpenContenders
from llmrank.evaluation.running.prepare import Given, prepare
from llmrank.evaluation.running.session import RunOptions, Session
from llmrank.evaluation.seal import refuse_sealed, seal
from llmrank.evaluation.suite import Suite, load_suite
from llmrank.forecast import Forecast
from llmrank.prices import Prices

__all__ = ["Evaluation", "RunOptions", "evaluate", "finish"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a run came to.

    Attributes:
        folder: Where everything is.
        summary: What `summary.json` holds; None after a dry run, and of a stage of an experiment.
        forecasts: By ranker what was still to be done, as it looked before anything was spent; without baselines.
        planned: How many cases each ranker was to rank.
        failures: Rankings with status ``error``, of all rankers.
        usd: What was spent, as far as prices are known, in all sessions of this run.
        stopped: Why it ended before every ranker had ranked every case; None if they have.
        changes: What changed in the suite since the run began that does not touch its results, a sentence each.
    """

    folder: RunFolder
    summary: dict[str, Any] | None
    forecasts: Mapping[str, Forecast]
    planned: int
    failures: int = 0
    usd: float = 0.0
    stopped: str | None = None
    changes: tuple[str, ...] = ()


def evaluate(
    suite: str | Path | Mapping[str, Any] | Suite,
    out: str | Path,
    options: RunOptions | None = None,
    *,
    dry_run: bool = False,
    on_start: Callable[[Evaluation], None] | None = None,
    items: Any = None,
    interactions: Any = None,
    contenders: OpenContenders | None = None,
    experiment: str | None = None,
) -> Evaluation:
    """Runs a suite, or goes on with it.

    Args:
        suite: A suite file, a dict of the same form, or a Suite.
        out: The run's folder, new or of the same suite.
        options: How; see `RunOptions`.
        dry_run: True freezes the data and forecasts, and asks no model anything.
        on_start: Told of the forecasts before anything is spent.
        items: A Catalog or a data frame, in place of the suite's `items`.
        interactions: Interactions or a data frame, in place of the suite's `interactions`.
        contenders: Keeps rankers open beyond this call, for one who asks the same run again; None closes them at its end.
        experiment: The name of the experiment that the run is a stage of: seals it (`seal`), and summarises nothing.

    Returns:
        What came of it. Results, summary and report are in the folder.

    Raises:
        ConfigError: the suite is wrong, or differs from the one that the folder was made with.
        DatasetError: its data are wrong; another run is at work in the folder, or an experiment that is not complete.
        LLMRankError: no ranker could rank anything (a wrong key, a model that is not there).
    """
    options = options or RunOptions()
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    prices = Prices.load(suite.prices)
    templates = {name: templates_of(config) for name, config in suite.rankers.items()}
    if experiment is None:
        refuse_sealed(Path(out))
    with locked(Path(out)):
        if experiment is not None:
            seal(Path(out), experiment)
        folder, changes = prepare(suite, out, templates, Given.of(items, interactions))
        with OpenContenders() if contenders is None else nullcontext(contenders) as opened:
            run = Session(suite, folder, options, prices, opened)
            begun = Evaluation(folder, None, run.forecasts(), run.planned, usd=run.spent(), changes=changes)
            run.check_budget(begun.forecasts)
            if on_start is not None:
                on_start(begun)
            if dry_run:
                return begun
            stopped = run.rank_everything()
        if run.in_vain:
            raise LLMRankError(f"no case was ranked: {stopped}")
        summary = _finish(folder, suite.embedder, report=options.report) if experiment is None else None
        return replace(begun, summary=summary, failures=run.failures, usd=run.spent(), stopped=stopped)


def finish(folder: RunFolder, *, report: bool = True, embedder: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Measures what is there, and writes the summary and, if wanted, the report.

    Args:
        folder: The run; it may be somebody else's.
        report: True writes the report.
        embedder: For measures that need vectors, if those of the suite come from a server or a file: a section of an embedder
            of the same model. The folder tells the model, and not whom to ask.

    Raises:
        ConfigError: an embedder is needed and not given, or is one of other vectors.
        DatasetError: there is no run in the folder, or nothing but a position study; a run is at work there, or it belongs to
            an experiment that is not complete; or the folder cannot be written.
    """
    refuse_sealed(folder.path)
    ranked = any(next(folder.results(name), None) for name in folder.ranker_names)  # the manifest first, or a folder that
    if not ranked and (folder.path / "positions.md").exists():  # is mistyped would be made
        raise DatasetError(
            "holds a position study and no rankings of a run",
            field="run",
            value=str(folder.path),
            fix="see positions.md there, or run its suite: llmrank eval run SUITE --out DIR",
        )
    with locked(folder.path):
        return _finish(folder, embedder, report=report)


def _finish(folder: RunFolder, embedder: Mapping[str, Any] | None, *, report: bool) -> dict[str, Any]:
    from llmrank.evaluation.measures.summary import write_summary
    from llmrank.evaluation.report import write_report

    for name in folder.ranker_names:  # a run that was killed while it asked for failures again left them in two places
        with ResultLog(folder.results_path(name), folder.manifest["cases"]):
            pass
    summary = write_summary(folder, embedder=embedder)
    if report:
        write_report(folder)
    return summary


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Makes the folder if need be, and keeps a second process out of it. Raises DatasetError if one is there."""
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise DatasetError("another run is at work there", field="--out", value=str(out), fix="wait for it to end") from error
    except OSError as error:
        raise DatasetError(
            f"cannot be written ({error.strerror})", field="--out", value=str(out), fix="check the path"
        ) from error
