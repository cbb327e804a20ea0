"""The house rules that a machine can check: imports point one way, and importing the package is cheap."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import llmrank

PACKAGE = Path(llmrank.__file__).parent

LAYERS = [
    {"types", "errors", "usage", "wish", "protocols", "labels", "progress"},
    {
        "template",
        "sanitize",
        "budget",
        "writer",
        "answer",
        "catalog",
        "resolve",
        "lint",
        "prompt_kinds",
        "assets",
        "files",
        "sqlite",
        "jsonl",
        "interactions",
        "strict_yaml",
        "fusion",
        "_portal",
        "driver",
        "requantize",
    }
    | {"cache", "codec"},
    {"strategies", "backends", "retrieval", "understanding"},
    {"ranker", "config", "prices", "sections", "strategy_kinds", "retriever_kinds", "fusion_kinds", "forecast"}
    | {"embedder_kinds", "registry"},
    {"evaluation", "experiment", "scale"},
    {"cli"},
]


def layer(module: str) -> int:
    """The number of the layer that a module's first part belongs to."""
    first = module.split(".")[1]
    for number, names in enumerate(LAYERS):
        if first in names:
            return number
    raise AssertionError(f"{module} belongs to no layer: add it to LAYERS")


def imports(path: Path) -> list[str]:
    """The llmrank modules that a file imports at run time, also inside functions."""
    found = []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmrank."):
            found.append(node.module or "")
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("llmrank.")]
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """A module imports from its own layer or from those below; backends never know strategies, nor the other way round."""
    name = "llmrank." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    # Building a Ranker from a file, and saying which backends could do more, are the facade's two looks back.
    allowed = {("llmrank.ranker", "llmrank.config")}
    for other in imports(path):
        assert layer(other) <= layer(name) or (name, other) in allowed, f"{name} imports {other}"
        pair = {name.split(".")[1], other.split(".")[1]}
        assert pair != {"backends", "strategies"}, f"{name} imports {other}"


def test_importing_the_package_is_cheap() -> None:
    """`import llmrank` takes under 0.2 s of CPU more than Python itself and loads no heavy module."""
    code = (
        "import time, sys, json; start = time.process_time(); import llmrank; "
        "print(json.dumps([time.process_time() - start, sorted(sys.modules)]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(run.stdout)
    heavy = {"numpy", "openai", "pydantic", "jinja2", "tiktoken", "tenacity", "rapidfuzz", "rich", "typer", "asyncio", "yaml"}
    assert heavy.isdisjoint(modules)
    assert seconds < 0.2


def test_every_public_name_resolves() -> None:
    """Each name in `__all__` can be imported, and no other name is promised."""
    for name in llmrank.__all__:
        assert getattr(llmrank, name) is not None
    with pytest.raises(AttributeError, match="Rankr"):
        llmrank.Rankr  # noqa: B018  # the attribute access is the test


def test_every_test_states_a_behaviour() -> None:
    """A test's docstring says what holds; linters cannot tell tests from their helpers, so this looks."""
    for path in sorted(Path(__file__).parents[1].rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
