"""Runs and experiments that somebody else made: measuring them asks no server and writes no file that only they name."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmrank.cli import main
from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.summary import summarize, write_summary
from llmrank.evaluation.report import write_report
from llmrank.evaluation.run import RunOptions, evaluate, finish
from llmrank.experiment import analyse, run_experiment
from tests.unit.bag_embedder import BagEmbedder
from tests.unit.embedding_server import Server
from tests.unit.small_experiment import experiment
from tests.unit.small_suite import suite, write_data

KEY = "LLMRANK_TEST_EMBEDDING_KEY"
BASELINES = {"random": {"baseline": "random"}, "popular": {"baseline": "popularity"}}
METRICS = ["ndcg@3", "diversity@2"]


@pytest.fixture
def running() -> Iterator[Server]:
    """The server that embeds."""
    found = Server()
    yield found
    found.close()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the small suite's files."""
    monkeypatch.setenv(KEY, "a key")
    monkeypatch.setenv("LLMRANK_CACHE", str(tmp_path / "cache"))
    write_data(tmp_path / "data")
    return tmp_path / "data"


def embedder(url: str, **more: Any) -> dict[str, Any]:
    """The section of one that asks a server."""
    return {"kind": "openai", "model": "m", "base_url": url, "api_key_env": KEY, "store": None, "max_attempts": 1, **more}


def a_run(data: Path, running: Server, out: Path) -> RunFolder:
    """A run whose measures need vectors."""
    asked = suite(data, "", rankers=BASELINES, metrics=METRICS, embedder={**embedder(running.url), "fields": ["title", "year"]})
    return evaluate(asked, out, RunOptions(report=False)).folder


