"""All that a report shows goes in, report.html comes out: one file without script that loads nothing.

Jinja escapes every value; the only texts that pass as HTML are the style sheet beside this file and the plots' SVG. The page's
policy lets a browser apply just that style sheet, by its hash, and load nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from markupsafe import Markup

from llmrank.catalog import Catalog
from llmrank.evaluation.report.case_view import CaseView, case_view
from llmrank.evaluation.report.extremes import FAILURES, KEPT, Extremes
from llmrank.evaluation.report.numbers import day, percent
from llmrank.evaluation.report.offline import offline_template
from llmrank.evaluation.report.overview import STATUSES, Overview
from llmrank.evaluation.report.parts import Figure, Table
from llmrank.evaluation.report.tables.memorization import memorization_examples
from llmrank.evaluation.report.values import label
from llmrank.evaluation.report.visible import visible

_PAGE_BYTES, _CASE_BYTES = 3_000_000, 20_000
"""The most bytes of prompts and answers on the page, and of one case."""


@dataclass(frozen=True, slots=True)
class Browsable:
    """The cases of one ranker."""

    anchor: str
    name: str
    line: str
    worst: tuple[CaseView, ...]
    best: tuple[CaseView, ...]


def page(
    overview: Overview,
    tables: Sequence[Table],
    figures: Sequence[Figure],
    no_figures: str | None,
    extremes: Mapping[str, Extremes],
    catalog: Catalog,
    name: str = "",
) -> Iterator[str]:
    """The chunks of the page.

    Args:
        overview: The summary and the manifest.
        tables: In the order in which they stand.
        figures: The same.
        no_figures: Why there are none, or None.
        extremes: By ranker, its worst and best cases.
        catalog: Has the titles.
        name: What the run is called: its folder's name.
    """
    yield from offline_template("llmrank.evaluation.report", "report.html.jinja", "report.css").generate(
        overview=overview,
        name=visible(name),
        created=day(str(overview.manifest.get("created", ""))),
        measure=label(overview.browsed),
        tables=tables,
        figures=figures,
        no_figures=no_figures,
        # One ranker at a time: its prompts are made into texts when the page comes to it.
        rankers=_browsable(overview, extremes, catalog),
        anchors=[(_anchor(place), visible(name)) for place, name in enumerate(overview.rankers)],
        examples=tuple(memorization_examples(overview)),
        kept=KEPT,
        failures=FAILURES,
        suite=_yaml(overview.manifest["suite"]),
        facts=_facts(overview.manifest),
        svg=Markup,
    )


def _browsable(overview: Overview, extremes: Mapping[str, Extremes], catalog: Catalog) -> Iterator[Browsable]:
    room = min(_CASE_BYTES, _PAGE_BYTES // (2 * KEPT * max(1, len(overview.rankers))))
    for place, (name, found) in enumerate(overview.rankers.items()):
        chosen = extremes[name]
        statuses = ", ".join(
            f"{percent(found['status'][status] / found['cases'])} % {status}"
            for status in STATUSES
            if found["status"].get(status)
        )
        worst, best = (
            tuple(case_view(outcome, overview.browsed, catalog, room=room) for outcome in outcomes)
            for outcomes in (chosen.worst, chosen.best)
        )
        model = f"{visible(found['model'])}; " if found.get("model") else ""
        line = f"{model}{found['cases']:,} cases: {statuses}" if found["cases"] else "no results yet"
        yield Browsable(_anchor(place), visible(name), line, worst, best)


def _anchor(place: int) -> str:
    # Names are foreign text: the place is as good an anchor.
    return f"ranker-{place + 1}"


def _yaml(value: Any) -> str:
    return visible(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100), lines=True)


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What made the run: versions, data and prompts, a name and a value each."""
    found = [("Created", manifest.get("created", "")), ("Seed", manifest["seed"])]
    found += [(f"Version of {name}", version) for name, version in manifest.get("versions", {}).items()]
    for name, data in manifest.get("data", {}).items():
        found.append((f"Data: {name}", f"{data.get('path', '')} (SHA-256 {data.get('sha256', '')})"))
    for ranker, made in manifest["rankers"].items():
        prints = ", ".join(f"{template} {fingerprint}" for template, fingerprint in (made.get("templates") or {}).items())
        if prints:
            found.append((f"Templates of {ranker}", prints))
    return [(visible(name), visible(value)) for name, value in found]
