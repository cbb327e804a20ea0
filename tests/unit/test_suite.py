"""Suites: what a file may say, and the one clear error for what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmrank.errors import ConfigError
from llmrank.evaluation.suite import load_suite

MINIMAL: dict[str, Any] = {
    "items": "items.jsonl",
    "cases": "cases.jsonl",
    "rankers": {"popularity": {"baseline": "popularity"}},
}


def test_a_case_file_means_given_cases_and_candidates() -> None:
    """With `cases` and no protocol, cases and candidates are taken as given; the first metric is the primary one."""
    suite = load_suite({**MINIMAL, "metrics": ["NDCG@5", "mrr", "ndcg@5"]})
    assert (suite.protocol.split, suite.protocol.source) == ("given", "given")
    assert suite.metrics == ("ndcg@5", "mrr")
    assert suite.primary == "ndcg@5"


def test_a_file_is_read_with_paths_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data paths are relative to the suite file, variables are filled in, rankers may be files of their own."""
    monkeypatch.setenv("GAMES", "/data/games")
    (tmp_path / "small.yaml").write_text("backend: {kind: local}\n", encoding="utf-8")
    path = tmp_path / "suite.yaml"
    path.write_text(
        "items: items.jsonl\ninteractions: ${GAMES}/log.csv\nrankers: {small: small.yaml}\n"
        "protocol: {split: temporal, cut: 0.9, candidates: {n: 7}}\nstability: {cases: 3}\n",
        encoding="utf-8",
    )
    suite = load_suite(path)
    assert suite.items == str(tmp_path / "items.jsonl")
    assert suite.interactions == "/data/games/log.csv"
    assert suite.rankers == {"small": {"backend": {"kind": "local"}}}
    assert (suite.protocol.split, suite.protocol.cut, suite.protocol.candidates.n) == ("temporal", 0.9, 7)
    assert suite.stability is not None
    assert (suite.stability.cases, suite.stability.shuffles) == (3, 2)


def test_a_suite_is_json() -> None:
    """What the manifest keeps of a suite reads back as the same suite."""
    suite = load_suite({**MINIMAL, "memorization": {"titles": 5}, "prices": {"m": {"input": 1.0, "output": 2.0}}})
    assert load_suite(suite.as_dict()) == suite


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"itmes": "x"}, "itmes: unknown key; did you mean 'items'"),
        (
            {"protocol": {"split": "given", "candidates": {"source": "full"}}, "stability": {"cases": 2}},
            "stability: needs lists",
        ),
        ({"rankers": {}}, "rankers: names no ranker"),
        ({"rankers": None}, "rankers: is missing"),
        ({"rankers": {"a/b": {"baseline": "random"}}}, "becomes a file's"),
        ({"rankers": {"a": {"baseline": "random"}, "A": {"baseline": "random"}}}, "differ in case only"),
        ({"rankers": {"a": {"strategy": {}}}}, "rankers.a: is neither a ranker nor a baseline"),
        ({"rankers": {"a": "none.yaml"}}, "rankers.a: cannot be read"),
        ({"metrics": ["ndgc@10"]}, "did you mean 'ndcg'"),
        ({"metrics": []}, "metrics: names no measure"),
        ({"metrics": ["mrr"], "primary": "ndcg@10"}, "primary: is not among the metrics"),
        ({"protocol": {"split": "leave-one-out"}}, "protocol"),
        ({"protocol": {"candidates": {"form": "sampled"}}}, "protocol.candidates.form: unknown key"),
        ({"protocol": 5}, "protocol: must be a mapping"),
        ({"confidence": 95}, "confidence: must be from 0.5"),
        ({"resamples": 5}, "resamples: must be from 100"),
        ({"failures": "drop"}, "failures"),
        ({"seed": "7"}, "seed"),
        ({"stability": {"cases": 0}}, "stability.cases: must be at least 1"),
        ({"memorization": {"titles": -1}}, "memorization.titles: must be at least 0"),
        ({"dataset": "ml-100k"}, "items: is given twice"),
        ({"items": None, "cases": None, "dataset": "ml-1m"}, "dataset: no such data set"),
        ({"items": "${LLMRANK_NOT_SET}/x.jsonl"}, "LLMRANK_NOT_SET is not set"),
    ],
)
def test_a_mistake_is_one_clear_error(change: dict[str, Any], message: str) -> None:
    """The message names the field and what to do."""
    with pytest.raises(ConfigError) as caught:
        load_suite({**MINIMAL, **change})
    assert message in str(caught.value)


def test_a_suite_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    """A list, a text, or a file that is not there is a ConfigError."""
    with pytest.raises(ConfigError, match="suite: must be a mapping"):
        load_suite([1, 2])  # type: ignore[arg-type]  # what a caller without a type checker may do
    with pytest.raises(ConfigError, match="suite: cannot be read"):
        load_suite(tmp_path / "none.yaml")
