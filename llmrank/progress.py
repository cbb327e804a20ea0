"""A title goes in, a function that is told how far things are comes out: a bar on a terminal, else a plain line now and then.

Progress goes to standard error, so that a command's output can be piped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn


class Report(Protocol):
    """Is told how far things are."""

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        """Shows it.

        Args:
            done: How much is done.
            total: How much there is, if known.
            note: What else is to be said: a rate, failures, money.
        """
        ...


PLAIN_STEP = 25
"""Without a terminal, one line each time that so many percent more are done,"""
PLAIN_SECONDS = 60.0
"""and one after so many seconds without a line."""


@contextmanager
def progress(title: str, unit: Literal["bytes", "items"]) -> Iterator[Report]:
    """Shows how far something is for the length of a block.

    Args:
        title: What is being done.
        unit: What the numbers count; ``bytes`` are shown as megabytes with their speed.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain(title, console)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    ends: tuple[ProgressColumn, ...]
    ends = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(), TimeRemainingColumn())
    note_column = TextColumn("{task.fields[note]}", markup=False)
    description = TextColumn("{task.description}", markup=False)
    with Progress(description, BarColumn(bar_width=20), *ends, note_column, console=console) as bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)


def _plain(title: str, console: Console) -> Report:
    console.print(title, highlight=False, markup=False)
    shown, said_at = 0, time.monotonic()

    def report(done: int, total: int | None, note: str = "") -> None:
        nonlocal shown, said_at
        percent = int(100 * done / total) if total else 0
        now = time.monotonic()
        if percent >= shown + PLAIN_STEP:
            shown = percent - percent % PLAIN_STEP
            said = f"  {shown} %"
        elif now - said_at >= PLAIN_SECONDS and total:
            said = f"  {done:,} of {total:,}"
        else:
            return
        said_at = now
        console.print(f"{said}  {note}".rstrip(), highlight=False, markup=False)

    return report
