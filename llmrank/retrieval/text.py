"""An item goes in, the plain text that is embedded for it comes out: its title and chosen attributes, nothing else.

No prompt template is involved: an embedder wants the words of the item, not a sentence about it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from llmrank.errors import ConfigError, nearest
from llmrank.types import Item

ITEMS_SEARCHED = 1000
"""How many items are looked at for the attribute names that an error message lists."""

_HALF_PAIR = re.compile("[\ud800-\udfff]")


def item_text(item: Item, fields: Sequence[str] = ("title",)) -> str:
    """The item's fields in one line, separated by spaces; a field that the item lacks is left out.

    Args:
        item: The item.
        fields: ``title`` and names of attributes, in the order wanted. A list or set gives its members, sorted if a set.
    """
    parts = (_words(item.title if field == "title" else item.attributes.get(field)) for field in fields)
    return " ".join(part for part in parts if part)


def check_fields(fields: Sequence[str], items: Sequence[Item], where: str = "prefilter.fields") -> None:
    """Finds a mistyped field before a catalogue is embedded, or shown to a model, without it.

    Raises:
        ConfigError: a field that no item has; the message names the nearest one.
    """
    for field in fields:
        if field == "title" or not items or any(field in item.attributes for item in items):
            continue
        known = {"title", *(name for item in items[:ITEMS_SEARCHED] for name in item.attributes)}
        raise ConfigError("no item of the catalogue has it", field=where, value=field, fix=nearest(field, known))


def clean(text: str) -> str:
    """The text without HTML entities (``&amp;amp;`` and ``&amp;`` become ``&``), well formed, and with single spaces."""
    # Shops escape what was escaped already; three rounds cover what real catalogues hold, and bound the work.
    for _ in range(3):
        if "&" not in text:
            break
        text = html.unescape(text)
    return " ".join(well_formed(text).split())


def well_formed(text: str) -> str:
    """The text with U+FFFD in place of half surrogate pairs, which JSON may hold, but neither UTF-8 nor a tokenizer."""
    return text if text.isascii() else _HALF_PAIR.sub("\ufffd", text)


def _words(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, set | frozenset):
        return clean(" ".join(sorted(_words(member) for member in value)))
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return clean(" ".join(_words(member) for member in value))
    return clean(str(value))
