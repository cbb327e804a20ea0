"""A request with a sentence goes in; one prompt about the sentence comes out, and for its answer the Wish that it holds."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from llmrank.budget import Budget
from llmrank.errors import BackendError, BudgetError, ConfigError
from llmrank.prompt_kinds import folder_of
from llmrank.retrieval.constraints import Attribute, AttributeTable
from llmrank.types import Completion, Prompt, ResolvedRequest
from llmrank.understanding.reader import read_wish
from llmrank.understanding.schema import wish_schema
from llmrank.wish import Wish
from llmrank.writer import PromptOptions, PromptWriter, ShownAttribute

When: TypeAlias = Literal["no-history", "always", "never"]
Understood: TypeAlias = Generator[Sequence[Prompt], Sequence[Completion | BackendError], Wish]
"""A sentence being read: yields the one prompt, is sent its answer, returns the Wish."""

FOLDER = "understanding"


@dataclass(frozen=True, slots=True)
class UnderstandingOptions:
    """Which sentences are read before anything is ranked, and what of an item they may constrain.

    Args:
        template: The template of the prompt, one of the folder ``understanding``.
        attributes: The attributes that constraints may use.
        when: ``no-history`` reads the query of a user without a history, ``always`` every query, ``never`` none.
        values: How many categories of each attribute the prompt names, the most frequent ones.
        max_tokens: The most tokens of the answer.

    Raises:
        ConfigError: a value is out of its range.
    """

    template: str = "understanding/wish"
    attributes: tuple[str, ...] = ()
    when: When = "no-history"
    values: int = 30
    max_tokens: int = 512

    def __post_init__(self) -> None:
        if self.when not in ("no-history", "always", "never"):
            raise ConfigError("unknown", field="understanding.when", value=self.when, fix="use no-history, always or never")
        if isinstance(self.attributes, str) or not all(isinstance(name, str) and name for name in self.attributes):
            raise ConfigError(
                "must be a list of names", field="understanding.attributes", value=self.attributes, fix="write [year, genres]"
            )
        object.__setattr__(self, "attributes", tuple(self.attributes))
        for name in ("values", "max_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    "must be a whole number of at least 1", field=f"understanding.{name}", value=value, fix="try 30"
                )


class Understanding:
    """Reads what users say they want, by one question to the model a sentence. Safe to use from several threads.

    Args:
        options: See `UnderstandingOptions`.
        prompt: Its `variables` and `directories` are those of the prompt; `options.template` is the template.

    Raises:
        TemplateError: there is no such template.
        ConfigError: the template is no chat, or one that asks for something else.
    """

    def __init__(self, options: UnderstandingOptions | None = None, prompt: PromptOptions | None = None) -> None:
        self.options = options or UnderstandingOptions()
        self.writer = PromptWriter(replace(prompt or PromptOptions(), template=self.options.template, answer="object"))
        template = self.writer.template
        if template.kind != "chat" or folder_of(template.name) not in (None, FOLDER):
            raise ConfigError(
                "asks for something else than what a sentence says",
                field="understanding.template",
                value=template.name,
                fix=f"use a chat of the folder {FOLDER}/",
            )
        self._described: tuple[AttributeTable, tuple[Attribute, ...]] | None = None

    def applies(self, request: ResolvedRequest) -> bool:
        """Whether the query of a request is read."""
        if not request.query or self.options.when == "never":
            return False
        return self.options.when == "always" or not request.history

    def flow(self, request: ResolvedRequest, table: AttributeTable, budget: Budget) -> Understood:
        """Starts reading the query of a request for which `applies` holds.

        Args:
            request: Its query is read; neither its history nor its candidates are shown.
            table: The attributes that there are; those that `options.attributes` names may be constrained.
            budget: The window that the prompt must fit.
        """
        return understand(
            request,
            table,
            self._attributes(table),
            self.writer,
            budget,
            max_tokens=self.options.max_tokens,
        )

    def _attributes(self, table: AttributeTable) -> tuple[Attribute, ...]:
        known = self._described  # replaced whole, so that two threads do no harm
        if known is None or known[0] is not table:
            found = tuple(table.describe(name, self.options.values) for name in self.options.attributes if name in table)
            self._described = known = (table, found)
        return known[1]


def understand(
    request: ResolvedRequest,
    table: AttributeTable,
    attributes: Sequence[Attribute],
    writer: PromptWriter,
    budget: Budget,
    *,
    max_tokens: int = 512,
) -> Understood:
    """Reads the query of a request.

    Whatever goes wrong with the question, the sentence itself remains: a Wish without constraints, and a note that says so.

    Args:
        request: Its query is read.
        table: Knows how the catalogue writes its categories.
        attributes: What constraints may use.
        writer: Writes the prompt.
        budget: The window that it must fit.
        max_tokens: The most tokens of the answer.

    Raises:
        TemplateError: the template does not render.
    """
    sentence = request.query or ""
    try:
        written = writer.write(
            replace(request, history=(), wish=None),
            (),
            budget,
            reserve=max_tokens,
            attributes=tuple(ShownAttribute.of(each.name, _range(each), each.values, each.others) for each in attributes),
        )
    except BudgetError as error:
        return Wish(sentence, notes=(f"the sentence was not read ({error}): it is taken as it stands, without constraints",))
    (answer,) = yield [
        Prompt(
            messages=written.messages,
            answer="object",
            schema=wish_schema(attributes),
            max_tokens=max_tokens,
            fingerprint=written.fingerprint,
        )
    ]
    if isinstance(answer, BackendError):
        return Wish(
            sentence,
            notes=(f"the sentence could not be read ({answer}): it is taken as it stands, without constraints",),
        )
    wish = read_wish(sentence, answer.text, attributes, table.spellings)
    return replace(wish, notes=(*answer.notes, *wish.notes))


def _range(attribute: Attribute) -> tuple[str, str] | None:
    """The least and the greatest number, as people write them; None for categories."""
    if attribute.kind == "category":
        return None
    return (
        (f"{attribute.low:.0f}", f"{attribute.high:.0f}") if attribute.whole else (f"{attribute.low:g}", f"{attribute.high:g}")
    )
