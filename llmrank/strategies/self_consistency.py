"""Self-consistency: a strategy ranks several shuffles of the candidates, and the orders that come out become one.

Where an item stands in a prompt sways a model. Over independent shuffles each item stands everywhere, so that this evens out
(permutation self-consistency; Tang et al., "Found in the Middle", NAACL 2024, arXiv:2310.07712).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, TypeAlias

from llmrank.budget import Budget
from llmrank.errors import ConfigError
from llmrank.protocols import Flow
from llmrank.strategies.aggregate import Aggregate, borda, kemeny, kendall_tau, reciprocal_rank
from llmrank.strategies.built import BuiltStrategy
from llmrank.strategies.calls import Calls
from llmrank.strategies.lists import require_at_least
from llmrank.strategies.outcome import join_cuts, ranked
from llmrank.strategies.together import together
from llmrank.types import Capability, Item, RankedItem, Ranking, ResolvedRequest, Status

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

    The shuffles follow from the seed and the candidates' ids in the order given: a request has the same ones every time, and
    another order of its candidates other ones, so that how much the order given sways a ranking can be measured. As an order
    counts what the model ranked of its first places (`Ranking.depth`). Shuffles of which a prompt got no answer count only if
    all are such. `RankedItem.score` is the aggregate's score, `Ranking.stability` how much the orders agree.

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
        # A text seeds the same in every process, whatever its hash is there.
        dice = random.Random(repr((self._options.seed, [item.id for item in candidates])))  # noqa: S311 - no secret depends on it
        return [tuple(dice.sample(candidates, len(candidates))) for _ in range(self._options.shuffles)]

    def _ranking(self, candidates: Sequence[Item], rankings: Sequence[Ranking]) -> Ranking:
        """One Ranking of several; what the model put in order in none of them stands last, in the order given."""
        counted = [each for each in rankings if each.error is None] or rankings
        ballots = [ballot for each in counted if (ballot := _by_model(each.items[: each.depth]))]
        aggregate = self._aggregate([item.id for item in candidates], ballots)
        placed = {item_id for ballot in ballots for item_id in ballot}
        judged = {item_id for each in counted for item_id in _by_model(each.items)}
        items = {item.id: item for item in candidates}
        filled = tuple(item_id for item_id in aggregate.order if item_id not in judged)
        errors = [each.error for each in rankings if each.error is not None]
        notes = [note for each in rankings for note in each.notes]
        if len(ballots) < len(rankings):
            notes.append(f"{len(ballots)} of {len(rankings)} shuffles count; the others lack readable answers")
        return Ranking(
            ranked(
                (items[item_id] for item_id in aggregate.order),
                unranked=frozenset(filled),
                scores={item_id: score for item_id, score in aggregate.scores.items() if item_id in judged},
            ),
            status=_status(rankings, judged=bool(judged), complete=not filled),
            repairs=tuple(dict.fromkeys(repair for each in rankings for repair in each.repairs)),
            filled=filled,
            stability=_stability(ballots),
            depth=len(placed) if any(each.depth for each in counted) and len(placed) < len(candidates) else None,
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


def _stability(ballots: Sequence[Sequence[str]]) -> float | None:
    """The mean of Kendall's tau over all pairs of orders; None if no two have two items in common."""
    taus = [tau for one, other in combinations(ballots, 2) if math.isfinite(tau := kendall_tau(one, other))]
    return math.fsum(taus) / len(taus) if taus else None


def _by_model(items: Sequence[RankedItem]) -> list[str]:
    return [item.id for item in items if item.ranked_by == "model"]


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
