"""The four seams of llmrank, as protocols: Backend, Strategy, Embedder, Retriever; and TokenCounter, ModelInfo, Flow."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from llmrank.errors import BackendError
from llmrank.types import Capability, Completion, Item, Message, Prompt, Ranking, ResolvedRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]

    from llmrank.budget import Budget

Flow: TypeAlias = Generator[Sequence[Prompt], Sequence[Completion | BackendError], Ranking]
"""A ranking in progress: yields prompts that may be asked at once, is sent their answers in the same order,
returns the Ranking. An answer may be an error value: one failed prompt does not lose the others."""


class TokenCounter(Protocol):
    """Counts tokens as a model would."""

    @property
    def name(self) -> str:
        """What counts, for people: ``tiktoken o200k_base``, ``estimate``, the server's address."""
        ...

    @property
    def remote(self) -> bool:
        """True if counting asks a server and so may block; callers then count in a thread."""
        ...

    def count(self, text: str) -> int:
        """The number of tokens of a text, without special tokens."""
        ...

    def count_messages(self, messages: Sequence[Message]) -> int:
        """The number of prompt tokens of a chat, with all that the chat template adds."""
        ...


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a backend knows of its model: the window in tokens (prompt and answer together) and how to count them.

    None means unknown; the budget then assumes a window and estimates, and says so on the Ranking.
    """

    context_window: int | None = None
    counter: TokenCounter | None = None


@runtime_checkable
class Backend(Protocol):
    """Sends one prompt to a model. Many calls run concurrently; an engine that wants batches collects them inside."""

    @property
    def kind(self) -> str:
        """The configuration's name for it: ``openai``, ``vllm``, ``vllm-inprocess``, ``local``, ``replay``, or your own."""
        ...

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do. A strategy that needs more is refused when the Ranker is built."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """All of its own settings that shape an answer, as JSON values: part of the answer cache's key. No secrets."""
        ...

    @property
    def concurrency(self) -> int:
        """How many prompts it makes sense to have in flight at once, unless the caller says otherwise."""
        ...

    @property
    def remote(self) -> bool:
        """True if a server answers. An engine in this process never goes missing, so by default no deadline cuts it off."""
        ...

    async def info(self) -> ModelInfo:
        """The model's window and tokenizer; asks the server once. Raises BackendError if it cannot be reached."""
        ...

    async def generate(self, prompt: Prompt) -> Completion:
        """Answers a chat. Raises BackendError."""
        ...

    async def score(self, prompt: Prompt) -> Completion:
        """Scores `prompt.continuations` after `prompt.prefix`. Raises BackendError; CapabilityError if it cannot score."""
        ...

    async def aclose(self) -> None:
        """Frees connections, threads and memory. May be called twice."""
        ...


@runtime_checkable
class Strategy(Protocol):
    """A way to turn a request into prompts and their answers into a Ranking. It never calls anything itself."""

    @property
    def name(self) -> str:
        """The configuration's name for it: ``listwise``, ``likelihood``, or your own."""
        ...

    @property
    def needs(self) -> frozenset[Capability]:
        """What a backend must be able to do."""
        ...

    def flow(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """Starts one ranking. The Ranking returned holds all of `request.candidates`, each once."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors whose cosine tells how alike they are."""

    @property
    def model(self) -> str:
        """Names the model and its version; vectors on disk are kept apart by it."""
        ...

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text, float32 of shape (len(texts), dimension), each of length 1 (or 0 for an empty text)."""
        ...


@runtime_checkable
class Retriever(Protocol):
    """Scores candidates cheaply, so that few of them need to be shown to a model."""

    @property
    def name(self) -> str:
        """The name of its part in a RankedItem's `parts` and in the fusion's weights."""
        ...

    @property
    def floor(self) -> float | None:
        """Items whose score is not above it are not found, only known to be none of its own; None if every score counts, but
        where all are 0: then nothing is found.
        """
        ...

    def score(self, request: ResolvedRequest, candidates: Sequence[Item]) -> NDArray[np.float32]:
        """One finite score a candidate, higher is better, shape (len(candidates),). Raises BackendError, RequestError."""
        ...
