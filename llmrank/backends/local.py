"""A Prompt goes in, a Completion of a small model in this process comes out: no server, no key, no GPU, no network."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from llmrank.assets import WEIGHTS, fetch_weights
from llmrank.backends._constraints import Permutation, form_of
from llmrank.backends._llama import MISSING, Cancelled, Generated, LabelLogprobs, Llama
from llmrank.backends._schema_grammar import schema_grammar
from llmrank.backends.base import BackendBase
from llmrank.errors import BackendError, ConfigError, ConstraintIgnoredError, SetupError, nearest
from llmrank.protocols import ModelInfo
from llmrank.types import Capability, Completion, ContinuationScore, Message, Prompt, Usage

T = TypeVar("T")

SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """Which model runs in this process, and how.

    Attributes:
        model: A known name (`llmrank.assets.WEIGHTS`; fetched at first use) or the path of a ``.gguf`` file.
        context_window: The window in tokens. Each slot has one: with SmolLM2-135M 23 kB a token, so 94 MB a slot at 4096.
        n_threads: Threads that compute; None for one a core.
        slots: How many continuations are decoded side by side; 1 saves memory and scores more slowly (`eval/bench_local.py`).
    """

    model: str = "smollm2-135m-instruct"
    context_window: int = 4096
    n_threads: int | None = None
    slots: int = 8

    def __post_init__(self) -> None:
        for name, least in (("context_window", 256), ("slots", 1)):
            if (value := getattr(self, name)) < least:
                raise ConfigError("is too small", field=f"backend.{name}", value=value, fix=f"use {least} or more")
        if self.n_threads is not None and self.n_threads < 1:
            raise ConfigError("must be positive", field="backend.n_threads", value=self.n_threads, fix="or leave it out")
        if not self.is_path and self.model not in WEIGHTS:
            hint = f"{nearest(self.model, WEIGHTS)} (or a .gguf file)"
            raise ConfigError("no such embedded model", field="backend.model", value=self.model, fix=hint)

    @property
    def is_path(self) -> bool:
        """True if `model` is a file rather than a known name."""
        return self.model.endswith(".gguf")


class LocalCounter:
    """Counts with the model's own tokenizer and chat template: exactly what the model reads.

    Args:
        llama: The loaded model.
        name: What counts, for people.
    """

    remote = False

    def __init__(self, llama: Llama, name: str) -> None:
        self._llama = llama
        self.name = name

    def count(self, text: str) -> int:
        """The number of tokens of a text, without special tokens."""
        return len(self._llama.tokenize(text))

    def count_messages(self, messages: Sequence[Message]) -> int:
        """The number of tokens of a chat after the chat template, up to where the answer begins."""
        return len(self._llama.chat_tokens(tuple(messages)))


class LocalBackend(BackendBase):
    """A GGUF model in this process: generates, constrained to labels and permutations, and scores continuations exactly.

    The model is loaded (and, if it has a known name, fetched) at the first call, in the one thread that then does all of its
    work. When a caller is cancelled, its prompt ends at the next token, and the model is ready for others.

    Args:
        options: Which model, and how; the small default if left out.

    Raises:
        ConfigError: no such model.
        SetupError: xllamacpp is not installed.
    """

    def __init__(self, options: LocalOptions | None = None) -> None:
        self._options = options or LocalOptions()
        path = Path(self._options.model) if self._options.is_path else None
        super().__init__("local", path.stem if path else self._options.model)
        if importlib.util.find_spec("xllamacpp") is None:
            raise SetupError(MISSING)
        if path is not None and not path.is_file():
            known = f"or use one of: {', '.join(WEIGHTS)}"
            raise ConfigError("no such file", field="backend.model", value=str(path), fix=known)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="llmrank-local")
        self._closing = threading.Event()
        self._llama: Llama | None = None
        self._broken: SetupError | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All of them."""
        return frozenset({"generate", "score", "label_logprobs"})

    @property
    def concurrency(self) -> int:
        """One prompt at a time fills the machine."""
        return 1

    @property
    def remote(self) -> bool:
        """No server is asked."""
        return False

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The weights, the window and the engine's version."""
        return {
            **super().identity,
            "weights": self._weights_digest(),
            "context_window": self._options.context_window,
            "engine": importlib.metadata.version("xllamacpp"),
        }

    async def info(self) -> ModelInfo:
        """The window, and a counter that is exact."""
        # Once it is loaded, nobody needs to wait for the prompt that it is working on.
        llama = self._llama if self._llama is not None else await self._run(lambda loaded, _: loaded)
        return ModelInfo(self._options.context_window, LocalCounter(llama, f"{self.model} (embedded)"))

    async def generate(self, prompt: Prompt) -> Completion:
        """Answers a chat.

        ``order`` and ``json`` answers are always a permutation of the labels and ``object`` answers always of the form of the
        schema, unless `max_tokens` ends them; ``label`` answers are always one of the labels. A label of several tokens is
        absent from `label_logprobs`, and a note says so.

        Raises:
            ContextLengthError: the prompt does not fit the window.
            BackendError: the engine refused it.
        """
        return await self._run(lambda llama, cancelled: self._generate(llama, prompt, cancelled))

    async def score(self, prompt: Prompt) -> Completion:
        """Scores the continuations, each tokenised by itself. An empty prefix stands for a line break: a model needs a start.

        Raises:
            ContextLengthError: the prefix and the longest continuation do not fit the window.
            BackendError: the engine refused it.
        """
        return await self._run(lambda llama, cancelled: self._score(llama, prompt, cancelled))

    async def aclose(self) -> None:
        """Stops what runs and frees the model."""
        self._closing.set()
        try:
            # Behind what runs, in the worker itself: no other thread has to wait for it.
            freed = asyncio.get_running_loop().run_in_executor(self._worker, self._free)
        except RuntimeError:  # the worker takes no more work: it was closed before, or Python is ending
            self._worker.shutdown()
            self._free()
        else:
            await freed
            self._worker.shutdown(wait=False)

    def _free(self) -> None:
        if self._llama is not None:
            self._llama.close()
            self._llama = None

    async def _run(self, work: Callable[[Llama, threading.Event], T]) -> T:
        """Does the work in the worker thread; if the caller is cancelled, so is the work."""
        if self._closing.is_set():
            raise BackendError("the embedded model has been closed")
        cancelled = _Either(self._closing)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, lambda: work(self._loaded(), cancelled))
        except Cancelled as error:
            raise BackendError("the embedded model was closed while it answered") from error
        finally:
            cancelled.set()

    def _loaded(self) -> Llama:
        """The model; loaded by the first call. Only the worker thread comes here."""
        if self._broken is not None:
            raise self._broken  # a thousand waiting prompts need not try to download it a thousand times
        if self._llama is None:
            try:
                self._llama = self._load()
            except SetupError as error:
                self._broken = error
                raise
        return self._llama

    def _load(self) -> Llama:
        options = self._options
        return Llama(
            Path(options.model) if options.is_path else fetch_weights(options.model),
            n_ctx=options.context_window,
            n_threads=options.n_threads or _cores(),
            slots=options.slots,
        )

    def _generate(self, llama: Llama, prompt: Prompt, cancelled: threading.Event) -> Completion:
        start = time.perf_counter()
        ids = llama.chat_tokens(prompt.messages)
        found: LabelLogprobs | None = None
        answer: Generated | None = None
        notes: tuple[str, ...] = ()
        if prompt.label_logprobs:
            found, notes = _label_logprobs(llama, ids, prompt.labels)
            if prompt.answer == "label" and prompt.temperature == 0 and not notes and found.logprobs:
                # What decoding one of the labels greedily would give, without doing so.
                likeliest = max(found.logprobs, key=found.logprobs.__getitem__)
                answer = Generated(likeliest, "stop", len(ids), completion_tokens=1, cached=found.cached)
        if answer is None:
            answer = _decoded(llama, ids, prompt, cancelled)
        return Completion(
            text=answer.text,
            finish_reason=answer.finish_reason,
            usage=Usage(
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                # The first call's: it left the whole prompt in memory for those after it.
                cached_tokens=found.cached if found is not None and found.logprobs else answer.cached,
                calls=1,
                seconds=time.perf_counter() - start,
            ),
            label_logprobs=None if found is None else found.logprobs,
            model=self.model,
            notes=notes,
        )

    def _score(self, llama: Llama, prompt: Prompt, cancelled: threading.Event) -> Completion:
        start = time.perf_counter()
        prefix = llama.tokenize(prompt.prefix or "\n")
        continuations = [llama.tokenize(text) for text in prompt.continuations]
        scored = llama.score(prefix, continuations, cancelled=cancelled)
        return Completion(
            usage=Usage(
                prompt_tokens=len(prefix) + sum(map(len, continuations)),
                cached_tokens=scored.cached,
                calls=1,
                seconds=time.perf_counter() - start,
            ),
            scores=tuple(ContinuationScore(value, len(ids)) for value, ids in zip(scored.logprobs, continuations, strict=True)),
            model=self.model,
        )

    def _weights_digest(self) -> str:
        """Tells weights apart: the pinned hash (and form) of known ones; of a file, its size and first and last megabyte.

        To hash all of a large file would take many seconds.
        """
        if not self._options.is_path:
            return WEIGHTS[self._options.model].digest
        with Path(self._options.model).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(SAMPLE_BYTES)
            file.seek(max(0, size - SAMPLE_BYTES))
            return hashlib.sha256(b"%d:" % size + head + file.read()).hexdigest()


