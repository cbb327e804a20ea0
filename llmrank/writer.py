"""Writes prompts: a request and candidates go in, messages (or a raw prefix), labels and what was cut come out.

This is the one place where ids and texts meet: a prompt shows labels and clean texts, and the ids run beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from llmrank.budget import Budget
from llmrank.errors import ConfigError
from llmrank.labels import LETTERS, LabelStyle, make_labels
from llmrank.sanitize import EMPTY, clean_answer, clean_text, cut_text
from llmrank.template import Rendered, Template, Templates
from llmrank.types import AnswerFormat, Cut, Event, Item, Message, ResolvedRequest

DEFAULT_DOMAIN = "items"
"""The key of the words that ``_domain.jinja`` uses when the variable `domain` is not set."""

MAX_QUERY_CHARS = 4000
MAX_VALUE_CHARS = 80
"""The most characters of a category, of a wish and of a dislike."""

TEMPLATE_VALUES = frozenset(
    {"history", "candidates", "query", "wishes", "dislikes", "attributes", "answer", "answers", "choices", "domain"}
)
"""The names that every template sees; `prompts/README.md` tells what they hold."""

Shown: TypeAlias = str | tuple[str, ...] | None
"""A field's text, or texts if it has several; None if the item lacks it."""

LEAST_FIELD_CHARS = 20
"""A field that would have to be shorter says nothing any more: then the end of the whole line is cut."""

_ITEM_CACHE = 65_536  # items; a text is some 100 bytes


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """How a request is shown to a model.

    Attributes:
        template: A template's name.
        history: How many of the most recent events are shown, at most.
        fields: What is shown of an item: ``title``, or names of attributes; a field that an item lacks is left out.
        labels: ``letters``, ``numbers``, or ``auto`` for letters while they last.
        answer: The form of answer that the prompt asks for.
        variables: Further values for the template; ``domain`` chooses the words for items (``movies``, ``games``, ...).
        max_item_chars: An item's text is cut to this many characters: in its longest field beside the title, if that is
            enough, else at its end.
        directories: Folders of your own templates, which override packaged files of the same name.
    """

    template: str = "listwise/sequential"
    history: int = 20
    fields: tuple[str, ...] = ("title",)
    labels: LabelStyle = "auto"
    answer: AnswerFormat = "order"
    variables: Mapping[str, object] = field(default_factory=dict, hash=False)
    max_item_chars: int = 300
    directories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.history < 0:
            raise ConfigError("must not be negative", field="prompt.history", value=self.history)
        if self.max_item_chars < 1:
            raise ConfigError("must be at least 1", field="prompt.max_item_chars", value=self.max_item_chars)
        if not self.fields:
            raise ConfigError("must name at least one field", field="prompt.fields", fix="for instance [title]")
        taken = sorted(set(self.variables) & (TEMPLATE_VALUES - {"domain"}))
        if taken:
            raise ConfigError(
                "this name is one that every template sees already",
                field="prompt.variables",
                value=taken[0],
                fix="choose another",
            )


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt, ready to be asked.

    Attributes:
        messages: The chat, if the template is one.
        prefix: The raw text, if the template is one.
        labels: One a candidate, in the order shown.
        item_ids: The candidates' ids, parallel to `labels`; they are not in the prompt.
        texts: The candidates' texts as shown, parallel to `labels`.
        history_texts: The history's texts as shown, oldest first.
        cut: What had to be left out or shortened.
        fingerprint: The template's.
        tokens: The prompt's tokens, or an upper bound of them (see `Fitted.tokens`).
    """

    messages: tuple[Message, ...]
    prefix: str
    labels: tuple[str, ...]
    item_ids: tuple[str, ...]
    texts: tuple[str, ...]
    history_texts: tuple[str, ...]
    cut: Cut
    fingerprint: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class ShownEvent:
    """What a template sees of an event: the item's text, and the rating or None."""

    text: str
    rating: float | None = None


