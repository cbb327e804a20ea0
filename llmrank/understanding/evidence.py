"""A sentence goes in; what it says outright comes out: which words it wants and does not want, which numbers bound what.

A wrong hard constraint hides everything good, so this reads little, and that strictly: a value counts only where the sentence
names it, with its sign (wanted or not) and, for a number, its direction. What is in doubt (a list after "no", a "maybe", one
side of an "or") counts as said neither way. English only: of a sentence in another language nothing is found, and so nothing
is filtered by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal, TypeAlias

from llmrank.retrieval.constraints import Attribute, Constraint, fold, number_of

Sign: TypeAlias = Literal["wanted", "unwanted", "unsure"]
Side: TypeAlias = Literal["low", "high", "exact", "not"]


def _words(text: str) -> list[str]:
    return text.split()


def _set(text: str) -> frozenset[str]:
    return frozenset(_words(text))


_TOKEN: Final = re.compile(
    r"'?\d{1,4}'?s\b"  # a decade: 80s, '80s, 1980s, 1980's
    r"|\d+(?:st|nd|rd|th)\b"
    r"|\d+(?:[.,]\d+)*"
    r"|[^\W\d_]+(?:'[^\W\d_]+)*"
    r"|[$€£+]|[-–—/]|[^\w\s]"
)
_DASHES: Final = frozenset("-–—/'\"")
_BOUNDARIES: Final = frozenset(
    {".", ";", "!", "?", ":", "(", ")", "but", "just", "only", "although", "though", "however", "rather"}
)

_NEGATORS: Final = _set(
    "not no non without except excluding exclude never nothing neither nor none avoid avoiding hate hates dislike "
    "dislikes dont doesnt didnt isnt arent wasnt wont shouldnt mustnt cant cannot skip minus"
)
_NEGATING_PAIRS: Final = frozenset(
    {
        ("sick", "of"),
        ("tired", "of"),
        ("bored", "of"),
        ("bored", "with"),
        ("instead", "of"),
        ("rather", "than"),
        ("other", "than"),
        ("anything", "but"),
        ("everything", "but"),
        ("all", "but"),
    }
)
# After a negator these take it back, or leave it open.
_NOT_NEGATED: Final = _set("only just but doubt matter")
_LEFT_OPEN: Final = _set("necessarily mind care opposed averse against dislike hate sure fussy need get wait")
_SOFT: Final = _set("maybe perhaps preferably ideally possibly possible somewhat bit little kinda touch hint")

# Endings in which two words may differ and still name the same category.
_INFLECTIONS: Final = frozenset(
    frozenset(pair)
    for pair in [("", "s"), ("", "es"), ("y", "ies"), ("y", "ic"), ("ce", "tic"), ("ce", "ces"), ("ion", "ed"), ("ion", "ions")]
)
_STEM: Final = 3
"""Letters that two words must share before their endings."""
_LONG_STEM: Final = 5
"""The same where the endings are more than a plural."""
_PLURALS: Final = frozenset(frozenset(pair) for pair in [("", "s"), ("", "es"), ("y", "ies")])
_ALIASES: Final = {("sci", "fi"): ("science", "fiction"), ("rpg",): ("role", "playing"), ("role", "playing"): ("rpg",)}
_EXAMPLES: Final = _set(
    "like likes liked love loved loves enjoy enjoyed similar such style vein kind reminiscent reminds fan favourite "
    "favorite seen watched played read"
)
"""Words that speak of examples: a model may give any words of the sentence for a title."""
_ARTICLES: Final = _set("a an the some any")
_LITTLE: Final = _set(
    "the and for with that this than too very movies movie films film games game books book songs song something "
    "anything things thing items item products product some any not"
)

_UPPER: Final = re.compile(
    r"(?:\b(?:under|below|(?:less|fewer|cheaper|lower|older|earlier|shorter|smaller) than|at most|max(?:imum)?(?: of)?|up to"
    r"|before|prior to|until|till|pre|within|budget(?: is| of)?|budget:))$"
)
_LOWER: Final = re.compile(
    r"(?:\b(?:over|above|(?:more|greater|higher|newer|later|longer|larger|bigger|better|more recent) than|at least"
    r"|min(?:imum)?(?: of)?|after|since|post|(?:starting|beginning)(?: from| in| with| at)?))$"
)
_OUTSIDE: Final = re.compile(r"before|prior|pre|after|post|.*than$")
_EXACT: Final = re.compile(r"(?:^|\b(?:in|from|of|a|an|made in|released in|year))$")
_VAGUE: Final = re.compile(r"\b(?:around|about|circa|roughly|approximately|nearly|almost|like|as)$")
_OR_MORE: Final = re.compile(
    r"^(?:\+|plus\b|onwards?\b|(?:or|and) (?:newer|later|more|above|up|over|higher|better|longer|after|onwards?|upwards?)\b)"
)
_OR_LESS: Final = re.compile(
    r"^(?:max(?:imum)?\b|at most\b|tops\b|(?:or|and) (?:older|earlier|less|below|under|lower|before|fewer|shorter|cheaper)\b)"
)

_UNITS: Final[dict[str, frozenset[str]]] = {
    "money": _set("$ € £ euro euros dollar dollars pound pounds bucks usd eur gbp yen"),
    "minutes": _set("minute minutes min mins"),
    "hours": _set("hour hours hr hrs h"),
    "pages": frozenset({"page", "pages"}),
    "stars": frozenset({"star", "stars"}),
    "years": _set("year years yr yrs old month months week weeks day days"),
}
# By kind of quantity: words of a sentence and words of an attribute's name that speak of it.
_ABOUT: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    "money": (
        _set("cheap cheaper price priced cost costs costing pay spend budget"),
        frozenset(["price", "cost", "msrp"]),
    ),
    "minutes": (
        frozenset(["shorter", "longer", "runtime"]),
        _set("runtime duration length minutes time playtime"),
    ),
    "hours": (frozenset(), _set("runtime duration length hours minutes time playtime")),
    "pages": (frozenset(), frozenset(["pages", "page", "length"])),
    "stars": (_set("rated rating ratings score"), _set("rating ratings stars score")),
    "years": (frozenset(), frozenset({"age"})),
}

_SMALL: Final = {
    word: number
    for number, word in enumerate(
        _words(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
            "eighteen nineteen"
        )
    )
}
_TENS: Final = {
    word: 10 * number for number, word in enumerate(_words("twenty thirty forty fifty sixty seventy eighty ninety"), start=2)
}
_DECADES: Final = {
    word: 10 * number
    for number, word in enumerate(_words("twenties thirties forties fifties sixties seventies eighties nineties"), start=2)
} | {"noughties": 0}


@dataclass(frozen=True, slots=True)
class Mention:
    """Words of the sentence that name something: places of the first and behind the last among the words, and the sign."""

    start: int
    end: int
    sign: Sign


@dataclass(frozen=True, slots=True)
class Bound:
    """What the sentence says of a number.

    Attributes:
        side: ``low``: at least; ``high``: at most; ``exact``: that very number; ``not``: anything but that number.
        value: The number.
        unit: What it counts, a key of `_UNITS`; empty where the sentence does not say.
        decade: True for the first or last year of a decade or century.
    """

    side: Side
    value: float
    unit: str = ""
    decade: bool = False


@dataclass(frozen=True, slots=True)
class _Figure:
    """A number in the sentence: tokens from `start` to before `end`; its least and its greatest meaning."""

    start: int
    end: int
    low: float
    high: float
    unit: str = ""
    hidden: bool = False

    @property
    def decade(self) -> bool:
        return self.low != self.high


class Evidence:
    """What a sentence says outright.

    Args:
        sentence: The sentence.
        titles: Titles that it names; their words and numbers are no evidence for anything.
    """

    def __init__(self, sentence: str, titles: Sequence[str] = ()) -> None:
        self._sentence = sentence
        text = fold(sentence.replace("’", "'").replace("`", "'"))
        self._tokens = _TOKEN.findall(text)
        hidden = _hidden(self._tokens, titles)
        signs = _signs(self._tokens)
        # Words are matched without dashes between them, so that "sci-fi" is "sci fi".
        kept = [place for place, token in enumerate(self._tokens) if token not in _DASHES]
        self._words = ["" if place in hidden else _bare(self._tokens[place]) for place in kept]
        self._word_signs = [signs[place] for place in kept]
        self._signs = signs
        self._hidden = hidden

    @property
    def negates(self) -> bool:
        """True if the sentence says of anything that it is not wanted."""
        return any(_negator(self._tokens, place) in ("unwanted", "unsure") for place in range(len(self._tokens)))

    def mentions(self, value: str) -> tuple[Mention, ...]:
        """Where the sentence names a category: all of its words, one after the other, but for inflections."""
        words = _words_of(value)
        ways = [words, *([_ALIASES[words]] if words in _ALIASES else []), *([("".join(words),)] if len(words) > 1 else [])]
        found = {(at, at + len(way)): None for way in ways if way for at in self._where(way)}
        return tuple(Mention(start, end, self._sign(start, end)) for start, end in found)

    def says(self, value: str) -> Sign | None:
        """Whether a category is wanted; None if it is not named, ``unsure`` if the sentence says both, or neither clearly."""
        signs = {mention.sign for mention in self.mentions(value)}
        return None if not signs else signs.pop() if len(signs) == 1 else "unsure"

    def signs_of(self, phrase: str) -> frozenset[Sign]:
        """The signs of a phrase's words where they stand in the sentence, each by itself; empty if none does."""
        words = [word for word in _words_of(phrase) if len(word) > 2 and word not in _LITTLE]
        return frozenset(self._word_signs[at] for word in words for at in self._where((word,)))

    def names(self, title: str) -> bool:
        """True if the sentence holds the words of a title, in order, and as those of one: with a capital, or beside "like"."""
        if not (set(self._words) & _EXAMPLES or any(_capital(word, self._sentence) for word in title.split())):
            return False
        words = [word for word in _words_of(title) if word not in _ARTICLES] or list(_words_of(title))
        said = [_bare(token) for token in self._tokens if token not in _DASHES]
        said = [word for word in said if word not in _ARTICLES] if words[:1] and words[0] not in _ARTICLES else said
        return bool(words) and any(said[at : at + len(words)] == words for at in range(len(said)))

    def alternatives(self, values: Sequence[str]) -> tuple[dict[str, set[str]], set[str]]:
        """Which categories stand on either side of an "or" ("comedy or drama", "comedy, drama or western").

        Args:
            values: Categories.

        Returns:
            By category those it is an alternative to; and those that are an alternative to something else than these.
        """
        starts = {mention.start: value for value in values for mention in self.mentions(value)}
        ends = {mention.end: value for value in values for mention in self.mentions(value)}
        linked: dict[str, set[str]] = {value: set() for value in values}
        open_ended: set[str] = set()
        for at, word in enumerate(self._words):
            if word != "or" or self._is_or_more(at):
                continue
            after = next((place for place in range(at + 1, len(self._words)) if self._words[place] not in _ARTICLES), at)
            left, right = ends.get(at), starts.get(after)
            if left is None:  # "comedies or dramas", "comedy movies or dramas"
                left = ends.get(at - 1) if at and self._words[at - 1] in _LITTLE else None
            if left is not None and right is not None:
                linked[left].add(right)
                linked[right].add(left)
            open_ended |= {side for side, other in ((left, right), (right, left)) if side is not None and other is None}
        for at in range(len(self._words) - 1, -1, -1):  # from the last: a chain of commas before an "or"
            if self._words[at] != ",":
                continue
            left, right = ends.get(at), starts.get(at + 1)
            if left is not None and right is not None:
                if linked[right]:
                    linked[left] |= {right}
                    linked[right].add(left)
                if right in open_ended:
                    open_ended.add(left)
        # Of "a romantic comedy or a drama", a romance is only a part of one side.
        parts = {
            one
            for value in values
            for mention in self.mentions(value)
            for one, beside in ((ends.get(mention.start), value), (starts.get(mention.end), value))
            if one is not None and (linked[beside] or beside in open_ended) and not linked[one]
        }
        return linked, open_ended | parts

    def supports(self, constraint: Constraint, attribute: Attribute) -> bool:
        """Whether the sentence says outright what a constraint on a numeric attribute says: that number, in that direction."""
        bounds = [bound for bound in self.bounds if self._is_about(bound, attribute)]
        numbers = [number for value in constraint.values if (number := number_of(value)) is not None]
        step = 1.0 if attribute.whole else 0.0
        match constraint.op:
            case ">" | ">=":
                least = numbers[0] + (step if constraint.op == ">" else 0.0)
                # "Newer than 2010" may be told from 2010 or from 2011 on.
                return any(each.side == "low" and least in _allowed(each, step) for each in bounds)
            case "<" | "<=":
                most = numbers[0] - (step if constraint.op == "<" else 0.0)
                return any(each.side == "high" and most in _allowed(each, -step) for each in bounds)
            case "=" | "in":
                return all(any(each.side == "exact" and each.value == number for each in bounds) for number in numbers)
            case _:
                return all(any(each.side == "not" and each.value == number for each in bounds) for number in numbers)

    @cached_property
    def bounds(self) -> tuple[Bound, ...]:
        """What the sentence says of each number in it."""
        return tuple(self._bounds())

    def _bounds(self) -> Iterator[Bound]:
        figures = [figure for figure in _figures(self._tokens, self._hidden) if not figure.hidden]
        place = 0
        while place < len(figures):
            figure = figures[place]
            after = figures[place + 1] if place + 1 < len(figures) else None
            if after is not None and (joint := self._joined(figure, after)) is not None:
                yield from joint
                place += 2
                continue
            yield from self._alone(figure)
            place += 1

    def _joined(self, first: _Figure, second: _Figure) -> tuple[Bound, ...] | None:
        """The bounds of a span of two numbers, "between 1990 and 1999", "the 80s or 90s"; None if they are no span."""
        between = [token for token in self._tokens[first.end : second.start] if token not in _ARTICLES]
        before = self._before(first)
        is_range = between in (["to"], ["-"], ["–"], ["—"], ["until"], ["till"], ["through"]) and not _UPPER.search(before)
        is_range |= between == ["and"] and before.endswith("between")
        both_decades = first.decade and second.decade and between in (["or"], ["and"])
        if not (is_range or both_decades) or first.low > second.high:
            return None
        if self._signs[first.start] != "wanted":
            return ()
        unit = second.unit or first.unit
        return Bound("low", first.low, unit, first.decade), Bound("high", second.high, unit, second.decade)

    def _alone(self, figure: _Figure) -> Iterator[Bound]:
        before, after = self._before(figure), self._after(figure)
        upper, lower = _UPPER.search(before), _LOWER.search(before)
        phrase = upper or lower
        at = figure.start
        if phrase is not None:
            at = max(0, figure.start - len(_TOKEN.findall(before[phrase.start() :])) - self._skipped(figure))
        sign: Sign = self._signs[at]
        if sign == "unsure" and at and self._tokens[at - 1] in {",", "and"}:
            sign = "wanted"  # a bound that begins its own part of the sentence: "no horror, under 20 euros"
        if sign == "unsure" or _VAGUE.search(before):
            return

        def bound(side: Side, value: float) -> Bound:
            return Bound(side, value, figure.unit, figure.decade)

        if upper or lower or _OR_MORE.search(after) or _OR_LESS.search(after):
            high = bool(upper or (not lower and _OR_LESS.search(after)))
            if phrase is not None and sign == "unwanted":
                high = not high
            if high:
                # "Before the 80s" ends where they begin; "until the 80s" and "no newer than the 80s" end with them.
                outside = figure.decade and upper is not None and _OUTSIDE.match(upper[0])
                yield bound("high", figure.low - 1 if outside else figure.high)
            else:
                outside = figure.decade and lower is not None and _OUTSIDE.match(lower[0])
                yield bound("low", figure.high + 1 if outside else figure.low)
            return
        if figure.decade:
            if sign == "wanted":
                yield bound("low", figure.low)
                yield bound("high", figure.high)
            return
        if not _EXACT.search(before) and not figure.unit and figure.low >= 1000:
            return  # a year must be spoken of as one: "Blade Runner 2049" is none
        yield bound("exact" if sign == "wanted" else "not", figure.low)
        if before.endswith("from") and sign == "wanted" and re.match(r"^(?:on|onwards?)\b", after):
            yield bound("low", figure.low)

    def _before(self, figure: _Figure) -> str:
        """Up to five words before a number, without articles and signs of currency."""
        start = figure.start - self._skipped(figure)
        return " ".join(map(_bare, self._tokens[max(0, start - 5) : start]))

    def _skipped(self, figure: _Figure) -> int:
        """How many articles and signs of currency stand directly before a number."""
        count = 0
        while count < figure.start and self._tokens[figure.start - count - 1] in {
            "the",
            "year",
            "early",
            "mid",
            "late",
            "$",
            "€",
            "£",
            "'",
        }:
            count += 1
        return count

    def _after(self, figure: _Figure) -> str:
        """Up to three words behind a number and its unit."""
        return " ".join(map(_bare, self._tokens[figure.end : figure.end + 3]))

    def _is_about(self, bound: Bound, attribute: Attribute) -> bool:
        """Whether a number may be one of that attribute's."""
        name = frozenset(re.findall(r"[a-z]+", fold(re.sub(r"([a-z])([A-Z])", r"\1 \2", attribute.name))))
        if bound.unit:
            return bool(name & _ABOUT[bound.unit][1])
        if attribute.whole and attribute.low >= 1000 and attribute.high <= 2200:
            return 1000 <= bound.value <= 2200 or bound.decade
        if any(_same_word(word, said) for word in name for said in self._words if len(said) > 2):
            return True
        said = frozenset(self._words)
        return any(name & attributes and said & words for words, attributes in _ABOUT.values())

    def _is_or_more(self, at: int) -> bool:
        rest = " ".join(self._words[at : at + 2])
        return bool(_OR_MORE.search(rest) or _OR_LESS.search(rest))

    def _where(self, words: Sequence[str]) -> Iterator[int]:
        for at in range(len(self._words) - len(words) + 1):
            if all(_same_word(one, other) for one, other in zip(self._words[at:], words, strict=False)):
                yield at

    def _sign(self, start: int, end: int) -> Sign:
        if self._words[end : end + 1] == ["free"]:
            return "unwanted"
        signs = set(self._word_signs[start:end])
        return signs.pop() if len(signs) == 1 else "unsure"


