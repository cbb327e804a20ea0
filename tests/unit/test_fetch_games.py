"""`eval/fetch_games.py` on a few lines of the form that the paper's repository has; nothing is downloaded from there."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmrank.evaluation.cases import read_cases
from llmrank.evaluation.data.datasets import load_interactions, load_items
from llmrank.evaluation.data.protocol import CandidateOptions, ProtocolOptions, make_cases

SCRIPT = Path(__file__).parents[2] / "eval" / "fetch_games.py"
RETRIEVERS = ("random", "pop", "bm25", "bert", "bpr", "gru4rec", "sasrec")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Thirty items and three users, two of them with stored candidates; a list may name what is no item."""
    folder = tmp_path / "Games-6k"
    folder.mkdir()
    items = "".join(f"{number}\tPhantasy Star Online, Episode {number} &amp; II\n" for number in range(30))
    (folder / "Games-6k.item").write_text(f"item_id:token\ttitle:token_seq\n{items}", encoding="utf-8")
    (folder / "Games-6k.test.inter").write_text(
        "user_id:token\titem_id_list:token_seq\titem_id:token\n0\t0 1 2\t3\n1\t4 5\t6\n2\t0\t29\n", encoding="utf-8"
    )
    for name in RETRIEVERS:
        (folder / f"Games-6k.{name}").write_text(
            f"1\t6 {' '.join(map(str, range(7, 29)))}\n0\t99999 {' '.join(map(str, range(5, 29)))}\n", encoding="utf-8"
        )
    return folder


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the folder's files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it so
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def fetch(source: str, out: Path) -> subprocess.CompletedProcess[str]:
    """Runs the script."""
    command = [sys.executable, str(SCRIPT), "--source", source, "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_files_are_what_a_suite_reads(source: Path, tmp_path: Path) -> None:
    """19 random candidates and the next item; that item in no history; lists by name; from a folder as from a server."""
    out, again = tmp_path / "games", tmp_path / "again"
    run = fetch(str(source), out)
    assert run.stdout.endswith("games: 30 items, 2 cases, 3 users\n"), run.stderr
    first, second = read_cases(out / "cases.jsonl")
    assert (first.user_id, first.history, first.relevant) == ("1", ("4", "5"), ("6",))
    assert first.candidates is not None
    assert sorted(map(int, first.candidates)) == list(range(6, 26))
    assert second.candidates is not None
    assert sorted(map(int, second.candidates)) == [3, *range(5, 24)]
    assert load_items(out / "items.jsonl")["11"].title == "Phantasy Star Online, Episode 11 &amp; II"
    interactions = load_interactions(out / "interactions.jsonl.gz")
    assert [(row.user_id, row.item_id) for row in interactions.rows()][-3:] == [("1", "4"), ("1", "5"), ("2", "0")]
    for by in RETRIEVERS:
        options = ProtocolOptions("given", candidates=CandidateOptions("retrieved", 2, by))
        split = make_cases(
            options, catalog=load_items(out / "items.jsonl"), cases=out / "cases.jsonl", interactions=interactions
        )
        assert [case.candidates for case in split.cases] == [("6", "7"), ("5", "6")]
    with served(source) as address:
        assert fetch(address, again).returncode == 0
    for name in ("items.jsonl", "cases.jsonl"):
        assert (out / name).read_bytes() == (again / name).read_bytes()


def test_a_source_that_is_not_there_is_named_in_one_line(source: Path, tmp_path: Path) -> None:
    """A missing file of a folder, one that a server lacks, one of another form, and files that do not fit each other."""
    histories = source / "Games-6k.test.inter"
    whole = histories.read_text(encoding="utf-8")
    histories.write_text(whole.replace("\n1\t", "\n7\t"), encoding="utf-8")
    assert "has no next item (got '1')" in fetch(str(source), tmp_path / "0").stderr
    histories.write_text(whole, encoding="utf-8")
    (source / "Games-6k.bpr").write_text("1 2 3\n", encoding="utf-8")
    assert "Games-6k.bpr, line 1: not 2 columns" in fetch(str(source), tmp_path / "a").stderr
    (source / "Games-6k.bpr").unlink()
    run = fetch(str(source), tmp_path / "b")
    assert (run.returncode, run.stderr.count("\n")) == (1, 1)
    assert "Games-6k.bpr" in run.stderr
    with served(source) as address:
        run = fetch(address, tmp_path / "c")
    assert (run.returncode, run.stderr.count("\n")) == (1, 1)
    assert "cannot be fetched (HTTP Error 404" in run.stderr
