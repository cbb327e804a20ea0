"""Titles go in; out comes an index that finds them in text: as they stand, normalised, or (`like`) misspelt.

Titles are compared at levels, the most literal first:

0. the same characters, but for case and white space;
1. the same words: no punctuation, accents or articles, so "Birdcage, The" is "The Birdcage";
2. the same words up to the attributes: "Alien (1979)" of "Alien (1979) - Horror, Sci-Fi";
3. the same words without the year in brackets: "Alien";
4. the same words up to the first bracket: "Shanghai Triad" of "Shanghai Triad (Yao a yao) (1995)".

A trie over words finds the longest title at each place of a text in one pass.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from llmrank.answer.text import plain

LIKENESS = 88.0
"""The least `rapidfuzz.fuzz.ratio` (0 to 100) of two titles that are taken for one: about one wrong letter in eight."""
_MARGIN = 4.0  # by how much the best must be better than the second best
_NAMES = (6, 9)  # letters of a one-word title in which one wrong letter costs more than `LIKENESS` allows
_NEAR = 2  # edits within which another title makes a misspelt one doubtful
_SHORTEST = 5  # shorter titles are too like each other to be compared by likeness
_DEPTH = 40  # words of a title that are compared: bounds the time that a hostile text can take

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|&")
_YEAR = re.compile(r"\s?[(\[]\s?((?:18|19|20)[0-9]{2})\s?[)\]]")
_ATTRIBUTES = re.compile(r"\s[-|]\s|;\s")
_ARTICLE_AFTER = re.compile(r",\s(?:The|A|An)\b(?!\s+\w)")
_ARTICLES = frozenset({"the", "a", "an"})
_ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}


@dataclass(frozen=True, slots=True)
class Found:
    """A title found in a text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        options: (level, candidate) of the candidates that have this title, the most literal first; empty for a history title.
        history: True if an item of the history has this title.
        first: True if no word stands before it.
    """

    start: int
    end: int
    options: tuple[tuple[int, int], ...]
    history: bool
    first: bool


@dataclass(slots=True)
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    options: dict[int, int] = field(default_factory=dict)  # candidate -> level
    history: bool = False


class TitleIndex:
    """Finds candidates, and items of the history, by what their prompt text says.

    Args:
        titles: The candidates' texts as shown in the prompt.
        history: The texts of the history's items.
    """

    def __init__(self, titles: Sequence[str], history: Sequence[str] = ()) -> None:
        self.texts = [" ".join(plain(title).split()) for title in titles]
        self.raw = [_raw(text) for text in self.texts]
        self.years = [frozenset(_YEAR.findall(text)) for text in self.texts]
        self._exact: dict[str, list[int]] = {}
        self._root = _Node()
        self._keys: list[list[str]] = []
        for index, text in enumerate(self.texts):
            self._exact.setdefault(self.raw[index], []).append(index)
            self._keys.append([])
            for level, words in _variants(text):
                node = self._node(words)
                node.options[index] = min(level, node.options.get(index, level))
                self._keys[index].append(" ".join(words))
        self._owners: dict[str, list[int]] = {}
        for index, keys in enumerate(self._keys):
            for key in dict.fromkeys(keys):
                self._owners.setdefault(key, []).append(index)
        self._long_keys = [key for key in self._owners if len(key) >= _SHORTEST]
        self._name_keys = [key for key in self._owners if _NAMES[0] - _NEAR <= len(key) <= _NAMES[1] + _NEAR]
        self._liked: dict[str, tuple[list[tuple[float, int]], float]] = {}
        self._history_keys: list[str] = []
        self._history_raw = set()
        for text in (" ".join(plain(title).split()) for title in history):
            self._history_raw.add(_raw(text))
            for _, words in _variants(text):
                self._node(words).history = True
                self._history_keys.append(" ".join(words))

    def _node(self, words: Sequence[str]) -> _Node:
        node = self._root
        for word in words[:_DEPTH]:
            node = node.children.setdefault(word, _Node())
        return node

    def whole(self, text: str) -> Found | None:
        """The candidates whose title is the whole of `text`, but for case and white space (level 0), or None."""
        raw = _raw(text)
        options = self._exact.get(raw) if raw else None
        if not options:
            return None
        return Found(0, len(text), tuple((0, index) for index in options), raw in self._history_raw, True)

    def head(self, text: str) -> Found | None:
        """The longest title at the very beginning of `text`, or None."""
        for found in self.scan(text, head_only=True):
            return found if found.first else None
        return None

    def scan(self, text: str, *, head_only: bool = False) -> list[Found]:
        """Every title in `text`, from left to right, without overlaps, the longest at each place."""
        matches = islice(_WORD.finditer(text), 2 * _DEPTH if head_only else None)
        spans = [(match.start(), match.end(), _word(match[0])) for match in matches]
        found: list[Found] = []
        at = 0
        while at < len(spans):
            node, best, best_at, position, used = self._root, None, at, at, 0
            articles = 0
            while position < len(spans) and used < _DEPTH:
                word = spans[position][2]
                if word in _ARTICLES and word not in node.children and articles < _DEPTH:
                    position, articles = position + 1, articles + 1  # not in the keys, unless a title is nothing else
                    continue
                following = node.children.get(word)
                if following is None:
                    break
                node, position, used = following, position + 1, used + 1
                if node.options or node.history:
                    best, best_at = node, position
            if best is None:
                if head_only:
                    break
                at += 1
                continue
            start, end = spans[at][0], spans[best_at - 1][1]
            article = _ARTICLE_AFTER.match(text, end)  # "Birdcage, The"
            end = article.end() if article else end
            found.append(Found(start, end, self._ordered(best, text[start:]), best.history, at == 0))
            if head_only:
                break
            at = best_at
        return found

    def _ordered(self, node: _Node, text: str) -> tuple[tuple[int, int], ...]:
        """The node's candidates, literal ones first: of "Alien!" and "Alien" the one whose characters follow."""
        options = sorted((level, index) for index, level in node.options.items())
        if len(options) < 2:
            return tuple(options)
        folded = _raw(text[: 2 * max(len(self.raw[index]) for _, index in options)])
        literal = [index for _, index in options if folded.startswith(self.raw[index])]
        longest = max((len(self.raw[index]) for index in literal), default=0)
        return tuple(
            sorted(
                (0 if index in literal and len(self.raw[index]) == longest else max(level, 1), index)
                for level, index in options
            )
        )

    def known(self, text: str) -> bool:
        """True if `text` as a whole names an item of the history."""
        return _raw(text) in self._history_raw or " ".join(words_of(text)) in self._history_keys

    def shared_start(self, text: str, candidates: Iterable[int]) -> bool:
        """True if the text of one of `candidates` begins with `text` and goes on: a broken-off answer may have meant it."""
        raw = _raw(text)
        return any(self.raw[index].startswith(raw) and self.raw[index] != raw for index in candidates)

    def like(self, text: str, free: Set[int]) -> tuple[float, int] | None:
        """The one of the candidates `free` whose title is most like `text`, with the likeness; None if none is, or two are.

        Numbers must agree ("Toy Story 2" is not "Toy Story 3"), and no item of the history may be more like it.
        Likeness is the normalised indel similarity of rapidfuzz (https://rapidfuzz.github.io/RapidFuzz/).
        """
        found, bar = self._likes(text)
        if not found:
            index = self._one_edit(text, free)
            return (LIKENESS, index) if index is not None else None
        best = [(score, index) for score, index in found if index in free]
        if not best:
            return None
        score, first = best[0]
        keys = set(self._keys[first])
        rivals = (index for other, index in best[1:] if score - other < _MARGIN)
        if score <= bar or any(keys.isdisjoint(self._keys[index]) for index in rivals):
            return None
        return score, first

    def _one_edit(self, text: str, free: Set[int]) -> int | None:
        """The one of `free` from whose one-word title `text` differs in one letter, or two letters that changed places.

        The first letter must agree ("Rocket" is not "Pocket"), and no other title may be within `_NEAR` edits. Edits are
        counted by the optimal string alignment distance.
        """
        from rapidfuzz.distance import OSA

        for query in _queries(text):
            if not (_NAMES[0] <= len(query) <= _NAMES[1] and query.isalpha()):
                continue
            if any(OSA.distance(query, key, score_cutoff=_NEAR) <= _NEAR for key in self._history_keys):
                return None
            near = [
                (edits, index, key)
                for key in self._name_keys
                if (edits := OSA.distance(query, key, score_cutoff=_NEAR)) <= _NEAR
                for index in self._owners[key]
                if index in free
            ]
            if near:
                edits, index, key = min(near)
                alone = all(other == key for _, _, other in near)
                return index if alone and edits == 1 and len(key) >= _NAMES[0] and key[0] == query[0] else None
        return None

    def _likes(self, text: str) -> tuple[list[tuple[float, int]], float]:
        """All candidates like `text`, the likest first, and the greatest likeness of an item of the history."""
        from rapidfuzz import fuzz, process

        known = self._liked.get(text)
        if known is not None:
            return known
        best: dict[int, float] = {}
        bar = 0.0
        for query in _queries(text):
            if len(query) < _SHORTEST:
                continue
            numbers = _numbers(query)
            for key, score, _ in process.extract(query, self._long_keys, scorer=fuzz.ratio, score_cutoff=LIKENESS, limit=8):
                if _numbers(key) == numbers:
                    for index in self._owners[key]:
                        best[index] = max(score, best.get(index, 0.0))
            if best:
                past = process.extractOne(query, self._history_keys, scorer=fuzz.ratio, score_cutoff=LIKENESS)
                bar = max(bar, past[1] if past else 0.0)
        found = sorted(((score, index) for index, score in best.items()), key=lambda pair: (-pair[0], pair[1]))
        self._liked[text] = found, bar
        return found, bar


