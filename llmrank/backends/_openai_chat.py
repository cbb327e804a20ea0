"""A Prompt goes in, a Completion comes out: chat completions of the OpenAI protocol, in whatever dialect the server speaks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final, Protocol

from llmrank.backends._label_tokens import LabelSpelling, faint_notes, label_place
from llmrank.backends._negotiation import Agreed, Converses, Dialect, Negotiator
from llmrank.backends._openai_transport import Transport
from llmrank.codec import require_json
from llmrank.errors import ConfigError, ContentFilterError, ContextLengthError, ServerError
from llmrank.types import Completion, Prompt, Usage

CHAT_PATH: Final = "/chat/completions"
NEARLY_GREEDY: Final = 0.01
"""The temperature sent in place of 0 to servers that want a positive one."""
_COUNTS: Final = frozenset({"minItems", "maxItems", "minLength", "maxLength"})


class ChatClient:
    """Chat completions of one model at one server.

    Args:
        transport: The connection.
        model: The model's name.
        negotiator: What is known of the server's dialect; shared by those who talk to the same model.
        extra_body: Further fields for every request; they win over llmrank's own and are never negotiated away.
        temperature: Sent in place of each prompt's own.
        thinking_tokens: Added to each prompt's `max_tokens`, for models whose hidden reasoning counts towards that limit.
    """

    def __init__(
        self,
        transport: Transport,
        model: str,
        *,
        negotiator: Converses | None = None,
        extra_body: Mapping[str, Any] | None = None,
        temperature: float | None = None,
        thinking_tokens: int = 0,
    ) -> None:
        self.transport = transport
        self.model = model
        self.negotiator: Converses = negotiator or Negotiator(Dialect.for_url(transport.base_url))
        self._extra = dict(extra_body or {})
        self._temperature = temperature
        self._thinking_tokens = thinking_tokens

    async def complete(self, prompt: Prompt, extra_body: Mapping[str, Any] | None = None) -> Completion:
        """Asks one prompt.

        Args:
            prompt: The prompt; its labels become the schema's where it asks for JSON.
            extra_body: Further fields for this request alone (a server's own decoding constraints).

        Raises:
            ContextLengthError: the prompt does not fit; its `window` is what is left beside the thinking tokens.
            BackendError: another of its subclasses.
        """
        extra = {**self._extra, **(extra_body or {})}

        def build(dialect: Dialect) -> dict[str, Any]:
            body = chat_body(
                prompt,
                self.model,
                dialect,
                temperature=prompt.temperature if self._temperature is None else self._temperature,
                max_tokens=prompt.max_tokens + self._thinking_tokens,
            )
            fixed = set(extra)
            if fixed & {"max_tokens", "max_completion_tokens"}:
                fixed |= {"max_tokens", "max_completion_tokens"}
            return {name: value for name, value in body.items() if name not in fixed}

        async def send(body: dict[str, Any]) -> dict[str, Any]:
            return await self.transport.post(CHAT_PATH, {"model": self.model, **body, **extra})

        started = monotonic()
        try:
            agreed = await self.negotiator.converse(build, send)
        except ContextLengthError as error:
            if error.window is not None:
                error.window = max(1, error.window - self._thinking_tokens)
            raise
        return self._completion(prompt, agreed, extra, monotonic() - started)

    def _completion(
        self, prompt: Prompt, agreed: Agreed[dict[str, Any]], extra: Mapping[str, Any], seconds: float
    ) -> Completion:
        payload = agreed.answer
        address = self.transport.address
        choice = first_choice(payload, address)
        message = choice.get("message") or {}
        text, reasoning = text_of(message)
        finish_reason = choice.get("finish_reason")
        if finish_reason == "content_filter" and not text:
            raise ContentFilterError(f"{address}: the provider's content filter removed the answer")
        usage, usage_notes = usage_of(payload, seconds, refusals=agreed.refusals)
        labels = None
        notes = [*usage_notes, *conceded_notes(prompt, agreed.dialect, extra)]
        if message.get("refusal") and not message.get("content"):
            notes.append("the model refused to answer; its refusal stands as the answer's text")
        if finish_reason == "length" and not text:
            notes.append("the limit on tokens was used up before any text was written; raise thinking_tokens")
        if prompt.label_logprobs:
            labels = label_logprobs(choice, prompt.labels)
            notes += faint_notes(labels or {})
            if labels is None and _token_entries(choice):
                notes.append("the model began to think and came to no end, so its labels have no log-probability")
            elif labels is None and agreed.dialect.top_logprobs:
                notes.append("the server took the request for log-probabilities and reported none")
            elif labels is not None and "logprob_token_ids" not in extra:
                alternatives = agreed.dialect.top_logprobs
                if len(labels) < len(prompt.labels) and len(prompt.labels) > alternatives:
                    asked = f"for {len(prompt.labels)} labels"
                    notes.append(f"the server reports only {alternatives} alternatives a token, {asked}")
        return Completion(
            text=text,
            finish_reason=finish_reason if isinstance(finish_reason, str) else None,
            usage=usage,
            label_logprobs=labels,
            reasoning=reasoning,
            model=str(payload.get("model") or self.model),
            notes=tuple(notes),
        )


class ChatOptions(Protocol):
    """The options that every backend of this protocol has."""

    @property
    def context_window(self) -> int | None: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def thinking_tokens(self) -> int: ...
    @property
    def timeout_s(self) -> float: ...
    @property
    def extra_body(self) -> Mapping[str, Any]: ...


def check_chat_options(options: ChatOptions) -> None:
    """Refuses values out of their range. Raises ConfigError, which names the field."""
    for name, value, least in (
        ("context_window", options.context_window, 1),
        ("temperature", options.temperature, 0),
        ("thinking_tokens", options.thinking_tokens, 0),
    ):
        if value is not None and not (math.isfinite(value) and value >= least):
            why = "is too small" if value < least else "is no finite number"
            raise ConfigError(why, field=f"backend.{name}", value=value, fix=f"give at least {least}")
    require_json(dict(options.extra_body), "backend.extra_body")
    if options.context_window is not None:
        room_beside(options.thinking_tokens, options.context_window)
    if not (math.isfinite(options.timeout_s) and options.timeout_s > 0):
        raise ConfigError("is no time", field="backend.timeout_s", value=options.timeout_s, fix="give seconds above 0")


def room_beside(thinking_tokens: int, window: int) -> int:
    """What a window of tokens holds beside the thinking tokens. Raises ConfigError if that is nothing."""
    if window <= thinking_tokens:
        raise ConfigError(
            f"leave no room in the window of {window} tokens",
            field="backend.thinking_tokens",
            value=thinking_tokens,
            fix=f"give less than {window}",
        )
    return window - thinking_tokens


def chat_body(prompt: Prompt, model: str, dialect: Dialect, *, temperature: float, max_tokens: int) -> dict[str, Any]:
    """The request's body, with only what the server takes."""
    body: dict[str, Any] = {"model": model, "messages": chat_messages(prompt, dialect.system[0]), dialect.length[0]: max_tokens}
    if dialect.temperature[0] != "default":
        body["temperature"] = NEARLY_GREEDY if temperature == 0 and dialect.temperature[0] == "positive" else temperature
    if prompt.seed is not None and dialect.seed[0] == "sent":
        body["seed"] = prompt.seed
    if prompt.label_logprobs and dialect.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": dialect.top_logprobs}
    if response_format := format_of(prompt, dialect.json[0]):
        body["response_format"] = response_format
    return body


def format_of(prompt: Prompt, way: str) -> dict[str, Any] | None:
    """``response_format`` for the form of answer of a prompt; None for a form that is no JSON."""
    if prompt.answer == "json":
        return json_format(prompt.labels, way)
    return object_format(prompt.schema, way) if prompt.answer == "object" else None


def chat_messages(prompt: Prompt, system_role: str) -> list[dict[str, str]]:
    """The chat with its system messages in the role given; ``user`` puts them before the first user message's text."""
    messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
    if system_role != "user":
        return [{**message, "role": system_role} if message["role"] == "system" else message for message in messages]
    rules = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    if not rules:
        return rest
    if rest and rest[0]["role"] == "user":
        return [{"role": "user", "content": f"{rules}\n\n{rest[0]['content']}"}, *rest[1:]]
    return [{"role": "user", "content": rules}, *rest]


def json_format(labels: Sequence[str], way: str) -> dict[str, Any] | None:
    """``response_format`` for the answer ``{"ranking": [label, ...]}``; None for the way ``none``.

    A schema cannot say that no label comes twice (``uniqueItems`` is refused wherever schemas are enforced), so the answer
    still has to be checked.
    """
    if way == "none":
        return None
    if way == "object" or not labels:
        return {"type": "json_object"}
    ranking: dict[str, Any] = {"type": "array", "items": {"type": "string", "enum": list(labels)}}
    if way == "counted":
        ranking |= {"minItems": len(labels), "maxItems": len(labels)}
    schema = {"type": "object", "properties": {"ranking": ranking}, "required": ["ranking"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "ranking", "strict": True, "schema": schema}}


def object_format(schema: Mapping[str, Any] | None, way: str) -> dict[str, Any] | None:
    """``response_format`` for an object of the form of a schema; None for the way ``none``."""
    if way == "none":
        return None
    if way == "object" or schema is None:
        return {"type": "json_object"}
    wanted = dict(schema) if way == "counted" else without_counts(schema)
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": wanted}}


def without_counts(schema: Any) -> Any:
    """A JSON Schema that does not say how long lists and texts may be, for servers that take none that do."""
    if isinstance(schema, Mapping):
        return {name: without_counts(value) for name, value in schema.items() if name not in _COUNTS}
    return [without_counts(each) for each in schema] if isinstance(schema, list | tuple) else schema


def conceded_notes(prompt: Prompt, dialect: Dialect, extra: Mapping[str, Any]) -> list[str]:
    """What this prompt asked for and the server would not take, a sentence each."""
    notes = []
    if dialect.temperature[0] == "default" and "temperature" not in extra:
        notes.append("the server takes no temperature: it sampled with its own default")
    if dialect.temperature[0] == "positive" and prompt.temperature == 0 and "temperature" not in extra:
        notes.append(f"the server takes no temperature of 0: {NEARLY_GREEDY} was sent")
    if prompt.seed is not None and dialect.seed[0] == "none":
        notes.append("the server takes no seed: the answer may differ from run to run")
    if prompt.label_logprobs and not dialect.top_logprobs:
        notes.append("the server gives no log-probabilities")
    wants_json = prompt.answer in {"json", "object"}
    if wants_json and "response_format" not in extra and dialect.json[0] in {"object", "none"}:
        notes.append("the server enforces no JSON schema" + ("" if dialect.json[0] == "object" else ", and no JSON at all"))
    if dialect.system[0] == "user" and any(message.role == "system" for message in prompt.messages):
        notes.append("the server takes no system message: its text was put before the first user message")
    return notes


def first_choice(payload: Mapping[str, Any], address: str) -> Mapping[str, Any]:
    """The answer's first choice. Raises ServerError if there is none, or if it carries an error in place of an answer."""
    choices = payload.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise ServerError(f"{address} answered 200 without choices: it may not be an OpenAI-compatible chat API")
    choice: dict[str, Any] = choices[0]
    if choice.get("error"):  # OpenRouter: the provider failed while it was answering
        raise ServerError(f"{address}: the answer broke off: {str(choice['error'])[:200]}")
    if not isinstance(choice.get("message"), dict):
        raise ServerError(f"{address} answered 200 with a choice that holds no message")
    return choice


def text_of(message: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The text and the reasoning of a message; None each where there is none.

    Reasoning is ``reasoning_content`` (DeepSeek, older vLLM), ``reasoning`` (vLLM, Groq, OpenRouter) or a part of type
    ``thinking`` (Mistral, which then also has its text in parts).
    """
    content = message.get("content")
    thoughts = [thought for name in ("reasoning", "reasoning_content") if isinstance(thought := message.get(name), str)][:1]
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, Mapping)]
        thoughts += [_joined(part.get("thinking")) for part in parts if part.get("type") == "thinking"]
        content = "".join(str(part.get("text") or "") for part in parts if part.get("type") in {"text", "output_text"})
    if not content:
        content = message.get("refusal") or content
    return (content if isinstance(content, str) else None), ("".join(thoughts) or None)


def _joined(thinking: object) -> str:
    if isinstance(thinking, list):
        return "".join(str(part.get("text") or "") for part in thinking if isinstance(part, Mapping))
    return thinking if isinstance(thinking, str) else ""


def usage_of(payload: Mapping[str, Any], seconds: float, *, refusals: int = 0) -> tuple[Usage, list[str]]:
    """What an answer cost, and a note if the server does not say."""
    usage = payload.get("usage")
    if not isinstance(usage, Mapping):
        return Usage(calls=1, retries=refusals, seconds=seconds), ["the server reported no token usage: it is counted as 0"]
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else usage.get("prompt_cache_hit_tokens")  # DeepSeek
    return (
        Usage(
            prompt_tokens=_count(usage.get("prompt_tokens")),
            completion_tokens=_count(usage.get("completion_tokens")),
            cached_tokens=_count(cached),
            calls=1,
            retries=refusals,
            seconds=seconds,
        ),
        [],
    )


def _count(value: object) -> int:
    return max(0, value) if isinstance(value, int) else 0


def label_logprobs(choice: Mapping[str, Any], labels: Sequence[str]) -> dict[str, float] | None:
    """The natural-log probability of each label as the answer's first token, summed over the tokens that spell it.

    ``A``, `` A``, ``[A`` and ``A]`` all spell A (see `LabelSpelling`). Tokens before the label that spell nothing (white space,
    a bracket) are passed over, and so is reasoning that stands in the text. A label with no token among the alternatives
    reported is absent.

    Returns:
        None if the answer has no log-probabilities, or is reasoning without an end.
    """
    entries = _token_entries(choice)
    found = label_place([str(entry.get("token") or "") for entry in entries]) if entries else None
    if found is None:
        return None
    if found == len(entries):
        return {}
    place = entries[found]
    # Where the sampled token is not among the alternatives, its own entry counts as one.
    alternatives = {
        str(entry.get("token")): float(entry["logprob"])
        for entry in [place, *(place.get("top_logprobs") or [])]
        if isinstance(entry, Mapping) and isinstance(entry.get("logprob"), int | float)
    }
    masses: dict[str, list[float]] = {}
    spelling = LabelSpelling(labels)
    for token, logprob in alternatives.items():
        if math.isfinite(logprob) and (label := spelling.label_of(token)) is not None:
            masses.setdefault(label, []).append(logprob)
    return {label: _log_sum(masses[label]) for label in labels if label in masses}


def _token_entries(choice: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a choice reports of each of its tokens; empty if nothing."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    return [entry for entry in content if isinstance(entry, Mapping)] if isinstance(content, list) else []


def _log_sum(logprobs: Sequence[float]) -> float:
    """log(sum(exp(x))), never above 0."""
    top = max(logprobs)
    return min(0.0, top + math.log(sum(math.exp(value - top) for value in logprobs)))
