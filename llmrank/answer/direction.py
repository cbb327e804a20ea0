"""Plain answer text goes in; out come the places where it says in which direction its ranking runs ("from worst to best").

Only whole phrases count ("least relevant first", "in ascending order of preference"), not a lone "worst" or "least"; qualities
that have nothing to do with the ranking ("most recent last", "lowest price first") make no phrase; nor does a denied one ("not
worst first"), nor one that is part of a title. Every repetition in the patterns is bounded, so the time is linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_GAP = r"[ \t_()\[\]#*\"'`/-]{1,6}"  # also the "_" of JSON keys and the signs of Markdown
_QUALITY = (
    r"(?:relevan|like|likely|suit|prefer|recommend|appropriate|probabl|interest|appeal|fit|favou?r|promising|similar|desir|enjoy"
    r"|important|attractive|match|compatible|plausible|certain|confident|good)[a-z]{0,6}"
)
_NOUN = (
    r"(?:preference|relevance|likelihood|probability|interest|scores?|suitability|match|fit|quality|appeal|recommendation"
    r"|importance|confidence|similarity|priority|desirability)"
)
_MEASURE = rf"(?:{_GAP}(?:rank(?:ed|ing)?|rated|rating|{_NOUN}))?"
_OTHER = rf"(?!{_GAP}(?:recent|expensive|popular|costly|known|rated))"
_LOW = rf"(?:worst|least{_OTHER}(?:{_GAP}{_QUALITY})?|(?:lowest|bottom|weakest|poorest){_MEASURE})"
_HIGH = rf"(?:best|most{_OTHER}(?:{_GAP}{_QUALITY})?|(?:highest|top|strongest|greatest){_MEASURE})"
_WORDS = rf"(?:{_GAP}[a-z0-9]{{1,12}}){{0,4}}?"  # "least likely (to be watched) to most likely"
_TO = rf"(?:{_GAP}(?:to|through|until)|[ \t]{{0,2}}>)(?:{_GAP}(?:the|[0-9]{{1,4}})){{0,2}}{_GAP}"
_STOP = r"(?![a-z-])(?![ \t]+(?!(?:and|then|to|below|here|in)\b)(?-i:[a-z]))"  # no "worst first impression"
_FIRST = rf"(?:{_GAP}(?:ones?|items?|candidates?|to|be|watch(?:ed)?|is|are|comes?|stands?|listed|placed)){{0,3}}{_GAP}"
_OF = rf"{_GAP}(?:of|by)"
# "Ascending order", "ascending order of preference", "ascending preference"; not "ascending order of rank".
_ORDER = rf"(?:{_GAP}order(?:{_OF}(?:{_GAP}(?:the|their|your|users?|estimated)){{0,2}}{_GAP}{_NOUN}|(?!{_OF}\b))|{_GAP}{_NOUN})"
_PHRASE = re.compile(
    rf"(?<![a-z])(?:(?P<worst>{_LOW}{_WORDS}{_TO}{_HIGH}|last{_TO}first"
    rf"|{_LOW}{_FIRST}(?:first|(?:at{_GAP}the|on){_GAP}top){_STOP}"
    rf"|{_HIGH}{_FIRST}(?:last|at{_GAP}the{_GAP}(?:end|bottom)){_STOP}"
    rf"|(?:start|begin)[a-z]{{0,5}}{_GAP}(?:with|from|at)(?:{_GAP}the)?{_GAP}{_LOW}"
    rf"|\([ \t]?1[ \t]?=[ \t]?(?:the[ \t])?{_LOW}"
    rf"|(?:ascending|increasing|reversed?){_ORDER}|ascending(?=[ \t]{{0,2}}[:.)\]\n*]))"
    rf"|(?P<best>{_HIGH}{_WORDS}{_TO}{_LOW}|first{_TO}last"
    rf"|{_HIGH}{_FIRST}(?:first|(?:at{_GAP}the|on){_GAP}top){_STOP}"
    rf"|{_LOW}{_FIRST}(?:last|at{_GAP}the{_GAP}(?:end|bottom)){_STOP}"
    rf"|(?:start|begin)[a-z]{{0,5}}{_GAP}(?:with|from|at)(?:{_GAP}the)?{_GAP}{_HIGH}"
    r"|descending|decreasing))(?![a-z])",
    re.IGNORECASE,
)
# "Not worst first", "at least the first"; "rank ascending" puts rank 1 first, and prices or years are no preference.
_DENIED = re.compile(
    r"(?:\b(?:not|never|than|instead of|at)(?:[ \t]+(?:from|in|the)){0,2}"
    r"|\b(?:rank|position|place|year|date|price|length|alphabetical(?:ly)?|chronological(?:ly)?)(?:[ \t,]+in)?)[ \t,]+\Z",
    re.IGNORECASE,
)
# No phrase without one of these: most answers have none, and to look for them is quick.
_CUES = (
    *("worst", "least", "lowest", "bottom", "weakest", "poorest", "best", "most", "highest", "top", "strongest", "greatest"),
    *("last", "ascending", "increasing", "reverse", "descending", "decreasing"),
)
_BEFORE = 40  # characters in which a denial may stand


@dataclass(frozen=True, slots=True)
class Direction:
    """A phrase that says in which direction a ranking runs: where it stands, and whether the worst comes first."""

    start: int
    end: int
    worst_first: bool


def directions(text: str, titles: Callable[[str], Iterable[tuple[int, int]]]) -> list[Direction]:
    """Every phrase about the direction of a ranking in `text`, from left to right.

    Args:
        text: The answer.
        titles: Gives the places in a line where a title stands: what is part of a title says nothing ("Worst to First").
    """
    lowered = text.lower()
    if not any(cue in lowered for cue in _CUES):
        return []
    found = []
    for match in _PHRASE.finditer(text):
        start, end = match.span()
        if _DENIED.search(text[max(0, start - _BEFORE) : start]):
            continue
        begin = max(text.rfind("\n", 0, start) + 1, start - 200)
        stop = text.find("\n", end)
        line = text[begin : min(stop if stop >= 0 else len(text), end + 200)]
        if any(left <= start - begin and end - begin <= right for left, right in titles(line)):
            continue
        found.append(Direction(start, end, match["worst"] is not None))
    return found
