"""Questions go in, each comes back with the record of its ranking: asked from here, or by files (Ray: on_ray.py)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmrank.errors import AnswersPendingError
from llmrank.evaluation.records import full_record
from llmrank.evaluation.running.contenders import Contender
from llmrank.evaluation.running.meter import Meter
from llmrank.evaluation.running.pace import Purse
from llmrank.prices import Price
from llmrank.ranker import Ranker
from llmrank.types import RankRequest, Usage

if TYPE_CHECKING:
    from llmrank.scale.batch import BatchProgress


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to rank: its number in the log, what the log says beside the ranking, and the request."""

    number: int
    about: Mapping[str, Any]
    request: RankRequest


Answered: TypeAlias = Generator[tuple[int, dict[str, Any]], None, None]
"""The number of each question that is answered, and what the log is to say of it."""


class RunStoppedError(Exception):
    """A run ends here, for now; the message says why, and what to do."""


class BrokenError(RunStoppedError):
    """What would be wrong with every case: a key, a model that is not there, no credit."""


class OutOfBudgetError(RunStoppedError):
    """Nothing more may be spent."""


def ask_here(contender: Contender, questions: Iterator[Question], purse: Purse, *, trace: bool) -> Answered:
    """Asks one by one (and as many at once as the backend wants), in the order of the questions.

    Args:
        contender: Who ranks.
        questions: Read ahead of the answers, a few at a time.
        purse: Ends the questions when nothing more may be spent.
        trace: Keeps prompts and raw answers.
    """
    waiting: deque[Question] = deque()

    def requests() -> Iterator[RankRequest]:
        for question in questions:
            if not purse.allows(len(waiting)):
                return
            waiting.append(question)
            yield question.request

    for ranking in contender.rank_many(requests()):
        purse.answered += 1
        question = waiting.popleft()
        yield question.number, {**question.about, **full_record(ranking, trace=trace)}


def ask_in_batches(
    ranker: Ranker,
    questions: Callable[[], Iterator[Question]],
    folder: Path,
    *,
    via: Literal["openai", "files"],
    poll_s: float,
    trace: bool,
    retry_errors: bool,
    spend: Callable[[str, Usage], None],
    say: Callable[[str], None],
) -> Answered:
    """Asks by the files of a batch API; see `llmrank.scale.batch`.

    Args:
        ranker: Who ranks.
        questions: Gives the same questions each time it is called.
        folder: Where the batch keeps its state.
        via: ``openai`` or ``files``.
        poll_s: Seconds between two looks at a batch, at first.
        trace: Keeps prompts and raw answers.
        retry_errors: Asks again what got an error.
        spend: Told of each answer's model and usage, once.
        say: Told how far the files are.

    Raises:
        RunStoppedError: the answers are not there yet.
    """
    from llmrank.scale.batch import BatchOptions, batch_rank

    options = BatchOptions(via=via, poll_s=poll_s, retry_errors=retry_errors)
    rankings = batch_rank(
        ranker,
        lambda: (question.request for question in questions()),
        folder,
        options,
        on_progress=lambda progress: say(_files(progress)),
        on_answer=lambda _, answer: spend(answer.model or ranker.backend.model, answer.usage),
    )
    try:
        for question, ranking in zip(questions(), rankings, strict=True):
            yield question.number, {**question.about, **full_record(ranking, trace=trace), "batch": True}
    except AnswersPendingError as pending:
        raise RunStoppedError(str(pending)) from pending


def _files(progress: BatchProgress) -> str:
    """How far a batch's files are."""
    states = ", ".join(f"{count} {state}" for state, count in progress.states.items() if count)
    return f"wave {progress.wave}: {progress.requests:,} requests; files: {states}" if progress.wave else ""


def spender(meter: Meter, name: str, price_of: Callable[[str], Price | None], *, batch: bool) -> Callable[[str, Usage], None]:
    """Notes what engines spent that ask elsewhere.

    Args:
        meter: Where.
        name: The ranker's name.
        price_of: A model's price.
        batch: True for the prices of a batch API.
    """

    def spend(model: str, usage: Usage) -> None:
        if usage.calls:
            price = price_of(model)
            meter.add(name, model, usage, None if price is None else price.usd(usage, batch=batch))

    return spend
