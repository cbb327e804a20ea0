"""Likelihood: the history goes in as a text, each candidate is scored by how likely its text comes next.

A model needs to follow no instruction for this, so that even a small one ranks well above chance. With `pmi_weight` the
likelihood of the text without any history is taken off, so that what is common everywhere is not preferred for that alone:
domain-conditional pointwise mutual information (Holtzman et al. 2021, "Surface Form Competition", arXiv:2104.08315).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from llmrank.budget import ITEM_FLOOR, Budget, shorten
from llmrank.errors import BackendError, BudgetError, ConfigError, ContextLengthError
from llmrank.protocols import Flow
from llmrank.strategies.calls import Calls
from llmrank.strategies.outcome import failed, ranked
from llmrank.strategies.shrink import Flowing, TooLong, shrinking
from llmrank.types import Capability, Completion, ContinuationScore, Item, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptWriter, Written

TOKENS_AROUND = 2
"""What a scored text takes besides itself: the token that begins a text, and the one that servers must generate after it."""


@dataclass(frozen=True, slots=True)
class LikelihoodOptions:
    """How likelihoods become scores.

    Attributes:
        pmi_weight: How much of the unconditional log-likelihood is taken off: 0 nothing, 1 all of it (PMI).
        normalize: ``token`` divides a log-likelihood by the number of tokens, so that long titles are not punished;
            ``none`` takes it as it is.
    """

    pmi_weight: float = 0.0
    normalize: Literal["token", "none"] = "token"

    def __post_init__(self) -> None:
        if not 0.0 <= self.pmi_weight <= 1.0:
            raise ConfigError(
                "must be from 0 to 1", field="strategy.pmi_weight", value=self.pmi_weight, fix="0 takes nothing off"
            )


class Likelihood:
    """Scores each candidate's text as the continuation of the history.

    Args:
        writer: Writes the prefix; its template is one of the kind ``text`` (``likelihood/...``).
        options: How likelihoods become scores.

    Raises:
        ConfigError: the template is a chat.
    """

    name = "likelihood"
    needs: frozenset[Capability] = frozenset({"score"})

    def __init__(self, writer: PromptWriter, options: LikelihoodOptions | None = None) -> None:
        if writer.template.kind != "text":
            raise ConfigError(
                "the likelihood strategy continues a plain text, and this template is a chat",
                field="prompt.template",
                value=writer.template.name,
                fix="use likelihood/next-line or another template with a `text` block",
            )
        self._writer = writer
        self._options = options or LikelihoodOptions()

    @property
    def templates(self) -> Mapping[str, str]:
        """The template's fingerprint."""
        return {self._writer.template.name: self._writer.fingerprint}

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """One prompt for all candidates; with `pmi_weight` one more a candidate, which is the same for every user."""
        number = 1 + (count if self._options.pmi_weight else 0)
        return Calls(number, number)

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """One prompt scores all candidates; with `pmi_weight`, one more a candidate, the same for every user (so cached)."""
        return shrinking(
            lambda smaller: self._attempt(request, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._writer.fingerprint),
        )

    def _attempt(self, request: ResolvedRequest, budget: Budget) -> Flowing[Ranking]:
        candidates = tuple(request.candidates)
        # The line break belongs to the continuation: it is what says that the title ends here.
        lines, reserve, written = self._fit(request, candidates, budget)
        texts = tuple(line + "\n" for line in lines)
        asked = self._prompt(written, texts, tuple(item.id for item in candidates))
        prompts = [asked]
        if self._options.pmi_weight:
            nobody = replace(request, history=(), query=None)
            blank = self._writer.write(nobody, (), budget, reserve=reserve)
            alone = [self._prompt(blank, (text,), (item.id,)) for text, item in zip(texts, candidates, strict=True)]
            prompts += [replace(each, shared=True) for each in alone]
        conditional, *unconditional = yield prompts
        if isinstance(conditional, ContextLengthError):
            raise TooLong(conditional)
        if isinstance(conditional, BackendError):
            return failed(candidates, conditional, strategy=self.name, fingerprint=written.fingerprint, cut=written.cut)

        scores = [self._value(score) for score in conditional.scores]
        repairs: tuple[str, ...] = ()
        problems = [answer for answer in unconditional if isinstance(answer, BackendError)]
        priors = [
            self._value(answer.scores[0]) if isinstance(answer, Completion) and answer.scores else math.nan
            for answer in unconditional
        ]
        unknown = sum(not math.isfinite(prior) for prior in priors)
        if unknown:
            # Scores with and without the correction cannot be compared, so it is left out for the whole list.
            reason = problems[0] if problems else f"the backend gave none for {unknown} of {len(candidates)} candidates"
            repairs = (f"the unconditional likelihood is not taken off: {reason}",)
        elif priors:
            scores = [score - self._options.pmi_weight * prior for score, prior in zip(scores, priors, strict=True)]
        return self._ranking(candidates, scores, written, conditional, repairs, problems)

    def _fit(
        self, request: ResolvedRequest, candidates: tuple[Item, ...], budget: Budget
    ) -> tuple[tuple[str, ...], int, Written]:
        """The candidates' lines, the tokens kept for the longest of them, and the prefix before it.

        The history is cut first; where the longest line does not fit behind what is left of it, the longest lines are cut.

        Raises:
            BudgetError: a line of `ITEM_FLOOR` bytes does not fit either.
        """
        whole = tuple(self._writer.item_text(item) for item in candidates)
        lines = whole
        while True:
            reserve = max(budget.counter.count(line + "\n") for line in lines) + TOKENS_AROUND
            try:
                written = self._writer.write(request, (), budget, reserve=reserve)
                break
            except BudgetError:
                longest = max(len(line.encode()) for line in lines)
                if longest <= ITEM_FLOOR:
                    raise
                lines = tuple(shorten(line, max(ITEM_FLOOR, longest * 3 // 4)) for line in lines)
        cut_short = [
            item.id
            for item, line, before in zip(candidates, lines, whole, strict=True)
            if line != before or self._writer.shortens(item)
        ]
        assumed = budget.window if budget.assumed and lines != whole else written.cut.assumed_window
        cut = replace(
            written.cut, item_texts=tuple(dict.fromkeys([*written.cut.item_texts, *cut_short])), assumed_window=assumed
        )
        return lines, reserve, replace(written, cut=cut)

    def _prompt(self, written: Written, texts: tuple[str, ...], item_ids: tuple[str, ...]) -> Prompt:
        return Prompt(prefix=written.prefix, continuations=texts, item_ids=item_ids, fingerprint=written.fingerprint)

    def _value(self, score: ContinuationScore) -> float:
        return score.logprob / max(score.tokens, 1) if self._options.normalize == "token" else score.logprob

    def _ranking(
        self,
        candidates: tuple[Item, ...],
        scores: list[float],
        written: Written,
        answer: Completion,
        repairs: tuple[str, ...],
        problems: list[BackendError],
    ) -> Ranking:
        known = {item.id: score for item, score in zip(candidates, scores, strict=True) if math.isfinite(score)}
        missing = tuple(item.id for item in candidates if item.id not in known)
        # sorted() is stable: items that score alike stay in prefilter order.
        order = sorted((item for item in candidates if item.id in known), key=lambda item: -known[item.id])
        order += [item for item in candidates if item.id not in known]
        return Ranking(
            ranked(order, unranked=frozenset(missing), scores=known),
            status="fallback" if not known else "partial" if missing else "repaired" if repairs else "ok",
            repairs=repairs,
            filled=missing,
            cut=written.cut,
            error=problems[0] if problems else None,
            strategy=self.name,
            model=answer.model,
            fingerprint=written.fingerprint,
            notes=answer.notes,
        )