class _Either(threading.Event):
    """An event that is also set when another one is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()


def _label_logprobs(llama: Llama, ids: Sequence[int], labels: Sequence[str]) -> tuple[LabelLogprobs, tuple[str, ...]]:
    """The labels' log-probabilities, and a note about labels that have none."""
    tokens = {label: llama.tokenize(label) for label in labels}
    single = {label: found[0] for label, found in tokens.items() if len(found) == 1}
    split = [label for label in labels if label not in single]
    notes = (f"no log-probability for labels of several tokens: {', '.join(split)}",) if split else ()
    return (llama.label_logprobs(ids, single) if single else LabelLogprobs({}, 0)), notes


def _decoded(llama: Llama, ids: Sequence[int], prompt: Prompt, cancelled: threading.Event) -> Generated:
    """Decodes an answer of the form asked for."""
    form = form_of(prompt.answer)
    if form is not None and prompt.labels:
        return _permutation(llama, ids, prompt, Permutation(form, prompt.labels), cancelled)
    options = _sampling(prompt)
    if prompt.answer == "label" and prompt.labels:
        options["grammar"] = _one_of(prompt.labels)
    if prompt.answer == "object" and prompt.schema is not None:
        grammar = schema_grammar(prompt.schema)
        options |= {"json_schema": dict(prompt.schema)} if grammar is None else {"grammar": grammar}
    return llama.generate(ids, options, max_tokens=prompt.max_tokens, cancelled=cancelled)


