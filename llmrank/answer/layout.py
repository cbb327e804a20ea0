"""Plain answer text goes in; out come blocks: runs of entries, each entry the text of one ranking position.

Nothing is named here. A layout only says where one position ends and the next begins; which candidate an entry names,
and whether a number before it is a rank or a label, is decided for a whole block at once in `naming`. One text
usually gives several blocks that overlap; the best reading of them wins in `answer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from llmrank.answer.json_reader import Container, Document, Scalar, Value, documents


class Layout(IntEnum):
    """How positions are told apart, the least telling first."""

    PLAIN = 1
    """lines without a mark"""
    BULLETS = 2
    """lines after bullets"""
    COMMAS = 3
    """pieces of a line between commas, semicolons, slashes, bars or spaces"""
    NUMBERED = 4
    """lines, or places in a line, after numbers"""
    ARROWS = 5
    """pieces of a line between ``>`` (or ``<``)"""
    JSON = 6
    """values of a list or an object"""


@dataclass(frozen=True, slots=True)
class Entry:
    """The text at one position of a block.

    Attributes:
        body: The text.
        start: Its offset in the answer.
        number: The number written before it, a rank or a label.
        at_end: True if the answer ends with it, and so may have broken off in it.
        rank: A rank that the answer states by name (a JSON key such as "rank").
        first: True for the first piece of a chain, which may begin with a lead-in ("My ranking is B").
        last: True for the last piece of a chain, which may go on in prose ("C because ...").
        end: Where its line ends in the answer; 0 where that is not known.
        title_only: True for a numbered line as a whole: its number may belong to a title, but is no label here.
    """

    body: str
    start: int
    number: int | None = None
    at_end: bool = False
    rank: float | None = None
    first: bool = False
    last: bool = False
    title_only: bool = False
    end: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Entries in the order written.

    Attributes:
        layout: How they were told apart.
        entries: At least one.
        start: Where the block begins in the answer.
        end: Where it ends.
        notes: What had to be repaired to tell them apart.
        favoured: True where the place says that this is the ranking (the JSON key "ranking").
        separator: What stands between the entries of a chain.
    """

    layout: Layout
    entries: tuple[Entry, ...]
    start: int
    end: int
    notes: tuple[str, ...] = ()
    favoured: bool = False
    separator: str = ""


_DECORATION = r"[ \t*_#`~|\"']*"
_RANK_WORD = r"(?:(?:rank|no\.?|number|place|position|top)[ \t]{0,2}#?|\#)"
# A number that is a mark: "1." "1)" "(1)" "1:" "1 -" "1 |" "#1" "Rank 1:" "1st:", also in bold ("**1.**").
_NUMBER = re.compile(
    rf"{_DECORATION}(?:{_RANK_WORD}[ \t]{{0,2}}(?P<named>[0-9]{{1,4}})(?:st|nd|rd|th)?(?![\w]|[.][0-9])[*_`]*[ \t]*[.):|>-]*"
    r"|\(?(?P<plain>[0-9]{1,4})(?:(?:st|nd|rd|th)(?:[ \t](?:place|choice|pick))?)?"
    r"[*_`]*[ \t]*(?:[.)][)*_`]*(?![0-9])[ \t]*[:|-]?|[:|](?![0-9])"
    r"|[ \t]-(?=[ \t])|-(?=[*\[]*[A-Z]\b)|[ \t](?=\[|[A-Z](?:[ \t]*$|[.:)]))))[*_`]*[ \t]*",
    re.IGNORECASE,
)
_BRACKETED_NUMBER = re.compile(rf"{_DECORATION}\[(?P<plain>[0-9]{{1,4}})\][*_`]*[ \t]*[:.)|-]*[ \t]*")
_BULLET = re.compile(r"[ \t|]*[-*+•·▪◦‣●○■□➤✓✔✅⭐◆◇][ \t]+")
_INLINE = re.compile(r"(?:^|(?<=[\s,;|]))[(#*]{0,3}([0-9]{1,3})[.):][*]{0,2}(?=\s|\[|\*|[A-Za-z\"'])")
_ROMAN_LINE = re.compile(r"^([ \t*#]*)(x{0,3}(?:ix|iv|v?i{0,3}))([.)][ \t]+)", re.IGNORECASE | re.MULTILINE)
_ROMAN_DIGITS = {"i": 1, "v": 5, "x": 10}
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_ORDINAL_LINE = re.compile(
    rf"^([ \t*#-]*)({'|'.join(_ORDINALS)})(?:[ \t](?:place|choice|pick))?(?=[*_]*[ \t]?:)", re.IGNORECASE | re.MULTILINE
)
_EMBLEM = re.compile(r"[🏆🎯🎬🎮👉🔹🔸⬛⬜]+[ \t]*")

