"""Parquet files of users go in as RankRequests; Rankings go out as Parquet rows. The columns of both are described here.

A shard (in). The first three columns must be there; their values may be null.

=============  ===========================  ======================================================
column         type                         meaning
=============  ===========================  ======================================================
user_id        string or integer            comes back; never shown to a model
history        list of string or integer    item ids, oldest first; null: none
candidates     list of string or integer    item ids to rank; null: the whole catalogue
query          string (may be left out)     what the user says they want
top_k          integer (may be left out)    how many items to keep; null: as the caller says, or all
any other      any                          carried through as it is (`case`, for instance)
=============  ===========================  ======================================================

A ranked shard (out): a row a user, in the same order. What was spent is what the row costs when no answer is kept from before,
so that it does not depend on whether a run was broken off: `records.full_record` counts the same way.

=================  ==================  ======================================================================
column             type                meaning
=================  ==================  ======================================================================
user_id            string
(carried columns)                      as they came in
status             string              ok, repaired, partial, fallback or error (`types.Status`)
item_ids           list of string      best first; empty if the request could not be ranked at all
scores             list of double      one an item, higher is better; null where only an order is known
filled             list of string      ids that the model did not rank
error              string              class and message; null if all went well
prompt_tokens      int64               with cached_tokens
completion_tokens  int64
cached_tokens      int64               read from the server's prefix cache
calls              int64               answers that a model computed
retries            int64               attempts beyond the first
seconds            double              spent waiting for the backend, summed over prompts
latency            double              seconds that the model took, or was waited for; null if nothing was asked
model              string
strategy           string
fingerprint        string              of the template
record             string              one JSON object with all that is known (`records.full_record`); null unless asked for
=================  ==================  ======================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llmrank.errors import DatasetError, shorten
from llmrank.evaluation.records import error_text, full_cost, full_record, latency_of
from llmrank.scale._arrow import pa, pq
from llmrank.types import Ranking, RankRequest

Keep: TypeAlias = Literal["columns", "record", "trace"]
"""What is kept of a Ranking: the columns alone, `record` too, or `record` with every prompt and raw answer."""

BATCH_ROWS = 1024
"""Rows read at a time, and rows of a row group written: memory depends on this, not on the length of a shard."""

REQUIRED = ("user_id", "history", "candidates")
OPTIONAL = ("query", "top_k")

_RESULT = {
    "status": pa.string(),
    "item_ids": pa.list_(pa.string()),
    "scores": pa.list_(pa.float64()),
    "filled": pa.list_(pa.string()),
    "error": pa.string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "cached_tokens": pa.int64(),
    "calls": pa.int64(),
    "retries": pa.int64(),
    "seconds": pa.float64(),
    "latency": pa.float64(),
    "model": pa.string(),
    "strategy": pa.string(),
    "fingerprint": pa.string(),
    "record": pa.string(),
}

REQUEST_SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "history": pa.list_(pa.string()),
        "candidates": pa.list_(pa.string()),
        "query": pa.string(),
        "top_k": pa.int64(),
        "case": pa.int64(),
    }
)
"""The shards that this project writes itself (`split_requests`)."""


class ShardReader:
    """A shard that is read batch by batch.

    Args:
        path: The Parquet file.

    Attributes:
        rows: How many there are.
        carried: The schema of the columns that are carried through.

    Raises:
        DatasetError: the file is missing or no Parquet, a column is missing, or one has a type or name that it cannot have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._file = pq.ParquetFile(path)
        try:
            self.rows: int = self._file.metadata.num_rows
            self.carried = self._check(self._file.schema_arrow)
        except BaseException:
            self.close()
            raise

    def batches(self) -> Iterator[Any]:
        """The rows as Arrow record batches that are not empty. Raises DatasetError if the file is damaged."""
        batches = self._file.iter_batches(batch_size=BATCH_ROWS)
        while True:
            with reading(self.path):
                batch = next(batches, None)
            if batch is None:
                return
            if batch.num_rows:
                yield batch

    def close(self) -> None:
        """Closes the file. May be called twice."""
        self._file.close()

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, schema: Any) -> Any:
        names: list[str] = schema.names
        missing = [name for name in REQUIRED if name not in names]
        if missing:
            raise DatasetError(
                f"{self.path}: a column is missing",
                field=missing[0],
                value=names,
                fix="a shard has user_id, history and candidates, whose values may be null",
            )
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise DatasetError(f"{self.path}: two columns have one name", field=twice[0], fix="rename one of them")
        for name, fits, wanted in (
            ("user_id", _is_id, "strings or integers"),
            ("history", _is_ids, "lists of strings or integers"),
            ("candidates", _is_ids, "lists of strings or integers"),
            ("query", _is_text, "strings"),
            ("top_k", _is_integer, "integers"),
        ):
            if name in names and not fits(schema.field(name).type):
                kind = str(schema.field(name).type)
                raise DatasetError(f"{self.path}: wrong type of column", field=name, value=kind, fix=f"make them {wanted}")
        carried = [each for each in schema if each.name not in (*REQUIRED, *OPTIONAL)]
        for each in carried:
            if each.name in _RESULT:
                fix = "rename it: the ranked shard has a column of that name"
                raise DatasetError(f"{self.path}: the name is taken", field=each.name, fix=fix)
        return pa.schema(carried)


