"""Query likelihood: each candidate goes in alone, and how likely what the user asks for comes next is its score.

The query likelihood model of Ponte and Croft 1998, "A Language Modeling Approach to Information Retrieval" (SIGIR), with a
language model's likelihoods (Sachan et al. 2022, "Improving Passage Retrieval with Zero-Shot Question Generation",
arXiv:2204.07496): the mean log-likelihood of the query's tokens given the item. The same query is scored for every candidate,
so that long and common titles have no advantage. The history, which Sachan et al. do not have, may stand before the item.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmrank.budget import Budget
from llmrank.errors import BackendError, ConfigError, RequestError
from llmrank.protocols import Flow
from llmrank.strategies.alone import write_alone
from llmrank.strategies.calls import Calls
from llmrank.strategies.likelihood import TOKENS_AROUND
from llmrank.strategies.outcome import failed
from llmrank.strategies.shrink import Flowing, shrinking
from llmrank.strategies.tally import Tally
from llmrank.types import Capability, Completion, Prompt, Ranking, ResolvedRequest
from llmrank.writer import PromptWriter, Written, clean_query


@dataclass(frozen=True, slots=True)
class QueryLikelihoodOptions:
    """How likelihoods become scores.

    Attributes:
        normalize: ``token`` divides a log-likelihood by the number of the query's tokens, so that scores of several queries can
            be compared; ``none`` takes it as it is. The order is the same.
    """

    normalize: Literal["token", "none"] = "token"


class QueryLikelihood:
    """Scores each candidate by the likelihood of the request's query after it, all at once.

    `RankedItem.score` is a log-likelihood (natural logarithm). Equal scores stay in the order given; candidates without a
    finite score follow the others.

    Args:
        writer: Writes the prefix, which shows one candidate and not the query; its template is of the kind ``text``
            (``query-likelihood/...``).
        options: How likelihoods become scores.

    Raises:
        ConfigError: the template is a chat, shows no candidate, or shows the query.
    """

    name = "query-likelihood"
    needs: frozenset[Capability] = frozenset({"score"})

    def __init__(self, writer: PromptWriter, options: QueryLikelihoodOptions | None = None) -> None:
        template = writer.template
        if template.kind != "text" or not template.uses("candidates") or template.uses("query"):
            raise ConfigError(
                "must be a plain text that shows a candidate and not the query, which is what continues it",
                field="prompt.template",
                value=template.name,
                fix="use query-likelihood/item-first or another template with such a `text` block",
            )
        self._writer = writer
        self._options = options or QueryLikelihoodOptions()

    @property
    def templates(self) -> Mapping[str, str]:
        """The template's fingerprint."""
        return {self._writer.template.name: self._writer.fingerprint}

    def calls(self, count: int, top_k: int | None = None) -> Calls:
        """One prompt a candidate."""
        return Calls(count, count)

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """One step: a prompt a candidate.

        Raises:
            RequestError: the request has no query.
        """
        query = clean_query(request.query)
        if query is None:
            raise RequestError(
                "is missing, and its likelihood is what query-likelihood ranks by",
                field="query",
                fix="say what the user wants, or rank by the history with strategy.kind likelihood",
            )
        return shrinking(
            lambda smaller: self._attempt(request, query, smaller),
            budget,
            lambda error: failed(request.candidates, error, strategy=self.name, fingerprint=self._writer.fingerprint),
        )

    def _attempt(self, request: ResolvedRequest, query: str, budget: Budget) -> Flowing[Ranking]:
        reserve = budget.counter.count(query) + TOKENS_AROUND
        written = write_alone(
            request,
            self._writer.options.history,
            lambda shown, item: self._writer.write(shown, (item,), budget, reserve=reserve),
        )
        answers = yield [
            Prompt(prefix=each.prefix, continuations=(query,), item_ids=each.item_ids, fingerprint=each.fingerprint)
            for each in written
        ]
        tally = Tally()
        scores: dict[str, float] = {}
        for item, each, answer in zip(request.candidates, written, answers, strict=True):
            score = self._take(tally, each, answer)
            if score is not None:
                scores[item.id] = score
        # sorted() is stable: equal scores stay in the order given, and so do those without one, at the end.
        order = sorted(request.candidates, key=lambda item: -scores.get(item.id, -math.inf))
        return tally.ranking(order, strategy=self.name, fingerprint=self._writer.fingerprint, scores=scores)

    def _take(self, tally: Tally, written: Written, answer: Completion | BackendError) -> float | None:
        """Reads and counts one answer. None if it has no finite score."""
        if isinstance(answer, BackendError):
            tally.fail(written, answer)
            return None
        score = next((self._value(each.logprob, each.tokens) for each in answer.scores), math.nan)
        known = math.isfinite(score)
        judged = written.item_ids if known else ()
        tally.count(written, judged, model=answer.model, clean=known, notes=answer.notes)
        return score if known else None

    def _value(self, logprob: float, tokens: int) -> float:
        return logprob / max(tokens, 1) if self._options.normalize == "token" else logprob
