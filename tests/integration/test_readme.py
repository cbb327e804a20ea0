"""The README is true: its Python runs, its YAML builds a Ranker, its commands and targets exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llmrank import Ranker
from llmrank.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


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
    assert names["ranking"].status == "ok"
    assert len(names["means"]) == 2
    assert all(0.0 <= mean <= 1.0 for mean in names["means"].values())


def test_the_yaml_builds_a_ranker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration builds as it stands, and so does each of its commented backends."""
    pytest.importorskip("wordllama", reason="the prefilter's default embedder is in the extra `local`")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("yaml")
    others = re.findall(r"^# (backend: .*)$", block, flags=re.MULTILINE)
    assert len(others) == 2
    for config in (yaml.safe_load(block), *(yaml.safe_load(block) | yaml.safe_load(other) for other in others)):
        with Ranker.from_config(config) as ranker:
            assert ranker.backend.kind == config["backend"]["kind"]


def test_the_commands_and_targets_exist() -> None:
    """Every `llmrank` command and `make` target that the README names is there."""
    commands = set(re.findall(r"^llmrank (\w+(?: fetch)?)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert commands == {"data fetch", "rank"}
    for command in [*commands, "prompts list", "prompts show", "prompts diff", "prompts lint", "demo"]:
        assert CliRunner().invoke(app, [*command.split(), "--help"]).exit_code == 0, command
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