def _capital(word: str, sentence: str) -> bool:
    """Whether a word stands with a capital within a sentence, where grammar does not ask for one."""
    return (
        bool(word)
        and re.search(rf"\S\s+[\"'(]?{re.escape(word[:1].upper() + word[1:])}", sentence) is not None
        and word[0].isalpha()
    )


def decade_of(text: str) -> tuple[int, int] | None:
    """The first and last year of a decade or century that a text names by itself ("1980s", "the eighties"), or None."""
    tokens = [each for each in _TOKEN.findall(fold(text.replace("’", "'"))) if each != "the"]
    figures = list(_figures(tokens, frozenset()))
    if len(figures) == 1 and figures[0].decade and (figures[0].start, figures[0].end) == (0, len(tokens)):
        return int(figures[0].low), int(figures[0].high)
    return None


def _allowed(bound: Bound, step: float) -> set[float]:
    """The numbers that say the same as a bound, told strictly or not."""
    return {bound.value, bound.value - step if bound.decade else bound.value + step}


def _bare(token: str) -> str:
    """A word without a genitive's and a contraction's apostrophe."""
    return token.removesuffix("'s").replace("'", "") if token[:1].isalpha() else token


def _words_of(text: str) -> tuple[str, ...]:
    tokens = _TOKEN.findall(fold(text.replace("’", "'")))
    return tuple(_bare(token) for token in tokens if token[0].isalnum())


