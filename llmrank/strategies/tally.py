"""The prompts of one ranking and their answers go in, one by one; the Ranking with what they came to comes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llmrank.errors import BackendError, BadRequestError, ContextLengthError
from llmrank.strategies.outcome import join_cuts, ranked
from llmrank.strategies.shrink import TooLong
from llmrank.types import Cut, Item, Ranking, Status
from llmrank.writer import Written


@dataclass(slots=True)
class Tally:
    """What the questions of one ranking came to. A question may take several prompts (a second try).

    Attributes:
        asked: How many questions were put.
        judged: Ids that at least one readable answer ranked.
        errors: Of the questions that got no answer.
        repaired: True once an answer had to be repaired, was incomplete, or could not be read.
        model: The model's name as the backend reports it.
    """

    asked: int = 0
    judged: set[str] = field(default_factory=set)
    errors: list[BackendError] = field(default_factory=list)
    repaired: bool = False
    model: str = ""
    cuts: list[Cut] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    repairs: dict[str, None] = field(default_factory=dict)
    invented: dict[str, None] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """True once an error came that the next question would meet, too: then nothing more should be asked."""
        return any(not isinstance(error, BadRequestError) for error in self.errors)

    def fail(self, written: Written, error: BackendError) -> None:
        """Counts a question that got no answer.

        Raises:
            TooLong: the server found the prompt too long, so the whole ranking has to be asked with a smaller budget.
        """
        if isinstance(error, ContextLengthError):
            raise TooLong(error)
        self.asked += 1
        self.cuts.append(written.cut)
        self.errors.append(error)

    def count(
        self,
        written: Written,
        judged: Iterable[str] = (),
        *,
        model: str = "",
        clean: bool = True,
        repairs: Iterable[str] = (),
        invented: Iterable[str] = (),
        notes: Iterable[str] = (),
    ) -> None:
        """Counts a question that got an answer.

        Args:
            written: The prompt.
            judged: Ids of the candidates that the answer ranks; none if it could not be read, or if they are judged by more
                answers than this one.
            model: The model's name as reported.
            clean: False if the answer was repaired, incomplete or unreadable.
            repairs, invented, notes: As in a Ranking.
        """
        self.asked += 1
        self.cuts.append(written.cut)
        self.judged.update(judged)
        self.model = self.model or model
        self.repaired |= not clean
        self.repairs |= dict.fromkeys(repairs)
        self.invented |= dict.fromkeys(invented)
        self.notes |= dict.fromkeys(notes)

    def remark(self, cut: Cut, *, repairs: Iterable[str] = (), notes: Iterable[str] = ()) -> None:
        """Notes what a prompt came to that is no question about candidates (an earlier step of a template)."""
        self.cuts.append(cut)
        self.repairs |= dict.fromkeys(repairs)
        self.notes |= dict.fromkeys(notes)

    def ranking(
        self,
        order: Sequence[Item],
        *,
        strategy: str,
        fingerprint: str,
        scores: Mapping[str, float] | None = None,
        depth: int | None = None,
    ) -> Ranking:
        """The Ranking of `order`.

        Its status is ``error`` if no question got an answer, ``fallback`` if no answer could be read, ``partial`` if a question
        got none or a candidate was never judged, ``repaired`` if an answer was incomplete whose gaps others filled.

        Args:
            order: All candidates, best first.
            strategy: The strategy's name.
            fingerprint: Of the template.
            scores: The score of each judged candidate by id, if the strategy knows more than an order.
            depth: How many first places the model was asked to put in order; None for all.
        """
        filled = tuple(item.id for item in order if item.id not in self.judged)
        status: Status = "ok"
        if self.errors and len(self.errors) == self.asked:
            status = "error"
        elif not self.judged:
            status = "fallback"
        elif filled or self.errors:
            status = "partial"
        elif self.repaired or self.repairs:
            status = "repaired"
        return Ranking(
            ranked(order, unranked=frozenset(filled), scores=scores),
            status=status,
            repairs=tuple(self.repairs),
            filled=filled,
            depth=depth if depth is not None and depth < len(order) else None,
            invented=tuple(self.invented),
            cut=join_cuts(self.cuts),
            error=self.errors[-1] if self.errors else None,
            strategy=strategy,
            model=self.model,
            fingerprint=fingerprint,
            notes=tuple(self.notes),
        )
