"""An exception of the OpenAI SDK (or of the HTTP libraries below it) goes in, one error of llmrank's tree comes out.

The texts that are recognised here were collected from the providers' own answers; `tests/unit/test_backend_openai_errors.py`
holds one of each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from llmrank.errors import (
    AuthenticationError,
    BackendError,
    BackendTimeoutError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    ServerError,
    UnreachableError,
)

if TYPE_CHECKING:
    import openai

MESSAGE_LIMIT: Final = 500
"""Characters of a server's message that are shown: an HTML page or an echoed prompt must not flood a log."""

BY_SDK_CLASS: Final[Mapping[str, type[BackendError]]] = {
    "OpenAIError": BackendError,
    "APIError": ServerError,
    "APIResponseValidationError": ServerError,
    "APIStatusError": BadRequestError,
    "APIConnectionError": UnreachableError,
    "APITimeoutError": BackendTimeoutError,
    "BadRequestError": BadRequestError,
    "AuthenticationError": AuthenticationError,
    "OAuthError": AuthenticationError,
    "SubjectTokenProviderError": AuthenticationError,
    "PermissionDeniedError": PermissionDeniedError,
    "NotFoundError": ModelNotFoundError,
    "ConflictError": ServerError,
    "UnprocessableEntityError": BadRequestError,
    "RateLimitError": RateLimitError,
    "InternalServerError": ServerError,
    "LengthFinishReasonError": BadRequestError,
    "ContentFilterFinishReasonError": ContentFilterError,
    "WebSocketConnectionClosedError": UnreachableError,
    "WebSocketQueueFullError": UnreachableError,
    "StreamAlreadyConsumed": ServerError,
    # Wrong uses of the SDK, and extras of it, which this package does not make use of.
    "APIRemovedInV1": BackendError,
    "MissingDependencyError": BackendError,
    "MutuallyExclusiveAuthError": BackendError,
    "_AmbiguousModuleClientUsageError": BackendError,
}
"""What each class of the SDK's tree becomes where neither status nor body says it better. A class that is not listed
becomes what its nearest listed base becomes; a test fails when the SDK grows a class that is not listed here."""

_BY_STATUS: Final[Mapping[int, type[BackendError]]] = {
    401: AuthenticationError,
    402: QuotaError,  # OpenRouter and DeepSeek: no balance left
    403: PermissionDeniedError,
    404: ModelNotFoundError,
    408: BackendTimeoutError,
    409: ServerError,  # the SDK, too, counts a conflict among what passes
    425: ServerError,
    429: RateLimitError,
}