FAVOURED_KEYS = frozenset(
    {
        "ranking",
        "ranked",
        "rank",
        "order",
        "ordering",
        "ranked_list",
        "ranked_items",
        "final_ranking",
        "final",
        "answer",
        "result",
        "results",
    }
)
"""JSON keys (lower case) under which the ranking is looked for first."""
_OTHER_KEYS = frozenset(
    {"candidates", "history", "excluded", "rejected", "input", "reasoning", "reason", "explanation", "analysis"}
)
_RANK_KEYS = ("rank", "position", "place", "pos", "order")
_LABEL_KEYS = ("label", "id", "letter", "option", "candidate", "choice", "key", "code", "index", "number", "item_id", "item")
_TITLE_KEYS = ("title", "name", "movie", "film", "game", "product", "item", "text", "candidate", "option")


def json_blocks(text: str) -> Iterator[Block]:
    """A block for each list, and each object of plain values, in the JSON documents of `text`."""
    end = len(text.rstrip("`\n\t "))
    for document in documents(text):
        if len(document.value.values) < 2 and not isinstance(next(iter(document.value.values), None), Container):
            keys = document.value.keys
            # "[B]" is a label in brackets, not a list; {"ranking": "B"} and ["B"] are what they look like.
            if not document.strict and keys is None:
                continue
        yield from _walk(document, end)


def _walk(document: Document, end: int) -> Iterator[Block]:
    notes = () if document.strict else ("the JSON was malformed",)
    # What else stands in the same document (a chain in a "reasoning" text) is no draft of its own.
    place = (document.value.start, document.value.end)
    pending: list[tuple[Container, str]] = [(document.value, "")]
    while pending:
        container, key = pending.pop()
        favoured = key.casefold().strip() in FAVOURED_KEYS
        if key.casefold().strip() not in _OTHER_KEYS:
            entries = _entries(container, end)
            if entries:
                said = notes
                if len(entries) > 1 and all(entry.number is not None and entry.body.isdigit() for entry in entries):
                    said = (*notes, "numbers stood for numbers in an object; it was read as rank: label")
                yield Block(Layout.JSON, entries, *place, said, favoured)
        for index, value in enumerate(container.values):
            if isinstance(value, Container):
                pending.append((value, container.keys[index] if container.keys is not None else key))
            elif container.keys is not None and container.keys[index].casefold().strip() in FAVOURED_KEYS:
                # {"ranking": "B > A > C"}: the value is a text of its own.
                for block in inline_blocks(value.text, lambda _: None):
                    moved = tuple(replace(entry, start=value.start + entry.start, at_end=value.cut) for entry in block.entries)
                    yield Block(Layout.JSON, moved, *place, notes, favoured=True, separator=block.separator)


