"""Lists of candidates go in, each comes out ordered by one question: by an answer that writes all labels, or by one token.

This is what listwise ranking, windows and tournaments are made of. `TextLists` asks for all labels in their order and reads
the text. `TokenLists` asks for the label of the best and orders all by the probabilities of their labels as that one token
(Reddy et al. 2024, "FIRST: Faster Improved Listwise Reranking with Single Token Decoding", arXiv:2406.15657).

Candidates that an answer leaves out follow those that it ranks. A list without an answer, or with one that cannot be read,
stays in the order given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from llmrank.answer import ParsedAnswer, parse_answer
from llmrank.budget import ITEM_FLOOR, Budget, shorten
from llmrank.errors import BackendError, BudgetError, ConfigError
from llmrank.sanitize import EMPTY, clean_answer
from llmrank.strategies.choice import NEEDS, Chooser, require_no_answer_before
from llmrank.strategies.shrink import Flowing
from llmrank.strategies.tally import Tally
from llmrank.strategies.together import together
from llmrank.types import Capability, Completion, Item, Prompt, ResolvedRequest
from llmrank.writer import PromptWriter, Written

# A model that answers in a form of its own writes a title behind each label; 16 tokens hold one. It is a cap, not a cost.
TOKENS_PER_LABEL = 16
TOKENS_AROUND = 64
FORMATS = ("order", "json")
"""The forms of answer that ask for every label, in an order."""


class Ordered(NamedTuple):
    """A list as its answer orders it.

    Attributes:
        items: All of them, best first.
        ranked: How many of the first the answer ranks; 0 if there was none that could be read. The others follow as they were
            shown.
    """

    items: tuple[Item, ...]
    ranked: int


class OpenLists(Protocol):
    """Orders lists within one ranking."""

    @property
    def logprobs(self) -> Mapping[str, float]:
        """By id, the log-probability of each candidate's label in the list that showed it last; empty where texts are read."""
        ...

    def size(self, items: Sequence[Item], most: int) -> int:
        """How many of `items` one question can show: `most`, or fewer if even so many do not fit the window.

        Args:
            items: All that are to be ordered; whichever of them a list of that size has, it fits.
            most: The most to show.

        Returns:
            From 2 to `most`, or 1 if there is no more than one.

        Raises:
            BudgetError: not even two fit.
        """
        ...

    def order(self, lists: Sequence[Sequence[Item]]) -> Flowing[list[Ordered]]:
        """Orders each list; all are asked about at once."""
        ...


Check = Callable[[OpenLists], None]
"""Looks at what is opened before anything is paid for; raises if the ranking cannot go on."""


class Lists(Protocol):
    """A way to have lists ordered, configured once for many rankings."""

    @property
    def needs(self) -> frozenset[Capability]:
        """What a backend must be able to do."""
        ...

    @property
    def writer(self) -> PromptWriter:
        """Writes the prompts."""
        ...

    @property
    def templates(self) -> Mapping[str, str]:
        """The fingerprints of all templates by name."""
        ...

    @property
    def prompts(self) -> tuple[int, int]:
        """The fewest and the most prompts for one list."""
        ...

    @property
    def before(self) -> int:
        """How many prompts come once, before the first list."""
        ...

    def open(
        self, request: ResolvedRequest, budget: Budget, tally: Tally, most: int, check: Check
    ) -> Flowing[OpenLists | None]:
        """Begins a ranking: asks what has to be known before the first list. None if that failed; `tally` has the error.

        Args:
            request: Whose history and query are shown, and the candidates.
            budget: The window that each prompt must fit.
            tally: Where answers are counted.
            most: The most candidates that a prompt shows.
            check: Looks at what is opened before anything is paid for.

        Raises:
            TooLong: the server found a prompt too long.
        """
        ...


@dataclass(frozen=True)
class TextOptions:
    """How an order is asked for in text.

    Attributes:
        repair: True asks once more when the answer did not rank every candidate.
        max_tokens: The most tokens of an answer; None reckons by the number of candidates. Models that think before they
            answer need more.
        step_tokens: The most tokens of the answer to each earlier step of a template that has several.
        temperature: 0 decodes greedily.
        seed: For backends that know seeds.
    """

    repair: bool = False
    max_tokens: int | None = None
    step_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        require_at_least(self, max_tokens=1, step_tokens=1)
        require_temperature(self.temperature)


