"""Pairwise: candidates go in and are shown two at a time, each pair in both orders; the order comes from all pairs or a sort.

After Qin et al. 2024, "Large Language Models are Effective Text Rankers with Pairwise Ranking Prompting" (PRP,
arXiv:2306.17563). A model that prefers a place to a candidate contradicts itself in the other order, and the pair is a tie.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmrank.budget import Budget
from llmrank.errors import ConfigError
from llmrank.protocols import Flow
from llmrank.strategies.calls import Calls, depth, refuse_too_many
from llmrank.strategies.choice import NEEDS, Choice, Chooser, Read
from llmrank.strategies.lists import fitting, require_at_least, require_temperature
from llmrank.strategies.outcome import failed
from llmrank.strategies.shrink import Flowing, shrinking
from llmrank.strategies.sorting import all_pairs, bubblesort, bubblesort_calls, heapsort, heapsort_calls
from llmrank.strategies.tally import Tally
from llmrank.types import Capability, Item, Ranking, ResolvedRequest
from llmrank.writer import PromptWriter, Written

_STEEP = 700.0
"""A difference of log-probabilities that is as good as infinite; `math.exp` overflows a little beyond it."""


@dataclass(frozen=True)
class PairwiseOptions:
    """Which pairs are asked about, and what their answers mean.

    Attributes:
        method: ``allpairs`` asks about each pair; candidates are ranked by what they win, a tie counting half.
            ``heapsort`` and ``bubblesort`` (the paper's "sliding") ask for what they need to put the first `k` right.
        k: How many first places a sort puts right; None for as many as the request wants (`RankRequest.top_k`).
        read: How an answer is read: as the label in its ``text``, or from the ``logprobs`` of both labels.
        decide: ``vote``: the candidate that both orders choose wins. ``probability``: the one wins whose label has the higher
            probability, on the mean of both orders, which takes off what a model prefers of places; needs `read` logprobs. A
            pair of which one order got no readable answer is a tie.
        max_calls: The most prompts that a ranking may take; a longer list is refused. None for no bound.
        max_tokens: The most tokens of an answer; None for as many as a label needs. Models that think before they answer need
            more.
        temperature: 0 decodes greedily.
        seed: For backends that know seeds.
    """

    method: Literal["allpairs", "heapsort", "bubblesort"] = "heapsort"
    k: int | None = None
    read: Read = "text"
    decide: Literal["vote", "probability"] = "vote"
    max_calls: int | None = 1000
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        require_at_least(self, k=1, max_calls=1, max_tokens=1)
        require_temperature(self.temperature)
        if self.decide == "probability" and self.read != "logprobs":
            raise ConfigError(
                "a text has no probability", field="strategy.decide", value=self.decide, fix="use read: logprobs, or vote"
            )
        if self.method == "allpairs" and self.k is not None:
            raise ConfigError(
                "all pairs put every place right", field="strategy.k", value=self.k, fix="leave it out, or use heapsort"
            )


class Pairwise:
    """Ranks by comparisons of two candidates, each asked in both orders.

    `RankedItem.score` is what a candidate wins in all, from 0 to n - 1, where all pairs are asked about.

    Args:
        writer: Writes the prompts: a chat of one step whose answer is a ``label``.
        options: Which pairs are asked about, and what their answers mean.

    Raises:
        ConfigError: the template is no chat of one step, or asks for another answer.
    """

    name = "pairwise"

    def __init__(self, writer: PromptWriter, options: PairwiseOptions | None = None) -> None:
        self._writer = writer
        self._options = options or PairwiseOptions()
        self._chooser = Chooser(
            writer,
            self._options.read,
            max_tokens=self._options.max_tokens,
            temperature=self._options.temperature,
            seed=self._options.seed,
        )

    @property
    def needs(self) -> frozenset[Capability]:
        """What a backend must be able to do."""
        return NEEDS[self._options.read]

    @property
    def templates(self) -> Mapping[str, str]:
        """The template's fingerprint."""
        return {self._writer.template.name: self._writer.fingerprint}

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """Two prompts a comparison: n (n - 1) for all pairs, else see `heapsort_calls` and `bubblesort_calls`.

        Raises:
            RequestError: it may take more than `max_calls`.
        """
        wanted = depth(count, self._options.k, top_k)
        if self._options.method == "allpairs":
            pairs = count * (count - 1) // 2
            comparisons = Calls(pairs, pairs)
        else:
            bound = heapsort_calls if self._options.method == "heapsort" else bubblesort_calls
            comparisons = bound(count, wanted, 2)
        calls = comparisons * 2
        refuse_too_many(calls, self._options.max_calls, count, sorts=self._options.method != "allpairs")
        return calls

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """Both orders of a pair are asked in one step, and so are pairs that do not wait for each other.

        Raises:
            BudgetError: as the flow runs, before anything is asked: two candidates do not fit the model's window.
            RequestError: as the flow runs, before anything is asked: it may take more than `max_calls` prompts.
        """
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._writer.fingerprint),
        )

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        items = tuple(request.candidates)
        self.calls(len(items), request.top_k)  # refuses too long a list
        tally = Tally()
        if len(items) == 1:
            tally.judged.add(items[0].id)  # there is one order only, so nothing is asked
            return self._ranking(items, tally)

        def write(shown: Sequence[Item]) -> Written:
            return self._writer.write(request, shown, budget, reserve=self._chooser.tokens)

        fitting(write, self._writer, budget, items, 2)  # refuses what does not fit
        pairs = _Pairs(self._chooser, request, budget, tally, soft=self._options.decide == "probability")
        if self._options.method == "allpairs":
            points = yield from all_pairs(items, pairs.duel)
            pairs.tell()
            best_first = sorted(range(len(items)), key=lambda place: -points[place])  # stable: ties in the order given
            scores = {item.id: won for item, won in zip(items, points, strict=True) if item.id in tally.judged}
            return self._ranking([items[place] for place in best_first], tally, scores)
        sort = heapsort if self._options.method == "heapsort" else bubblesort
        places = depth(len(items), self._options.k, request.top_k)
        order = yield from sort(items, places, 2, pairs.best)
        pairs.tell()
        return self._ranking(order, tally, places=places)

    def _ranking(
        self, order: Sequence[Item], tally: Tally, scores: Mapping[str, float] | None = None, places: int | None = None
    ) -> Ranking:
        return tally.ranking(order, strategy=self.name, fingerprint=self._writer.fingerprint, scores=scores, depth=places)


