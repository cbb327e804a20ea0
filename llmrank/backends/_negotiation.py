"""A server's refusals go in, the dialect of the OpenAI protocol that it speaks comes out, found once and shared by all calls.

Servers that call themselves OpenAI-compatible differ in what they refuse: the name of the length limit, temperatures, seeds,
log-probabilities, forms of ``response_format``, the system role. Nobody tells in advance; each tells by a 400 or 422. So each
setting is a ladder of fallbacks, a refusal takes the top rung off, and no rung ever comes back: it ends after a bounded
number of refusals, and two calls that learn the same thing at once learn it once.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit

from llmrank.backends._openai_errors import Refusal, refusal_of
from llmrank.errors import BackendError, ContentFilterError, ContextLengthError

T = TypeVar("T")
Body: TypeAlias = dict[str, Any]

PATIENCE_S: Final = 5.0
"""The most seconds that a call waits for another to try a setting first. Refusals come within milliseconds, answers may take
long: beyond this, waiting costs more than a refusal would."""

MAX_LOGPROBS: Final = 20
"""The most alternatives a token that OpenAI (and vLLM by default) reports."""

Ladder: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to put things to one server: for each setting the ways still open, the one in use first.

    Attributes:
        length: The name of the limit on the answer's tokens.
        temperature: ``asked``; ``positive`` (a hundredth in place of 0); ``default`` (not sent).
        seed: ``sent``; ``none``.
        json: ``counted`` (a JSON schema that says how long lists and texts may be); ``schema`` (one that does not); ``object``
            (any JSON); ``none``.
        system: The role of system messages: ``system``; ``developer``; ``user`` (put before the first user message).
        top_logprobs: How many alternatives a token are asked for; 0: no log-probabilities at all.
    """

    length: Ladder = ("max_tokens", "max_completion_tokens")
    temperature: Ladder = ("asked", "positive", "default")
    seed: Ladder = ("sent", "none")
    json: Ladder = ("counted", "schema", "object", "none")
    system: Ladder = ("system", "developer", "user")
    top_logprobs: int = MAX_LOGPROBS

    @classmethod
    def for_url(cls, url: str) -> Dialect:
        """The first guess for a server.

        OpenAI and Azure have given up ``max_tokens``. Others are asked with the old name first, because a server that does not
        know the new one may ignore it in silence, and then nothing limits the answer.
        """
        host = urlsplit(url).hostname or ""
        if host == "openai.com" or host.endswith((".openai.com", ".openai.azure.com", ".services.ai.azure.com")):
            return cls(length=("max_completion_tokens", "max_tokens"))
        return cls()

    def meet(self, other: Dialect) -> Dialect:
        """What is left open by both: of two ladders the shorter."""
        return Dialect(
            **{
                f.name: min(
                    getattr(self, f.name), getattr(other, f.name), key=lambda way: way if isinstance(way, int) else len(way)
                )
                for f in fields(self)
            }
        )


