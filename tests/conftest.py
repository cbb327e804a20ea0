"""Fixtures of all tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import settings

from llmrank.assets import weights_path
from llmrank.backends.local import LocalOptions

# Examples are not timed: on a busy machine one of them may wait for a second before it runs.
settings.register_profile("llmrank", deadline=None)
settings.load_profile("llmrank")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The embedded model's weights; without them (or without the engine) the test is skipped."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: pip install 'llmrank[local]'")
    path = weights_path(LocalOptions().model)
    if not path.exists():
        pytest.skip(f"no weights at {path}: `make test` fetches them")
    return path
