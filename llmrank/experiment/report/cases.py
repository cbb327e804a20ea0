"""Cases in which variants disagree go in, both orders side by side come out: what is relevant, and how far each item moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmrank.evaluation.report.values import heading, signed
from llmrank.evaluation.report.visible import shortened, visible
from llmrank.experiment.findings import Disagreement, Findings, Shown
from llmrank.experiment.report.words import value

TOP = 10
"""So many items of an order are in view at once; the others unfold."""

_TITLE, _QUERY = 200, 2_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One item of an order.

    Attributes:
        place: From 1.
        title: Visible and not too long.
        relevant: Whether the user chose it.
        moved: By how many places it stands higher than in the control's order (below 0: lower); None in the control's own
            order, and for what is not among its first places, which are all that is known.
        shift: The same in words: ``up 3``, ``down 1``, ``same place``, ``from beyond 20``; empty in the control's own order.
    """

    place: int
    title: str
    relevant: bool
    moved: int | None
    shift: str


@dataclass(frozen=True, slots=True)
class CaseView:
    """One case as a report shows it.

    Attributes:
        variant, user_id: Visible.
        line: The case in a line: values and overlap.
        history: Titles, oldest first.
        query: What the user said; None if nothing.
        orders: The control's and the variant's: a name, a value, and the entries.
    """

    variant: str
    user_id: str
    line: str
    history: tuple[str, ...]
    query: str | None
    orders: tuple[tuple[str, str, tuple[Entry, ...]], tuple[str, str, tuple[Entry, ...]]]


def case_views(findings: Findings) -> tuple[CaseView, ...]:
    """All cases, in the order of the findings."""
    return tuple(_view(findings, each) for each in findings.disagreements)


def _view(findings: Findings, case: Disagreement) -> CaseView:
    measure = findings.primary
    gap = signed(measure, case.variant_value - case.control_value)
    places = {item.item_id: place for place, item in enumerate(case.control_order, start=1)}
    control = tuple(_entry(place, item) for place, item in enumerate(case.control_order, start=1))
    variant = tuple(
        _entry(place, item, places.get(item.item_id), len(places)) for place, item in enumerate(case.variant_order, start=1)
    )
    return CaseView(
        visible(case.variant),
        visible(case.user_id),
        f"{heading(measure)}: {value(measure, case.control_value)} → {value(measure, case.variant_value)} ({gap}); "
        f"overlap of the orders {case.overlap:.2f}",
        tuple(shortened(visible(title), _TITLE) for title in case.history),
        None if case.query is None else shortened(visible(case.query), _QUERY),
        (
            (visible(findings.control), value(measure, case.control_value), control),
            (visible(case.variant), value(measure, case.variant_value), variant),
        ),
    )


def _entry(place: int, item: Shown, before: int | None = None, known: int = 0) -> Entry:
    moved = before - place if before is not None else None
    shift = ""
    if known:
        shift = (
            f"from beyond {known}"
            if moved is None
            else f"up {moved}"
            if moved > 0
            else f"down {-moved}"
            if moved
            else "same place"
        )
    return Entry(place, shortened(visible(item.title), _TITLE), item.relevant, moved, shift)


def in_view(entries: Sequence[Entry]) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """The first `TOP` entries and the others; one more is not worth a fold."""
    cut = TOP if len(entries) > TOP + 2 else len(entries)
    return tuple(entries[:cut]), tuple(entries[cut:])
