"""A Parquet file of users goes in, a Parquet file with a ranking a user comes out, whole or not at all: the unit of large runs.

`llmrank.scale.schema` has the columns of both.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from glob import escape
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import IO, Any, Literal, TypeAlias, get_args

from llmrank.backends.guard import CachedBackend
from llmrank.catalog import Catalog
from llmrank.errors import (
    AuthenticationError,
    BackendError,
    CapabilityError,
    ClosedError,
    ConfigError,
    DatasetError,
    LLMRankError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaError,
    SetupError,
    nearest,
)
from llmrank.evaluation.records import full_cost
from llmrank.ranker import Ranker
from llmrank.scale._arrow import pq
from llmrank.scale.recipe import Recipe, file_digest, make_recipe
from llmrank.scale.schema import Keep, ShardReader, ranked_batch, ranked_row, ranked_schema, reading, requests_of
from llmrank.types import Ranking, RankRequest, Usage

Redo: TypeAlias = Literal["nothing", "errors", "everything"]
"""Which shards that are whole are ranked again: none, those in which the backend failed to answer, or all."""

Outcome: TypeAlias = Literal["ranked", "kept", "failed"]

OnRow: TypeAlias = Callable[[Ranking], object]

FATAL = (
    AuthenticationError,
    PermissionDeniedError,
    ModelNotFoundError,
    QuotaError,
    SetupError,
    ConfigError,
    CapabilityError,
    ClosedError,
)
"""Errors that are no row's own: every other row would meet them too, so the shard ends, and with it the run."""

