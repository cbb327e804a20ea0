"""A block of entries goes in; out comes a Reading: which candidate each position names, and what had to be guessed.

An entry can name a candidate in three ways: by a label in its text ("[C] Alien"), by a title, or, where labels are numbers, by
the number before it ("3. Alien"). One entry alone often cannot tell ("1. Alien": label 1, or rank 1?). A block can: it was
written in one way throughout. So every way is tried on the whole block and the one that fits it is kept:

- labels in the text count before titles, because labels were asked for;
- labels that merely run through the alphabet while the titles beside them name other candidates are list marks;
- numbers that count up (or down) are ranks, unless the titles beside them are those of the labels;
- titles count where they name more candidates than the look-alikes of labels among them do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from llmrank.answer.entry import WHOLE, EntryReader, Parts, short
from llmrank.answer.layout import Block, Entry, Layout
from llmrank.answer.titles import TitleIndex


@dataclass(frozen=True, slots=True)
class Mention:
    """One candidate at one ranking position: the offset in the answer, the candidate, and whether nothing was guessed."""

    position: int
    index: int
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read one block.

    Attributes:
        block: What was read.
        mentions: The candidates in ranking order; one may stand twice.
        notes: What was guessed or repaired, a sentence each.
        invented: What stands at ranking positions and names no candidate.
        echo: True if the candidates stand in the order given in a mere list, as in a repetition of the question.
        ordered: True if ranks or scores that the answer states made the order, not the order written.
        turned: True if the answer has its best last, and the mentions stand the other way round.
    """

    block: Block
    mentions: tuple[Mention, ...]
    notes: tuple[str, ...]
    invented: tuple[str, ...]
    echo: bool = False
    ordered: bool = False
    turned: bool = False

    @property
    def distinct(self) -> int:
        """How many different candidates it ranks."""
        return len({mention.index for mention in self.mentions})


@dataclass(slots=True)
class _Draft:
    """A reading while it is made: one slot an entry."""

    slots: list[int | None]
    guessed: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)

    @property
    def distinct(self) -> int:
        return len({slot for slot in self.slots if slot is not None})


