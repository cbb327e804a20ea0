"""A connection and a model's name go in, the model's context window in tokens comes out, if its server tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from llmrank.backends._openai_transport import Transport
from llmrank.errors import AuthenticationError, BackendError, BackendTimeoutError, UnreachableError

# vLLM and SGLang; OpenRouter, Together and Fireworks; Groq; Mistral; LM Studio. llama.cpp has `meta.n_ctx`; its `n_ctx_train`
# is what the model was trained for, not what the server was started with.
_FIELDS: Final = (
    "max_model_len",
    "context_length",
    "context_window",
    "max_context_length",
    "loaded_context_length",
    "n_ctx",
)


async def ask_window(transport: Transport, model: str) -> int | None:
    """Asks ``GET /models``, and ``GET /models/{model}`` if the list does not have the model.

    Returns:
        The window in tokens; None if the server does not tell, or has no such path.

    Raises:
        UnreachableError, BackendTimeoutError, AuthenticationError: the next request would fail in the same way.
    """
    if (listed := await _get(transport, "/models")) is not None:
        for entry in _entries(listed):
            if _is(entry, model):
                return window_of(entry)
    single = await _get(transport, f"/models/{quote(model, safe='/:')}")
    return window_of(single) if isinstance(single, Mapping) else None


def window_of(entry: Mapping[str, Any]) -> int | None:
    """The window that one entry of a list of models states."""
    for place in (entry, entry.get("meta"), entry.get("top_provider")):
        if isinstance(place, Mapping):
            for name in _FIELDS:
                value = place.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
    return None


async def _get(transport: Transport, path: str) -> Any:
    try:
        return await transport.get(path)
    except (UnreachableError, BackendTimeoutError, AuthenticationError):
        raise
    except BackendError:
        # Not every server lists models, and a key may be allowed to chat and not to list: the window is then unknown,
        # which ModelInfo says, and the budget says on the Ranking what it assumed.
        return None


def _entries(listed: Any) -> Iterator[Mapping[str, Any]]:
    """The list stands under ``data``; Together returns it bare."""
    data = listed.get("data") if isinstance(listed, Mapping) else listed
    if isinstance(data, list):
        yield from (entry for entry in data if isinstance(entry, Mapping))


def _is(entry: Mapping[str, Any], model: str) -> bool:
    """Gemini prefixes ids with ``models/``; llama.cpp lists other names of a model as aliases."""
    aliases = entry.get("aliases")
    names = [entry.get("id"), *(aliases if isinstance(aliases, list) else [])]
    return any(isinstance(name, str) and name.removeprefix("models/") == model for name in names)
