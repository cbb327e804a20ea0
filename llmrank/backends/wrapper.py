"""A backend goes in, the same backend with something around each question comes out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from llmrank.protocols import Backend, ModelInfo
from llmrank.types import Capability, Completion, Prompt

Ask: TypeAlias = Callable[[Prompt], Awaitable[Completion]]
"""The inner backend's `generate` or `score`."""


class BackendWrapper:
    """Passes all of the Backend protocol on to `inner`; a subclass says in `around` what happens to a question.

    Args:
        inner: The backend that is asked in the end.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    @property
    def inner(self) -> Backend:
        """The backend inside."""
        return self._inner

    @property
    def kind(self) -> str:
        """The inner backend's kind."""
        return self._inner.kind

    @property
    def model(self) -> str:
        """The inner backend's model."""
        return self._inner.model

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What the inner backend can do."""
        return self._inner.capabilities

    @property
    def identity(self) -> Mapping[str, Any]:
        """The inner backend's identity: what stands around it changes no answer."""
        return self._inner.identity

    @property
    def concurrency(self) -> int:
        """The inner backend's concurrency."""
        return self._inner.concurrency

    @property
    def remote(self) -> bool:
        """Whether the inner backend is a server."""
        return self._inner.remote

    async def info(self) -> ModelInfo:
        """What the inner backend knows of its model."""
        return await self._inner.info()

    async def generate(self, prompt: Prompt) -> Completion:
        """Answers a chat; see `around`."""
        return await self.around(prompt, self._inner.generate)

    async def score(self, prompt: Prompt) -> Completion:
        """Scores continuations; see `around`."""
        return await self.around(prompt, self._inner.score)

    async def aclose(self) -> None:
        """Closes the inner backend."""
        await self._inner.aclose()

    async def around(self, prompt: Prompt, ask: Ask) -> Completion:
        """Answers `prompt`, asking the inner backend through `ask`. Here: just asks."""
        return await ask(prompt)
