"""What a run could show before it has run: from its users, not its cases, and from what a usual case is like."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures.detectable import ALIKE, SAMPLE, DetectableEffect, detectable_effect
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.measures.random_order import random_order_sd
from llmrank.evaluation.measures.statistics import minimum_detectable_effect, paired_differences, paired_sd

NDCG = parse_measure("ndcg@10")


def case(user: int, candidates: int | None = 20, relevant: tuple[str, ...] = ("0",)) -> Case:
    """A case with candidates 0, 1, ..."""
    return Case(f"u{user}", (), None if candidates is None else tuple(map(str, range(candidates))), relevant)


def found(cases: list[Case], measure: str = "ndcg@10") -> DetectableEffect:
    effect = detectable_effect(parse_measure(measure), iter(cases))
    assert effect is not None
    return effect


def test_both_figures_are_those_of_their_correlations() -> None:
    """200 users, 20 candidates, one relevant: 0.076 of NDCG@10 for rankers with nothing in common, 0.054 for alike ones."""
    effect = found([case(user) for user in range(200)])
    assert effect.users == 200
    assert effect.apart == pytest.approx(0.0759, abs=0.001)
    assert effect.alike == pytest.approx(0.054, abs=0.001)
    assert effect.alike == pytest.approx(effect.apart * (1 - ALIKE) ** 0.5)


def test_further_cases_of_the_same_users_show_no_more() -> None:
    """1,000 cases of 50 users are 50 users, in whatever order they stand."""
    many = [case(number % 50) for number in range(1000)]
    random.Random(0).shuffle(many)  # noqa: S311  # an order, no secret
    assert found(many) == found([case(user) for user in range(50)])


def test_the_usual_case_decides_and_not_the_first() -> None:
    """A first case with 1,000 candidates, or one without candidates, changes nothing; what is relevant must be a candidate."""
    usual = [case(user, 20, ("0", "1", "gone")) for user in range(1, 10)]
    sd = random_order_sd(NDCG, 20, 2)
    for first in (case(0, 1000), case(0, None), case(0, 20, ()), case(0, 20, ("gone",)), usual[0]):
        effect = found([first, *usual])
        assert effect.apart == pytest.approx(minimum_detectable_effect(paired_sd(sd, 0), effect.users))


def test_all_users_count_but_the_first_cases_say_what_a_case_is_like() -> None:
    """Cases beyond the sample add users only."""
    effect = found([*(case(user) for user in range(SAMPLE)), *(case(SAMPLE + user, 500) for user in range(3 * SAMPLE))])
    assert effect.users == 4 * SAMPLE
    assert effect.apart == pytest.approx(minimum_detectable_effect(paired_sd(random_order_sd(NDCG, 20), 0), 4 * SAMPLE))


@pytest.mark.parametrize(
    ("measure", "cases"),
    [
        ("novelty@10", [case(0)]),
        ("ndcg@10", []),
        ("ndcg@10", [case(0, None)]),
        ("ndcg@10", [case(0, 20, ("gone",))]),
    ],
)
def test_what_cannot_be_told_is_not_told(measure: str, cases: list[Case]) -> None:
    """No measure of relevance, no case, whole catalogues, nothing relevant among the candidates."""
    assert detectable_effect(parse_measure(measure), cases) is None


def test_the_difference_is_found_as_often_as_it_says() -> None:
    """Two rankers with independent random orders of 20, one of them better by the figure: found in about 80 % of 300 runs."""
    generator = np.random.default_rng(1)
    gains = np.array([1 / np.log2(place + 1) if place <= 10 else 0.0 for place in range(1, 21)])
    effect = found([case(user) for user in range(100)]).apart
    seen = 0
    for run in range(300):
        one, other = generator.choice(gains, size=(2, 100))
        (difference,) = paired_differences((one + effect)[:, None], other[:, None], resamples=100, permutations=199, seed=run)
        seen += difference.p <= 0.05
    # The standard deviation of such a share is 0.023.
    assert seen / 300 == pytest.approx(0.8, abs=4 * 0.023)


def test_cases_are_read_once_and_one_at_a_time() -> None:
    """A stream will do."""

    def stream() -> Iterator[Case]:
        yield from (case(user) for user in range(30))

    effect = detectable_effect(NDCG, stream())
    assert effect is not None
    assert effect.users == 30


def test_the_line_says_what_it_rests_on() -> None:
    """Both figures, users, power, level, correlation, and whose spread it is."""
    line = DetectableEffect(0.0759, 0.0537, 1200).line()
    for words in (
        "1,200 users",
        "power 80 %",
        "level 5 %",
        "0.076",
        "0.054",
        "correlation 0.5",
        "random order",
        "eval compare",
    ):
        assert words in line
