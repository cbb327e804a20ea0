"""The default embedder where it cannot be had: one line that says what to do. (What it gives is tested in integration.)"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmrank.errors import ConfigError, SetupError
from llmrank.retrieval.wordllama import WordLlamaEmbedder, WordLlamaOptions


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the embedder is made, not at the first request."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'llmrank\[local\]'"):
        WordLlamaEmbedder()


def test_a_package_without_its_table_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A broken installation does not reach for the network."""

    class Broken:
        @staticmethod
        def load(name: str, **options: Any) -> None:
            assert options["disable_download"] is True
            raise FileNotFoundError("no weights")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "wordllama", SimpleNamespace(WordLlama=Broken, __file__=str(tmp_path / "x.py")))
    with pytest.raises(SetupError, match=r"lacks its table or tokenizer \(no weights\); run: pip install --force-reinstall"):
        WordLlamaEmbedder()


def test_a_size_that_there_is_not_is_refused() -> None:
    """The sizes that there are, in the message."""
    with pytest.raises(ConfigError, match=r"prefilter\.embedder\.dimension: .*64, 128, 256"):
        WordLlamaOptions(100)


def test_half_a_surrogate_pair_is_embedded_as_a_sign() -> None:
    """The tokenizer would refuse it: U+FFFD stands in its place."""
    half, sign = WordLlamaEmbedder(WordLlamaOptions(64)).embed(["alien \ud83d", "alien \ufffd"])
    assert half.any()
    assert half.tolist() == sign.tolist()
