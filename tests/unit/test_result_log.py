"""The result log: on disk line by line, whole after whatever happened, in order at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import DatasetError
from llmrank.evaluation.running.log import ResultLog
from llmrank.files import read_lines


def result(status: str = "ok", **others: object) -> dict[str, object]:
    """A result that says no more than it must."""
    return {"status": status, **others}


def cases(path: Path) -> list[int]:
    """The numbers in a file, in its order."""
    return [record["case"] for record in read_lines(path)]


def test_results_are_found_again(tmp_path: Path) -> None:
    """What was added counts as done when the log is opened again, and only the rest is outstanding."""
    path = tmp_path / "results" / "x.jsonl"
    with ResultLog(path, 4) as log:
        log.add(0, result())
        log.add(1, result("error"))
    with ResultLog(path, 4) as log:
        assert (log.done, log.failed) == (2, 1)
        assert log.outstanding().tolist() == [2, 3]
        assert log.outstanding(3).tolist() == [2]


def test_a_result_is_on_disk_when_it_was_added(tmp_path: Path) -> None:
    """After `add` another process reads the line, whatever happens to this one."""
    path = tmp_path / "x.jsonl"
    with ResultLog(path, 2) as log:
        log.add(0, result(title="Amélie \ud800"))
        (record,) = read_lines(path)
        assert record == {"case": 0, "status": "ok", "title": "Amélie \ud800"}


def test_failures_can_be_asked_again(tmp_path: Path) -> None:
    """Forgotten failures are outstanding; what is added for them takes their place, in order, when the log is closed."""
    path = tmp_path / "x.jsonl"
    with ResultLog(path, 3) as log:
        for number, status in enumerate(("ok", "error", "ok")):
            log.add(number, result(status))
    with ResultLog(path, 3) as log:
        log.forget_failures()
        assert log.outstanding().tolist() == [1]
        log.add(1, result("repaired"))
        assert cases(path) == [0, 1, 2, 1]
    assert [(record["case"], record["status"]) for record in read_lines(path)] == [(0, "ok"), (1, "repaired"), (2, "ok")]


@given(order=st.permutations(range(7)), again=st.lists(st.integers(0, 6), max_size=5))
def test_any_order_of_adding_ends_in_order(
    tmp_path_factory: pytest.TempPathFactory, order: Sequence[int], again: list[int]
) -> None:
    """However results come, the closed file has each number once, in order, with the last result added for it."""
    path = tmp_path_factory.mktemp("log") / "x.jsonl"
    last = {}
    with ResultLog(path, 7) as log:
        for turn, number in enumerate([*order, *again]):
            log.add(number, result(turn=turn))
            last[number] = turn
    assert [(record["case"], record["turn"]) for record in read_lines(path)] == sorted(last.items())


@given(cut=st.integers(1, 200))
def test_a_torn_line_is_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A file that ends anywhere is opened with every line that is whole, and goes on as if the rest had never been."""
    path = tmp_path_factory.mktemp("log") / "x.jsonl"
    with ResultLog(path, 3) as log:
        for number in range(3):
            log.add(number, result(title="film " * 8))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with ResultLog(path, 3) as log:
        assert log.done == whole[:-cut].count(b"\n")
        for number in log.outstanding().tolist():
            log.add(number, result(title="film " * 8))
    assert path.read_bytes() == whole


def test_a_long_torn_line_is_cut_off(tmp_path: Path) -> None:
    """Half a line that is longer than what is read at once goes, too."""
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"case": 0, "status": "ok"}\n' + b"x" * 200_000)
    with ResultLog(path, 2) as log:
        assert log.outstanding().tolist() == [1]
    assert path.stat().st_size == 28


def test_a_file_of_another_run_is_refused(tmp_path: Path) -> None:
    """A number beyond the cases, or a line that is no result, is one error that names the line."""
    path = tmp_path / "x.jsonl"
    for line in ('{"case": 5, "status": "ok"}', '{"status": "ok"}', "[1]", "no json"):
        path.write_text('{"case": 0, "status": "ok"}\n' + line + "\n", encoding="utf-8")
        with pytest.raises(DatasetError, match="line 2"):
            ResultLog(path, 5)


def test_kill_9_between_results_loses_none(tmp_path: Path) -> None:
    """A process that kills itself after three results leaves exactly these three."""
    path = tmp_path / "x.jsonl"
    program = (
        "import os, signal, sys; from pathlib import Path; from llmrank.evaluation.running.log import ResultLog\n"
        "log = ResultLog(Path(sys.argv[1]), 9)\n"
        "[log.add(number, {'status': 'ok'}) for number in range(3)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with ResultLog(path, 9) as log:
        assert log.outstanding().tolist() == [3, 4, 5, 6, 7, 8]


def test_stability_has_numbers_of_its_own(tmp_path: Path) -> None:
    """The number may stand under another key than `case`."""
    path = tmp_path / "x.jsonl"
    with ResultLog(path, 4, "question") as log:
        log.add(3, result(case=1, shuffle=2))
    assert json.loads(path.read_text(encoding="utf-8")) == {"question": 3, "status": "ok", "case": 1, "shuffle": 2}
    assert os.listdir(tmp_path) == ["x.jsonl"]  # noqa: PTH208  # the names alone