@dataclass(frozen=True, slots=True)
class ShownCandidate:
    """What a template sees of a candidate: its label and its text."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class ShownAttribute:
    """What a template sees of an attribute: its name, and the range of its numbers or its most frequent categories.

    Attributes:
        name: The attribute's name.
        low, high: The least and the greatest number; None for categories.
        values: Categories.
        others: How many categories there are besides these.
    """

    name: str
    low: str | None = None
    high: str | None = None
    values: tuple[str, ...] = ()
    others: int = 0

    @classmethod
    def of(cls, name: str, numbers: tuple[str, str] | None, values: Sequence[str], others: int) -> ShownAttribute:
        """The same with texts that are fit to be shown."""
        low, high = (None, None) if numbers is None else numbers
        return cls(clean_text(name), low, high, tuple(clean_text(value, MAX_VALUE_CHARS) for value in values), others)


class PromptWriter:
    """Writes the prompts of one template with one set of options.

    Args:
        options: How a request is shown.
        templates: Where templates come from; by default `options.directories`, then the packaged ones.

    Raises:
        TemplateError: there is no such template, or it is broken.
    """

    def __init__(self, options: PromptOptions, templates: Templates | None = None) -> None:
        self.options = options
        self.template: Template = (templates or Templates(*options.directories)).get(options.template)
        self._cached_line = lru_cache(maxsize=_ITEM_CACHE)(self._render_item)

    @property
    def fingerprint(self) -> str:
        """The template's fingerprint."""
        return self.template.fingerprint

    def item_text(self, item: Item) -> str:
        """An item as the model sees it: the chosen fields on one clean line (``_item.jinja``), cut to `max_item_chars`."""
        return self._item_line(item)[0]

    def shortens(self, item: Item) -> bool:
        """True if the item's text is longer than `max_item_chars` and so is not shown whole."""
        return self._item_line(item)[1]

    def _item_line(self, item: Item) -> tuple[str, bool]:
        """The item's line, and whether it had to be cut."""
        # Kept by the texts that it is made of: two items of one id may differ (a caller may pass Items of their own), and
        # other attributes may hold what cannot be compared (arrays).
        return self._cached_line(
            tuple(_texts(item.title if name == "title" else item.attributes.get(name)) for name in self.options.fields)
        )

    def write(
        self,
        request: ResolvedRequest,
        candidates: Sequence[Item],
        budget: Budget,
        *,
        reserve: int,
        step: str | None = None,
        answers: Mapping[str, str] | None = None,
        before: Sequence[Message] = (),
        choices: Sequence[str] = (),
        attributes: Sequence[ShownAttribute] = (),
    ) -> Written:
        """Writes the prompt of one step.

        Args:
            request: Its history and query are shown, and what was read from the query; its candidates are not looked at.
            candidates: What is shown for ranking, in this order.
            budget: The window that it must fit.
            reserve: Tokens kept for the answer.
            step: Which step of the template; the last by default.
            answers: What earlier steps answered, by their names; a repair's ``previous`` and so on.
            before: Messages of the chat that the template continues; they come first in `Written.messages`.
            choices: The words of the verdict that is asked for; none where the answer is made of the candidates' labels.
            attributes: What is known of every item, for a template that takes a sentence apart.

        Raises:
            TemplateError: the template does not render, or refuses the request.
            BudgetError: the prompt cannot be made to fit.
            ConfigError: there are more candidates than labels of the chosen style.
        """
        events = request.history[max(0, len(request.history) - self.options.history) :]
        items = [_item(event) for event in events]
        labels = self._labels(len(candidates))
        shared: dict[str, object] = {
            "domain": DEFAULT_DOMAIN,
            **self.options.variables,
            "query": clean_query(request.query),
            "answer": self.options.answer,
            "answers": {name: clean_answer(text) for name, text in (answers or {}).items()},
            "choices": tuple(choices),
            "wishes": _phrases(request.wish.wishes if request.wish else ()),
            "dislikes": _phrases(request.wish.dislikes if request.wish else ()),
            "attributes": tuple(attributes),
        }

        def render(history: Sequence[str], texts: Sequence[str]) -> Rendered:
            recent = events[len(events) - len(history) :]
            rendered = self.template.render(
                shared
                | {
                    "history": tuple(ShownEvent(text, event.rating) for text, event in zip(history, recent, strict=True)),
                    "candidates": tuple(map(ShownCandidate, labels, texts)),
                },
                step,
            )
            return rendered if isinstance(rendered, str) else (*before, *rendered)

        fitted = budget.fit(
            render,
            history=[self.item_text(item) for item in items],
            candidates=[self.item_text(item) for item in candidates],
            reserve=reserve,
        )
        by_window = [
            *(items[index].id for index in fitted.shortened_history),
            *(candidates[index].id for index in fitted.shortened_candidates),
        ]
        shown = [*items[fitted.dropped :], *candidates]
        by_length = [item.id for item in shown if self._item_line(item)[1]]
        cut = Cut(
            history=fitted.dropped,
            item_texts=tuple(dict.fromkeys([*by_window, *by_length])),
            assumed_window=budget.window if budget.assumed and (fitted.dropped or by_window) else None,
        )
        chat = not isinstance(fitted.rendered, str)
        return Written(
            messages=tuple(message for message in fitted.rendered if isinstance(message, Message)) if chat else (),
            prefix=fitted.rendered if isinstance(fitted.rendered, str) else "",
            labels=labels,
            item_ids=tuple(item.id for item in candidates),
            texts=fitted.candidates,
            history_texts=fitted.history,
            cut=cut,
            fingerprint=self.fingerprint,
            tokens=fitted.tokens,
        )

    def _labels(self, count: int) -> tuple[str, ...]:
        try:
            return make_labels(count, self.options.labels)
        except ValueError as error:
            raise ConfigError(
                f"there are {len(LETTERS)} letters for {count} candidates", field="prompt.labels", fix="use auto or numbers"
            ) from error

    def _render_item(self, texts: tuple[Shown, ...]) -> tuple[str, bool]:
        """The line of an item with these texts in its fields, and whether it had to be cut."""
        fields = {
            name: shown for name, text in zip(self.options.fields, texts, strict=True) if (shown := _clean(text)) is not None
        }
        most = self.options.max_item_chars
        line = clean_text(self.template.render_item({"fields": fields}))
        if len(line) <= most:
            return line, False
        # What is too long is mostly one field, a description: it gives way, so that what stands behind it is still shown.
        texts_alone = {name: shown for name, shown in fields.items() if name != "title" and isinstance(shown, str)}
        longest = max(texts_alone, key=lambda name: len(texts_alone[name]), default=None)
        if longest is not None and (room := len(texts_alone[longest]) - (len(line) - most)) >= LEAST_FIELD_CHARS:
            shorter = fields | {longest: cut_text(texts_alone[longest], room)}
            line = clean_text(self.template.render_item({"fields": shorter}))
        return cut_text(line, most), True


