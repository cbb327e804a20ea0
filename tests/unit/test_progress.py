"""Progress: a bar with numbers on a terminal, plain lines elsewhere, both on standard error."""

from __future__ import annotations

import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llmrank.progress import progress

pty = pytest.importorskip("pty", reason="only POSIX systems have pseudo terminals")


@contextmanager
def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """Standard error becomes a real (pseudo) terminal, 100 columns wide; what it was sent is in the list after the block."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    ours, theirs = pty.openpty()
    sent: list[bytes] = []

    def read() -> None:
        while True:
            try:
                block = os.read(ours, 65_536)
            except OSError:  # EIO: how Linux says that the other end was closed
                return
            if not block:  # how other systems say it
                return
            sent.append(block)

    reader = threading.Thread(target=read)  # a terminal that nobody reads from would block its writer
    reader.start()
    try:
        with os.fdopen(theirs, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal)
            yield sent
    finally:
        reader.join(timeout=10)
        os.close(ours)
    assert not reader.is_alive()


def plain(sent: list[bytes]) -> str:
    """What a terminal was sent, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", b"".join(sent).decode("utf-8"))


def test_a_terminal_gets_a_bar_with_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items are counted as done/all, the title stands before the bar, and the bar is redrawn in place."""
    with a_terminal(monkeypatch) as sent, progress("ranking", "items") as report:
        report(0, 8)
        report(8, 8)
    text = plain(sent)
    assert "ranking" in text
    assert "8/8" in text
    assert "━" in text
    assert b"\x1b[?25l" in b"".join(sent)  # the cursor is hidden while the bar is drawn ...
    assert b"\x1b[?25h" in b"".join(sent)  # ... and comes back


def test_a_terminal_shows_bytes_as_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download is counted in megabytes of its size, with its speed."""
    with a_terminal(monkeypatch) as sent, progress("fetching", "bytes") as report:
        report(98_000_000, 98_000_000)
    assert "98.0/98.0 MB" in plain(sent)


def test_a_terminal_gets_its_cursor_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the block, the bar is taken down; the exception goes on."""

    def fails() -> None:
        with progress("ranking", "items") as report:
            report(1, 8)
            raise KeyError("stop")

    with a_terminal(monkeypatch) as sent, pytest.raises(KeyError, match="stop"):
        fails()
    assert b"".join(sent).rindex(b"\x1b[?25h") > b"".join(sent).rindex(b"\x1b[?25l")


def without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error becomes a file, as in a log or a pipe."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    return file


def test_without_a_terminal_there_are_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The title, then a line for each quarter that is done, however often it is told; no control sequences."""
    file = without_a_terminal(monkeypatch)
    with progress("fetching [weights]", "bytes") as report:
        for done in range(0, 1001):
            report(done, 1000)
    assert file.getvalue().splitlines() == ["fetching [weights]", "  25 %", "  50 %", "  75 %", "  100 %"]


def test_without_a_terminal_quarters_may_be_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large stride shows where it has come to, once; a size that is not known shows the title only."""
    file = without_a_terminal(monkeypatch)
    with progress("ranking", "items") as report:
        report(0, 3)
        report(2, 3)
        report(3, 3)
    assert file.getvalue().splitlines() == ["ranking", "  50 %", "  100 %"]
    with progress("reading", "bytes") as report:
        report(4096, None)
        report(8192, None)
    assert file.getvalue().splitlines()[3:] == ["reading"]


def test_progress_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a command's output can be piped."""
    with progress("ranking", "items") as report:
        report(1, 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "ranking" in captured.err
