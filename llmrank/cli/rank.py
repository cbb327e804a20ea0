"""`llmrank rank`: a configuration, an item file and a request (or a file of them) go in; rankings come out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer

from llmrank.cli.dry_run import forecast_rank
from llmrank.cli.embed import prepare
from llmrank.cli.prefix_cache import PrefixCacheWatch
from llmrank.cli.requests import rereadable
from llmrank.cli.shards import ENGINES, KEEP, ShardArguments, rank_as_shards
from llmrank.errors import RequestError
from llmrank.evaluation.cases import json_line, read_requests
from llmrank.evaluation.records import ranking_record
from llmrank.forecast import money
from llmrank.prices import FREE, VARIABLE, Prices
from llmrank.progress import progress
from llmrank.ranker import Ranker
from llmrank.resolve import resolve
from llmrank.types import Constraint, Ranking, RankRequest, Usage, Wish


def rank(
    config: Annotated[Path, typer.Option("--config", "-c", help="The ranker's YAML file.")],
    items: Annotated[Path | None, typer.Option("--items", help="Item file: JSONL, CSV or Parquet with id and title.")] = None,
    history: Annotated[str, typer.Option("--history", help="Item ids, oldest first, with commas between.")] = "",
    candidates: Annotated[
        str | None, typer.Option("--candidates", help="Item ids with commas between; left out: the whole catalogue.")
    ] = None,
    query: Annotated[str | None, typer.Option("--query", "-q", help="What the user says they want.")] = None,
    constraint: Annotated[
        list[str] | None,
        typer.Option(
            "--constraint", help="What every item shown has to be: 'year>=1990', 'genres in Comedy, Drama'; may be given again."
        ),
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", "-k", min=1, help="How many items to show.")] = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            "--cases",
            help="Requests (user_id, history, candidates, query, constraints) to rank: JSONL, Parquet, or a folder of them.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the rankings of --cases go (JSONL; for shards a folder); else stdout."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
    show_prompt: Annotated[bool, typer.Option("--show-prompt", help="Print what the model read and answered.")] = False,
    engine: Annotated[
        str | None, typer.Option("--engine", help=f"Rank --cases in shards that resume: {' or '.join(ENGINES)}.")
    ] = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="shards: how many users of a JSONL file each has.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="ray: how many workers, a Ranker each.")] = None,
    gpus: Annotated[float | None, typer.Option("--gpus", min=0, help="ray: how many GPUs a worker takes.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="ray: the cluster's; left out: one on this machine.")] = None,
    keep: Annotated[str | None, typer.Option("--keep", help=f"shards: {', '.join(KEEP)}; what is kept of a ranking.")] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="shards: ask again for the users that a backend failed.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="shards: rank again what is there already.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take, and ask nothing: no key, server or weights are needed.")
    ] = False,
    prices: Annotated[
        Path | None,
        typer.Option("--prices", help=f"What models cost (YAML or JSON), ahead of ${VARIABLE} and the packaged table."),
    ] = None,
) -> None:
    """Rank candidates for one user, or for every line of a file."""
    single = {"--history": history, "--candidates": candidates, "--query": query, "--constraint": constraint}
    if cases is not None:
        given = [name for name, value in single.items() if value]
        if given:
            raise RequestError("cannot be joined with --cases", field=given[0], fix="give one request, or a file of them")
    conditions = tuple(map(_constraint, constraint or ()))
    table = Prices.load(prices)
    shards = ShardArguments(engine, rows, workers, gpus, address, keep, retry_errors, overwrite)
    if dry_run:
        shards.refuse("a dry run ranks nothing: leave it out")
        for field, value in (("--out", out), ("--show-prompt", show_prompt)):
            if value:
                fix = "leave it out; > FILE keeps what is printed" if field == "--out" else "leave it out"
                named = None if value is True else str(value)
                raise RequestError("a dry run ranks nothing", field=field, value=named, fix=fix)
        request = _request(history, candidates, query, top_k, conditions)
        forecast_rank(config, items, request if cases is None else cases, top_k, table, as_json=as_json)
        return
    if shards.wanted(cases):
        raise typer.Exit(rank_as_shards(config, items, cases, out, top_k, shards, table))
    shards.refuse()
    if cases is not None:
        if out is not None and any(_same(path, cases) for path in (out, _part(out))):
            raise RequestError("would overwrite --cases", field="--out", value=str(out), fix="name another file")
    elif out is not None:
        raise RequestError("goes with --cases", field="--out", value=str(out), fix="or send the output to a file yourself")
    with Ranker.from_config(config, catalog=items) as ranker:
        if ranker.catalog is None:
            raise RequestError("are needed to look ids up", field="--items", fix="name an item file here or under `catalog`")
        if cases is not None:
            cache = PrefixCacheWatch(ranker)
            status = _rank_file(ranker, cases, out, top_k, table)
            cache.tell()
            raise typer.Exit(status)
        request = _request(history, candidates, query, top_k, conditions)
        resolve(request, ranker.catalog)  # a mistyped id is found before a catalogue is embedded
        if candidates is None:
            _prepare(ranker)
        cache = PrefixCacheWatch(ranker)
        ranking = ranker.rank(request.history, request.candidates, query, top_k, constraints=conditions)
        bill = _bill(ranker, ranking.usage, table)
        order = "the order given" if ranker.prefilter is None else "prefilter order"
    if as_json:
        sys.stdout.write(json_line(ranking_record(ranking), sys.stdout.encoding))
    else:
        _print(ranking, show_prompt, bill, order)
    cache.tell()
    raise typer.Exit(1 if ranking.status == "error" else 0)


def _request(
    history: str, candidates: str | None, query: str | None, top_k: int | None, constraints: tuple[Constraint, ...]
) -> RankRequest:
    listed = None if candidates is None else _ids(candidates)
    return RankRequest(_ids(history), listed, query, top_k=top_k, constraints=constraints)


def _constraint(text: str) -> Constraint:
    try:
        return Constraint.parse(text)
    except RequestError as error:
        raise RequestError(error.message, field="--constraint", value=text, fix=error.fix) from error


def _ids(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _bill(ranker: Ranker, usage: Usage, prices: Prices) -> str:
    """What a usage costs, where somebody sends a bill and the price is known; else empty."""
    price = prices.at_backend(ranker.backend.kind, ranker.backend.model)
    usd = None if price is None or price is FREE else price.usd(usage)
    return "" if usd is None else f"; {money(usd)} USD"


def _rank_file(ranker: Ranker, cases: Path, out: Path | None, top_k: int | None, prices: Prices) -> int:
    with rereadable(cases) as path:
        # A first pass, so that a bad line is found before anything is paid for.
        whole = [request.candidates is None for request in read_requests(path, name=str(cases))]
        if any(whole):
            _prepare(ranker)
        rankings = ranker.rank_many(read_requests(path, top_k=top_k, name=str(cases)))

        def bill(usage: Usage) -> str:
            return _bill(ranker, usage, prices)

        return _write(rankings, len(whole), sys.stdout, bill) if out is None else _write_file(rankings, len(whole), out, bill)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False  # one of them is not there


def _part(out: Path) -> Path:
    return out.with_name(out.name + ".part")


def _write_file(rankings: Iterator[Ranking], total: int, out: Path, bill: Callable[[Usage], str]) -> int:
    # Written beside and renamed at the end: a run that is broken off leaves no half file under the name asked for.
    part = _part(out)
    try:
        with part.open("w", encoding="utf-8") as file:
            status = _write(rankings, total, file, bill)
        part.replace(out)
    except OSError as error:
        raise RequestError(
            f"cannot be written ({error.strerror})", field="--out", value=str(out), fix="check the path"
        ) from error
    return status


def _prepare(ranker: Ranker) -> None:
    """Embeds the catalogue with a progress bar, rather than silently inside the first request for all of it."""
    if ranker.prefilter is not None and ranker.prefilter.embedding is not None:
        prepare(ranker.prefilter.embedding)


def _write(rankings: Iterator[Ranking], total: int, file: TextIO, bill: Callable[[Usage], str]) -> int:
    statuses: Counter[str] = Counter()
    usage = Usage()
    with progress("ranking", "items") as report:
        for ranking in rankings:
            file.write(json_line(ranking_record(ranking), file.encoding))
            statuses[ranking.status] += 1
            usage += ranking.usage
            report(statuses.total(), total)
    counts = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    typer.echo(f"{statuses.total()} ranked: {counts or 'none'}", err=True)
    typer.echo(_took(usage) + bill(usage), err=True)
    return 1 if statuses["error"] else 0


def _took(usage: Usage) -> str:
    return (
        f"{usage.calls:,} calls, {usage.cache_hits:,} cached; "
        f"{usage.prompt_tokens:,} prompt + {usage.completion_tokens:,} answer tokens"
    )


def _wish(wish: Wish) -> list[str]:
    """What was read from a query, for people."""
    parts = {
        "wanted": wish.wishes,
        "like": wish.like,
        "not wanted": wish.dislikes,
        "constraints": tuple(map(str, wish.constraints)),
    }
    return [f"{name}: {'; '.join(values)}" for name, values in parts.items() if values]


def _print(ranking: Ranking, show_prompt: bool, bill: str, order: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if show_prompt:
        for number, exchange in enumerate(ranking.trace, start=1):
            console.rule(f"prompt {number}")
            shown = [f"[{each.role}]\n{each.content}\n" for each in exchange.prompt.messages] or [exchange.prompt.prefix]
            answer = exchange.answer
            shown.append(f"[answer]\n{answer if isinstance(answer, Exception) else answer.text or answer.scores}")
            console.print(Text("\n".join(shown)))  # Text: item titles are not markup
        console.rule()
    table = Table("rank", "id", "title", "score", box=None, header_style="bold")
    for each in ranking.items:
        mark = "" if each.ranked_by == "model" else " *"
        table.add_row(f"{each.rank}{mark}", Text(each.id), Text(each.title), "" if each.score is None else f"{each.score:.3f}")
    console.print(table)
    usage = ranking.usage
    lines = [
        f"status {ranking.status}; {ranking.strategy} with {ranking.model}; prompt {ranking.fingerprint}",
        f"{_took(usage)}; {usage.seconds:.1f} s{bill}",
        *([] if ranking.stability is None else [f"stability {ranking.stability:.2f} (Kendall tau between shuffles)"]),
        *([] if ranking.wish is None else _wish(ranking.wish)),
        *(f"repaired: {repair}" for repair in ranking.repairs),
        *(f"note: {note}" for note in ranking.notes),
    ]
    if ranking.cut.history:
        lines.append(f"cut: the {ranking.cut.history} oldest events, for which the model's window is too small")
    if ranking.cut.item_texts:
        lines.append(f"cut: the texts of {len(ranking.cut.item_texts)} items were shortened")
    if ranking.cut.assumed_window:
        lines.append(f"assumed: a window of {ranking.cut.assumed_window} tokens; backend.context_window names the right one")
    if ranking.invented:
        lines.append(f"named, but no candidates: {', '.join(ranking.invented[:10])}")
    if ranking.cut.constrained:
        lines.append(f"left out: {ranking.cut.constrained:,} that do not meet the constraints")
    if ranking.cut.seen or ranking.cut.prefiltered:
        lines.append(f"left out: {len(ranking.cut.seen)} seen, {ranking.cut.prefiltered} by the prefilter")
    if ranking.filled:
        lines.append(f"* not ranked by the model, in {order}: {', '.join(ranking.filled[:10])}")
    if ranking.error is not None:
        lines.append(f"error: {ranking.error}")
    for line in lines:
        console.print(Text(line))
