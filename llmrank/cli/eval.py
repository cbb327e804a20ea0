"""`llmrank eval`: a suite goes in; a run's folder, its report and comparisons of runs come out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llmrank.cli.ended import end_run
from llmrank.cli.values import EmbedderOption, section_of_option
from llmrank.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from llmrank.evaluation.folder import RunFolder
    from llmrank.evaluation.run import Evaluation

ENGINES = ("local", "ray", "openai-batch")

eval_app = typer.Typer(
    help="Offline evaluation: runs that resume, reports, comparisons.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@eval_app.command()
def run(
    suite: Annotated[Path, typer.Argument(help="The suite's YAML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder; one that is there already goes on.")],
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Only the first so many cases.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option("--budget-usd", help="Stop before more than this is spent, earlier sessions included.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and ask no model.")] = False,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask again for the cases that failed.")] = False,
    engine: Annotated[str, typer.Option("--engine", help=f"Who asks: {', '.join(ENGINES)}.")] = "local",
    workers: Annotated[int, typer.Option("--workers", min=1, help="ray: how many shards at once.")] = 2,
    address: Annotated[str | None, typer.Option("--address", help="ray: the cluster's; left out: one on this machine.")] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="ray: how many cases a shard has.")] = 500,
    via: Annotated[
        str, typer.Option("--via", help="openai-batch: submit the files (openai), or leave that to you (files).")
    ] = "openai",
    report: Annotated[bool, typer.Option(help="Write the report at the end.")] = True,
) -> None:
    """Run a suite, or go on with it; exit status 1 if rankings failed or the run is not complete."""
    from rich.console import Console

    from llmrank.evaluation.run import RunOptions, evaluate

    options = RunOptions(
        limit=limit,
        budget_usd=budget_usd,
        retry_errors=retry_errors,
        engine=cast(Any, engine),
        workers=workers,
        address=address,
        rows=rows,
        via=cast(Any, via),
        report=report,
    )
    said = Console(stderr=True, highlight=False)
    done = evaluate(suite, out, options, dry_run=dry_run, on_start=lambda begun: _forecast(said, begun))
    if done.summary is None:
        return
    _results(Console(highlight=False), done.folder, done.summary)
    typer.echo(f"report: {out / 'report.html'}" if report else f"results: {out}")
    end_run(done.failures, done.stopped)


@eval_app.command()
def positions(
    suite: Annotated[Path, typer.Argument(help="The suite's YAML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder; one that is there already goes on.")],
    ranker: Annotated[
        list[str] | None, typer.Option("--ranker", "-r", help="One of the suite's; may be given again; left out: all.")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option("--at", help="The places of what is relevant: 1,6,11; left out: five, spread over the shortest list."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Only the first so many cases that are fit.")] = 50,
    k: Annotated[int, typer.Option("--k", min=1, help="Of NDCG@k.")] = 10,
    retry_errors: Annotated[bool, typer.Option("--retry-errors", help="Ask again for the cases that failed.")] = False,
) -> None:
    """Rank each case with its relevant candidate at several places: does the place decide?

    The folder's positions.md and positions.json hold what was asked last. Exit status 1 if rankings failed.
    """
    from rich.console import Console
    from rich.text import Text

    from llmrank.evaluation.positioning.study import positions as study
    from llmrank.evaluation.report.terminal import terminal_table

    said, shown = Console(stderr=True, highlight=False), Console(highlight=False)
    found = study(
        suite,
        out,
        rankers=ranker,
        at=None if at is None else _places(at),
        limit=limit,
        k=k,
        retry_errors=retry_errors,
        on_start=lambda begun: _forecast(said, begun),
    )
    for table in found.tables():
        shown.print(terminal_table(table))
        for note in table.notes:
            shown.print(Text(note))
    typer.echo(f"written: {out / 'positions.md'}")
    end_run(found.failures)


def _places(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        fix = "write whole numbers with commas between: 1,6,11"
        raise ConfigError("are no places", field="--at", value=text, fix=fix) from error


@eval_app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    embedder: EmbedderOption = None,
) -> None:
    """Measure a run's results anew and write its report: HTML, Markdown, CSV, TREC."""
    from rich.console import Console

    from llmrank.evaluation.folder import RunFolder
    from llmrank.evaluation.run import finish

    run_folder = RunFolder(folder)
    own = None if embedder is None else section_of_option(embedder, "--embedder")
    _results(Console(highlight=False), run_folder, finish(run_folder, embedder=own))
    typer.echo(f"report: {folder / 'report.html'}")


@eval_app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs over the same cases.")],
    baseline: Annotated[str | None, typer.Option("--baseline", "-b", help="What the others are compared with.")] = None,
    ranker: Annotated[
        list[str] | None, typer.Option("--ranker", "-r", help="One to compare, beside the baseline; may be given again.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", help="A measure; may be given again.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write an HTML page, or Markdown or JSON by its ending.")
    ] = None,
) -> None:
    """Compare rankers case by case: differences with intervals."""
    from rich.console import Console

    from llmrank.evaluation.comparing.compare import compare as compare_runs
    from llmrank.evaluation.folder import RunFolder

    runs = [RunFolder(folder) for folder in folders]
    comparison = compare_runs(runs, baseline=baseline, rankers=ranker or None, metrics=metric or None)
    Console(highlight=False).print(comparison.table())
    if out is not None:
        comparison.write(out)
        typer.echo(f"written: {out}")


def _forecast(console: Console, begun: Evaluation) -> None:
    """What is asked, and what it will take."""
    from rich.text import Text

    manifest = begun.folder.manifest
    console.print(Text(manifest["protocol"]))
    for note in (*manifest["notes"], *begun.changes):
        console.print(Text(f"note: {note}"))
    for name, forecast in begun.forecasts.items():
        console.print(Text(f"{name}:"))
        for line in forecast.lines():
            console.print(Text(f"  {line}"))


def _results(console: Console, folder: RunFolder, summary: dict[str, Any]) -> None:
    """How good each ranker is, and what became of its answers."""
    from rich.text import Text

    from llmrank.evaluation.report.numbers import dollars
    from llmrank.evaluation.report.overview import Overview
    from llmrank.evaluation.report.tables.quality import quality_tables
    from llmrank.evaluation.report.terminal import terminal_table

    overview = Overview(summary, folder.manifest)
    for table in quality_tables(overview):
        if table.rows and table.columns:
            console.print(terminal_table(table))
    for name, found in overview.rankers.items():
        statuses = ", ".join(f"{count} {status}" for status, count in found["status"].items() if count)
        latency, usd = found["latency"], found["usage"]["usd"]
        seconds = f"; {latency['p50']:.2f} s a case (p50)" if latency else ""
        money = f"; {dollars(usd)} USD" if found["usage"]["calls"] else ""
        console.print(Text(f"{name}: {statuses or 'no results yet'}{seconds}{money}"))
    for note in summary["notes"]:
        console.print(Text(f"note: {note}"))
