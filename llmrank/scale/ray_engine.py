"""Shards and a recipe go in; Ray actors, each with a Ranker of its own, rank them; reports come out as each is done.

Only actors and `ray.wait` of Ray Core are used. Ray's own restarts are not: a worker that is lost is replaced here, and its
shard goes to whichever is ready first, so that attempts are counted and nothing waits for one machine to come back.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmrank.errors import LLMRankError, SetupError
from llmrank.scale.recipe import Recipe
from llmrank.scale.shard import FATAL, Redo, ShardRanker, ShardReport

if TYPE_CHECKING:
    from llmrank.scale.engines import RayOptions, Shard

REACHING_S = 10.0
"""The longest wait for a cluster's address to answer, in seconds."""

CLOSING_S = 30.0
"""The longest wait for workers to close their Rankers at the end, in seconds; then they are ended."""


class Worker:
    """What runs inside an actor: one Ranker, shard after shard."""

    def __init__(self, recipe: Recipe, redo: Redo) -> None:
        self._ranker = ShardRanker(recipe, redo=redo)

    def prepare(self) -> None:
        """Makes the Ranker, so that its model is there before a shard is. Raises LLMRankError."""
        self._ranker.prepare()

    def rank(self, source: Path, target: Path) -> ShardReport:
        """Ranks one shard. Raises LLMRankError."""
        return self._ranker.rank(source, target)

    def close(self) -> None:
        """Closes the Ranker."""
        self._ranker.close()


@dataclass(frozen=True, slots=True)
class _Job:
    """A shard, and how often it was tried before."""

    shard: Shard
    tried: int = 0


def rank_on_ray(
    shards: Sequence[Shard], recipe: Recipe, redo: Redo, attempts: int, options: RayOptions
) -> Generator[ShardReport, None, None]:
    """Ranks shards on a cluster; `rank_shards` says more."""
    ray = _ray()
    with _cluster(ray, options), _Pool(ray, recipe, redo, options, most=len(shards)) as pool:
        waiting = deque(_Job(shard) for shard in shards)
        lost_starting = 0
        while waiting or pool.at_work:
            while waiting and pool.idle:
                pool.give(waiting.popleft())
            worker, job, result = pool.next()
            try:
                report = ray.get(result)
            except ray.exceptions.RayTaskError as error:  # the worker lives; what it called did not succeed
                cause = error.cause
                if job is None or isinstance(cause, FATAL) or not isinstance(cause, LLMRankError):
                    raise (cause or error) from error  # no worker could do better, or it is a bug
                pool.idle.append(worker)
                failure = cause
            except ray.exceptions.RayError as error:  # the worker, or its machine, is lost
                pool.replace(worker)
                failure = SetupError(f"a worker was lost ({_first_line(error)}); Ray's logs on its machine say why")
                if job is None:
                    lost_starting += 1
                    if lost_starting >= attempts * pool.size:
                        raise failure from error
                    continue
            else:
                pool.idle.append(worker)
                lost_starting = 0
                if job is not None:
                    yield replace(report, attempts=job.tried + 1)
                continue
            if job.tried + 1 < attempts:
                waiting.append(_Job(job.shard, job.tried + 1))
            else:
                yield ShardReport(*job.shard, "failed", attempts=attempts, error=failure)


class _Pool:
    """The workers, and what each is at.

    Args:
        ray: The package.
        recipe: What the workers rank with. It is put into the object store once.
        redo: Which whole shards are ranked again.
        options: How many workers, and what one takes.
        most: More workers than this have nothing to do.

    Attributes:
        size: How many workers there are.
        idle: Those that wait for a shard.

    Raises:
        SetupError: the cluster on this machine has no room for even one.
    """

    def __init__(self, ray: Any, recipe: Recipe, redo: Redo, options: RayOptions, *, most: int) -> None:
        self._ray = ray
        self.size = min(options.workers or _room(ray, options), most)
        self.idle: list[Any] = []
        self._all: list[Any] = []
        self._busy: dict[Any, tuple[Any, _Job | None]] = {}  # by what will be the result; None: it makes its Ranker
        self._kind: Any = ray.remote(Worker).options(
            num_cpus=options.num_cpus, num_gpus=options.num_gpus, max_restarts=0, max_task_retries=0
        )
        self._arguments = (ray.put(recipe), redo)
        for _ in range(self.size):
            self._add()

    @property
    def at_work(self) -> bool:
        """True if a shard is being ranked. Workers that are still starting do not count: they may wait for a machine."""
        return any(job is not None for _, job in self._busy.values())

    def give(self, job: _Job) -> None:
        """Gives a shard to a worker that is idle."""
        worker = self.idle.pop()
        self._busy[worker.rank.remote(*job.shard)] = worker, job

    def next(self) -> tuple[Any, _Job | None, Any]:
        """Waits for the next worker that is done: it, what it was at, and the reference to the result."""
        (done,), _ = self._ray.wait(list(self._busy), num_returns=1)
        worker, job = self._busy.pop(done)
        return worker, job, done

    def replace(self, worker: Any) -> None:
        """Ends a worker for good and starts another one."""
        self._ray.kill(worker)
        self._all = [each for each in self._all if each is not worker]
        self._add()

    def _add(self) -> None:
        worker = self._kind.remote(*self._arguments)
        self._all.append(worker)
        self._busy[worker.prepare.remote()] = worker, None

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        closing = [worker.close.remote() for worker in self.idle]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=CLOSING_S)
        for worker in self._all:
            self._ray.kill(worker)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise SetupError("ray is not installed; run: pip install 'llmrank[ray]'") from error
    return ray


@contextmanager
def _cluster(ray: Any, options: RayOptions) -> Iterator[None]:
    """The cluster that this process is connected to already; else a connection, or a cluster, for the length of the block."""
    if ray.is_initialized():
        yield
        return
    _require_reachable(options.address)
    try:
        # Workers' own output stays in Ray's logs: it would run into the progress bar.
        ray.init(address=options.address, include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SetupError(f"no connection to a Ray cluster at {options.address or 'this machine'} ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_reachable(address: str | None) -> None:
    """Finds a wrong ``host:port`` in seconds; Ray itself goes on trying for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        return  # a name that Ray looks up
    try:
        socket.create_connection((host, int(port)), timeout=REACHING_S).close()
    except (OSError, OverflowError) as error:
        fix = "check the address, and that the cluster's head node runs there"
        raise SetupError(f"no Ray cluster at {address} ({error}); {fix}") from error


def _room(ray: Any, options: RayOptions) -> int:
    """How many workers the cluster has room for as it is."""
    there = ray.cluster_resources()
    wanted = {"CPU": options.num_cpus, "GPU": options.num_gpus}
    room = min((int(there.get(name, 0) // amount) for name, amount in wanted.items() if amount), default=1)
    if room < 1:
        lacking = ", ".join(f"{there.get(name, 0):g} of {amount:g} {name}" for name, amount in wanted.items() if amount)
        raise SetupError(f"the Ray cluster has no room for a worker (it has {lacking}); ask less for each, or say `workers`")
    return room


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