def an_experiment(data: Path, running: Server, **more: Any) -> dict[str, Any]:
    """An experiment whose measures need vectors."""
    return experiment(data, "", variants=BASELINES, metrics=METRICS, embedder=embedder(running.url, **more))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> object:
    """Runs the command line in this process; gives its exit status."""
    monkeypatch.setattr(sys, "argv", ["llmrank", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_runs_folder_names_no_server_that_is_asked(tmp_path: Path, data: Path, running: Server) -> None:
    """Its suite asks it when it runs; who measures the folder says whom to ask, and gets the same figures."""
    folder = a_run(data, running, tmp_path / "run")
    before = folder.summary
    assert before["rankers"]["random"]["metrics"]["diversity@2"] is not None
    running.requests.clear()
    with pytest.raises(ConfigError, match=r'^embedder: is missing: .*"model": "m".*whom to ask'):
        finish(RunFolder(folder.path))
    assert not running.requests
    assert finish(RunFolder(folder.path), report=False, embedder=embedder(running.url)) == before
    assert any("1950" in text for request in running.requests for text in request["input"])  # the suite's own fields


def test_a_runs_vectors_are_not_taken_from_another_model(tmp_path: Path, data: Path, running: Server) -> None:
    """The summary stands under the suite's section; a program may bring an Embedder, whatever it is."""
    folder = a_run(data, running, tmp_path / "run")
    for other in (embedder(running.url, model="n"), {"kind": "wordllama"}):
        with pytest.raises(ConfigError, match=r"^embedder\.(model|kind): is not what the folder was made with"):
            summarize(RunFolder(folder.path), embedder=other)
    assert summarize(RunFolder(folder.path), embedder=BagEmbedder())["rankers"]


def test_a_stranger_s_store_is_not_written(tmp_path: Path, data: Path) -> None:
    """Static vectors need nobody, and are kept in the user's own cache folder."""
    pytest.importorskip("wordllama", reason="the default embedder is in the extra `local`")
    asked = suite(data, "", rankers=BASELINES, metrics=METRICS, embedder={"kind": "wordllama", "dimension": 64})
    folder = evaluate(asked, tmp_path / "run", RunOptions(report=False)).folder
    before = folder.summary
    manifest = json.loads((folder.path / "manifest.json").read_text(encoding="utf-8"))
    manifest["suite"]["embedder"]["store"] = str(tmp_path / "theirs")
    (folder.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert finish(RunFolder(folder.path), report=False) == before
    assert not (tmp_path / "theirs").exists()


def test_the_command_takes_the_embedder_of_a_run(
    tmp_path: Path, data: Path, running: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`llmrank eval report --embedder`; without it one line says what is missing."""
    folder = a_run(data, running, tmp_path / "run")
    capsys.readouterr()
    assert command(monkeypatch, "eval", "report", folder.path) == 2
    assert capsys.readouterr().err.startswith("llmrank: embedder: is missing: the folder was made with")
    own = yaml.safe_dump(embedder(running.url))
    assert command(monkeypatch, "eval", "report", folder.path, "--embedder", own) == 0
    assert command(monkeypatch, "eval", "report", folder.path, "--embedder", "[openai]") == 2
    assert "--embedder: must be a kind or a mapping" in capsys.readouterr().err


def test_an_experiments_folder_names_no_server_that_is_asked(
    tmp_path: Path, data: Path, running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it keep the password that stood in the server's address: only the experiment's own file has it."""
    spec = an_experiment(data, running)
    spec["embedder"]["base_url"] = running.url.replace("http://", "http://me:pa55word@")
    done = run_experiment(spec, tmp_path / "ab")
    assert done.failures == 0
    assert running.requests
    running.requests.clear()
    for path in done.folder.path.rglob("*"):
        assert not path.is_file() or b"pa55word" not in path.read_bytes(), path
    with pytest.raises(ConfigError, match=r'^embedder: is missing: .*"model": "m"'):
        analyse(done.folder)
    assert not running.requests
    assert analyse(done.folder, embedder=embedder(running.url)).users == 12
    assert running.requests
    assert run_experiment(spec, tmp_path / "ab", RunOptions(report=False)).stopped is None
    assert command(monkeypatch, "ab", "report", tmp_path / "ab") == 2
    assert command(monkeypatch, "ab", "report", tmp_path / "ab", "--embedder", yaml.safe_dump(embedder(running.url))) == 0


def test_a_sequential_experiment_looks_by_its_own_embedder(tmp_path: Path, data: Path, running: Server) -> None:
    """Each look measures with the embedder of the experiment's file, as does the choice among variants."""
    spec = an_experiment(data, running) | {"sequential": {"least": 4, "every": 4}, "metrics": ["ndcg@3", "diversity@2"]}
    assert run_experiment(spec, tmp_path / "ab", RunOptions(report=False)).stopped is None
    others = {**BASELINES, "given": {"baseline": "given"}}
    race = an_experiment(data, running) | {"variants": others, "users": 4, "selection": {"users": 8, "least": 2}}
    assert run_experiment(race, tmp_path / "race", RunOptions(report=False)).stopped is None


@pytest.mark.parametrize("name", ["../../evil", "/evil", "..", "a/b", ""])
def test_a_ranker_s_name_leads_out_of_no_folder(name: str, tmp_path: Path, data: Path) -> None:
    """A manifest that names a ranker like a path is refused, and nothing is written for it."""
    asked = suite(data, "", rankers=BASELINES)
    folder = evaluate(asked, tmp_path / "run", RunOptions(report=False)).folder
    manifest = json.loads((folder.path / "manifest.json").read_text(encoding="utf-8"))
    manifest["rankers"][name] = manifest["rankers"]["random"]
    (folder.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match=r"^run: names a ranker .*a ranker's name has letters"):
        finish(RunFolder(folder.path))
    assert {path.name for path in set(tmp_path.rglob("*")) - set(there)} <= {".lock"}


def test_a_summary_s_names_are_checked_too(tmp_path: Path, data: Path) -> None:
    """The report is written by the summary's names, which may be a stranger's as well."""
    folder = evaluate(suite(data, "", rankers=BASELINES), tmp_path / "run", RunOptions(report=False)).folder
    write_summary(folder)
    found = folder.summary
    found["rankers"]["../../evil"] = found["rankers"].pop("random")
    (folder.path / "summary.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(DatasetError, match="names a ranker"):
        write_report(folder)
    assert not list(tmp_path.rglob("evil*"))
