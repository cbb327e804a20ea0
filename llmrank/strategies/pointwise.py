"""Pointwise: each candidate goes in alone with one question; the probabilities of the verdict's words are its score.

``yes-no`` asks whether the candidate fits and takes the share of the positive word, p(yes) / (p(yes) + p(no)) (Nogueira et al.
2020, "Document Ranking with a Pretrained Sequence-to-Sequence Model", arXiv:2003.06713; Liang et al. 2022, "Holistic Evaluation
of Language Models", arXiv:2211.09110). ``graded`` asks for a grade and takes the grade to be expected (Zhuang et al. 2024,
"Beyond Yes and No", NAACL, arXiv:2310.14122).

The questions do not wait for each other and differ only in what they end with, so all are asked at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmrank.answer.text import split_answer
from llmrank.budget import Budget
from llmrank.errors import BackendError, ConfigError
from llmrank.protocols import Flow
from llmrank.strategies.alone import write_alone
from llmrank.strategies.calls import Calls, refuse_too_many
from llmrank.strategies.choice import known_logprobs, require_one_label
from llmrank.strategies.lists import require_at_least, require_temperature
from llmrank.strategies.outcome import failed
from llmrank.strategies.shrink import Flowing, shrinking
from llmrank.strategies.tally import Tally
from llmrank.types import Capability, Completion, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptWriter, Written

Method: TypeAlias = Literal["yes-no", "graded"]

CHOICES: Mapping[Method, tuple[str, ...]] = {"yes-no": ("Yes", "No"), "graded": ("0", "1", "2", "3", "4")}
"""The words of the verdict where none are given: what the answer is read by, so they are data here; the prompts show them."""

# What may stand around the word. No sign and no hyphen: "-1" and "50%" are no grades.
_AROUND = " \t\r\n.,:;!?*_`'\"()[]{}<>«»„“”‚‘’。，：！？"


@dataclass(frozen=True)
class PointwiseOptions:
    """What is asked about each candidate.

    Attributes:
        method: ``yes-no`` or ``graded``.
        choices: The words of the verdict; None for Yes and No, or 0 to 4. For ``yes-no`` two, the positive one first; for
            ``graded`` the grades from the lowest on, which count 0, 1, 2 and so on whatever their words are. Each should be one
            token of the model's vocabulary. In YAML, put yes, no and numbers in quotes.
        max_calls: The most prompts for one ranking, which takes one a candidate; None for no bound.
        max_tokens: The most tokens of an answer. Models that think before they answer need more than 1.
        temperature: 0 decodes greedily; probabilities are read as the server reports them.
        seed: For backends that know seeds.
    """

    method: Method = "yes-no"
    choices: tuple[str, ...] | None = None
    max_calls: int | None = None
    max_tokens: int = 1
    temperature: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        require_at_least(self, max_calls=1, max_tokens=1)
        require_temperature(self.temperature)
        field = "strategy.choices"
        if self.method not in CHOICES:
            raise ConfigError("no such method", field="strategy.method", value=self.method, fix="use yes-no or graded")
        if self.choices is None:
            return
        if len(self.choices) < 2 or (self.method == "yes-no" and len(self.choices) > 2):
            number = "two words, the positive one first" if self.method == "yes-no" else "two grades or more, the lowest first"
            raise ConfigError(f"{self.method} takes {number}", field=field, value=list(self.choices), fix="or leave it out")
        for word in self.choices:
            if word.split() != [word.strip(_AROUND)]:
                raise ConfigError(
                    "is not one word without punctuation around it",
                    field=field,
                    value=word,
                    fix="use words that are one token each, for instance Yes and No",
                )
        if len({word.casefold() for word in self.choices}) < len(self.choices):
            raise ConfigError(
                "some words differ at most in upper and lower case", field=field, value=list(self.choices), fix="use others"
            )

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the verdict."""
        return CHOICES[self.method] if self.choices is None else self.choices

    @property
    def values(self) -> tuple[float, ...]:
        """What each word counts: 1 and 0, or the grades from 0 on."""
        return (1.0, 0.0) if self.method == "yes-no" else tuple(map(float, range(len(self.words))))


