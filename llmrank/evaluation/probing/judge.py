"""The questions of a memorisation probe and the answers to them go in; which answers were right, and their rates, come out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from llmrank.errors import BackendError
from llmrank.evaluation.measures.proportions import rate_difference, wilson
from llmrank.evaluation.probing.material import OTHERS, AskedHistory, HalvedTitle, normal
from llmrank.sanitize import clean_answer
from llmrank.types import Completion

Method: TypeAlias = Literal["complete", "score"]
Match: TypeAlias = Literal["exact", "near"]
Answer: TypeAlias = Completion | BackendError

NEAR = 90
"""The partial ratio of rapidfuzz, from 0 to 100, from which on an answer counts as near."""

EXAMPLES = 3
_YEAR = re.compile(r" (?:19|20)\d\d$")


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one question.

    Attributes:
        shown: What the model was shown, or the last of it.
        true: What came next.
        said: What the model answered, or found likeliest.
        real, control: How well it did; None for not at all. Being likeliest counts as ``exact``.
        answered: False if the backend did not answer.
    """

    shown: str
    true: str
    said: str | None = None
    real: Match | None = None
    control: Match | None = None
    answered: bool = True


def judge_title(method: Method, title: HalvedTitle, answer: Answer) -> Judged:
    """One answer serves both sides: it is held against the title's own end, and against that of the synthetic title."""
    judged = Judged(title.beginning, title.rest, answered=False)
    if isinstance(answer, BackendError):
        return judged
    if method == "complete":
        said = _said(answer.text)
        whole, beginning = normal(said), normal(title.beginning)
        rest = whole.removeprefix(f"{beginning} ")
        return replace(
            judged, said=said, real=match(normal(title.rest), rest), control=match(normal(title.other), rest), answered=True
        )
    own, other, *others = (score.logprob for score in answer.scores)
    ends = (title.rest, title.other, *title.decoys)
    likeliest = max(range(len(ends)), key=lambda place: answer.scores[place].logprob)
    return replace(
        judged,
        said=ends[likeliest],
        real=_above(own, others),
        control=_above(other, others),
        answered=True,
    )


def judge_history(method: Method, history: AskedHistory, answers: tuple[Answer, Answer]) -> Judged:
    """The first of the answers is that to the history in order, the second that to the shuffled one."""
    real, control = answers
    judged = Judged(" | ".join(item.title for item in history.shown[-EXAMPLES:]), history.next.title, answered=False)
    if isinstance(real, BackendError) or isinstance(control, BackendError):
        return judged
    if method == "complete":
        true = normal(history.next.title)
        said = _said(real.text)
        return replace(
            judged, said=said, real=match(true, normal(said)), control=match(true, normal(_said(control.text))), answered=True
        )
    means = [[score.logprob / max(1, score.tokens) for score in answer.scores] for answer in (real, control)]
    first, second = (_above(values[0], values[1:]) for values in means)
    likeliest = max(range(len(means[0])), key=means[0].__getitem__)
    return replace(judged, said=(history.next, *history.decoys)[likeliest].title, real=first, control=second, answered=True)


def _above(value: float, others: Sequence[float]) -> Match | None:
    return "exact" if value > max(others) else None


def summarize(method: Method, judged: Sequence[Judged]) -> dict[str, Any] | None:
    """The rates, as `probe` describes them; None if nothing was answered."""
    answered = [each for each in judged if each.answered]
    if not answered:
        return None
    n = len(answered)
    real, control = sum(each.real == "exact" for each in answered), sum(each.control == "exact" for each in answered)
    near = {side: sum(getattr(each, side) is not None for each in answered) / n for side in ("real", "control")}
    return {
        "n": n,
        "unanswered": len(judged) - n,
        "real": real / n,
        "real_ci": list(wilson(real, n)),
        "control": control / n,
        "control_ci": list(wilson(control, n)),
        "difference": (real - control) / n,
        "ci": list(rate_difference((real, n), (control, n))),
        "near": near if method == "complete" else None,
        "chance": None if method == "complete" else 1 / (OTHERS + 1),
        "examples": [
            {"shown": each.shown, "true": each.true, "said": each.said, "match": each.real} for each in answered[:EXAMPLES]
        ],
    }


def _said(text: str | None) -> str:
    """The first line of an answer in which something stands."""
    return next((line for line in map(str.strip, clean_answer(text or "").splitlines()) if normal(line)), "")


def match(true: str, said: str) -> Match | None:
    """Whether an answer is the true text, or near it.

    Args:
        true: What should be said, as `normal` gives it.
        said: What was said, likewise. A year behind it does not count.

    Returns:
        ``exact``; ``near`` if the best part of the answer, which may have two words more, is as good as `NEAR`; else None.
    """
    from rapidfuzz import fuzz

    if true in (said, _YEAR.sub("", said)):
        return "exact"
    head = " ".join(said.split()[: len(true.split()) + 2])
    # Of two texts the shorter is looked for in the longer: a single word of the true text must not count.
    return "near" if len(head) >= 0.9 * len(true) and fuzz.partial_ratio(true, head) >= NEAR else None
