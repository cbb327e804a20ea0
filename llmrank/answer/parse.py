"""What a model wrote goes in, with the labels and titles it was shown; out comes a permutation of the candidates, always.

The way of an answer::

    text ──▶ without reasoning, plain ──▶ blocks of entries ──▶ readings ──▶ one reading ──▶ ParsedAnswer
             text.py                      layout.py             naming.py        choose          finish
                                          json_reader.py        entry.py, titles.py

What makes a piece of text a ranking position is its place among its like: after a number or bullet, between ``>`` or commas,
in a JSON list. So the recognisers work on blocks, not on words: a letter, digit or title in prose stands in no block and
ranks nothing. In order of trust they are JSON, chains of ``>``, numbered lists, comma lists, bullets, plain lines (`Layout`).
Each finds its blocks by itself; each block is then read as a whole (`Namer`: labels, titles or numbers?) into mentions of
candidates, each sure or guessed. One place, `choose`, picks the reading that counts: what follows "Final answer:" before the
rest, complete before partial, the last complete one before its drafts, and of readings of the same place the most trusted.
A ranking that is said to run from worst to best (`direction.py`) is turned round before that. One place, `finish`, makes
the permutation and says what was repaired.

Where two readings of equal right would give different orders, the less daring one is taken and the repairs say so; where a
text is reasoning or prose, nothing is read from it and the order given stands (status ``fallback``).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from llmrank.answer.direction import Direction, directions
from llmrank.answer.layout import Layout, inline_blocks, json_blocks, line_blocks
from llmrank.answer.naming import Namer, Reading
from llmrank.answer.text import finals, split_answer
from llmrank.answer.titles import TitleIndex
from llmrank.errors import InputError
from llmrank.types import AnswerFormat, Status

_INVENTED = 20  # how many invented labels or titles are kept
_INVENTED_CHARS = 80
_AFTERTHOUGHT = 200  # characters that may follow a ranking at the end of unfinished reasoning
_AROUND = 160  # characters before and behind a ranking that fills the text: a preamble and a farewell
_PREAMBLE = 200  # characters before a ranking in which its direction may be said
_CHAIN = re.compile(r"\[(\w+)\](?: > \[(\w+)\])*\Z")
# "The answer is B", "I choose [B]", "Answer: B": only where one label was asked for.
_CHOICE = re.compile(
    r"\b(?:answer|choice|pick|choose|select|recommend|option|candidate|label|is)\b[ \t:*\"']{1,6}(?:is[ \t:*\"']{1,4})?"
    r"(?:[\[(*\"']+(?P<framed>[A-Z]|[0-9]{1,4})[\])*\"']+|(?P<bare>[A-Z]|[0-9]{1,4})(?=[.,;:!]?(?:\s|\Z))(?![ \t]+[a-z]))"
)
# "Candidate C", "C is best", "C first": a label that a sentence ranks.
_PRAISED = re.compile(
    r"\b(?i:candidate|item|option|label|choice)[ \t]{1,3}[\[(*\"']{0,3}(?P<noun>[A-Z]|[0-9]{1,4})\b"
    r"|(?<![\w'])(?P<verb>[A-Z]|[0-9]{1,4})[\])*\"']{0,3}[ \t]{1,3}(?:is|comes|ranks|goes|stands|takes|wins|first|best)\b"
)
# "followed by A", "then A": not the first place, whatever came before it.
_SECOND = re.compile(r"\b(?:followed by|then|next)[ \t,:]{1,3}\S+\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A permutation of the candidates, and how it came about.

    Attributes:
        order: All of ``range(n)``: first what the model ranked, best first, then the rest in the order given.
        ranked: How many of `order` the model ranked.
        repairs: One plain sentence for each kind of repair; empty for a clean answer.
        invented: Labels or titles at ranking positions that name no candidate, shortened, at most 20.
        asked: How many candidates the prompt asked for: 1 if it asked for one label, otherwise all.
    """

    order: tuple[int, ...]
    ranked: int
    repairs: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    asked: int = 0

    @property
    def status(self) -> Status:
        """``ok``, ``repaired``, ``partial`` or ``fallback``; never ``error``."""
        if not self.ranked:
            return "fallback"
        if self.ranked < (self.asked or len(self.order)):
            return "partial"
        return "repaired" if self.repairs else "ok"

    @property
    def missing(self) -> tuple[int, ...]:
        """The candidates that the model did not rank, in the order given."""
        return self.order[self.ranked :]


