"""Fixtures that several unit tests share."""

from __future__ import annotations

import pytest

from tests.unit.small_suite import KEY, KEY_ENV


@pytest.fixture
def suite_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key that the rankers of the small suite are configured to take."""
    monkeypatch.setenv(KEY_ENV, KEY)
