"""Folders of evaluation runs go in; how much a model's labels follow their places, and how much what stands there, comes out.

Run: ``python eval/calibration.py .cache/runs/strategies-ml-100k --ranker single-token --ranker calibrated``

For rankers that read one probability a label (``single-token``, and ``calibrated`` around it). A label's log-probability varies
between places (its mean over users differs from place to place, which no title can be the reason of, for candidates are shown
in random order) and at one place between users (which titles may be the reason of). A calibration works as far as the first is
small beside the second. "others' mean off" is the best that a prior of places can do: each half of the users less the means of
the other half ("Batch Calibration", Zhou et al., ICLR 2024, arXiv:2309.17249).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmrank.evaluation import RunFolder
from llmrank.evaluation.measures.bias import kendall_tau

HEAD = (
    "ranker",
    "users",
    "between places",
    "at one place",
    "follows the order shown",
    "NDCG@10",
    "NDCG@10, others' mean off",
)


def main() -> None:
    """Prints a table for each folder."""
    parser = argparse.ArgumentParser(description="What is left of a model's bent for places.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `llmrank eval run`")
    parser.add_argument("--ranker", action="append", required=True, help="one that reads one probability a label; repeatable")
    options = parser.parse_args()
    for path in options.runs:
        print(f"## {path.name}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        for ranker in options.ranker:
            print(f"| {' | '.join([ranker, *row(RunFolder(path), ranker)])} |")
        print()


def row(folder: RunFolder, ranker: str) -> list[str]:
    """The cells of one ranker."""
    relevant = [set(case.relevant) for case in folder.cases()]
    logprobs, targets = [], []
    for result in folder.results(ranker):
        scores = {item["id"]: item.get("score") for item in result["items"]}
        shown = result["shown"]
        places = [place for place, item_id in enumerate(shown) if item_id in relevant[result["case"]]]
        if len(places) == 1 and all(scores.get(item_id) is not None for item_id in shown):
            logprobs.append([scores[item_id] for item_id in shown])
            targets.append(places[0])
    if len({len(each) for each in logprobs}) != 1:
        raise SystemExit(f"{ranker} in {folder.path}: no users, or lists of several lengths; take a suite with one length")
    values, target = np.array(logprobs), np.array(targets)
    others = values.copy()
    half = np.arange(len(values)) % 2 == 0
    others[half] -= values[~half].mean(0)
    others[~half] -= values[half].mean(0)
    return [
        str(len(values)),
        f"{values.mean(0).std():.2f}",
        f"{values.std(0).mean():.2f}",
        f"{np.mean([follows(each) for each in values]):.2f}",
        f"{100 * ndcg(values, target):.1f}",
        f"{100 * ndcg(others, target):.1f}",
    ]


def follows(values: NDArray[np.float64]) -> float:
    """Kendall's tau between the order shown and the order by what was measured at each place."""
    shown = [str(place) for place in range(len(values))]
    return kendall_tau(shown, [shown[place] for place in np.argsort(-values, kind="stable")])


def ndcg(values: NDArray[np.float64], target: NDArray[np.int64]) -> float:
    """Mean NDCG@10 of one relevant item a list; among equals the one shown first stands first."""
    users = np.arange(len(values))
    own = values[users, target][:, None]
    earlier = np.arange(values.shape[1])[None, :] < target[:, None]
    rank = ((values > own) | ((values == own) & earlier)).sum(1)
    return float(np.where(rank < 10, 1 / np.log2(rank + 2), 0.0).mean())


if __name__ == "__main__":
    main()
