"""The address of a vLLM server goes in, what its prefix cache has done so far comes out, read from its ``/metrics``.

The names are those of vLLM 0.32 (vllm/v1/metrics/loggers.py); the form is Prometheus' text exposition format.
"""

from __future__ import annotations

import http.client
import math
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from llmrank.errors import BackendTimeoutError, ServerError, UnreachableError

QUERIES: Final = "vllm:prefix_cache_queries_total"
HITS: Final = "vllm:prefix_cache_hits_total"
LARGEST: Final = 16 << 20
"""More bytes than this are no metrics; a server's own are some 100 kB."""

# The labels in braces may hold any character within quotes.
_LINE: Final = re.compile(r'(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?\s+(?P<value>\S+)')


@dataclass(frozen=True, slots=True)
class PrefixCache:
    """What a server's prefix cache was asked for and had, in tokens of prompts.

    Attributes:
        queries: Prompt tokens that were looked for.
        hits: Those that were there, and were not computed again.
    """

    queries: int
    hits: int

    @property
    def rate(self) -> float | None:
        """The share that was there, 0 to 1; None if nothing was looked for."""
        return self.hits / self.queries if self.queries else None

    def since(self, before: PrefixCache) -> PrefixCache | None:
        """What came after an earlier reading; None if the server has started anew in between."""
        if self.queries < before.queries or self.hits < before.hits:
            return None
        return PrefixCache(self.queries - before.queries, self.hits - before.hits)


def fetch_prefix_cache(root: str, *, headers: Mapping[str, str], timeout_s: float) -> PrefixCache | None:
    """Reads a server's counters. Blocks.

    Args:
        root: The server's address without ``/v1``.
        headers: The authorization, if the server wants one.
        timeout_s: The most seconds to wait for it.

    Returns:
        The counts since the server started; None where there is no ``/metrics`` to be seen, or none of vLLM's.

    Raises:
        BackendError: the server does not answer.
    """
    url = root.rstrip("/") + "/metrics"
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310  # the scheme was checked when the address was read
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310  # see above
            text = response.read(LARGEST).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            if error.code < 500:
                return None
        raise ServerError(f"{url} answered {error.code}") from error
    except TimeoutError as error:
        raise BackendTimeoutError(f"{url} did not answer within {timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from error
    return read_prefix_cache(text.splitlines())


def read_prefix_cache(lines: Iterable[str]) -> PrefixCache | None:
    """Reads the lines of a ``/metrics``: one counter an engine, which are added up. None if there are none."""
    sums: dict[str, float] = {}
    for line in lines:
        if not line.startswith((QUERIES, HITS)) or (found := _LINE.match(line)) is None:
            continue
        name, value = found["name"], _number(found["value"])
        if name in (QUERIES, HITS) and value is not None:
            sums[name] = sums.get(name, 0.0) + value
    return PrefixCache(round(sums[QUERIES]), round(sums[HITS])) if sums.keys() == {QUERIES, HITS} else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
