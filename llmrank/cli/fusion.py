"""`llmrank fusion`: a run goes in, a fusion that was fitted on its users comes out as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from llmrank.errors import ConfigError

METHODS = ("weights", "minmax", "rrf", "linear", "trees")

fusion_app = typer.Typer(
    help="Whose scores count how much in the final order.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)


@fusion_app.callback()
def _root() -> None:
    """Without a second command typer would take the only one for the whole program."""


@fusion_app.command()
def fit(
    run: Annotated[Path, typer.Argument(help="The folder of a run over validation users.")],
    ranker: Annotated[str, typer.Option("--ranker", "-r", help="One of its rankers, whose `fusion` names all parts.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write: what `fusion.path` names.")],
    method: Annotated[str, typer.Option("--method", help=f"What is fitted: {', '.join(METHODS)}.")] = "weights",
    metric: Annotated[str, typer.Option("--metric", "-m", help="What is to be large: ndcg at so many places.")] = "ndcg@10",
    bands: Annotated[
        str | None, typer.Option("--bands", help="The longest histories of bands that are told apart: 0,2,5.")
    ] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is drawn.")] = 0,
) -> None:
    """Fit a fusion on a run's users, and say what it is worth for users apart."""
    from rich.console import Console
    from rich.text import Text

    from llmrank.evaluation.fitting.options import FitOptions
    from llmrank.evaluation.fitting.run import fit_fusion
    from llmrank.evaluation.fitting.table import fitted_tables
    from llmrank.evaluation.report.terminal import terminal_table

    ends = () if bands is None else _ends(bands)
    fitted = fit_fusion(run, ranker, FitOptions(cast(Any, method), metric, ends, folds, seed))
    shown = Console(highlight=False)
    for table in fitted_tables(fitted):
        shown.print(terminal_table(table))
        for note in table.notes:
            shown.print(Text(note))
    fitted.save(out)
    typer.echo(f"written: {out}")


def _ends(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        fix = "write whole numbers with commas between: 0,2,5"
        raise ConfigError("are no lengths of histories", field="--bands", value=text, fix=fix) from error
