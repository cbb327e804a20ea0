"""An Overview goes in, the report's figures come out. Needs the extra `eval`; nothing else of the report does."""

from __future__ import annotations

from collections.abc import Iterator

from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Figure
from llmrank.evaluation.report.plots import style
from llmrank.evaluation.report.plots.answers import status_figure
from llmrank.evaluation.report.plots.cost import cost_figure
from llmrank.evaluation.report.plots.latency import latency_figure
from llmrank.evaluation.report.plots.quality import quality_figure
from llmrank.evaluation.report.plots.slices import history_figure, position_figure


def all_figures(overview: Overview) -> tuple[Figure, ...]:
    """The figures, in the order in which they stand; one without data is left out.

    Raises:
        SetupError: altair or vl-convert is not installed.
    """
    style.altair()
    return tuple(figure for figure in _figures(overview) if figure.panels)


def _figures(overview: Overview) -> Iterator[Figure]:
    yield quality_figure(overview)
    yield history_figure(overview)
    yield position_figure(overview)
    yield cost_figure(overview)
    yield status_figure(overview)
    yield latency_figure(overview)
