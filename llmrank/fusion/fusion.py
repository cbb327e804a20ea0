"""An order from the model and the scores of other parts go in, one order and what each part gave to it come out.

What the parts give is added up, and the sums order the candidates; see `combination` for who says what they give. Of the model
often only an order is known. Such a part counts by linear rank scores, n for the first to 1 for the last (Borda count; Aslam
and Montague, "Models for metasearch", SIGIR 2001). Reciprocal ranks with the usual constant, 1/(60 + rank), lie close to a
line over the few candidates that a model sees, so that they would give nearly the same after normalisation, with a constant
more.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from llmrank.errors import ConfigError, nearest
from llmrank.fusion.combination import Combination
from llmrank.fusion.weighted import Band, Method, WeightedSum
from llmrank.types import Ranking

LLM = "llm"
PARTS = (LLM, "prefilter")
"""The parts of a Ranker without retrievers. `llm` is the model's order, the others are retrievers by their `name`."""


@dataclass(frozen=True, slots=True)
class Fused:
    """One candidate at its new place.

    Attributes:
        position: Where it stood in the model's order, from 0.
        score: The sum of `parts`; higher is better, 0 is the average candidate.
        parts: What each part gave: its weight times its normalised score.
    """

    position: int
    score: float
    parts: Mapping[str, float] = field(hash=False)


class Fusion:
    """Orders candidates by the sum of what the parts give; by weights, or by any `Combination` (`Fusion.of`).

    Args:
        weights: A weight for each part; parts left out weigh 0. A negative one counts against what the part ranks high.
        parts: The parts that exist.
        method: How scores of different scales are made comparable; see `WeightedSum`.

    Raises:
        ConfigError: an unknown part, a weight that is not a finite number, or none above 0; there is no such method.
    """

    def __init__(self, weights: Mapping[str, float], parts: Sequence[str] = PARTS, *, method: Method = "zscore") -> None:
        for name in weights:
            if name not in parts:
                raise ConfigError("there is no such part", field="fusion", value=name, fix=nearest(str(name), parts))
        self.combination: Combination = WeightedSum((Band(weights),), method)

    @classmethod
    def of(cls, combination: Combination) -> Self:
        """A Fusion by something else than one weight a part: weights by length of history, or what was learned."""
        made = cls.__new__(cls)
        made.combination = combination
        return made

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that count."""
        return self.combination.parts

    @property
    def needs(self) -> frozenset[str]:
        """The parts besides the model that must score the candidates."""
        return frozenset(self.parts) - {LLM}

    def fuse(self, scores: Mapping[str, Sequence[float] | None], count: int, history_length: int) -> tuple[Fused, ...]:
        """Orders the candidates anew; equal sums stand in the model's order.

        Args:
            scores: For each part one score a candidate, higher is better, in the model's order; None for a part of which
                only the order is known, and that order is the model's. Parts that do not count are not looked at.
            count: How many candidates there are.
            history_length: How many events the user's history has.

        Returns:
            All of them, best first.

        Raises:
            ConfigError: a part that counts has no scores.
            ValueError: not one finite score a candidate.
        """
        given = self.combination.contributions({name: _scores(name, scores, count) for name in self.parts}, history_length)
        rows = zip(*given.values(), strict=True) if given else ((),) * count
        fused = [
            Fused(position, math.fsum(row), MappingProxyType(dict(zip(given, row, strict=True))))
            for position, row in enumerate(rows)
        ]
        if isinstance(self.combination, WeightedSum) and set(given) == {LLM}:
            return tuple(fused)  # the model's own order, even where its scores do not tell it
        return tuple(sorted(fused, key=lambda one: (-one.score, one.position)))

    def apply(self, ranking: Ranking, scores: Mapping[str, Sequence[float]], history_length: int) -> Ranking:
        """A ranking with its items in the new order; on each item the fused score, what the parts gave, and their own scores.

        Items that the model left out of its answer are probably worse than those in it: they get what the last of these gets.
        Nothing is known of items that it was never asked about with success: those that stand ahead of a ranked one (their
        window kept its order), and all that it did not rank if a prompt failed (`Ranking.error`). They get its mean score, so
        that its part is 0 for them. Where it ranked none (status ``fallback`` or ``error``) its part is 0 for all: an order
        that is not the model's earns none of its weight. Items at places that it was not asked to put in order
        (`Ranking.depth`) share one score, the mean of their linear rank scores.

        Args:
            ranking: The model's, with all of its items.
            scores: For each other part one score an item, in the ranking's order. Those of parts that do not count stand on
                the items, too.
            history_length: How many events the user's history has.

        Raises:
            ConfigError: a part that counts has no scores.
        """
        known = {LLM: _model_scores(ranking), **scores}
        items = []
        for rank, one in enumerate(self.fuse(known, len(ranking.items), history_length), start=1):
            own = MappingProxyType({name: float(values[one.position]) for name, values in known.items()})
            items.append(replace(ranking.items[one.position], rank=rank, score=one.score, parts=one.parts, scores=own))
        return replace(ranking, items=tuple(items), depth=None)


def _scores(name: str, scores: Mapping[str, Sequence[float] | None], count: int) -> Sequence[float]:
    """One score a candidate, or linear ranks where only the order is known."""
    if name not in scores:
        raise ConfigError(
            "it counts, and nothing gives its scores",
            field=f"fusion.{name}",
            value=sorted(scores),
            fix=f"configure {name}, or leave its weight out",
        )
    values = scores[name]
    if values is None:
        return range(count, 0, -1)
    if len(values) != count:
        raise ValueError(f"{name} gives {len(values)} scores for {count} candidates")
    return [float(value) for value in values]


def _model_scores(ranking: Ranking) -> list[float]:
    """The model's scores in its order: its own if each item it ranked has one, else linear in the rank (see `Fusion.apply`)."""
    items = ranking.items
    places = [place for place, item in enumerate(items) if item.ranked_by == "model"]
    own = [score for place in places if (score := items[place].score) is not None]
    if len(own) < len(places):
        own = [float(len(items) - place) for place in range(len(places))]
        ordered = bisect_left(places, ranking.depth) if ranking.depth is not None else len(places)
        if behind := own[ordered:]:
            own[ordered:] = [math.fsum(behind) / len(behind)] * len(behind)
    if not own:
        return [0.0] * len(items)
    mean = math.fsum(score / len(own) for score in own)  # divided first: a sum of large scores would overflow
    left_out = mean if ranking.error is not None else min(own)
    scores = dict(zip(places, own, strict=True))
    return [scores.get(place, left_out if place > places[-1] else mean) for place in range(len(items))]
