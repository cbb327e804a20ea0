"""What a run came to goes in; what a user has to know of its end is said, and the command ends with its status."""

from __future__ import annotations

from typing import NoReturn

import typer


def end_run(failures: int, stopped: str | None = None) -> NoReturn:
    """Ends a command: 0; 1 if rankings failed or the run is not complete."""
    if failures:
        count = "1 ranking" if failures == 1 else f"{failures:,} rankings"
        typer.echo(f"{count} failed; --retry-errors asks again", err=True)
    if stopped:
        typer.echo(f"not complete: {stopped}", err=True)
    raise typer.Exit(1 if failures or stopped else 0)