def parse_answer(
    text: str | None,
    *,
    labels: Sequence[str],
    titles: Sequence[str],
    history_titles: Sequence[str] = (),
    expected: AnswerFormat = "order",
) -> ParsedAnswer:
    """Reads a ranking out of whatever a model wrote. Never fails on any text.

    Args:
        text: The answer; None if there was none.
        labels: The labels shown: ``A`` to ``Z``, or ``1`` to ``n`` (`llmrank.labels.make_labels`).
        titles: The candidates' texts as shown, one for each label. The model may write only the title part of one.
        history_titles: The texts of the history's items as shown: they are no candidates, even if an answer names them.
        expected: The form that the prompt asked for; ``label`` asks for one candidate, all others for every one.

    Returns:
        A ParsedAnswer whose `order` has ``len(labels)`` entries.

    Raises:
        InputError: `labels` and `titles` differ in length, or a label stands twice.
    """
    if len(labels) != len(titles):
        raise InputError(
            "one title is needed for each label", field="titles", value=len(titles), fix=f"give {len(labels)} titles"
        )
    if len(set(labels)) != len(labels):
        raise InputError("labels must differ", field="labels", value=list(labels), fix="use llmrank.labels.make_labels")
    count = len(labels)
    asked = 1 if expected == "label" else count
    if text is None or not text.strip() or not count:
        return ParsedAnswer(tuple(range(count)), 0, ("the answer is empty",) if count else (), (), asked)
    literal = _literal(text.strip(), labels)
    if literal is not None and (expected != "label" or count == 1):
        return ParsedAnswer(literal, count, (), (), asked)
    answer = split_answer(text)
    if asked > 1 and answer.visible.strip(" \t\n.*\"'") in labels:
        # "H" may be the first letter of "Here is": where an order was asked for, a bare label alone is none.
        return ParsedAnswer(tuple(range(count)), 0, ("a single label is no ranking",), (), asked)
    namer = Namer(labels, TitleIndex(titles, history_titles), single=expected == "label")
    notes = ["the start of an overlong answer was not read"] if answer.cut else []
    reading = _best(answer.visible, namer, expected, notes)
    if reading is None and answer.reasoning:
        reading = _best_of_reasoning(answer.reasoning, namer, notes)
        if reading is None:
            notes.append("the answer ends within its reasoning")
    return finish(reading, labels, notes, asked)


def choose(readings: Iterable[Reading], count: int, notes: list[str]) -> Reading | None:
    """The reading that counts: a complete one before partial ones, the last before its drafts, then the most trusted.

    Args:
        readings: All readings of one text.
        count: How many candidates there are.
        notes: Gets a sentence if another complete ranking had to be passed over.
    """
    found = list(readings)
    real = [reading for reading in found if not reading.echo and reading.distinct >= min(2, count)]
    # The candidates in the order given, in a list before the ranking, are the question said again.
    found = [
        reading for reading in found if not (reading.echo and any(other.block.start >= reading.block.end for other in real))
    ]
    # Commas in a JSON ranking separate keys as well as places.
    said = [reading.block for reading in found if reading.block.favoured]
    found = [
        reading
        for reading in found
        if reading.block.layout is not Layout.COMMAS
        or not any(block.start <= reading.block.start and reading.block.end <= block.end for block in said)
    ]
    if not found:
        return None
    complete = [reading for reading in found if reading.distinct == count]
    if not complete:
        # A part of a worst-first order is beside others no reason to trust them: "Worst to best:\nD, E\nB, A".
        turned = [reading for reading in found if reading.turned]
        return _joined(max(turned or found, key=_extent), found)
    last = max(complete, key=lambda reading: (reading.block.start, reading.block.end))
    same_place = [
        reading for reading in complete if reading.block.end > last.block.start and reading.block.start < last.block.end
    ]
    best = max(same_place or [last], key=_trust)
    order = _indices(best)
    if any(_indices(other) != order for other in complete if other.block.end <= best.block.start and not other.echo):
        notes.append("several rankings stood in the answer; the last complete one counts")
    return best


