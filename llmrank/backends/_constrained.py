"""A Prompt and a way to ask go in, an answer of the form asked for comes out, in as many calls as its decoding takes.

The part of constrained decoding that a vLLM server and vLLM in this process share; `_constraints` has the grammars.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, Literal, Protocol, TypeAlias

from llmrank.backends._constraints import Permutation, form_of
from llmrank.types import Completion, Message, Prompt, Usage

Constraint: TypeAlias = (
    tuple[Literal["grammar"], str] | tuple[Literal["choice"], Sequence[str]] | tuple[Literal["json"], Mapping[str, Any]]
)
"""What may be decoded: the kind and value of vLLM's ``structured_outputs``."""


class Ask(Protocol):
    """One call to the model."""

    async def __call__(self, prompt: Prompt, constraint: Constraint, *, continued: bool) -> Completion:
        """Answers a prompt under a constraint; `continued`: its last message is the answer so far, to be gone on with."""
        ...


def is_constrained(prompt: Prompt) -> bool:
    """True if the prompt's answer has a form that can be enforced."""
    if prompt.answer == "object":
        return prompt.schema is not None
    return bool(prompt.labels) and prompt.answer != "free"


async def decode(prompt: Prompt, ask: Ask) -> tuple[Completion, bool]:
    """Decodes the answer of a prompt for which `is_constrained` holds.

    Returns:
        The answer, and whether it is of the form asked for. If it is not, the constraint was not enforced; the answer then has
        the text that came, or the part of the list that was decoded before.
    """
    if prompt.answer == "object" and prompt.schema is not None:
        return await _fill(prompt, ask, prompt.schema)
    form = form_of(prompt.answer)
    return await _choose(prompt, ask) if form is None else await _permute(prompt, ask, Permutation(form, prompt.labels))


async def _choose(prompt: Prompt, ask: Ask) -> tuple[Completion, bool]:
    """Exactly one label. Its log-probabilities are then normalised over what may be decoded."""
    answer = await ask(replace(prompt, answer="free"), ("choice", prompt.labels), continued=False)
    text = (answer.text or "").strip()
    cut_off = answer.finish_reason == "length" and any(label.startswith(text) for label in prompt.labels)
    return answer, text in prompt.labels or cut_off


async def _fill(prompt: Prompt, ask: Ask, schema: Mapping[str, Any]) -> tuple[Completion, bool]:
    """One object of the form of a schema."""
    answer = await ask(replace(prompt, answer="free"), ("json", schema), continued=False)
    return answer, is_filled(answer.text or "", schema, cut_off=answer.finish_reason == "length")


def is_filled(text: str, schema: Mapping[str, Any], *, cut_off: bool) -> bool:
    """Whether a text is a JSON object, or the beginning of one that was cut off, with the members that a schema requires.

    What the members hold is not looked at: a server that does not enforce a schema is told by much less.
    """
    if cut_off:
        return text.lstrip().startswith("{")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= set(schema.get("required", ()))


async def _permute(prompt: Prompt, ask: Ask, decoding: Permutation) -> tuple[Completion, bool]:
    """A list of all labels."""
    answers: list[Completion] = []
    while not decoding.complete:
        # "free", because the grammar has the form: a `response_format` beside it would be refused.
        step = replace(prompt, answer="free", label_logprobs=prompt.label_logprobs and not answers)
        if decoding.done:
            step = replace(step, messages=(*prompt.messages, Message("assistant", decoding.written)))
        answers.append(await ask(step, ("grammar", decoding.grammar), continued=bool(decoding.done)))
        cut_off = answers[-1].finish_reason == "length"
        if not decoding.take(answers[-1].text, cut_off=cut_off):
            text = decoding.written if decoding.done else answers[-1].text
            return replace(_joined(answers), text=text), False
        if cut_off:
            break
    return replace(_joined(answers), text=decoding.written), True


def _joined(answers: Sequence[Completion]) -> Completion:
    """One answer for several calls: what they cost together, what the first began with, how the last ended."""
    usage = reduce(Usage.__add__, (answer.usage for answer in answers))
    notes = tuple(dict.fromkeys(note for answer in answers for note in answer.notes))
    return replace(answers[0], usage=usage, notes=notes, finish_reason=answers[-1].finish_reason)
