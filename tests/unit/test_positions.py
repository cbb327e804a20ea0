"""Position studies: a model that copies its prompt, one that ignores the order, failures, resumption; and the statistics."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from llmrank import cli
from llmrank.errors import ConfigError, DatasetError, InputError, LLMRankError
from llmrank.evaluation import evaluate, positions
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.measures.statistics import Spread, spread_of_means
from llmrank.evaluation.run import finish
from llmrank.evaluation.running.session import RunOptions
from tests.servers.picky import PickyServer, Reply, Request, completion
from tests.unit.small_suite import labels, server, suite, write_data

PLACES = (1, 3, 6)


pytestmark = pytest.mark.usefixtures("suite_key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Items, and 12 cases of 6 candidates each."""
    write_data(tmp_path / "data")
    return tmp_path / "data"


def titles(request: Request) -> dict[str, str]:
    """The title of each candidate that a request shows, by label, in the order shown."""
    lines = request.body["messages"][-1]["content"].splitlines()
    return {label: line for label in labels(request) for line in lines if line.startswith(f"[{label}] ")}


def copy(request: Request) -> Reply | None:
    """Ranks the candidates as shown."""
    if "messages" not in request.body:
        return None
    return Reply(completion(" > ".join(f"[{label}]" for label in labels(request))))


def by_title(request: Request) -> Reply | None:
    """Ranks the candidates by their titles, whatever the order shown."""
    if "messages" not in request.body:
        return None
    shown = titles(request)
    return Reply(
        completion(" > ".join(f"[{label}]" for label in sorted(shown, key=lambda each: shown[each].partition(" ")[2])))
    )


def broken(request: Request) -> Reply | None:
    """Answers nothing."""
    return Reply({"error": {"message": "broken"}}, 500) if "messages" in request.body else None


@pytest.fixture
def serve() -> Iterator[Callable[..., PickyServer]]:
    """Starts servers that follow a rule."""
    running: list[PickyServer] = []

    def start(*rules: Callable[[Request], Reply | None]) -> PickyServer:
        running.append(server(*rules).__enter__())
        return running[-1]

    yield start
    for each in running:
        each.__exit__(None, None, None)


Serve = Callable[..., PickyServer]


def test_a_model_that_copies_its_prompt_has_the_spread_of_the_places(tmp_path: Path, data: Path, serve: Serve) -> None:
    """What is relevant comes out where it was put: NDCG is 1 / log2(place + 1), and p as small as it can be."""
    found = positions(suite(data, serve(copy).url), tmp_path / "run", at=PLACES, k=3)
    model = found.rankers["model"]
    assert [each.place for each in model.places] == list(PLACES)
    assert [each.ndcg.mean for each in model.places] == pytest.approx([1.0, 0.5, 0.0])
    assert model.spread.value == pytest.approx(1.0)
    assert model.spread.p == 1 / 10_000
    assert (found.cases, found.failures) == (12, 0)
    assert {each.moved for each in model.places} == {0}


def test_a_model_that_does_not_look_at_the_order_has_none(tmp_path: Path, data: Path, serve: Serve) -> None:
    """Every place has the same NDCG; the baselines of the suite, too."""
    found = positions(suite(data, serve(by_title).url), tmp_path / "run", at=PLACES)
    assert set(found.rankers) == {"random", "popularity", "model"}
    for each in found.rankers.values():
        assert len({place.ndcg.mean for place in each.places}) == 1
        assert each.spread == Spread(value=0.0, by_chance=0.0, p=1.0)
    assert set(found.forecasts) == {"model"}
    assert found.forecasts["model"].calls == 36


def test_the_others_keep_their_order(tmp_path: Path, data: Path, serve: Serve) -> None:
    """Only what is relevant moves: each prompt shows it at its place and the others as they were given."""
    running = serve(copy)
    positions(suite(data, running.url), tmp_path / "run", rankers=["model"], at=(1, 6), limit=1)
    given = json.loads((data / "cases.jsonl").read_text(encoding="utf-8").splitlines()[0])
    target, others = given["relevant"][0], [each for each in given["candidates"] if each != given["relevant"][0]]
    orders = [[line.rpartition(" ")[2] for line in titles(Request("", "", {}, body)).values()] for body in running.bodies]
    wanted = [[target, *others], [*others, target]]
    assert sorted(orders) == sorted([each.removeprefix("i") for each in order] for order in wanted)


