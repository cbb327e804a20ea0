"""`eval/simulate.py` with few experiments: each part runs, and nothing is far from what it is to be."""

from __future__ import annotations

import importlib
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EVAL = Path(__file__).parents[2] / "eval"


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, int], dict[str, float]]:
    """Runs one simulation; its figures by what they are of."""
    monkeypatch.syspath_prepend(str(EVAL))

    def run(module: str, name: str, experiments: int) -> dict[str, float]:
        rows = getattr(importlib.import_module(f"simulations.{module}"), name)(experiments, 1)
        return {row.what: row.value for row in rows}

    return run


def of(figures: dict[str, float], *parts: str) -> list[float]:
    """The figures whose names have all of these parts; at least one."""
    found = [value for what, value in figures.items() if all(part in what for part in parts)]
    assert found, parts
    return found


def test_users_are_what_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means of simulated users are the exact ones; effects come back from differences; two variants go together."""
    monkeypatch.syspath_prepend(str(EVAL))
    users: Any = importlib.import_module("simulations.users")
    effect = users.effect_of(0.05)
    assert users.true_difference(effect) == pytest.approx(0.05, abs=1e-9)
    values = users.ndcg(np.random.default_rng(1), (200_000,), (0.0, effect))
    assert values.mean(axis=0) == pytest.approx([users.true_mean(0.0), users.true_mean(0.0) + 0.05], abs=0.003)
    assert 0.5 < np.corrcoef(values.T)[0, 1] < 0.8


def test_one_test_of_a_fixed_sample(simulated: Any) -> None:
    """About 5 % false positives, repeats of a user counted as one; intervals hold; the forecast power is reached."""
    found = simulated("fixed", "false_positives", 200)
    for rate in (*of(found, "0 users: p"), *of(found, "flipped whole")):
        assert 0.01 < rate < 0.10
    assert of(found, "repeats taken for users")[0] > 0.10
    for rate in simulated("fixed", "coverage", 200).values():
        assert 0.89 < rate < 0.99
    for rate in simulated("fixed", "power", 200).values():
        assert 0.68 < rate < 0.92


def test_many_tests(simulated: Any) -> None:
    """Holm keeps the family's error, Benjamini and Hochberg the share of false findings; nothing does without."""
    found = simulated("fixed", "many_variants", 150)
    assert max(of(found, "any false finding by Holm")) < 0.11
    assert of(found, "all as the control", "without")[0] > 0.12
    measures = simulated("fixed", "many_measures", 100)
    assert of(measures, "Benjamini")[0] < 0.10 < of(measures, "without")[0] + 0.05


def test_looking_at_any_time(simulated: Any) -> None:
    """The t-test alarms several times too often, the always-valid ones do not, and they hold what is true."""
    for name in ("false_alarms", "false_alarms_online"):
        found = simulated("peeking", name, 100)
        assert max(of(found, "A/A", "always-valid")) < 0.10
        assert of(found, "-test at")[0] > 0.15
    assert min(simulated("peeking", "coverage", 100).values()) > 0.88
    price = simulated("peeking", "price", 30)
    assert 1.2 < of(price, "width")[0] < 2.0
    assert of(price, "80th percentile")[0] > of(price, "fixed sample")[0]


def test_guardrails_at_their_margin(simulated: Any) -> None:
    """What is worse by the margin is seldom said to be kept; without a failure the bootstrap would say so too often."""
    assert max(simulated("guardrails", "at_the_margin", 40).values()) < 0.2
    found = simulated("guardrails", "failures", 40)
    assert max(of(found, "by the score")) < 0.2
    assert of(found, "0 % and 2 points", "bootstrap")[0] > of(found, "0 % and 2 points", "score")[0]
    assert max(simulated("guardrails", "catalogue", 40).values()) < 0.2


def test_guardrails_under_looks(simulated: Any) -> None:
    """At eight looks, what is worse by the margin is seldom said to be kept, but by a bound for a fixed sample it is."""
    found = simulated("guardrails", "under_looks", 40)
    assert len(of(found, "fixed sample")) == 1
    assert max(rate for what, rate in found.items() if "fixed sample" not in what) <= 0.1
    assert of(found, "fixed sample")[0] > max(of(found, "NDCG@10", "bets"))


def test_two_groups(simulated: Any) -> None:
    """About 5 % for each metric, but not for impressions taken for independent; missing users are noticed."""
    found = simulated("online", "groups", 200)
    for what in ("Welch", "score test", "delta method", "CUPED: p"):
        assert 0.01 < of(found, what)[0] < 0.11
    assert of(found, "independent")[0] > 0.12
    assert of(found, "holds it")[0] > 0.89
    ratios = simulated("online", "sample_ratio", 200)
    assert of(ratios, "none missing")[0] < 0.005
    assert of(ratios, "200,000")[0] > 0.8


def test_interleaving_needs_fewer_users(simulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than A/B in most worlds, far fewer where users differ, and about 5 % false findings.

    Of so few users the figures where users are alike are mostly noise; `eval/simulate.py` has them of as many as it takes.
    """
    monkeypatch.syspath_prepend(str(EVAL))
    monkeypatch.setattr(importlib.import_module("simulations.online"), "POOL", 4000)
    found = simulated("online", "interleaving", 20)
    assert statistics.median(of(found, "times fewer")) > 1.2
    assert max(of(found, "users who differ", "times fewer")) > 5
    assert of(found, "equal rankers")[0] < 0.3


def test_halving_loses_less(simulated: Any) -> None:
    """At the same budget, the prompt that halving chooses is nearer to the best; its own mean flatters it."""
    found = simulated("races", "halving", 100)
    assert all(gap < 0 for gap in of(found, "paired"))
    assert sum(of(found, "beyond its true")) > 0


def test_figures_are_printed_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares in percent, numbers as they are, each with its standard error where it has one."""
    monkeypatch.syspath_prepend(str(EVAL))
    rows: Any = importlib.import_module("simulations.rows")
    assert rows.share("a", [True, False, False, False], "5 %").cells() == ("a", "25.0 +- 21.7 %", "5 %")
    assert rows.mean("b", [1.0, 3.0], digits=2).cells() == ("b", "2.00 +- 1.00", "")
    assert rows.table([rows.Row("c", 1234.0, math.nan, "", False, 0)]).splitlines()[-1] == "| c | 1,234 |  |"
