"""Shards and a configuration go in; reports come out, one a shard, as each is ranked here or on a Ray cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llmrank.catalog import Catalog
from llmrank.errors import ConfigError, DatasetError, LLMRankError
from llmrank.scale.recipe import Recipe, make_recipe
from llmrank.scale.schema import Keep
from llmrank.scale.shard import FATAL, Redo, ShardRanker, ShardReport
from llmrank.types import Ranking

Engine: TypeAlias = Literal["local", "ray"]

Shard: TypeAlias = tuple[Path, Path]
"""A source and its target."""

OnRows: TypeAlias = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How many workers, and where.

    Attributes:
        workers: How many, each with a Ranker of its own; None for as many as the cluster has room for.
        num_cpus: Cores that one worker takes.
        num_gpus: Accelerators that one worker takes; parts of one are possible.
        address: The cluster, as ``auto`` (this machine is part of it) or ``host:port``; None for the one that this process is
            connected to or that RAY_ADDRESS names, else one on this machine for the length of the run.
    """

    workers: int | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError("must be at least 1", field="workers", value=self.workers, fix="or leave it out")
        for name in ("num_cpus", "num_gpus"):
            if getattr(self, name) < 0:
                raise ConfigError("must not be negative", field=name, value=getattr(self, name), fix="0 takes none")


def rank_shards(
    shards: Iterable[str | Path],
    out: str | Path,
    *,
    config: str | Path | Mapping[str, Any],
    catalog: Catalog | str | Path | None = None,
    engine: Engine = "local",
    ray: RayOptions | None = None,
    keep: Keep = "columns",
    top_k: int | None = None,
    redo: Redo = "nothing",
    attempts: int = 3,
    on_rows: OnRows | None = None,
) -> Iterator[ShardReport]:
    """Ranks shards; those that are whole already are kept, so that a run which was broken off goes on.

    Args:
        shards: Parquet files (`llmrank.scale.schema`).
        out: The folder of the ranked shards, which have the names of theirs. For Ray, a folder that all machines see.
        config: A YAML file, or a dict of the same form.
        catalog: Where ids are looked up. Ray's workers read the file of a path by themselves, and are sent a Catalog.
        engine: ``local`` ranks one shard after the other in this process; ``ray`` many at once on a cluster.
        ray: The cluster and its workers, for ``ray``.
        keep, top_k, redo: As for `rank_shard`.
        attempts: How often a shard is tried. Rows do not fail a shard, but a full disk or a worker that is lost does.
        on_rows: Is told how many rows more are done; for Ray, when a shard is. Less than 0 if a shard begins anew.

    Yields:
        A report of every shard, in the order in which they are done; ``failed`` ones with their error.

    Raises:
        DatasetError: a ranked shard was made from something else; two shards have one name.
        LLMRankError: the Ranker cannot be made, here or on a worker, or meets what no row could do better with (`shard.FATAL`).
        SetupError: Ray is not installed, or its workers die as soon as they start.
    """
    if attempts < 1:
        raise ConfigError("must be at least 1", field="attempts", value=attempts, fix="1 tries each shard once")
    if engine not in ("local", "ray"):
        raise ConfigError("unknown", field="engine", value=engine, fix="use local or ray")
    recipe = make_recipe(config, catalog, keep=keep, top_k=top_k)
    pairs = _pairs(shards, Path(out).absolute())
    # All are looked at before one is ranked: what was made from something else is found before anything is paid for.
    planner = ShardRanker(recipe, redo=redo)
    whole = {pair: report for pair in pairs if (report := planner.kept(*pair)) is not None}
    outstanding = [pair for pair in pairs if pair not in whole]
    report_rows = on_rows or (lambda count: None)
    for report in whole.values():
        yield report
        report_rows(report.rows)
    if not outstanding:
        return
    if engine == "local":
        yield from _rank_here(outstanding, recipe, redo, attempts, report_rows)
        return
    from llmrank.scale.ray_engine import rank_on_ray

    with closing(rank_on_ray(outstanding, recipe, redo, attempts, ray or RayOptions())) as reports:
        for report in reports:
            yield report
            report_rows(report.rows)


def _pairs(shards: Iterable[str | Path], out: Path) -> list[Shard]:
    sources = [Path(shard).absolute() for shard in shards]
    names = Counter(source.name for source in sources)
    for source in sources:
        if names[source.name] > 1:
            raise DatasetError("two shards have one name", field="shards", value=source.name, fix="rename one of them")
        if source.parent == out:
            raise DatasetError("would overwrite the shard", field="out", value=str(out), fix="name another folder")
    return [(source, out / source.name) for source in sources]


def _rank_here(shards: Sequence[Shard], recipe: Recipe, redo: Redo, attempts: int, on_rows: OnRows) -> Iterator[ShardReport]:
    with ShardRanker(recipe, redo=redo) as ranker:
        ranker.prepare()  # what no shard could be ranked without ends the run, and fails no shard
        for source, target in shards:
            yield _try(ranker, source, target, attempts, on_rows)


def _try(ranker: ShardRanker, source: Path, target: Path, attempts: int, on_rows: OnRows) -> ShardReport:
    for attempt in range(1, attempts + 1):
        done = 0

        def count(_: Ranking) -> None:
            nonlocal done
            done += 1
            on_rows(1)

        try:
            return replace(ranker.rank(source, target, count), attempts=attempt)
        except FATAL:
            raise
        except LLMRankError as error:
            on_rows(-done)
            failure = error
    return ShardReport(source, target, "failed", attempts=attempts, error=failure)
