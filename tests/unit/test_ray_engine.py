"""Who ranks which shard on a cluster: a stand-in for Ray that loses workers at will; `test_ray` has the real one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import Catalog, Item
from llmrank.errors import DatasetError, LLMRankError, QuotaError, SetupError
from llmrank.scale import ray_engine
from llmrank.scale.engines import RayOptions
from llmrank.scale.ray_engine import rank_on_ray
from llmrank.scale.recipe import make_recipe
from llmrank.scale.shard import ShardReport

RECIPE = make_recipe({"backend": {"kind": "local"}}, Catalog([Item("1", "One")]))


class RayError(Exception):
    """A worker is lost."""


class RayTaskError(RayError):
    """A worker's method raised `cause`."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class Reference:
    """What a call will give."""

    def __init__(self, worker: Actor, call: Callable[[], Any]) -> None:
        self.worker, self.call = worker, call


class Actor:
    """A worker's process. `script` is asked before each call, and may raise RayError: then the process is dead."""

    def __init__(self, script: Callable[[str, str], Any]) -> None:
        self.alive, self._script = True, script

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Path) -> Reference:
            return Reference(self, lambda: self._call(method, *arguments))

        return SimpleNamespace(remote=remote)

    def _call(self, method: str, *arguments: Path) -> Any:
        if not self.alive:
            raise RayError("this worker has ended")
        try:
            self._script(method, arguments[0].name if arguments else "")
        except RayError:
            self.alive = False
            raise
        except Exception as error:
            raise RayTaskError(error) from error
        return ShardReport(arguments[0], arguments[1], "ranked", rows=1) if method == "rank" else None