def _same_word(one: str, other: str) -> bool:
    """Whether two words are one, but for an inflection."""
    if one == other:
        return bool(one)
    shared = 0
    while shared < min(len(one), len(other)) and one[shared] == other[shared]:
        shared += 1
    for length in range(shared, _STEM - 1, -1):
        endings = frozenset({one[length:], other[length:]})
        if endings in _PLURALS or (length >= _LONG_STEM and endings in _INFLECTIONS):
            return True
    return False


def _hidden(tokens: Sequence[str], titles: Sequence[str]) -> frozenset[int]:
    """The places of tokens that belong to titles."""
    bare = list(map(_bare, tokens))
    words = [(place, word) for place, word in enumerate(bare) if word[:1].isalnum() and word not in _ARTICLES]
    hidden: set[int] = set()
    for title in titles:
        wanted = [word for word in _words_of(title) if word not in _ARTICLES]
        for at in range(len(words) - len(wanted) + 1):
            if wanted and [word for _, word in words[at : at + len(wanted)]] == wanted:
                hidden |= {place for place, _ in words[at : at + len(wanted)]}
    return frozenset(hidden)


def _negator(tokens: Sequence[str], place: int) -> Sign | None:
    """The sign that begins at a place, if a negation does."""
    word = _bare(tokens[place])
    after = _bare(tokens[place + 1]) if place + 1 < len(tokens) else ""
    if (word, after) in _NEGATING_PAIRS:
        return "unwanted"
    if word not in _NEGATORS:
        return None
    if after in _NOT_NEGATED:
        return "wanted"
    return "unsure" if after in _LEFT_OPEN else "unwanted"


