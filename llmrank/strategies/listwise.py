"""Listwise: the candidates go in as one labelled list, the model writes all labels, best first.

A list that does not fit the window of the model (or is longer than `window`) is ranked in overlapping windows from its end
to its beginning, so that the best climb to the top (Sun et al. 2023, "Is ChatGPT Good at Search?", arXiv:2304.09542).
Candidates that an answer leaves out follow those that it ranks, within their window. A window without an answer, or with one
that cannot be read, stays in the order given: its candidates may then stand ahead of ones that the model ranked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmrank.answer import ParsedAnswer, parse_answer
from llmrank.budget import Budget
from llmrank.errors import BackendError, BadRequestError, BudgetError, ConfigError, ContextLengthError, RequestError
from llmrank.protocols import Flow
from llmrank.sanitize import EMPTY, clean_answer
from llmrank.strategies.outcome import failed, join_cuts, ranked
from llmrank.strategies.shrink import Flowing, TooLong, shrinking
from llmrank.types import Capability, Completion, Cut, Item, Prompt, Ranking, ResolvedRequest, Status
from llmrank.writer import PromptWriter, Written

# A model that answers in a form of its own writes a title behind each label; 16 tokens hold one. It is a cap, not a cost.
TOKENS_PER_LABEL = 16
TOKENS_AROUND = 64
FORMATS = ("order", "json")
"""The forms of answer that ask for every label, in an order."""


@dataclass(frozen=True, slots=True)
class ListwiseOptions:
    """How a list is ranked.

    Attributes:
        window: The most candidates shown at once; None for as many as fit the model's window.
        step: By how many candidates the window moves; None for half the window. Half of it, too, where so few candidates fit
            the model's window that this step would skip some, or leave less of an overlap than was meant.
        max_windows: The most windows, which are asked one after the other, for one list; None for no bound.
        repair: True asks once more when the answer did not rank every candidate.
        max_tokens: The most tokens of an answer; None reckons by the number of candidates. Models that think before they
            answer need more.
        step_tokens: The most tokens of the answer to each earlier step of a template that has several.
        temperature: 0 decodes greedily.
        seed: For backends that know seeds.
    """

    window: int | None = None
    step: int | None = None
    max_windows: int | None = 50
    repair: bool = False
    max_tokens: int | None = None
    step_tokens: int = 512
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("window", 2), ("step", 1), ("max_windows", 1), ("max_tokens", 1), ("step_tokens", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"must be at least {least}", field=f"strategy.{name}", value=value, fix="or leave it out")
        if self.window and self.step and self.step > self.window:
            raise ConfigError(
                "is larger than the window, so some candidates would never be shown",
                field="strategy.step",
                value=self.step,
                fix=f"take at most {self.window}",
            )
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(
                "must be a finite number from 0 on", field="strategy.temperature", value=self.temperature, fix="0 is greedy"
            )


@dataclass(slots=True)
class _Window:
    """One window after it was asked: its items, best first, and how that came about."""

    items: tuple[Item, ...]
    unranked: frozenset[str] = frozenset()
    status: Status = "ok"
    repairs: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    cut: Cut = field(default_factory=Cut)
    error: BackendError | None = None
    model: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a list is shown: the windows from its end to its beginning, and the prompt if it is a single one."""

    spans: tuple[tuple[int, int], ...]
    whole: Written | None = None


@dataclass(slots=True)
class _Steps:
    """What the earlier steps of a template came to."""

    answers: dict[str, str] = field(default_factory=dict)
    repairs: list[str] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: BackendError | None = None