def require_at_least(options: object, **least: int) -> None:
    """Refuses options of a strategy that are too small. Raises ConfigError."""
    for name, bound in least.items():
        value = getattr(options, name)
        if value is not None and value < bound:
            raise ConfigError(f"must be at least {bound}", field=f"strategy.{name}", value=value, fix="or leave it out")


def require_temperature(temperature: float) -> None:
    """Refuses what is no temperature. Raises ConfigError."""
    if not 0 <= temperature < math.inf:
        raise ConfigError(
            "must be a finite number from 0 on", field="strategy.temperature", value=temperature, fix="0 is greedy"
        )


def refuse_repair(options: TextOptions) -> None:
    """Refuses to ask again where no text is read. Raises ConfigError."""
    if options.repair:
        raise ConfigError(
            "one token cannot be incomplete", field="strategy.repair", value=True, fix="leave it out, or use read: text"
        )


class TextLists:
    """Asks for all labels, best first.

    Args:
        writer: Writes the prompts; its template is a chat, of one step or several.
        options: How an order is asked for.
        repairer: Writes the prompt of the second try (`options.repair`).

    Raises:
        ConfigError: the template is no chat, its answer is not an order of all labels, or `repair` is asked for without a
            repairer.
    """

    needs: frozenset[Capability] = frozenset({"generate"})

    def __init__(
        self, writer: PromptWriter, options: TextOptions | None = None, *, repairer: PromptWriter | None = None
    ) -> None:
        self.writer = writer
        self.options = options or TextOptions()
        self.repairer = repairer
        if writer.template.kind != "chat":
            raise ConfigError(
                "the listwise strategy asks in a chat, and this template is a plain text",
                field="prompt.template",
                value=writer.template.name,
                fix="use a listwise/... template",
            )
        require_no_answer_before(writer)
        if writer.options.answer not in FORMATS:
            raise ConfigError(
                "the listwise strategy needs an answer that ranks every candidate",
                field="prompt.answer",
                value=writer.options.answer,
                fix=f"use {' or '.join(FORMATS)}",
            )
        if self.options.repair and repairer is None:
            raise ConfigError("needs a template that asks again", field="strategy.repair", value=True, fix="give a repairer")

    @property
    def templates(self) -> Mapping[str, str]:
        """The template's fingerprint, and the repair template's if there is one."""
        writers = [self.writer] if self.repairer is None else [self.writer, self.repairer]
        return {writer.template.name: writer.fingerprint for writer in writers}

    @property
    def prompts(self) -> tuple[int, int]:
        """One, or two where an incomplete answer is asked for again."""
        return 1, 2 if self.options.repair else 1

    @property
    def before(self) -> int:
        """The earlier steps of the template."""
        return len(self.writer.template.steps) - 1

    def open(
        self, request: ResolvedRequest, budget: Budget, tally: Tally, most: int, check: Check
    ) -> Flowing[OpenLists | None]:
        """Asks all steps of the template but the last; None if one of them got no answer."""
        early = self.writer.template.steps[:-1]
        if early:
            # What cannot be ranked in the end should cost nothing before: a first look, with a sign in place of each answer.
            check(_OpenText(self, request, budget, tally, {step.name: EMPTY for step in early}))
        answers: dict[str, str] = {}
        room = self.options.step_tokens
        candidates = list(request.candidates)
        for step in early:
            opened = _OpenText(self, request, budget, tally, answers, step=step.name)
            shown = candidates[: opened.size(candidates, most)]
            written = opened.write(shown)
            (answer,) = yield [self.prompt(written, room, free=True)]
            if isinstance(answer, BackendError):
                tally.fail(written, answer)
                return None
            answers[step.name] = answer.text or ""
            repairs, notes = [], list(answer.notes)
            if not clean_answer(answer.text or ""):
                repairs.append(f"step {step.name} gave no text; the steps after it had to do without")
            if answer.finish_reason == "length":
                notes.append(f"step {step.name} was cut off at {room} tokens; strategy.step_tokens allows more")
            tally.remark(written.cut, repairs=repairs, notes=notes)
        opened = _OpenText(self, request, budget, tally, answers)
        check(opened)
        return opened

    def reserve(self, count: int) -> int:
        """Tokens kept for the answer about `count` candidates."""
        return self.options.max_tokens or TOKENS_AROUND + TOKENS_PER_LABEL * count

    def prompt(self, written: Written, max_tokens: int, *, free: bool = False) -> Prompt:
        """The question; a `free` one asks for words instead of labels."""
        return Prompt(
            messages=written.messages,
            labels=() if free else written.labels,
            item_ids=() if free else written.item_ids,
            answer="free" if free else self.writer.options.answer,
            max_tokens=max_tokens,
            temperature=self.options.temperature,
            seed=self.options.seed,
            fingerprint=written.fingerprint,
        )