def _signs(tokens: Sequence[str]) -> list[Sign]:
    """The sign of each token: what a negation reaches, up to where its part of the sentence ends."""
    signs: list[Sign] = []
    now: Sign = "wanted"
    soft = False
    skip = 0
    for place, token in enumerate(tokens):
        word = _bare(token)
        if skip:
            skip -= 1
            signs.append(now)
            continue
        begun = _negator(tokens, place)
        if begun is not None:
            now, soft = begun, False
            pair = (word, _bare(tokens[place + 1]) if place + 1 < len(tokens) else "")
            skip = int(pair in _NEGATING_PAIRS or begun != "unwanted")  # "not dislike": the second word negates nothing anew
        elif word in _BOUNDARIES:
            now, soft = "wanted", False
        elif word in {",", "and", "with"}:
            now, soft = ("wanted" if now == "wanted" else "unsure"), False
        elif word in _SOFT:
            soft = True
        signs.append("unsure" if soft and now == "wanted" else now)
    return signs


def _figures(tokens: Sequence[str], hidden: frozenset[int]) -> Iterator[_Figure]:
    """The numbers among tokens, in order."""
    place = 0
    while place < len(tokens):
        found = _figure(tokens, place)
        if found is None:
            place += 1
            continue
        yield from (replace(each, hidden=place in hidden) for each in _with_unit(tokens, found))
        place = found.end