class Listwise:
    """Ranks the whole list in one answer, or in overlapping windows if it is too long for one.

    Args:
        writer: Writes the prompts; its template is a chat, of one step or several.
        options: How the list is ranked.
        repairer: Writes the prompt of the second try (`options.repair`).

    Raises:
        ConfigError: the template is no chat, its answer is not an order of all labels, or `repair` is asked for without a
            repairer.
    """

    name = "listwise"
    needs: frozenset[Capability] = frozenset({"generate"})

    def __init__(
        self, writer: PromptWriter, options: ListwiseOptions | None = None, *, repairer: PromptWriter | None = None
    ) -> None:
        self._writer = writer
        self._options = options or ListwiseOptions()
        self._repairer = repairer
        if writer.template.kind != "chat":
            raise ConfigError(
                "the listwise strategy asks in a chat, and this template is a plain text",
                field="prompt.template",
                value=writer.template.name,
                fix="use a listwise/... template",
            )
        if writer.options.answer not in FORMATS:
            raise ConfigError(
                "the listwise strategy needs an answer that ranks every candidate",
                field="prompt.answer",
                value=writer.options.answer,
                fix=f"use {' or '.join(FORMATS)}",
            )
        if self._options.repair and repairer is None:
            raise ConfigError("needs a template that asks again", field="strategy.repair", value=True, fix="give a repairer")

    @property
    def templates(self) -> Mapping[str, str]:
        """The template's fingerprint, and the repair template's if there is one."""
        writers = [self._writer] if self._repairer is None else [self._writer, self._repairer]
        return {writer.template.name: writer.fingerprint for writer in writers}

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """The template's steps once; then one prompt for the list, or one a window, each after the one before it.

        Raises:
            BudgetError: as the flow runs: not even two candidates fit the model's window.
            RequestError: as the flow runs, before the list is asked: it needs more than `max_windows` windows.
        """
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._writer.fingerprint),
        )

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        order = list(request.candidates)
        if len(self._writer.template.steps) > 1:
            # What cannot be ranked in the end should cost nothing before: a first plan, with a sign in place of each answer.
            self._plan(request, order, budget, {step.name: EMPTY for step in self._writer.template.steps[:-1]})
        steps = yield from self._early_steps(request, order, budget)
        if steps.error is not None:
            return failed(
                order,
                steps.error,
                strategy=self.name,
                fingerprint=self._writer.fingerprint,
                cut=join_cuts(steps.cuts),
                notes=tuple(dict.fromkeys(steps.notes)),
            )
        plan = self._plan(request, order, budget, steps.answers)
        windows: list[_Window] = []
        for start, end in plan.spans:
            shown = tuple(order[start:end])
            written = plan.whole or self._writer.write(
                request, shown, budget, reserve=self._reserve(len(shown)), answers=steps.answers
            )
            window = yield from self._ask(request, shown, written, budget)
            order[start:end] = window.items
            windows.append(window)
            if window.error is not None and not isinstance(window.error, BadRequestError):
                break  # what stands in the way is not this prompt, so the next window would fail too
        return self._ranking(order, windows, steps)

    def _early_steps(self, request: ResolvedRequest, order: list[Item], budget: Budget) -> Flowing[_Steps]:
        """Asks all steps of the template but the last, or until one gets no answer (`_Steps.error`)."""
        steps = _Steps()
        most = self._options.step_tokens
        for step in self._writer.template.steps[:-1]:
            size = self._window_size(request, order, budget, steps.answers, step=step.name)
            written = self._writer.write(request, order[:size], budget, reserve=most, step=step.name, answers=steps.answers)
            (answer,) = yield [self._prompt(written, most, free=True)]
            steps.cuts.append(written.cut)
            if isinstance(answer, ContextLengthError):
                raise TooLong(answer)
            if isinstance(answer, BackendError):
                steps.error = answer
                return steps
            steps.answers[step.name] = answer.text or ""
            steps.notes += answer.notes
            if not clean_answer(answer.text or ""):
                steps.repairs.append(f"step {step.name} gave no text; the steps after it had to do without")
            if answer.finish_reason == "length":
                steps.notes.append(f"step {step.name} was cut off at {most} tokens; strategy.step_tokens allows more")
        return steps

    def _ask(self, request: ResolvedRequest, shown: tuple[Item, ...], written: Written, budget: Budget) -> Flowing[_Window]:
        """One window: asks, and asks again if the answer is incomplete and `repair` is set."""
        reserve = self._reserve(len(shown))
        (answer,) = yield [self._prompt(written, reserve)]
        if isinstance(answer, ContextLengthError):
            raise TooLong(answer)
        if isinstance(answer, BackendError):
            return _Window(shown, frozenset(written.item_ids), "error", cut=written.cut, error=answer)

        parsed, notes = self._parse(answer, written), answer.notes
        repairs = parsed.repairs
        if self._options.repair and parsed.status in ("partial", "fallback"):
            second, note = yield from self._ask_again(request, shown, budget, _faults(answer, parsed, written), written)
            notes += note
            if second is not None and (better := self._parse(second, written)).ranked > parsed.ranked:
                repairs = (f"the first answer ranked {parsed.ranked} of {len(shown)}; asked again", *better.repairs)
                parsed, answer, notes = better, second, notes + second.notes
            elif second is not None:
                notes += ("asked again, and the second answer was no better",)
        status: Status = "repaired" if repairs and parsed.status == "ok" else parsed.status
        if status in ("partial", "fallback") and answer.finish_reason == "length":
            notes += (f"the answer was cut off at {reserve} tokens; strategy.max_tokens allows more",)
        return _Window(
            items=tuple(shown[place] for place in parsed.order),
            unranked=frozenset(shown[place].id for place in parsed.missing),
            status=status,
            repairs=repairs,
            invented=parsed.invented,
            cut=written.cut,
            model=answer.model,
            notes=notes,
        )

    def _ask_again(
        self, request: ResolvedRequest, shown: tuple[Item, ...], budget: Budget, faults: dict[str, str], written: Written
    ) -> Flowing[tuple[Completion | None, tuple[str, ...]]]:
        """The second try: its answer, or a note that says why there is none."""
        if self._repairer is None:
            return None, ()
        reserve = self._reserve(len(shown))
        try:
            again = self._repairer.write(request, shown, budget, reserve=reserve, answers=faults, before=written.messages)
        except BudgetError as error:
            return None, (f"there was no room to ask again: {error}",)
        (second,) = yield [self._prompt(again, reserve)]
        if isinstance(second, BackendError):
            return None, (f"the second try got no answer: {second}",)
        return second, ()

    def _parse(self, answer: Completion, written: Written) -> ParsedAnswer:
        return parse_answer(
            answer.text,
            labels=written.labels,
            titles=written.texts,
            history_titles=written.history_texts,
            expected=self._writer.options.answer,
        )

    def _prompt(self, written: Written, max_tokens: int, *, free: bool = False) -> Prompt:
        return Prompt(
            messages=written.messages,
            labels=() if free else written.labels,
            item_ids=() if free else written.item_ids,
            answer="free" if free else self._writer.options.answer,
            max_tokens=max_tokens,
            temperature=self._options.temperature,
            seed=self._options.seed,
            fingerprint=written.fingerprint,
        )

    def _reserve(self, count: int) -> int:
        return self._options.max_tokens or TOKENS_AROUND + TOKENS_PER_LABEL * count

    def _plan(self, request: ResolvedRequest, order: list[Item], budget: Budget, answers: dict[str, str]) -> _Plan:
        """One prompt for the whole list if it may be shown whole and fits, otherwise windows.

        Raises:
            BudgetError: not even two candidates fit.
            RequestError: there would be more windows than `max_windows`.
        """
        if len(order) <= (self._options.window or len(order)):
            try:
                whole = self._writer.write(request, order, budget, reserve=self._reserve(len(order)), answers=answers)
            except BudgetError:
                pass  # it is shown in windows, and if not even these fit, the error comes from there
            else:
                return _Plan(((0, len(order)),), whole)
        size = self._window_size(request, order, budget, answers)
        spans = _spans(len(order), size, self._step(size))
        if self._options.max_windows is not None and len(spans) > self._options.max_windows:
            raise RequestError(
                f"{len(order):,} candidates need {len(spans):,} windows of {size}, asked one after the other, and "
                f"{self._options.max_windows} are allowed",
                field="strategy.max_windows",
                fix="shorten the list first (prefilter.keep), or allow more (null for no bound)",
            )
        return _Plan(spans)

    def _step(self, size: int) -> int:
        """The step for windows of `size`: as configured if the window is as large as it was meant for, else half of it."""
        wanted = self._options.step
        if wanted is None or size < (self._options.window or wanted + 1):
            return max(1, size // 2)
        return wanted

    def _window_size(
        self, request: ResolvedRequest, order: list[Item], budget: Budget, answers: dict[str, str], step: str | None = None
    ) -> int:
        """The most candidates that one prompt can show: `window` if given, fewer if even so many do not fit.

        Raises:
            BudgetError: not even two candidates fit.
        """
        size = min(len(order), self._options.window or len(order))
        # If the longest texts fit, every window of that size does.
        longest = sorted(order, key=lambda item: -len(self._writer.item_text(item)))
        while True:
            reserve = self._options.step_tokens if step else self._reserve(size)
            try:
                self._writer.write(request, longest[:size], budget, reserve=reserve, step=step, answers=answers)
            except BudgetError:
                if size <= min(2, len(order)):
                    raise
                size = max(2, size * 3 // 4)
            else:
                return size

    def _ranking(self, order: list[Item], windows: list[_Window], steps: _Steps) -> Ranking:
        # A candidate counts as ranked if any window that showed it got an answer that named it.
        named = {item.id for window in windows for item in window.items if item.id not in window.unranked}
        filled = tuple(item.id for item in order if item.id not in named)
        errors = [window.error for window in windows if window.error is not None]
        status: Status = "ok"
        if len(errors) == len(windows):
            status = "error"
        elif not named:
            status = "fallback"
        elif filled or errors:
            status = "partial"
        elif steps.repairs or any(window.status != "ok" for window in windows):
            status = "repaired"  # also if what one window missed, another ranked
        return Ranking(
            ranked(order, unranked=frozenset(filled)),
            status=status,
            repairs=tuple(dict.fromkeys([*steps.repairs, *(repair for window in windows for repair in window.repairs)])),
            filled=filled,
            invented=tuple(dict.fromkeys(name for window in windows for name in window.invented)),
            cut=join_cuts([*steps.cuts, *(window.cut for window in windows)]),
            error=errors[-1] if errors else None,
            strategy=self.name,
            model=next((window.model for window in windows if window.model), ""),
            fingerprint=self._writer.fingerprint,
            notes=tuple(dict.fromkeys([*steps.notes, *(note for window in windows for note in window.notes)])),
        )


def _spans(count: int, size: int, step: int) -> tuple[tuple[int, int], ...]:
    """The windows from the end of a list to its beginning; the last one always starts at 0 and is full."""
    ends = range(count, size, -step)
    return (*((end - size, end) for end in ends), (0, min(size, count)))


def _faults(answer: Completion, parsed: ParsedAnswer, written: Written) -> dict[str, str]:
    """What the template of the second try is told of the first answer."""
    return {
        "previous": answer.text or "",
        "missing": ", ".join(written.labels[place] for place in parsed.missing) if parsed.ranked else "",
        "invented": ", ".join(parsed.invented),
        "problem": "; ".join(parsed.repairs),
    }