class Pointwise:
    """Asks about each candidate alone, all at once, and sorts by the scores.

    `RankedItem.score` is the share of the positive word, from 0 to 1, or the expected grade, from 0 to the highest. A word
    whose probability is not reported counts as improbable; where no probabilities come for any candidate, the words that were
    written count. Both make the status ``repaired``. Where some have probabilities, a word without them is no readable answer,
    for it would count as certain. Equal scores stay in the order given; candidates without a readable answer
    follow the others.

    Args:
        writer: Writes the prompts: a chat of one step that shows `choices` (``pointwise/...``), with the answer ``label``.
        options: What is asked.

    Raises:
        ConfigError: the template is no chat of one step, or does not name `choices`; or the writer asks for another answer.
    """

    name = "pointwise"
    needs: frozenset[Capability] = frozenset({"generate", "label_logprobs"})

    def __init__(self, writer: PromptWriter, options: PointwiseOptions | None = None) -> None:
        require_one_label(writer)
        if not writer.template.uses("choices"):
            raise ConfigError(
                "does not show the words of the verdict (`choices`)",
                field="prompt.template",
                value=writer.template.name,
                fix="use a pointwise/... template",
            )
        self._writer = writer
        self._options = options or PointwiseOptions()
        usual = f"pointwise/{self._options.method}"
        if writer.template.name != usual and writer.template.name in {f"pointwise/{method}" for method in CHOICES}:
            raise ConfigError(
                "asks for the words of the other method",
                field="prompt.template",
                value=writer.template.name,
                fix=f"use {usual} (or leave it out), or the other strategy.method",
            )

    @property
    def templates(self) -> Mapping[str, str]:
        """The template's fingerprint."""
        return {self._writer.template.name: self._writer.fingerprint}

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """One prompt a candidate.

        Raises:
            RequestError: that is more than `max_calls`.
        """
        calls = Calls(count, count)
        refuse_too_many(calls, self._options.max_calls, count)
        return calls

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """One step: a prompt a candidate."""
        self.calls(len(request.candidates), request.top_k)
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._writer.fingerprint),
        )

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        options = self._options
        written = write_alone(
            request,
            self._writer.options.history,
            lambda shown, item: self._writer.write(shown, (item,), budget, reserve=options.max_tokens, choices=options.words),
        )
        answers = yield [self._prompt(each) for each in written]
        tally = Tally()
        measured = any(isinstance(each, Completion) and known_logprobs(each, self._options.words) for each in answers)
        scores: dict[str, float] = {}
        for item, each, answer in zip(request.candidates, written, answers, strict=True):
            score = self._take(tally, each, answer, measured=measured)
            if score is not None:
                scores[item.id] = score
        # sorted() is stable: equal scores stay in the order given, and so do those without one, at the end.
        order = sorted(request.candidates, key=lambda item: -scores.get(item.id, -math.inf))
        return tally.ranking(order, strategy=self.name, fingerprint=self._writer.fingerprint, scores=scores)

    def _prompt(self, written: Written) -> Prompt:
        return Prompt(
            messages=written.messages,
            labels=self._options.words,
            item_ids=written.item_ids,
            answer="label",
            max_tokens=self._options.max_tokens,
            temperature=self._options.temperature,
            seed=self._options.seed,
            label_logprobs=True,
            fingerprint=written.fingerprint,
        )

    def _take(self, tally: Tally, written: Written, answer: Completion | BackendError, *, measured: bool) -> float | None:
        """Reads and counts one answer, where some answer is `measured` by probabilities. None if it could not be read."""
        if isinstance(answer, BackendError):
            tally.fail(written, answer)
            return None
        words, values = self._options.words, self._options.values
        known = known_logprobs(answer, words)
        notes = answer.notes
        if known:
            score: float | None = _expected(known, values)
            missing = [word for place, word in enumerate(words) if place not in known]
            repairs = tuple(f"where the server reports no log-probability for {word}, it counts as 0" for word in missing)
        else:
            place = read_word(answer.text, words)
            score, missing = (None if place is None or measured else values[place]), list(words)
            repairs = (
                f"the answer begins with none of the words {', '.join(words)}"
                if place is None
                else "no log-probabilities came; a written word cannot be compared with what others have"
                if measured
                else "no log-probabilities came; the word that was written counts",
            )
            if place is None and answer.finish_reason == "length":
                allowed = self._options.max_tokens
                notes += (f"an answer was cut off at {allowed} tokens: take words of one token, or raise strategy.max_tokens",)
        tally.count(
            written,
            () if score is None else written.item_ids,
            model=answer.model,
            clean=not missing,
            repairs=repairs,
            notes=notes,
        )
        return score


def read_word(text: str | None, words: Sequence[str]) -> int | None:
    """The place of the word that an answer begins with, whatever its case and the punctuation around it.

    Args:
        text: The answer. Reasoning that stands in it, and what follows its first word, are not looked at.
        words: What may be answered.

    Returns:
        None if the answer begins with none of them.
    """
    first, *_ = split_answer(text or "").visible.split() or [""]
    found = first.strip(_AROUND).casefold()
    return next((place for place, word in enumerate(words) if word.casefold() == found), None)


def _expected(logprobs: Mapping[int, float], values: Sequence[float]) -> float:
    """The mean of the values, weighted by the probabilities of their words among those that are known."""
    highest = max(logprobs.values())
    weights = {place: math.exp(logprob - highest) for place, logprob in logprobs.items()}
    return math.fsum(weight * values[place] for place, weight in weights.items()) / math.fsum(weights.values())