class _OpenText:
    """`TextLists` within one ranking; with `step`, an earlier step of the template."""

    logprobs: Mapping[str, float] = {}

    def __init__(
        self,
        lists: TextLists,
        request: ResolvedRequest,
        budget: Budget,
        tally: Tally,
        answers: Mapping[str, str],
        step: str | None = None,
    ) -> None:
        self._lists, self._request, self._budget, self._tally = lists, request, budget, tally
        self._answers, self._step = dict(answers), step
        self._last: tuple[tuple[str, ...], Written] | None = None

    def size(self, items: Sequence[Item], most: int) -> int:
        return fitting(self.write, self._lists.writer, self._budget, items, most)

    def write(self, shown: Sequence[Item]) -> Written:
        """The prompt; the last one written is kept, as it is often written once to see whether it fits."""
        ids = tuple(item.id for item in shown)
        if self._last is None or self._last[0] != ids:
            reserve = self._lists.options.step_tokens if self._step else self._lists.reserve(len(shown))
            written = self._lists.writer.write(
                self._request, shown, self._budget, reserve=reserve, step=self._step, answers=self._answers
            )
            self._last = ids, written
        return self._last[1]

    def order(self, lists: Sequence[Sequence[Item]]) -> Flowing[list[Ordered]]:
        return (yield from together([self._ask(tuple(shown)) for shown in lists]))

    def _ask(self, shown: tuple[Item, ...]) -> Flowing[Ordered]:
        """One list: asks, and asks again if the answer is incomplete and `repair` is set."""
        if self._tally.stopped:
            return Ordered(shown, 0)
        written = self.write(shown)
        reserve = self._lists.reserve(len(shown))
        (answer,) = yield [self._lists.prompt(written, reserve)]
        if isinstance(answer, BackendError):
            self._tally.fail(written, answer)
            return Ordered(shown, 0)
        parsed, notes = self._parse(answer, written), answer.notes
        repairs = parsed.repairs
        if self._lists.options.repair and parsed.status in ("partial", "fallback"):
            second, note = yield from self._ask_again(shown, _faults(answer, parsed, written), written)
            notes += note
            if second is not None and (better := self._parse(second, written)).ranked > parsed.ranked:
                repairs = (f"the first answer ranked {parsed.ranked} of {len(shown)}; asked again", *better.repairs)
                parsed, answer, notes = better, second, notes + second.notes
            elif second is not None:
                notes += ("asked again, and the second answer was no better",)
        if parsed.status in ("partial", "fallback") and answer.finish_reason == "length":
            notes += (f"the answer was cut off at {reserve} tokens; strategy.max_tokens allows more",)
        self._tally.count(
            written,
            [shown[place].id for place in parsed.order[: parsed.ranked]],
            model=answer.model,
            clean=parsed.status == "ok" and not repairs,
            repairs=repairs,
            invented=parsed.invented,
            notes=notes,
        )
        return Ordered(tuple(shown[place] for place in parsed.order), parsed.ranked)

    def _ask_again(
        self, shown: tuple[Item, ...], faults: dict[str, str], written: Written
    ) -> Flowing[tuple[Completion | None, tuple[str, ...]]]:
        """The second try: its answer, or a note that says why there is none."""
        if self._lists.repairer is None:
            return None, ()
        reserve = self._lists.reserve(len(shown))
        try:
            again = self._lists.repairer.write(
                self._request, shown, self._budget, reserve=reserve, answers=faults, before=written.messages
            )
        except BudgetError as error:
            return None, (f"there was no room to ask again: {error}",)
        (second,) = yield [self._lists.prompt(again, reserve)]
        if isinstance(second, BackendError):
            return None, (f"the second try got no answer: {second}",)
        return second, ()

    def _parse(self, answer: Completion, written: Written) -> ParsedAnswer:
        return parse_answer(
            answer.text,
            labels=written.labels,
            titles=written.texts,
            history_titles=written.history_texts,
            expected=self._lists.writer.options.answer,
        )


