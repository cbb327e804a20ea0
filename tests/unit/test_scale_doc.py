"""docs/scale.md is true: its plan is what the benchmark calculates from the figures that stand above it, and its code runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """`eval/bench_shards.py` as a module."""
    spec = importlib.util.spec_from_file_location("bench_shards", ROOT / "eval" / "bench_shards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def block(title: str) -> str:
    """The fenced text that holds `title`."""
    (found,) = [each for each in re.findall(r"```text\n(.*?)```", DOCUMENT, flags=re.DOTALL) if title in each]
    return re.sub(r"\n    +", " ", str(found))  # lines that were broken for the document's width


def test_the_plan_is_what_the_command_prints(bench: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """From the measured figures in the document, the benchmark's arithmetic gives the document's plan, line by line."""
    measured_block = block("a user: ")
    numbers = map(int, re.findall(r"\d+", next(line for line in measured_block.splitlines() if line.startswith("a user: "))))
    measured = bench.Measured(*numbers)
    assert measured.line() in measured_block
    core_seconds = float(re.findall(r"([\d.]+) core seconds here", measured_block)[0])
    command = re.findall(r"python eval/bench_shards\.py (.*--plan.*)", DOCUMENT)[0]
    given: Any = bench.parser().parse_args(command.split())
    bench.plan(given.plan, measured, core_seconds, given)
    printed = re.sub(r"\n    +", " ", capsys.readouterr().out)
    assert printed.strip() == block("plan for").strip()


def test_the_columns_are_the_ones_that_are_described() -> None:
    """The module that says it describes both files names every column of a ranked shard, in order."""
    from llmrank.scale import schema

    described = re.findall(r"^(\w+) +(?:string|list|int64|double)", (schema.__doc__ or "").partition("A ranked shard")[2], re.M)
    assert described == ["user_id", *schema._RESULT]
