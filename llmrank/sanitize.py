"""Makes foreign text safe to stand in a prompt: any text goes in, one clean line (or a cleaned answer) comes out.

After `clean_text` no item can break a prompt's layout: it is one line, and the characters that the layout is made of
(square brackets for labels, angle brackets for the tags around data and for chat templates' special tokens) do not occur in it.
"""

from __future__ import annotations

import html
import re
import unicodedata

EMPTY = "?"
"""Stands for a text of which nothing visible is left. A sign, not a word: words are for the templates."""

ELLIPSIS = "…"

# HTML that shops leave in titles. It says nothing to a model, and its brackets would have to be defused anyway.
_HTML_TAG = re.compile(r"</?(?:b|i|u|em|strong|br|p|span|div|sup|sub|font|li|ul)(?:\s[^<>]{0,200})?/?>", re.IGNORECASE)
_TAG = re.compile(r"<[|｜]?([^<>\[\]]{1,60}?)[|｜]?>")
# ``A.``, ``12)``, ``(B)``, ``C:`` and bullets at the start of a line are what a model's answer is read by.
_ENUMERATOR = re.compile(r"^[(\s]*([A-Za-z]|\d{1,3})\s?[.):]+(?=\s|$)")
_BULLET = re.compile(r"^(?:[-*•·–—#+=~›‹]+(?:\s+|$))+")
_BRACKETS = str.maketrans({
    "[": "(", "]": ")", "［": "(", "］": ")", "【": "(", "】": ")", "〔": "(", "〕": ")", "⟦": "(", "⟧": ")",
    "<": "‹", ">": "›", "＜": "‹", "＞": "›", "`": "'",
})  # fmt: skip
# Invisible characters that are not of the categories Cc, Cf, Cs, Co: variation selectors and blank letters.
_INVISIBLE = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0]")
_ROUNDS = 6


def clean_text(text: str, max_chars: int | None = None) -> str:
    """One line of visible text that cannot be taken for a part of the prompt.

    HTML entities are decoded (nested ones too) and formatting tags dropped, the text brought to Unicode NFC, control,
    zero-width and bidirectional characters removed, all white space (line separators included) made one space. Square
    brackets become round ones and angle brackets ``‹›``, so that neither labels (``[A]``), orders (``[A] > [B]``) nor
    special tokens (``<|im_start|>``, ``</s>``, ``[INST]``, ``<think>``) can stand in it; bullets at its start are
    dropped and enumerators (``A.``, ``1)``) lose their punctuation. It is idempotent.

    Args:
        text: Any text.
        max_chars: The most characters to keep, at least 1; a longer text is cut at a word and ends with an ellipsis.

    Returns:
        The clean text, never empty: where nothing visible is left it is ``?``.
    """
    for _ in range(_ROUNDS):
        cleaned = _clean_once(text)
        if cleaned == text:
            break
        text = cleaned
    else:
        # Entities nested deeper than any honest text: separate the ampersands so that nothing is left to decode.
        text = _clean_once(_clean_once(re.sub(r"&(?=[#\w])", "& ", text)))
    text = text or EMPTY
    return text if max_chars is None else cut_text(text, max_chars)


def cut_text(text: str, max_chars: int) -> str:
    """The text itself if it has at most `max_chars` characters, else its start, cut at a word, with an ellipsis.

    Raises:
        ValueError: `max_chars` is below 1.
    """
    if max_chars < 1:
        raise ValueError(f"max_chars must be at least 1, not {max_chars}")
    if len(text) <= max_chars:
        return text
    head = text[: max_chars - 1]
    space = head.rfind(" ")
    # A text without spaces (Chinese, Japanese, one long word) is cut where it is.
    if text[max_chars - 1] != " " and space >= max_chars // 2:
        head = head[:space]
    return head.rstrip(" ,;:-(") + ELLIPSIS


def clean_answer(text: str, max_chars: int = 4000) -> str:
    """A model's own answer, made fit to be shown to it again: lines and labels stay, special tokens are defused.

    What a reasoning model thought before ``</think>`` is left out: it is not part of the answer.
    """
    text = text.rpartition("</think>")[2]
    lines = []
    for line in text.splitlines():
        visible = _remove_invisible(line)
        lines.append(" ".join(_TAG.sub(r"(\1)", visible.replace("[INST]", "(INST)").replace("[/INST]", "(/INST)")).split()))
    cleaned = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return cleaned if len(cleaned) <= max_chars else cleaned[: max_chars - 1].rstrip() + ELLIPSIS


def _clean_once(text: str) -> str:
    text = html.unescape(re.sub(r"&(?:amp;)+", "&", text))
    text = _remove_invisible(_HTML_TAG.sub(" ", text))
    text = unicodedata.normalize("NFC", text)
    text = _TAG.sub(r"(\1)", text).translate(_BRACKETS)
    text = " ".join(text.split())
    text = _BULLET.sub("", text)
    return _ENUMERATOR.sub(r"\1", text).strip()


def _remove_invisible(text: str) -> str:
    """Without control, format, surrogate and private characters; a control character that is white space becomes a space."""
    if text.isascii() and text.isprintable():
        return text
    kept = (
        " " if char.isspace() else char
        for char in _INVISIBLE.sub(" ", text)
        if char.isspace() or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co"}
    )
    return "".join(kept)
