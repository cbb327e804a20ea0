"""A request goes in, requests of its shape that tell nothing about a user come out: what a prior is measured with.

Each item, event, wish and phrase becomes a text of a template. Either a question shows one text everywhere ("N/A" twenty
times), or all of them are mixed, in another order in each question.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice, repeat

from llmrank.errors import ConfigError
from llmrank.sanitize import EMPTY, clean_text
from llmrank.template import Template
from llmrank.types import Event, Item, ResolvedRequest, Wish

STAND_IN = "content-free"
"""The id of what is no item; with a number where there are several."""


class ContentFree:
    """The texts of a template, and the requests that are made of them.

    Args:
        template: Of the kind ``text``: one text a line; a line that stands twice counts once.
        mix: How many questions show the texts mixed; 0 for one question a text.

    Raises:
        ConfigError: the template is a chat, or has no line; fewer than two texts are to be mixed.
        TemplateError: the template does not render.
    """

    def __init__(self, template: Template, mix: int = 0) -> None:
        rendered = template.render({}) if template.kind == "text" else ""
        self._texts = tuple(dict.fromkeys(line.strip() for line in str(rendered).splitlines() if clean_text(line) != EMPTY))
        if not self._texts:
            raise ConfigError(
                "has no content-free text" if template.kind == "text" else "is a chat",
                field="strategy.content_free",
                value=template.name,
                fix="use calibration/content-free, or another template with a `text` block, one text a line",
            )
        if mix and len(self._texts) < 2:
            raise ConfigError(
                f"{template.name} has one text alone, which cannot be mixed",
                field="strategy.mix",
                value=mix,
                fix="leave it out, or name a strategy.content_free with a text a line, best more of them than are shown",
            )
        self._mix = mix

    def __len__(self) -> int:
        """How many questions there are."""
        return self._mix or len(self._texts)

    def request(self, number: int, like: ResolvedRequest, count: int, *, history: bool) -> ResolvedRequest:
        """The request of one question.

        Args:
            number: Which question, from 0 on. The same number has the same texts in the same order.
            like: What its shape is taken from.
            count: How many candidates it has.
            history: True puts as many texts in place of the history, a wish and its phrases as there are; False leaves these.
        """
        texts = self._order(number)
        candidates = tuple(Item(str(place), text) for place, text in enumerate(islice(texts, count)))
        if not history:
            return replace(like, candidates=candidates)
        # The history last, and of it the most recent event first: a prompt shows the last few, and all that it shows is then
        # the same however long the history is.
        query = next(texts) if has_wish(like) else None
        wishes, dislikes = phrases_shown(like)
        wish = None
        if wishes or dislikes:
            wish = Wish(next(texts), wishes=tuple(islice(texts, wishes)), dislikes=tuple(islice(texts, dislikes)))
        recent = [Event(Item(STAND_IN, text)) for text in islice(texts, len(like.history))]
        events = tuple(reversed(recent))
        return ResolvedRequest(events, candidates, query, top_k=like.top_k, wish=wish)

    def _order(self, number: int) -> Iterator[str]:
        """What a question shows, without end."""
        if not self._mix:
            return repeat(self._texts[number])
        shuffled = random.Random(number).sample(self._texts, len(self._texts))  # noqa: S311 - an order, not a secret
        return cycle(shuffled)


def has_wish(request: ResolvedRequest) -> bool:
    """Whether a prompt shows a wish."""
    return request.query is not None and clean_text(request.query) != EMPTY


def phrases_shown(request: ResolvedRequest) -> tuple[int, int]:
    """How many phrases of what is wanted, and of what is not, a prompt shows."""
    if request.wish is None:
        return 0, 0
    wishes, dislikes = (
        sum(clean_text(phrase) != EMPTY for phrase in phrases) for phrases in (request.wish.wishes, request.wish.dislikes)
    )
    return wishes, dislikes
