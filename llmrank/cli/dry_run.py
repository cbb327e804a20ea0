"""`llmrank rank --dry-run`: a configuration and a request (or a file or folder of them) go in, what it would take comes out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import typer

from llmrank.config import build_ranker
from llmrank.errors import DatasetError, RequestError
from llmrank.evaluation.cases import read_requests
from llmrank.forecast import evenly, forecast
from llmrank.prices import Prices
from llmrank.types import RankRequest


def forecast_rank(
    config: Path, items: Path | None, asked: RankRequest | Path, top_k: int | None, prices: Prices, *, as_json: bool
) -> None:
    """Prints the forecast. Nothing is asked, embedded or loaded.

    Args:
        config: The ranker's file.
        items: The item file; None for the one that the configuration names.
        asked: One request; or a JSONL file, a Parquet file, or a folder of Parquet files.
        top_k: How many items each Ranking is to have, where a request of a file does not say.
        prices: What models cost.
        as_json: Prints one JSON object.

    Raises:
        LLMRankError: the configuration is wrong, or the requests cannot be read or ranked.
    """
    with build_ranker(config, catalog=items, unasked=True) as ranker:
        if ranker.catalog is None:
            raise RequestError("are needed to look ids up", field="--items", fix="name an item file here or under `catalog`")
        if isinstance(asked, RankRequest):
            found = forecast(ranker, [asked], 1, prices, strict=True)
        else:
            with _reading(asked, top_k) as read:
                total = sum(1 for _ in read())
                if not total:
                    raise DatasetError("holds no request", field="--cases", value=str(asked), fix="check the path")
                found = forecast(ranker, evenly(read(), total), total, prices)
    if as_json:
        typer.echo(json.dumps(found.record()))
    else:
        for line in found.lines():
            typer.echo(line)


@contextmanager
def _reading(cases: Path, top_k: int | None) -> Iterator[Callable[[], Iterator[RankRequest]]]:
    """What reads all requests of a file or folder anew each time it is called."""
    if cases.suffix == ".parquet" or cases.is_dir():
        from llmrank.cli.shards import shards_in

        shards = shards_in(cases)
        yield lambda: chain.from_iterable(_rows(shard, top_k) for shard in shards)
        return
    from llmrank.cli.requests import rereadable

    with rereadable(cases) as path:
        yield lambda: read_requests(path, top_k=top_k, name=str(cases))


def _rows(shard: Path, top_k: int | None) -> Iterator[RankRequest]:
    from llmrank.scale.schema import ShardReader, requests_of

    with ShardReader(shard) as reader:
        for batch in reader.batches():
            yield from requests_of(batch, top_k)
