"""The labels of a prompt go in; which tokens spell which label comes out: the rule that all backends with a server share.

A model asked for "Yes" or "No" may say "yes", " Yes" or "YES" and mean the same, so a word counts in any case. A single letter
counts only as it is: "a" is an article, and no choice of candidate A.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from llmrank.answer.text import answer_start

_AROUND: Final = " \t\r\n\u0120\u010a\u2581[](){}\"'`*.:,"
"""What may stand around a label inside one token: the white space and brackets of an answer such as `[A]`, and the marks that
some servers leave in a token's text for a space (byte-level BPE: U+0120, U+010A; SentencePiece: U+2581)."""


class LabelSpelling:
    """How the labels of one prompt may be spelt.

    Args:
        labels: The labels. One that another one equals but for its case counts only as it is.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._exact = frozenset(labels)
        folded = Counter(label.casefold() for label in labels)
        self._words = {label.casefold(): label for label in labels if len(label) > 1 and folded[label.casefold()] == 1}

    def label_of(self, token: str) -> str | None:
        """The label that a token's text spells; None if it spells none."""
        spelt = bare(token)
        return spelt if spelt in self._exact else self._words.get(spelt.casefold())

    def texts(self) -> list[tuple[str, str]]:
        """The texts whose tokens are worth asking a server about, each with its label: the plain ones first."""
        found: dict[str, str] = {}
        for before in ("", " "):
            found |= {before + label: label for label in self._labels}
        for before in ("", " "):
            for label in self._words.values():
                for text in (label.lower(), label.capitalize(), label.upper()):
                    found.setdefault(before + text, label)
        return list(found.items())


def bare(token: str) -> str:
    """A token's text without what may stand around a label."""
    return token.strip(_AROUND)


def label_place(tokens: Sequence[str]) -> int | None:
    """Where in an answer its label stands: at the first token behind any reasoning that spells something.

    Args:
        tokens: The texts of the answer's tokens, in order.

    Returns:
        The number of tokens if none behind the reasoning spells anything; None if the reasoning has no end.
    """
    start = answer_start("".join(tokens))
    if start is None:
        return None
    begins = accumulate(map(len, tokens), initial=0)
    found = (place for place, (token, begin) in enumerate(zip(tokens, begins, strict=False)) if begin >= start and bare(token))
    return next(found, len(tokens))


_FAINT: Final = 0.01
"""The probability below which all labels together are no answer: the model was about to say something else."""


def faint_notes(logprobs: Mapping[str, float]) -> tuple[str, ...]:
    """A note if the labels together hold next to no probability. One sentence whatever the number, as notes are collected."""
    if not logprobs or math.fsum(map(math.exp, logprobs.values())) >= _FAINT:
        return ()
    return (f"the labels hold less than {100 * _FAINT:g} % of the probability of the answer's first token",)
