"""A stream of requests goes in, a folder of shards of equal length comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from llmrank.errors import DatasetError, RequestError
from llmrank.scale._arrow import pa, pq
from llmrank.scale.schema import BATCH_ROWS, REQUEST_SCHEMA, reading
from llmrank.scale.shard import writing
from llmrank.types import Event, Item, RankRequest

ROWS = 10_000
"""Rows of a shard by default. A shard is what is begun again when a machine is lost (its answers are kept), and what workers
share work in: there should be several for each."""


def split_requests(requests: Iterable[RankRequest], folder: str | Path, rows_per_shard: int = ROWS) -> list[Path]:
    """Writes requests as shards ``part-00000.parquet``, ``part-00001.parquet``, ...

    Their column `case` has the number of the request, counted from 0. Splitting the same requests again changes no file.

    Args:
        requests: What to rank, by ids. One shard of them is in memory at a time.
        folder: Where the shards go; made if it is not there.
        rows_per_shard: How many requests a shard has; the last may have fewer.

    Returns:
        The shards, in the order of the requests.

    Raises:
        RequestError: a request holds Items or Events that are more than ids, or something else than texts.
        DatasetError: the folder holds other shards, or cannot be written.
    """
    if rows_per_shard < 1:
        raise RequestError("must be at least 1", field="rows", value=rows_per_shard, fix="10,000 is usual")
    folder = Path(folder)
    shards: list[Path] = []
    source = iter(requests)
    case = 0
    while rows := list(islice(source, rows_per_shard)):
        path = folder / f"part-{len(shards):05}.parquet"
        write_shard(path, rows, range(case, case + len(rows)))
        shards.append(path)
        case += len(rows)
    others = sorted(set(folder.glob("part-*.parquet")) - set(shards))
    if others:
        raise DatasetError("is of another split", field="shards", value=str(others[0]), fix="name an empty folder")
    return shards


def write_shard(path: Path, requests: Sequence[RankRequest], cases: Sequence[int]) -> None:
    """Writes one shard, whole or not at all; one that is there already must hold the same, and stays as it is.

    Args:
        path: The Parquet file.
        requests: What to rank, by ids; at least one.
        cases: What the column `case` says of each, carried through to the ranked shard.

    Raises:
        RequestError, DatasetError: as for `split_requests`.
    """
    _write(path, _table(requests, cases))


def _table(requests: Sequence[RankRequest], cases: Sequence[int]) -> Any:
    for case, request in zip(cases, requests, strict=True):
        if request.constraints:
            fix = "rank them without shards, or put what may be shown into candidates"
            raise RequestError(
                f"request {case} has some, which a shard cannot hold", field="constraints", value=request.constraints, fix=fix
            )
    columns: list[list[Any]] = [
        [request.user_id for request in requests],
        [_ids(request.history, "history") for request in requests],
        [None if request.candidates is None else _ids(request.candidates, "candidates") for request in requests],
        [request.query for request in requests],
        [request.top_k for request in requests],
        list(cases),
    ]
    try:
        arrays = [pa.array(column, field.type) for column, field in zip(columns, REQUEST_SCHEMA, strict=True)]
    except (pa.ArrowException, TypeError, UnicodeError) as error:
        raise RequestError(
            f"one of requests {cases[0]} to {cases[-1]} cannot be written as Parquet ({error})",
            field="requests",
            fix="ids and queries are texts without half surrogate pairs, top_k is a whole number",
        ) from error
    return pa.Table.from_arrays(arrays, schema=REQUEST_SCHEMA)


def _ids(entries: Iterable[str | Item | Event], field: str) -> list[str]:
    return [_id(entry, field) for entry in entries]


def _id(entry: str | Item | Event, field: str) -> str:
    if isinstance(entry, Event) and entry.timestamp is None and entry.rating is None:
        entry = entry.item
    if not isinstance(entry, str):
        raise RequestError("a shard holds ids only", field=field, value=entry, fix="put the items into the catalogue")
    return entry


def _write(path: Path, table: Any) -> None:
    if path.exists():
        with reading(path):
            same = pq.read_table(path).equals(table)
        if not same:
            raise DatasetError("holds other requests", field="shards", value=str(path), fix="name an empty folder")
        return  # as it is: its bytes tell rank_shard what it is
    with writing(path) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=BATCH_ROWS)
