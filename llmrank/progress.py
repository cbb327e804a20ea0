"""A title goes in, a function that is told how far things are comes out: a bar on a terminal, else a plain line now and then.

Progress goes to standard error, so that a command's output can be piped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

Report: TypeAlias = Callable[[int, int | None], None]
"""Is told how much is done and, if known, how much there is."""

PLAIN_STEP = 25
"""Without a terminal, one line each time that so many percent more are done."""


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
    with Progress(TextColumn("{task.description}"), BarColumn(bar_width=20), *ends, console=console) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _plain(title: str, console: Console) -> Report:
    console.print(title, highlight=False, markup=False)
    shown = 0

    def report(done: int, total: int | None) -> None:
        nonlocal shown
        percent = int(100 * done / total) if total else 0
        if percent >= shown + PLAIN_STEP:
            shown = percent - percent % PLAIN_STEP
            console.print(f"  {shown} %", highlight=False)

    return report