def test_nothing_is_asked_or_paid_for_twice(tmp_path: Path, data: Path, serve: Serve) -> None:
    """A second study asks for what is new alone: another place, more cases; the forecast says how much. Files say the same."""
    running = serve(copy)
    asked = suite(data, running.url)
    positions(asked, tmp_path / "run", rankers=["model"], at=(1, 3), limit=4)
    assert len(running.bodies) == 8
    again = positions(asked, tmp_path / "run", rankers=["model"], at=(1, 3), limit=4)
    assert (len(running.bodies), again.forecasts["model"].calls) == (8, 0)
    more = positions(asked, tmp_path / "run", rankers=["model"], at=PLACES, limit=5)
    assert (len(running.bodies), more.forecasts["model"].calls) == (15, 7)
    written = json.loads((tmp_path / "run" / "positions.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(more.as_dict()))
    assert written["cases"] == 5
    assert "| 3 | 5 | " in (tmp_path / "run" / "positions.md").read_text(encoding="utf-8")


def test_a_run_and_a_study_share_a_folder(tmp_path: Path, data: Path, serve: Serve) -> None:
    """Its data, and its answers: a case that already had its relevant item at the place is not asked for again."""
    running = serve(copy)
    asked = suite(data, running.url)
    evaluate(asked, tmp_path / "run", RunOptions(report=False))
    before = len(running.bodies)
    positions(asked, tmp_path / "run", rankers=["model"], at=(1, 3))
    assert len(running.bodies) == before + 24 - 4  # the relevant item of case n stands at place n % 6 + 1
    assert (
        evaluate(asked, tmp_path / "run", RunOptions(report=False)).folder.manifest["rankers"].keys() == asked["rankers"].keys()
    )
    assert len(running.bodies) == before + 24 - 4


@pytest.mark.parametrize(("failures", "ndcg"), [("fallback", [1.0, 0.5]), ("worst", [0.0, 0.0])])
def test_failures_count(tmp_path: Path, data: Path, serve: Serve, failures: str, ndcg: list[float]) -> None:
    """As the suite says: with the order given, or 0; never left out. `retry_errors` asks again."""
    running = serve(broken)
    asked = suite(data, running.url, failures=failures)
    found = positions(asked, tmp_path / "run", rankers=["model"], at=(1, 3))
    assert found.failures == 24
    assert [each.ndcg.mean for each in found.rankers["model"].places] == pytest.approx(ndcg)
    before = len(running.bodies)
    positions(asked, tmp_path / "run", rankers=["model"], at=(1, 3), limit=2, retry_errors=True)
    assert len(running.bodies) > before


def test_what_every_case_would_meet_ends_the_study(tmp_path: Path, data: Path, serve: Serve) -> None:
    """A wrong key is an error, and no result."""

    def wrong_key(request: Request) -> Reply | None:
        return Reply({"error": {"message": "Incorrect API key"}}, 401) if "messages" in request.body else None

    with pytest.raises(LLMRankError, match="run again to go on"):
        positions(suite(data, serve(wrong_key).url), tmp_path / "run", rankers=["model"], at=(1, 3))
    assert not (tmp_path / "run" / "positions.json").exists()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"at": (1,)}, ConfigError, "two or more"),
        ({"at": (1, 1)}, ConfigError, "two or more"),
        ({"at": (0, 3)}, ConfigError, "counted from 1"),
        ({"at": (1, 7)}, DatasetError, "at least 7 candidates"),
        ({"rankers": ["modle"]}, ConfigError, "did you mean 'model'"),
        ({"limit": 0}, ConfigError, "limit"),
        ({"k": 0}, ConfigError, "k"),
    ],
)
def test_what_cannot_be_studied_is_refused(
    tmp_path: Path, data: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Before anything is asked, by name."""
    with pytest.raises(error, match=said):
        positions(suite(data, "http://127.0.0.1:9/v1"), tmp_path / "run", **{"at": (1, 3), **changes})


def test_the_command_prints_forecast_and_tables(
    tmp_path: Path, data: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The forecast on stderr, a table a ranker on stdout; status 1 if rankings failed, 2 for places that are none."""
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(suite(data, serve(copy).url)), encoding="utf-8")

    def run(*arguments: object) -> int:
        command = ["llmrank", "eval", "positions", str(path), "--out", str(tmp_path / "run"), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as left:
            cli.main()
        return int(left.value.code or 0)

    assert run("--at", "1,3,6", "--k", 3, "--limit", 10) == 0
    said = capsys.readouterr()
    assert "30 calls" in said.err
    assert "NDCG@3 by the place of what is relevant: popularity" in said.out
    assert "Spread, largest minus smallest: 100.0 points; by chance alone: " in said.out
    assert "p < 0.001 for a spread at least this large if the place did not matter." in said.out
    assert "; with fewer than 30, this is no comparison." in said.out
    told = json.loads((tmp_path / "run" / "positions.json").read_text(encoding="utf-8"))["rankers"]["model"]["spread"]
    assert set(told) == {"value", "by_chance", "p"}
    assert 0 < told["by_chance"] < told["value"]
    assert run("--at", "1,x") == 2
    assert "whole numbers" in capsys.readouterr().err


def test_the_spread_of_noise_is_not_found() -> None:
    """Where no condition matters, p is below 0.05 in about one of 20 studies, and spreads are on average what chance makes.

    Where one matters, p is small and the spread far above that.
    """
    generator = np.random.default_rng(0)
    found = [spread_of_means(generator.normal(size=(20, 4)), permutations=199, seed=seed) for seed in range(200)]
    assert 0.02 < np.mean([each.p <= 0.05 for each in found]) < 0.1
    assert np.mean([each.by_chance for each in found]) == pytest.approx(np.mean([each.value for each in found]), rel=0.1)
    # The expected range of four means of 20 standard normal values is 2.059 / sqrt(20).
    assert np.mean([each.by_chance for each in found]) == pytest.approx(2.059 / math.sqrt(20), rel=0.1)
    shifted = generator.normal(size=(40, 4)) + np.asarray([0.0, 0.0, 0.0, 2.0])
    one = spread_of_means(shifted, permutations=999)
    assert one.p == 1 / 1000
    assert one.by_chance < one.value / 2


def test_users_and_not_cases_are_drawn_and_shuffled() -> None:
    """Cases of one user are no more than one: the same ten times over leave p and what comes by chance as they were."""
    values = np.random.default_rng(1).normal(size=(12, 3))
    once = spread_of_means(values, np.arange(12))
    tenfold = spread_of_means(np.repeat(values, 10, axis=0), np.repeat(np.arange(12), 10))
    assert tenfold.p == once.p
    assert (tenfold.value, tenfold.by_chance) == pytest.approx((once.value, once.by_chance))


def test_a_spread_of_little_or_nothing() -> None:
    """One user shows nothing; equal columns have no spread; no case has no numbers; a gap and no shuffle are refused."""
    assert spread_of_means([[0.0, 1.0]]) == Spread(value=1.0, by_chance=1.0, p=1.0)  # either order has this spread
    assert spread_of_means([[0.1, 0.1], [0.7, 0.7]]) == Spread(value=0.0, by_chance=0.0, p=1.0)
    nothing = spread_of_means(np.empty((0, 3)))
    assert all(math.isnan(each) for each in (nothing.value, nothing.by_chance, nothing.p))
    with pytest.raises(ConfigError, match="at least 1"):
        spread_of_means([[0.0, 1.0]], permutations=0)
    with pytest.raises(InputError, match="number for every case"):
        spread_of_means([[0.0, math.nan]])


@pytest.mark.parametrize(
    ("length", "places"), [(20, (1, 6, 11, 16, 20)), (100, (1, 26, 51, 76, 100)), (6, (1, 3, 4, 5, 6)), (3, (1, 2, 3))]
)
def test_places_not_named_are_spread_over_the_shortest_list(tmp_path: Path, length: int, places: tuple[int, ...]) -> None:
    """Both ends and three between, whatever the lists' length; lists with one candidate have no places to compare."""
    ids = [f"i{number}" for number in range(length + 3)]
    (tmp_path / "items.jsonl").write_text("".join(f'{{"id": "{each}", "title": "{each}"}}\n' for each in ids), encoding="utf-8")
    lists = [ids[:length], ids, ids[:1]]
    lines = [{"user_id": f"u{row}", "history": [], "candidates": each, "relevant": ids[:1]} for row, each in enumerate(lists)]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    asked = {
        "items": str(tmp_path / "items.jsonl"),
        "cases": str(tmp_path / "cases.jsonl"),
        "rankers": {"random": {"baseline": "random"}},
    }
    found = positions(asked, tmp_path / "run")
    assert [each.place for each in found.rankers["random"].places] == list(places)
    assert (found.cases, found.users) == (2, 2)


def test_the_report_of_a_folder_with_nothing_but_a_study_says_where_to_look(tmp_path: Path, data: Path) -> None:
    """Rather than to write a report of no rankings; once the suite has run in it, there is one."""
    asked = suite(data, "http://127.0.0.1:9/v1")
    asked["rankers"] = {name: config for name, config in asked["rankers"].items() if "baseline" in config}
    positions(asked, tmp_path / "run", at=(1, 3))
    with pytest.raises(DatasetError, match=r"position study.*see positions\.md"):
        finish(RunFolder(tmp_path / "run"))
    evaluate(asked, tmp_path / "run", RunOptions(report=False))
    assert finish(RunFolder(tmp_path / "run"), report=False)["rankers"]