class Namer:
    """Names the entries of blocks.

    Args:
        labels: The candidates' labels: letters, or numbers from 1.
        index: The candidates' titles.
        single: True if one label was asked for: a lone "1" then is an answer, not the beginning of a list.
    """

    def __init__(self, labels: Sequence[str], index: TitleIndex, *, single: bool = False) -> None:
        self.labels = labels
        self.single = single
        self.index = index
        self.numeric = bool(labels) and labels[0].isdigit()
        self.entries = EntryReader(labels, index)

    def spans(self, line: str) -> list[tuple[int, int]] | None:
        """Where in `line` whole titles stand, character by character."""
        if len(line) > 20_000:
            return None
        return [(found.start, found.end) for found in self.index.scan(line) if found.options]

    def title_spans(self, line: str) -> list[tuple[int, int]]:
        """Where in `line` titles of candidates or of the history stand."""
        return [(found.start, found.end) for found in self.index.scan(line)]

    def read(self, block: Block) -> Reading | None:
        """The reading of `block` that fits it best, or None if it names too little to be a ranking."""
        entries = block.entries
        if block.layout is Layout.COMMAS and not self._promising(entries):
            return None
        parts = [self.entries.read(entry, block.layout) for entry in entries]
        draft, naming = self._name(block, parts)
        notes = [*block.notes, *draft.notes]
        self._by_likeness(block, parts, draft, naming)
        resolved = [place for place, slot in enumerate(draft.slots) if slot is not None]
        if not self._enough(block, parts, draft, resolved):
            return None
        notes += [note for note in draft.notes if note not in notes]
        self._drop_cut(block, parts, draft, notes)
        order = self._order(block, parts, draft, naming, notes)
        mentions = tuple(
            Mention(entries[place].start, slot, place not in draft.guessed)
            for place in order
            if (slot := draft.slots[place]) is not None
        )
        if not mentions:
            return None
        indices = [mention.index for mention in mentions]
        echo = block.layout is not Layout.ARROWS and len(indices) > 1 and indices == list(range(len(indices)))
        ordered = order != sorted(order)
        return Reading(block, mentions, tuple(dict.fromkeys(notes)), tuple(self._invented(block, parts, draft)), echo, ordered)

    def _promising(self, entries: Sequence[Entry]) -> bool:
        """A cheap look at a line with commas: prose is full of them. Most of the first pieces must name something."""
        pieces = entries[:6] if len(entries) > 6 else entries
        named = sum(self.entries.is_whole(self.entries.read(entry, Layout.COMMAS)) for entry in pieces)
        return named * 2 >= len(pieces)

    def _name(self, block: Block, parts: list[Parts]) -> tuple[_Draft, str]:
        """Chooses between labels, titles and numbers; says which."""
        labels = self._by_labels(block, parts)
        titles = self._by_titles(block, parts)
        numbers = self._by_numbers(block, parts) if self.numeric else None
        written = [part.label for part in parts if part.label is not None and part.form]
        agree = sum(
            1 for part in parts if part.label is not None and part.rest is not None and self.entries.has(part.rest, part.label)
        )
        disagree = sum(1 for part in parts if part.label is not None and part.rest is not None) - agree
        if numbers is not None and len(set(written)) * 2 < numbers.distinct:
            return numbers, "numbers"
        if not written:
            return titles, "titles"
        counts = written == list(range(written[0], written[0] + len(written)))
        if counts and len(written) > 1 and disagree > agree and titles.distinct >= len(set(written)):
            titles.notes.append("the labels only count the lines; the titles beside them were read")
            return titles, "titles"
        # One way throughout: every entry is a title, and only some of them look like labels too.
        uniform = len(written) < len(parts) and all(part.title is not None for part in parts)
        if titles.distinct > labels.distinct or (uniform and titles.distinct == labels.distinct):
            titles.notes.append("what looks like labels was read as titles or parts of them")
            return titles, "titles"
        if self._beside(parts):
            labels.notes.append(
                "a second label stood beside the labels, which may only count the lines; the first labels count"
            )
        if disagree:
            labels.notes.append(f"{_count(disagree, 'label')} stood beside the title of another candidate; the label counts")
        return labels, "labels"

    def _beside(self, parts: list[Parts]) -> bool:
        """True if an entry is two letters that are different labels, as in "A) C"; "[3] 1" is a label with its rank."""
        return not self.numeric and any(
            match is not None and self.entries.label(match[1]) not in {None, part.label}
            for part in parts
            if part.label is not None and part.rest is None
            for match in (WHOLE.match(part.rest_text),)
        )

    def _by_labels(self, block: Block, parts: list[Parts]) -> _Draft:
        draft = _Draft([None] * len(parts))
        tokens = [int(part.token) for part in parts if part.token.isdigit()]
        count = len(self.labels)
        if self.numeric and 0 in tokens and len(tokens) == count == len(parts) and set(tokens) == set(range(count)):
            draft.slots = [int(part.token) for part in parts]
            draft.guessed = set(range(len(parts)))
            draft.notes.append("the labels were counted from 0")
            return draft
        for place, part in enumerate(parts):
            draft.slots[place] = part.label
        lower = [place for place, part in enumerate(parts) if part.label is not None and part.lower]
        if lower:
            draft.guessed.update(lower)
            draft.notes.append("labels in lower case were read as capitals")
        without = [place for place, part in enumerate(parts) if not part.form and (part.title or part.inside)]
        if any(slot is not None for slot in draft.slots) and without:
            taken = {slot for slot in draft.slots if slot is not None}
            assigned = self._assign([(place, _options(parts[place], block.layout)) for place in without], taken, draft)
            if assigned:
                draft.notes.append(f"{_count(assigned, 'position')} without a label were read by title")
        return draft

    def _by_titles(self, block: Block, parts: list[Parts]) -> _Draft:
        draft = _Draft([None] * len(parts))
        options = []
        for place, part in enumerate(parts):
            found = _options(part, block.layout)
            if not found and part.rest is not None:
                found = part.rest.options
            options.append((place, found))
        self._assign(options, set(), draft)
        for place, part in enumerate(parts):
            if draft.slots[place] is not None and part.doubt:
                draft.guessed.add(place)
                draft.notes.append(part.doubt)
        if len(draft.notes) > 3:
            draft.notes[2:] = [f"{len(draft.notes) - 2} more titles were taken for ones that begin alike"]
        return draft

    def _assign(self, wanted: list[tuple[int, Sequence[tuple[int, int]]]], taken: set[int], draft: _Draft) -> int:
        """Gives each position a candidate that no other has, the most literal titles first; returns how many it gave."""
        given = 0
        twins: list[int] = []
        for level in range(5):
            for place, options in wanted:
                if draft.slots[place] is not None:
                    continue
                free = [index for at, index in options if at <= level and index not in taken]
                if not free:
                    continue
                draft.slots[place] = free[0]
                taken.add(free[0])
                given += 1
                at = next(at for at, index in options if index == free[0])
                if sum(1 for other, _ in options if other == at) > 1:
                    draft.guessed.add(place)
                    twins.append(place)
        for place, options in wanted:
            if draft.slots[place] is None and options:
                draft.slots[place] = options[0][1]  # named once more
        if twins:
            draft.notes.append(f"{_count(len(twins), 'title')} fit several candidates, which were taken in the order given")
        return given

    def _by_numbers(self, block: Block, parts: list[Parts]) -> _Draft | None:
        """The numbers before the entries as labels, or None if they are ranks."""
        numbers = [entry.number for entry in block.entries]
        if any(number is None for number in numbers) or len(numbers) < 2:
            return None
        written = [number for number in numbers if number is not None]
        if len(set(written)) < len(written) and block.layout is not Layout.NUMBERED:
            return None
        steps = {after - before for before, after in pairwise(written)}
        if steps in ({1}, {0}) or (steps == {-1} and written[-1] <= 1):
            return None
        if all(after > before for before, after in pairwise(written)) and written[0] <= 1:
            return None  # ranks with gaps
        draft = _Draft([self.entries.label(str(number)) for number in written])
        agree = disagree = 0
        for place, part in enumerate(parts):
            found = _options(part, block.layout) or (part.rest.options if part.rest else ())
            if found:
                same = any(index == draft.slots[place] for _, index in found)
                agree, disagree = agree + same, disagree + (not same)
        if disagree > agree:
            return None
        if disagree:
            draft.notes.append(f"{_count(disagree, 'label')} stood beside the title of another candidate; the label counts")
        if not agree and any(part.text for part in parts):
            bodies = [part.value if part.value is not None else _integer(part.text) for part in parts]
            if None in bodies:
                draft.notes.append("the numbers before the lines were read as labels")
                draft.guessed = set(range(len(parts)))
        return draft

    def _by_likeness(self, block: Block, parts: list[Parts], draft: _Draft, naming: str) -> None:
        """Fills positions that nothing literal names with the candidate whose title is like their text."""
        if naming == "numbers":
            return
        open_places = [place for place, slot in enumerate(draft.slots) if slot is None and not block.entries[place].title_only]
        free = set(range(len(self.labels))) - {slot for slot in draft.slots if slot is not None}
        if not free or len(open_places) > 4 * len(self.labels) + 40:
            return
        found: list[tuple[float, int, int]] = []
        for place in open_places:
            part = parts[place]
            text = part.rest_text if part.form == "bracket" and part.rest_text else part.text
            if (part.token and not part.rest_text) or len(text) > 300 or (block.layout is Layout.PLAIN and text.endswith(":")):
                continue
            if self.index.known(text):
                continue
            match = self.index.like(text, free)
            if match is not None:
                found.append((-match[0], place, match[1]))
        used: set[int] = set()
        examples = []
        for _, place, index in sorted(found):
            if index in used:
                continue
            used.add(index)
            draft.slots[place] = index
            draft.guessed.add(place)
            examples.append(f"{short(parts[place].text)} as {short(self.index.texts[index])}")
        if examples:
            more = "" if len(examples) == 1 else f", and {len(examples) - 1} more"
            draft.notes.append(f"a misspelt title was read by likeness: {examples[0]}{more}")

    def _enough(self, block: Block, parts: list[Parts], draft: _Draft, resolved: list[int]) -> bool:
        """False for prose, and for lists about something else, in which a label or title happens to stand."""
        count, total = draft.distinct, len(parts)
        if not count:
            return False
        complete = count == len(self.labels)
        if block.separator == "<" and not (complete and total == count):
            return False  # "3 < 5" compares; only a chain of all candidates ranks
        firm = [place for place in resolved if parts[place].label is None or self._firm(parts[place])]
        if block.layout is Layout.PLAIN:
            # Lines without a mark may be prose: a bare letter before a colon is no label if it stands alone.
            loose = [place for place in resolved if place not in firm]
            for place in loose if len(resolved) < 2 else ():
                draft.slots[place] = None
            for place in resolved:
                part = parts[place]
                if part.lower and len(resolved) < 2 and part.rest is None and not self.single:
                    draft.slots[place] = None  # the "r" of a broken-off {"ranking"
                if part.form == "tail" and part.rest is None:
                    draft.slots[place] = None  # a sentence that ends with a label
                if part.form == "bracket" and part.rest_text and part.rest is None and len(resolved) < 2 and not self.single:
                    draft.slots[place] = None  # a sentence that begins with one
                if (
                    part.label is None
                    and part.title is None
                    and part.inside is not None
                    and not part.text.endswith(part.text[part.inside.start : part.inside.end])
                ):
                    draft.slots[place] = None
            return draft.distinct > 0
        if block.layout in (Layout.NUMBERED, Layout.BULLETS):
            labelled = [part for part in parts if part.label is not None]
            if not firm and len(labelled) < 2 and len(self.labels) > 1:
                return False
            return complete or len(resolved) * 3 >= total or len(firm) > 1
        if block.layout is Layout.JSON:
            return complete or block.favoured or len(resolved) * 2 >= total
        if block.layout is Layout.ARROWS:
            bare = all(parts[place].form == "whole" for place in resolved)
            prose = any(len(block.entries[place].body) > len(parts[place].text) + 2 for place in (0, total - 1))
            if total == 2 and prose and bare and (not complete or block.separator == "<"):
                return False  # "since 3 > 1"
            if total == 1:
                return parts[0].form in {"bracket", "whole"} and not prose
            return len(resolved) >= 2 and len(resolved) * 2 >= total
        return count > 1 and self._list_of_commas(block, parts, resolved, complete=complete)

    def _list_of_commas(self, block: Block, parts: list[Parts], resolved: list[int], *, complete: bool) -> bool:
        total = len(parts)
        if len(resolved) < 2 or len(resolved) * 3 < total * 2:
            return False
        if parts[-1].label is None and parts[-1].title is None and parts[-1].text.count(" ") > 1 and not complete:
            return False  # "A, B and C are all fine"
        if block.separator == "-" and not (complete and all(part.form == "whole" for part in parts)):
            return False
        if block.separator == " " and len({(part.form, part.lower) for part in parts}) > 1:
            return False  # "[B] A" is a label and the title "A"
        first_bare = parts[0].form in {"whole", "spaced", ""} and block.entries[0].body.strip(" \"'(*") != parts[0].text.strip(
            " \"'(*"
        )
        if first_bare and not complete and parts[0].form != "bracket":
            return False  # "My favourites are B, A": perhaps not the ranking
        return not (any(part.lower for part in parts) and not complete)

    def _firm(self, part: Parts) -> bool:
        return part.form in {"whole", "bracket", "tail", "spaced"} or (
            part.rest is not None and self.entries.has(part.rest, part.label or 0)
        )

    def _drop_cut(self, block: Block, parts: list[Parts], draft: _Draft, notes: list[str]) -> None:
        """Takes back the last position of a text that breaks off, if with more letters it could name another candidate."""
        last = max((place for place, entry in enumerate(block.entries) if entry.at_end), default=None)
        if last is None or self.single or draft.distinct == len(self.labels) or draft.slots[last] is None:
            return
        part, body = parts[last], block.entries[last].body.rstrip()
        free = [index for index in range(len(self.labels)) if index not in draft.slots or index == draft.slots[last]]
        text = body.strip("\"'*[( ")
        longer = False
        if part.label is None:
            longer = self.index.shared_start(text, [index for index in free if index != draft.slots[last]])
        elif part.cut or (part.form == "whole" and body[-1:].isalnum()):
            # "1" may become "12", or "1. [7]"; "F" after titles may become "Film".
            number = part.token.isdigit() and (
                any(self.labels[index].startswith(part.token) and index != part.label for index in free)
                or (sum(1 for other in parts if other.label is not None) == 1 and not part.cut)
            )
            others = [other for place, other in enumerate(parts) if place != last]
            alone = any(other.label is None for other in others) or len(text) > len(part.token)
            longer = number or (alone and self.index.shared_start(text, free))
        if longer:
            draft.slots[last] = None
            notes.append(f"the answer breaks off at {short(body)}, which may be the beginning of something longer")

    def _order(self, block: Block, parts: list[Parts], draft: _Draft, naming: str, notes: list[str]) -> list[int]:
        """The places in ranking order: as written, unless ranks or scores that the answer states say otherwise."""
        places = [place for place, slot in enumerate(draft.slots) if slot is not None]
        if len(places) < 2 or len({draft.slots[place] for place in places}) < len(places):
            return places
        stated: list[float | None] = [block.entries[place].rank for place in places]
        if None in stated and naming != "numbers" and block.layout in (Layout.NUMBERED, Layout.BULLETS, Layout.JSON):
            stated = [block.entries[place].number for place in places]
        reason = "the ranks that the answer states count, not the order of its lines"
        if None in stated:
            values = [_integer(parts[place].text) if naming == "numbers" else parts[place].value for place in places]
            numbers = [value for value in values if value is not None]
            if len(numbers) < len(values):
                return places
            counting = sorted(numbers) in (list(range(1, len(numbers) + 1)), list(range(len(numbers))))
            if block.layout in (Layout.COMMAS, Layout.ARROWS):
                # A chain is an order itself; lines with scores may stand in any.
                falling = all(before >= after for before, after in pairwise(numbers))
                if not (falling or (counting and numbers == sorted(numbers))):
                    notes.append("the numbers beside the labels say another order; the order written counts")
                return places
            if counting:
                stated = [*numbers]
            elif all(before >= after for before, after in pairwise(numbers)):
                return places
            else:
                stated = [-number for number in numbers]
                reason = "the scores that the answer states count, not the order of its lines"
        ranks = [rank for rank in stated if rank is not None]
        if ranks == sorted(ranks) or len(set(ranks)) < len(ranks):
            return places
        notes.append(reason)
        return [place for _, place in sorted(zip(ranks, places, strict=True))]

    def _invented(self, block: Block, parts: list[Parts], draft: _Draft) -> Iterable[str]:
        resolved = [place for place, slot in enumerate(draft.slots) if slot is not None]
        for place, part in enumerate(parts):
            if draft.slots[place] is not None or not part.text.strip(" .,;"):
                continue
            entry = block.entries[place]
            if entry.at_end and draft.distinct < len(self.labels) and not (part.token and part.label is None and not part.cut):
                continue  # broken off
            if part.label is not None:
                continue
            between = resolved[0] < place < resolved[-1]
            if block.layout is Layout.PLAIN and not (
                (between and len(resolved) * 3 >= len(parts) * 2) or (part.form == "bracket")
            ):
                continue
            if block.layout is Layout.BULLETS and not (between or part.form):
                continue
            if entry.last and block.layout is Layout.ARROWS and len(part.text) > 60:
                continue
            if len(part.text) <= 160 or part.form == "bracket":
                yield part.token if part.form in {"whole", "bracket"} and part.token else part.text


def _options(part: Parts, layout: Layout) -> Sequence[tuple[int, int]]:
    """The candidates whose title an entry is; or, in lists, whose title stands within it."""
    if part.title is not None:
        return part.title.options
    if part.inside is not None and layout in (Layout.NUMBERED, Layout.BULLETS, Layout.PLAIN):
        return part.inside.options
    return ()


def _integer(text: str) -> float | None:
    stripped = text.strip(" .#*")
    return float(stripped) if re.fullmatch(r"[0-9]{1,4}", stripped) else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
