"""Prompts go in, Completions come out, by a vLLM server: only permutations can be decoded, and continuations can be scored."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from time import monotonic
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from llmrank.backends._constrained import Constraint, decode, is_constrained
from llmrank.backends._flight import SingleFlight
from llmrank.backends._label_tokens import LabelSpelling
from llmrank.backends._negotiation import Converses
from llmrank.backends._openai_chat import ChatClient, check_chat_options, room_beside, usage_of
from llmrank.backends._openai_models import window_of
from llmrank.backends._openai_transport import PLACEHOLDER_KEY, OpenAITransport, Transport, basic_auth, checked_url, public_url
from llmrank.backends._vllm_metrics import PrefixCache as PrefixCache  # what a method of the backend returns
from llmrank.backends._vllm_metrics import fetch_prefix_cache
from llmrank.backends._vllm_tokens import NoTokenizerError, ServerTokenizer
from llmrank.backends.base import BackendBase
from llmrank.errors import (
    BadRequestError,
    ConfigError,
    ConstraintIgnoredError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    PermissionDeniedError,
    ServerError,
)
from llmrank.protocols import ModelInfo, TokenCounter
from llmrank.types import Capability, Completion, ContinuationScore, Prompt, Usage

Constrain: TypeAlias = Literal["auto", "required", "off"]

SCORED_AT_ONCE: Final = 32
"""Continuations in one request. More would not be computed sooner (the server batches across requests) and make answers of
megabytes: every prompt token comes back with its text, some 70 bytes."""

METRICS_TIMEOUT_S: Final = 5.0
"""The most seconds for the server's counters, which are nothing but shown."""

MAX_LOGPROB_IDS: Final = 128
"""vLLM's own limit on the length of ``logprob_token_ids``."""

FIELDS: Final = ("structured_outputs", "guided")
"""How a constraint is put, best first: ``{"structured_outputs": {"grammar": ...}}``, or ``{"guided_grammar": ...}`` for servers
from before 0.11. A server ignores what it does not know, with status 200, so the answer tells which one it obeys."""


