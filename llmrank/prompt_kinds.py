"""A template's name goes in, what prompts of its kind show and ask for comes out: the one table of it.

The folder says the kind. Whoever looks at templates goes by this table: `llmrank.lint`, ``llmrank prompts``, the snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from llmrank.types import AnswerFormat

Asks: TypeAlias = Literal["labels", "verdict", "wish", "other"]
"""What the answer is made of: labels of candidates, a word of the verdict (``choices``), an object with what a sentence says,
or anything else."""


@dataclass(frozen=True, slots=True)
class PromptKind:
    """What the prompts of one folder are like.

    Attributes:
        block: ``chat`` or ``text``; None for either.
        asks: What the answer is made of.
        answers: The forms of answer that may be asked for; the first is the usual one.
        request: True if the template sees a request; False if it is rendered without any values.
        history: True if it has to show the request's history.
        counts: How many candidates a prompt may show: a few, then what is at the edges; empty where none are.
    """

    block: Literal["chat", "text"] | None = "chat"
    asks: Asks = "labels"
    answers: tuple[AnswerFormat, ...] = ("label",)
    request: bool = True
    history: bool = True
    counts: tuple[int, ...] = (5, 1, 30)


ANY_LIST = PromptKind(
    block=None, answers=("order", *(form for form in get_args(AnswerFormat) if form not in ("order", "object")))
)
"""The kind of every template outside of the folders below: of your own folders, which may ask in any form."""

KINDS: Mapping[str, PromptKind] = {
    "listwise": PromptKind(answers=("order", "json")),
    "single-token": PromptKind(),
    "setwise": PromptKind(),
    "pairwise": PromptKind(counts=(2,)),
    "pointwise": PromptKind(asks="verdict", counts=(1,)),
    "likelihood": PromptKind(block="text", asks="other", answers=("free",), counts=()),
    "query-likelihood": PromptKind(block="text", asks="other", answers=("free",), counts=(1,)),
    "understanding": PromptKind(asks="wish", answers=("object",), history=False, counts=()),
    "probe": PromptKind(block=None, asks="other", answers=("free",), counts=()),
    "calibration": PromptKind(block="text", asks="other", answers=("free",), request=False, counts=()),
}
"""By folder. ``understanding`` reads what a sentence asks for; ``probe`` finds out what a model knows by heart;
``calibration`` has lines without content."""


def kind_of(template: str) -> PromptKind:
    """The kind of a template, by its name: ``pointwise/yes-no`` is of the kind ``pointwise``."""
    return KINDS.get(template.partition("/")[0], ANY_LIST)


def folder_of(template: str) -> str | None:
    """The folder that says the kind of a template, by its name; None for one outside of them all."""
    folder = template.partition("/")[0]
    return folder if folder in KINDS else None
