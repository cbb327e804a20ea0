"""`llmrank ab`: an experiment goes in; its folder, its findings and assignments of users come out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from llmrank.cli.ab_online import read
from llmrank.cli.assign import assign
from llmrank.cli.ended import end_run
from llmrank.cli.eval import ENGINES
from llmrank.cli.values import EmbedderOption, section_of_option

if TYPE_CHECKING:
    from llmrank.experiment.findings import Findings
    from llmrank.experiment.folder import ExperimentFolder
    from llmrank.experiment.forecast import Plan
    from llmrank.registry import Registry

Registries = Annotated[
    list[Path] | None,
    typer.Option("--registry", help="A registry of prompts to keep the templates and their results in; may be given again."),
]

ab_app = typer.Typer(
    help="A/B experiments with prompts: run and report offline ones, assign users of online ones.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)
ab_app.command()(assign)
ab_app.command()(read)


@ab_app.command()
def run(
    experiment: Annotated[Path, typer.Argument(help="The experiment's YAML file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The experiment's folder; one that is there already goes on.")],
    budget_usd: Annotated[
        float | None, typer.Option("--budget-usd", help="Stop before more than this is spent, earlier sessions included.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it will take and what it can show, and ask no model.")
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Ask again for what failed; not after the decision.")
    ] = False,
    engine: Annotated[str, typer.Option("--engine", help=f"Who asks: {', '.join(ENGINES)}.")] = "local",
    workers: Annotated[int, typer.Option("--workers", min=1, help="ray: how many shards at once.")] = 2,
    address: Annotated[str | None, typer.Option("--address", help="ray: the cluster's; left out: one on this machine.")] = None,
    registry: Registries = None,
) -> None:
    """Run an experiment, or go on with it; exit status 1 if rankings failed or it is not complete."""
    from llmrank.evaluation.running.session import RunOptions
    from llmrank.experiment.run import run_experiment

    options = RunOptions(
        budget_usd=budget_usd, retry_errors=retry_errors, engine=cast(Any, engine), workers=workers, address=address
    )
    done = run_experiment(experiment, out, options, dry_run=dry_run, on_start=_planned, registries=_opened(registry))
    if dry_run:
        return
    if done.findings is not None:
        _print(done.findings)
        typer.echo(f"report: {out / 'report.html'}")
    end_run(done.failures, done.stopped, published=done.findings is not None)


@ab_app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of an experiment.")],
    registry: Registries = None,
    embedder: EmbedderOption = None,
) -> None:
    """Analyse an experiment and write its report: HTML, Markdown, JSON.

    An experiment with a fixed sample is refused before all of it is ranked; one with a `sequential` section may be looked at
    any time.
    """
    from llmrank.experiment.folder import ExperimentFolder
    from llmrank.experiment.publishing import publish

    own = None if embedder is None else section_of_option(embedder, "--embedder")
    _print(publish(ExperimentFolder(folder), *_opened(registry), embedder=own))
    typer.echo(f"report: {folder / 'report.html'}")


def _opened(paths: list[Path] | None) -> list[Registry]:
    from llmrank.registry import Registry

    return [Registry(path) for path in paths or ()]


def _planned(folder: ExperimentFolder, plan: Plan) -> None:
    """What is asked, what it will take, and what it can show."""
    typer.echo(folder.manifest["protocol"], err=True)
    for note in folder.manifest["notes"]:
        typer.echo(f"note: {note}", err=True)
    for line in plan.lines:
        typer.echo(line, err=True)
    typer.echo(f"frozen: {folder.manifest['digest']}", err=True)


def _print(findings: Findings) -> None:
    from rich.console import Console

    from llmrank.experiment.report.terminal import summary

    Console(highlight=False).print(summary(findings))
