"""A GGUF file goes in; token counts, texts, label and continuation log-probabilities come out. Synchronous; knows no prompts.

The engine is the server of llama.cpp inside this process (package xllamacpp). Requests are function calls; only what has no
function yet (tokenising, the chat template, copying a slot's state) goes through the port that the server opens on the
loopback interface, behind a random key.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmrank.errors import BackendError, BadRequestError, ContextLengthError, ServerError, SetupError
from llmrank.types import Message

FORCING_BIAS = 1000.0
"""Added to a token's logit so that it is sampled for certain; the log-probabilities reported are those before it."""

CHOICE_BIAS = 100.0
"""Added to the labels' logits: what has no bias keeps next to no probability, and float32 keeps the differences."""

SMALLEST_SHARE = 1e-38
"""Stands for a share that float32 rounds to 0."""

NO_PROBABILITY = -1e30
"""The server reports the lowest float32 as the log-probability of a token whose probability float32 rounds to 0."""

LIKELIEST = 1000
"""How many tokens' log-probabilities are asked for where labels are wanted: after a question for a letter, all letters are
among them as a rule, and to report so many takes no time that can be measured."""

TOKENIZE_CACHE = 20_000
HTTP_TIMEOUT = 60.0
MISSING = "the embedded model needs xllamacpp, which is not installed; run: pip install 'llmrank[local]'"
QUIET = -1
"""llama.cpp's verbosity at which not even its errors reach the terminal; they come back as values."""


class Cancelled(Exception):  # noqa: N818  # not an error: nobody waits for the answer any more
    """The caller has gone; the engine is ready for the next request."""


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated text. `cached` of the `prompt_tokens` were in the engine's memory already."""

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cached: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Sums of log-probabilities, one a continuation; `cached` tokens of the prefix were in the engine's memory already."""

    logprobs: tuple[float, ...]
    cached: int


@dataclass(frozen=True, slots=True)
class LabelLogprobs:
    """Log-probabilities by label; `cached` tokens of the prompt were in the engine's memory already."""

    logprobs: Mapping[str, float]
    cached: int