def _figure(tokens: Sequence[str], place: int) -> _Figure | None:
    """The number that begins at a place."""
    token = tokens[place]
    after = tokens[place + 1] if place + 1 < len(tokens) else ""
    digits = token.strip("'").removesuffix("s").removesuffix("'")
    if token[-1] == "s" and digits.isdigit():
        return _decade(int(digits), len(digits), place, place + 1)
    if token in {"eighteen", "nineteen"} and after in _DECADES:
        first = 100 * _SMALL[token] + _DECADES[after]
        return _Figure(place, place + 2, first, first + 9)
    if token in _DECADES:
        return _decade(_DECADES[token], 2, place, place + 1)
    if token[:1].isdigit() and token[-2:] in {"st", "nd", "rd", "th"}:
        if after != "century" or len(token) > 4:  # an ordinal, of which a hostile sentence may have any number of digits
            return None
        century = 100 * (int(token[:-2]) - 1)
        return _Figure(place, place + 2, century, century + 99)
    if token[:1].isdigit():
        plain = re.sub(r",(?=\d{1,2}$)", ".", token).replace(",", "")
        return _Figure(place, place + 1, float(plain), float(plain)) if plain.count(".") <= 1 else None
    return _spelt(tokens, place)


def _decade(number: int, digits: int, start: int, end: int) -> _Figure | None:
    """The decade of "80s" and "1980s"; that of "20s" is in doubt and so none, which the century would have to tell."""
    if digits == 4 and number % 10 == 0:
        return _Figure(start, end, number, number + 99 if number % 100 == 0 and number < 2000 else number + 9)
    if digits == 2 and number % 10 == 0 and number >= 30:
        return _Figure(start, end, 1900 + number, 1909 + number)
    return _Figure(start, end, 2000, 2009) if digits == 2 and number == 0 else None


