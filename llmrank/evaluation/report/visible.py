"""Foreign text goes in, text whose every character can be seen comes out; what is too long is cut, and says so.

Titles, answers and prompts are shown as they are: nothing is cleaned, because what is wrong with them is what a reader looks
for. Escaping for HTML or Markdown comes later, at the place of use.
"""

from __future__ import annotations

import unicodedata

# Control, format (zero-width and bidirectional too), half surrogate pairs, private use, and the two separators of lines.
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"
"""Part of honest emoji and of Persian or Indic words; between ASCII letters they only hide something."""


def visible(text: object, *, lines: bool = False) -> str:
    """The text with a visible sign in place of every invisible or direction-changing character.

    Args:
        text: Anything; `str` of it is taken.
        lines: True leaves line feeds and tabs as they are, for text that is shown in lines.

    Returns:
        A text that can be encoded as UTF-8, with ``⟨U+202E⟩`` for a right-to-left override.
    """
    if lines:
        return "\n".join("\t".join(map(visible, line.split("\t"))) for line in str(text).split("\n"))
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(_sign(char, whole[place - 1 : place]) for place, char in enumerate(whole))


def _sign(char: str, before: str) -> str:
    if unicodedata.category(char) not in _HIDDEN:
        return char
    if char in _JOINERS and before and not before.isascii():
        return char
    # Not Unicode's pictures of control characters, such as ␀: many fonts lack them, and then nothing is to be seen again.
    return f"⟨U+{ord(char):04X}⟩"


def shortened(text: str, limit: int) -> str:
    """The text itself, or its beginning and its end with the number of characters left out between them.

    Args:
        text: Any text.
        limit: The most characters of it that are kept, at least 2.
    """
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} … {len(text) - limit:,} characters left out … {text[len(text) - tail :]}"
