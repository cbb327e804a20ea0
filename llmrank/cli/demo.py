"""`llmrank demo`: a number of users goes in; their films, ranked by the embedded model, and how good that is come out."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmrank.progress import progress
from llmrank.types import Item, Ranking, Usage

if TYPE_CHECKING:
    from rich.console import Console

    from llmrank.catalog import Catalog
    from llmrank.evaluation.cases import Case

SHOWN_USERS = 3
SHOWN_PLACES = 10
HISTORY = 10
CANDIDATES = 20
DEFAULT_USERS = 10
"""As many as take about a minute on two cores."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of the summary."""

    name: str
    of: Callable[[Sequence[str], Sequence[str]], float]
    random: float
    """What a random order has on average, exactly."""


def demo(
    users: Annotated[int, typer.Option("--users", "-n", min=1, help="How many users to rank for.")] = DEFAULT_USERS,
    seed: Annotated[int, typer.Option("--seed", help="Another seed takes other users and candidates.")] = 0,
) -> None:
    """Rank real users' films with a small language model in this process: no key, no GPU, no server."""
    from rich.console import Console

    from llmrank.assets import cache_dir, fetch_weights
    from llmrank.backends.local import LocalOptions
    from llmrank.evaluation.data import movielens
    from llmrank.evaluation.data.protocol import CandidateOptions, ProtocolOptions, make_cases
    from llmrank.ranker import Ranker

    console = Console(highlight=False)
    data = movielens.load()
    fetch_weights(LocalOptions().model)  # before the progress bar of the run, because it has one of its own
    protocol = ProtocolOptions(users=users, candidates=CandidateOptions(n=CANDIDATES))
    split = make_cases(protocol, catalog=data.catalog, interactions=data.interactions, seed=seed)
    cases = list(split.cases)
    counts = split.training.counts if split.training is not None else Counter()
    config: dict[str, Any] = {
        "backend": {"kind": "local"},
        "prompt": {
            "template": "likelihood/next-line",
            "history": HISTORY,
            "fields": ["title", "year", "genres"],
            "variables": {"domain": "movies"},
        },
        "strategy": {"kind": "likelihood"},
        "cache": {"path": str(cache_dir() / "demo.sqlite")},
    }
    start = time.perf_counter()
    rankings = []
    title = f"ranking {CANDIDATES} films for each of {len(cases)} users"
    with Ranker.from_config(config, catalog=data.catalog) as ranker, progress(title, "items") as report:
        report(0, len(cases))
        for ranking in ranker.rank_many(case.request for case in cases):
            rankings.append(ranking.raise_for_status())
            report(len(rankings), len(cases))
    seconds = time.perf_counter() - start
    for case, ranking in list(zip(cases, rankings, strict=True))[:SHOWN_USERS]:
        _show_user(console, data.catalog, case, ranking)
    _show_summary(console, cases, rankings, counts)
    _show_cost(console, rankings, seconds, more=split.count < split.population)


def _show_user(console: Console, catalog: Catalog, case: Case, ranking: Ranking) -> None:
    """The end of the history, the first places of the ranking, and where the film watched next landed."""
    from rich.rule import Rule
    from rich.table import Table
    from rich.text import Text

    places = {item_id: place for place, item_id in enumerate(ranking.item_ids, start=1)}
    target = case.relevant[0]
    console.print(Rule(f"user {case.user_id}", align="left"))
    console.print(f"watched {len(case.history)} films before; the last {len(case.history[-HISTORY:])}, in order:")
    for item_id in case.history[-HISTORY:]:
        console.print(Text(f"     {_line(catalog[item_id])}"), overflow="ellipsis", no_wrap=True)
    console.print(f"the model's ranking of {len(ranking.items)} candidates:")
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", width=4)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for each in ranking.items:
        if each.rank > SHOWN_PLACES and each.id != target:
            continue
        if each.rank > SHOWN_PLACES + 1:
            table.add_row("", "...")
        style = "bold green" if each.id == target else ""
        table.add_row(Text(f"{each.rank}.", style), Text(_line(each.item), style))
        if each.id == target:
            table.add_row("", Text("^ watched next", style))
    console.print(table)
    console.print(f"the film watched next is at place {places[target]} of {len(places)}\n")


def _line(item: Item) -> str:
    year = f" ({item.attributes['year']})" if "year" in item.attributes else ""
    genres = item.attributes.get("genres")
    return f"{item.title}{year}" + (f" - {', '.join(map(str, genres))}" if isinstance(genres, list | tuple) else "")


def _measures() -> list[Measure]:
    from llmrank.evaluation.measures.metrics import expected_ndcg_at, hit_rate_at, ndcg_at

    hits = [Measure(f"hit@{k}", partial(_at, hit_rate_at, k), k / CANDIDATES) for k in (1, 3, 5)]
    return [Measure("NDCG@10", partial(_at, ndcg_at, 10), expected_ndcg_at(CANDIDATES, 10)), *hits]


def _at(
    metric: Callable[[Sequence[str], Sequence[str], int], float], k: int, ranking: Sequence[str], relevant: Sequence[str]
) -> float:
    return metric(ranking, relevant, k)


def _show_summary(console: Console, cases: Sequence[Case], rankings: Sequence[Ranking], counts: Counter[str]) -> None:
    """How good the model's order is, beside popularity and a random order."""
    from rich.table import Table

    orders: Mapping[str, list[list[str]]] = {
        "language model": [ranking.item_ids for ranking in rankings],
        "popularity": [sorted(case.candidates or (), key=lambda item_id: -counts[item_id]) for case in cases],
    }
    measures = _measures()
    table = Table(title=f"{len(cases)} users, mean +- standard error, in %", title_justify="left")
    table.add_column("ordered by")
    for measure in measures:
        table.add_column(measure.name, justify="right")
    for name, ranked in orders.items():
        cells = [
            _mean([measure.of(ids, case.relevant) for ids, case in zip(ranked, cases, strict=True)]) for measure in measures
        ]
        table.add_row(name, *cells)
    table.add_row("chance (exact)", *(f"{100 * measure.random:.1f}       " for measure in measures))
    console.print(table)


def _mean(values: Sequence[float]) -> str:
    """Mean and standard error, in percent; one value has no standard error."""
    error = f"{100 * statistics.stdev(values) / len(values) ** 0.5:4.1f}" if len(values) > 1 else "   ?"
    return f"{100 * statistics.fmean(values):.1f} +- {error}"


def _show_cost(console: Console, rankings: Sequence[Ranking], seconds: float, *, more: bool) -> None:
    """What it took, and what to make of so few users."""
    usage = sum((ranking.usage for ranking in rankings), Usage())
    kept = sum(ranking.usage.calls == 0 for ranking in rankings)
    computed = len(rankings) - kept
    pace = f", {seconds / computed:.1f} s a user" if computed else ""
    known = f"; {kept} of {len(rankings)} users answered from the cache" if kept else ""
    console.print(f"\n{seconds:.1f} s{pace}; {usage.total_tokens:,} tokens computed{known}")
    console.print(f"model: {rankings[0].model}; prompt: likelihood/next-line {rankings[0].fingerprint}")
    if more:
        console.print(
            "With so few users the intervals are wide: twice the standard error to either side. For narrower ones run "
            "`make demo USERS=200` (or `llmrank demo --users 200`); users that are done come from the cache."
        )
