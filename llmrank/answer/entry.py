"""One entry of a block goes in; out comes what its text says: a label, a title, both, or neither, and how they were set off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmrank.answer.layout import Entry, Layout
from llmrank.answer.titles import Found, TitleIndex, year_after

_BODY_CHARS = 1200  # of an entry are read: a label and the longest titles stand in less

_NAME = r"[A-Za-z]{1,2}|[0-9]{1,4}"
_NOUN = r"(?:(?:candidate|item|option|label|choice|movie|film|game|product|document|passage|book|song|number|no\.)[ \t]+#?|\#)?"
_CLOSE = r"[\"'.,;:!]*"
_BRACKET = re.compile(
    rf"{_NOUN}[\[({{<]+[ \t\"']*(?:label[ \t]+)?({_NAME})[ \t\"']*(?:[\])}}>]+|$)[ \t]*[:.,|)=-]*[ \t]*", re.IGNORECASE
)
WHOLE = re.compile(rf"[({{\"'$]*{_NOUN}({_NAME})[\"'.,;:!)\]}}$]*\Z", re.IGNORECASE)
_BARE = re.compile(
    rf"[\"']*{_NOUN}({_NAME})[\"']*(?:[.):|=]+(?=[\s\"'\[(])|[ \t]+-+(?=[ \t])|[ \t]+[|=](?=[ \t]))[ \t]*", re.IGNORECASE
)
# "C (0.9)": a label with its score, and nothing else.
_SCORED = re.compile(
    rf"[(\[\"']*{_NOUN}({_NAME})[\"')\]]*[ \t]{{0,3}}"
    r"(?=[\[(]\s?(?:score|rating)?[ \t:=]*[0-9]{1,3}(?:\.[0-9]{1,6})?\s?(?:%|/\s?[0-9]{1,3})?[\])]\W*\Z)",
    re.IGNORECASE,
)
_SPACED = re.compile(rf"{_NOUN}({_NAME})[ \t]+(?=\S)", re.IGNORECASE)
_TAIL = re.compile(rf"(?:[\[(]\s?({_NAME})\s?[\])]|[ \t][|:][ \t]({_NAME}))\Z")
_VALUE = re.compile(
    r"(?:rank|score|rating|no\.)?[ \t#:=]*([0-9]{1,4}(?:\.[0-9]{1,6})?)(?:[ \t]?/[ \t]?[0-9]{1,4}|%|st|nd|rd|th)?\W*\Z",
    re.IGNORECASE,
)
_SEPARATED = re.compile(r"\s*(?:[-:,.;|()\"'!?\[\]=>/]|\Z)")
_CONNECTOR = re.compile(r"(?:(?:and|then|next|finally|lastly|followed by|first|second|third|last)\b[ \t,:]*)+", re.IGNORECASE)
_AFTERWORD = re.compile(
    r"[ \t]+(?:(?:at|in|the)[ \t])*(?:first|second|third|fourth|fifth|last|next)(?:[ \t]place)?\Z", re.IGNORECASE
)
_SUBTITLE = re.compile(r":\s[A-Z0-9]\w*(?:\s[A-Z0-9]\w*){0,3}\Z")
_LEAD_OUT = re.compile(r"[.\s,;!)]")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the text of one entry says.

    `token` is the label as written and `label` the candidate it stands for; `form` tells how it was set off. `rest` is the
    title after the label, `title` the title that the text would be without labels.
    """

    text: str
    token: str = ""
    label: int | None = None
    form: str = ""  # "", whole, bracket, bare, spaced, tail
    lower: bool = False
    cut: bool = False
    rest: Found | None = None
    title: Found | None = None
    inside: Found | None = None
    value: float | None = None
    doubt: str = ""
    rest_text: str = ""