def _extent(reading: Reading) -> tuple[float, Layout, int]:
    """Of partial readings: the one that ranks most, discounted where prose looks alike; then the most telling, the last."""
    return reading.distinct * _WEIGHT[reading.block.layout], reading.block.layout, reading.block.start


def _joined(best: Reading, found: Sequence[Reading]) -> Reading:
    """Chains on several lines as one, if they share no candidate: "Most likely: B, D", "Less likely: A, E"."""
    if best.block.layout not in (Layout.COMMAS, Layout.ARROWS):
        return best
    kept: list[Reading] = []
    for reading in sorted(found, key=lambda reading: (reading.block.start, -reading.distinct)):
        if reading.block.layout is best.block.layout and (not kept or reading.block.start >= kept[-1].block.end):
            kept.append(reading)
    indices = [index for reading in kept for index in _indices(reading)]
    if (
        any(reading.turned for reading in kept)
        or len(kept) < 2
        or len(set(indices)) < len(indices)
        or len(indices) < best.distinct
    ):
        return best
    return replace(
        best,
        mentions=tuple(mention for reading in kept for mention in reading.mentions),
        notes=(*best.notes, "several lists were read one after the other"),
        invented=tuple(name for reading in kept for name in reading.invented),
    )


def _trust(reading: Reading) -> tuple[bool, Layout, int, int, int]:
    """Of readings of one place: the favoured one, the most telling layout, the one that leaves least over, the last."""
    block = reading.block
    return block.favoured, block.layout, -len(reading.invented), reading.distinct - len(reading.mentions), block.start


_WEIGHT = {
    Layout.PLAIN: 0.6,
    Layout.BULLETS: 0.8,
    Layout.COMMAS: 0.9,
    Layout.NUMBERED: 1.0,
    Layout.ARROWS: 1.0,
    Layout.JSON: 1.0,
}


def finish(reading: Reading | None, labels: Sequence[str], notes: Iterable[str], asked: int) -> ParsedAnswer:
    """Turns the mentions of one reading into a permutation; the first of several mentions counts."""
    count = len(labels)
    if reading is None:
        said = tuple(notes) or ("the answer holds no ranking",)
        return ParsedAnswer(tuple(range(count)), 0, said, (), asked)
    repairs = [*notes, *reading.notes]
    times = Counter(mention.index for mention in reading.mentions)
    order = list(times)
    twice = [labels[index] for index, number in times.items() if number > 1]
    if len(twice) == 1:
        repairs.append(f"label {twice[0]} stood more than once; the first place counts")
    elif twice:
        repairs.append(f"{len(twice)} labels stood more than once ({', '.join(twice[:5])}); the first places count")
    invented = tuple(dict.fromkeys(_shortened(name) for name in reading.invented))
    if invented:
        repairs.append(f"{len(invented)} entries name no candidate and were left out")
    ranked = len(order)
    if asked == 1 < ranked:
        repairs.append("one label was asked for and several came; the first counts as the choice")
    if any(not mention.sure for mention in reading.mentions) and not repairs:
        repairs.append("part of the answer was guessed")
    named = set(order)
    order += [index for index in range(count) if index not in named]
    if reading.turned and ranked < count:
        # What is left out may be the best (the answer broke off) or the worst (it was forgotten): no order is safe.
        repairs.append("the worst stood first and not all were ranked, so the best are not known and nothing was read")
        return ParsedAnswer(tuple(range(count)), 0, tuple(dict.fromkeys(repairs)), invented[:_INVENTED], asked)
    return ParsedAnswer(tuple(order), ranked, tuple(dict.fromkeys(repairs)), invented[:_INVENTED], asked)