def _entries(container: Container, end: int) -> tuple[Entry, ...]:
    if container.keys is not None:
        if not {key.casefold().strip() for key in container.keys}.isdisjoint((*_LABEL_KEYS, *_TITLE_KEYS)):
            entry = _record(container, end)  # {"label": "B", "title": "Alien"} is one place, not two
            return (entry,) if entry is not None else ()
        # An object of single values: {"1": "B"} (rank to label), {"B": 1} (label to rank), {"B": "Alien"} (label to title).
        pairs = [(key, value) for key, value in zip(container.keys, container.values, strict=True) if isinstance(value, Scalar)]
        if len(pairs) < len(container.values) or any(key.casefold() in FAVOURED_KEYS for key, _ in pairs):
            return ()
        return tuple(_pair(key, value, end) for key, value in pairs)
    flat: list[Value] = []
    for value in container.values:
        # [["B"], ["A", "C"]] are tiers; ["B", "Alien"] is a label with its title and stays together.
        if isinstance(value, Container) and value.keys is None and all(isinstance(inner, Scalar) for inner in value.values):
            scalars = [inner for inner in value.values if isinstance(inner, Scalar)]
            if len(scalars) == 2 and len(scalars[0].text) <= 4 < len(scalars[1].text):
                flat.append(Scalar(f"{scalars[0].text}: {scalars[1].text}", value.start))
            else:
                flat.extend(scalars)
        else:
            flat.append(value)
    entries = []
    for value in flat:
        if isinstance(value, Scalar):
            if value.text:
                entries.append(Entry(value.text, value.start, at_end=value.cut and value.start < end))
        elif value.keys is not None:
            entry = _record(value, end)
            if entry is not None:
                entries.append(entry)
    return tuple(entries)


def _pair(key: str, value: Scalar, end: int) -> Entry:
    at_end = value.cut and value.start < end
    if re.fullmatch(r"[0-9]{1,4}", key.strip()):
        return Entry(value.text, value.start, number=int(key), at_end=at_end)
    if re.fullmatch(r"\W*[A-Za-z]\W*|.*[^\W\d_].*[^\W\d_].*", key.strip(), re.DOTALL) and value.number is not None:
        return Entry(f"{key} = {value.text}", value.start)
    if len(key.strip("[]() *")) <= 2:
        return Entry(f"{key}: {value.text}", value.start, at_end=at_end)
    return Entry(value.text, value.start, at_end=at_end)  # {"first": "B"}


def _record(record: Container, end: int) -> Entry | None:
    """{"rank": 1, "label": "B", "title": "Alien"} as one entry; objects without such keys as their first value."""
    values = {
        key.casefold().strip(): value
        for key, value in zip(record.keys or (), record.values, strict=True)
        if isinstance(value, Scalar) and value.text
    }
    if not values:
        return None
    rank = next((values[key].number for key in _RANK_KEYS if key in values and values[key].number is not None), None)
    label = next((values[key] for key in _LABEL_KEYS if key in values), None)
    title = next((values[key] for key in _TITLE_KEYS if key in values and values[key] is not label), None)
    if len(values) == 1 and label is None and title is None:
        ((key, value),) = values.items()
        original = next(name for name in record.keys or () if name.casefold().strip() == key)
        return _pair(original, value, end)
    if label is not None and len(label.text.strip("[]() *")) > 4:
        label, title = None, title or label  # {"item": "Alien"}
    parts = [part for part in (label, title) if part is not None]
    if not parts:
        return None
    body = f"[{label.text.strip('[]() *')}] {title.text}" if label and title else parts[0].text
    return Entry(body, parts[0].start, rank=rank, at_end=parts[-1].cut and parts[-1].start < end)