class EntryReader:
    """Reads entries.

    Args:
        labels: The candidates' labels: letters, or numbers from 1.
        index: The candidates' titles.
    """

    def __init__(self, labels: Sequence[str], index: TitleIndex) -> None:
        self.index = index
        self.numeric = bool(labels) and labels[0].isdigit()
        self._known = {label: place for place, label in enumerate(labels)}
        self._parts: dict[str, Parts] = {}

    def read(self, entry: Entry, layout: Layout) -> Parts:
        """What an entry of a block of that layout says."""
        parts = self._read(entry.body)
        if entry.title_only:
            whole = self.index.whole(parts.text) or self._titled(parts.text)
            return Parts(parts.text, title=whole if whole is not None and whole.options else None)
        if layout not in (Layout.ARROWS, Layout.COMMAS, Layout.NUMBERED):
            return parts
        strict = layout is Layout.COMMAS
        if layout is Layout.COMMAS and not self.is_whole(parts):
            trimmed = _AFTERWORD.sub("", entry.body.rstrip(" .!")) if len(entry.body) < 200 else entry.body
            match = _CONNECTOR.match(trimmed)
            if match and match.end() < len(trimmed):
                trimmed = trimmed[match.end() :]
            if trimmed != entry.body:
                parts = self._read(trimmed)
        if entry.first and layout is not Layout.NUMBERED and not self.is_whole(parts):
            parts = self._tail_of(_AFTERWORD.sub("", entry.body[-200:]), parts)
        if entry.last and not self.is_whole(parts) and layout is Layout.ARROWS:
            parts = self._head_of(entry.body, parts)
        if strict and not self.is_whole(parts):
            return Parts(parts.text, parts.token if parts.form in {"whole", "bracket"} else "")
        return parts

    @staticmethod
    def is_whole(parts: Parts) -> bool:
        """True if the text is a label, a title or both, and nothing else."""
        if parts.label is not None and parts.form in {"whole", "bracket", "bare", "spaced", "tail"}:
            return parts.form == "whole" or not parts.rest_text or parts.rest is not None
        return parts.title is not None and not parts.text[parts.title.end :].strip(" .\"'!)")

    def _tail_of(self, body: str, parts: Parts) -> Parts:
        """The end of a lead-in: "My ranking is B"."""
        words = body.split()
        if not words:
            return parts
        tail = self._read(words[-1])
        if tail.label is not None and (tail.form == "bracket" or (tail.form == "whole" and not tail.lower)):
            return tail
        begin = max(body.rfind(": "), body.rfind(" is "), body.rfind(" are "))
        if begin >= 0:
            after = self._read(body[begin:].split(maxsplit=1)[-1])
            if self.is_whole(after):
                return after
        if parts.title is None and parts.label is None:
            every = self.index.scan(body[-200:])
            if every and every[-1].options and not body[-200:][every[-1].end :].strip(" .\"'!)"):
                after = self._read(body[-200:][every[-1].start :])
                return replace(after, doubt="the ranking was read from running text") if self.is_whole(after) else parts
        return parts

    def _head_of(self, body: str, parts: Parts) -> Parts:
        """The beginning of the last piece: "C. I think ...", "C because ..."."""
        if parts.label is not None or parts.title is not None:
            return parts
        word = body.split(maxsplit=1)[0] if body.split() else ""
        head = self._read(word)
        if head.label is not None and (head.form == "bracket" or not head.lower):
            return head
        return parts

    def _read(self, body: str) -> Parts:
        body = body[:_BODY_CHARS]
        known = self._parts.get(body)
        if known is None:
            known = self._parts[body] = self._parse(body)
        return known

    def _parse(self, body: str) -> Parts:
        raw = " ".join(body.split())
        text = raw.replace("**", "").replace("__", "").replace("`", "").replace("~~", "").strip("*_ \t")
        title = self.index.whole(raw) or self.index.whole(text) or self._titled(text)
        if title is not None and not title.options:
            title = None
        doubt = self._doubt(text, title) if title is not None else ""
        parts = Parts(text, title=title, doubt=doubt)
        for form, pattern in (
            ("whole", WHOLE),
            ("scored", _SCORED),
            ("bracket", _BRACKET),
            ("bare", _BARE),
            ("spaced", _SPACED),
        ):
            match = pattern.match(text)
            if match is None:
                continue
            token = match[1]
            label = self.label(token)
            rest_text = text[match.end() :].strip()
            rest = self._rest(rest_text)
            if form == "spaced" and (label is None or rest is None or not self.has(rest, label)):
                continue
            if form in {"bare", "scored"} and label is None:
                continue
            if form == "bracket" and label is None and title is not None:
                continue  # "(500) Days of Summer"
            agrees = rest is not None and label is not None and self.has(rest, label)
            # A text that is a title as a whole, or whose title goes on behind the look-alike of a label, has no label.
            if form != "whole" and title is not None and not agrees:
                goes_on = rest is None and bool(rest_text) and title.end > match.end()
                if goes_on or self.index.whole(text) is not None:
                    continue
            if form == "scored":
                number = _VALUE.match(text[match.end() :].strip("[( "))
                return replace(
                    parts,
                    token=token,
                    label=label,
                    form="whole",
                    lower=token.islower(),
                    value=float(number[1]) if number else None,
                )
            cut = form == "bracket" and not re.search(r"[\])}>]", match[0])
            beyond = rest_text[rest.end :].strip(" |:=-(") if rest is not None else rest_text
            # In a table the value is the last cell.
            value = (_VALUE.match(beyond) or _VALUE.match(beyond.rpartition(" | ")[2])) if beyond else None
            return replace(
                parts,
                token=token,
                label=label,
                form=form,
                lower=token.islower(),
                cut=cut,
                rest=rest,
                rest_text=rest_text,
                value=float(value[1]) if value else None,
            )
        parts = self._labelled_tail(text, parts)
        return parts if parts.label is not None or title is not None else replace(parts, inside=self._inside(text))

    def _labelled_tail(self, text: str, parts: Parts) -> Parts:
        """The label behind the title: "Alien [C]", "Alien | C"."""
        bare = text.rstrip("\"'.,;!* ")
        match = _TAIL.search(bare, max(0, len(bare) - 12))
        if match:
            label = self.label(match[1] or match[2])
            before = bare[: match.start()].strip()
            if label is not None and before and self.index.whole(text) is None:
                rest = self._rest(before)
                if rest is not None or (self.numeric is False and bare.endswith("]")):
                    token = match[1] or match[2]
                    return replace(
                        parts, token=token, label=label, form="tail", rest=rest, rest_text=before, lower=token.islower()
                    )
        if parts.title is not None:
            value = _VALUE.match(text[parts.title.end :].strip(" :=-|(")) if text[parts.title.end :].strip() else None
            if value:
                return replace(parts, value=float(value[1]))
        return parts

    def label(self, token: str) -> int | None:
        """The candidate that a label stands for, if it is one."""
        if token.isdigit():
            return self._known.get(token.lstrip("0") or "0")
        return self._known.get(token.upper()) if len(token) == 1 else None

    @staticmethod
    def has(found: Found, index: int) -> bool:
        """True if a title may be this candidate's."""
        return any(option == index for _, option in found.options)

    def _rest(self, text: str) -> Found | None:
        """The title with which the text after a label begins."""
        if not text:
            return None
        found = self.index.whole(text) or self._titled(text)
        return found if found is not None and found.options else None

    def _titled(self, text: str) -> Found | None:
        """The title with which `text` begins, if a sign and no other word follows it."""
        found = self.index.head(text)
        if found is None:
            return None
        return found if _SEPARATED.match(text, found.end) else None

    def _inside(self, text: str) -> Found | None:
        """The candidate's title in the midst of a text: beside one of the history, or set off by signs on both sides."""
        every = [found for found in self.index.scan(text) if found.options or found.history]
        history = any(found.history for found in every)
        for pure in (True, False):
            for found in every:
                if not found.options or (pure and found.history):
                    continue
                before, after = text[: found.start].rstrip(), text[found.end :].lstrip()
                framed = bool(before) and before[-1] in ":\"'[(-|" and (not after or after[0] in ":\"'.])-|!,(")
                long_enough = found.end - found.start >= 4 and not text[found.start].islower()
                if framed or (history and pure and long_enough):
                    return found
        return None

    def _doubt(self, text: str, title: Found) -> str:
        """Why a title that was found may not be meant: another year, or what looks like another subtitle, follows it."""
        rest = text[title.end :]
        if not rest:
            return ""
        year = year_after(rest)
        candidates = [index for _, index in title.options]
        if year and all(self.index.years[index] and year not in self.index.years[index] for index in candidates):
            return f"{short(text)} has another year than the candidate that it was taken for"
        if _SUBTITLE.match(rest):
            return f"{short(text)} was taken for the candidate with the beginning of that title"
        return ""


def short(text: str, limit: int = 60) -> str:
    """A text in quotation marks, for a sentence about it."""
    text = " ".join(text.split())
    return f'"{text if len(text) <= limit else text[: limit - 3] + "..."}"'
