"""A kind, a model and its options go in; a backend that is never asked comes out, for forecasts: no key, server or weights."""

from __future__ import annotations

from typing import Any

from llmrank.backends.base import BackendBase
from llmrank.types import Capability


class UnaskedBackend(BackendBase):
    """Stands for a backend whose configuration is right, as far as can be told without asking it.

    Args:
        kind: The configuration's name for the backend.
        model: The model's name; empty where only the server knows it.
        capabilities: What the backend can do.
        options: The backend's own.
    """

    def __init__(self, kind: str, model: str, capabilities: frozenset[Capability], options: Any) -> None:
        super().__init__(kind, model)
        self._capabilities = capabilities
        self.options = options

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those of the backend that it stands for. An answer is a CapabilityError all the same."""
        return self._capabilities
