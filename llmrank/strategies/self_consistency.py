"""Self-consistency: a strategy ranks several shuffles of the candidates, and the orders that come out become one.

Where an item stands in a prompt sways a model. Over independent shuffles each item stands everywhere, so that this evens out
(permutation self-consistency; Tang et al., "Found in the Middle", NAACL 2024, arXiv:2310.07712).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from llmrank.budget import Budget
from llmrank.errors import ConfigError
from llmrank.protocols import Flow
from llmrank.strategies.aggregate import Aggregate, borda, kemeny, reciprocal_rank
from llmrank.strategies.built import BuiltStrategy
from llmrank.strategies.calls import Calls
from llmrank.strategies.lists import require_at_least
from llmrank.strategies.outcome import join_cuts, ranked
from llmrank.strategies.together import together
from llmrank.types import Capability, Item, Ranking, ResolvedRequest, Status

AggregateBy: TypeAlias = Literal["borda", "rrf", "kemeny"]
"""How several orders become one; `llmrank.strategies.aggregate` tells them apart."""


@dataclass(frozen=True, slots=True)
class SelfConsistencyOptions:
    """How often a list is ranked, and how the orders become one.

    Attributes:
        shuffles: How many shuffles of the candidates are ranked. They are asked side by side.
        aggregate: ``borda`` (mean places), ``rrf`` (reciprocal ranks) or ``kemeny`` (the fewest contradicted pairs).
        seed: Another one gives other shuffles.
        rrf_k: The constant of reciprocal ranks.
    """

    shuffles: int = 5
    aggregate: AggregateBy = "borda"
    seed: int = 0
    rrf_k: int = 60

    def __post_init__(self) -> None:
        require_at_least(self, shuffles=1, rrf_k=0)
        if self.aggregate not in ("borda", "rrf", "kemeny"):
            raise ConfigError("unknown", field="strategy.aggregate", value=self.aggregate, fix="use borda, rrf or kemeny")


class SelfConsistency:
    """Ranks several shuffles of the candidates with `inner` and aggregates the orders.

    The shuffles depend on the seed and the candidates alone, not on the order in which they came, so that order sways nothing
    but ties. `RankedItem.score` is the aggregate's score.

    Args:
        inner: What ranks each shuffle.
        options: How often, and how the orders become one.
    """

    name = "self-consistency"

    def __init__(self, inner: BuiltStrategy, options: SelfConsistencyOptions | None = None) -> None:
        self.inner = inner
        self._options = options or SelfConsistencyOptions()

    @property
    def needs(self) -> frozenset[Capability]:
        """What the inner strategy needs."""
        return self.inner.needs

    @property
    def templates(self) -> Mapping[str, str]:
        """The inner strategy's."""
        return self.inner.templates

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """The inner strategy's prompts, once a shuffle.

        Raises:
            RequestError: the inner strategy refuses so many candidates.
        """
        return self.inner.calls(count, top_k) * self._options.shuffles

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """The inner flows of all shuffles, side by side.

        Raises:
            LLMRankError: as the flow runs, what an inner flow raises.
        """
        shuffles = self._shuffles(request.candidates)
        rankings = yield from together([self.inner.flow(replace(request, candidates=each), budget) for each in shuffles])
        return self._ranking(request.candidates, rankings)

    def _shuffles(self, candidates: Sequence[Item]) -> list[tuple[Item, ...]]:
        ordered = sorted(candidates, key=lambda item: item.id)
        # A text seeds the same in every process, whatever its hash is there.
        dice = random.Random(repr((self._options.seed, [item.id for item in ordered])))  # noqa: S311 - no secret depends on it
        return [tuple(dice.sample(ordered, len(ordered))) for _ in range(self._options.shuffles)]

    def _ranking(self, candidates: Sequence[Item], rankings: Sequence[Ranking]) -> Ranking:
        """One Ranking of several; what the model did not rank in any of them stands last, in the order given."""
        found = [[item.id for item in each.items if item.ranked_by == "model"] for each in rankings]
        ballots = [ballot for ballot in found if ballot]
        aggregate = self._aggregate([item.id for item in candidates], ballots)
        judged = {item_id for ballot in ballots for item_id in ballot}
        items = {item.id: item for item in candidates}
        filled = tuple(item_id for item_id in aggregate.order if item_id not in judged)
        errors = [each.error for each in rankings if each.error is not None]
        notes = [note for each in rankings for note in each.notes]
        if len(ballots) < len(rankings):
            notes.append(f"{len(ballots)} of {len(rankings)} shuffles gave an order")
        return Ranking(
            ranked(
                (items[item_id] for item_id in aggregate.order),
                unranked=frozenset(filled),
                scores={item_id: score for item_id, score in aggregate.scores.items() if item_id in judged},
            ),
            status=_status(rankings, judged=bool(judged), complete=not filled),
            repairs=tuple(dict.fromkeys(repair for each in rankings for repair in each.repairs)),
            filled=filled,
            invented=tuple(dict.fromkeys(name for each in rankings for name in each.invented)),
            cut=join_cuts(each.cut for each in rankings),
            error=errors[-1] if errors else None,
            strategy=f"{self.name}({next((each.strategy for each in rankings if each.strategy), self.inner.name)})",
            model=next((each.model for each in rankings if each.model), ""),
            fingerprint=next((each.fingerprint for each in rankings if each.fingerprint), ""),
            notes=tuple(dict.fromkeys((*notes, *aggregate.notes))),
        )

    def _aggregate(self, ids: Sequence[str], ballots: Sequence[Sequence[str]]) -> Aggregate:
        if self._options.aggregate == "borda":
            return borda(ids, ballots)
        if self._options.aggregate == "rrf":
            return reciprocal_rank(ids, ballots, self._options.rrf_k)
        return kemeny(ids, ballots)


def _status(rankings: Sequence[Ranking], *, judged: bool, complete: bool) -> Status:
    """How the one order came about, from how the several did.

    An item that one answer left out and others ranked is repaired. A shuffle that lacks an answer leaves the whole partial.
    """
    if all(each.status == "error" for each in rankings):
        return "error"
    if not judged:
        return "fallback"
    lacking = [each for each in rankings if each.error is not None and each.status in ("partial", "fallback", "error")]
    if lacking or not complete:
        return "partial"
    return "ok" if all(each.status == "ok" for each in rankings) else "repaired"
