"""A prompt goes in; its answer comes from the answer cache, or from the backend and is kept."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import replace

from llmrank.backends._flight import SingleFlight
from llmrank.backends.wrapper import BackendWrapper
from llmrank.cache import AnswerCache
from llmrank.codec import cache_key, model_key
from llmrank.errors import BackendTimeoutError, DeadlineError, UnreachableError
from llmrank.protocols import Backend, ModelInfo
from llmrank.types import Completion, Prompt, Usage

HIT = Usage(cache_hits=1)
"""What an answer costs that nobody had to compute."""


class CachedBackend(BackendWrapper):
    """Answers from the cache what it can, asks for the rest, and keeps every answer in which something was said.

    Errors and answers without text are not kept: a server in trouble must not be remembered for good. The key is all that
    shapes an answer: the backend's identity and the prompt without ids and fingerprint. Equal prompts that are under way at
    once are asked once. An answer that the backend was not asked for costs `HIT`; of one that it was asked for in part,
    `cache_hits` counts the continuations that were kept.

    A cache that fails while it is in use (disk full, file damaged) loses no answer: it is noted on the Completion.

    Args:
        inner: The backend to ask.
        cache: Where answers are kept. It belongs to this wrapper from now on: `aclose` closes it.
    """

    def __init__(self, inner: Backend, cache: AnswerCache) -> None:
        super().__init__(inner)
        self._cache = cache
        self._flights: SingleFlight[Completion] = SingleFlight()
        self._kept_window: tuple[bytes, int | None] | None = None

    @property
    def cache(self) -> AnswerCache:
        """Where answers are kept."""
        return self._cache

    async def info(self) -> ModelInfo:
        """What the inner backend knows of its model; while its server is away, the window that it last told.

        So prompts whose answers are kept can be answered without the server. They are written with a counter of less than
        the server's own exactness then: where it cuts a prompt otherwise, no answer is found, and the server is missed there.

        Raises:
            BackendError: the inner backend's, if no window is kept.
        """
        try:
            info = await self._inner.info()
        except (UnreachableError, BackendTimeoutError, DeadlineError):
            known = self._read_window()
            if known is None:
                raise
            return ModelInfo(known[0])
        await self._keep_window(info.context_window)
        return info

    async def generate(self, prompt: Prompt) -> Completion:
        """The kept answer, or a new one. Raises BackendError."""
        key = cache_key(prompt, self.identity)
        answer, shared = await self._flights.run(key, lambda: self._generate(prompt, key))
        return hit(answer) if shared else answer

    async def score(self, prompt: Prompt) -> Completion:
        """The kept scores, and new ones for the continuations that have none. Raises BackendError.

        Continuations are kept one by one, as the score of one does not depend on the others: the unconditional likelihoods of a
        catalogue's titles are so computed once for all users.
        """
        answer, shared = await self._flights.run(cache_key(prompt, self.identity), lambda: self._score(prompt))
        return hit(answer) if shared else answer

    async def aclose(self) -> None:
        """Closes the inner backend and the cache."""
        try:
            await super().aclose()
        finally:
            self._cache.close()  # in this thread: while Python ends, no other can be started

    async def _generate(self, prompt: Prompt, key: bytes) -> Completion:
        kept, notes = self._read([key])
        if key in kept:
            return hit(kept[key])
        answer = await self._inner.generate(prompt)
        if says_something(answer):
            notes += await self._keep({key: answer})
        return replace(answer, notes=(*answer.notes, *notes))

    async def _score(self, prompt: Prompt) -> Completion:
        identity = self.identity
        keys = {text: cache_key(_ask_only(prompt, (text,)), identity) for text in prompt.continuations}
        kept, notes = self._read(keys.values())
        answers = {text: kept[key] for text, key in keys.items() if key in kept and len(kept[key].scores) == 1}
        missing = tuple(text for text in keys if text not in answers)
        spared = sum((answer.usage + answer.spared for answer in answers.values()), Usage())
        if not missing:
            return replace(_join(prompt, answers, HIT, notes), spared=spared)

        # Unchanged when nothing was kept, so that what is asked can be recognised in a server's log or a recording.
        computed = await self._inner.score(prompt if missing == prompt.continuations else _ask_only(prompt, missing))
        shares = zip(_shares(computed.usage, len(missing)), _shares(computed.spared, len(missing)), strict=True)
        fresh = {
            text: replace(computed, scores=(score,), usage=spent, spared=saved)
            for text, score, (spent, saved) in zip(missing, computed.scores, shares, strict=True)
        }
        notes += await self._keep({keys[text]: answer for text, answer in fresh.items()})
        whole = _join(prompt, answers | fresh, computed.usage + Usage(cache_hits=len(answers)), notes)
        return replace(whole, spared=spared + computed.spared)

    def _read_window(self) -> tuple[int | None] | None:
        try:
            return self._cache.window(model_key(self.identity))
        except sqlite3.Error:
            return None  # the server's error, which the caller raises then, is the one to mend first

    async def _keep_window(self, tokens: int | None) -> None:
        """Keeps the window if it is not the one kept last."""
        told = (model_key(self.identity), tokens)  # made now: some backends learn their model's name with the window
        if told == self._kept_window:
            return
        self._kept_window = told
        # A cache that fails is noted on the answers, and loses nothing else.
        with contextlib.suppress(sqlite3.Error):
            await asyncio.to_thread(self._cache.put_window, *told)

    def _read(self, keys: Iterable[bytes]) -> tuple[Mapping[bytes, Completion], list[str]]:
        """What is kept, and a note if the cache failed."""
        try:
            # In the loop's own thread: a row takes microseconds and waits for nobody (WAL).
            return self._cache.get(keys), []
        except sqlite3.Error as error:
            return {}, [f"The answer cache could not be read: {error}."]

    async def _keep(self, answers: Mapping[bytes, Completion]) -> list[str]:
        """Keeps the answers; a note if the cache failed."""
        try:
            # In the loop's own thread, so that nothing else is asked in this answer's place before it is kept: a process that
            # is killed has lost what was being asked, and no more. In another thread if that would mean to wait for somebody.
            if not self._cache.put_at_once(answers):
                await asyncio.to_thread(self._cache.put, answers)
        except sqlite3.Error as error:
            return [f"The answer could not be kept in the answer cache: {error}."]
        return []


def hit(answer: Completion) -> Completion:
    """An answer that nobody had to compute now."""
    return replace(answer, usage=HIT, spared=answer.usage + answer.spared)


def _shares(usage: Usage, parts: int) -> list[Usage]:
    """What each of several continuations that were scored at once is kept with: their sum is what was spent."""

    def share(count: int, part: int) -> int:
        return count // parts + (part < count % parts)

    return [
        Usage(
            prompt_tokens=share(usage.prompt_tokens, part),
            completion_tokens=share(usage.completion_tokens, part),
            cached_tokens=share(usage.cached_tokens, part),
            calls=share(usage.calls, part),
            retries=share(usage.retries, part),
            seconds=usage.seconds / parts,
        )
        for part in range(parts)
    ]


def says_something(answer: Completion) -> bool:
    """Whether there is anything in an answer that a strategy can read."""
    return bool((answer.text and answer.text.strip()) or answer.scores or answer.label_logprobs)


def _ask_only(prompt: Prompt, continuations: tuple[str, ...]) -> Prompt:
    """The prompt with these continuations; labels and ids, which run parallel to all of them and shape no score, go."""
    return replace(prompt, continuations=continuations, labels=(), item_ids=())


def _join(prompt: Prompt, answers: Mapping[str, Completion], usage: Usage, notes: list[str]) -> Completion:
    """One completion for all continuations of `prompt` from one for each of them."""
    ordered = [answers[text] for text in prompt.continuations]
    said = dict.fromkeys(note for answer in ordered for note in answer.notes)
    return replace(ordered[0], scores=tuple(answer.scores[0] for answer in ordered), usage=usage, notes=(*said, *notes))
