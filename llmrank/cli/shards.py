"""`llmrank rank` for more than one sitting: a file or folder of cases goes in, a folder of ranked shards comes out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import typer

from llmrank.config import load_config
from llmrank.errors import DatasetError, RequestError, nearest
from llmrank.evaluation.cases import read_requests
from llmrank.evaluation.running.contenders import model_of, price_at
from llmrank.forecast import money
from llmrank.prices import FREE, Price, Prices
from llmrank.progress import progress
from llmrank.types import Usage

ENGINES = ("local", "ray")
KEEP = ("columns", "record", "trace")


@dataclass(frozen=True, slots=True)
class ShardArguments:
    """What the command line says of shards.

    Attributes:
        engine: ``local`` or ``ray``; None: not said.
        rows: Rows of a shard; None for the default.
        workers, gpus, address: For Ray.
        keep: What is kept of each ranking.
        retry_errors: Rank shards again in which a backend failed to answer.
        overwrite: Rank all shards again.
    """

    engine: str | None = None
    rows: int | None = None
    workers: int | None = None
    gpus: float | None = None
    address: str | None = None
    keep: str | None = None
    retry_errors: bool = False
    overwrite: bool = False

    def wanted(self, cases: Path | None) -> bool:
        """Whether cases are to be ranked as shards: an engine is named, or they are in Parquet."""
        return self.engine is not None or (cases is not None and (cases.suffix == ".parquet" or cases.is_dir()))

    def refuse(self, fix: str = "say --engine local or ray, with --cases and --out") -> None:
        """Refuses what goes with shards only. Raises RequestError, which says how to `fix` it."""
        for name in self.__slots__:
            value = getattr(self, name)
            if value not in (None, False):
                raise RequestError("goes with shards", field=f"--{name.replace('_', '-')}", value=value, fix=fix)


def rank_as_shards(
    config: Path,
    items: Path | None,
    cases: Path | None,
    out: Path | None,
    top_k: int | None,
    arguments: ShardArguments,
    prices: Prices,
) -> int:
    """Ranks all shards and says what became of them.

    Returns:
        The exit status: 1 if a shard or a row failed.

    Raises:
        RequestError, DatasetError: options that do not go together, no shards, or what `rank_shards` raises.
    """
    from llmrank.scale.engines import RayOptions, rank_shards
    from llmrank.scale.schema import count_rows

    engine, keep = arguments.engine or "local", arguments.keep or "columns"
    for field, value, known in (("--engine", engine, ENGINES), ("--keep", keep, KEEP)):
        if value not in known:
            raise RequestError("unknown", field=field, value=value, fix=nearest(value, known))
    if cases is None or out is None:
        missing = "--cases" if cases is None else "--out"
        raise RequestError("is missing", field=missing, fix="shards are ranked from a file or folder into a folder")
    if out.exists() and not out.is_dir():
        raise RequestError("is a file", field="--out", value=str(out), fix="name a folder")
    if engine == "local":
        for name in ("workers", "gpus", "address"):
            if getattr(arguments, name) is not None:
                fix = "say --engine ray; on this machine backend.max_concurrency sets how much is asked at once"
                raise RequestError("goes with Ray", field=f"--{name}", value=getattr(arguments, name), fix=fix)
    sections = load_config(config)
    price = price_at(sections, model_of(sections) or "", prices)
    shards = _shards(cases, out, arguments.rows)
    redo = "everything" if arguments.overwrite else "errors" if arguments.retry_errors else "nothing"
    total, done, tally = count_rows(shards), 0, _Tally()
    with progress(f"ranking {len(shards)} shards", "items") as report:

        def more(rows: int) -> None:
            nonlocal done
            done += rows
            report(done, total, tally.note(len(shards)))

        for each in rank_shards(
            shards,
            out,
            config=config,
            catalog=items,
            engine=cast(Any, engine),
            ray=RayOptions(workers=arguments.workers, num_gpus=arguments.gpus or 0.0, address=arguments.address),
            keep=cast(Any, keep),
            top_k=top_k,
            redo=cast(Any, redo),
            on_rows=more,
        ):
            tally.add(each)
            report(done, total, tally.note(len(shards)))
    return tally.close(price)


class _Tally:
    """What became of the shards so far."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.unanswered = 0
        self.cost = Usage()
        self.spent = Usage()
        self.failures: list[str] = []

    def add(self, report: Any) -> None:
        """Counts a ShardReport."""
        self.outcomes[report.outcome] += 1
        self.statuses.update(report.statuses)
        self.errors.update(report.errors)
        self.unanswered += report.unanswered
        self.cost += report.cost
        self.spent += report.spent
        if report.error is not None:
            self.failures.append(f"failed: {report.source.name}, tried {report.attempts} times: {report.error}")

    def note(self, shards: int) -> str:
        """How far things are, beside the bar."""
        failed = f", {self.outcomes['failed']} failed" if self.outcomes["failed"] else ""
        errors = f", {self.statuses['error']} errors" if self.statuses["error"] else ""
        return f"shard {self.outcomes.total()} of {shards}{failed}{errors}"

    def close(self, price: Price | None) -> int:
        """Says how it ended, and what it cost if the price is known; the exit status."""
        for line in self.failures:
            typer.echo(line, err=True)
        typer.echo(f"{self.outcomes.total()} shards: {_counts(self.outcomes)}", err=True)
        typer.echo(f"{self.statuses.total()} ranked: {_counts(self.statuses)}", err=True)
        if self.errors:
            typer.echo(f"errors: {_counts(self.errors)}", err=True)
        typer.echo(
            f"{self.spent.calls:,} calls now, {self.cost.calls:,} in all; "
            f"{self.cost.prompt_tokens:,} prompt ({self.cost.cached_tokens:,} cached) + "
            f"{self.cost.completion_tokens:,} answer tokens in all{_dollars(price, self.spent, self.cost)}",
            err=True,
        )
        if self.unanswered:
            typer.echo(f"{self.unanswered} rows lack an answer; --retry-errors asks again for them", err=True)
        return 1 if self.failures or self.statuses["error"] else 0


def _dollars(price: Price | None, spent: Usage, cost: Usage) -> str:
    """Both usages in USD, where somebody sends a bill and the price is known; else empty."""
    if price is None or price is FREE:
        return ""
    return f"; {money(price.usd(spent) or 0.0)} USD now, {money(price.usd(cost) or 0.0)} in all"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"


def _shards(cases: Path, out: Path, rows: int | None) -> list[Path]:
    """The shards: those of a folder, a Parquet file, or what a JSONL file is split into."""
    from llmrank.scale.split import ROWS, split_requests

    if cases.is_dir() or cases.suffix == ".parquet":
        if rows is not None:
            raise RequestError(
                "goes with a JSONL file of cases", field="--rows", value=rows, fix="Parquet files are shards as is"
            )
        return shards_in(cases)
    return split_requests(read_requests(cases), out / "requests", rows or ROWS)


def shards_in(cases: Path) -> list[Path]:
    """The Parquet files of a folder, or the one that is named.

    Raises:
        DatasetError: the folder holds none.
    """
    shards = sorted(cases.glob("*.parquet")) if cases.is_dir() else [cases]
    if not shards:
        raise DatasetError("holds no Parquet file", field="--cases", value=str(cases), fix="name the folder of the shards")
    return shards