def _literal(text: str, labels: Sequence[str]) -> tuple[int, ...] | None:
    """The order of an answer that is exactly what was asked for, or None: most are, and need no title index."""
    if text.startswith("[") and _CHAIN.match(text):
        written = text[1:-1].split("] > [")
    elif text.startswith("{") and len(text) < 20_000:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None  # not strict JSON: the tolerant reader takes it from here
        ranking = value.get("ranking") if len(value) == 1 else None
        if not isinstance(ranking, list) or not all(isinstance(label, str) for label in ranking):
            return None
        written = ranking
    else:
        return None
    if len(written) != len(labels):
        return None
    known = {label: index for index, label in enumerate(labels)}
    order = tuple(known[label] for label in written if label in known)
    return order if len(set(order)) == len(labels) else None


def _best(text: str, namer: Namer, expected: AnswerFormat, notes: list[str]) -> Reading | None:
    """The best reading behind the last "Final answer:", or else of the whole text."""
    if not text.strip():
        return None
    places = finals(text)
    for place in reversed(places[-2:]):
        tail = text[place:]
        said: list[str] = []
        reading = choose(_readings(tail, namer, text[:place]), len(namer.labels), said)
        if reading is not None and (reading.distinct >= min(2, len(namer.labels)) or expected == "label" or len(tail) < 80):
            notes.extend(said)
            return reading
    reading = choose(_readings(text, namer), len(namer.labels), notes)
    if reading is None:
        # "BDAC": every letter once and nothing else.
        joined = text.strip().strip("[](){}\"'.`* ")
        if len(namer.labels) > 2 and not namer.numeric and sorted(joined) == sorted(namer.labels):
            notes.append("the labels were written without anything between them")
            return choose(_readings("\n".join(joined), namer), len(namer.labels), notes)
    if expected == "label" and (reading is None or reading.distinct > 1):
        reading = _choice(text, namer) or reading
    return reading


def _readings(text: str, namer: Namer, before: str = "") -> list[Reading]:
    """What the recognisers find; no more is looked for once a list or chain ranks everything and fills the text.

    Args:
        text: What is read.
        namer: Names the entries.
        before: What stands before `text`: it may say in which direction the ranking runs.
    """
    found = []
    before = before[-_PREAMBLE:]
    whole = before + text
    said = directions(whole, namer.title_spans)
    blocks = chain(json_blocks(text), line_blocks(text, numeric=namer.numeric), inline_blocks(text, namer.spans))
    for block in blocks:
        reading = namer.read(block)
        if reading is None or _loses_a_label(reading, text, namer.labels):
            continue
        reading = _turned(reading, whole, len(before), said, namer)
        found.append(reading)
        around = block.start + len(text) - block.end
        clean = reading.distinct == len(reading.mentions) == len(namer.labels) and not reading.invented
        fills = block.layout >= Layout.NUMBERED and clean and around < _AROUND
        # A short last word ("No: B > A") may follow, which has to be weighed with all the rest.
        if fills and not any(other.distinct > 1 for other in _readings(text[block.end :], namer)):
            break
    return found


