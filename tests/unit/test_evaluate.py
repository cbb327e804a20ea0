"""Evaluation runs: what they ask, keep, count and refuse, with a real server on the loopback."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from llmrank.errors import ConfigError, DatasetError, LLMRankError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.run import Evaluation, RunOptions, finish
from llmrank.evaluation.run import evaluate as evaluate_and_report
from tests.servers.picky import PickyServer, Reply, Request, completion, openai_error
from tests.unit import fake_retrievers
from tests.unit.bag_embedder import BagEmbedder
from tests.unit.small_suite import KEY, USD, labels, server, suite, write_data

pytestmark = pytest.mark.usefixtures("suite_key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the small suite's files."""
    write_data(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def backwards() -> Iterator[PickyServer]:
    """A server that ranks the candidates backwards."""
    with server() as running:
        yield running


def evaluate(asked: dict[str, Any], out: Path, options: RunOptions | None = None, *, dry_run: bool = False) -> Evaluation:
    """A run without its report, which takes seconds."""
    return evaluate_and_report(asked, out, replace(options or RunOptions(), report=False), dry_run=dry_run)


def numbers(folder: RunFolder, ranker: str = "model") -> list[int]:
    """The numbers of the cases that have a result."""
    return [record["case"] for record in folder.results(ranker)]


def test_a_run_ranks_every_case_with_every_ranker(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Each ranker has a result for each case in order; the summary has metrics, intervals, statuses and what it took."""
    done = evaluate(suite(data, backwards.url), tmp_path / "run")
    assert (done.planned, done.failures, done.stopped) == (12, 0, None)
    assert len(backwards.bodies) == 12
    for name in ("random", "popularity", "model"):
        assert numbers(done.folder, name) == list(range(12))
    assert done.summary is not None
    model = done.summary["rankers"]["model"]
    assert model["cases"] == 12
    assert model["status"]["ok"] == 12
    assert model["usage"]["prompt_tokens"] == 12 * 110
    assert model["usage"]["calls"] == 12
    assert model["usage"]["usd"] == pytest.approx(12 * USD)
    assert done.usd == pytest.approx(12 * USD)
    # Relevant items stand at places 1 to 6 in turn, the server turns the list around: each place is hit twice.
    assert model["metrics"]["hit@1"] == pytest.approx(2 / 12)
    low, high = model["ci"]["hit@1"]
    assert low < 2 / 12 < high
    assert json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8")) == done.summary


def test_every_table_names_the_protocol(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """The sentence that says how cases and candidates were made stands in manifest, summary and report."""
    done = evaluate_and_report(suite(data, backwards.url), tmp_path / "run")
    sentence = done.folder.manifest["protocol"]
    assert "12" in sentence
    assert done.summary is not None
    assert done.summary["protocol"] == sentence
    for name in ("report.md", "report.html"):
        assert sentence in (tmp_path / "run" / name).read_text(encoding="utf-8").replace("&#39;", "'")


def test_a_record_holds_what_was_asked_and_answered(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """With traces, a result has the prompt and the raw answer; without, it has neither."""
    done = evaluate(suite(data, backwards.url), tmp_path / "run")
    first = next(done.folder.results("model"))
    assert first["trace"][0]["text"].startswith("[")
    assert "Film 0" in first["trace"][0]["messages"][-1]["content"]
    assert first["shown"] == [f"i{7 + 3 * step}" for step in range(6)]
    bare = evaluate(suite(data, backwards.url, traces=False), tmp_path / "bare")
    assert "trace" not in next(bare.folder.results("model"))


def test_the_same_suite_again_asks_nothing(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """A complete run that is started again changes no file but by its own report, and sends no request."""
    evaluate(suite(data, backwards.url), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "results").iterdir()}
    summary = (tmp_path / "run" / "summary.json").read_bytes()
    evaluate(suite(data, backwards.url), tmp_path / "run")
    assert len(backwards.bodies) == 12
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "results").iterdir()} == before
    assert (tmp_path / "run" / "summary.json").read_bytes() == summary


def test_a_limit_is_the_beginning_of_the_whole(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Five cases, then all: the five are not asked again, and the end is as if there had been no limit."""
    few = evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(limit=5))
    assert few.summary is not None
    assert few.summary["rankers"]["model"]["cases"] == 5
    assert few.summary["planned"] == 12
    every = evaluate(suite(data, backwards.url), tmp_path / "run")
    assert len(backwards.bodies) == 12
    assert numbers(every.folder) == list(range(12))


def test_a_dry_run_asks_nothing(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """The forecast names calls, tokens and money for all cases; no request is sent and no result written."""
    done = evaluate(suite(data, backwards.url), tmp_path / "run", dry_run=True)
    assert done.summary is None
    assert not backwards.bodies
    forecast = done.forecasts["model"]
    assert forecast.calls == 12
    assert forecast.usd is not None
    assert forecast.usd > 0
    assert numbers(done.folder) == []


def test_a_forecast_is_of_what_is_left(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Cases that have a result are not forecast again."""
    evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(limit=9))
    assert evaluate(suite(data, backwards.url), tmp_path / "run", dry_run=True).forecasts["model"].calls == 3


def test_a_forecast_counts_shuffles(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """What `stability` asks is part of the forecast, and of what is left after an interruption."""
    asked = suite(data, backwards.url, stability={"cases": 3, "shuffles": 2})
    forecast = evaluate(asked, tmp_path / "run", dry_run=True).forecasts["model"]
    assert forecast.calls == 12 + 6
    assert any("6 of the requests" in each for each in forecast.assumptions)
    evaluate(asked, tmp_path / "run")
    assert len(backwards.bodies) == 18
    assert evaluate(asked, tmp_path / "run", dry_run=True).forecasts["model"].calls == 0


def test_a_budget_is_kept_and_a_larger_one_goes_on(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """No more is spent than the budget allows; what was ranked is summarised, and the run goes on where it was."""
    done = evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(budget_usd=4.5 * USD))
    assert done.stopped is not None
    assert "budget" in done.stopped
    assert 1 <= len(backwards.bodies) <= 4
    assert done.usd == pytest.approx(len(backwards.bodies) * USD)
    assert done.summary is not None
    assert done.summary["rankers"]["model"]["cases"] == len(backwards.bodies)
    rest = evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(budget_usd=100.0))
    assert rest.stopped is None
    assert rest.usd == pytest.approx(12 * USD)
    assert len(backwards.bodies) == 12


def test_a_budget_needs_a_price(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Without the model's price no budget can be kept: that is said before anything is asked."""
    with pytest.raises(ConfigError, match="price"):
        evaluate(suite(data, backwards.url, prices=None), tmp_path / "run", RunOptions(budget_usd=1.0))
    assert not backwards.bodies


def failing(user: str) -> Callable[[Request], Reply | None]:
    """A rule: the prompts that show a film get a server error."""

    def rule(request: Request) -> Reply | None:
        if request.path.endswith("/chat/completions") and user in request.body["messages"][-1]["content"]:
            return Reply({"error": {"message": "broken"}}, 500)
        return None

    return rule


@pytest.mark.parametrize(("failures", "expected"), [("fallback", 4), ("worst", 2)])
def test_failures_count(tmp_path: Path, data: Path, failures: str, expected: int) -> None:
    """A case without an answer counts with the order given, or 0, as the suite says; it is never left out."""
    # Cases 0, 3, 6 and 9 fail. The relevant item stands first in 0 and 6, where the given order hits; backwards hits in 5, 11.
    with server(failing("Film 16")) as broken:
        done = evaluate(suite(data, broken.url, failures=failures), tmp_path / "run")
    assert done.summary is not None
    model = done.summary["rankers"]["model"]
    assert model["cases"] == 12
    assert model["status"]["error"] == done.failures == 4
    assert sum(model["errors"].values()) == 4
    assert model["metrics"]["hit@1"] == pytest.approx(expected / 12)


def test_failures_can_be_asked_again(tmp_path: Path, data: Path) -> None:
    """`retry_errors` asks for the failed cases alone, and ends as a run without failures."""
    with server(failing("Film 13")) as broken:
        first = evaluate(suite(data, broken.url), tmp_path / "run")
        assert first.failures > 0
        broken.rules.pop(0)
        asked = len(broken.bodies)
        again = evaluate(suite(data, broken.url), tmp_path / "run")
        assert (again.failures, len(broken.bodies)) == (first.failures, asked)
        mended = evaluate(suite(data, broken.url), tmp_path / "run", RunOptions(retry_errors=True))
        assert len(broken.bodies) == asked + first.failures
        whole = evaluate(suite(data, broken.url), tmp_path / "whole")
    assert mended.failures == 0
    assert timeless(mended.summary) == timeless(whole.summary)
    assert [timeless(each) for each in mended.folder.results("model")] == [
        timeless(each) for each in whole.folder.results("model")
    ]


def timeless(value: Any) -> Any:
    """A JSON value without what depends on the clock."""
    if isinstance(value, dict):
        return {name: timeless(each) for name, each in value.items() if name not in {"seconds", "latency"}}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def test_a_wrong_key_is_no_result(tmp_path: Path, data: Path) -> None:
    """An error that every case would meet stops the run at once, and no case is counted as failed."""
    with server(lambda request: openai_error("Incorrect API key provided", code="invalid_api_key", status=401)) as closed:
        with pytest.raises(LLMRankError, match="AuthenticationError"):
            evaluate(suite(data, closed.url), tmp_path / "run")
        assert len(closed.bodies) <= 4
    assert numbers(RunFolder(tmp_path / "run")) == []
    assert numbers(RunFolder(tmp_path / "run"), "popularity") == list(range(12))


def test_an_account_that_runs_dry_stops_the_run(tmp_path: Path, data: Path) -> None:
    """What was ranked before stays and is summarised; when there is credit again, the run goes on."""
    credit = 5

    def account(request: Request) -> Reply | None:
        nonlocal credit
        if request.path.endswith("/chat/completions"):
            credit -= 1
            if credit < 0:
                return openai_error("You exceeded your current quota", code="insufficient_quota", status=429)
        return None

    with server(account) as poor:
        done = evaluate(suite(data, poor.url), tmp_path / "run")
        assert done.stopped is not None
        assert "QuotaError" in done.stopped
        assert done.summary is not None
        assert 4 <= done.summary["rankers"]["model"]["cases"] <= 5
        assert done.summary["rankers"]["model"]["status"]["error"] == 0
        credit = 100
        assert evaluate(suite(data, poor.url), tmp_path / "run").stopped is None
        assert credit == 100 - 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "`seed` changed"),
        ({"protocol": {"split": "given", "users": 5}}, "`protocol.users` changed"),
        ({"stability": {"cases": 2}}, "`stability` changed"),
        ({"traces": False}, "`traces` changed"),
    ],
)
def test_a_changed_suite_does_not_mix(
    tmp_path: Path, data: Path, backwards: PickyServer, change: dict[str, Any], message: str
) -> None:
    """What shapes results must stay: the error names it, and no file changes."""
    evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(limit=2))
    manifest = (tmp_path / "run" / "manifest.json").read_bytes()
    with pytest.raises(ConfigError) as caught:
        evaluate(suite(data, backwards.url, **change), tmp_path / "run")
    assert message in str(caught.value)
    assert (tmp_path / "run" / "manifest.json").read_bytes() == manifest


