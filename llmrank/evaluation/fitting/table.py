"""A fitted fusion goes in, tables for people come out: what it is worth, and its weights."""

from __future__ import annotations

from llmrank.evaluation.fitting.bands import labels_of
from llmrank.evaluation.fitting.fit import Fitted
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.report.numbers import count, significant
from llmrank.evaluation.report.parts import Cell, Row, Table
from llmrank.evaluation.report.values import heading, interval_text, known_interval, value_text
from llmrank.evaluation.report.visible import visible
from llmrank.fusion import WeightedSum


def fitted_tables(found: Fitted) -> tuple[Table, ...]:
    """What it is worth by length of history, and, if it has weights, these."""
    return (_worth(found), *_weights(found))


def _worth(found: Fitted) -> Table:
    measure = parse_measure(found.options.metric)
    caption = ", ".join(f"{name} {visible(str(value))}" for name, value in found.source.items())
    return Table(
        "fusion",
        f"{heading(measure)} by length of history: {found.options.method}",
        caption or "examples given by a program",
        "Ordered by",
        tuple(f"{each.label} ({count(each.users)} users)" for each in found.slices),
        tuple(
            Row(
                visible(name),
                tuple(
                    Cell(
                        value_text(measure, each.values[name].mean),
                        interval_text(measure, known_interval(each.values[name].ci)),
                    )
                    for each in found.slices
                ),
            )
            for name in found.slices[0].values
        ),
        (
            f"Cross-validated: each user is ranked by what was fitted on the users of the other {found.options.folds - 1} of "
            f"{found.options.folds} folds. In sample: by what was fitted on the same users, which flatters.",
            f"In brackets: {100 * found.options.confidence:g} % intervals over users.",
            *found.notes,
        ),
    )


def _weights(found: Fitted) -> tuple[Table, ...]:
    combination = found.fusion.combination
    if not isinstance(combination, WeightedSum):
        return ()
    labels = labels_of(tuple(band.up_to for band in combination.bands))
    rows = tuple(
        Row(label, tuple(Cell(significant(band.weights.get(part, 0.0))) for part in combination.parts))
        for label, band in zip(labels, combination.bands, strict=True)
    )
    parts = tuple(map(visible, combination.parts))
    return (Table("weights", "Weights", f"method {combination.method}; they sum to 1", "Events in the history", parts, rows),)
