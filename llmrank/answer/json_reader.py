"""JSON, or what a model means by it, goes in; out come its values, each with its place, and whether it was well formed.

One pass with a stack of its own, no recursion: it reads fenced and truncated JSON, trailing commas, single quotes, quotes
inside strings, bare words and Python literals. It never fails: what is no JSON comes out as odd values in which nobody finds
a label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeAlias

_OPEN = re.compile(r"[\[{]")
_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?\Z")
_BARE_END = re.compile(r"[,\]}:\n\[{]")
_AFTER_STRING = re.compile(r"\s*(?:[,\]}:]|\Z)")
_UNICODE = re.compile(r"(?:\\u[0-9a-fA-F]{4}){1,2}")  # two may be one character (a surrogate pair)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": " ", "f": " "}
_WORDS = {"true": "true", "false": "false", "null": "", "None": "", "True": "true", "False": "false"}


@dataclass(slots=True)
class Scalar:
    """A string or number. `cut` is True for a string that the text's end broke off."""

    text: str
    start: int
    number: float | None = None
    cut: bool = False


@dataclass(slots=True)
class Container:
    """A list (`keys` is None) or an object (`keys` runs parallel to `values`)."""

    start: int
    keys: list[str] | None
    values: list[Value] = field(default_factory=list)
    end: int = 0


Value: TypeAlias = Scalar | Container


@dataclass(frozen=True, slots=True)
class Document:
    """One outermost list or object found in a text; `strict` is False if it was not well-formed JSON."""

    value: Container
    strict: bool


def documents(text: str) -> list[Document]:
    """Every outermost list or object in `text`, in order. Takes time linear in the length of the text."""
    found = []
    at = 0
    while match := _OPEN.search(text, at):
        reader = _Reader(text, match.start())
        found.append(Document(reader.read(), reader.strict))
        at = max(reader.at, match.end())
    return found


class _Reader:
    """Reads one outermost value from `at` on; afterwards `at` is behind it."""

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at
        self.strict = True

    def read(self) -> Container:
        text = self.text
        root: Container | None = None
        stack: list[Container] = []
        key: list[str | None] = []  # the key read last, one a level
        comma = False  # a comma was read and nothing after it
        while self.at < len(text):
            char = text[self.at]
            if char.isspace():
                self.at += 1
            elif char in "[{":
                child = Container(self.at, [] if char == "{" else None)
                if stack:
                    self._add(stack[-1], key, child)
                else:
                    root = child
                stack.append(child)
                key.append(None)
                self.at += 1
                comma = False
            elif char in "]}":
                # A bracket of the other kind closes too: models mix them up when they nest.
                top = stack.pop()
                self.strict &= (char == "}") == (top.keys is not None) and not comma and key[-1] is None
                key.pop()
                self.at += 1
                top.end = self.at
                comma = False
                if not stack:
                    break
            elif char == ",":
                self.strict &= not comma and bool(stack[-1].values)
                comma, key[-1] = True, None
                self.at += 1
            elif char == ":":
                self.at += 1
            else:
                scalar = self._scalar(in_object=stack[-1].keys is not None)
                if stack[-1].keys is not None and key[-1] is None and text[self.at : self.at + 40].lstrip().startswith(":"):
                    key[-1] = scalar.text
                else:
                    self._add(stack[-1], key, scalar)
                comma = False
        for container in stack:  # truncated
            container.end = self.at
            self.strict = False
        return root if root is not None else Container(self.at, None)

    def _add(self, parent: Container, key: list[str | None], value: Value) -> None:
        if parent.keys is not None:
            self.strict &= key[-1] is not None
            parent.keys.append(key[-1] or "")
        parent.values.append(value)
        key[-1] = None

    def _scalar(self, *, in_object: bool) -> Scalar:
        quote = self.text[self.at]
        if quote in "\"'":
            self.strict &= quote == '"'
            return self._string(quote)
        start = self.at
        end = _BARE_END.search(self.text, start)
        self.at = end.start() if end else len(self.text)
        if self.at == start:  # a sign that begins nothing
            self.at += 1
        word = self.text[start : self.at].strip()
        if word in _WORDS:
            self.strict &= word in {"true", "false", "null"}
            return Scalar(_WORDS[word], start)
        if _NUMBER.match(word):
            return Scalar(word, start, float(word), cut=end is None)
        self.strict = False
        return Scalar(word, start, cut=end is None)

    def _string(self, quote: str) -> Scalar:
        text, start = self.text, self.at
        chars: list[str] = []
        at = start + 1
        while at < len(text):
            char = text[at]
            code = _UNICODE.match(text, at) if char == "\\" else None
            if code:
                units = bytes.fromhex(code[0].replace("\\u", ""))
                chars.append(units.decode("utf-16-be", errors="replace"))
                at = code.end()
                continue
            if char == "\\" and at + 1 < len(text):
                chars.append(_ESCAPES.get(text[at + 1], text[at + 1]))
                at += 2
                continue
            if char == quote:
                if _AFTER_STRING.match(text, at + 1):
                    self.at = at + 1
                    return Scalar("".join(chars), start)
                self.strict = False  # a quote within the string, not escaped
            chars.append(char)
            at += 1
            if char == "\n" and quote == "'" and len(chars) > 400:
                break
        self.at = at
        self.strict = False
        return Scalar("".join(chars), start, cut=True)
