"""The README is true: its Python and its commands run, its YAML builds a Ranker, its targets exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llmrank import Ranker
from llmrank.cli import app
from llmrank.strategy_kinds import build_strategy

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    """The code blocks of one language, in order; of the README, if no other text is given."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    """The README from a heading to the next one of its level or above."""
    level = heading.index(" ")
    # From two signs on: a single one begins a comment in a code block.
    return re.split(rf"^#{{2,{level}}} ", README.split(f"\n{heading}\n", 1)[1], flags=re.MULTILINE)[0]


def in_a_shell(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs commands as a reader would, in a folder, with `.venv/bin` on the path; each of them ends well."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run


@pytest.mark.local
def test_the_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], weights: Path
) -> None:
    """The blocks run one after the other, as a reader would paste them, with the real embedded model."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102  # our own README
    lines = capsys.readouterr().out.splitlines()
    assert len(eval(lines[0])) == 2  # noqa: S307  # the printed list of ids
    assert lines[1] == "ok"
    assert len(names["means"]) == 2
    assert all(0.0 <= mean <= 1.0 for mean in names["means"].values())
    # The last `ranking` is of the rated history: the model read both likes and the dislike.
    assert names["ranking"].status == "ok"
    (exchange,) = names["ranking"].trace
    shown = exchange.prompt.messages[-1].content
    assert [line for line in shown.splitlines() if line.endswith("(I rated it 1)")] == [
        "- Titanic (1997) - Drama, Romance (I rated it 1)"
    ]
    assert "(I rated it 5)" in shown
    assert "(I rated it 4)" in shown


@pytest.mark.local
def test_the_python_of_the_architecture_runs(weights: Path) -> None:
    """A Ranker that is built from parts, as the document shows, ranks with the real embedded model."""
    (block,) = blocks("python", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    exec(compile(block, "architecture.md", "exec"), names)  # noqa: S102  # our own document
    assert sorted(names["ranking"].item_ids) == ["78", "862"]
    assert names["ranking"].status == "ok"


@pytest.mark.local
def test_the_experiment_runs(tmp_path: Path, weights: Path, ml_100k: Path) -> None:
    """Section 2 as a reader follows it: its file, then its commands in a shell; the report has a decision."""
    comparing = section("### 2. Comparing prompts")
    (spec,), (commands,) = (blocks(language, comparing) for language in ("yaml", "sh"))
    (tmp_path / "experiment.yaml").write_text(spec, encoding="utf-8")
    run = in_a_shell(commands, tmp_path)
    assert "detectable difference" in run.stderr
    findings = json.loads((tmp_path / "ab" / "details" / "findings.json").read_text(encoding="utf-8"))
    assert findings["users"] == 4
    assert findings["decision"]["sentence"] in (tmp_path / "ab" / "details" / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "ab" / "details" / "report.html").exists()


@pytest.mark.local
def test_the_offline_runs_run(tmp_path: Path, weights: Path, ml_100k: Path) -> None:
    """Section 3 as a reader follows it: its two files, then its commands in a shell; each ends well, each case is ranked."""
    offline = section("### 3. Offline runs")
    (suite, config), (cases,), commands = (blocks(language, offline) for language in ("yaml", "json", "sh"))
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    (tmp_path / "ranker.yaml").write_text(config, encoding="utf-8")
    (tmp_path / "cases.jsonl").write_text(cases, encoding="utf-8")
    run = in_a_shell("".join(commands), tmp_path)
    assert "3 requests, forecast from 3" in run.stderr
    summary = json.loads((tmp_path / "runs" / "first" / "summary.json").read_text(encoding="utf-8"))
    assert {name: ranker["status"]["ok"] for name, ranker in summary["rankers"].items()} == {"popularity": 3, "model": 3}
    assert (tmp_path / "runs" / "first" / "report.html").exists()
    assert "from popularity" in run.stdout  # what the comparison found
    assert "data/items.jsonl" in run.stdout
    assert "Return of the Jedi" in run.stdout  # the table of the single request
    assert "2 ranked: 2 ok" in run.stderr
    asked = [json.loads(line) for line in cases.splitlines()]
    ranked = [json.loads(line) for line in (tmp_path / "rankings.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["user_id"] for each in ranked] == [each["user_id"] for each in asked]
    for case, ranking in zip(asked, ranked, strict=True):
        assert ranking["status"] == "ok"
        assert sorted(item["id"] for item in ranking["items"]) == sorted(case["candidates"])
        assert set(case["relevant"]) <= set(case["candidates"])
    assert (tmp_path / "answers.sqlite").exists()


def test_the_yaml_builds_a_ranker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration builds as it stands, and so does each of its commented backends."""
    pytest.importorskip("wordllama", reason="the prefilter's default embedder is in the extra `local`")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.chdir(tmp_path)
    block, *_ = blocks("yaml", section("### 1. In a service"))
    others = re.findall(r"^# (backend: .*)$", block, flags=re.MULTILINE)
    assert len(others) == 3
    for config in (yaml.safe_load(block), *(yaml.safe_load(block) | yaml.safe_load(other) for other in others)):
        with Ranker.from_config(config) as ranker:
            assert ranker.backend.kind == config["backend"]["kind"]


def test_the_strategies_shown_build() -> None:
    """The block of strategies builds as it stands, and so does each line that is commented out."""
    _, block, _ = blocks("yaml", section("### 1. In a service"))
    others = re.findall(r"^# (strategy: .*)$", block, flags=re.MULTILINE)
    assert len(others) == 3
    built = [build_strategy(yaml.safe_load(text)["strategy"]).name for text in (block, *others)]
    assert built == ["single-token", "setwise", "self-consistency", "calibrated"]


def test_what_others_chose_is_trained_and_weighed(tmp_path: Path) -> None:
    """The two commands train on small files, and the block that follows names what they wrote."""
    rows = [f"u{user},{item},{user * 10 + item}" for user in range(30) for item in range(user % 5, user % 5 + 4)]
    (tmp_path / "interactions.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]), encoding="utf-8")
    items = [json.dumps({"id": str(item), "title": f"title {item}"}) for item in range(12)]
    (tmp_path / "items.jsonl").write_text("\n".join(items), encoding="utf-8")
    service = section("### 1. In a service")
    (commands,) = blocks("sh", service)
    in_a_shell(commands, tmp_path)
    *_, block = blocks("yaml", service)
    config = yaml.safe_load(block)
    for retriever in config["retrievers"].values():
        retriever["path"] = str(tmp_path / retriever["path"])
    with Ranker.from_config({"backend": {"kind": "local"}, **config}, catalog=tmp_path / "items.jsonl") as ranker:
        assert list(ranker.retrievers) == ["crowd", "all"]
        assert ranker.prefilter is not None
        assert ranker.prefilter.found_by == ("embedding", "crowd")
        assert ranker.fusion is not None
        assert ranker.fusion.needs == {"all"}


def test_the_commands_and_targets_exist() -> None:
    """Every `llmrank` command and `make` target that the README names is there."""
    commands = set(re.findall(r"^llmrank (\w+(?: (?:fetch|run|compare|report))?)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert commands == {"data fetch", "rank", "train", "eval run", "eval compare", "ab run", "ab report"}
    for command in [*commands, "eval report", "prompts list", "prompts show", "prompts diff", "prompts lint", "demo"]:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