def test_changed_data_do_not_mix(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """A source with other bytes is refused, by name."""
    evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(limit=2))
    with (data / "cases.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"user_id": "new", "history": ["i1"], "candidates": ["i2"], "relevant": ["i2"]}\n')
    with pytest.raises(ConfigError, match="`cases` changed"):
        evaluate(suite(data, backwards.url), tmp_path / "run")


def test_a_changed_ranker_does_not_mix(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """A ranker of the same name with another setting, or another template text, is refused; the place is named."""
    asked = suite(data, backwards.url)
    templates = tmp_path / "prompts"
    (templates / "listwise").mkdir(parents=True)
    mine = templates / "listwise" / "mine.jinja"
    mine.write_text('{% extends "listwise/recency.jinja" %}', encoding="utf-8")
    asked["rankers"]["model"]["prompt"] = {"template": "listwise/mine", "directories": [str(templates)]}
    evaluate(asked, tmp_path / "run", RunOptions(limit=2))
    mine.write_text('{% extends "listwise/sequential.jinja" %}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"templates\.listwise/mine"):
        evaluate(asked, tmp_path / "run")
    mine.write_text('{% extends "listwise/recency.jinja" %}', encoding="utf-8")
    asked["rankers"]["model"]["prompt"]["history"] = 3
    with pytest.raises(ConfigError, match=r"config\.prompt\.history"):
        evaluate(asked, tmp_path / "run")


def test_other_metrics_and_more_rankers_are_welcome(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Metrics are measured anew from the results that are there; only a new ranker is asked."""
    evaluate(suite(data, backwards.url), tmp_path / "run")
    asked = suite(data, backwards.url, metrics=["mrr", "recall@2"])
    asked["rankers"]["given"] = {"baseline": "given"}
    done = evaluate(asked, tmp_path / "run")
    assert len(backwards.bodies) == 12
    assert done.summary is not None
    assert list(done.summary["rankers"]) == ["random", "popularity", "model", "given"]
    assert set(done.summary["rankers"]["model"]["metrics"]) == {"mrr", "recall@2"}


def test_two_rankers_that_ask_the_same_pay_once(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Equal prompts are paid for once; yet each ranker's usage says what it costs alone."""
    asked = suite(data, backwards.url)
    asked["rankers"]["twin"] = asked["rankers"]["model"]
    done = evaluate(asked, tmp_path / "run")
    assert len(backwards.bodies) == 12
    assert done.usd == pytest.approx(12 * USD)
    assert done.summary is not None
    assert done.summary["rankers"]["twin"]["usage"]["usd"] == pytest.approx(12 * USD)


def test_stability_asks_again_with_other_orders(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """The first cases are ranked again with shuffled candidates; a model that turns every list around is not stable."""
    done = evaluate(suite(data, backwards.url, stability={"cases": 3, "shuffles": 2}), tmp_path / "run")
    again = list(done.folder.stability("model"))
    assert [(each["case"], each["shuffle"]) for each in again] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    first = next(done.folder.results("model"))
    assert sorted(again[0]["shown"]) == sorted(first["shown"])
    assert again[0]["shown"] != first["shown"]
    assert done.summary is not None
    stability = done.summary["rankers"]["model"]["stability"]
    assert (stability["cases"], stability["shuffles"]) == (3, 2)
    assert stability["kendall_tau"] < 0.9
    assert done.summary["rankers"]["random"]["stability"] is None


def test_no_secret_reaches_the_folder(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """The key is in no file of a run."""
    evaluate(suite(data, backwards.url), tmp_path / "run")
    assert any(request.headers.get("authorization") == f"Bearer {KEY}" for request in backwards.requests)
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def test_a_folder_holds_one_run_at_a_time(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """A second process is refused while the first is at work."""
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(DatasetError, match="another run"):
        evaluate(suite(data, backwards.url), tmp_path / "run")


def test_results_of_a_run_that_was_moved_are_measured_anew(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """A run's folder is whole: without the sources, elsewhere, it gives the same summary."""
    done = evaluate(suite(data, backwards.url), tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    for path in data.iterdir():
        path.unlink()
    assert finish(RunFolder(moved), report=False) == done.summary


def test_a_folder_without_a_run_is_one_clear_error(tmp_path: Path) -> None:
    """Neither a missing folder nor an empty one is a traceback."""
    with pytest.raises(DatasetError, match="no manifest"):
        finish(RunFolder(tmp_path / "none"))


def test_a_dropped_ranker_does_not_come_back_as_another(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """A ranker that was left out for a while keeps its results: changed it is refused, as it was it goes on."""
    asked = suite(data, backwards.url)
    evaluate(asked, tmp_path / "run")
    without = {**asked, "rankers": {"popularity": {"baseline": "popularity"}}}
    done = evaluate(without, tmp_path / "run")
    assert list((done.summary or {})["rankers"]) == ["popularity"]
    assert "ranker 'model' is no longer asked for" in done.changes
    other = copy.deepcopy(asked)
    other["rankers"]["model"]["backend"]["model"] = "picky-2"
    with pytest.raises(ConfigError, match=r"'model' \(config\.backend\.model\) changed"):
        evaluate(other, tmp_path / "run")
    assert evaluate(asked, tmp_path / "run").stopped is None
    assert len(backwards.bodies) == 12


def test_what_shapes_no_answer_may_change(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """After rate limits one wants fewer prompts at once, or more patience: that is the same ranker."""
    asked = suite(data, backwards.url)
    evaluate(asked, tmp_path / "run", RunOptions(limit=4))
    asked["rankers"]["model"]["backend"]["max_concurrency"] = 1
    asked["rankers"]["model"]["limits"] = {"max_attempts": 3}
    assert evaluate(asked, tmp_path / "run").stopped is None
    assert len(backwards.bodies) == 12


def test_until_something_is_ranked_a_suite_may_change(
    tmp_path: Path, data: Path, backwards: PickyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake, or a dry run, binds nobody: the mended suite begins the run anew in the same folder."""
    fake_retrievers.install(monkeypatch)  # the mistake is told from the names of all kinds
    asked = suite(data, backwards.url)
    wrong = {**asked, "rankers": {"popularity": {"baseline": "populrity"}}}
    with pytest.raises(ConfigError, match="did you mean 'popularity'"):
        evaluate(wrong, tmp_path / "run")
    evaluate({**asked, "seed": 5}, tmp_path / "run", dry_run=True)
    done = evaluate({**asked, "protocol": {"split": "given", "users": 5}}, tmp_path / "run")
    assert done.planned == 5
    assert done.folder.manifest["seed"] == 0


def test_headers_and_credentials_are_not_written_down(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """The manifest and the report have digests of them, so that a change is seen and the secret is not."""
    asked = suite(data, backwards.url.replace("http://", "http://me:pa55word@"))
    asked["rankers"]["model"]["backend"]["headers"] = {"x-api-key": "hunter2secret"}
    asked["embedder"] = {
        "kind": "openai",
        "model": "m",
        "base_url": "https://me:pa55word@embed.example.com/v1",
        "headers": {"x-api-key": "hunter2secret"},
    }
    evaluate_and_report(asked, tmp_path / "run", RunOptions(limit=2))
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            assert b"hunter2secret" not in path.read_bytes(), path
            assert b"pa55word" not in path.read_bytes(), path
    asked["rankers"]["model"]["backend"]["headers"] = {"x-api-key": "another"}
    with pytest.raises(ConfigError, match=r"config\.backend\.headers\.x-api-key"):
        evaluate(asked, tmp_path / "run")


def test_frozen_data_that_were_edited_are_refused(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Results would be of other cases than those that are there."""
    evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(limit=2))
    cases = tmp_path / "run" / "data" / "cases.jsonl"
    cases.write_text(cases.read_text(encoding="utf-8").replace('"u3"', '"u333"'), encoding="utf-8")
    with pytest.raises(DatasetError, match="not what was frozen"):
        evaluate(suite(data, backwards.url), tmp_path / "run")


def test_results_without_a_manifest_are_refused(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """Nobody knows what they are of."""
    evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(limit=2))
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(DatasetError, match="without a manifest"):
        evaluate(suite(data, backwards.url), tmp_path / "run")


def test_one_rankers_trouble_is_not_the_others(tmp_path: Path, data: Path) -> None:
    """A model that is not there stops its ranker; the others are asked, and summarised."""

    def only_one(request: Request) -> Reply | None:
        if request.body.get("model") == "gone":
            return openai_error("The model `gone` does not exist", code="model_not_found", status=404)
        return None

    with server(only_one) as running:
        asked = suite(data, running.url)
        gone = copy.deepcopy(asked["rankers"]["model"])
        gone["backend"]["model"] = "gone"
        asked["rankers"] = {"gone": gone, **asked["rankers"]}
        done = evaluate(asked, tmp_path / "run")
    assert done.stopped is not None
    assert done.stopped.startswith("gone: ModelNotFoundError")
    assert done.summary is not None
    assert done.summary["rankers"]["model"]["cases"] == 12
    assert done.summary["rankers"]["gone"]["cases"] == 0


def test_a_budget_holds_under_another_name_of_the_model(tmp_path: Path, data: Path) -> None:
    """A gateway may answer with a name of its own: it costs what the configured model does, and the budget is kept."""

    def renamed(request: Request) -> Reply | None:
        order = " > ".join(f"[{label}]" for label in reversed(labels(request))) if "messages" in request.body else ""
        usage = {"prompt_tokens": 110, "completion_tokens": 20}
        return Reply(completion(order, usage=usage, model="vendor/picky-1-latest")) if order else None

    with server(renamed) as running:
        done = evaluate(suite(data, running.url), tmp_path / "run", RunOptions(budget_usd=4.5 * USD))
        assert 1 <= len(running.bodies) <= 4
    assert done.stopped is not None
    assert done.usd == pytest.approx(len(running.bodies) * USD)
    assert done.summary is not None
    assert done.summary["rankers"]["model"]["usage"]["usd"] == pytest.approx(len(running.bodies) * USD)


def test_the_probe_is_forecast_and_kept_within_the_budget(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """What the memorisation probe asks counts: it is not begun if it may cost more than is left."""
    asked = suite(data, backwards.url, memorization={"titles": 4, "histories": 0})
    whole = evaluate(asked, tmp_path / "run", dry_run=True).forecasts["model"]
    assert whole.calls == 12 + 4
    assert any("memorisation probe" in each for each in whole.assumptions)
    done = evaluate(asked, tmp_path / "run", RunOptions(budget_usd=20 * USD))
    assert done.stopped is not None
    assert len(backwards.bodies) == 12
    assert done.summary is not None
    assert done.summary["rankers"]["model"]["cases"] == 12
    assert done.summary["memorization"] is None
    again = evaluate(asked, tmp_path / "run")
    assert again.stopped is None
    assert again.folder.memorization is not None


def test_a_torn_line_of_what_was_spent_is_cut_off(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """A power cut may leave half a line in spent.jsonl, too: the run goes on."""
    evaluate(suite(data, backwards.url), tmp_path / "run", RunOptions(limit=4))
    spent = tmp_path / "run" / "spent.jsonl"
    spent.write_bytes(spent.read_bytes()[:-20])
    done = evaluate(suite(data, backwards.url), tmp_path / "run")
    assert done.stopped is None
    assert done.usd == pytest.approx(11 * USD)


@pytest.mark.parametrize("last", [0, 1])
def test_new_users_are_ranked_for(
    tmp_path: Path, data: Path, backwards: PickyServer, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """With no history, or one item, every ranker answers; what the prefilter let through is measured; the sentence says it."""
    monkeypatch.setattr("llmrank.config.build_embedder", lambda section: BagEmbedder())
    monkeypatch.setattr("llmrank.evaluation.running.baselines.build_embedder", lambda section: BagEmbedder())
    asked = suite(data, backwards.url)
    del asked["cases"]
    asked["protocol"] = {"users": 5, "min_history": 2, "last_history": last, "candidates": {"n": 8}}
    asked["rankers"]["kept"] = {**asked["rankers"]["model"], "prefilter": {"keep": 4}}
    asked["rankers"]["embedding"] = {"baseline": "embedding"}
    done = evaluate(asked, tmp_path / "run")
    assert (done.failures, done.stopped) == (0, None)
    assert {len(case.history) for case in done.folder.cases()} == {last}
    assert done.summary is not None
    for name, found in done.summary["rankers"].items():
        assert found["status"]["ok"] == 5, name
        assert [(each["from"], each["to"], each["cases"]) for each in found["by_history"]] == [(last, last, 5)]
    shown = [set(record["shown"]) for record in done.folder.results("kept")]
    assert {len(each) for each in shown} == {4}
    share = sum(case.relevant[0] in each for case, each in zip(done.folder.cases(), shown, strict=True)) / 5
    assert done.summary["rankers"]["kept"]["prefilter"]["recall"] == pytest.approx(share)
    assert done.summary["rankers"]["model"]["prefilter"] is None
    said = "no history is shown" if last == 0 else "only the last item of each history is shown"
    assert said in done.summary["protocol"]


def test_data_frames_are_evaluated(tmp_path: Path, data: Path, backwards: PickyServer) -> None:
    """From Python, items and interactions may be data frames; a changed frame is refused like a changed file."""
    pyarrow = pytest.importorskip("pyarrow", reason="pip install 'llmrank[data]'")
    items = pyarrow.table({"id": [f"i{n}" for n in range(30)], "title": [f"Film {n}" for n in range(30)]})
    rows = [(f"u{user}", f"i{(user + step) % 30}", 100 * user + step) for user in range(8) for step in range(3)]
    log = pyarrow.table({name: [row[at] for row in rows] for at, name in enumerate(("user_id", "item_id", "timestamp"))})
    asked = suite(data, backwards.url)
    for name in ("items", "cases", "interactions"):
        del asked[name]
    asked["protocol"] = {"candidates": {"n": 5}}
    options = RunOptions(report=False)
    done = evaluate_and_report(asked, tmp_path / "run", options, items=items, interactions=log)
    assert done.planned == 8
    assert done.stopped is None
    assert evaluate_and_report(asked, tmp_path / "run", options, items=items, interactions=log).summary == done.summary
    with pytest.raises(ConfigError, match="`interactions` changed"):
        evaluate_and_report(asked, tmp_path / "run", options, items=items, interactions=log.slice(1))
    with pytest.raises(ConfigError, match="items: is missing"):
        evaluate_and_report(asked, tmp_path / "other", options, interactions=log)
    with pytest.raises(ConfigError, match="given twice"):
        evaluate_and_report(suite(data, backwards.url), tmp_path / "other", options, items=items)