class TokenLists:
    """Asks for the label of the best and orders all candidates by the log-probabilities of their labels: one token a list.

    Args:
        chooser: Asks, and reads log-probabilities.
    """

    needs: frozenset[Capability] = NEEDS["logprobs"]
    prompts = (1, 1)
    before = 0

    def __init__(self, chooser: Chooser) -> None:
        if chooser.read != "logprobs":
            raise ValueError("an order of all candidates is read from log-probabilities")
        self.chooser = chooser
        self.writer = chooser.writer

    @property
    def templates(self) -> Mapping[str, str]:
        """The template's fingerprint."""
        return {self.writer.template.name: self.writer.fingerprint}

    def open(
        self, request: ResolvedRequest, budget: Budget, tally: Tally, most: int, check: Check
    ) -> Flowing[OpenLists | None]:
        """Nothing has to be asked before the first list."""
        opened = _OpenToken(self.chooser, request, budget, tally)
        check(opened)
        return opened
        yield  # what makes this a generator


class _OpenToken:
    """`TokenLists` within one ranking."""

    def __init__(self, chooser: Chooser, request: ResolvedRequest, budget: Budget, tally: Tally) -> None:
        self._chooser, self._request, self._budget, self._tally = chooser, request, budget, tally
        self.logprobs: dict[str, float] = {}

    def size(self, items: Sequence[Item], most: int) -> int:
        def write(shown: Sequence[Item]) -> Written:
            return self._chooser.writer.write(self._request, shown, self._budget, reserve=self._chooser.tokens)

        return fitting(write, self._chooser.writer, self._budget, items, most)

    def order(self, lists: Sequence[Sequence[Item]]) -> Flowing[list[Ordered]]:
        choices = yield from self._chooser.ask(self._request, self._budget, self._tally, lists)
        ordered = []
        for shown, choice in zip(lists, choices, strict=True):
            places = () if choice is None else choice.order
            rest = [place for place in range(len(shown)) if place not in places]
            ordered.append(Ordered(tuple(shown[place] for place in (*places, *rest)), len(places)))
            self._tally.judged.update(shown[place].id for place in places)
            for place, logprob in (choice.logprobs if choice else {}).items():
                self.logprobs[shown[place].id] = logprob
        return ordered


def fitting(
    write: Callable[[Sequence[Item]], Written], writer: PromptWriter, budget: Budget, items: Sequence[Item], most: int
) -> int:
    """The most candidates, from `most` on downwards, that a prompt can show, whichever of `items` they are.

    Args:
        write: Writes a prompt that shows these candidates; raises BudgetError if they do not fit.
        writer: Knows the text of each.
        budget: What they must fit.
        items: All candidates.
        most: The most to show.

    Raises:
        BudgetError: not even two candidates fit.
    """
    if most >= len(items):
        try:
            write(items)
        except BudgetError:
            pass
        else:
            return len(items)
    size = min(len(items), most)
    # If those that take the most tokens fit, every list of that size does. A list that is refused was cut as short as may be,
    # and then a short text of another script takes more tokens than a long one in English.
    tokens = {item.id: budget.counter.count(shorten(writer.item_text(item), ITEM_FLOOR)) for item in items}
    longest = sorted(items, key=lambda item: -tokens[item.id])
    while True:
        try:
            write(longest[:size])
        except BudgetError:
            if size <= min(2, len(items)):
                raise
            size = max(2, size * 3 // 4)
        else:
            return size


def _faults(answer: Completion, parsed: ParsedAnswer, written: Written) -> dict[str, str]:
    """What the template of the second try is told of the first answer."""
    return {
        "previous": answer.text or "",
        "missing": ", ".join(written.labels[place] for place in parsed.missing) if parsed.ranked else "",
        "invented": ", ".join(parsed.invented),
        "problem": "; ".join(parsed.repairs),
    }