@dataclass(frozen=True, slots=True)
class VLLMOptions:
    """How to reach a vLLM server.

    Attributes:
        base_url: Where it is; ``/v1`` is added if the URL has no path.
        model: The model's name at the server; None for the only one it serves.
        api_key_env: The environment variable that holds the key of a server started with ``--api-key``; it may be unset.
        context_window: The window in tokens, to use less than the server's.
        priority: Passed with each request, lower is served earlier. Give it only to a server started with
            ``--scheduling-policy priority``: others refuse it or, as 0.32 does, ignore it.
        constrain: ``auto`` lets only answers of the form asked for be decoded, and says in the notes of a Completion if the
            server did not obey; ``required`` raises ConstraintIgnoredError then; ``off`` asks for nothing of the kind.
        temperature: Sent in place of each prompt's own; None sends the prompt's.
        thinking_tokens: Added to each answer's token limit, for models whose hidden reasoning counts towards it. They are kept
            free in the window: `VLLMBackend.info` gives it without them.
        timeout_s: The most seconds for one attempt, to the last byte.
        extra_body: Further fields of every chat request (``{"chat_template_kwargs": {"enable_thinking": False}}``).

    Raises:
        ConfigError: a value is out of its range.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str | None = None
    api_key_env: str = "VLLM_API_KEY"
    context_window: int | None = None
    priority: int | None = None
    constrain: Constrain = "auto"
    temperature: float | None = None
    thinking_tokens: int = 0
    timeout_s: float = 60.0
    extra_body: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        checked_url(self.base_url)
        if self.constrain not in ("auto", "required", "off"):
            raise ConfigError("unknown", field="backend.constrain", value=self.constrain, fix="use auto, required or off")
        check_chat_options(self)

    @property
    def api_url(self) -> str:
        """`base_url` with its ``/v1``."""
        return self.base_url.rstrip("/") + ("" if urlsplit(self.base_url).path.strip("/") else "/v1")


class VLLMBackend(BackendBase):
    """A model behind a vLLM server. Safe to use from many tasks and from several event loops.

    Where `options.model` is None, `model` and `identity` are complete only once `info` (or any other question) was answered.

    Args:
        options: How to reach it.
        transport: What carries the requests, in place of a connection. Then nothing but prompts goes to the server: tokens are
            counted by a stand-in, the model's name and window come from the options, and constraints are put in the one way
            that servers of today know.
        negotiator: What is known of the server's dialect; None to find out.

    Raises:
        SetupError: the SDK is missing; the message names the remedy.
    """

    def __init__(
        self,
        options: VLLMOptions | None = None,
        *,
        transport: Transport | None = None,
        negotiator: Converses | None = None,
    ) -> None:
        self.options = options or VLLMOptions()
        super().__init__("vllm", self.options.model or "")
        self._key = os.environ.get(self.options.api_key_env, "").strip()
        self._headers = basic_auth(self.options.api_url) or {"Authorization": f"Bearer {self._key or PLACEHOLDER_KEY}"}
        # The header is given here too, as most vLLM servers want no key, wherever they run.
        self._connects = transport is None
        self._negotiator = negotiator
        self.transport: Transport = transport or OpenAITransport(
            self.options.api_url,
            api_key_env=self.options.api_key_env,
            timeout_s=self.options.timeout_s,
            headers=self._headers,
        )
        self._enforcement = _Enforcement()
        self._server: _Server | None = None
        self._asking: SingleFlight[_Server] = SingleFlight()

    def __repr__(self) -> str:
        return f"VLLMBackend(model={self.model!r}, base_url={public_url(self.transport.base_url)!r})"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All three."""
        return frozenset({"generate", "score", "label_logprobs"})

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that shapes an answer; the priority does not."""
        return {
            **super().identity,
            "base_url": self.transport.public_url,
            "constrain": self.options.constrain,
            "temperature": self.options.temperature,
            "thinking_tokens": self.options.thinking_tokens,
            "extra_body": dict(self.options.extra_body),
        }

    async def info(self) -> ModelInfo:
        """The window (the server's ``max_model_len``) less `options.thinking_tokens`, and the server's own tokenizer.

        The server is asked once. As everywhere, `count` leaves out special tokens; `score` takes up to two tokens more than
        the texts: what the tokenizer puts before a prompt (its BOS), and the one that vLLM has to decode.

        Raises:
            BackendError: it cannot be reached, or refuses the key.
            ConfigError: it serves several models and `options.model` names none; or `options.thinking_tokens` leave no room
                in the window.
        """
        return (await self._connected()).info

    async def generate(self, prompt: Prompt) -> Completion:
        """Answers a chat; with all formats but ``free`` only an answer of that form can be decoded.

        A long list may take several calls (see `_constraints`); `Usage.calls` counts them.

        Raises:
            ConstraintIgnoredError: the server did not obey, and `options.constrain` is ``required``.
            BackendError: it did not answer.
        """
        server = await self._connected()
        extra: dict[str, Any] = {} if self.options.priority is None else {"priority": self.options.priority}
        if prompt.label_logprobs and (ids := await self._label_ids(server, prompt.labels)):
            extra |= {"logprob_token_ids": ids}
        if self.options.constrain == "off":
            prompt = replace(prompt, answer="free")  # or `response_format` would be sent for JSON
        if not is_constrained(prompt):
            return await server.chat.complete(prompt, extra)

        answer: Completion | None = None
        # What is answered out of files is asked again from its beginning, and must be put then as it was put before,
        # whatever other answers have taught meanwhile.
        enforcement = self._enforcement if self._connects else _Enforcement(FIELDS[:1])
        while (field_name := enforcement.field) is not None:
            answer, obeyed = await self._constrained(server.chat, prompt, extra, field_name)
            if obeyed and answer is not None:
                enforcement.proven |= bool(answer.text)  # an answer that was all reasoning proves nothing
                return answer
            if enforcement.proven:
                break  # this server does obey: something is odd about this one answer
            enforcement.drop(field_name)
        if self.options.constrain == "required":
            raise ConstraintIgnoredError(f"{self.transport.address} does not enforce the form {prompt.answer!r} while decoding")
        if answer is None:
            answer = await server.chat.complete(prompt, extra)
        return replace(
            answer, notes=(*answer.notes, f"the server did not enforce the answer's form ({prompt.answer}) while decoding")
        )

    async def score(self, prompt: Prompt) -> Completion:
        """The log-likelihood of each continuation after the prefix.

        Prefix and continuation are tokenized apart, so that the boundary is the same for every continuation, and sent as ids.
        One forward pass over each whole text (``prompt_logprobs``) gives exact values. vLLM does not use its prefix cache
        for such requests. Forcing the text token by token does (one-token requests with ``logprob_token_ids``), which pays
        only after a long prefix and takes a request for every token of every title.

        Raises:
            ContextLengthError: the prefix and a continuation are longer than the window.
            BadRequestError: the prefix is empty: nothing precedes the first token.
            BackendError: the server did not answer, or has no ``/tokenize``.
        """
        server = await self._connected()
        started = monotonic()
        prefix = list(await asyncio.to_thread(server.tokenizer.ids, prompt.prefix, special=True))
        if not prefix:
            raise BadRequestError(
                "continuations cannot be scored after an empty prefix: give the template's text at least a word"
            )
        continuations = await server.tokenizer.ids_of_all(prompt.continuations)
        batches = [continuations[at : at + SCORED_AT_ONCE] for at in range(0, len(continuations), SCORED_AT_ONCE)]
        answers = await asyncio.gather(*(self._score_batch(server.chat.model, prefix, batch) for batch in batches))
        usage = reduce(Usage.__add__, (usage for _, usage in answers), Usage())
        return Completion(
            finish_reason="stop",
            usage=replace(usage, seconds=monotonic() - started),
            scores=tuple(score for scores, _ in answers for score in scores),
            model=server.chat.model,
        )

    async def prefix_cache(self) -> PrefixCache | None:
        """What the server's prefix cache has done since it started, for all of its users; two readings tell what came between.

        Returns:
            Tokens of prompts; None where there is no ``/metrics``: behind a gateway, or where prompts go to files.

        Raises:
            BackendError: the server does not answer.
        """
        if not self._connects:
            return None
        timeout_s = min(self.options.timeout_s, METRICS_TIMEOUT_S)
        return await asyncio.to_thread(fetch_prefix_cache, self.transport.root, headers=self._headers, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Closes the connections. A later call opens new ones."""
        await self.transport.aclose()

    async def _connected(self) -> _Server:
        if self._server is None:
            self._server, _ = await self._asking.run("server", self._connect)
        return self._server

    async def _connect(self) -> _Server:
        entries = await self._served()
        model = self.options.model or _only_model(entries, self.transport.address)
        self._model = model
        chat = ChatClient(
            self.transport,
            model,
            negotiator=self._negotiator,
            extra_body=self.options.extra_body,
            temperature=self.options.temperature,
            thinking_tokens=self.options.thinking_tokens,
        )
        tokenizer = ServerTokenizer(
            self.transport.root, model, headers=self._headers, secret=self._key, timeout_s=self.options.timeout_s
        )
        counter: TokenCounter = tokenizer
        has_tokenizer = self._connects and await _answers(tokenizer)
        if not has_tokenizer:
            # Files, or a gateway that passes on /v1 alone: prompts can be answered and counted with a stand-in, but not scored.
            from llmrank.budget import tiktoken_counter

            counter = tiktoken_counter(model)
        window = self.options.context_window or _window(entries, model)
        if window is not None:
            window = room_beside(self.options.thinking_tokens, window)
        return _Server(ModelInfo(window, counter), chat, tokenizer, has_tokenizer)

    async def _served(self) -> list[Mapping[str, Any]]:
        """The server's list of models; empty where a gateway has none and `options.model` says enough."""
        try:
            listed = await self.transport.get("/models")
        except (ModelNotFoundError, PermissionDeniedError):
            if self.options.model is None:
                raise
            return []
        data = listed.get("data") if isinstance(listed, Mapping) else None
        return [entry for entry in data if isinstance(entry, Mapping)] if isinstance(data, list) else []

    async def _label_ids(self, server: _Server, labels: Sequence[str]) -> list[int]:
        """The ids of the tokens that spell a label whole: as it is, after a space, and a word in another case."""
        if not server.has_tokenizer:
            return []
        ids = await server.tokenizer.ids_of_all([text for text, _ in LabelSpelling(labels).texts()])
        return list(dict.fromkeys(each[0] for each in ids if len(each) == 1))[:MAX_LOGPROB_IDS]

    async def _constrained(
        self, chat: ChatClient, prompt: Prompt, extra: Mapping[str, Any], field_name: str
    ) -> tuple[Completion | None, bool]:
        """An answer, and whether the server obeyed; no answer if it refused the constraint itself."""

        async def ask(prompt: Prompt, constraint: Constraint, *, continued: bool) -> Completion:
            body = {**extra, **_put(field_name, constraint)}
            if continued:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
            if not prompt.label_logprobs:
                body.pop("logprob_token_ids", None)  # refused without `logprobs`
            return await chat.complete(prompt, body)

        try:
            return await decode(prompt, ask)
        except (ContextLengthError, ContentFilterError):
            raise
        except BadRequestError as error:
            # A server whose grammar engine does not take this one says so: like not obeying, and as lasting.
            if any(word in str(error).lower() for word in ("grammar", "guided", "structured", "choice", "schema")):
                return None, False
            raise

    async def _score_batch(
        self, model: str, prefix: list[int], continuations: Sequence[tuple[int, ...]]
    ) -> tuple[list[ContinuationScore], Usage]:
        texts = [[*prefix, *ids] for ids in continuations if ids]
        if not texts:
            return [ContinuationScore(0.0, 0) for _ in continuations], Usage()
        body: dict[str, Any] = {"model": model, "prompt": texts, "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        if self.options.priority is not None:
            body["priority"] = self.options.priority
        payload = await self.transport.post("/completions", body)
        choices = payload.get("choices")
        by_index = {choice.get("index"): choice for choice in choices} if isinstance(choices, list) else {}
        scores, place = [], 0
        for ids in continuations:
            if not ids:
                scores.append(ContinuationScore(0.0, 0))
                continue
            reported = by_index.get(place, {}).get("prompt_logprobs")
            if not isinstance(reported, list) or len(reported) != len(texts[place]):
                raise ServerError(f"{self.transport.address} reports no prompt_logprobs: is it a vLLM server?")
            pairs = zip(ids, reported[len(prefix) :], strict=True)
            scores.append(ContinuationScore(math.fsum(entry[str(token)]["logprob"] for token, entry in pairs), len(ids)))
            place += 1
        usage, _ = usage_of(payload, 0.0)
        return scores, usage


@dataclass(frozen=True, slots=True)
class _Server:
    """What is known of the server once it has answered."""

    info: ModelInfo
    chat: ChatClient
    tokenizer: ServerTokenizer
    has_tokenizer: bool


class _Enforcement:
    """Which of `FIELDS` the server obeys: tried in order, given up for good, kept once proven."""

    def __init__(self, fields: tuple[str, ...] = FIELDS) -> None:
        self._open = fields
        self.proven = False

    @property
    def field(self) -> str | None:
        """The field to use; None if the server obeys none."""
        return self._open[0] if self._open else None

    def drop(self, name: str) -> None:
        """Gives a field up; two calls that find out the same at once give up one field."""
        if self._open[:1] == (name,):
            self._open = self._open[1:]


async def _answers(tokenizer: ServerTokenizer) -> bool:
    """Whether there is a tokenizer behind the server. Raises BackendError if the server is not there at all."""
    try:
        await asyncio.to_thread(tokenizer.count, "a")
    except NoTokenizerError:
        return False
    return True


def _put(field_name: str, constraint: Constraint) -> dict[str, Any]:
    """A constraint as a part of a request's body."""
    kind, value = constraint
    return {"structured_outputs": {kind: value}} if field_name == "structured_outputs" else {f"guided_{kind}": value}


def _only_model(entries: Sequence[Mapping[str, Any]], address: str) -> str:
    """The one model served. A LoRA adapter names its `parent` and has to be asked for by name."""
    names = [str(entry.get("id")) for entry in entries if not entry.get("parent")]
    if len(names) != 1:
        shown = json.dumps(names[:8])
        raise ConfigError(f"{address} serves {len(names)} models: {shown}", field="backend.model", fix="name the one to use")
    return names[0]


def _window(entries: Sequence[Mapping[str, Any]], model: str) -> int | None:
    """The window that the server states for a model, or for the model that an adapter belongs to."""
    by_name = {entry.get("id"): entry for entry in entries}
    entry = by_name.get(model)
    if entry is None:
        return None
    return window_of(entry) or window_of(by_name.get(entry.get("parent"), {}))
