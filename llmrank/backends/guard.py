"""A bare backend goes in, the same backend with retries, a concurrency limit and kept answers around it comes out."""

from __future__ import annotations

from llmrank.backends.cache import CachedBackend
from llmrank.backends.limit import Gate
from llmrank.backends.retry import Limits, RetryBackend
from llmrank.backends.shared import SharedBackend
from llmrank.cache import AnswerCache
from llmrank.protocols import Backend

__all__ = ["CachedBackend", "Limits", "guard"]  # what a Ranker needs of this folder comes from this one module


def guard(
    backend: Backend,
    *,
    limits: Limits | None = None,
    max_concurrency: int | None = None,
    cache: AnswerCache | None = None,
    gate: Gate | None = None,
) -> Backend:
    """Stacks what stands around every backend: cache, then retries, then the concurrency limit, then `backend`.

    In this order a hit takes no slot, and no slot is held while a prompt waits to be asked again. Without a cache, the answers
    to prompts that are the same for every request are kept in memory (`SharedBackend`).

    Args:
        backend: The backend to ask.
        limits: Attempts and time for one prompt; None for the defaults.
        max_concurrency: How many prompts may be at the backend at once (in each event loop); None for no limit. An attempt's
            time runs from its slot on, so a backend with a queue of its own (a local model) wants a small number here.
        cache: Where answers are kept; None for nowhere. Closed with the backend.
        gate: The limit of all who share the backend, in place of one with `max_concurrency`.

    Returns:
        A backend; its `aclose` closes all of them.

    Raises:
        ConfigError: `max_concurrency` is less than 1.
    """
    guarded: Backend = RetryBackend(backend, limits, Gate(max_concurrency) if gate is None else gate)
    return CachedBackend(guarded, cache) if cache is not None else SharedBackend(guarded)
