"""TourRank: the candidates go in, tournaments of group stages give each its points, and their order by points comes out.

A stage shows the candidates in groups, all asked at once, and each group sends its better half on, until two are left.
A candidate earns a point for each stage that it gets through, and the points of several tournaments are added (Chen et al.,
"TourRank: Utilizing Large Language Models for Documents Ranking with a Tournament-Inspired Strategy", WWW 2025,
arXiv:2406.11678). As there, the order given is spread over the groups like seeds, and each group is shuffled, so that no
place in a prompt is preferred. The paper fixes five stages for 100 documents (100, 50, 20, 10, 5, 2; 13 questions); here the
rule is the same for every number: as few groups as hold all, and half of each, rounded down (13 questions for 100, too).

The method finds the best, it does not sort: with a model that never errs only the first places are certain to be right
(`TourRank.certain`), and all of them where one group holds all candidates.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llmrank.budget import Budget
from llmrank.protocols import Flow
from llmrank.strategies.calls import Calls, refuse_too_many
from llmrank.strategies.choice import Read
from llmrank.strategies.lists import Lists, OpenLists, TextOptions, refuse_repair, require_at_least
from llmrank.strategies.listwise import require_letters
from llmrank.strategies.outcome import failed
from llmrank.strategies.shrink import Flowing, shrinking
from llmrank.strategies.tally import Tally
from llmrank.strategies.together import together
from llmrank.types import Capability, Item, Ranking, ResolvedRequest


@dataclass(frozen=True)
class TourRankOptions(TextOptions):
    """How tournaments are held.

    Attributes:
        read: How a group's order is read: ``text``, all labels that are written, or ``logprobs``, the log-probabilities of
            the labels as one token.
        rounds: How many tournaments are held, side by side; their points are added. The paper takes 1 to 10.
        group: The most candidates that a question shows; 26 at most for ``logprobs``.
        max_calls: The most prompts for one list; None for no bound.
        shuffle_seed: Another one gives other shuffles of the groups. (`seed` is for backends.)
    """

    read: Read = "text"
    rounds: int = 1
    group: int = 20
    max_calls: int | None = 1000
    shuffle_seed: int = 0

    def __post_init__(self) -> None:
        TextOptions.__post_init__(self)
        require_at_least(self, rounds=1, group=2, max_calls=1)
        if self.read == "logprobs":
            require_letters(self.group, "strategy.group")
            refuse_repair(self)


class TourRank:
    """Ranks by the points of tournaments, which are each item's `RankedItem.score`.

    Items with equal points are ordered by their mean place, relative to its length, in the last list of each tournament that
    showed them, then as given.

    Args:
        lists: Has a group ordered.
        options: How tournaments are held.
    """

    name = "tourrank"

    def __init__(self, lists: Lists, options: TourRankOptions | None = None) -> None:
        self._lists = lists
        self._options = options or TourRankOptions()

    @property
    def needs(self) -> frozenset[Capability]:
        """What a backend must be able to do."""
        return self._lists.needs

    @property
    def templates(self) -> Mapping[str, str]:
        """The fingerprints of the templates by name."""
        return self._lists.templates

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """The prompts for a list of `count` candidates: the same number whatever the model answers.

        Raises:
            RequestError: they are more than `max_calls`.
        """
        return self._calls(count, self._options.group)

    def certain(self, count: int) -> int:
        """How many first places are right if the model never errs: what the smallest half sent on by one of several groups has.

        A group that sends m on sends all of the m best candidates that are in it; so those reach the first stage of one
        group, which orders them. All places are right where there is no stage of several groups.
        """
        halves = [
            _sent(members, len(groups))
            for groups in _stages(count, self._options.group)
            for members in groups
            if len(groups) > 1 and members > 1
        ]
        return min(halves, default=count)

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """The template's earlier steps once; then, stage after stage, one prompt for each group of each tournament.

        Raises:
            BudgetError: as the flow runs: not even two candidates fit the model's window.
            RequestError: as the flow runs, before a group is asked: it takes more than `max_calls` prompts.
        """
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._lists.writer.fingerprint),
        )

    def _calls(self, count: int, size: int) -> Calls:
        """The prompts in groups of at most `size`."""
        asked = sum(members > 1 for groups in _stages(count, size) for members in groups) * self._options.rounds
        least, most = self._lists.prompts
        before = self._lists.before if asked else 0
        calls = Calls(before + least * asked, before + most * asked)
        refuse_too_many(calls, self._options.max_calls, count)
        return calls

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        candidates = tuple(request.candidates)
        tally = Tally()
        if len(candidates) == 1:
            tally.judged.add(candidates[0].id)  # there is nothing to ask
            return self._ranking(candidates, tally, {})

        def check(lists: OpenLists) -> None:
            self._calls(len(candidates), lists.size(candidates, self._options.group))

        opened = yield from self._lists.open(request, budget, tally, self._options.group, check)
        if opened is None:
            return self._ranking(candidates, tally, {})
        size = opened.size(candidates, self._options.group)
        tournaments = [
            _Tournament(opened, tally, candidates, size, self._dice(candidates, number))
            for number in range(self._options.rounds)
        ]
        yield from together([each.play() for each in tournaments])
        points = {item.id: sum(each.points[item.id] for each in tournaments) for item in candidates}
        places = {item.id: sum(each.places[item.id] for each in tournaments) for item in candidates}
        # sorted() is stable: what is equal in both stays as given.
        order = sorted(candidates, key=lambda item: (-points[item.id], places[item.id]))
        return self._ranking(order, tally, points)

    def _dice(self, candidates: Sequence[Item], number: int) -> random.Random:
        """What shuffles the groups of a tournament: the same for the same candidates, in whatever order they are given."""
        # A text as the seed gives the same shuffles in every process.
        seed = repr((self._options.shuffle_seed, number, sorted(item.id for item in candidates)))
        return random.Random(seed)  # noqa: S311 - no secret depends on it

    def _ranking(self, order: Sequence[Item], tally: Tally, points: Mapping[str, int]) -> Ranking:
        scores = {id_: float(earned) for id_, earned in points.items() if id_ in tally.judged}
        return tally.ranking(
            order, strategy=self.name, fingerprint=self._lists.writer.fingerprint, scores=scores if scores else None
        )


class _Tournament:
    """One tournament: the points that each candidate earns, and its relative place (0 to 1) in the last list that showed it."""

    def __init__(self, opened: OpenLists, tally: Tally, candidates: Sequence[Item], size: int, shuffles: random.Random) -> None:
        self._opened, self._tally, self._size, self._shuffles = opened, tally, size, shuffles
        self._candidates = tuple(candidates)
        self.points = {item.id: 0 for item in candidates}
        self.places = {item.id: 0.0 for item in candidates}

    def play(self) -> Flowing[None]:
        """All stages; those that are left are not held once the backend cannot answer at all."""
        remaining = self._candidates
        for groups in _stages(len(remaining), self._size):
            if self._tally.stopped:
                return
            # Like seeds: the first of the order given meet each other late.
            seeded = [remaining[number :: len(groups)] for number in range(len(groups))]
            ordered = yield from self._order(seeded)
            through: set[str] = set()
            for group in ordered:
                sent = group[: _sent(len(group), len(groups))]
                through.update(item.id for item in sent)
                for place, item in enumerate(group):
                    self.places[item.id] = place / len(group)
            for id_ in through:
                self.points[id_] += 1
            remaining = tuple(item for item in remaining if item.id in through)

    def _order(self, groups: Sequence[Sequence[Item]]) -> Flowing[list[tuple[Item, ...]]]:
        """The groups, each with the best first; what an answer does not rank stands last, in the order given."""
        shown = [tuple(self._shuffles.sample(group, len(group))) for group in groups]
        asked = [list_ for list_ in shown if len(list_) > 1]
        answers = iter((yield from self._opened.order(asked)))
        ordered = []
        for group in groups:
            if len(group) == 1:
                ordered.append(tuple(group))
                continue
            best_first, ranked = next(answers)
            behind = {item.id for item in best_first[ranked:]}
            ordered.append((*best_first[:ranked], *(item for item in group if item.id in behind)))
        return ordered


def _stages(count: int, size: int) -> Iterator[tuple[int, ...]]:
    """The numbers of candidates in the groups of each stage, for `count` candidates in groups of at most `size`.

    The last stage is one of one group, so that those who are left have met. It ends: a group of two or more sends fewer on than
    it has, and with more than two candidates there is such a group.
    """
    while count > 1:
        number = -(-count // size)
        groups = tuple(len(range(start, count, number)) for start in range(number))
        yield groups
        count = sum(_sent(members, number) for members in groups)
        if number == 1 and count <= 2:
            return


def _sent(members: int, groups: int) -> int:
    """How many of a group of `members` are sent on, in a stage of so many groups: half, but two of the last three."""
    return max(1 if groups > 1 or members <= 2 else 2, members // 2)
