"""`eval/bench_prefix_cache.py` without a server: two layouts of the same words, one of which keeps a prefix."""

from __future__ import annotations

import runpy
from os.path import commonprefix
from pathlib import Path
from typing import Any

import pytest

from llmrank.backends._vllm_metrics import PrefixCache
from llmrank.types import Completion, Prompt

SCRIPT = Path(__file__).parents[2] / "eval" / "bench_prefix_cache.py"


def texts(bench: dict[str, Any], layout: str) -> list[str]:
    """What a model reads of each of one user's questions."""
    asked: list[Prompt] = bench["prompts"](bench["LAYOUTS"][layout], users=1, pairs=4, seed=7)
    return ["\n\n".join(message.content for message in prompt.messages) for prompt in asked]


def test_both_layouts_have_the_same_paragraphs() -> None:
    """The candidates stand last in one and before the history in the other, where the questions differ at once."""
    bench = runpy.run_path(str(SCRIPT))
    shared, moved = texts(bench, "shared first"), texts(bench, "candidates first")
    assert [sorted(text.split("\n\n")) for text in shared] == [sorted(text.split("\n\n")) for text in moved]
    assert all(text.index("<candidates>\n") > text.index("</history>\n") for text in shared)
    assert all(text.index("<candidates>\n") < text.index("<history>\n") for text in moved)
    assert len(commonprefix(shared)) > 0.9 * len(shared[0])  # noqa: RUF071 - of characters, as meant
    assert len(commonprefix(moved)) < 0.2 * len(moved[0])  # noqa: RUF071 - of characters, as meant


async def test_hit_rates_and_the_ratio_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a server that keeps what the last question began with, the layout of the templates has the higher rate."""

    class Server:
        """Counts characters as a prefix cache counts tokens; keeps one text."""

        def __init__(self, options: object) -> None:
            self.cache, self.last = PrefixCache(0, 0), ""

        async def generate(self, prompt: Prompt) -> Completion:
            text = "\n\n".join(message.content for message in prompt.messages)
            hits = len(commonprefix([self.last, text]))  # noqa: RUF071 - of characters, as meant
            self.cache, self.last = PrefixCache(self.cache.queries + len(text), self.cache.hits + hits), text
            return Completion(prompt.labels[0])

        async def prefix_cache(self) -> PrefixCache:
            return self.cache

        async def aclose(self) -> None:
            pass

    monkeypatch.setattr("llmrank.backends.vllm.VLLMBackend", Server)
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "--url", "http://127.0.0.1:9", "--users", "1", "--pairs", "4"])
    await runpy.run_path(str(SCRIPT))["main"]()
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert head == "1 users, 4 pairs each, 2 rounds, 8 at once"
    assert columns.split()[-1] == "ratio"
    rates = {row[:18].strip(): float(row.partition("%")[0].split()[-1]) for row in rows}
    assert list(rates) == ["candidates first", "shared first"]
    assert rates["candidates first"] < 25 < 60 < rates["shared first"]
