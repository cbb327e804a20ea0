"""What every backend shares: the defaults of the Backend protocol, so that a new one states only what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmrank.errors import CapabilityError
from llmrank.protocols import ModelInfo
from llmrank.types import Capability, Completion, Prompt


class BackendBase:
    """Defaults: generates only, knows neither window nor tokenizer, holds nothing that must be freed.

    Args:
        kind: The configuration's name for this backend.
        model: The model's name.
    """

    def __init__(self, kind: str, model: str) -> None:
        self._kind = kind
        self._model = model

    @property
    def kind(self) -> str:
        """The configuration's name for this backend."""
        return self._kind

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Text only, unless a subclass says more."""
        return frozenset({"generate"})

    @property
    def identity(self) -> Mapping[str, Any]:
        """Kind and model; a subclass adds each setting that shapes an answer."""
        return {"kind": self.kind, "model": self.model}

    @property
    def concurrency(self) -> int:
        """64 prompts in flight: enough to keep a server busy, too few to drown it."""
        return 64

    @property
    def remote(self) -> bool:
        """A server answers."""
        return True

    async def info(self) -> ModelInfo:
        """Nothing is known of the model."""
        return ModelInfo()

    async def generate(self, prompt: Prompt) -> Completion:
        """Raises CapabilityError: a subclass answers here."""
        raise CapabilityError(f"backend {self.kind!r} cannot generate text")

    async def score(self, prompt: Prompt) -> Completion:
        """Raises CapabilityError: a subclass that can score continuations does so here."""
        raise CapabilityError(f"backend {self.kind!r} cannot score continuations")

    async def aclose(self) -> None:
        """Nothing to free."""