_CONTEXT_CODES: Final = {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
_FILTER_CODES: Final = {"content_filter", "content_policy_violation", "invalid_prompt", "ResponsibleAIPolicyViolation"}
_QUOTA_CODES: Final = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"}

_CONTEXT_TEXT: Final = re.compile(
    r"(?:maximum|max) (?:context|prompt|model|sequence) length"
    r"|context (?:length|size|window)(?: has been| is| was)? exceeded"
    r"|exceeds? (?:the )?(?:available |maximum |model'?s? )*context"
    r"|exceed the configured limit of \d+ tokens|context length of only"
    r"|(?:prompt|input)(?: is|s are)? too long|maximum context|larger than the context"
    r"|input token count .{0,40}exceeds|too many tokens"
    r"|`inputs`.{0,60}must (?:be <=|have less than)",
    re.IGNORECASE,
)
# Each has the window in its one group. Counts of the prompt stand in the same sentences, so the words around a number decide.
_WINDOW_TEXTS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:maximum|max) (?:context|prompt|model|sequence) length(?: is|:| of)? ?\(?(\d[\d,_]*)",
        r"(\d[\d,_]*) maximum context length",
        r"available context size \((\d[\d,_]*)",
        r"configured limit of (\d[\d,_]*)",
        r"context (?:window|length|size) of (?:only )?(\d[\d,_]*)",
        r"`inputs`.{0,60}must (?:be <=|have less than) (\d[\d,_]*)",
        r"> (\d[\d,_]*) maximum",
        r"maximum number of tokens allowed \((\d[\d,_]*)",
        r"cannot exceed (\d[\d,_]*)",
    )
)
_FILTER_TEXT: Final = re.compile(r"content management policy|violating our usage policy|content[ _]filter", re.IGNORECASE)
_QUOTA_TEXT: Final = re.compile(r"insufficient (?:balance|credits?|funds)|credit balance is too low", re.IGNORECASE)
_WAIT_TEXT: Final = re.compile(r"try again in (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)(ms|s))?", re.IGNORECASE)
_MASKED_KEY: Final = re.compile(r"\b(?:sk|gsk|key|pk)-?[A-Za-z0-9_*-]*\*{2,}[A-Za-z0-9_*-]*|\bsk-[A-Za-z0-9_-]{8,}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a server says in an error answer.

    Attributes:
        status: The HTTP status.
        message: The sentence meant for people.
        code, param, kind: The machine-readable fields, "" where there are none (`kind` is the field ``type``).
        text: The whole body as text, to search in: providers nest the same facts in very different ways.
        window: ``n_ctx``, where the body has it as a number.
    """

    status: int
    message: str = ""
    code: str = ""
    param: str = ""
    kind: str = ""
    text: str = ""
    window: int | None = None

    @classmethod
    def of_body(cls, status: int, body: object) -> Refusal:
        """Reads a decoded (or, if it was not JSON, raw) error body; the level ``error`` may be missing.

        Known shapes: OpenAI's ``{"error": {...}}``; older vLLM and Mistral, without that level; Gemini, the same in
        a list; LM Studio, ``{"error": "text"}``; FastAPI, ``{"detail": [...]}``.
        """
        text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, default=str)
        while isinstance(body, list) and body:
            body = body[0]
        if isinstance(body, Mapping) and "error" in body:
            body = body["error"]
        if not isinstance(body, Mapping):
            return cls(status, message=str(body or ""), text=text)
        fields: Mapping[str, Any] = body
        message = fields.get("message") or fields.get("detail") or (text if fields else "")
        window = fields.get("n_ctx")
        return cls(
            status,
            message=message if isinstance(message, str) else json.dumps(message, ensure_ascii=False, default=str),
            code=str(fields.get("code") or ""),
            param=str(fields.get("param") or ""),
            kind=str(fields.get("type") or ""),
            text=text,
            window=window if isinstance(window, int) else None,
        )


class Refused(Exception):  # noqa: N818  # not an error of its own: the cause of one, as the SDK's APIStatusError is
    """A server's error answer that did not come through the SDK, but out of a file."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message or f"status {refusal.status}")
        self.refusal = refusal


def refusal_of(error: BaseException) -> Refusal | None:
    """The server's words behind one of our errors (its cause) or an SDK error; None if no server spoke."""
    if isinstance(error.__cause__, Refused):
        return error.__cause__.refusal
    import openai

    cause = error if isinstance(error, openai.APIStatusError) else error.__cause__
    if not isinstance(cause, openai.APIStatusError):
        return None
    return Refusal.of_body(cause.status_code, cause.body)


def translate(error: Exception, address: str, *, secret: str = "") -> BackendError | None:
    """Maps an exception of the SDK, of HTTP libraries or of the operating system.

    Args:
        error: What was raised while a request was made.
        address: Host and port, to name in the message.
        secret: The key: replaced wherever a server or a library repeats it.

    Returns:
        The error to raise ``from error``; None if the exception is none of these (a bug: let it pass).
    """
    import openai

    if isinstance(error, openai.APIStatusError):
        refusal = Refusal.of_body(error.status_code, error.body)
        return error_of(refusal, address, secret=secret, headers=error.response.headers, fallback=_class_of(error))
    if isinstance(error, openai.APIConnectionError) or _is_transport_error(error):
        return _connection_error(error, address, secret)
    if isinstance(error, openai.OpenAIError):
        return _class_of(error)(f"{address}: {_clean(str(error), secret)}")
    return None


def error_of(
    refusal: Refusal,
    address: str,
    *,
    secret: str = "",
    headers: Mapping[str, str] | None = None,
    fallback: type[BackendError] = BadRequestError,
) -> BackendError:
    """Maps an error answer: what it says (codes, then words) weighs more than its status, on which providers disagree."""
    said = _clean(refusal.message, secret)
    message = f"{address} answered {refusal.status}: {said}" if said else f"{address} answered {refusal.status}"
    codes = {refusal.code, refusal.kind}
    status = refusal.status
    if status == 404 and "model" not in said.lower():
        message += "; is the path of base_url right? (it mostly ends in /v1)"
    # llama.cpp of late 2025 answers an overlong prompt with 500; groq uses 413 for that and for a token rate.
    if codes & _CONTEXT_CODES or (status in {400, 413, 422} and _CONTEXT_TEXT.search(refusal.text)):
        return ContextLengthError(message, window=refusal.window or window_in(refusal.text))
    if codes & _FILTER_CODES or (status in {400, 403, 422} and _FILTER_TEXT.search(refusal.text)):
        return ContentFilterError(message)
    if codes & _QUOTA_CODES or (status in {400, 403, 429} and _QUOTA_TEXT.search(refusal.text)):
        return QuotaError(message)
    mapped = _BY_STATUS.get(status) or (ServerError if status >= 500 or status < 400 else fallback)
    if issubclass(mapped, RateLimitError | ServerError):
        return mapped(message, retry_after=retry_after(headers or {}, refusal.message))
    return mapped(message)


def window_in(text: str) -> int | None:
    """The context window, in tokens, that a server's complaint about a long prompt names; None if it names none."""
    for pattern in _WINDOW_TEXTS:
        if found := pattern.search(text):
            return int(re.sub(r"\D", "", found[1]))
    return None


def retry_after(headers: Mapping[str, str], message: str = "", *, now: datetime | None = None) -> float | None:
    """The wait that a server asks for, in seconds from now; None if it asks for none.

    Args:
        headers: The answer's headers: ``retry-after-ms``, then ``Retry-After`` as seconds or an HTTP date (RFC 9110, 10.2.3).
        message: The error's text, read for ``try again in 1m2.5s`` if no header tells.
        now: The present time, for tests.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = (_aware(parsedate_to_datetime(value)) - (now or datetime.now(UTC))).total_seconds()
            except (ValueError, OverflowError):
                continue
        if math.isfinite(seconds):  # "nan" and "inf" are floats, too
            return max(0.0, seconds)
    found = _WAIT_TEXT.search(message)
    if found and any(found.groups()[:3]):
        hours, minutes, rest, unit_name = found.groups()
        try:
            seconds = float(rest.rstrip(".") or 0) if rest else 0.0
        except ValueError:  # "1.2.3s": not a number after all
            return None
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds * (0.001 if unit_name == "ms" else 1.0)
    return None


def _aware(moment: datetime) -> datetime:
    """HTTP dates are in GMT; the parser leaves the zone out for some spellings of it."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _class_of(error: openai.OpenAIError) -> type[BackendError]:
    for base in type(error).__mro__:
        if base.__name__ in BY_SDK_CLASS:
            return BY_SDK_CLASS[base.__name__]
    return BackendError


def _is_transport_error(error: Exception) -> bool:
    """True for what the layers below the SDK raise and the SDK lets through.

    They are told by the name of their library, because which libraries lie below (httpx or httpx2, aiohttp, anyio) depends on
    the SDK's version and extras.
    """
    libraries = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return isinstance(error, OSError) or bool(libraries & {"httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "anyio"})


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first.

    Only declared causes: `__context__` may be an unrelated error that a caller further up is just handling.
    """
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _connection_error(error: Exception, address: str, secret: str) -> BackendError:
    """Told by the causes: the aiohttp transport reports refused connections and resets, too, as *timeouts* to the SDK."""
    chain = list(causes(error))
    innermost = chain[-1]
    if any(isinstance(link, TimeoutError) for link in chain) or "Timeout" in type(innermost).__name__:
        return BackendTimeoutError(f"{address} did not answer in time")
    detail = _clean(str(innermost), secret) or type(innermost).__name__
    return UnreachableError(f"{address} cannot be reached, or broke off: {detail}")


def _clean(text: str, secret: str) -> str:
    """One line, no key, no flood."""
    line = " ".join(text.split())
    if secret:
        line = line.replace(secret, "***")
    line = _MASKED_KEY.sub("***", line)
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 3] + "..."
