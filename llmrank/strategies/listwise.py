"""Listwise: labelled lists of candidates go in, each ordered by one question; windows bring the best of a long list to the top.

A list that does not fit the window of the model (or is longer than `window`) is ranked in overlapping windows from its end
to its beginning, so that the best climb to the top (Sun et al. 2023, "Is ChatGPT Good at Search?", arXiv:2304.09542). One such
pass puts the first ``window - step`` candidates right; each further pass as many again.

`Listwise` has the model write all labels, best first. `SingleToken` has it write one label and reads the order from the
probabilities of all labels (Reddy et al. 2024, "FIRST", arXiv:2406.15657).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmrank.budget import Budget
from llmrank.errors import ConfigError, RequestError
from llmrank.labels import LETTERS
from llmrank.protocols import Flow
from llmrank.strategies.calls import Calls
from llmrank.strategies.choice import Chooser
from llmrank.strategies.lists import (
    Lists,
    OpenLists,
    TextLists,
    TextOptions,
    TokenLists,
    require_at_least,
    require_temperature,
)
from llmrank.strategies.outcome import failed
from llmrank.strategies.shrink import Flowing, shrinking
from llmrank.strategies.tally import Tally
from llmrank.types import Capability, Item, Ranking, ResolvedRequest
from llmrank.writer import PromptWriter


@dataclass(frozen=True)
class WindowOptions:
    """How a list is shown: whole, or in windows.

    Attributes:
        window: The most candidates shown at once; None for as many as fit the model's window.
        step: By how many candidates the window moves; None for half the window. Half of it, too, where so few candidates fit
            the model's window that this step would skip some, or leave less of an overlap than was meant.
        passes: How often the windows run over the list. A pass that changes nothing is the last.
        max_windows: The most windows, which are asked one after the other, for one list; None for no bound.
    """

    window: int | None = None
    step: int | None = None
    passes: int = 1
    max_windows: int | None = 50

    def __post_init__(self) -> None:
        require_at_least(self, window=2, step=1, passes=1, max_windows=1)
        if self.window and self.step and self.step > self.window:
            raise ConfigError(
                "is larger than the window, so some candidates would never be shown",
                field="strategy.step",
                value=self.step,
                fix=f"take at most {self.window}",
            )

    def spans(self, count: int, size: int) -> tuple[tuple[int, int], ...]:
        """The windows of one pass, in the order in which they are asked, for a list of `count` of which `size` fit.

        Raises:
            RequestError: all passes together would take more than `max_windows`.
        """
        found = _spans(count, size, self._step(size))
        windows = len(found) * (self.passes if len(found) > 1 else 1)
        if len(found) > 1 and self.max_windows is not None and windows > self.max_windows:
            raise RequestError(
                f"{count:,} candidates need {windows:,} windows of {size}, asked one after the other, and "
                f"{self.max_windows} are allowed",
                field="strategy.max_windows",
                fix="shorten the list first (prefilter.keep), or allow more (null for no bound)",
            )
        return found

    def _step(self, size: int) -> int:
        """The step for windows of `size`: as configured if the window is as large as it was meant for, else half of it."""
        wanted = self.step
        if wanted is None or size < (self.window or wanted + 1):
            return max(1, size // 2)
        return wanted


@dataclass(frozen=True)
class ListwiseOptions(TextOptions, WindowOptions):
    """How a list is ranked: how it is shown, and how an order is asked for."""

    def __post_init__(self) -> None:
        WindowOptions.__post_init__(self)
        TextOptions.__post_init__(self)


@dataclass(frozen=True)
class SingleTokenOptions(WindowOptions):
    """How a list is ranked by one token a window.

    Attributes:
        window: The most candidates shown at once, 26 at most: each needs a letter. OpenAI's API reports 20 alternatives.
        max_tokens: The most tokens of an answer. Models that think before they answer need more than 1.
        temperature: 0 decodes greedily; probabilities are read as the server reports them.
        seed: For backends that know seeds.
    """

    window: int | None = 20
    max_tokens: int = 1
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        WindowOptions.__post_init__(self)
        require_letters(self.window)
        require_at_least(self, max_tokens=1)
        require_temperature(self.temperature)


def require_letters(window: int | None, field: str = "strategy.window") -> None:
    """Refuses windows in which some label would not be one token. Raises ConfigError."""
    if window is None or window > len(LETTERS):
        raise ConfigError(
            "each label has to be one token, so it is a letter",
            field=field,
            value=window,
            fix=f"use {len(LETTERS)} or less",
        )


class _Windows:
    """Ranks the whole list in one question, or in overlapping windows if it is too long for one."""

    name: str

    def __init__(self, lists: Lists, options: WindowOptions) -> None:
        self._lists = lists
        self._options = options

    @property
    def needs(self) -> frozenset[Capability]:
        """What a backend must be able to do."""
        return self._lists.needs

    @property
    def templates(self) -> Mapping[str, str]:
        """The fingerprints of the templates by name."""
        return self._lists.templates

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """The prompts for a list of `count` candidates; none for one, of which there is one order only.

        Raises:
            RequestError: it needs more than `max_windows` windows.
        """
        if count == 1:
            return Calls(0, 0)
        least, most = self._lists.prompts
        windows = len(self._options.spans(count, min(count, self._options.window or count)))
        passes = self._options.passes if windows > 1 else 1
        before = Calls(self._lists.before, self._lists.before)
        return before + Calls(least * windows, most * windows * passes)

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """The template's earlier steps once; then one prompt for the list, or one a window, each after the one before it.

        Raises:
            BudgetError: as the flow runs: not even two candidates fit the model's window.
            RequestError: as the flow runs, before the list is asked: it needs more than `max_windows` windows.
        """
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._lists.writer.fingerprint),
        )

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        order = list(request.candidates)
        tally = Tally()
        if len(order) == 1:
            tally.judged.add(order[0].id)  # there is one order only, so nothing is asked
            return self._ranking(order, tally)
        most = self._options.window or len(order)

        def spans(lists: OpenLists) -> tuple[tuple[int, int], ...]:
            return self._options.spans(len(order), lists.size(order, most))

        def check(lists: OpenLists) -> None:
            spans(lists)

        opened = yield from self._lists.open(request, budget, tally, most, check)
        if opened is None:
            return self._ranking(order, tally)
        windows = spans(opened)
        for _ in range(self._options.passes if len(windows) > 1 else 1):
            before = list(order)
            for start, end in windows:
                (window,) = yield from opened.order([order[start:end]])
                order[start:end] = window.items
            if order == before:
                break
        # Probabilities of different lists cannot be compared.
        return self._ranking(order, tally, opened.logprobs if len(windows) == 1 else None)

    def _ranking(self, order: list[Item], tally: Tally, scores: Mapping[str, float] | None = None) -> Ranking:
        return tally.ranking(order, strategy=self.name, fingerprint=self._lists.writer.fingerprint, scores=scores or None)


class Listwise(_Windows):
    """Ranks by the order of labels that the model writes.

    Args:
        writer: Writes the prompts; its template is a chat, of one step or several.
        options: How the list is ranked.
        repairer: Writes the prompt of the second try (`options.repair`).

    Raises:
        ConfigError: the template is no chat, its answer is not an order of all labels, or `repair` is asked for without a
            repairer.
    """

    name = "listwise"

    def __init__(
        self, writer: PromptWriter, options: ListwiseOptions | None = None, *, repairer: PromptWriter | None = None
    ) -> None:
        options = options or ListwiseOptions()
        super().__init__(TextLists(writer, options, repairer=repairer), options)


class SingleToken(_Windows):
    """Ranks by the probabilities that the labels have as the first token: one token a window.

    `RankedItem.score` is the label's natural-log probability where the list is shown whole.

    Args:
        writer: Writes the prompts: a chat of one step whose answer is a ``label``.
        options: How the list is ranked.

    Raises:
        ConfigError: the template is no chat of one step, or asks for another answer.
    """

    name = "single-token"

    def __init__(self, writer: PromptWriter, options: SingleTokenOptions | None = None) -> None:
        options = options or SingleTokenOptions()
        chooser = Chooser(writer, "logprobs", max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed)
        super().__init__(TokenLists(chooser), options)


def _spans(count: int, size: int, step: int) -> tuple[tuple[int, int], ...]:
    """The windows from the end of a list to its beginning; the last one always starts at 0 and is full."""
    ends = range(count, size, -step)
    return (*((end - size, end) for end in ends), (0, min(size, count)))
