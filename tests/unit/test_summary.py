"""The summary of a run: means and intervals, what it cost, how it is told apart, and what it does not know."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank.errors import ConfigError, RateLimitError, ServerError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.folder import Popularity, RunFolder
from llmrank.evaluation.measures import embedding
from llmrank.evaluation.measures.outcomes import per_case
from llmrank.evaluation.measures.proportions import wilson
from llmrank.evaluation.measures.statistics import bootstrap_means
from llmrank.evaluation.measures.summary import HISTORY_BINS, summarize, write_summary
from llmrank.types import Cut, Usage
from tests.unit.bag_embedder import BagEmbedder
from tests.unit.small_run import ranking, write_run

ITEMS = tuple("abcdefgh")


def many(count: int, *, users: int | None = None, seed: int = 0) -> list[Case]:
    """Cases of 4 candidates; each user has several if there are fewer users."""
    generator = random.Random(seed)  # noqa: S311  # made-up data
    cases = []
    for number in range(count):
        drawn = generator.sample(ITEMS, 4)
        history = tuple(generator.choices(ITEMS, k=number % 60))
        cases.append(Case(f"user {number % (users or count)}", history, tuple(drawn), (generator.choice(drawn),)))
    return cases


def shuffled(cases: list[Case], seed: int = 1) -> list[Any]:
    generator = random.Random(seed)  # noqa: S311  # made-up data
    return [ranking(case, generator.sample(case.candidates or (), 4)) for case in cases]


def only(folder: RunFolder, **options: Any) -> dict[str, Any]:
    """What is said of the run's one ranker."""
    (found,) = summarize(folder, **options)["rankers"].values()
    assert isinstance(found, dict)
    return found


def test_means_and_intervals_are_those_of_the_cases(tmp_path: Path) -> None:
    """Cases of one user are drawn together; numbers have 12 digits, so that they are the same on every machine."""
    cases = many(60, users=20)
    folder = write_run(tmp_path, cases, {"r": shuffled(cases)})
    found = only(folder)
    places = [[*each.order].index(each.question.relevant[0]) + 1 for each in per_case(folder, "r")]
    values = np.array([[1 / math.log2(place + 1), 1 / place] for place in places])
    assert found["metrics"] == {"ndcg@10": pytest.approx(values[:, 0].mean()), "mrr": pytest.approx(values[:, 1].mean())}
    intervals = bootstrap_means(values, [number % 20 for number in range(60)], resamples=200, seed=0)
    # Users are numbered in another order there, so other ones are drawn; the error is the same, and the ends nearly.
    for column, name in enumerate(found["ci"]):
        low, high = found["ci"][name]
        assert low == pytest.approx(intervals.low[column], abs=intervals.error[column] / 2)
        assert high == pytest.approx(intervals.high[column], abs=intervals.error[column] / 2)
    assert found["metrics"]["mrr"] == float(f"{values[:, 1].mean():.12g}")


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    """Also when it was moved; and what is written is what is returned."""
    cases = many(30)
    texts = []
    for name in ("here", "there"):
        folder = write_run(tmp_path / name, cases, {"r": shuffled(cases), "s": shuffled(cases, 2)})
        returned = write_summary(folder)
        texts.append((tmp_path / name / "summary.json").read_bytes())
        assert folder.summary == returned
    assert texts[0] == texts[1]


