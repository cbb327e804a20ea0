"""Fixtures of all tests; and no test that is skipped where everything should be there.

LLMRANK_REQUIRE_ALL=1 turns a skip into a failure: continuous integration must not pass because nothing was there to test.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from llmrank.assets import cache_dir, weights_path
from llmrank.backends.local import LocalOptions

# Examples are not timed: on a busy machine one of them may wait for a second before it runs.
settings.register_profile("llmrank", deadline=None)
settings.load_profile("llmrank")

EXCUSES = (
    "root may open everything",  # continuous integration may run as root
    "the package 'vllm' is missing",  # the CUDA build; the one for the CPU has an environment of its own
    "the games data is not on this machine",  # they may not be passed on
)
"""What may be missing all the same."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _refuse_skip(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("LLMRANK_REQUIRE_ALL") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(excuse in reason for excuse in EXCUSES):
            report.outcome = "failed"
            report.longrepr = f"{reason}, and LLMRANK_REQUIRE_ALL=1 lets no test be skipped for that"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips itself, or is skipped by a mark."""
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A file that is skipped whole."""
    return _refuse_skip((yield))


@pytest.fixture(scope="session")
def weights() -> Path:
    """The embedded model's weights; without them (or without the engine) the test is skipped."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install 'llmrank[local]'")
    path = weights_path(LocalOptions().model)
    if not path.exists():
        pytest.skip(f"no weights at {path}: `make test` fetches them")
    return path


@pytest.fixture(scope="session")
def ml_100k() -> Path:
    """The folder of MovieLens 100K; where it was not fetched the test is skipped."""
    folder = cache_dir() / "ml-100k"
    if not (folder / "interactions.csv").exists():
        pytest.skip("MovieLens 100K is not here: `make test` fetches it")
    return folder