# What tells a refusal of a parameter from a complaint about its value or about something else.
_REFUSES: Final = re.compile(
    r"un-?supported|n[o']t support|not (?:currently |yet )?(?:supported|available|enabled|implemented|permitted|allowed)"
    r"|unrecogni[sz]ed|unknown|unavailable|unexpected|extra (?:inputs|fields)|extra_forbidden|cannot find field"
    r"|only the default|must alternate|roles? (?:is|are) supported|must contain the word|invalid schema|not a valid"
    r"|input should be",
    re.IGNORECASE,
)
_REFUSING_CODES: Final = {
    "unsupported_parameter",
    "unsupported_value",
    "unknown_parameter",
    "invalid_parameter",
    "extra_forbidden",
}
_LOCATION: Final = re.compile(r"loc\W+body\W+(\w+)(?:\W+\d+\W+(\w+))?")  # pydantic's, as JSON (also quoted twice) or as a repr
_NAMES: Final[Mapping[str, re.Pattern[str]]] = {
    "length": re.compile(r"\bmax_(?:completion_)?tokens\b", re.IGNORECASE),
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
    "json": re.compile(r"response[_ ]?format|json[_ ]?schema|json[_ ]?object|structured[_ ]?output|word 'json'", re.IGNORECASE),
    "system": re.compile(
        r"messages\W*\d*\W*role|\b(?:system|developer)['\"`]? (?:role|message|prompt)|roles? must alternate"
        r"|only user(?:,| and) assistant|role\W+(?:system|developer)|'(?:system|developer)' with this model",
        re.IGNORECASE,
    ),
    "top_logprobs": re.compile(r"\b(?:top_)?logprobs\b|sample logprobs|log ?prob(?:abilitie)?s", re.IGNORECASE),
}
_POSITIVE: Final = re.compile(r"(?:strictly )?positive|greater than 0(?!\.\d*[1-9])|> ?0\b", re.IGNORECASE)
_LOGPROBS_LIMIT: Final = re.compile(
    r"(?:max(?:imum)? (?:allowed|of)|less than or equal to|<=|range \[0,|between 0 and|at most)\D{0,3}(\d+)", re.IGNORECASE
)
_COUNTS: Final = re.compile(r"(?:min|max)_?items|(?:min|max)length|invalid schema", re.IGNORECASE)
# These come with other statuses than 400: OpenAI forbids log-probabilities (403), llama.cpp
# reports a chat template's complaint as its own failure (500).
_OTHER_STATUS: Final[Mapping[int, re.Pattern[str]]] = {
    403: re.compile(r"not allowed to request logprobs", re.IGNORECASE),
    500: re.compile(r"system role not supported|roles must alternate|only user(?:,| and) assistant roles", re.IGNORECASE),
}


def settings_in(body: Mapping[str, Any]) -> frozenset[str]:
    """The settings that a request body tries out, each with the way it is put: what an answer proves to be understood."""
    tried = {name for name in ("max_tokens", "max_completion_tokens", "seed", "logprobs") if name in body}
    if "temperature" in body:
        tried.add("temperature=0" if body["temperature"] == 0 else "temperature")
    if "response_format" in body:
        tried.add(f"response_format={body['response_format']['type']}")
    tried.update(f"role={message['role']}" for message in body["messages"] if message["role"] in {"system", "developer"})
    return frozenset(tried)


def concede(dialect: Dialect, refusal: Refusal, body: Mapping[str, Any]) -> Dialect | None:
    """The next dialect to try after a refusal; None if the refusal names no setting of `body` that could be put otherwise.

    Args:
        dialect: What `body` was built with.
        refusal: The server's words.
        body: The settings that were sent, without those that the caller fixed: what is not here is not conceded.
    """
    special = _OTHER_STATUS.get(refusal.status)
    if refusal.status not in {400, 422} and not (special and special.search(refusal.text)):
        return None
    refuses = refusal.code in _REFUSING_CODES or bool(_REFUSES.search(refusal.text)) or special is not None
    changed = dialect
    for setting in _named(refusal):
        changed = _step(changed, setting, refusal, body, refuses=refuses)
    return None if changed == dialect else changed


def lesson_of(used: Dialect, error: BackendError, body: Body) -> Dialect | None:
    """What an error answer to `body`, which was built with `used`, teaches; None if nothing could be put otherwise."""
    refusal = refusal_of(error)
    if refusal is None or isinstance(error, ContextLengthError | ContentFilterError):
        return None
    return concede(used, refusal, body)


def _named(refusal: Refusal) -> list[str]:
    """The settings that a refusal names: by its field ``param``, else by locations in the body, else by the words."""
    places = [refusal.param, *(" ".join(found) for found in _LOCATION.findall(refusal.text))]
    for text in (" , ".join(place for place in places if place), refusal.message, refusal.text):
        if named := [setting for setting, pattern in _NAMES.items() if pattern.search(text)]:
            return named
    return []


