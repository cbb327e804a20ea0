"""Top-down partition: a list too long for one question goes in, split by a pivot again and again; its best come out in order.

The first window of the order given is ranked, and one of its places becomes the pivot. All other candidates are then shown in
windows with the pivot, all at once: what ranks above it is a candidate for the top, what ranks below it is not. So it goes on
with the top until one window holds it (Parry, MacAvaney and Ganguly, "Top-Down Partitioning for Efficient List-Wise Ranking",
ReNeuIR 2024, arXiv:2405.14589). If the order given is good, few join the top, and a list takes two steps and few questions,
where sliding windows take one step a window.

The paper ranks as many places as the pivot's. Where more are wanted, what ranks below the pivot is split in the same way, like
a quicksort: with a model that never errs the first `calls.depth` places are right, all of them unless fewer are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmrank.budget import Budget
from llmrank.protocols import Flow
from llmrank.strategies.calls import Calls, depth, refuse_too_many
from llmrank.strategies.choice import Read
from llmrank.strategies.lists import Lists, OpenLists, TextOptions, refuse_repair, require_at_least
from llmrank.strategies.listwise import require_letters
from llmrank.strategies.outcome import failed
from llmrank.strategies.shrink import Flowing, shrinking
from llmrank.strategies.tally import Tally
from llmrank.types import Capability, Item, Ranking, ResolvedRequest


@dataclass(frozen=True)
class TopDownOptions(TextOptions):
    """How a list is split.

    Attributes:
        read: How a window's order is read: ``text``, all labels that are written, or ``logprobs``, the log-probabilities of
            the labels as one token.
        window: The most candidates that a question shows; 26 at most for ``logprobs``.
        k: How many first places have to be right; None for what the request wants (`top_k`), or all. The others follow in
            the order given, as far as they were not ordered on the way.
        max_calls: The most prompts for one list, at worst; None for no bound.
    """

    read: Read = "text"
    window: int = 20
    k: int | None = None
    max_calls: int | None = 1000

    def __post_init__(self) -> None:
        TextOptions.__post_init__(self)
        require_at_least(self, window=2, k=1, max_calls=1)
        if self.read == "logprobs":
            require_letters(self.window)
            refuse_repair(self)


@dataclass(frozen=True, slots=True)
class _Part:
    """Candidates whose places are next to each other.

    Attributes:
        items: In the order known so far.
        wanted: How many first places of them have to be right.
        ordered: True if one answer has ordered them, so that they need not be asked about again.
    """

    items: tuple[Item, ...]
    wanted: int
    ordered: bool


class TopDown:
    """Ranks by splitting the list at pivots.

    Args:
        lists: Has a window ordered.
        options: How a list is split.
    """

    name = "top-down"

    def __init__(self, lists: Lists, options: TopDownOptions | None = None) -> None:
        self._lists = lists
        self._options = options or TopDownOptions()

    @property
    def needs(self) -> frozenset[Capability]:
        """What a backend must be able to do."""
        return self._lists.needs

    @property
    def templates(self) -> Mapping[str, str]:
        """The fingerprints of the templates by name."""
        return self._lists.templates

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """The prompts for a list of `count` candidates: at least one split, at most what the least useful answers lead to.

        Raises:
            RequestError: they may be more than `max_calls`.
        """
        return self._calls(count, self._options.window, top_k)

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """The template's earlier steps once; then, split after split, one prompt for the first window and one for each other.

        Raises:
            BudgetError: as the flow runs: not even two candidates fit the model's window.
            RequestError: as the flow runs, before a window is asked about: it may take more than `max_calls` prompts.
        """
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._lists.writer.fingerprint),
        )

    def _calls(self, count: int, size: int, top_k: int | None) -> Calls:
        """The prompts in windows of at most `size`."""
        wanted = depth(count, self._options.k, top_k)
        fewest, most = _windows(count, size), _most_windows(count, size, wanted)
        least_each, most_each = self._lists.prompts
        before = self._lists.before if count > 1 else 0
        calls = Calls(before + least_each * fewest, before + most_each * most)
        refuse_too_many(calls, self._options.max_calls, count, sorts=True)
        return calls

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        candidates = tuple(request.candidates)
        tally = Tally()
        if len(candidates) == 1:
            tally.judged.add(candidates[0].id)  # there is nothing to ask
            return self._ranking(candidates, tally)

        def check(lists: OpenLists) -> None:
            self._calls(len(candidates), lists.size(candidates, self._options.window), request.top_k)

        opened = yield from self._lists.open(request, budget, tally, self._options.window, check)
        if opened is None:
            return self._ranking(candidates, tally)
        size = opened.size(candidates, self._options.window)
        given = {item.id: place for place, item in enumerate(candidates)}
        wanted = depth(len(candidates), self._options.k, request.top_k)
        parts = [_Part(candidates, wanted, ordered=False)]
        # It ends, whatever the answers are: a part either fits a window and is ordered, or loses its pivot and falls into two
        # that are both smaller. Parts are no recursion, so that a long list of bad answers exhausts no stack.
        while any(map(_open, parts)) and not tally.stopped:
            parts = yield from self._split(opened, parts, size, given)
        order = [item for part in parts for item in part.items]
        if len(candidates) <= size:
            return self._ranking(order, tally, opened.logprobs)
        # Probabilities of different lists cannot be compared.
        return self._ranking(order, tally, places=wanted)

    def _split(self, opened: OpenLists, parts: Sequence[_Part], size: int, given: Mapping[str, int]) -> Flowing[list[_Part]]:
        """All parts, each of those that are open ordered or in three: above a pivot, the pivot, below it. In two steps."""
        asked = [part for part in parts if _open(part)]
        heads = [each.items for each in (yield from opened.order([part.items[:size] for part in asked]))]
        windows: list[list[tuple[Item, ...]]] = []
        for part, head in zip(asked, heads, strict=True):
            pivot, others = head[_pivot(part.wanted, size)] if len(part.items) > size else head[0], part.items[size:]
            starts = range(0, len(others), size - 1)
            windows.append([(pivot, *others[start : start + size - 1]) for start in starts])
        below = yield from opened.order([window for each in windows for window in each])
        answers = iter([each.items for each in below])
        outcome: list[_Part] = []
        heads_left, windows_left = iter(heads), iter(windows)
        for part in parts:
            if _open(part):
                head, orders = next(heads_left), [next(answers) for _ in next(windows_left)]
                outcome += _divided(part, head, orders, size, given)
            else:
                outcome.append(part)
        return outcome

    def _ranking(
        self, order: Sequence[Item], tally: Tally, scores: Mapping[str, float] | None = None, places: int | None = None
    ) -> Ranking:
        fingerprint = self._lists.writer.fingerprint
        return tally.ranking(order, strategy=self.name, fingerprint=fingerprint, scores=scores or None, depth=places)


def _open(part: _Part) -> bool:
    """True if the part has to be asked about."""
    return part.wanted > 0 and not part.ordered


def _pivot(wanted: int, size: int) -> int:
    """The pivot's place in the first window, from 0: the last one wanted, but never beyond the middle.

    If nothing else ranks above it, the first places are right as they are. A pivot beyond the middle would leave too little of
    the window below it to make the next part much smaller.
    """
    return min(wanted - 1, size // 2)


def _divided(
    part: _Part, head: tuple[Item, ...], windows: Sequence[tuple[Item, ...]], size: int, given: Mapping[str, int]
) -> list[_Part]:
    """The part, once its first window and the others with the pivot are ordered."""
    if len(part.items) <= size:
        return [_Part(head, part.wanted, ordered=True)]
    pivot = head[_pivot(part.wanted, size)]
    above, below = [], []
    for ordered in (head, *windows):
        place = ordered.index(pivot)
        above.append(ordered[:place])
        below.append(ordered[place + 1 :])
    top = tuple(item for run in above for item in run)
    rest = tuple(sorted((item for run in below for item in run), key=lambda item: given[item.id]))
    # What all comes from one answer is ordered by it.
    known = [run for run in below if run]
    if len(known) == 1:
        rest = known[0]
    return [
        _Part(top, min(part.wanted, len(top)), ordered=sum(map(bool, above)) <= 1),
        _Part((pivot,), 1, ordered=True),
        _Part(rest, part.wanted - len(top) - 1, ordered=len(known) <= 1),
    ]


def _windows(count: int, size: int) -> int:
    """The questions of one split of `count` candidates: the first window, and the others with the pivot."""
    if count <= size:
        return min(1, count - 1)
    return 1 - (size - count) // (size - 1)


def _most_windows(count: int, size: int, wanted: int) -> int:
    """The most questions for the first `wanted` places of `count` candidates, in windows of `size`.

    With the pivot at place p of the first window, a split of m candidates leaves t above it and m - 1 - t below, where t is
    from p to m - size + p. Where only the top is asked about again, the worst answers put all the others above the pivot. Else
    they put all on one side, or all but one (tests compare that with every t). Both grow with the square of ``count / size``.
    """
    pivot = _pivot(wanted, size)
    if wanted <= size // 2 + 1:
        total = 0
        while count > size:
            total += _windows(count, size)
            count -= size - pivot
        return total + _windows(count, size)
    # By the number of candidates, for all of their places: that is no less than for fewer of them.
    most = [0, 0]
    for m in range(2, count + 1):
        highest = m - size + pivot
        sides = {
            (0 if above == pivot else most[above]) + (0 if above == highest else most[m - 1 - above])
            for above in (pivot, pivot + 1, highest - 1, highest)
            if pivot <= above <= highest
        }
        most.append(_windows(m, size) + (max(sides) if m > size else 0))
    return most[count]
