"""What `compare` found goes in; tables, JSON and a page for people come out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrank.evaluation.measures.estimate import number
from llmrank.evaluation.measures.measure import Measure
from llmrank.evaluation.measures.statistics import Difference
from llmrank.evaluation.report.markdown import escaped
from llmrank.evaluation.report.numbers import count, joined, p_text
from llmrank.evaluation.report.parts import Cell, Table
from llmrank.evaluation.report.parts import Row as TableRow
from llmrank.evaluation.report.terminal import terminal_table
from llmrank.evaluation.report.values import heading, label, signed, value_text
from llmrank.evaluation.report.visible import visible
from llmrank.evaluation.report.writing import write_by_ending

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True, slots=True)
class Row:
    """One ranker and one measure.

    Attributes:
        measure: What is measured.
        contender: ``ranker``, or ``run/ranker``.
        mean: Over the common cases for which it is defined; NaN if there is none.
        n: How many those are.
        difference: The ranker's value minus the baseline's, paired by case; None for the baseline itself.
        adjusted: The p value after Holm's correction for the number of rankers; NaN for all but the primary measure.
        detectable: The true difference that as many cases, as different as these, show with a chance of 80 %; NaN if not known.
    """

    measure: Measure
    contender: str
    mean: float
    n: int
    difference: Difference | None = None
    adjusted: float = math.nan
    detectable: float = math.nan

    def with_adjusted(self, adjusted: float) -> Row:
        """The same with a corrected p value."""
        return replace(self, adjusted=adjusted)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every ranker against the baseline, on the cases that all have ranked.

    Attributes:
        protocol: How cases were made, in one sentence.
        baseline: The ranker that the others are compared with.
        measures: What is compared.
        primary: The name of the measure that decides.
        failures: How rankings without a readable answer count; see `Suite.failures`.
        confidence, resamples, seed: Of the intervals.
        cases, users: How many are common to all rankers.
        rows: By measure; within one the baseline first, then the others by the primary measure's difference, largest first.
        notes: What a reader has to know, a sentence each.
        runs: The runs' names, and when each was begun (ISO time; empty if it is not known).
    """

    protocol: str
    baseline: str
    measures: tuple[Measure, ...]
    primary: str
    failures: str
    confidence: float
    resamples: int
    seed: int
    cases: int
    users: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    runs: tuple[tuple[str, str], ...] = ()

    @property
    def finding(self) -> str:
        """What the primary measure says."""
        return " ".join(self.findings)

    @property
    def findings(self) -> tuple[str, ...]:
        """What the primary measure says, after the correction for the number of rankers; a sentence each."""
        rows = self.of(self.primary)[1:]
        level = 1 - self.confidence
        words = label(rows[0].measure)
        sentences = []
        for word, sign in (("higher", 1), ("lower", -1)):
            names = [visible(row.contender) for row in rows if row.adjusted <= level and sign * _mean(row) > 0]
            if names:
                has = "has a" if len(names) == 1 else "have a"
                sentences.append(f"{joined(names)} {has} {word} {words} than {self._base}.")
        unclear = [visible(row.contender) for row in rows if not row.adjusted <= level]
        if unclear:
            sentences.append(f"No difference in {words} from {self._base} is shown for {joined(unclear)}.")
        return tuple(sentences)

    @property
    def method(self) -> tuple[str, ...]:
        """How the numbers came about, a sentence each."""
        failures = "counts 0 in every measure of relevance" if self.failures == "worst" else "counts with what it fell back to"
        return (
            f"{self.cases:,} cases of {self.users:,} users, the same for all; a ranking without a readable answer {failures}.",
            f"Difference: mean of the ranker's value minus that of {self._base} on the same case, with the BCa bootstrap "
            f"interval of {100 * self.confidence:g} % ({self.resamples:,} resamples of users, seed {self.seed}).",
            "p: two-sided sign-flip test over users. For the primary measure it is also given after Holm's correction for the "
            "number of rankers; the other measures are exploratory: among many, some come out small by chance.",
            "Higher, same, lower: in how many cases the ranker's value is so.",
            "MDE: the minimum detectable effect, which so many cases, as different as these, show with a chance of 80 % at the "
            f"level of {100 * (1 - self.confidence):g} % (uncorrected); a smaller one may well stay unseen.",
        )

    def of(self, measure: str) -> tuple[Row, ...]:
        """The rows of a measure, the baseline's first."""
        return tuple(row for row in self.rows if row.measure.name == measure)

    def tables(self) -> Iterator[Table]:
        """One table a measure, the primary one first, ready to be shown."""
        for measure in sorted(self.measures, key=lambda each: each.name != self.primary):
            primary = measure.name == self.primary
            columns = ["Mean", f"Difference [{100 * self.confidence:g}\N{NO-BREAK SPACE}% interval]", "p"]
            columns += ["p (Holm)"] if primary else []
            yield Table(
                key=measure.name,
                title=heading(measure) + (" (primary)" if primary else " (exploratory)" if len(self.measures) > 1 else ""),
                caption=visible(self.protocol),
                corner="Ranker",
                columns=(*columns, "Higher / same / lower", "MDE"),
                rows=tuple(_table_row(row, primary=primary) for row in self.of(measure.name)),
                notes=(measure.description,),
            )

    def table(self) -> Group:
        """All of it for a terminal: the tables, then the finding, the method and the notes; `Console.print` shows it."""
        from rich.console import Group, RenderableType
        from rich.text import Text

        parts: list[RenderableType] = [terminal_table(table) for table in self.tables()]
        parts += [Text(sentence) for sentence in (*self.method, *map(visible, self.notes))]
        parts += [Text(sentence, style="bold") for sentence in self.findings]
        return Group(*parts)

    def table_text(self, width: int = 120) -> str:
        """The same as plain text, for lines of so many characters."""
        import io

        from rich.console import Console

        out = io.StringIO()
        Console(file=out, width=width, color_system=None, highlight=False).print(self.table())
        return out.getvalue()

    def table_markdown(self) -> str:
        """The tables in Markdown, with the finding before and the method after them."""
        lines = [f"**{escaped(self.finding)}**", ""]
        for table in self.tables():
            lines += [f"### {escaped(table.title)}", "", f"Protocol: {escaped(table.caption)}", ""]
            lines += [_line([table.corner, *table.columns]), _line(["---"] + ["---:"] * len(table.columns))]
            lines += [_line([row.header, *map(_joined, row.cells)]) for row in table.rows]
            lines.append("")
        lines += [f"- {escaped(sentence)}" for sentence in (*self.method, *map(visible, self.notes))]
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values; what is not known is null."""
        contenders: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            found: dict[str, Any] = {"mean": number(row.mean), "cases": row.n}
            if row.difference is not None:
                each = row.difference
                found["difference"] = {
                    "mean": number(each.mean),
                    "ci": None if math.isnan(each.low) else [number(each.low), number(each.high)],
                    "p": number(each.p),
                    "p_holm": number(row.adjusted),
                    "wins": each.wins,
                    "ties": each.ties,
                    "losses": each.losses,
                    "cases": each.n,
                    "users": each.clusters,
                    "detectable": number(row.detectable),
                }
            contenders.setdefault(row.contender, {})[row.measure.name] = found
        return {
            "runs": dict(self.runs),
            "protocol": self.protocol,
            "baseline": self.baseline,
            "primary": self.primary,
            "failures": self.failures,
            "confidence": self.confidence,
            "resamples": self.resamples,
            "seed": self.seed,
            "cases": self.cases,
            "users": self.users,
            "rankers": contenders,
            "finding": self.finding,
            "notes": list(self.notes),
        }

    def html(self) -> str:
        """One page that opens offline: the tables, with every difference and its interval drawn."""
        from llmrank.evaluation.comparing.page import page  # Jinja takes time to import

        return page(self)

    def write(self, path: str | Path) -> None:
        """Writes the page (``.html``), the Markdown (``.md``) or the JSON (``.json``), by the path's ending.

        Raises:
            ConfigError: another ending, or a place that cannot be written to.
        """
        forms: dict[str, Callable[[], str]] = {
            ".html": self.html,
            ".md": self.table_markdown,
            ".json": lambda: json.dumps(self.as_dict(), indent=2) + "\n",
        }
        write_by_ending(path, forms)

    @property
    def _base(self) -> str:
        return visible(self.baseline)


def _mean(row: Row) -> float:
    return row.difference.mean if row.difference is not None else math.nan


def _table_row(row: Row, *, primary: bool) -> TableRow:
    mean = Cell(value_text(row.measure, _known(row.mean)))
    each = row.difference
    if each is None:
        cells = [mean, Cell("baseline"), *[Cell("")] * (4 if primary else 3)]
        return TableRow(visible(row.contender), tuple(cells), kind="reference")
    interval = "" if math.isnan(each.low) else f"[{signed(row.measure, each.low)}, {signed(row.measure, each.high)}]"
    cells = [mean, Cell(signed(row.measure, each.mean), interval), Cell(p_text(each.p))]
    cells += [Cell(p_text(row.adjusted))] if primary else []
    cells += [
        Cell(f"{count(each.wins)} / {count(each.ties)} / {count(each.losses)}"),
        Cell(value_text(row.measure, _known(row.detectable))),
    ]
    return TableRow(visible(row.contender), tuple(cells))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _joined(cell: Cell) -> str:
    return f"{cell.text} {cell.detail}".strip()


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells if cells[0] == '---' else map(escaped, cells))} |"
