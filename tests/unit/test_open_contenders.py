"""Contenders that stay open: each is built once a command, however often it is asked, and closed at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmrank.config import build_ranker
from llmrank.errors import ConfigError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.run import evaluate
from llmrank.evaluation.running import contenders, opened
from llmrank.evaluation.running.meter import Meter
from llmrank.evaluation.running.opened import OpenContenders
from llmrank.evaluation.running.session import RunOptions
from llmrank.experiment import run_experiment
from llmrank.files import read_lines
from llmrank.prices import Prices
from llmrank.ranker import Ranker
from llmrank.types import Usage
from tests.servers.picky import PickyServer
from tests.unit.small_experiment import experiment, forwards_for, variant
from tests.unit.small_suite import server, write_data

pytestmark = pytest.mark.usefixtures("suite_key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_data(folder, cases=24)
    return folder


@pytest.fixture
def running() -> Iterator[PickyServer]:
    with server(forwards_for("bold")) as found:
        yield found


class Counted:
    """Builds Rankers as always, and counts: how many were built, and how many are open."""

    def __init__(self, build: Callable[..., Ranker]) -> None:
        self._build = build
        self.built: list[Ranker] = []
        self.most = 0

    def __call__(self, *arguments: Any, **options: Any) -> Ranker:
        self.built.append(self._build(*arguments, **options))
        self.most = max(self.most, self.open)
        return self.built[-1]

    @property
    def open(self) -> int:
        return sum(each._finalizer.alive for each in self.built)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    found = Counted(build_ranker)
    monkeypatch.setattr(contenders, "build_ranker", found)
    return found


def test_looks_build_each_ranker_once(tmp_path: Path, data: Path, running: PickyServer, counted: Counted) -> None:
    """Three looks with a forecast each, after that of the plan: two Rankers, where 14 were built; none is left open."""
    spec = experiment(data, running.url, sequential={"every": 8, "least": 8})
    done = run_experiment(spec, tmp_path / "ab", RunOptions(report=False))
    assert done.stopped is None
    assert (len(counted.built), counted.most, counted.open) == (2, 2, 0)
    noted = list(read_lines(tmp_path / "ab" / "confirmation" / "spent.jsonl"))  # by a meter of each look's own
    assert len(noted) == len(running.bodies)
    assert done.usd == pytest.approx(sum(line["usd"] for line in noted))


def test_an_error_closes_them(
    tmp_path: Path, data: Path, running: PickyServer, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the command between two looks, the Rankers do not outlive it."""

    def interrupted(*arguments: object) -> None:
        assert counted.open == 2
        raise KeyboardInterrupt

    monkeypatch.setattr("llmrank.experiment.run.stopped_at", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment(data, running.url, sequential={"every": 8, "least": 8}), tmp_path / "ab")
    assert counted.open == 0


def test_who_left_the_race_is_closed(tmp_path: Path, data: Path, counted: Counted) -> None:
    """A round opens only those that are still in it, and the race's Rankers are closed before the decision's are opened."""
    names = ["plain", "bold", "tame", "grey", "flat"]
    with server(forwards_for("bold")) as running:
        variants = {name: variant(running.url, name) for name in names}
        spec = experiment(data, running.url, variants=variants, selection={"users": 12, "least": 4})
        run_experiment(spec, tmp_path / "ab", RunOptions(report=False))
    assert counted.most == 5
    assert len(counted.built) == 5 + 4 + 2  # to forecast all; the race; the decision
    assert counted.open == 0


def test_an_evaluation_has_one_open_at_a_time(tmp_path: Path, data: Path, running: PickyServer, counted: Counted) -> None:
    """With shuffles to rank after all cases, each ranker is opened for each of its turns, and the last one closed."""
    rankers = {name: variant(running.url, name) for name in ("plain", "bold")}
    suite = {
        "rankers": rankers,
        "items": str(data / "items.jsonl"),
        "cases": str(data / "cases.jsonl"),
        "metrics": ["ndcg@3"],
        "resamples": 200,
    }
    evaluate(suite, tmp_path / "run", RunOptions(report=False))
    assert counted.most == 2  # the next one is built before the last one is closed, so that they can share a model
    assert (len(counted.built), counted.open) == (4, 0)


class Stub:
    """Something that is open until it is closed."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def stubs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any, Stub]]:
    """Name, meter and contender of what was built, in order."""
    made: list[tuple[str, Any, Stub]] = []

    def build(name: str, config: object, folder: object, *, meter: object, **rest: object) -> Stub:
        made.append((name, meter, Stub()))
        return made[-1][2]

    monkeypatch.setattr(opened, "build_contender", build)
    return made


def get(found: OpenContenders, name: str, *, meter: Meter | None = None, folder: str = "run", **config: Any) -> object:
    return found.get(name, config, RunFolder(folder), seed=0, prices=Prices.load(None), meter=meter)


def test_the_one_not_asked_for_longest_goes(stubs: list[tuple[str, Any, Stub]]) -> None:
    """Of three where two may be open, the one that waited longest is closed; a new configuration closes the old one."""
    with OpenContenders(2) as found:
        a = get(found, "a")
        get(found, "b")
        assert get(found, "a") is a
        get(found, "c")
        assert [(name, each.closed) for name, _, each in stubs] == [("a", 0), ("b", 1), ("c", 0)]
        get(found, "a", changed=True)
        assert a is stubs[0][2]
        assert stubs[0][2].closed == 1
        get(found, "c", folder="other")  # of another run: another one
        assert [name for name, _, _ in stubs] == ["a", "b", "c", "a", "c"]
        found.keep(Path("other"), ["c"])
        assert [each.closed for _, _, each in stubs] == [1, 1, 1, 1, 0]
    assert [each.closed for _, _, each in stubs] == [1] * 5
    with pytest.raises(ConfigError, match="most"):
        OpenContenders(0)


def test_what_it_costs_is_noted_by_who_asks(tmp_path: Path, stubs: list[tuple[str, Any, Stub]]) -> None:
    """A contender that stays open notes into the meter of the session that asked for it last; without one, nowhere."""
    with OpenContenders() as found:
        for session in ("first", "second"):
            with Meter(tmp_path / f"{session}.jsonl") as meter:
                get(found, "a", meter=meter)
                stubs[0][1].add("a", "m", Usage(calls=1), 2.0)
                assert meter.usd == 2.0
        get(found, "a")
        stubs[0][1].add("a", "m", Usage(calls=1), 2.0)
    assert len(stubs) == 1
    assert len((tmp_path / "second.jsonl").read_text(encoding="utf-8").splitlines()) == 1