class Ray:
    """As much of the package as is used. `choose` says which of the results that are due comes first."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, script: Callable[[str, str], Any], choose: Callable[[int], int] = lambda count: 0) -> None:
        self._script, self._choose = script, choose
        self.actors: list[Actor] = []
        self.room = {"CPU": 4.0}
        self.connected = True

    def is_initialized(self) -> bool:
        return self.connected

    def cluster_resources(self) -> dict[str, float]:
        return self.room

    def put(self, value: object) -> object:
        return value

    def remote(self, cls: type) -> Any:
        def start(*arguments: object) -> Actor:
            self.actors.append(Actor(self._script))
            return self.actors[-1]

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=start))

    def wait(
        self, due: Sequence[Reference], *, num_returns: int, timeout: float = 0
    ) -> tuple[list[Reference], list[Reference]]:
        assert due
        return ([due[self._choose(len(due))]], []) if num_returns == 1 else (list(due), [])

    def get(self, reference: Reference) -> Any:
        return reference.call()

    def kill(self, worker: Actor) -> None:
        worker.alive = False


def run(ray: Ray, shards: int = 4, attempts: int = 3, **options: Any) -> list[ShardReport]:
    """The reports of a run on the stand-in."""
    pairs = [(Path(f"in/{number}"), Path(f"out/{number}")) for number in range(shards)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "_ray", lambda: ray)
        return list(rank_on_ray(pairs, RECIPE, "nothing", attempts, RayOptions(**options)))


@given(
    troubles=st.lists(st.lists(st.sampled_from(["lost", "full disk"]), max_size=4), min_size=1, max_size=8),
    starts=st.lists(st.booleans(), max_size=3),
    workers=st.integers(1, 4),
    attempts=st.integers(1, 4),
    data=st.data(),
)
def test_no_shard_is_lost(
    troubles: list[list[str]], starts: list[bool], workers: int, attempts: int, data: st.DataObject
) -> None:
    """Whatever dies or fails, in whatever order: every shard is reported once, ranked if it succeeds within its attempts."""
    left = {str(number): list(trouble) for number, trouble in enumerate(troubles)}
    tried = Counter[str]()
    bad_starts = list(starts) if sum(not good for good in starts) < attempts * min(workers, len(troubles)) else []

    def script(method: str, name: str) -> None:
        if method == "prepare" and bad_starts and not bad_starts.pop():
            raise RayError("out of memory")
        if method == "rank":
            tried[name] += 1
            if left[name]:
                raise RayError("killed") if left[name].pop() == "lost" else DatasetError("cannot be written")

    ray = Ray(script, lambda count: data.draw(st.integers(0, count - 1)))
    reports = run(ray, len(troubles), attempts, workers=workers)
    assert sorted(report.source.name for report in reports) == sorted(left)
    for report in reports:
        trouble = troubles[int(report.source.name)]
        assert report.outcome == ("ranked" if len(trouble) < attempts else "failed")
        assert (report.error is None) == (report.outcome == "ranked")
        assert report.attempts == tried[report.source.name] == min(len(trouble) + 1, attempts)
    assert not any(actor.alive for actor in ray.actors)


@pytest.mark.parametrize(("error", "kind"), [(SetupError("no such package"), SetupError), (TypeError("a bug"), TypeError)])
def test_what_no_worker_could_do_ends_the_run(error: Exception, kind: type[Exception]) -> None:
    """A Ranker that cannot be made raises its own error; no shard is tried."""

    def script(method: str, name: str) -> None:
        assert method == "prepare"
        raise error

    ray = Ray(script)
    with pytest.raises(kind, match=str(error)):
        run(ray)
    assert not any(actor.alive for actor in ray.actors)


@pytest.mark.parametrize("error", [KeyError("a bug"), QuotaError("no credit left")])
def test_what_is_no_shards_own_ends_the_run(error: Exception) -> None:
    """A bug, or an empty account, is raised as it is, not tried again."""

    def script(method: str, name: str) -> None:
        if method == "rank":
            raise error

    with pytest.raises(type(error), match=str(error.args[0])):
        run(Ray(script))


def test_workers_that_die_as_they_start_end_the_run() -> None:
    """Replacing them for ever would help nobody."""

    def script(method: str, name: str) -> None:
        raise RayError("killed by the operating system\nwith a long story")

    ray = Ray(script)
    with pytest.raises(SetupError, match=r"a worker was lost .*killed by the operating system"):
        run(ray, workers=2, attempts=3)
    assert len(ray.actors) <= 2 + 3 * 2


@pytest.mark.parametrize(
    ("room", "options", "expected"),
    [
        ({"CPU": 4.0}, {}, 4),
        ({"CPU": 4.0}, {"num_cpus": 3}, 1),
        ({"CPU": 64.0, "GPU": 3.0}, {"num_gpus": 1}, 3),
        ({"CPU": 64.0, "GPU": 1.0}, {"num_gpus": 0.5}, 2),
        ({"CPU": 64.0}, {}, 8),
        ({"CPU": 1.0}, {"workers": 5}, 5),
    ],
)
def test_as_many_workers_as_there_is_room_for(room: dict[str, float], options: dict[str, Any], expected: int) -> None:
    """By default what the cluster can hold, never more than shards; a number that is named is taken as it is."""
    ray = Ray(lambda method, name: None)
    ray.room = room
    assert {report.outcome for report in run(ray, 8, **options)} == {"ranked"}
    assert len(ray.actors) == expected


def test_a_cluster_without_room_is_named() -> None:
    """A worker that wants a GPU where there is none would wait for ever."""
    with pytest.raises(LLMRankError, match=r"no room for a worker .*0 of 1 GPU"):
        run(Ray(lambda method, name: None), num_gpus=1)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:123456"])
def test_a_wrong_address_is_named_at_once(address: str) -> None:
    """Before Ray tries it for minutes."""
    ray = Ray(lambda method, name: None)
    ray.connected = False
    with pytest.raises(SetupError, match=f"no Ray cluster at {address}"):
        run(ray, address=address)


def test_leaving_early_ends_the_workers() -> None:
    """Who closes the stream of reports leaves no worker behind."""
    ray = Ray(lambda method, name: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_engine, "_ray", lambda: ray)
        reports = rank_on_ray([(Path(f"in/{n}"), Path(f"out/{n}")) for n in range(9)], RECIPE, "nothing", 1, RayOptions())
        assert next(reports).outcome == "ranked"
        reports.close()
    assert ray.actors
    assert not any(actor.alive for actor in ray.actors)