def _step(dialect: Dialect, setting: str, refusal: Refusal, body: Mapping[str, Any], *, refuses: bool) -> Dialect:
    """Takes rungs off one ladder, if `body` used it and the refusal is about more than a value."""
    text = refusal.text
    tried = settings_in(body)
    if setting == "top_logprobs" and "logprobs" in tried:
        limit = _LOGPROBS_LIMIT.search(text)
        if limit and int(limit[1]) < dialect.top_logprobs:
            return replace(dialect, top_logprobs=int(limit[1]))
        return replace(dialect, top_logprobs=0) if refuses else dialect
    if setting == "temperature" and "temperature" in body:
        if "temperature=0" in tried and dialect.temperature[0] == "asked" and _POSITIVE.search(text):
            return replace(dialect, temperature=dialect.temperature[1:])
        return replace(dialect, temperature=dialect.temperature[-1:]) if refuses else dialect
    if not refuses:
        return dialect
    if setting == "length" and dialect.length[0] in body and len(dialect.length) > 1:
        return replace(dialect, length=dialect.length[1:])
    if setting == "seed" and "seed" in body:
        return replace(dialect, seed=dialect.seed[-1:])
    if setting == "json" and "response_format" in body:
        rest = dialect.json[1:]
        if rest[:1] == ("schema",) and not _COUNTS.search(text):
            rest = rest[1:]  # not the counts but schemas are refused
        return replace(dialect, json=rest)
    if setting == "system" and tried & {"role=system", "role=developer"}:
        # Only OpenAI has developers; others' chat templates may drop that role without a word.
        to_developer = dialect.system[0] == "system" and refusal.code == "unsupported_value"
        return replace(dialect, system=dialect.system[1:] if to_developer else dialect.system[-1:])
    return dialect


@dataclass(frozen=True, slots=True)
class Agreed(Generic[T]):
    """An answer, the dialect that brought it, and how many refusals came before it."""

    answer: T
    dialect: Dialect
    refusals: int


class Converses(Protocol):
    """Puts a request in a dialect that the server takes."""

    @property
    def dialect(self) -> Dialect:
        """What is known so far."""
        ...

    async def converse(self, build: Callable[[Dialect], Body], send: Callable[[Body], Awaitable[T]]) -> Agreed[T]:
        """Sends a request, put otherwise where the server refuses a setting. Raises BackendError."""
        ...


class Negotiator:
    """Finds and remembers one server's dialect; used by any number of calls at once, on any event loop."""

    def __init__(self, dialect: Dialect | None = None) -> None:
        self._dialect = dialect or Dialect()
        self._proven: frozenset[str] = frozenset()
        self._probe: Future[None] | None = None
        self._lock = threading.Lock()  # never held across an await

    @property
    def dialect(self) -> Dialect:
        """What is known so far."""
        return self._dialect

    async def converse(self, build: Callable[[Dialect], Body], send: Callable[[Body], Awaitable[T]]) -> Agreed[T]:
        """Sends a request, put otherwise as often as the server refuses a setting.

        While a setting is untried, one call tries it and the others wait for what it learns (at most `PATIENCE_S`): 64 first
        calls cost one round of refusals, not 64.

        Args:
            build: The request's body in a dialect.
            send: Sends a body; raises BackendError.

        Raises:
            BackendError: what `send` raised, if it was no refusal of a setting.
        """
        refusals = 0
        patient_until = monotonic() + PATIENCE_S
        while True:
            dialect = self._dialect
            body = build(dialect)
            probe, leading = self._join(settings_in(body))
            if probe is not None and not leading and (patience := patient_until - monotonic()) > 0:
                # Not `await probe`: a waiter that is cancelled must not cancel what the others wait for.
                await asyncio.wait([asyncio.wrap_future(probe)], timeout=patience)
                continue
            try:
                answer = await send(body)
            except BackendError as error:
                if not self._learn(dialect, error, body):
                    raise
                refusals += 1
            else:
                with self._lock:
                    self._proven |= settings_in(body)
                return Agreed(answer, dialect, refusals)
            finally:
                if leading:
                    self._land(probe)

    def _join(self, settings: frozenset[str]) -> tuple[Future[None] | None, bool]:
        """None if all is proven; otherwise the probe under way, and whether it is the caller's to make."""
        with self._lock:
            if settings <= self._proven:
                return None, False
            if self._probe is None:
                self._probe = Future()
                return self._probe, True
            return self._probe, False

    def _land(self, probe: Future[None] | None) -> None:
        with self._lock:
            self._probe = None
        if probe is not None:
            probe.set_result(None)

    def _learn(self, used: Dialect, error: BackendError, body: Body) -> bool:
        """True if the request is worth another try, put otherwise."""
        lesson = lesson_of(used, error, body)
        if lesson is None:
            return False
        with self._lock:
            self._dialect = self._dialect.meet(lesson)
        return True
