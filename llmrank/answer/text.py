"""A model's raw answer goes in; out comes its text without reasoning, with one kind of bracket, quote, dash and arrow.

Titles pass through the same `plain`, so that a title copied character by character still equals itself afterwards.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass

MAX_CHARS = 200_000
"""More than any model writes. What is longer is cut at its start: the final ranking stands at the end."""

_TABLE = str.maketrans(
    {
        **dict.fromkeys("“”„«»", '"'),
        **dict.fromkeys("‘’‚´", "'"),
        **dict.fromkeys("【〔〖「『⟦", "["),
        **dict.fromkeys("】〕〗」』⟧", "]"),
        **dict.fromkeys("→⇒➜➔➡⟶≻", ">"),
        **dict.fromkeys("–—―−‐‑‒", "-"),
        **dict.fromkeys("\u2028\u2029\x0b\x0c\x85", "\n"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\ufe0e\ufe0f\u20e3"),  # invisible: deleted
        "、": ",",
        "。": ".",
        "🥇": "1. ",
        "🥈": "2. ",
        "🥉": "3. ",
    }
)
_ARROW = re.compile(r"[-=]{1,3}>+|>{2,}|\\(?:succ|rightarrow|to|gt)\b")
_ESCAPED = re.compile(r"\\([\[\]_*().>#-])")

_REASON = r"think|thinking|thought|thoughts|reason|reasoning|analysis|reflection|scratchpad"
_REASONING = re.compile(
    rf"<\s*(?P<close>/?)\s*(?:{_REASON})\s*>|\[(?P<close2>/?)THINK\]|◁(?P<close3>/?)think▷|<\|(?P<word>START|END)_THINKING\|>",
    re.IGNORECASE,
)
_CHANNEL = re.compile(r"<\|channel\|>\s*final\s*<\|message\|>")
_ANALYSIS = re.compile(r"<\|channel\|>\s*analysis\s*<\|message\|>")
_FINAL = re.compile(
    r"<answer>|\\boxed\{"
    r"|\b(?:final|revised|corrected|updated)[ \t]+(?:\w{1,20}[ \t]+){0,2}(?:answer|ranking|order|list|result|output)s?\b"
    r"[ \t]{0,4}(?:is\b|[:*_)#]|$)"
    r"|^[^\w\n]{0,8}(?:answer|ranking)[*_]{0,3}[ \t]?:",
    re.IGNORECASE | re.MULTILINE,
)
_CONTINUED = re.compile(r"(?<=>)[ \t]*\n\s*|\n[ \t]*(?=>(?![ \t]*(?:\n|[0-9#*>+-])))")
_BREAK_TAG = re.compile(r"</?(?:br|p|li|ol|ul|div|tr|table|answer)\b[^<>]{0,100}>", re.IGNORECASE)
_STYLE_TAG = re.compile(r"</?(?:b|i|u|em|strong|span|code|td|th)(?:\s[^<>]{0,100})?>")
_SPECIAL = re.compile(r"<\|[\w ]{1,30}\|>|</?s>|<eos>|<(?:start|end)_of_turn>")
_QUOTED_LINE = re.compile(r"^[ \t]*>[ \t]?(?=[ \t]*[0-9#*|+-]|[ \t]*$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class AnswerText:
    """An answer in its parts.

    Attributes:
        visible: What stands outside of reasoning.
        reasoning: The reasoning that was never closed, or after which nothing stood; empty otherwise.
        finals: Offsets in `visible` (in `reasoning` if that is empty) behind phrases such as "Final answer:".
        cut: True if the start of an overlong answer was cut off.
    """

    visible: str
    reasoning: str
    finals: tuple[int, ...]
    cut: bool


def plain(text: str) -> str:
    """The text with HTML entities resolved, in Unicode NFKC, with one kind of quote, bracket, dash and arrow (``>``)."""
    for _ in range(2):  # "&amp;amp;" is real in shop data
        if "&" not in text:
            break
        text = html.unescape(text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_TABLE)).translate(_TABLE)
    return _ARROW.sub(">", text)


def split_answer(text: str) -> AnswerText:
    """Takes the reasoning away: ``<think>`` and its kin, closed, never opened (the prompt opened it) or never closed."""
    cut = len(text) > MAX_CHARS
    text = plain(text[-MAX_CHARS:].replace("\r\n", "\n").replace("\r", "\n"))[-MAX_CHARS:]
    visible, reasoning = _without_reasoning(text)
    if visible.strip():
        reasoning = reasoning if reasoning.strip() else ""
    visible, reasoning = _tidy(visible), _tidy(reasoning)
    return AnswerText(visible, reasoning, tuple(match.end() for match in _FINAL.finditer(visible or reasoning)), cut)


def finals(text: str) -> tuple[int, ...]:
    """The offsets behind phrases such as "Final answer:"."""
    return tuple(match.end() for match in _FINAL.finditer(text))


def answer_start(text: str) -> int | None:
    """Where an answer begins behind the reasoning that stands in it; 0 if there is none, None if the reasoning has no end."""
    if channels := list(_CHANNEL.finditer(text)):
        return channels[-1].end()
    if _ANALYSIS.search(text):
        return None
    tags = list(_REASONING.finditer(text))
    if not tags:
        return 0
    return tags[-1].end() if _closes(tags[-1]) else None


def _closes(tag: re.Match[str]) -> bool:
    return (tag["word"] or "").upper() == "END" or any(tag[name] for name in ("close", "close2", "close3"))


def _without_reasoning(text: str) -> tuple[str, str]:
    channels = list(_CHANNEL.finditer(text))
    if channels:
        return text[channels[-1].end() :], ""
    analysis = _ANALYSIS.search(text)
    if analysis:
        return text[: analysis.start()], text[analysis.end() :]
    outside: list[str] = []
    closed = ""
    depth, last = 0, 0
    for match in _REASONING.finditer(text):
        if not _closes(match):
            if depth == 0:
                outside.append(text[last : match.start()])
                last = match.end()
            depth += 1
        else:
            if depth == 0:  # the prompt opened it: all that came so far was reasoning
                outside.clear()
            closed = text[last : match.start()]
            # One closing tag ends it, however often it was opened: models do not nest, they stutter.
            depth, last = 0, match.end()
    if depth:
        return "\n".join(outside), text[last:]
    outside.append(text[last:])
    visible = "\n".join(outside)
    return visible, "" if visible.strip() else closed


def _tidy(text: str) -> str:
    """Takes away HTML tags, the ``>`` of block quotes and backslashes before punctuation; joins a chain that spans lines."""
    text = _ESCAPED.sub(r"\1", text)
    if ">" in text:
        text = _SPECIAL.sub("\n", text)
        text = _STYLE_TAG.sub(" ", _BREAK_TAG.sub(lambda tag: tag[0] if tag[0] == "<answer>" else "\n", text))
        text = _CONTINUED.sub(" ", _QUOTED_LINE.sub("", text))
    return text