def line_blocks(text: str, *, numeric: bool) -> Iterator[Block]:
    """Blocks of numbered lines, of bullets and of other lines, each whole and in the parts that blank lines or new counts make.

    Args:
        text: The answer.
        numeric: True if the labels are numbers; ``[3]`` then is a label, otherwise a mark.
    """
    text = _counted(text)
    end = len(text.rstrip())
    numbered: list[list[Entry]] = [[]]
    bullets: list[list[Entry]] = [[]]
    other: list[list[Entry]] = [[]]
    at = 0
    for line in text.split("\n"):
        start, at = at, at + len(line) + 1
        stripped = line.strip()
        if not stripped:
            bullets.append([])
            other.append([])
            continue
        if not any(char.isalnum() for char in stripped):
            continue  # rules, table borders, fences
        at_end = start + len(line.rstrip()) >= end and not text[end:].strip(" ")
        number, body, bullet = _mark(line, numeric=numeric)
        entry = Entry(body, start, number, at_end, end=start + len(line))
        if number is not None:
            group = numbered[-1]
            if _restarts(group, number):
                numbered.append([])
            numbered[-1].append(entry)
            # The number may belong to the title ("2001: A Space Odyssey").
            unmarked = _BULLET.sub("", _table_row(line), count=1).strip()
            (bullets if bullet else other)[-1].append(
                Entry(unmarked, start, None, at_end, title_only=True, end=start + len(line))
            )
        elif bullet:
            bullets[-1].append(entry)
        else:
            if bullets[-1] and line[:1] not in " \t":
                bullets.append([])
            other[-1].append(entry)
        inline = _inline_numbers(stripped, start, at_end=at_end)
        if inline:
            yield _block(Layout.NUMBERED, inline)
    for layout, groups in ((Layout.NUMBERED, numbered), (Layout.BULLETS, bullets), (Layout.PLAIN, other)):
        filled = [group for group in groups if group]
        for group in filled:
            yield _block(layout, group)
        if len(filled) > 1:
            notes = (
                ("several numbered lists were read one after the other",) if layout is Layout.NUMBERED and not numeric else ()
            )
            yield _block(layout, [entry for group in filled for entry in group], notes)


def _block(layout: Layout, entries: Sequence[Entry], notes: tuple[str, ...] = ()) -> Block:
    last = entries[-1]
    return Block(layout, tuple(entries), entries[0].start, max(last.end, last.start + len(last.body), last.start + 1), notes)


def _restarts(group: Sequence[Entry], number: int) -> bool:
    """True if a count begins anew: 0 or 1 after a higher number, unless the group counts down to it."""
    last = group[-1].number if group else None
    if last is None or number > 1 or last <= number:
        return False
    before = group[-2].number if len(group) > 1 else None
    return not (last == number + 1 and before == last + 1)


def _mark(line: str, *, numeric: bool) -> tuple[int | None, str, bool]:
    """(number, body, whether a bullet stood before it) of one line."""
    line = _table_row(_EMBLEM.sub("", line))
    bullet = _BULLET.match(line)
    body = line[bullet.end() :] if bullet else line
    match = _NUMBER.match(body) or (None if numeric else _BRACKETED_NUMBER.match(body))
    if match is None:
        return None, body.strip(), bullet is not None
    digits = match["plain"] or match["named"]
    rest = body[match.end() :].strip()
    return int(digits), rest, bullet is not None


def _table_row(line: str) -> str:
    stripped = line.strip()
    return stripped.strip("|").strip() if stripped.startswith("|") else line


def _inline_numbers(line: str, start: int, *, at_end: bool) -> list[Entry]:
    """The entries of "1. B 2. A 3. C" in one line: marks that count up by one from the first."""
    marks: list[re.Match[str]] = []
    for match in _INLINE.finditer(line):
        number = int(match[1])
        if number == int(marks[-1][1]) + 1 if marks else number <= 1:
            marks.append(match)
    if len(marks) < 2:
        return []
    entries = []
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        body = line[mark.end() : following.start() if following else len(line)].strip().rstrip(",;|").strip()
        entries.append(Entry(body, start + mark.start(), int(mark[1]), at_end and following is None, last=following is None))
    return entries


def _counted(text: str) -> str:
    """Ordinals ("First:") and Roman list numbers as digits, these if a line begins with "II.": a lone "I." may be a label."""
    text = _ORDINAL_LINE.sub(lambda match: f"{match[1]}{_ORDINALS.index(match[2].lower()) + 1}", text)
    if not re.search(r"^[ \t*#]*ii[.)][ \t]", text, re.IGNORECASE | re.MULTILINE):
        return text

    def digits(match: re.Match[str]) -> str:
        values = [_ROMAN_DIGITS[char] for char in match[2].lower()]
        if not values:
            return match[0]
        total = sum(-value if value < max(values[at:], default=0) else value for at, value in enumerate(values))
        return f"{match[1]}{total}{match[3]}"

    return _ROMAN_LINE.sub(digits, text)


