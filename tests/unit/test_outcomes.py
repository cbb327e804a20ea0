"""What each case counts: the order, the failures, and results that are not of this run."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ConfigError, DatasetError, RequestError, ServerError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.folder import Popularity, RunFolder
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.measures.outcomes import known_of, measures_of, per_case
from llmrank.types import Ranking, Status
from tests.unit.bag_embedder import BagEmbedder
from tests.unit.small_run import ranking, write_run

CASES = [
    Case("one", ("h",), tuple("abcd"), ("a",)),
    Case("two", (), tuple("bcda"), ("d",)),
    Case("three", (), None, ("c",)),
]


def edit(folder: RunFolder, number: int, **changes: Any) -> None:
    """Changes one line of the results of `r`."""
    path = folder.results_path("r")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines[number] |= changes
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_each_result_meets_its_case(tmp_path: Path) -> None:
    """In order, with the order as ranked, and every measure of a case by its name; a run that is under way has fewer."""
    folder = write_run(tmp_path, CASES, {"r": [ranking(CASES[0], "ba"), ranking(CASES[1], "dabc")]})
    found = list(per_case(folder, "r"))
    assert [(each.case, each.user_id, each.status, "".join(each.order)) for each in found] == [
        (0, "one", "ok", "ba"),
        (1, "two", "ok", "dabc"),
    ]
    assert found[0].values == {"ndcg@10": pytest.approx(1 / math.log2(3)), "mrr": 0.5}
    assert found[1].question == CASES[1]


def failures() -> list[Ranking]:
    """An answer that could not be read, and none at all: each falls back to the order shown."""
    return [
        ranking(CASES[0], "abcd", "fallback"),
        ranking(CASES[1], "bcda", "error", error=ServerError("502")),
    ]


def test_failures_count_with_the_order_that_they_fell_back_to(tmp_path: Path) -> None:
    """Nothing is left out: the first finds its item at place 1, the second at 3."""
    folder = write_run(tmp_path, CASES, {"r": failures()}, failures="fallback")
    assert [each.values["mrr"] for each in per_case(folder, "r")] == [1.0, pytest.approx(1 / 3)]
    assert [each.failed for each in per_case(folder, "r")] == [True, True]


def test_failures_may_count_as_worst(tmp_path: Path) -> None:
    """Then all measures of relevance are 0, and those of lists still see what a user would. An answer in part is no failure."""
    partial = ranking(CASES[0], "abcd", "partial", by_model=1)
    chosen = Popularity(3, Counter("aab"))
    folder = write_run(
        tmp_path,
        CASES[:2] + CASES[:1],
        {"r": [*failures(), partial]},
        failures="worst",
        metrics=["mrr", "hit@10", "popularity@1"],
        popularity=chosen,
    )
    assert [each.values for each in per_case(folder, "r")] == [
        {"mrr": 0.0, "hit@10": 0.0, "popularity@1": 2.0},
        {"mrr": 0.0, "hit@10": 0.0, "popularity@1": 1.0},
        {"mrr": 1.0, "hit@10": 1.0, "popularity@1": 2.0},
    ]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(get_args(Status)), st.permutations("abcd")), max_size=12))
def test_nothing_is_left_out(made: list[tuple[Status, list[str]]]) -> None:
    """Whatever the statuses, each case counts; what counts as worst differs from the order fallen back to only there."""
    cases = [CASES[0]] * len(made)
    rankings = [ranking(CASES[0], order, status) for status, order in made]
    found = {}
    for mode in ("fallback", "worst"):
        with TemporaryDirectory() as path:
            found[mode] = list(per_case(write_run(Path(path), cases, {"r": rankings}, failures=mode), "r"))
    assert [each.case for each in found["fallback"]] == [each.case for each in found["worst"]] == list(range(len(made)))
    for lenient, strict in zip(found["fallback"], found["worst"], strict=True):
        assert lenient.values["mrr"] == 1 / ([*lenient.order].index("a") + 1)
        assert strict.values["mrr"] == (0.0 if strict.status in ("fallback", "error") else lenient.values["mrr"])


def test_a_request_that_could_not_be_ranked_counts_its_candidates_as_given(tmp_path: Path) -> None:
    """There is no order at all then; of a whole catalogue it is the catalogue's."""
    lost = [Ranking((), "error", error=RequestError("no"), user_id=case.user_id) for case in CASES]
    folder = write_run(tmp_path, CASES, {"r": lost})
    found = list(per_case(folder, "r"))
    assert ["".join(each.order) for each in found] == ["abcd", "bcda", "abcdefgh"]
    assert [each.values["mrr"] for each in found] == [1.0, pytest.approx(1 / 3), pytest.approx(1 / 3)]


def test_results_of_another_run_are_refused(tmp_path: Path) -> None:
    """A wrong user, a case twice, out of order or beyond the end: never a number from them."""
    made = [ranking(CASES[0], "abcd"), ranking(CASES[1], "abcd")]
    slips: list[dict[str, Any]] = [{"user_id": "somebody"}, {"case": 0}, {"case": 7}, {"case": None}, {"case": "1"}]
    for number, changes in enumerate(slips):
        folder = write_run(tmp_path / str(number), CASES, {"r": made})
        edit(folder, 1, **changes)
        with pytest.raises(DatasetError, match=r"r\.jsonl.*new folder"):
            list(per_case(folder, "r"))


def test_a_line_without_a_ranking_is_refused(tmp_path: Path) -> None:
    """Half a record would otherwise end in a KeyError."""
    folder = write_run(tmp_path, CASES, {"r": [ranking(CASES[0], "abcd")]})
    folder.results_path("r").write_text('{"case": 0, "user_id": "one"}\n', encoding="utf-8")
    with pytest.raises(DatasetError, match="case 0"):
        list(per_case(folder, "r"))


def test_measures_that_need_an_embedder_wait_for_one(tmp_path: Path) -> None:
    """Without one they are left out, which `measures_of` tells; with one they are there."""
    folder = write_run(tmp_path, CASES, {"r": [ranking(CASES[0], "ab")]}, metrics=["mrr", "diversity@2", "coverage@2"])
    assert [each.name for each in measures_of(folder)] == ["mrr", "coverage@2"]
    assert list(next(per_case(folder, "r")).values) == ["mrr"]
    known = known_of(folder, BagEmbedder())
    assert [each.name for each in measures_of(folder, known)] == ["mrr", "diversity@2", "coverage@2"]
    assert next(per_case(folder, "r", known=known)).values == {"mrr": 1.0, "diversity@2": pytest.approx(0.5, abs=1e-6)}
    with pytest.raises(ConfigError, match="embedder"):
        measures_of(folder, known_of(folder))


def test_any_measures_may_be_asked_for(tmp_path: Path) -> None:
    """Also those that the suite does not name."""
    folder = write_run(tmp_path, CASES, {"r": [ranking(CASES[0], "bacd")]})
    assert next(per_case(folder, "r", [parse_measure("hit@1")])).values == {"hit@1": 0.0}
