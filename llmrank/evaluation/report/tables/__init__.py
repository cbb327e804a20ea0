"""An Overview goes in, all tables of the report come out, in the order in which they stand there."""

from __future__ import annotations

from collections.abc import Iterator

from llmrank.evaluation.report.overview import Overview
from llmrank.evaluation.report.parts import Table
from llmrank.evaluation.report.tables.answers import answers_table, errors_table
from llmrank.evaluation.report.tables.bias import bias_table, slices_tables
from llmrank.evaluation.report.tables.cost import cost_table
from llmrank.evaluation.report.tables.memorization import memorization_tables
from llmrank.evaluation.report.tables.quality import quality_tables


def all_tables(overview: Overview) -> tuple[Table, ...]:
    """The tables; one that would be empty is left out."""
    return tuple(table for table in _tables(overview) if table.rows and table.columns)


def _tables(overview: Overview) -> Iterator[Table]:
    yield from quality_tables(overview)
    yield cost_table(overview)
    yield answers_table(overview)
    yield errors_table(overview)
    yield bias_table(overview)
    yield from slices_tables(overview)
    yield from memorization_tables(overview)