def requests_of(batch: Any, top_k: int | None = None) -> Iterator[RankRequest]:
    """The requests of a record batch; what is wrong with a row shows when it is ranked.

    Args:
        batch: Rows of a shard.
        top_k: For rows that say none.
    """
    columns = [batch.column(name).to_pylist() if name in batch.schema.names else None for name in (*REQUIRED, *OPTIONAL)]
    user_ids, histories, candidates, queries, tops = columns
    assert user_ids is not None and histories is not None and candidates is not None  # noqa: PT018, S101  # ShardReader checked
    for row, user_id in enumerate(user_ids):
        own_top = None if tops is None else tops[row]
        offered = candidates[row]
        yield RankRequest(
            history=_ids(histories[row] or ()),
            candidates=None if offered is None else _ids(offered),
            query=None if queries is None else queries[row],
            user_id=None if user_id is None else str(user_id),
            top_k=top_k if own_top is None else own_top,
        )


def ranked_schema(carried: Any) -> Any:
    """The schema of a ranked shard, given that of the columns which are carried through."""
    return pa.schema([pa.field("user_id", pa.string()), *carried, *(pa.field(name, kind) for name, kind in _RESULT.items())])


def ranked_batch(source: Any, rows: Sequence[dict[str, Any]], schema: Any) -> Any:
    """Rows of a ranked shard as a record batch.

    Args:
        source: The batch that was ranked.
        rows: What `ranked_row` made of each Ranking.
        schema: From `ranked_schema`.
    """
    user_ids = [None if each is None else str(each) for each in source.column("user_id").to_pylist()]
    columns = []
    for field in schema:
        if field.name in _RESULT:
            columns.append(pa.array([row[field.name] for row in rows], field.type))
        else:
            columns.append(pa.array(user_ids, field.type) if field.name == "user_id" else source.column(field.name))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def ranked_row(ranking: Ranking, keep: Keep) -> dict[str, Any]:
    """The columns of a Ranking, all but `user_id` and those that are carried through."""
    cost = full_cost(ranking)
    scores = [each.score for each in ranking.items]
    return {
        "status": ranking.status,
        "item_ids": [_utf8(each.id) for each in ranking.items],
        "scores": None if all(score is None for score in scores) else scores,
        "filled": [_utf8(item_id) for item_id in ranking.filled],
        "error": None if ranking.error is None else _utf8(error_text(ranking.error)),
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": cost.completion_tokens,
        "cached_tokens": cost.cached_tokens,
        "calls": cost.calls,
        "retries": cost.retries,
        "seconds": cost.seconds,
        "latency": latency_of(ranking),
        "model": _utf8(ranking.model),
        "strategy": _utf8(ranking.strategy),
        "fingerprint": ranking.fingerprint,
        "record": None if keep == "columns" else _utf8(json.dumps(full_record(ranking, trace=keep == "trace"))),
    }


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """The records of a ranked shard that was made with `keep` ``record`` or ``trace``, each with its carried columns beside.

    Args:
        path: A ranked shard.

    Yields:
        `records.full_record`, and under their names the columns that were carried through (`case`, for instance).

    Raises:
        DatasetError: the file is missing, is damaged, or holds no records.
    """
    path = Path(path)
    with reading(path):
        file = pq.ParquetFile(path)
    with file:
        names = file.schema_arrow.names
        if "record" not in names:
            raise DatasetError("is no ranked shard", field="shard", value=str(path), fix="name a file that rank_shard made")
        wanted = [name for name in names if name not in _RESULT and name != "user_id"]
        batches = file.iter_batches(batch_size=BATCH_ROWS, columns=[*wanted, "record"])
        while True:
            with reading(path):
                batch = next(batches, None)
            if batch is None:
                return
            for row in batch.to_pylist():
                record = row.pop("record")
                if record is None:
                    fix = "rank the shard with keep='record' or 'trace'"
                    raise DatasetError("holds no records", field="shard", value=str(path), fix=fix)
                yield json.loads(record) | row


def count_rows(paths: Iterable[str | Path]) -> int:
    """How many rows there are in Parquet files, from their footers. A file that cannot be read counts none."""
    total = 0
    for path in paths:
        try:
            total += pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError):
            continue  # it is reported, with its reason, when its turn to be ranked comes
    return total


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Names the file if it cannot be read as Parquet."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or shorten(str(error), 200)
        raise DatasetError(
            f"cannot be read as Parquet ({reason})", field="shard", value=str(path), fix="check the path, or write it anew"
        ) from error


def _ids(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(str(each) if isinstance(each, int) else each for each in values)


def _utf8(text: str) -> str:
    """The text, with half surrogate pairs (which JSON may hold, and Parquet not) escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_text(kind: Any) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind))


def _is_integer(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_null(kind))


def _is_id(kind: Any) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_text(value) or _is_integer(value)


def _is_ids(kind: Any) -> bool:
    types = pa.types
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(types.is_null(kind) or (lists and _is_id(kind.value_type)))