def test_what_the_suite_asked_stands_above(tmp_path: Path) -> None:
    """Protocol, seed, failures, intervals and notes; and what chance would reach."""
    cases = many(10)
    folder = write_run(tmp_path, cases, {"r": shuffled(cases)}, notes=["a user occurs twice"], seed=3, confidence=0.9)
    found = summarize(folder)
    assert {key: found[key] for key in found if key not in ("rankers", "chance")} == {
        "protocol": "made by hand",
        "cases": 10,
        "planned": 10,
        "seed": 3,
        "primary": "ndcg@10",
        "failures": "fallback",
        "confidence": 0.9,
        "resamples": 200,
        "notes": ["a user occurs twice"],
        "memorization": None,
    }
    assert found["chance"]["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_a_run_under_way_says_what_is_missing(tmp_path: Path) -> None:
    """Each ranker is measured on what it has, and a note names those that lack something; one may have nothing yet."""
    cases = many(10)
    folder = write_run(tmp_path, cases, {"all": shuffled(cases), "some": shuffled(cases)[:4], "none": []})
    found = summarize(folder)
    assert found["cases"] == 0
    assert [each["cases"] for each in found["rankers"].values()] == [10, 4, 0]
    assert len(found["notes"]) == 2
    assert "some has ranked 4 of 10" in found["notes"][0]
    nothing = found["rankers"]["none"]
    assert nothing["metrics"] == {"ndcg@10": None, "mrr": None}
    assert nothing["ci"] == {"ndcg@10": None, "mrr": None}
    for name in ("latency", "answers", "position_bias", "stability"):
        assert nothing[name] is None
    assert nothing["by_history"] == []
    assert nothing["usage"]["usd"] == 0.0


def test_statuses_errors_and_answers_are_counted(tmp_path: Path) -> None:
    """Every status is there, also those that did not occur. Shares are of the four cases with an answer."""
    case = Case("u", (), tuple("abcd"), ("a",))
    made = [
        ranking(case, "abcd"),
        ranking(case, "abcd", "repaired", repairs=("two labels stood twice",), invented=("Z", "Y")),
        ranking(case, "abcd", "partial", by_model=2, error=RateLimitError("429: slow")),
        ranking(case, "abcd", "fallback", cut=Cut(history=3)),
        ranking(case, "abcd", "error", error=ServerError("502: bad: gateway")),
    ]
    found = only(write_run(tmp_path, [case] * 5, {"r": made}))
    assert found["status"] == {"ok": 1, "repaired": 1, "partial": 1, "fallback": 1, "error": 1}
    assert found["errors"] == {"RateLimitError": 1, "ServerError": 1}
    assert found["answers"] == {
        "repaired_cases": 0.25,
        "filled_cases": 0.5,
        "filled_items": 1.5,
        "invented_cases": 0.25,
        "invented_items": 0.5,
        "cut_cases": 0.25,
        "cut_history_items": 0.75,
    }


def test_money_is_known_or_it_is_not(tmp_path: Path) -> None:
    """Prices of the suite come first; one unknown model makes the sum unknown, never smaller. No call costs nothing."""
    case = Case("u", (), tuple("ab"), ("a",))
    priced = [ranking(case, "ab", model="x", usage=Usage(1_000_000, 100_000, 0, 1)) for _ in range(2)]
    rankers = {
        "priced": priced,
        "unknown": [priced[0], ranking(case, "ab", model="y")],
        "free": [ranking(case, "ab", model="", strategy="random", usage=Usage())] * 2,
    }
    folder = write_run(tmp_path, [case] * 2, rankers, suite={"prices": {"x": {"input": 2.0, "output": 8.0}}})
    found = summarize(folder)["rankers"]
    assert [each["usage"]["usd"] for each in found.values()] == [pytest.approx(5.6), None, 0.0]
    assert [each["model"] for each in found.values()] == ["x", "x, y", ""]
    assert found["free"]["latency"] is None
    own = summarize(folder, cost=lambda model, usage, batch: 1.0 + usage["calls"])["rankers"]
    assert [each["usage"]["usd"] for each in own.values()] == [3.0, 4.0, 0.0]


def test_a_failure_costs_time_and_no_money(tmp_path: Path) -> None:
    """Retries and seconds of cases without an answer are in the sums; the name that was asked for needs no price."""
    case = Case("u", (), tuple("ab"), ("a",))
    lost = ranking(case, "ab", "error", model="x", error=ServerError("502"), usage=Usage(retries=1, seconds=2.0))
    told = ranking(case, "ab", model="x-2025-04-14", usage=Usage(1_000_000, 0, 0, 1, retries=2, seconds=1.0))
    prices = {"prices": {"x-2025-04-14": {"input": 2.0, "output": 8.0}}}
    usage = only(write_run(tmp_path, [case] * 2, {"r": [told, lost]}, suite=prices))["usage"]
    assert (usage["calls"], usage["retries"], usage["seconds"], usage["usd"]) == (1, 3, 3.0, 2.0)


def test_a_model_of_ones_own_sends_no_bill(tmp_path: Path) -> None:
    """The kind of the backend says so."""
    cases = many(2)
    assert only(write_run(tmp_path, cases, {"r": shuffled(cases)}, kind="vllm"))["usage"]["usd"] == 0.0
    assert only(write_run(tmp_path, cases, {"r": shuffled(cases)}, kind="openai"))["usage"]["usd"] is None


def test_usage_is_summed_and_latency_has_exact_percentiles(tmp_path: Path) -> None:
    """Over all cases that were asked about: one that failed counts as long as it was waited for."""
    case = Case("u", (), tuple("ab"), ("a",))
    seconds = [0.1, 0.2, 0.4, 5.0]
    made = [ranking(case, "ab", usage=Usage(10, 2, 4, 1, 0, 1, each)) for each in seconds]
    made = [type(each)(**{**fields(each), "latency": value}) for each, value in zip(made, seconds, strict=True)]
    found = only(write_run(tmp_path, [case] * 5, {"r": [*made, ranking(case, "ab", "error", error=ServerError("x"))]}))
    seconds.append(0.5)  # the failure's
    assert found["usage"] == {
        "prompt_tokens": 40,
        "completion_tokens": 8,
        "cached_tokens": 16,
        "calls": 4,
        "cache_hits": 0,
        "retries": 4,
        "seconds": 5.7,
        "usd": None,
    }
    assert found["latency"] == {
        "mean": 1.24,
        "p50": 0.4,
        "p95": pytest.approx(np.percentile(seconds, 95)),
        "p99": pytest.approx(np.percentile(seconds, 99)),
    }


def fields(each: Any) -> dict[str, Any]:
    """All of a Ranking."""
    return {name: getattr(each, name) for name in each.__dataclass_fields__}


def test_two_perfect_cases_are_not_certain(tmp_path: Path) -> None:
    """Two users, all found first: their mean is 1, and the interval that of 2 of 2; in bins of histories too."""
    cases = many(4, users=2)
    perfect = [ranking(case, [*case.relevant, *sorted({*(case.candidates or ())} - {*case.relevant})]) for case in cases]
    found = only(write_run(tmp_path, cases, {"r": perfect}))
    assert (found["cases"], found["users"], found["metrics"]["ndcg@10"]) == (4, 2, 1.0)
    assert found["ci"]["ndcg@10"] == pytest.approx(list(wilson(2, 2)))
    assert all(each["ci"] is None or each["ci"][0] < 0.5 for each in found["by_history"])


def test_histories_are_told_apart_by_length(tmp_path: Path) -> None:
    """Only lengths that occur; every case is in one bin, and the last has no end."""
    cases = many(120)
    found = only(write_run(tmp_path, cases, {"r": shuffled(cases)}))["by_history"]
    assert [(each["from"], each["to"]) for each in found] == list(HISTORY_BINS)
    assert sum(each["cases"] for each in found) == 120
    assert [each["cases"] for each in found] == [2, 2, 2, 6, 10, 20, 60, 18]
    few = only(write_run(tmp_path / "few", cases[:1], {"r": shuffled(cases[:1])}))["by_history"]
    assert [(each["from"], each["to"], each["cases"], each["ci"]) for each in few] == [(0, 0, 1, None)]


def with_prefilter(folder: RunFolder, **sections: Any) -> RunFolder:
    """The run as if these were its rankers' prefilters."""
    manifest = folder.manifest
    for name, section in sections.items():
        manifest["rankers"][name]["config"]["prefilter"] = section
    (folder.path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return RunFolder(folder.path)


def test_a_prefilter_has_the_recall_of_what_it_lets_through(tmp_path: Path) -> None:
    """Relevant items among those shown, whatever order came of it, failures included; a refused request let through nothing."""
    cases = [
        Case("u", ("h",), ("a", "b", "c", "d"), ("a", "b")),
        Case("v", ("h",), None, ("c",)),
        Case("w", ("h",), None, ("d",)),
        Case("x", ("h",), None, ("e",)),
    ]
    made = [
        ranking(cases[0], ["c", "a"], shown=["a", "c"]),
        ranking(cases[1], ["d", "c"], shown=["d", "c"]),
        ranking(cases[2], ["d", "a"], "error", shown=["d", "a"], error=ServerError("down")),
        ranking(cases[3], [], "error", shown=[], error=ServerError("down")),
    ]
    folder = write_run(tmp_path, cases, {"r": made, "plain": made, "default": []})
    found = summarize(with_prefilter(folder, r={"keep": 2}, plain=None, default={}))["rankers"]
    assert found["r"]["prefilter"]["keep"] == 2
    assert found["r"]["prefilter"]["recall"] == pytest.approx((1 / 2 + 1 + 1 + 0) / 4)
    low, high = found["r"]["prefilter"]["ci"]
    assert 0 <= low < 0.625 < high <= 1
    assert found["plain"]["prefilter"] is None
    assert found["default"]["prefilter"] == {"keep": 20, "recall": None, "ci": None}


def test_measures_of_the_run_have_a_value_and_no_interval(tmp_path: Path) -> None:
    """Coverage and the others, in the suite's order; a measure that is nowhere defined is unknown."""
    case = Case("u", ("a",), tuple("abcd"), ("a",))
    names = ["coverage@2", "ndcg@10", "popularity_lift@1", "gini@1", "diversity@1"]
    folder = write_run(
        tmp_path,
        [case, Case("v", (), tuple("abcd"), ("b",))],
        {"r": [ranking(case, "abcd"), ranking(Case("v", (), tuple("abcd"), ("b",)), "cdab")]},
        metrics=names,
        popularity=Popularity(9, Counter({"a": 4, "b": 2})),
    )
    found = only(folder, embedder=BagEmbedder())
    assert list(found["metrics"]) == names
    assert found["metrics"]["coverage@2"] == 0.5
    assert found["metrics"]["popularity_lift@1"] == 0.0
    assert found["metrics"]["diversity@1"] is None
    assert [found["ci"][name] for name in names if name != "ndcg@10"] == [None] * 4


def test_an_embedder_is_made_only_when_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the suite's section, for the fields it names, and closed in the end."""
    made: list[Closing] = []

    class Closing(BagEmbedder):
        closed = False

        def close(self) -> None:
            self.closed = True

    def build(section: dict[str, Any]) -> Closing:
        assert section == {"kind": "wordllama", "dimension": 64}
        made.append(Closing())
        return made[-1]

    monkeypatch.setattr(embedding, "build_embedder", build)
    cases = many(3)
    suite = {"embedder": {"kind": "wordllama", "dimension": 64, "fields": ["title"]}}
    summarize(write_run(tmp_path / "a", cases, {"r": shuffled(cases)}, suite=suite))
    assert made == []
    found = only(write_run(tmp_path / "b", cases, {"r": shuffled(cases)}, suite=suite, metrics=["ndcg@10", "diversity@2"]))
    assert found["metrics"]["diversity@2"] == pytest.approx(0.5, abs=1e-6)
    assert made[0].closed


def test_a_measure_that_cannot_decide_is_refused(tmp_path: Path) -> None:
    """The primary one must have a value for each case."""
    cases = many(3)
    with pytest.raises(ConfigError, match="primary"):
        summarize(write_run(tmp_path, cases, {"r": shuffled(cases)}, metrics=["coverage@2"], primary="coverage@2"))


def test_shuffled_candidates_and_the_probe_are_part_of_it(tmp_path: Path) -> None:
    """Stability is None for a ranker that was not asked again."""
    cases = many(4)
    made = shuffled(cases)
    folder = write_run(tmp_path, cases, {"r": made, "s": made}, stability={"r": [(1, made[1]), (3, made[3])]})
    (tmp_path / "memorization.json").write_text('{"r": {"method": "score"}}', encoding="utf-8")
    found = summarize(folder)
    assert found["rankers"]["r"]["stability"]["cases"] == 2
    assert found["rankers"]["r"]["stability"]["kendall_tau"] == 1.0
    assert found["rankers"]["s"]["stability"] is None
    assert found["memorization"] == {"r": {"method": "score"}}


def test_any_text_may_stand_in_a_case(tmp_path: Path) -> None:
    """Half a surrogate pair, NUL, quotes: the file is UTF-8 and JSON all the same."""
    case = Case('half \ud83d "\x00', (), tuple("ab"), ("a",))
    folder = write_run(tmp_path, [case] * 2, {"r": [ranking(case, "ab"), ranking(case, "ba", model='m"\u2028\ud83d')]})
    write_summary(folder)
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["rankers"]["r"]
    assert (found["cases"], found["model"]) == (2, 'a-model, m"\u2028\ufffd')


def test_memory_does_not_grow_with_what_a_case_holds(tmp_path: Path) -> None:
    """Between 20 and 120 cases of 200 candidates it grows by less than a tenth of what the parsed results take."""
    peaks = []
    for count in (20, 120):
        names = tuple(f"item {number}" for number in range(200))
        case = Case("u", (), names, names[:1])
        folder = write_run(tmp_path / str(count), [case] * count, {"r": [ranking(case, names)] * count}, resamples=100)
        summarize(folder)  # what is imported and compiled at first use
        tracemalloc.start()
        try:
            summarize(folder)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    record = 200 * 400  # a dict of four entries takes more than that for each item
    assert (peaks[1] - peaks[0]) / 100 < record / 10