_ARROWS = (">", "<")
_SEPARATORS = (",", ";", "|", "/", "-", " ")
_AND = re.compile(r",?[ \t](?:and|then)[ \t](?:then[ \t]|finally[ \t])?", re.IGNORECASE)

Spans = Callable[[str], Iterable[tuple[int, int]] | None]
"""Gives the places in a line where a whole title stands, so that separators in a title separate nothing."""


def inline_blocks(text: str, titles: Spans) -> Iterator[Block]:
    """Blocks of the pieces of each line that ``>``, ``<`` or commas, semicolons, slashes, bars or spaces separate."""
    end = len(text.rstrip())
    at = 0
    for line in text.split("\n"):
        start, at = at, at + len(line) + 1
        at_end = start + len(line.rstrip()) >= end and not text[end:].strip(" ")
        if not any(char.isalnum() for char in line):
            continue
        for separator in (*_ARROWS, *_SEPARATORS):
            if separator not in line or (separator == " " and _NUMBER.match(line)):
                continue  # "1) 3" is a rank and a label, not two labels
            for begin in _begins(line, separator):
                part = line[begin:]
                notes: tuple[str, ...] = ()
                if separator == ">" and " = " in part:
                    part, notes = part.replace(" = ", " > "), ("equal places were read in the order written",)
                for pieces in _splits(part, separator, titles(part)):
                    last = len(pieces) - 1
                    entries = tuple(
                        Entry(
                            piece, start + begin + offset, at_end=at_end and place == last, first=place == 0, last=place == last
                        )
                        for place, (offset, piece) in enumerate(pieces)
                    )
                    layout = Layout.ARROWS if separator in _ARROWS else Layout.COMMAS
                    # The last piece may run on into prose: only its beginning belongs to the block.
                    yield Block(layout, entries, start + begin, entries[-1].start + 1, notes, separator=separator)


def _splits(line: str, separator: str, spans: Iterable[tuple[int, int]] | None) -> Iterator[list[tuple[int, str]]]:
    """The different ways to cut a line: also in titles or not, and the last piece "[A] and [C]" as one or two."""
    seen: list[list[tuple[int, str]]] = []
    for protected in (None, spans) if spans else (None,):
        whole = [(offset, piece) for offset, piece in _split(line, separator, protected) if piece.strip(" \t.[(*")]
        ways = [whole]
        if separator not in _ARROWS and whole and (match := _AND.search(whole[-1][1])) and match.start() > 0:
            offset, piece = whole[-1]
            ways.append([*whole[:-1], (offset, piece[: match.start()]), (offset + match.end(), piece[match.end() :])])
        for pieces in ways:
            # "[B] > [" is a chain of one that breaks off.
            if len(pieces) > (separator != ">") and pieces not in seen:
                seen.append(pieces)
                yield pieces


def _begins(line: str, separator: str) -> list[int]:
    """Where the list may begin in a line: at its start, and behind the colons of a lead-in ("The top 3 of 5 are:")."""
    first = line.find(separator)
    begins = [0]
    if separator not in _ARROWS:
        # A colon may stand behind commas: "Given your taste, my ranking is: B, A".
        begins += [match.end() for match in re.finditer(r":\**(?=\s)", line)][-3:]
    elif ":" in line[:first]:
        begins.append(line.rfind(":", 0, first) + 1)
    return begins


def _split(line: str, separator: str, spans: Iterable[tuple[int, int]] | None) -> list[tuple[int, str]]:
    """(offset, piece) of what stands between separators, those inside of `spans` left alone."""
    if separator == " ":
        if len(line) > 4000:
            return []
        return [(match.start(), match[0]) for match in re.finditer(r"\S+", line)]
    closed = sorted(spans or ())
    pieces, start, turn = [], 0, 0
    for match in re.finditer(re.escape(separator), line):
        while turn < len(closed) and closed[turn][1] <= match.start():
            turn += 1
        if turn < len(closed) and closed[turn][0] <= match.start():
            continue
        pieces.append((start, line[start : match.start()].strip()))
        start = match.end()
    pieces.append((start, line[start:].strip()))
    return pieces