class Llama:
    """One model in memory.

    Only one call of `generate`, `label_logprobs` and `score` at a time (the caller's worker thread sees to that); counting
    tokens is allowed from any thread at any time.

    Args:
        weights: The GGUF file.
        n_ctx: The window in tokens, for each slot.
        n_threads: Threads that compute.
        slots: How many sequences are decoded side by side when continuations are scored.

    Raises:
        SetupError: xllamacpp is missing, or the file is no model that it can load.
    """

    def __init__(self, weights: Path, *, n_ctx: int, n_threads: int, slots: int) -> None:
        xllamacpp = _import_quietly()
        self.n_ctx = n_ctx
        self._slots = slots
        self._scratch = tempfile.mkdtemp(prefix="llmrank-slots-")  # mode 0700: a slot's state tells the prompt
        # Not a TemporaryDirectory, which complains when a program ends without closing what it used.
        self._clean_up = weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        self._key = secrets.token_urlsafe(24)
        params = xllamacpp.CommonParams()
        params.model.path = str(weights)
        params.verbosity = QUIET
        params.n_ctx = n_ctx * slots  # shared out evenly
        params.n_parallel = slots
        params.cpuparams.n_threads = n_threads
        params.cpuparams_batch.n_threads = n_threads
        params.n_threads_http = 2
        # Slots of their own rather than one shared ("unified") memory: then a value does not depend on what else is decoded.
        params.kv_unified = False
        # No second store of old prompts: a slot keeps its last one, which is the reuse that ranking needs.
        params.cache_ram_mib = 0
        params.cache_idle_slots = False
        params.slot_save_path = self._scratch + os.sep
        params.api_keys = [self._key]
        try:
            self._server: Any = xllamacpp.Server(params)
        except RuntimeError as error:
            self._clean_up()
            raise SetupError(
                f"{weights} cannot be loaded as a GGUF model ({error}); fetch it again or name another file"
            ) from error
        address = urlsplit(self._server.listening_address)
        self._address = (address.hostname or "127.0.0.1", address.port or 80)
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="llmrank-slot")
        self.tokenize = lru_cache(TOKENIZE_CACHE)(self._tokenize)
        self.chat_tokens = lru_cache(256)(self._chat_tokens)

    def close(self) -> None:
        """Frees the model. No call may be running or follow."""
        self._pool.shutdown()
        self._server = None
        self._clean_up()

    def _tokenize(self, text: str) -> tuple[int, ...]:
        """The token ids of a text as it stands: no token is added, and nothing in it is read as a special token."""
        return self._tokens(text, special=False) if text else ()

    def _chat_tokens(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """The token ids of a chat, ready for the answer: with all that the model's chat template adds."""
        chat = [{"role": message.role, "content": message.content} for message in messages]
        return self._tokens(self._post("/apply-template", {"messages": chat})["prompt"], special=True)

    def _tokens(self, text: str, *, special: bool) -> tuple[int, ...]:
        answer = self._post("/tokenize", {"content": text, "add_special": special, "parse_special": special})
        return tuple(answer["tokens"])

    def generate(
        self, prompt: Sequence[int], options: Mapping[str, Any], *, max_tokens: int, cancelled: threading.Event
    ) -> Generated:
        """Continues a prompt.

        Args:
            prompt: Token ids.
            options: Further fields of the server's completion request: temperature, seed, grammar.
            max_tokens: The most tokens to generate; what the window cannot hold is not generated.
            cancelled: Once set, generation stops at the next token.

        Raises:
            ContextLengthError: the prompt leaves no room for a single token.
            BackendError: the server refused the request.
            Cancelled: `cancelled` was set.
        """
        self._check_room(len(prompt) + 1)
        parts: list[str] = []
        last: dict[str, Any] = {}
        finish_reason: str | None = None
        failure: BackendError | None = None

        def receive(chunk: dict[str, Any]) -> bool:
            """Takes one streamed piece; True stops the server."""
            nonlocal last, finish_reason, failure
            if "error" in chunk:
                failure = self._error(chunk["error"])
                return True
            if choices := chunk.get("choices"):
                parts.append(choices[0].get("text") or "")
                finish_reason = choices[0].get("finish_reason") or finish_reason
            last = {**last, **chunk}
            return cancelled.is_set()

        request = {
            "prompt": list(prompt),
            "max_tokens": min(max_tokens, self.n_ctx - len(prompt)),
            "cache_prompt": True,
            "id_slot": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        self._server.handle_completions(request, receive)
        if cancelled.is_set():
            raise Cancelled
        if failure is not None:
            raise failure
        usage, timings = last.get("usage") or {}, last.get("timings") or {}
        return Generated(
            text="".join(parts),
            finish_reason=finish_reason,
            prompt_tokens=len(prompt),
            completion_tokens=int(usage.get("completion_tokens", 0)),
            cached=int(timings.get("cache_n", 0)),
        )

    def label_logprobs(self, prompt: Sequence[int], labels: Mapping[str, int]) -> LabelLogprobs:
        """The log-probability of each label's token as the next one.

        One call tells those of the likeliest `LIKELIEST` tokens, and of a label sampled among the labels. Where others are
        less likely than that, a second call tells the labels' shares among themselves; the sampled one gives their level.

        Args:
            prompt: Token ids.
            labels: The token of each label, at least one.

        Returns:
            Natural logarithms by label; a label whose probability is 0 in float32 is absent.
        """
        self._check_room(len(prompt) + 1)
        tokens = sorted(set(labels.values()))
        only_labels = {"temperature": 1.0, "seed": 0, "samplers": [], "logit_bias": [[token, CHOICE_BIAS] for token in tokens]}
        answer = self._complete(prompt, slot=0, n_probs=LIKELIEST, **only_labels)
        sampled = _first_token(answer)
        known = {entry["id"]: float(entry["logprob"]) for entry in [sampled, *sampled["top_logprobs"]]}
        if not known.keys() >= set(tokens):
            choice = self._complete(prompt, slot=0, n_probs=len(tokens), post_sampling_probs=True, **only_labels)
            shares = {entry["id"]: float(entry["prob"]) for entry in _first_token(choice)["top_probs"]}
            level = known[sampled["id"]] - math.log(shares[sampled["id"]])
            known |= {token: level + math.log(share) for token, share in shares.items() if token not in known and share > 0}
        logprobs = {label: known[token] for label, token in labels.items() if known.get(token, -math.inf) > NO_PROBABILITY}
        return LabelLogprobs(logprobs, int(answer["timings"]["cache_n"]))

    def score(self, prefix: Sequence[int], continuations: Sequence[Sequence[int]], *, cancelled: threading.Event) -> Scored:
        """The exact log-likelihood of each continuation after the prefix.

        The prefix is computed once, and its state copied to the other slots; then the continuations are decoded side by
        side, so that one pass over the weights serves a token of each. Every token is forced (`FORCING_BIAS`) rather than
        held by a grammar: a grammar gives the same values, but looks through the whole vocabulary for each token.
        `eval/bench_local.py` measures both.

        Args:
            prefix: Token ids, at least one.
            continuations: Token ids of each continuation; one without tokens scores 0.
            cancelled: Once set, scoring stops at the next token.

        Raises:
            ContextLengthError: the prefix and the longest continuation do not fit the window.
            BackendError: the server refused a request.
            Cancelled: `cancelled` was set.
        """
        self._check_room(len(prefix) + max(map(len, continuations), default=0))
        sums = [0.0] * len(continuations)
        # The longest first, so that no slot is left alone with a long one at the end.
        longest_first = sorted(range(len(continuations)), key=lambda index: -len(continuations[index]))
        queue = iter([index for index in longest_first if continuations[index]])
        turn = threading.Lock()
        stop = threading.Event()

        def work(slot: int) -> None:
            while True:
                with turn:
                    index = next(queue, None)
                if index is None:
                    return
                for done, token in enumerate(continuations[index]):
                    if cancelled.is_set() or stop.is_set():
                        return
                    sums[index] += self._forced([*prefix, *continuations[index][:done]], token, slot=slot)

        def guarded(slot: int) -> None:
            try:
                work(slot)
            except BaseException:
                stop.set()  # the others need not finish what nobody will read
                raise

        used = min(self._slots, sum(1 for each in continuations if each))
        cached = self._spread(prefix, used) if used else 0
        running = [self._pool.submit(guarded, slot) for slot in range(used)]
        problems = [problem for problem in (each.exception() for each in running) if problem is not None]
        if problems:
            raise problems[0]
        if cancelled.is_set():
            raise Cancelled
        return Scored(tuple(sums), cached)

    def _spread(self, prefix: Sequence[int], slots: int) -> int:
        """Computes the prefix in slot 0 and copies its state to the slots after it; returns how many tokens were cached."""
        answer = self._complete(prefix, slot=0, temperature=0.0)
        if slots > 1:
            name = "prefix.bin"
            self._post("/slots/0?action=save", {"filename": name})
            try:
                for slot in range(1, slots):
                    self._post(f"/slots/{slot}?action=restore", {"filename": name})
            finally:
                (Path(self._scratch) / name).unlink(missing_ok=True)
        return int(answer["timings"]["cache_n"])

    def _forced(self, prompt: Sequence[int], token: int, *, slot: int) -> float:
        """The log-probability of a token as the next one."""
        bias = [[token, FORCING_BIAS]]
        answer = self._complete(prompt, slot=slot, temperature=0.0, samplers=[], n_probs=1, logit_bias=bias)
        if answer["choices"][0]["logprobs"] is None:
            return self._unspoken(prompt, token, slot=slot)
        entry = _first_token(answer)
        if entry["id"] != token:
            raise ServerError(f"the embedded engine sampled token {entry['id']} where {token} was forced")
        return float(entry["logprob"])

    def _unspoken(self, prompt: Sequence[int], token: int, *, slot: int) -> float:
        """The log-probability of a token that ends in the middle of a character ("日" may be two tokens).

        The server holds such a token back until the character is complete, and its log-probability with it. So another one
        is sampled: if the token wanted is not among the most likely ones that are reported beside it, then one that is both
        likely and whole, together with what the wanted one's share would have been.
        """
        line_break = self.tokenize("\n")[-1]
        bias = [[line_break, FORCING_BIAS]]
        entry = _first_token(self._complete(prompt, slot=slot, temperature=0.0, samplers=[], n_probs=40, logit_bias=bias))
        known = {each["id"]: float(each["logprob"]) for each in entry["top_logprobs"]}
        if token in known:
            return known[token]
        likely = next((each["id"] for each in entry["top_logprobs"] if _is_whole(each["bytes"])), None)
        reference, level = (line_break, float(entry["logprob"])) if likely is None else (likely, known[likely])
        # The reference is made e**15 times more likely than it is, so that it is the one sampled, but not so much that the
        # other's share would vanish in float32.
        ahead = 15.0
        choice = self._complete(
            prompt,
            slot=slot,
            temperature=1.0,
            seed=0,
            samplers=[],
            n_probs=2,
            post_sampling_probs=True,
            logit_bias=[[reference, CHOICE_BIAS + ahead], [token, CHOICE_BIAS]],
        )
        shares = {each["id"]: float(each["prob"]) for each in _first_token(choice)["top_probs"]}
        return level + math.log(max(shares.get(token, 0.0), SMALLEST_SHARE) / shares[reference]) + ahead

    def _complete(self, prompt: Sequence[int], *, slot: int, **fields: Any) -> dict[str, Any]:
        """One token after a prompt, as the server answers it."""
        request = {"prompt": list(prompt), "max_tokens": 1, "cache_prompt": True, "id_slot": slot, **fields}
        answer: dict[str, Any] = self._server.handle_completions(request)
        if "error" in answer:
            raise self._error(answer["error"])
        return answer

    def _check_room(self, tokens: int) -> None:
        if tokens > self.n_ctx:
            raise ContextLengthError(
                f"the prompt needs {tokens} tokens and the window of the embedded model has {self.n_ctx}", window=self.n_ctx
            )

    def _error(self, error: Mapping[str, Any]) -> BackendError:
        """The server's error value as ours."""
        message = f"the embedded engine refused the request: {error.get('message', error)}"
        if error.get("type") == "exceed_context_size_error":
            return ContextLengthError(message, window=self.n_ctx)
        if str(error.get("code", "")).startswith("4"):
            return BadRequestError(message)
        return ServerError(message)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One request to the loopback port. A connection each: they are used from several threads."""
        connection = http.client.HTTPConnection(*self._address, timeout=HTTP_TIMEOUT)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServerError(f"the embedded engine does not answer {path.partition('?')[0]} ({error})") from error
        finally:
            connection.close()
        if "error" in answer:
            raise self._error(answer["error"])
        return answer


def _first_token(answer: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = answer["choices"][0]["logprobs"]["content"][0]
    return entry


def _is_whole(characters: Sequence[int]) -> bool:
    """True if these bytes are whole characters."""
    try:
        return bool(bytes(characters).decode())
    except UnicodeDecodeError:
        return False


def _import_quietly() -> Any:
    """Imports xllamacpp with OpenMP threads that sleep while they wait.

    By default they spin, which on a machine with other work makes a call many times slower. OpenMP reads
    its settings when the library is loaded, so they are set for that moment only and do not reach child processes.
    """
    with _environment({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}):
        try:
            import xllamacpp
        except ImportError as error:
            raise SetupError(MISSING) from error
    return xllamacpp


@contextlib.contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables that the user has not set, for the length of a block."""
    added = [name for name in defaults if name not in os.environ]
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
