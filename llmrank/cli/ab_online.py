"""`llmrank ab read`: an experiment's file and its event logs go in; what they say comes out, as text and as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def read(
    experiment: Annotated[Path, typer.Argument(help="The experiment's YAML file, with a section `online.reading`.")],
    log: Annotated[
        list[Path], typer.Option("--log", "-l", help="An event log (.jsonl, .sqlite, .db); give it again for one more.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Also write an HTML page, or Markdown or JSON by its ending.")
    ] = None,
) -> None:
    """Read the event log of an online experiment.

    The split of users is checked first: exit status 1, and no differences, if it is broken. Always-valid intervals may be
    looked at any time; the test of the planned sample is shown when the planned users are there.
    """
    from rich.console import Console

    from llmrank.experiment.online.reading import read_experiment

    reading = read_experiment(experiment, log)
    Console(highlight=False).print(reading.terminal())
    if out is not None:
        reading.write(out)
        typer.echo(f"written: {out}")
    raise typer.Exit(1 if reading.verdict == "invalid" else 0)
