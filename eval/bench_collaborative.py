"""Interactions and cases go in; how well each collaborative model ranks them, how long it trains and scores, come out.

Run it from the root of the repository::

    python eval/bench_collaborative.py --interactions FILE --items FILE --cases FILE [--only item-knn,ease] [--set l2=500 ...]
    python eval/bench_collaborative.py --interactions FILE --items FILE --hold-out 2000 [--without FILE]

The first form trains on all interactions and ranks the cases' candidates. The second is for choosing options: it hides the
last item of so many random users (none that stands in the cases of `--without`), trains on the rest, and ranks that item
among 19 random ones that its user does not have. `--grid` takes several values: ``--grid decay=0.8,0.9 last=5,10``.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmrank import strict_yaml
from llmrank.catalog import Catalog
from llmrank.evaluation.cases import read_cases
from llmrank.interactions import Interactions
from llmrank.retrieval.collaborative import MODEL_KINDS, train
from llmrank.retrieval.collaborative.histories import histories_of
from llmrank.sections import make
from llmrank.types import Event, Item, ResolvedRequest

CUTOFFS = (1, 5, 10)
NEGATIVES = 19


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and where in its candidates the one relevant item stands."""

    request: ResolvedRequest
    relevant: int


def given(cases: Path, catalog: Catalog) -> Iterator[Question]:
    """The cases of a file with one relevant item each."""
    for case in read_cases(cases):
        candidates = tuple(catalog[item_id] for item_id in case.candidates or ())
        history = tuple(Event(catalog[item_id]) for item_id in case.history)
        relevant = [item.id for item in candidates].index(case.relevant[0])
        yield Question(ResolvedRequest(history, candidates, user_id=case.user_id), relevant)


def held_out(
    interactions: Interactions, catalog: Catalog, users: int, seed: int, without: set[str]
) -> tuple[Interactions, list[Question]]:
    """The interactions without the last item of so many users, and the questions for those items."""
    histories = histories_of(interactions)
    random = np.random.default_rng(seed)
    long_enough = np.flatnonzero(np.diff(histories.starts) >= 2).tolist()
    allowed = [user for user in long_enough if interactions.users[user] not in without]
    items = [Item(item_id, "") if item_id not in catalog else catalog[item_id] for item_id in interactions.items]
    order = (
        np.argsort(interactions.user, kind="stable")
        if interactions.timestamp is None
        else np.lexsort((interactions.timestamp, interactions.user))
    )
    hidden, questions = [], []
    for user in sorted(random.choice(allowed, users, replace=False).tolist()):
        start, end = histories.starts[user], histories.starts[user + 1]
        own = [items[at] for at in histories.columns[start:end].tolist()]
        target, has = own[-1], {item.id for item in own}
        if target.id in {item.id for item in own[:-1]}:
            continue
        hidden.append(order[end - 1])
        drawn = (catalog.items[at] for at in random.permutation(len(catalog))[: NEGATIVES + len(has)].tolist())
        candidates = [target, *itertools.islice((item for item in drawn if item.id not in has), NEGATIVES)]
        request = ResolvedRequest(tuple(map(Event, own[:-1])), tuple(candidates), user_id=interactions.users[user])
        questions.append(Question(request, 0))
    keep = np.ones(len(interactions), dtype=bool)
    keep[hidden] = False
    times = None if interactions.timestamp is None else interactions.timestamp[keep]
    rest = Interactions(interactions.users, interactions.items, interactions.user[keep], interactions.item[keep], times)
    return rest, questions


def gains(scores: Any, relevant: int) -> list[float]:
    """NDCG at the cutoffs for one relevant item; over all orders of candidates with equal scores their mean."""
    better = int((scores > scores[relevant]).sum())
    equal = int((scores == scores[relevant]).sum())
    places = np.arange(better + 1, better + equal + 1)
    return [float(np.where(places <= k, 1 / np.log2(places + 1), 0.0).mean()) for k in CUTOFFS]


def measure(kind: str, options: Mapping[str, Any], interactions: Interactions, questions: Sequence[Question]) -> str:
    """One row of the table."""
    begun = time.perf_counter()
    model = train(kind, interactions, make(MODEL_KINDS[kind].options_type, options, kind))
    trained = time.perf_counter() - begun
    begun = time.perf_counter()
    scores = [model.score(question.request, question.request.candidates) for question in questions]
    each = (time.perf_counter() - begun) / len(questions)
    found = np.array([gains(row, question.relevant) for row, question in zip(scores, questions, strict=True)])
    mean, error = 100 * found.mean(axis=0), 100 * found[:, -1].std() / np.sqrt(len(found))
    said = ", ".join(f"{name} {value}" for name, value in options.items()) or "defaults"
    figures = " | ".join(f"{value:.2f}" for value in mean)
    return f"| {kind} | {said} | {figures} | {error:.2f} | {trained:.1f} | {1000 * each:.2f} |"


def settings(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All combinations of ``key=value,value``."""
    names = [text.partition("=")[0] for text in texts]
    values = [[strict_yaml.load(value) for value in text.partition("=")[2].split(",")] for text in texts]
    for chosen in itertools.product(*values):
        yield dict(zip(names, chosen, strict=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a row for each kind and setting."""
    parser = argparse.ArgumentParser(description="quality and speed of collaborative models")
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--cases", type=Path, help="cases to rank, one relevant item each")
    parser.add_argument("--hold-out", type=int, help="instead: the last items of so many users")
    parser.add_argument("--without", type=Path, help="cases whose users are not held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(MODEL_KINDS), help="kinds, with commas between")
    parser.add_argument("--grid", nargs="*", default=[], metavar="KEY=VALUE,VALUE", help="options; all combinations are tried")
    chosen = parser.parse_args(arguments)
    if (chosen.cases is None) == (chosen.hold_out is None):
        parser.error("give --cases or --hold-out")
    interactions, catalog = Interactions.load(chosen.interactions), Catalog.load(chosen.items)
    if chosen.cases is not None:
        questions = list(given(chosen.cases, catalog))
    else:
        without = set() if chosen.without is None else {case.user_id for case in read_cases(chosen.without)}
        interactions, questions = held_out(interactions, catalog, chosen.hold_out, chosen.seed, without)
    print(f"{len(questions):,} users; trained on {len(interactions):,} interactions of {len(interactions.users):,} users")
    print("| kind | options | " + " | ".join(f"NDCG@{k}" for k in CUTOFFS) + f" | s.e.@{CUTOFFS[-1]} | train s | ms a user |")
    print("|---|---|" + "---|" * (len(CUTOFFS) + 3))
    for kind in chosen.only.split(","):
        for options in settings(chosen.grid):
            print(measure(kind, options, interactions, questions), flush=True)


if __name__ == "__main__":
    main()
