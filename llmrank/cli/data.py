"""`llmrank data fetch`: the name of a data set goes in, its item and interaction files come out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmrank.errors import DatasetError, nearest

DATASETS = ("ml-100k",)

data_app = typer.Typer(
    help="Public data sets, fetched and converted.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@data_app.callback()
def _data() -> None:
    # With a single command and no callback, typer would leave out the word `fetch`.
    pass


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"Which: {', '.join(DATASETS)}.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder for its files; else one in the cache.")] = None,
) -> None:
    """Fetch a data set: writes items.jsonl and interactions.csv, and prints their paths."""
    if name not in DATASETS:
        raise DatasetError("no such data set", field="name", value=name, fix=nearest(name, DATASETS))
    from llmrank.evaluation.data import movielens

    for path in movielens.fetch(out):
        typer.echo(path)
