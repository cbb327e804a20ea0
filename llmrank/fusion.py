"""An order from the model and the scores of other parts go in, one order and what each part gave to it come out.

Each part's scores are brought to mean 0 and standard deviation 1 over the candidates, weighted and added (Montague and
Aslam, "Relevance score normalization for metasearch", CIKM 2001: zero-mean, unit-variance). A part of which only an order
is known counts by linear rank scores, n for the first to 1 for the last (Borda count; Aslam and Montague, "Models for
metasearch", SIGIR 2001). Reciprocal ranks with the usual constant, 1/(60 + rank), lie close to a line over the few
candidates that a model sees, so that they would give nearly the same after normalisation, with a constant more.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from llmrank.errors import ConfigError, nearest
from llmrank.types import Ranking

LLM = "llm"
PARTS = (LLM, "prefilter")
"""The parts that can be weighted. `llm` is the model's order, the others are retrievers by their `name`."""


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
    """A weighted sum of normalised scores.

    Args:
        weights: A weight for each part; parts left out weigh 0. A negative one counts against what the part ranks high.
        parts: The parts that exist.

    Raises:
        ConfigError: an unknown part, a weight that is not a finite number, or none above 0.
    """

    def __init__(self, weights: Mapping[str, float], parts: Sequence[str] = PARTS) -> None:
        for name, weight in weights.items():
            if name not in parts:
                raise ConfigError("there is no such part", field="fusion", value=name, fix=nearest(str(name), parts))
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise ConfigError("must be a finite number", field=f"fusion.{name}", value=weight, fix="give a number like 1.0")
        if not any(weight > 0 for weight in weights.values()):
            raise ConfigError("no part has a weight above 0", field="fusion", value=dict(weights), fix="write {llm: 1.0}")
        self.weights: Mapping[str, float] = MappingProxyType(
            {name: float(weight) for name, weight in weights.items() if weight}
        )

    @property
    def needs(self) -> frozenset[str]:
        """The parts besides the model that must score the candidates."""
        return frozenset(self.weights) - {LLM}

    def fuse(self, scores: Mapping[str, Sequence[float] | None], count: int) -> tuple[Fused, ...]:
        """Orders the candidates anew; equal sums stand in the model's order.

        Args:
            scores: For each part one score a candidate, higher is better, in the model's order; None for a part of which
                only the order is known, and that order is the model's. Parts without weight are not looked at.
            count: How many candidates there are.

        Returns:
            All of them, best first.

        Raises:
            ConfigError: a part with a weight has no scores.
            ValueError: not one finite score a candidate.
        """
        normalised = {name: self._normalised(name, scores, count) for name in self.weights}
        fused = []
        for position in range(count):
            parts = {name: weight * normalised[name][position] for name, weight in self.weights.items()}
            fused.append(Fused(position, math.fsum(parts.values()), MappingProxyType(parts)))
        if set(self.weights) == {LLM}:
            return tuple(fused)  # its own order, even where its scores do not tell it
        return tuple(sorted(fused, key=lambda one: (-one.score, one.position)))

    def apply(self, ranking: Ranking, scores: Mapping[str, Sequence[float]]) -> Ranking:
        """A ranking with its items in the new order, and on each item the fused score and its parts.

        Items that the model left out of its answer are probably worse than those in it: they get what the last of these gets.
        Nothing is known of items that it was never asked about with success: those that stand ahead of a ranked one (their
        window kept its order), and all that it did not rank if a prompt failed (`Ranking.error`). They get its mean score, so
        that its part is 0 for them. Where it ranked none (status ``fallback`` or ``error``) its part is 0 for all: an order
        that is not the model's earns none of its weight. Items at places that it was not asked to put in order
        (`Ranking.depth`) share one score, the mean of their linear rank scores.

        Args:
            ranking: The model's, with all of its items.
            scores: For each other part one score an item, in the ranking's order.

        Raises:
            ConfigError: a part with a weight has no scores.
        """
        own = _model_scores(ranking)
        fused = self.fuse({**scores, LLM: own}, len(ranking.items))
        items = (
            replace(ranking.items[one.position], rank=rank, score=one.score, parts=one.parts)
            for rank, one in enumerate(fused, start=1)
        )
        return replace(ranking, items=tuple(items), depth=None)

    def _normalised(self, name: str, scores: Mapping[str, Sequence[float] | None], count: int) -> list[float]:
        if name not in scores:
            raise ConfigError(
                "it has a weight, and nothing gives its scores",
                field=f"fusion.{name}",
                value=self.weights[name],
                fix=f"configure {name}, or leave its weight out",
            )
        values = scores[name]
        if values is None:
            return z_scores(range(count, 0, -1))
        if len(values) != count:
            raise ValueError(f"{name} gives {len(values)} scores for {count} candidates")
        return z_scores(values)


def z_scores(values: Sequence[float]) -> list[float]:
    """The values with mean 0 and standard deviation 1 (of the population); zeros if they are all equal.

    Raises:
        ValueError: a value is infinite or not a number.
    """
    if not all(math.isfinite(value) for value in values):
        raise ValueError("a score is infinite or not a number")
    if not values or min(values) == max(values):
        return [0.0] * len(values)
    # Brought to 0..1 first: squares of very large or small scores would overflow, or vanish and divide by zero.
    half = max(abs(value) for value in values)
    scaled = [value / half for value in values]
    low, span = min(scaled), max(scaled) - min(scaled)
    spread = [(value - low) / span for value in scaled]
    mean = math.fsum(spread) / len(spread)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in spread) / len(spread))
    return [(value - mean) / deviation for value in spread]


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
