"""What a run came to goes in; what a user has to know of its end is said, and the command ends with its status."""

from __future__ import annotations

from typing import NoReturn

import typer


def end_run(failures: int, stopped: str | None = None, *, published: bool = False) -> NoReturn:
    """Ends a command: 0; 1 if rankings failed or the run is not complete.

    Args:
        failures: How many rankings failed.
        stopped: Why the run is not complete.
        published: True if a decision was made with them, so that it is too late to ask again.
    """
    if failures:
        count = "1 ranking" if failures == 1 else f"{failures:,} rankings"
        told = "and count as failed in the decision, which stands" if published else "; --retry-errors asks again"
        typer.echo(f"{count} failed{' ' if published else ''}{told}", err=True)
    if stopped:
        typer.echo(f"not complete: {stopped}", err=True)
    raise typer.Exit(1 if failures or stopped else 0)
