"""Choosing one of many prompts: what the choice costs by halving and by giving each as many users, at the same budget."""

from __future__ import annotations

import numpy as np

from llmrank.experiment.statistics.halving import next_contenders, rankings, schedule, survivors
from simulations.rows import Row, mean, share
from simulations.users import ndcg, true_mean

SPREAD = 0.15
"""The standard deviation of prompts' effects; some 0.03 in NDCG@10."""


def halving(experiments: int, seed: int) -> list[Row]:
    """Regret: how much worse the chosen prompt truly is than the best one."""
    rows = []
    for variants, budget in ((8, 800), (16, 1600), (16, 4800)):
        generator = np.random.default_rng(seed + budget)
        rounds = schedule(variants, budget)
        each = budget // variants
        regrets: dict[str, list[float]] = {"halving": [], "uniform": []}
        flattered = []
        for _ in range(experiments):
            effects = SPREAD * generator.normal(size=variants)
            truth = np.array([true_mean(effect) for effect in effects.tolist()])
            values = ndcg(generator, (max(rounds[-1].users, each),), effects)
            names = [str(number) for number in range(variants)]
            left = tuple(names)
            for place, current in enumerate(rounds):
                means = {name: float(values[: current.users, int(name)].mean()) for name in left}
                keep = rounds[place + 1].contenders if place + 1 < len(rounds) else 1
                left = survivors(means, keep)
            regrets["halving"].append(float(truth.max() - truth[int(left[0])]))
            flattered.append(means[left[0]] - truth[int(left[0])])
            chosen = survivors(dict(zip(names, values[:each].mean(axis=0).tolist(), strict=True)), 1)
            regrets["uniform"].append(float(truth.max() - truth[int(chosen[0])]))
        what = f"{variants} prompts, {budget:,} rankings: "
        expected = " -> ".join(f"{current.contenders} x {current.users}" for current in rounds)
        both = np.array(regrets["halving"]), np.array(regrets["uniform"])
        rows += [
            mean(what + "regret of halving", both[0], f"{expected} users; below uniform", digits=4),
            mean(what + "regret of uniform allocation", both[1], f"{each} users each", digits=4),
            mean(what + "halving less uniform, paired", both[0] - both[1], "below 0", digits=4),
            share(what + "best one chosen by halving", both[0] == 0, "more than by uniform"),
            share(what + "best one chosen by uniform allocation", both[1] == 0),
            mean(what + "the winner's development mean beyond its true one", flattered, "above 0", digits=4),
        ]
        if not rankings(rounds) <= budget or next_contenders(rounds[-1].contenders) != 1:
            raise AssertionError("the race is not what it is to be")
    return rows