class _Pairs:
    """The comparisons of one ranking; none is asked for twice.

    Args:
        chooser: Asks.
        request: Whose history and query are shown.
        budget: The window that each prompt must fit.
        tally: Where answers are counted.
        soft: True weighs an order by the probability of the label, False by the choice alone.
    """

    def __init__(self, chooser: Chooser, request: ResolvedRequest, budget: Budget, tally: Tally, *, soft: bool) -> None:
        self._chooser, self._request, self._budget, self._tally, self._soft = chooser, request, budget, tally, soft
        self._known: dict[tuple[str, str], float] = {}
        self._answered = self._contradicted = 0

    def tell(self) -> None:
        """Notes how many pairs the model contradicted itself about; where probabilities decide, that is no tie."""
        if self._contradicted and not self._soft:
            of = f"{self._contradicted} of {self._answered} pairs were"
            self._tally.notes[f"{of} contradicted by their other order and count as ties"] = None

    def best(self, pair: Sequence[Item]) -> Flowing[int]:
        """The place of the better one; 0 on a tie."""
        share = yield from self.duel(pair[0], pair[1])
        return int(share < 0.5)

    def duel(self, one: Item, other: Item) -> Flowing[float]:
        """What `one` wins against `other`: 1 or 0, 0.5 for a tie; or the mean probability of its label over both orders."""
        if (one.id, other.id) not in self._known:
            groups = [(one, other), (other, one)]
            straight, swapped = yield from self._chooser.ask(self._request, self._budget, self._tally, groups)
            share = 0.5
            if straight is not None and swapped is not None:
                # The mean of p and 1 - q; written so, it is exactly a half where a model sees nothing but the place.
                share += (self._first(straight) - self._first(swapped)) / 2
                self._tally.judged |= {one.id, other.id}
                self._answered += 1
                self._contradicted += straight.best == swapped.best
            self._known[one.id, other.id], self._known[other.id, one.id] = share, 1 - share
        return self._known[one.id, other.id]

    def _first(self, choice: Choice) -> float:
        """How far an answer is for the candidate shown first, from 0 to 1."""
        if not self._soft or not choice.logprobs:
            return float(choice.best == 0)
        # A label that the server did not report is less likely than all that it did report.
        first, second = (choice.logprobs.get(place, -math.inf) for place in (0, 1))
        return 1 / (1 + math.exp(min(second - first, _STEEP)))