def words_of(text: str) -> tuple[str, ...]:
    """The words by which titles are compared: case, accents, punctuation and articles taken away."""
    words = [_word(match[0]) for match in _WORD.finditer(text)]
    return tuple(word for word in words if word not in _ARTICLES) or tuple(words)


def year_after(text: str) -> str | None:
    """The year in brackets with which `text` begins, or None."""
    match = _YEAR.match(text)
    return match[1] if match else None


def _variants(text: str) -> list[tuple[int, tuple[str, ...]]]:
    """(level, words) of each way in which a model may name this text."""
    found = [(1, words_of(text))]
    texts = [text]
    for count, match in enumerate(_ATTRIBUTES.finditer(text)):
        if count == 6:
            break
        texts.append(text[: match.start()])
        found.append((2, words_of(texts[-1])))
    for part in texts:
        without = _YEAR.sub("", part)
        if without != part:
            found.append((3, words_of(without)))
    bracket = text.find(" (")
    if bracket > 0:
        found.append((4, words_of(text[:bracket])))
    return [(level, words) for level, words in found if words]


def _queries(text: str) -> list[str]:
    """The words of a text, whole and up to where an explanation or attributes may begin."""
    cuts = [text, _YEAR.sub("", text)]
    for mark in (" - ", ": ", " (", " | ", ". ", '" '):
        place = text.find(mark)
        if place > 0:
            cuts.append(text[:place])
    return list(dict.fromkeys(" ".join(words_of(cut[:200])) for cut in cuts))


def _numbers(key: str) -> Counter[str]:
    return Counter(_ROMAN.get(word, word) for word in key.split() if word in _ROMAN or any(char.isdigit() for char in word))


def _raw(text: str) -> str:
    return " ".join(text.casefold().split())


def _word(word: str) -> str:
    return _short_word(word) if len(word) < 64 else _fold(word)


@lru_cache(maxsize=8192)
def _short_word(word: str) -> str:
    return _fold(word)


def _fold(word: str) -> str:
    if word == "&":
        return "and"
    word = word.casefold().replace("'", "")
    if word.isascii():
        return word
    return "".join(char for char in unicodedata.normalize("NFKD", word) if not unicodedata.combining(char)) or word