_META = b"llmrank.shard"
"""The key of the Parquet metadata that says what a ranked shard was made from, and sums it up."""


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What became of a shard.

    Attributes:
        source: The shard.
        target: The ranked shard.
        outcome: ``ranked`` now, ``kept`` as it was whole already, or ``failed``.
        rows: How many users it has.
        statuses: How many rows have each status.
        errors: How many rows have each class of error.
        unanswered: How many rows a backend gave no answer to, in whole or in part. Asking again may help them.
        cost: What the rows cost when no answer is kept from before: the sum of the columns.
        spent: What was spent on them now.
        seconds: How long it took now.
        attempts: How often it was tried now.
        error: Why it failed.
    """

    source: Path
    target: Path
    outcome: Outcome
    rows: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    unanswered: int = 0
    cost: Usage = field(default_factory=Usage)
    spent: Usage = field(default_factory=Usage)
    seconds: float = 0.0
    attempts: int = 0
    error: LLMRankError | None = None


def rank_shard(
    source: str | Path,
    target: str | Path,
    *,
    config: str | Path | Mapping[str, Any],
    catalog: Catalog | str | Path | None = None,
    ranker: Ranker | None = None,
    keep: Keep = "columns",
    top_k: int | None = None,
    redo: Redo = "nothing",
    on_row: OnRow | None = None,
) -> ShardReport:
    """Ranks all users of one file.

    The target appears under its name only when it is whole and on disk. While the shard is under way, answers are kept in an
    answer cache beside the target (unless the configuration names one of its own), so that a run that is killed pays for
    nothing twice. The cache is removed at the end, but stays if a backend failed to answer: `redo` asks for what is missing.

    Args:
        source: The shard (Parquet; `llmrank.scale.schema`).
        target: Where the ranked shard goes. One that is there already is left alone if it was made from the same source,
            configuration, templates and catalogue.
        config: A YAML file, or a dict of the same form. With `ranker`, any mapping that says how it was made.
        catalog: Where ids are looked up; None for what `ranker` or the configuration has.
        ranker: A Ranker to use; it stays open. None makes one.
        keep: ``columns``; ``record`` adds all that is known of each ranking, ``trace`` also prompts and raw answers.
        top_k: How many items each ranking is to have, where the row does not say.
        redo: Rank again although the target is whole: ``errors`` if a backend failed to answer, ``everything`` in any case.
        on_row: Is told each Ranking, in the order of the rows.

    Returns:
        What became of it; never ``failed``. What is wrong with one row is its status ``error``, and stops no other.

    Raises:
        DatasetError: the source cannot be read or has not the columns it should have; the target cannot be written, or it was
            made from something else.
        LLMRankError: the Ranker cannot be made, or what it meets is no row's own trouble (`FATAL`: the key is refused, the
            account is empty). What was answered until then is kept, and ranking the shard again goes on from there.
    """
    recipe = make_recipe(config, catalog, ranker=ranker, keep=keep, top_k=top_k)
    with ShardRanker(recipe, ranker=ranker, redo=redo) as shards:
        return shards.rank(Path(source), Path(target), on_row)


def answers_path(target: Path) -> Path:
    """Where the answers of a shard are kept while it is under way, if its configuration names no answer cache."""
    return target.with_name(f".{target.name}.answers.sqlite")


class ShardRanker:
    """Ranks shard after shard with one Ranker, which is made when the first shard needs it. Use it as a context manager.

    Args:
        recipe: What is ranked with.
        ranker: A Ranker that is there already; it stays open.
        redo: Which whole shards are ranked again.
    """

    def __init__(self, recipe: Recipe, *, ranker: Ranker | None = None, redo: Redo = "nothing") -> None:
        if redo not in get_args(Redo):
            raise ConfigError("unknown", field="redo", value=redo, fix=nearest(redo, get_args(Redo)))
        self.recipe = recipe
        self.redo = redo
        self._ranker = ranker
        self._owns_ranker = ranker is None

    def prepare(self) -> Ranker:
        """Makes the Ranker, unless it is there. Raises LLMRankError if the configuration, or this machine, is not up to it."""
        if self._ranker is None:
            self._ranker = self.recipe.build()
        return self._ranker

    def kept(self, source: Path, target: Path) -> ShardReport | None:
        """The report of a target that is whole and need not be ranked again; None if there is work to do.

        Raises:
            DatasetError: the target was made from something else, or the source cannot be read.
        """
        if not target.exists() or self.redo == "everything":
            return None
        report, made_from = _read_report(source, target)
        now = self._made_from(source)
        differing = [name for name in now if made_from.get(name) != now[name]]
        if differing:
            raise DatasetError(
                f"was made from another {' and another '.join(differing)}",
                field="target",
                value=str(target),
                fix="name another folder, or rank everything again (redo)",
            )
        return None if self.redo == "errors" and report.unanswered else report

    def rank(self, source: Path, target: Path, on_row: OnRow | None = None) -> ShardReport:
        """Ranks one shard; `rank_shard` says more."""
        kept = self.kept(source, target)
        if kept is not None:
            return kept
        begun = perf_counter()
        with ShardReader(source) as shard:
            made_from = self._made_from(source)
            ranker = self.prepare()
            own_cache = not isinstance(ranker.backend, CachedBackend)
            answers = answers_path(target)
            with writing(target) as file, ranker.with_cache(answers) if own_cache else nullcontext(ranker) as cached:
                report = _rank_rows(shard, file, cached, self.recipe, made_from, on_row)
        if own_cache and not report.unanswered:
            for suffix in ("", "-wal", "-shm"):
                answers.with_name(answers.name + suffix).unlink(missing_ok=True)
        return replace(report, source=source, target=target, seconds=perf_counter() - begun, attempts=1)

    def close(self) -> None:
        """Closes the Ranker if it was made here. May be called twice."""
        if self._owns_ranker and self._ranker is not None:
            self._ranker.close()
            self._ranker = None

    def __enter__(self) -> ShardRanker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _made_from(self, source: Path) -> dict[str, str | None]:
        with reading(source):
            return {"source": file_digest(source), **self.recipe.digests}


def _rank_rows(
    shard: ShardReader,
    file: IO[bytes],
    ranker: Ranker,
    recipe: Recipe,
    made_from: Mapping[str, str | None],
    on_row: OnRow | None,
) -> ShardReport:
    """Streams the rows through the Ranker into the file, a row group for each batch that was read."""
    schema = ranked_schema(shard.carried)
    sums = _Sums()
    batches: deque[Any] = deque()  # read, and not yet written

    def requests() -> Iterator[RankRequest]:
        for batch in shard.batches():
            batches.append(batch)
            yield from requests_of(batch, recipe.top_k)

    rows: list[dict[str, Any]] = []
    stream: Any = ranker.rank_many(requests())  # a generator: closing it cancels what is in flight
    with pq.ParquetWriter(file, schema, compression="zstd") as writer, closing(stream) as rankings:
        for ranking in rankings:
            if ranking.status == "error" and isinstance(ranking.error, FATAL):
                raise ranking.error
            sums.add(ranking)
            rows.append(ranked_row(ranking, recipe.keep))
            if on_row is not None:
                on_row(ranking)
            if len(rows) == batches[0].num_rows:
                writer.write_batch(ranked_batch(batches.popleft(), rows, schema))
                rows.clear()
        writer.add_key_value_metadata({_META: json.dumps({"made_from": made_from} | sums.as_json())})
    return ShardReport(Path(), Path(), "ranked", spent=sums.spent, **sums.as_fields())


class _Sums:
    """What is known of the rows so far."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.unanswered = 0
        self.cost = Usage()
        self.spent = Usage()

    def add(self, ranking: Ranking) -> None:
        self.statuses[ranking.status] += 1
        self.cost += full_cost(ranking)
        self.spent += ranking.usage
        if ranking.error is not None:
            self.errors[type(ranking.error).__name__] += 1
            self.unanswered += isinstance(ranking.error, BackendError)

    def as_fields(self) -> dict[str, Any]:
        """The fields of a ShardReport that do not depend on how often the shard was begun."""
        return {
            "rows": self.statuses.total(),
            "statuses": dict(self.statuses),
            "errors": dict(self.errors),
            "unanswered": self.unanswered,
            "cost": self.cost,
        }

    def as_json(self) -> dict[str, Any]:
        return self.as_fields() | {"cost": asdict(self.cost)}


def _read_report(source: Path, target: Path) -> tuple[ShardReport, dict[str, Any]]:
    """What a ranked shard says of itself, and what it was made from."""
    with reading(target):
        metadata = pq.read_metadata(target).metadata or {}
    try:
        said = json.loads(metadata[_META])
        made_from = dict(said.pop("made_from"))
        return ShardReport(source, target, "kept", **said | {"cost": Usage(**said["cost"])}), made_from
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            "is there, and is no ranked shard", field="target", value=str(target), fix="move it away, or name another folder"
        ) from error


@contextmanager
def writing(target: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only when the block is left without an error, whole and on disk.

    Raises:
        DatasetError: it cannot be written.
    """
    # A name of its own: a worker that is thought dead, and is not, writes into a file of its own, too.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        for leftover in target.parent.glob(f".{escape(target.name)}.*.part"):  # of runs that were killed
            leftover.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"cannot be written ({reason})", field="target", value=str(target), fix="check the path") from error
    finally:
        part.unlink(missing_ok=True)