def _turned(reading: Reading, text: str, shift: int, said: Sequence[Direction], namer: Namer) -> Reading:
    """The reading the other way round if the last phrase in front of it, or in brackets behind it, says "worst first".

    A chain of ``<`` has its best last, unless words say otherwise. What stated ranks or scores put in order is in order.

    Args:
        reading: A reading of ``text[shift:]``.
        text: The answer.
        shift: Where in `text` the offsets of the reading begin.
        said: The phrases about directions in `text`.
        namer: Tells whether another list stands between a phrase and the reading, which then is what the phrase is about.
    """
    rising = reading.block.separator == "<"
    if reading.ordered or not (said or rising):
        return reading
    inline = reading.block.layout in (Layout.ARROWS, Layout.COMMAS)
    first, last = reading.mentions[0].position + shift, reading.mentions[-1].position + shift
    # The first piece of a chain begins with the lead-in: "From worst to best: D".
    lead = next((len(entry.body) for entry in reading.block.entries if entry.start + shift == first), 0) if inline else 0
    line_end = text.find("\n", last)
    if text[line_end : line_end + 2] == "\n(":  # a remark in brackets below the list
        line_end = text.find("\n", line_end + 1)
    line_end = line_end if line_end >= 0 else len(text)
    about = None
    for phrase in said:
        between = text[last : phrase.start] if inline and last < phrase.start < line_end else ""
        behind = between.rfind("(") > between.rfind(")")
        if behind or first - _PREAMBLE <= phrase.end <= first + lead:
            about = phrase
    if about is not None and any(other.distinct > 1 for other in _readings(text[about.end : first], namer)):
        about = None
    if not (about.worst_first if about is not None else rising):
        note = ("the places were separated by <, but the answer says that the best stands first",) if rising else ()
        return replace(reading, notes=(*reading.notes, *note))
    note = ("the best stands last in the answer, so its order was turned round",)
    return replace(reading, mentions=reading.mentions[::-1], notes=(*reading.notes, *note), echo=False, turned=True)


def _loses_a_label(reading: Reading, text: str, labels: Sequence[str]) -> bool:
    """True for "C is best, followed by A and B": the sentence ranks C, and to rank only the others would turn it around."""
    if reading.block.layout not in (Layout.COMMAS, Layout.ARROWS) or reading.distinct == len(labels):
        return False
    named = {labels[mention.index] for mention in reading.mentions}
    heads = {_shortened(name).partition(" ")[0].strip("[](){}\"'.,:;") for name in reading.invented}
    first = reading.mentions[0].position
    lead = text[text.rfind("\n", 0, first) + 1 : first][-_PREAMBLE:]
    body = next((entry.body for entry in reading.block.entries if entry.start == first), "")[-_PREAMBLE:]
    if _SECOND.search(body):
        return True
    heads.update(match["noun"] or match["verb"] for match in _PRAISED.finditer(f"{lead}{body}"))
    return bool((heads & set(labels)) - named)


def _choice(text: str, namer: Namer) -> Reading | None:
    """The one label of a sentence such as "The answer is B.", if all such sentences name the same."""
    found = {match["framed"] or match["bare"] for match in _CHOICE.finditer(text)} & set(namer.labels)
    if len(found) != 1:
        return None
    for block in line_blocks(found.pop(), numeric=namer.numeric):
        return namer.read(block)
    return None


def _best_of_reasoning(text: str, namer: Namer, notes: list[str]) -> Reading | None:
    """The conclusion of reasoning that never ended: announced as final, or a complete ranking at its very end."""
    said: list[str] = []
    places = finals(text)
    reading = None
    if places:
        reading = choose(_readings(text[places[-1] :], namer, text[: places[-1]]), len(namer.labels), said)
        if reading is not None and reading.distinct < min(2, len(namer.labels)):
            reading = None
    if reading is None:
        said.clear()
        reading = choose(_readings(text, namer), len(namer.labels), said)
        if (
            reading is None
            or reading.distinct < len(namer.labels)
            or reading.echo
            or len(text.rstrip()) - reading.block.end > _AFTERTHOUGHT
        ):
            return None
    notes.extend(said)
    notes.append("the ranking stood within reasoning that was not closed or was not followed by an answer")
    return reading


def _indices(reading: Reading) -> list[int]:
    return list(dict.fromkeys(mention.index for mention in reading.mentions))


def _shortened(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _INVENTED_CHARS else name[: _INVENTED_CHARS - 3] + "..."
