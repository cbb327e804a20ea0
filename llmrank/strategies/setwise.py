"""Setwise: candidates are shown a few at a time and the model names the best; a sort that asks such questions gives the order.

After Zhuang et al. 2024, "A Setwise Approach for Effective and Highly Efficient Zero-shot Ranking with Large Language
Models" (SIGIR 2024, arXiv:2310.09497): one question does what several comparisons of two do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmrank.budget import Budget
from llmrank.protocols import Flow
from llmrank.strategies.calls import Calls, depth, refuse_too_many
from llmrank.strategies.choice import NEEDS, Chooser, Read
from llmrank.strategies.lists import fitting, require_at_least, require_temperature
from llmrank.strategies.listwise import require_letters
from llmrank.strategies.outcome import failed
from llmrank.strategies.shrink import Flowing, shrinking
from llmrank.strategies.sorting import bubblesort, bubblesort_calls, heapsort, heapsort_calls
from llmrank.strategies.tally import Tally
from llmrank.types import Capability, Cut, Item, Ranking, ResolvedRequest
from llmrank.writer import PromptWriter, Written


@dataclass(frozen=True)
class SetwiseOptions:
    """How many candidates a question shows, and how its answers are put together.

    Attributes:
        method: ``heapsort`` or ``bubblesort``.
        compare: The most candidates that a question shows, from 2 to 26. In a heap a node has one child fewer (two at least).
        k: How many first places are put right; None for as many as the request wants (`RankRequest.top_k`).
        read: How an answer is read: as the label in its ``text``, or as the order of all labels by their ``logprobs``, which
            may spare later questions.
        max_calls: The most prompts that a ranking may take; a longer list is refused. None for no bound.
        max_tokens: The most tokens of an answer; None for as many as a label needs. Models that think before they answer need
            more.
        temperature: 0 decodes greedily.
        seed: For backends that know seeds.
    """

    method: Literal["heapsort", "bubblesort"] = "heapsort"
    compare: int = 4
    k: int | None = None
    read: Read = "text"
    max_calls: int | None = 1000
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        require_at_least(self, compare=2, k=1, max_calls=1, max_tokens=1)
        require_letters(self.compare, "strategy.compare")
        require_temperature(self.temperature)


class Setwise:
    """Ranks by questions for the best of a few candidates.

    Args:
        writer: Writes the prompts: a chat of one step whose answer is a ``label``.
        options: How many candidates a question shows, and how its answers are put together.

    Raises:
        ConfigError: the template is no chat of one step, or asks for another answer.
    """

    name = "setwise"

    def __init__(self, writer: PromptWriter, options: SetwiseOptions | None = None) -> None:
        self._writer = writer
        self._options = options or SetwiseOptions()
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
        """One prompt a question: see `heapsort_calls` and `bubblesort_calls`.

        Raises:
            RequestError: it may take more than `max_calls`.
        """
        return self._calls(count, top_k, self._options.compare)

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """Questions that do not wait for each other are asked in one step.

        Raises:
            BudgetError: as the flow runs, before anything is asked: not even two candidates fit the model's window.
            RequestError: as the flow runs, before anything is asked: it may take more than `max_calls` prompts.
        """
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._writer.fingerprint),
        )

    def _calls(self, count: int, top_k: int | None, size: int) -> Calls:
        bound = heapsort_calls if self._options.method == "heapsort" else bubblesort_calls
        calls = bound(count, depth(count, self._options.k, top_k), size)
        refuse_too_many(calls, self._options.max_calls, count, sorts=True)
        return calls

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        items = tuple(request.candidates)
        places = depth(len(items), self._options.k, request.top_k)
        tally = Tally()
        if len(items) == 1:
            tally.judged.add(items[0].id)  # there is one order only, so nothing is asked
            return self._ranking(items, tally, places)

        def write(shown: Sequence[Item]) -> Written:
            return self._writer.write(request, shown, budget, reserve=self._chooser.tokens)

        wanted = min(self._options.compare, len(items))
        size = fitting(write, self._writer, budget, items, wanted)
        if size < wanted:
            note = f"{size} candidates a question fit the model's window, not {wanted} (strategy.compare)"
            tally.remark(Cut(), notes=[note])
        self._calls(len(items), request.top_k, size)  # refuses too long a list
        sets = _Sets(self._chooser, request, budget, tally)
        sort = heapsort if self._options.method == "heapsort" else bubblesort
        order = yield from sort(items, places, size, sets.best)
        return self._ranking(order, tally, places)

    def _ranking(self, order: Sequence[Item], tally: Tally, places: int) -> Ranking:
        return tally.ranking(order, strategy=self.name, fingerprint=self._writer.fingerprint, depth=places)


class _Sets:
    """The questions of one ranking; none is asked whose answer is in those before it.

    Args:
        chooser: Asks.
        request: Whose history and query are shown.
        budget: The window that each prompt must fit.
        tally: Where answers are counted.
    """

    def __init__(self, chooser: Chooser, request: ResolvedRequest, budget: Budget, tally: Tally) -> None:
        self._chooser, self._request, self._budget, self._tally = chooser, request, budget, tally
        self._ahead: set[tuple[str, str]] = set()
        """Two ids that were shown together, the first of which came out ahead."""

    def best(self, group: Sequence[Item]) -> Flowing[int]:
        """The place of the best; 0 where no readable answer says."""
        ids = [item.id for item in group]
        for place, one in enumerate(ids):
            if all((one, other) in self._ahead for other in ids if other != one):
                return place
        (choice,) = yield from self._chooser.ask(self._request, self._budget, self._tally, [group])
        if choice is None:
            return 0
        self._tally.judged.update(ids)
        rest = [one for place, one in enumerate(ids) if place not in choice.order]
        for rank, place in enumerate(choice.order):
            for other in (*(ids[behind] for behind in choice.order[rank + 1 :]), *rest):
                self._ahead.add((ids[place], other))
                self._ahead.discard((other, ids[place]))  # a later answer outweighs an earlier one
        return choice.best
