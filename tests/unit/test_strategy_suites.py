"""The suites that compare all strategies (`eval/strategies-*.yaml`) can be run: each of them loads, and each ranker builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrank.evaluation.suite import load_suite
from llmrank.strategy_kinds import KINDS, build_strategy

SUITES = sorted((Path(__file__).parents[2] / "eval").glob("strategies-*.yaml"))


def test_there_are_suites() -> None:
    """Those that the documents name."""
    assert {path.stem for path in SUITES} == {
        "strategies-games",
        "strategies-ml-100k",
        "strategies-vllm",
        "strategies-vllm-sorts",
    }


@pytest.mark.parametrize("name", ["strategies-games", "strategies-ml-100k"])
def test_the_suites_of_the_embedded_model_hold_every_kind(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the one that needs a sentence, which their cases do not have."""
    monkeypatch.setenv("GAMES", "games")
    (path,) = (path for path in SUITES if path.stem == name)
    rankers = load_suite(path).rankers.values()
    assert {each["strategy"]["kind"] for each in rankers if "strategy" in each} == set(KINDS) - {"query-likelihood"}


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_each_ranker_of_a_suite_builds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option of every strategy is one that there is, and its prompt's template is one that it takes."""
    monkeypatch.setenv("GAMES", "games")
    rankers = load_suite(path).rankers
    built = [build_strategy(each["strategy"], each.get("prompt")) for each in rankers.values() if "baseline" not in each]
    assert built
    assert {strategy.name for strategy in built} <= set(KINDS)
