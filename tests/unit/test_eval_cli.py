"""`llmrank eval`: what it prints, and its exit status."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from llmrank.cli import main
from tests.servers.picky import PickyServer, Reply, Request
from tests.unit.small_suite import KEY, KEY_ENV, server, suite, write_data


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def backwards() -> Iterator[PickyServer]:
    """A server that ranks the candidates backwards."""
    with server() as running:
        yield running


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Runs the command line in this process; gives its exit status."""
    monkeypatch.setattr(sys, "argv", ["llmrank", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def write_suite(folder: Path, url: str, **changes: object) -> Path:
    """The small suite as a file."""
    write_data(folder)
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite(folder, url, **changes)), encoding="utf-8")
    return path


def test_a_run_prints_its_forecast_and_its_results(
    tmp_path: Path, backwards: PickyServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forecast and progress on stderr, tables with the protocol on stdout, status 0; then `compare` pairs the rankers."""
    path = write_suite(tmp_path, backwards.url)
    assert command(monkeypatch, "eval", "run", path, "--out", tmp_path / "run", "--no-report") == 0
    said = capsys.readouterr()
    assert "12 requests, forecast from 12" in said.err
    assert "12 calls" in said.err
    assert "differences in the primary measure" in said.err
    assert "ranking: model" in said.err
    assert "Relevance" in said.out
    assert "Given cases" in said.out
    assert "model: 12 ok" in said.out
    assert not (tmp_path / "run" / "report.html").exists()
    page = tmp_path / "difference.html"
    assert command(monkeypatch, "eval", "compare", tmp_path / "run", "--baseline", "popularity", "--out", page) == 0
    assert "Difference" in capsys.readouterr().out
    assert "Content-Security-Policy" in page.read_text(encoding="utf-8")
    assert command(monkeypatch, "eval", "report", tmp_path / "run") == 0
    assert (tmp_path / "run" / "report.html").exists()


def test_rankers_to_compare_are_chosen_by_name(
    tmp_path: Path, backwards: PickyServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--ranker`, given again for each; a wrong name is answered with the nearest, and status 2."""
    path = write_suite(tmp_path, backwards.url)
    assert command(monkeypatch, "eval", "run", path, "--out", tmp_path / "run", "--no-report") == 0
    capsys.readouterr()
    assert command(monkeypatch, "eval", "compare", tmp_path / "run", "--ranker", "popularity", "-r", "modle") == 2
    assert "did you mean 'model'" in capsys.readouterr().err
    assert command(monkeypatch, "eval", "compare", tmp_path / "run", "--ranker", "popularity", "-r", "model") == 0
    said = capsys.readouterr().out
    assert "popularity" in said
    assert "random" not in said.replace("a random order", "")


def test_a_dry_run_prints_the_forecast_alone(
    tmp_path: Path, backwards: PickyServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is asked, and there are no results to print."""
    path = write_suite(tmp_path, backwards.url)
    assert command(monkeypatch, "eval", "run", path, "--out", tmp_path / "run", "--dry-run") == 0
    said = capsys.readouterr()
    assert "USD" in said.err
    assert said.out == ""
    assert not backwards.bodies


def test_failed_rankings_are_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that finished with failures says how many, and how to ask again."""

    def broken(request: Request) -> Reply | None:
        return Reply({"error": {"message": "broken"}}, 500) if "messages" in request.body else None

    with server(broken) as running:
        path = write_suite(tmp_path, running.url)
        assert command(monkeypatch, "eval", "run", path, "--out", tmp_path / "run", "--no-report") == 1
    said = capsys.readouterr()
    assert "12 rankings failed; --retry-errors" in said.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["rankers"]["model"]["status"]["error"] == 12
    assert summary["rankers"]["model"]["cases"] == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "run", "none.yaml", "--out", "run"], "suite: cannot be read"),
        (["eval", "run", "SUITE", "--out", "run", "--engine", "rya"], "did you mean 'ray'"),
        (["eval", "run", "SUITE", "--out", "run", "--budget-usd", "0"], "budget_usd: must be above 0"),
        (["eval", "run", "SUITE", "--out", "run", "--limit", "0"], "limit"),
        (["eval", "report", "none"], "there is no manifest.json"),
        (["eval", "compare", "none"], "there is no manifest.json"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """Bad input is one line on stderr, and no folder is left behind."""
    path = write_suite(tmp_path / "data", "http://127.0.0.1:9/v1")
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *(str(path) if each == "SUITE" else each for each in arguments)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["data"]


def test_bad_data_leave_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An id that the catalogue lacks is named before anything is asked; mended, the same command runs."""
    with server() as running:
        path = write_suite(tmp_path, running.url)
        cases = tmp_path / "cases.jsonl"
        right = cases.read_text(encoding="utf-8")
        cases.write_text(right.replace('"i20"', '"i2000"'), encoding="utf-8")
        assert command(monkeypatch, "eval", "run", path, "--out", tmp_path / "run", "--no-report") == 2
        said = capsys.readouterr()
        assert "i2000" in said.err
        assert "cases.jsonl" in said.err
        assert not running.bodies
        cases.write_text(right, encoding="utf-8")
        assert command(monkeypatch, "eval", "run", path, "--out", tmp_path / "run", "--no-report") == 0
