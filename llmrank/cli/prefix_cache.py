"""A Ranker goes in before it is used; a line comes out afterwards: how much of its prompts a vLLM server had in its cache."""

from __future__ import annotations

import asyncio

import typer

from llmrank.backends._vllm_metrics import PrefixCache
from llmrank.backends.wrapper import BackendWrapper
from llmrank.errors import BackendError
from llmrank.protocols import Backend
from llmrank.ranker import Ranker


class PrefixCacheWatch:
    """Reads the server's counters when it is made, and again when it is asked.

    Args:
        ranker: Any Ranker; of another backend than ``vllm`` there is nothing to tell.
    """

    def __init__(self, ranker: Ranker) -> None:
        from llmrank.backends.vllm import VLLMBackend

        inner = _innermost(ranker.backend)
        self._backend = inner if isinstance(inner, VLLMBackend) else None
        self._before = self._read()

    def tell(self) -> None:
        """Says on standard error what came since, if there is anything to tell."""
        if (line := self.line()) is not None:
            typer.echo(line, err=True)

    def line(self) -> str | None:
        """What came since; None if there is nothing to tell: no vLLM, no counters, or no prompt."""
        after = self._read() if self._before is not None else None
        if after is None or self._before is None:
            return None
        found = after.since(self._before)
        if found is None or found.rate is None:
            return None
        share = f"{100 * found.rate:.0f} % of {found.queries:,} prompt tokens"
        return f"prefix cache: {share} (of all that the server was asked meanwhile, by anyone)"

    def _read(self) -> PrefixCache | None:
        if self._backend is None:
            return None
        try:
            return asyncio.run(self._backend.prefix_cache())
        except BackendError:
            return None  # a figure beside the ranking; that the server is gone, the ranking itself tells


def _innermost(backend: Backend) -> Backend:
    """The backend without what stands around it."""
    while isinstance(backend, BackendWrapper):
        backend = backend.inner
    return backend
