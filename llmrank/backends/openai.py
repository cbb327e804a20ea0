"""Prompts go in, Completions come out, by any OpenAI-compatible API: OpenAI, Azure, and all that speak their protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmrank.backends._flight import SingleFlight
from llmrank.backends._negotiation import Converses
from llmrank.backends._openai_chat import ChatClient, check_chat_options, room_beside
from llmrank.backends._openai_models import ask_window
from llmrank.backends._openai_transport import OpenAITransport, Transport, checked_url, public_url
from llmrank.backends.base import BackendBase
from llmrank.errors import ConfigError, ContextLengthError
from llmrank.protocols import ModelInfo
from llmrank.types import Capability, Completion, Prompt


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """How to reach a model by the OpenAI protocol. The key itself is never here: only the name of its environment variable.

    Attributes:
        model: The model's name at the server.
        base_url: Where the API is, with its ``/v1``; None for ``OPENAI_BASE_URL`` or else OpenAI itself.
        api_key_env: The environment variable that holds the key. Servers in this machine or a private network may have none.
        context_window: The window in tokens, where the server does not tell it.
        temperature: Sent in place of each prompt's own; None sends the prompt's.
        thinking_tokens: Added to each answer's token limit, for models whose hidden reasoning counts towards it. They are kept
            free in the window: `OpenAIBackend.info` gives it without them.
        timeout_s: The most seconds for one attempt, to the last byte.
        extra_body: Further fields of every request (``{"reasoning_effort": "minimal", "top_p": 0.9}``); they win over
            llmrank's own and are never negotiated away.
        organization, project: OpenAI's headers of that name.
        headers, query: Further headers and query parameters (Azure's ``api-version``). Not shown, for they may hold secrets.

    Raises:
        ConfigError: a value is out of its range.
    """

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    context_window: int | None = None
    temperature: float | None = None
    thinking_tokens: int = 0
    timeout_s: float = 60.0
    extra_body: Mapping[str, Any] = field(default_factory=dict, hash=False)
    organization: str | None = None
    project: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
    query: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("is empty", field="backend.model", fix="name a model that the server has")
        if self.base_url is not None:
            checked_url(self.base_url)
        check_chat_options(self)


class OpenAIBackend(BackendBase):
    """A model behind an OpenAI-compatible API. Safe to use from many tasks and from several event loops.

    Args:
        options: How to reach it.
        transport: What carries the requests; None for a connection of its own.
        negotiator: What is known of the server's dialect; None to find out.

    Raises:
        SetupError: the SDK or the key is missing; the message names the remedy.
    """

    def __init__(
        self, options: OpenAIOptions, *, transport: Transport | None = None, negotiator: Converses | None = None
    ) -> None:
        super().__init__("openai", options.model)
        self.options = options
        self.transport: Transport = transport or OpenAITransport(
            options.base_url,
            api_key_env=options.api_key_env,
            timeout_s=options.timeout_s,
            organization=options.organization,
            project=options.project,
            headers=options.headers,
            query=options.query,
        )
        self.chat = ChatClient(
            self.transport,
            options.model,
            negotiator=negotiator,
            extra_body=options.extra_body,
            temperature=options.temperature,
            thinking_tokens=options.thinking_tokens,
        )
        self._window: int | None = None  # without the thinking tokens, as `info` gives it
        if options.context_window is not None:
            self._window = room_beside(options.thinking_tokens, options.context_window)
        self._info: ModelInfo | None = None
        self._asking: SingleFlight[ModelInfo] = SingleFlight()

    def __repr__(self) -> str:
        return f"OpenAIBackend(model={self.model!r}, base_url={public_url(self.transport.base_url)!r})"

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Text, and the labels' log-probabilities: that a server gives none shows only in an answer, and its notes say so."""
        return frozenset({"generate", "label_logprobs"})

    @property
    def identity(self) -> Mapping[str, Any]:
        """Kind, model, address (without credentials) and the options that shape an answer."""
        return {
            "kind": self.kind,
            "model": self.model,
            "base_url": self.transport.public_url,
            "temperature": self.options.temperature,
            "thinking_tokens": self.options.thinking_tokens,
            "extra_body": dict(self.options.extra_body),
        }

    async def info(self) -> ModelInfo:
        """The window (from the options, else the list of models, else what the server said when a prompt was too long) less
        `options.thinking_tokens`, and tiktoken's counter for the model. The server is asked once.

        Raises:
            UnreachableError, BackendTimeoutError, AuthenticationError: no other request would get through either.
            ConfigError: `options.thinking_tokens` leave no room in the window.
        """
        if self._info is None:
            self._info, _ = await self._asking.run("info", self._ask)
        return self._info

    async def generate(self, prompt: Prompt) -> Completion:
        """Answers a chat. Raises BackendError; the `window` of a ContextLengthError is without `options.thinking_tokens`."""
        try:
            return await self.chat.complete(prompt)
        except ContextLengthError as error:
            self._remember_window(error.window)
            raise

    async def aclose(self) -> None:
        """Closes the connections. A later call opens new ones."""
        await self.transport.aclose()

    async def _ask(self) -> ModelInfo:
        # Here and not above: tiktoken is heavy, and a backend that is only closed again does not need it.
        from llmrank.budget import tiktoken_counter

        counter = tiktoken_counter(self.model)
        if self._window is None:
            told = await ask_window(self.transport, self.model)
            # A prompt that was too long meanwhile may have told more exactly.
            if self._window is None and told is not None:
                self._window = room_beside(self.options.thinking_tokens, told)
        return ModelInfo(self._window, counter)

    def _remember_window(self, window: int | None) -> None:
        if window and self.options.context_window is None:
            self._window = window
            if self._info is not None:
                self._info = ModelInfo(window, self._info.counter)
