"""The suites that compare strategies and prompts can be run: each of them loads, and each ranker builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmrank.evaluation.suite import load_suite
from llmrank.lint import lint
from llmrank.strategy_kinds import KINDS, build_strategy
from llmrank.template import Templates

ROOT = Path(__file__).parents[2]
SUITES = [*sorted((ROOT / "eval").glob("strategies-*.yaml")), ROOT / "eval" / "tuning.yaml"]


def test_there_are_suites() -> None:
    """Those that the documents name."""
    assert {path.stem for path in SUITES} == {
        "strategies-games",
        "strategies-ml-100k",
        "strategies-vllm",
        "strategies-vllm-sorts",
        "tuning",
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
    monkeypatch.setenv("RUN", "run")
    monkeypatch.chdir(ROOT)  # the suites name folders of templates as who runs them from there does
    rankers = load_suite(path).rankers
    built = [build_strategy(each["strategy"], each.get("prompt")) for each in rankers.values() if "baseline" not in each]
    assert built
    assert {strategy.name for strategy in built} <= set(KINDS)


def test_the_templates_that_were_tried_have_no_error() -> None:
    """What the linter finds in `eval/prompts` are warnings at most: some of them show no history on purpose."""
    templates = Templates(ROOT / "eval" / "prompts")
    tried = set(templates.names()) - set(Templates().names())
    assert len(tried) == 11
    assert {finding.severity for name in tried for finding in lint(templates.get(name))} == {"warning"}