def _item(event: Event) -> Item:
    if not isinstance(event.item, Item):
        raise TypeError(f"a resolved request holds Items, not {event.item!r}")
    return event.item


def clean_query(query: str | None) -> str | None:
    """The sentence as templates see it; None if there is none or nothing visible in it."""
    text = EMPTY if query is None else clean_text(query, MAX_QUERY_CHARS)
    return None if text == EMPTY else text


def _phrases(phrases: Sequence[str]) -> tuple[str, ...]:
    """Wishes or dislikes as templates see them."""
    return tuple(text for phrase in phrases if (text := clean_text(phrase, MAX_VALUE_CHARS)) != EMPTY)


def _texts(value: object) -> Shown:
    """A title or attribute as text, as it stands; a list's members without those that are none."""
    if isinstance(value, str):  # most are, and this is done for each item of each prompt
        return value
    tolist = getattr(value, "tolist", None)
    if callable(tolist):  # NumPy's arrays and numbers, which data frames and Parquet files hold
        value = tolist()
    if isinstance(value, list | tuple | set | frozenset):
        known = tuple([text for member in value if (text := _text(member)) is not None])
        return tuple(sorted(known)) if isinstance(value, set | frozenset) else known
    return _text(value)


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and value != value):  # NaN: how data frames say "none"
        return None
    # A column with gaps makes data frames write years as 1995.0.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _clean(text: Shown) -> Shown:
    """The field's clean text or texts; None if nothing visible is in them."""
    if isinstance(text, tuple):
        return tuple(clean for part in text if (clean := clean_text(part)) != EMPTY) or None
    return None if text is None or (clean := clean_text(text)) == EMPTY else clean
