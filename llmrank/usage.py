"""What answers and failures cost goes in, one at a time; their sum comes out. Apart from `types`, as errors carry it, too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent. Add two to get their sum.

    `prompt_tokens` include `cached_tokens` (the part that the server read from its prefix cache). `calls` counts answers
    that a model computed, `cache_hits` those that came from the answer cache (their tokens are not counted again),
    `retries` the attempts beyond the first. `seconds` is time spent waiting for the backend, summed over prompts.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    calls: int = 0
    cache_hits: int = 0
    retries: int = 0
    seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.calls + other.calls,
            self.cache_hits + other.cache_hits,
            self.retries + other.retries,
            self.seconds + other.seconds,
        )

    @property
    def total_tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens
