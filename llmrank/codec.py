"""Prompts become keys, completions and errors become JSON values and come back: the one place that knows the stored form.

The answer cache and the recordings share it. A field at its neutral value is left out, so a field that is added later to
`Prompt` changes no key of the prompts that do not use it, and old recordings stay readable.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from llmrank import errors
from llmrank.errors import BackendError, ConfigError
from llmrank.types import Completion, ContinuationScore, Prompt, Usage

Json: TypeAlias = Any
"""A value as `json` reads and writes it."""

SCHEMA = 2
"""Raised when stored keys or answers change their meaning: what an older llmrank stored is then not found."""

SHAPING: Mapping[str, object] = {
    "messages": (),
    "prefix": "",
    "continuations": (),
    "labels": (),
    "answer": "free",
    "schema": None,
    "max_tokens": 512,
    "temperature": 0.0,
    "seed": None,
    "sample": 0,
    "label_logprobs": False,
}
"""The fields of a Prompt that shape its answer, with the value at which each is left out. These values are part of the
stored form: they stay as they are when a default in `types.py` changes."""

NOT_SHAPING = frozenset({"item_ids", "fingerprint", "shared"})
"""The fields of a Prompt that no model sees."""


_COSTS = ("usage", "spared")
"""The fields of a BackendError that are a Usage."""


class CodecError(ValueError):
    """A stored value is not what this module writes."""


def canonical(value: Json) -> str:
    """The one JSON text of a value: keys sorted, no spaces, ASCII.

    Raises:
        TypeError, ValueError: the value is not JSON (NaN and infinity included).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def require_json(value: object, field: str) -> None:
    """Checks a setting that is sent to a server or is part of a backend's identity.

    Raises:
        ConfigError: the value is not JSON; `field` is named.
    """
    try:
        canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"cannot be written as JSON ({error})",
            field=field,
            value=value,
            fix="use only texts, finite numbers, true, false, null, lists and objects; put a date in quotes",
        ) from error


def dump_prompt(prompt: Prompt) -> dict[str, Json]:
    """All of a prompt that shapes its answer."""
    document: dict[str, Json] = {}
    for name, neutral in SHAPING.items():
        value = getattr(prompt, name)
        if value == neutral:
            continue
        if name == "messages":
            document[name] = [{"role": message.role, "content": message.content} for message in value]
        elif isinstance(value, tuple):
            document[name] = list(value)
        else:
            document[name] = float(value) if name == "temperature" else value
    return document


def cache_key(prompt: Prompt, identity: Mapping[str, Any]) -> bytes:
    """32 bytes (SHA-256) that are the same when the same model is asked the same under the same settings."""
    document = {"schema": SCHEMA, "backend": dict(identity), "prompt": dump_prompt(prompt)}
    return hashlib.sha256(canonical(document).encode()).digest()


def model_key(identity: Mapping[str, Any]) -> bytes:
    """32 bytes (SHA-256) that are the same for the same model under the same settings, whatever it is asked."""
    return hashlib.sha256(canonical({"schema": SCHEMA, "backend": dict(identity)}).encode()).digest()


def document_key(document: Mapping[str, Json]) -> str:
    """The key of a prompt, as `dump_prompt` gives it, in a recording: hexadecimal SHA-256, whatever the backend."""
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def dump_completion(completion: Completion) -> dict[str, Json]:
    """A completion as a JSON value; `load_completion` gives back its equal."""
    document: dict[str, Json] = {}
    for name, (neutral, dump, _) in _COMPLETION.items():
        value = getattr(completion, name)
        if value != neutral:
            document[name] = dump(value)
    return document


def load_completion(document: Json) -> Completion:
    """The completion that `dump_completion` was given.

    Raises:
        CodecError: the value is not of that form.
    """
    known = _mapping(document, "an answer", _COMPLETION)
    return Completion(**{name: _COMPLETION[name][2](value) for name, value in known.items()})


def dump_error(error: BackendError) -> dict[str, Json]:
    """An error as a JSON value: its class and those above it, its message, its numbers (`retry_after`, `window`), its cost."""
    kinds = [cls.__name__ for cls in type(error).__mro__ if issubclass(cls, BackendError)]
    numbers = {name: _dump_number(value) for name, value in vars(error).items() if _is_number(value)}
    costs = {name: _dump_usage(usage) for name in _COSTS if (usage := getattr(error, name)) != Usage()}
    return {"kinds": kinds, "message": str(error)} | ({"numbers": numbers} if numbers else {}) | costs


def load_error(document: Json) -> BackendError:
    """An error of the class that `dump_error` was given, or of the nearest class above it that llmrank defines.

    Raises:
        CodecError: the value is not of that form.
    """
    known = _mapping(document, "an error", ("kinds", "message", "numbers", *_COSTS))
    message = _text(known.get("message"))
    for kind in _texts(known.get("kinds")):
        cls = getattr(errors, kind, None)
        if isinstance(cls, type) and issubclass(cls, BackendError):
            error = cls(message)
            for name, value in _mapping(known.get("numbers", {}), "an error's numbers").items():
                setattr(error, name, value if isinstance(value, int) else _load_number(value))
            for name in _COSTS:
                setattr(error, name, _load_usage(known.get(name, {})))
            return error
    raise CodecError(f"no known class of error in {known.get('kinds')!r}")


def _mapping(value: Json, what: str, names: Any = None) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise CodecError(f"{what} must be an object, not {value!r:.40}")
    unknown = [name for name in value if names is not None and name not in names]
    if unknown:
        raise CodecError(f"{what} has no field {unknown[0]!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _dump_number(value: float) -> Json:
    # JSON knows no infinity and no NaN: they are written as text.
    return value if math.isfinite(value) else repr(float(value))


def _load_number(value: Json) -> float:
    if _is_number(value):
        return float(value)
    if value in ("inf", "-inf", "nan"):
        return float(value)
    raise CodecError(f"must be a number, not {value!r:.40}")


def _count(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CodecError(f"must be a whole number, not {value!r:.40}")
    return value


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise CodecError(f"must be text, not {value!r:.40}")
    return value


def _texts(value: Json) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise CodecError(f"must be a list of texts, not {value!r:.40}")
    return tuple(_text(part) for part in value)


def _dump_usage(usage: Usage) -> Json:
    # The only field that is not a count is a float.
    return {part.name: _dump_number(value) for part in fields(Usage) if (value := getattr(usage, part.name))}


def _load_usage(value: Json) -> Usage:
    known = _mapping(value, "usage", {part.name for part in fields(Usage)})
    loaded: dict[str, Any] = {name: _load_number(n) if name == "seconds" else _count(n) for name, n in known.items()}
    return Usage(**loaded)


def _dump_scores(scores: tuple[ContinuationScore, ...]) -> Json:
    return [[_dump_number(score.logprob), score.tokens] for score in scores]


def _load_scores(value: Json) -> tuple[ContinuationScore, ...]:
    if not isinstance(value, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in value):
        raise CodecError(f"scores must be pairs of log-probability and tokens, not {value!r:.40}")
    return tuple(ContinuationScore(_load_number(logprob), _count(tokens)) for logprob, tokens in value)


def _dump_logprobs(logprobs: Mapping[str, float]) -> Json:
    return {label: _dump_number(logprob) for label, logprob in logprobs.items()}


def _load_logprobs(value: Json) -> Mapping[str, float]:
    return {label: _load_number(logprob) for label, logprob in _mapping(value, "label_logprobs").items()}


def _same(value: Json) -> Json:
    return value


# Of each field of a Completion: the value at which it is left out, how it is written, how it is read.
_COMPLETION: Mapping[str, tuple[object, Callable[[Any], Json], Callable[[Json], Any]]] = {
    "text": (None, _same, _text),
    "finish_reason": (None, _same, _text),
    "usage": (Usage(), _dump_usage, _load_usage),
    "scores": ((), _dump_scores, _load_scores),
    "label_logprobs": (None, _dump_logprobs, _load_logprobs),
    "reasoning": (None, _same, _text),
    "model": ("", _same, _text),
    "notes": ((), list, _texts),
    "spared": (Usage(), _dump_usage, _load_usage),
}
