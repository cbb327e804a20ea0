"""No skip goes unseen in continuous integration (`tests/conftest.py`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SKIPS = """
import pytest

def test_excused():
    pytest.skip("root may open everything")

def test_missing():
    pytest.skip("the server is not here")
"""


@pytest.mark.parametrize(("required", "outcome"), [("1", "1 failed, 1 skipped"), ("0", "2 skipped")])
def test_a_skip_fails_where_everything_should_be_there(tmp_path: Path, required: str, outcome: str) -> None:
    """With LLMRANK_REQUIRE_ALL=1 a skip that has no excuse is a failure; without it, it is a skip."""
    shutil.copy(TESTS / "conftest.py", tmp_path)
    (tmp_path / "test_some.py").write_text(SKIPS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    environment = {**os.environ, "LLMRANK_REQUIRE_ALL": required, "PYTHONPATH": str(TESTS.parent)}
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert outcome in run.stdout, run.stdout + run.stderr
