"""A few candidates go in; which one the model takes first comes out, by the label it writes or by all labels' probabilities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmrank.answer import parse_answer
from llmrank.budget import Budget
from llmrank.errors import BackendError, ConfigError
from llmrank.strategies.shrink import Flowing
from llmrank.strategies.tally import Tally
from llmrank.types import Capability, Completion, Item, Prompt, ResolvedRequest
from llmrank.writer import PromptWriter, Written

Read: TypeAlias = Literal["text", "logprobs"]
"""How an answer is read: the label that is written, or the log-probabilities of all labels as the first token."""

TEXT_TOKENS = 32
"""Room for a label that a model wraps in a few words. It is a cap, not a cost."""

NEEDS: Mapping[Read, frozenset[Capability]] = {
    "text": frozenset({"generate"}),
    "logprobs": frozenset({"generate", "label_logprobs"}),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model makes of a few candidates.

    Attributes:
        order: Places of the candidates that the answer ranks, best first: one if a label was read, else those with a
            log-probability. Never empty.
        logprobs: By place, the natural-log probability of each label; empty if a label was read.
    """

    order: tuple[int, ...]
    logprobs: Mapping[int, float]

    @property
    def best(self) -> int:
        """The place of the candidate that comes first."""
        return self.order[0]


class Chooser:
    """Asks which one of a few candidates comes first.

    Args:
        writer: Writes the prompts: a chat whose answer is a ``label``.
        read: How the answer is read.
        max_tokens: The most tokens of an answer; None for 1 where probabilities are read, else `TEXT_TOKENS`. Models that think
            before they answer need more.
        temperature: 0 decodes greedily.
        seed: For backends that know seeds.

    Raises:
        ConfigError: the template is no chat, or asks for another answer than a label; or candidates are labelled with numbers,
            where probabilities are read.
    """

    def __init__(
        self,
        writer: PromptWriter,
        read: Read,
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> None:
        require_one_label(writer)
        if read == "logprobs" and writer.options.labels == "numbers":
            raise ConfigError(
                "a number may be several tokens, and probabilities are read of one",
                field="prompt.labels",
                value=writer.options.labels,
                fix="use letters, or leave it out",
            )
        self.writer = writer
        self.read: Read = read
        self.tokens = max_tokens or (1 if read == "logprobs" else TEXT_TOKENS)
        self._temperature = temperature
        self._seed = seed

    def ask(
        self, request: ResolvedRequest, budget: Budget, tally: Tally, groups: Sequence[Sequence[Item]]
    ) -> Flowing[list[Choice | None]]:
        """Asks about each group of candidates, all in one step.

        Args:
            request: Whose history and query are shown.
            budget: The window that each prompt must fit.
            tally: Where the answers are counted; once it has stopped, nothing is asked.
            groups: The candidates of each question, in the order shown.

        Returns:
            One choice a group; None for a question without a readable answer.

        Raises:
            BudgetError: the candidates of a group do not fit the window.
            TooLong: the server found a prompt too long.
        """
        if tally.stopped or not groups:
            return [None] * len(groups)
        written = [self.writer.write(request, group, budget, reserve=self.tokens) for group in groups]
        answers = yield [self.prompt(each) for each in written]
        return [self.take(tally, each, answer) for each, answer in zip(written, answers, strict=True)]

    def prompt(self, written: Written) -> Prompt:
        """The question."""
        return Prompt(
            messages=written.messages,
            labels=written.labels,
            item_ids=written.item_ids,
            answer="label",
            max_tokens=self.tokens,
            temperature=self._temperature,
            seed=self._seed,
            label_logprobs=self.read == "logprobs",
            fingerprint=written.fingerprint,
        )

    def take(self, tally: Tally, written: Written, answer: Completion | BackendError) -> Choice | None:
        """Reads and counts one answer. What it judges is for the strategy to say (`Tally.judged`).

        Args:
            tally: Where it is counted.
            written: The question.
            answer: What came back.

        Returns:
            None if there was no answer, or none that could be read.

        Raises:
            TooLong: the server found the prompt too long.
        """
        if isinstance(answer, BackendError):
            tally.fail(written, answer)
            return None
        known = known_logprobs(answer, written.labels) if self.read == "logprobs" else {}
        if known:
            places = sorted(known, key=lambda place: -known[place])  # stable: equal ones in the order shown
            left_out = len(written.labels) - len(places)
            missing = f"no log-probability came for {left_out} of {len(written.labels)} labels"
            lacking = [missing] if left_out else []
            tally.count(written, model=answer.model, clean=not left_out, repairs=lacking, notes=answer.notes)
            return Choice(tuple(places), known)
        parsed = parse_answer(
            answer.text,
            labels=written.labels,
            titles=written.texts,
            history_titles=written.history_texts,
            expected="label",
        )
        notes, repairs = answer.notes, parsed.repairs
        if self.read == "logprobs" and parsed.ranked:
            repairs = (*repairs, "no log-probabilities came; the label that was written is taken")
        if not parsed.ranked and answer.finish_reason == "length":
            notes += (f"an answer was cut off at {self.tokens} tokens; strategy.max_tokens allows more",)
        tally.count(
            written,
            model=answer.model,
            clean=parsed.status == "ok" and not repairs,
            repairs=repairs,
            invented=parsed.invented,
            notes=notes,
        )
        return Choice(parsed.order[:1], {}) if parsed.ranked else None


def require_one_label(writer: PromptWriter) -> None:
    """Refuses a writer whose prompts are not one question in a chat for one label. Raises ConfigError."""
    if writer.template.kind != "chat":
        raise ConfigError(
            "is a plain text, and this strategy asks in a chat",
            field="prompt.template",
            value=writer.template.name,
            fix="use one with `system` and `user` blocks",
        )
    if len(writer.template.steps) > 1:
        raise ConfigError(
            "has several steps, and this strategy asks one question",
            field="prompt.template",
            value=writer.template.name,
            fix="use a template of one file",
        )
    require_no_answer_before(writer)
    if writer.options.answer != "label":
        raise ConfigError(
            "this strategy asks for one label",
            field="prompt.answer",
            value=writer.options.answer,
            fix="use label, or leave it out",
        )


def require_no_answer_before(writer: PromptWriter) -> None:
    """Refuses a template that goes on after an answer (``listwise/repair``), for there is none yet. Raises ConfigError."""
    if len(writer.template.steps) == 1 and writer.template.uses("answers"):
        raise ConfigError(
            "goes on after an earlier answer (`answers`), and nothing was asked before it",
            field="prompt.template",
            value=writer.template.name,
            fix="leave it out; strategy.repair uses listwise/repair by itself",
        )


def known_logprobs(answer: Completion, labels: Sequence[str]) -> dict[int, float]:
    """The finite log-probabilities of an answer, by the place of their label.

    Args:
        answer: The answer.
        labels: The labels, in the order shown.

    Returns:
        Natural logarithms; a label without one is absent.
    """
    found = answer.label_logprobs or {}
    return {place: found[label] for place, label in enumerate(labels) if math.isfinite(found.get(label, math.nan))}