def _permutation(
    llama: Llama, ids: Sequence[int], prompt: Prompt, decoding: Permutation, cancelled: threading.Event
) -> Generated:
    """Decodes an answer that lists every label once, in as many calls as `Permutation` needs."""
    room = min(prompt.max_tokens, llama.n_ctx - len(ids))
    finish_reason = "stop"
    tokens, cached = 0, None
    while not decoding.complete:
        # Tokenised anew, the answer so far has the tokens that the model wrote, up to the last label that counts.
        so_far = [*ids, *llama.tokenize(decoding.written)]
        options = {**_sampling(prompt), "grammar": decoding.grammar}
        step = llama.generate(so_far, options, max_tokens=room - tokens, cancelled=cancelled)
        cached = step.cached if cached is None else cached
        tokens += step.completion_tokens
        if not decoding.take(step.text, cut_off=step.finish_reason == "length"):
            raise ConstraintIgnoredError(f"the embedded engine left the grammar: {step.text!r}")
        if tokens >= room and not decoding.complete:
            finish_reason = "length"
            break
    return Generated(decoding.written, finish_reason, len(ids), tokens, cached or 0)


def _sampling(prompt: Prompt) -> dict[str, Any]:
    options: dict[str, Any] = {"temperature": prompt.temperature}
    if prompt.seed is not None:
        options["seed"] = prompt.seed
    return options


def _one_of(labels: Sequence[str]) -> str:
    """A grammar of exactly one label. JSON's escapes are GBNF's; the words of a verdict may need them."""
    return "root ::= " + " | ".join(json.dumps(label, ensure_ascii=False) for label in labels)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
