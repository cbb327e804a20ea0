"""The folder of a summarised run goes in, its report comes out: HTML, Markdown, CSV and TREC files in the same folder."""

from __future__ import annotations

from pathlib import Path

from llmrank.errors import SetupError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.outcomes import measures_of, per_case
from llmrank.evaluation.report.csv_files import cases_header, cases_line, metrics_csv
from llmrank.evaluation.report.extremes import Extremes
from llmrank.evaluation.report.markdown import markdown
from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.page import page
from llmrank.evaluation.report.parts import Figure
from llmrank.evaluation.report.tables import all_tables
from llmrank.evaluation.report.trec import FALLBACK, README, WORST, qrels, run_lines
from llmrank.files import whole_file, write_whole

__all__ = ["write_report"]


def write_report(folder: RunFolder) -> Path:
    """Writes report.html, report.md, metrics.csv, cases.csv and trec/ into a run's folder, in place of older ones.

    Results are read once, a line at a time; each file appears when it is whole. The plots need the extra `eval`; without it the
    page says so, and all else is there. cases.csv has no measures that need an embedder.

    Args:
        folder: A run with a summary, complete or not.

    Returns:
        The path of report.html.

    Raises:
        DatasetError: there is no run, no summary of it, or its results are malformed.
    """
    overview = Overview(folder.summary, folder.manifest)
    tables = all_tables(overview)
    write_whole(folder.path / "report.md", markdown(overview, tables))
    write_whole(folder.path / "metrics.csv", metrics_csv(overview))
    extremes = _write_cases(folder, overview)
    figures, no_figures = _figures(overview)
    target = folder.path / "report.html"
    write_whole(target, page(overview, tables, figures, no_figures, extremes, folder.catalog, folder.path.resolve().name))
    return target


def _write_cases(folder: RunFolder, overview: Overview) -> dict[str, Extremes]:
    """The one pass over the results: cases.csv and trec/; and what the page shows of them."""
    worst = overview.summary["failures"] == "worst"
    listed = [measure for measure in measures_of(folder) if measure.per_case]
    measures = list(dict.fromkeys([*listed, overview.browsed]))
    trec = folder.path / "trec"
    write_whole(trec / "README.txt", [README.format(failures=WORST if worst else FALLBACK)])
    write_whole(trec / "qrels.txt", qrels(folder.cases()))
    extremes = {}
    with whole_file(folder.path / "cases.csv") as cases:
        cases.write(cases_header(listed))
        for name in overview.rankers:
            extremes[name] = Extremes(overview.browsed.name)
            with whole_file(folder.trec_path(name)) as run:
                for outcome in per_case(folder, name, measures):
                    cases.write(cases_line(name, outcome, listed))
                    run.writelines(run_lines(name, outcome, worst=worst))
                    extremes[name].add(outcome)
    return extremes


def _figures(overview: Overview) -> tuple[tuple[Figure, ...], str | None]:
    # Here, so that the rest of the report does not need what the plots need.
    from llmrank.evaluation.report.plots import all_figures

    try:
        return all_figures(overview), None
    except SetupError as error:
        return (), str(error)
