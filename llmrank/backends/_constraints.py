"""Labels and an answer format go in, grammars come out in which only a permutation of the labels can be written.

Knows no server and calls nothing: a backend asks a `Permutation` what to decode next, feeds it what came, until it is
complete. That serves a vLLM server, vLLM in this process, and tests that play the model by hand.

No small grammar says "each label once": an automaton for the permutations of n labels needs 2**n states. So the grammar
forces only the first few labels to be distinct (all of them while n is small) and lets the rest run free over the labels
that remain. What comes is kept up to the first label that stands twice, and the next call goes on from there with the
labels still missing. That is the same answer that a mask over the whole list would give: up to the first repetition such a
mask would have changed nothing, and there it would have taken the repeated labels away, as the next call does. (For sampling
it is rejection sampling of the masked distribution.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from llmrank.types import AnswerFormat

MAX_BRANCHES: Final = 1100
"""The most alternatives in one grammar. xgrammar 0.2.8 compiles the 1,024 of 8 labels in 0.03 s, those of 9 in 0.1 s, of 10 in
0.3 s, of 11 in 0.8 s (17, 39, 88, 193 kB to send); 20 labels of which 2 are forced have 400: 0.01 s. A server compiles a
grammar once and keeps it. Measured by `eval/bench_constraints.py`."""

CATCH_UP: Final = 2
"""After a repetition the next call runs at most this many times as far as the last one got: a model that goes round in circles
then wastes few tokens, and one that repeated itself once by accident is soon back at full length."""


@dataclass(frozen=True, slots=True)
class Form:
    """How an answer format writes a list: ``opening item separator item ... closing``."""

    opening: str
    before: str
    after: str
    separator: str
    closing: str

    def item(self, label: str) -> str:
        """One label as it stands in the list."""
        return f"{self.before}{label}{self.after}"


ORDER: Final = Form("", "[", "]", " > ", "")
JSON: Final = Form('{"ranking": [', '"', '"', ", ", "]}")


def form_of(answer: AnswerFormat) -> Form | None:
    """The form of the formats that list all labels; None for the others."""
    return {"order": ORDER, "json": JSON}.get(answer)


def forced_labels(count: int) -> int:
    """How many labels of `count` a grammar can force to be distinct within `MAX_BRANCHES`; at least 1."""
    branches, forced = 0, 0
    while forced < count and (branches := branches + math.comb(count, forced) * (count - forced)) <= MAX_BRANCHES:
        forced += 1
    return max(1, forced)


@lru_cache(maxsize=512)  # every user's first call has the same labels, and the 8 kB to 17 kB take milliseconds to write
def list_grammar(form: Form, labels: tuple[str, ...], *, length: int, forced: int, opening: str, closing: str) -> str:
    """A grammar of lists of `length` of the labels, the first `forced` of them distinct.

    Args:
        form: How labels are written.
        labels: Those that may be used.
        length: How many the list has.
        forced: How many of them, from the first, must be distinct; with ``forced == length`` all are.
        opening, closing: What stands before the first and after the last item.

    Returns:
        EBNF with ``::=``, as xgrammar and llguidance read it. Rule ``s<set>`` is what may follow once the labels of `set`
        (its bits, in hexadecimal) have been used.
    """
    items = [form.item(label) for label in labels]
    rules = ["root ::= " + " ".join([*map(_literal, filter(None, [opening])), "s0", *map(_literal, filter(None, [closing]))])]
    layer = [0]
    for depth in range(forced):
        lead = form.separator if depth else ""
        reached: dict[int, None] = {}
        for used in layer:
            branches = []
            for place, item in enumerate(items):
                bit = 1 << place
                if used & bit:
                    continue
                branches.append(_literal(lead + item) + _after(depth + 1, forced, length, used | bit))
                reached[used | bit] = None
            rules.append(f"s{used:x} ::= {' | '.join(branches)}")
        layer = list(reached)
    if forced < length:
        rules.append(f"rest ::= again{{{length - forced}}}")
        rules.append("again ::= " + " | ".join(_literal(form.separator + item) for item in items))
    return "\n".join(rules)


def _after(depth: int, forced: int, length: int, used: int) -> str:
    """The rule that goes on after `depth` labels; nothing after the last one."""
    if depth < forced:
        return f" s{used:x}"
    return " rest" if depth < length else ""


def _literal(text: str) -> str:
    """A terminal. JSON's escapes are EBNF's."""
    return json.dumps(text, ensure_ascii=False)


class Permutation:
    """The decoding of one answer that lists every label once.

    Use::

        while not decoding.complete:
            text, cut_off = ask(decoding.written, decoding.grammar)   # `written` is the assistant's answer so far
            if not decoding.take(text, cut_off=cut_off):
                break                                                 # the server did not obey the grammar

    Args:
        form: How the list is written.
        labels: What is to be listed; at least one, none twice.
    """

    def __init__(self, form: Form, labels: Sequence[str]) -> None:
        self._form = form
        self._labels = tuple(labels)
        self._done: list[str] = []
        self._reach = len(self._labels)

    @property
    def done(self) -> tuple[str, ...]:
        """The labels listed so far, best first."""
        return tuple(self._done)

    @property
    def complete(self) -> bool:
        """True once every label is listed. The last one is known without asking, so it needs no call."""
        return len(self._done) == len(self._labels)

    @property
    def written(self) -> str:
        """The answer so far. It ends after an item, never in a space: chat templates may trim messages."""
        items = self._form.separator.join(map(self._form.item, self._done))
        opening = self._form.opening if self._done else ""
        return opening + items + (self._form.closing if self.complete else "")

    @property
    def grammar(self) -> str:
        """What may be written next."""
        remaining, length = self._remaining, self._length
        return list_grammar(
            self._form,
            tuple(remaining),
            length=length,
            forced=min(length, forced_labels(len(remaining))),
            opening=self._opening,
            closing=self._form.closing if length == len(remaining) else "",
        )

    def take(self, text: str | None, *, cut_off: bool = False) -> bool:
        """Takes what was decoded by `grammar`.

        Args:
            text: The new text.
            cut_off: True if the decoding ended at a limit of tokens, so that the text may break off anywhere.

        Returns:
            False, and nothing is taken, if the text is not of the grammar's language: the server did not enforce it.
        """
        read = self._read(text or "", cut_off=cut_off)
        if read is None:
            return False
        fresh = read[: _first_repetition(read)]
        self._done += fresh
        if len(remaining := self._remaining) == 1 and not cut_off:
            self._done += remaining
        self._reach = max(1, len(fresh)) * CATCH_UP
        return True

    @property
    def _remaining(self) -> list[str]:
        done = set(self._done)
        return [label for label in self._labels if label not in done]

    @property
    def _length(self) -> int:
        return min(len(self._remaining), self._reach)

    @property
    def _opening(self) -> str:
        return self._form.separator if self._done else self._form.opening

    def _read(self, text: str, *, cut_off: bool) -> list[str] | None:
        """The labels in a text of the grammar's language, repetitions and all; None if the text is not of it."""
        remaining, length = self._remaining, self._length
        labels = {self._form.item(label): label for label in remaining}
        closing = self._form.closing if length == len(remaining) else ""
        read: list[str] = []
        # Some tokenizers drop the space before a first word.
        rest = text.lstrip()
        lead = self._opening.lstrip()
        while len(read) < length:
            item = next((item for item in labels if rest.startswith(lead + item)), None)
            if item is None:
                return read if cut_off and _begins(rest, (lead + item for item in labels)) else None
            read.append(labels[item])
            rest = rest[len(lead + item) :]
            lead = self._form.separator
        return read if rest.rstrip() == closing or (cut_off and closing.startswith(rest)) else None


def _first_repetition(labels: Sequence[str]) -> int:
    """The place of the first label that stood before; the length if there is none."""
    seen: set[str] = set()
    for place, label in enumerate(labels):
        if label in seen:
            return place
        seen.add(label)
    return len(labels)


def _begins(text: str, whole: Iterator[str]) -> bool:
    return any(each.startswith(text) for each in whole)