def _spelt(tokens: Sequence[str], place: int) -> _Figure | None:
    """A number in words: "twenty", "ninety-five", "two hundred", "nineteen ninety-five", "two thousand ten"."""
    words: list[int] = []
    at = place
    total = 0
    while at < len(tokens):
        word = tokens[at]
        if word in _SMALL or word in _TENS:
            number = _SMALL.get(word, _TENS.get(word, 0))
            if words and words[-1] >= 20 and words[-1] % 10 == 0 and 0 < number < 10:
                words[-1] += number
            else:
                words.append(number)
        elif word in {"hundred", "thousand"} and words:
            scale = 100 if word == "hundred" else 1000
            total += words.pop() * scale
        elif word == "-" and words and at + 1 < len(tokens) and tokens[at + 1] in _SMALL:
            pass
        else:
            break
        at += 1
    if not words and not total:
        return None
    if not total and len(words) == 2 and words[0] in range(11, 21) and words[1] >= 10:
        value = 100 * words[0] + words[1]  # as years are read
    elif len(words) <= 1:
        value = total + sum(words)
    else:
        value, at = words[0], place + 1
    return None if value == 1 else _Figure(place, at, value, value)  # "one" is mostly a pronoun


def _with_unit(tokens: Sequence[str], figure: _Figure) -> Iterator[_Figure]:
    """The number with what it counts; hours also as minutes."""
    before = tokens[figure.start - 1] if figure.start else ""
    at = figure.end + (tokens[figure.end : figure.end + 1] == ["-"])
    after = tokens[at] if at < len(tokens) else ""
    for unit, words in _UNITS.items():
        if before in words and not before.isalpha():
            yield replace(figure, unit=unit)
            return
        if after in words:
            counted = replace(figure, unit=unit, end=at + 1)
            yield counted
            if unit == "hours":
                yield replace(counted, low=60 * figure.low, high=60 * figure.high)
            return
    yield figure
