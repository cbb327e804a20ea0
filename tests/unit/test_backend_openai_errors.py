"""How the SDK's errors, servers' own words and broken connections become llmrank's errors."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import openai
import openai._extras._common
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.backends._openai_errors import (
    BY_SDK_CLASS,
    MESSAGE_LIMIT,
    Refusal,
    error_of,
    refusal_of,
    retry_after,
    translate,
    window_in,
)
from llmrank.backends.openai import OpenAIBackend, OpenAIOptions
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
from llmrank.types import Message, Prompt
from tests.servers.picky import Reply, completion, free_port, openai_error, picky

PROMPT = Prompt(messages=(Message("user", "A or B?"),), labels=("A", "B"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the developer's is sent."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both HTTP layers that the SDK can stand on: they report the same trouble in different ways."""
    if request.param == "httpx":
        monkeypatch.setattr(openai, "DefaultAioHttpClient", openai.DefaultAsyncHttpxClient)
    return str(request.param)


async def fails(url: str, **options: Any) -> BackendError:
    """The error that one prompt at this address ends with."""
    backend = OpenAIBackend(OpenAIOptions("m", url, **{"timeout_s": 20, **options}))
    try:
        with pytest.raises(BackendError) as caught:
            await backend.generate(PROMPT)
    finally:
        await backend.aclose()
    return caught.value


# -- the SDK's tree ---------------------------------------------------------------------------------------------------------


def sdk_classes(root: type[BaseException] = openai.OpenAIError) -> Iterator[type[BaseException]]:
    """Every class of the SDK's error tree that is loaded; `_extras`, which other tests load, is among them."""
    yield root
    for child in root.__subclasses__():
        if child.__module__.startswith("openai"):
            yield from sdk_classes(child)


def test_every_error_of_the_sdk_is_mapped() -> None:
    """A release of the SDK with a new error class fails here, so that someone decides what it means."""
    names = {cls.__name__ for cls in sdk_classes()}
    assert {"BadRequestError", "RateLimitError", "InternalServerError", "APITimeoutError"} <= names
    assert names - set(BY_SDK_CLASS) == set()


@pytest.mark.parametrize("name", sorted(BY_SDK_CLASS))
def test_each_mapped_class_becomes_what_the_table_says(name: str) -> None:
    """Whatever its body, an error of the SDK never leaves as it is."""
    cls = next((cls for cls in sdk_classes() if cls.__name__ == name), None)
    if cls is None:
        pytest.skip(f"this version of the SDK has no {name}")
    error = cls.__new__(cls)  # each class wants other arguments; the mapping looks at the class, and at status errors' bodies
    Exception.__init__(error, "it failed")
    if isinstance(error, openai.APIStatusError):
        error.status_code = error.__dict__.get("status_code", getattr(cls, "status_code", 400))
        error.body = None
        error.response = type("Response", (), {"headers": {}})()  # only its headers are read
    assert isinstance(error, Exception)
    ours = translate(error, "host:1")
    assert ours is not None
    expected = BY_SDK_CLASS[name]
    assert type(ours) is expected
    assert "host:1" in str(ours)


def test_errors_that_are_no_ones_pass_untouched() -> None:
    """A bug of our own is not dressed up as a backend's failure."""
    assert translate(ZeroDivisionError("bug"), "host:1") is None
    assert translate(KeyError("bug"), "host:1") is None


# -- statuses and bodies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (openai_error("no", status=400), BadRequestError),
        (openai_error("no", status=401), AuthenticationError),
        (openai_error("Insufficient Balance", status=402), QuotaError),
        (openai_error("no", status=403), PermissionDeniedError),
        (openai_error("The model `m` does not exist", code="model_not_found", status=404), ModelNotFoundError),
        (openai_error("no", status=408), BackendTimeoutError),
        (openai_error("no", status=409), ServerError),
        (openai_error("Request too large: Limit 6000", code="rate_limit_exceeded", status=413), BadRequestError),
        (openai_error("no", status=418), BadRequestError),
        (openai_error("no", status=422), BadRequestError),
        (openai_error("no", status=429), RateLimitError),
        (openai_error("You exceeded your current quota", code="insufficient_quota", status=429), QuotaError),
        (Reply({"error": {"message": "no", "type": "insufficient_quota"}}, 429), QuotaError),
        # Gemini says the same sentence for a passing rate limit
        (Reply([{"error": {"code": 429, "message": "You exceeded your current quota", "status": "X"}}], 429), RateLimitError),
        (openai_error("Your credit balance is too low to access the API.", status=400), QuotaError),
        (openai_error("no", status=500), ServerError),
        (Reply(b"<html><h1>502 Bad Gateway</h1></html>", 502, {"content-type": "text/html"}), ServerError),
        (Reply(b"", 503), ServerError),
        (Reply(b"", 529), ServerError),
        (Reply(b"", 304), ServerError),
        (Reply({"error": {"message": "Rate limited upstream", "code": 429}}, 200), RateLimitError),
        (Reply({"error": {"message": "gone", "code": 502}}, 200), ServerError),
        (Reply({"error": {"message": "gone", "code": True}}, 200), ServerError),
        (Reply({"error": "the model has crashed"}, 200), ServerError),
    ],
)  # fmt: skip
async def test_statuses_and_codes_become_our_errors(reply: Reply, expected: type[BackendError]) -> None:
    """Each class says by itself if asking again may help; the server's address and words are in the message."""
    with picky(answer=reply) as server:
        error = await fails(server.url)
    assert type(error) is expected
    assert f"127.0.0.1:{server.port}" in str(error)
    assert "\n" not in str(error)
    assert len(server.bodies) == 1  # the SDK's own retries are off


async def test_a_wrong_path_hints_at_the_base_url() -> None:
    """The most frequent slip is a base_url without its /v1."""
    with picky(answer=Reply({"detail": "Not Found"}, 404)) as server:
        error = await fails(server.url)
    assert isinstance(error, ModelNotFoundError)
    assert "/v1" in str(error)


CONTEXT_ERRORS: list[tuple[str, Reply, int | None]] = [
    (
        "openai",
        openai_error(
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. Please reduce "
            "the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        ),
        8192,
    ),
    (
        "gpt-5",
        openai_error(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 289650 tokens. Please reduce "
            "the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        ),
        272000,
    ),
    (
        "vllm",
        Reply(
            {
                "error": {
                    "message": "This model's maximum context length is 4096 tokens. However, your prompt contains at least "
                    "4097 input tokens, which exceeds this limit even without any output tokens.",
                    "type": "BadRequestError",
                    "param": "input_tokens",
                    "code": 400,
                }
            },
            400,
        ),
        4096,
    ),
    (
        "vllm engine",
        Reply(
            {"object": "error", "message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096."},
            400,
        ),
        4096,
    ),
    (
        "llama.cpp",
        Reply(
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size. try increasing the context size or enable "
                    "context shift",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 14429,
                    "n_ctx": 8192,
                }
            },
            400,
        ),
        8192,
    ),
    (
        "llama.cpp of 2025, with status 500",
        Reply({"error": {"code": 500, "message": "too big", "type": "exceed_context_size_error", "n_ctx": 256}}, 500),
        256,
    ),
    ("llama-cpp-python", openai_error("Requested tokens (2285) exceed context window of 2048"), 2048),
    (
        "together",
        openai_error(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 8000 `inputs` tokens and 512 "
            "`max_new_tokens`",
            status=422,
        ),
        8193,
    ),
    ("tgi", Reply({"error": "`inputs` must have less than 4096 tokens. Given: 5000", "error_type": "validation"}, 422), 4096),
    (
        "mistral",
        Reply(
            {
                "object": "error",
                "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context "
                "length",
                "type": "invalid_request_error",
            },
            400,
        ),
        32768,
    ),
    (
        "gemini",
        Reply(
            [
                {
                    "error": {
                        "code": 400,
                        "message": "The input token count (1100000) exceeds the maximum number of tokens allowed (1048576).",
                    }
                }
            ],
            400,
        ),
        1048576,
    ),
    ("anthropic", openai_error("prompt is too long: 210000 tokens > 200000 maximum"), 200000),
    ("fireworks", openai_error("The prompt is too long: 140000, model maximum context length: 131071"), 131071),
    ("xai", openai_error("This model's maximum prompt length is 131072 but the request contains 140000 tokens."), 131072),
    (
        "lm studio",
        Reply({"error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with "
               "context length of only 4096 tokens, which is not enough."}, 400),
        4096,
    ),
    ("groq", openai_error("Please reduce the length of the messages or completion.", code="context_length_exceeded"), None),
    ("bedrock", openai_error("Input is too long for requested model."), None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "window"), [case[1:] for case in CONTEXT_ERRORS], ids=[case[0] for case in CONTEXT_ERRORS])
async def test_a_prompt_that_is_too_long_is_told_with_the_window(reply: Reply, window: int | None) -> None:
    """Each provider's sentence gives the window and not the prompt's own length; it is never retried."""
    with picky(answer=reply) as server:
        error = await fails(server.url)
    assert isinstance(error, ContextLengthError)
    assert error.window == window
    assert not error.retryable


AZURE_FILTER = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(AZURE_FILTER, 400),
        openai_error(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy.", code="invalid_prompt"
        ),
        openai_error("Your request was rejected", code="content_policy_violation"),
    ],
)
async def test_a_filtered_prompt_is_a_content_filter_error(reply: Reply) -> None:
    """It is told apart from other 400s, and not retried."""
    with picky(answer=reply) as server:
        error = await fails(server.url)
    assert type(error) is ContentFilterError
    assert not error.retryable


async def test_the_servers_words_stay_with_the_error() -> None:
    """`refusal_of` gives the fields behind an error, for those who negotiate."""
    with picky(answer=openai_error("no", param="seed", code="odd")) as server:
        refusal = refusal_of(await fails(server.url))
    assert refusal is not None
    assert (refusal.status, refusal.message, refusal.param, refusal.code) == (400, "no", "seed", "odd")
    assert refusal_of(UnreachableError("x")) is None


# -- waiting ----------------------------------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after": "-3"}, "", 0.0),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, "", 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, "", 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 -0000"}, "", 30.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, "", 0.25),
        ({"retry-after-ms": "soon", "retry-after": "2"}, "", 2.0),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "1e999"}, "", None),
        ({}, "Rate limit reached. Please try again in 20s.", 20.0),
        ({}, "Please try again in 860ms.", 0.86),
        ({}, "Please try again in 47m12.191999999s. Need more tokens?", 2832.191999999),
        ({}, "Please try again in 1h2m3s", 3723.0),
        ({}, "try again in a moment", None),
        ({"retry-after": "1"}, "try again in 20s", 1.0),
        ({}, "", None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: Mapping[str, str], message: str, seconds: float | None) -> None:
    """Seconds, milliseconds, HTTP dates and prose; what is none of these is ignored."""
    found = retry_after(headers, message, now=NOW)
    assert found == (seconds if seconds is None else pytest.approx(seconds))


@given(
    st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text(max_size=30) | st.floats().map(str)),
    st.text(max_size=20).map(lambda text: f"try again in {text}"),
)
def test_retry_after_survives_any_header(headers: dict[str, str], message: str) -> None:
    """A header from a broken proxy gives a finite wait or none, never an exception."""
    found = retry_after(headers, message)
    assert found is None or (math.isfinite(found) and found >= 0)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_reaches_the_error(status: int) -> None:
    """The header goes with the error to whoever retries."""
    with picky(answer=Reply({"error": {"message": "slow down"}}, status, {"Retry-After": "12"})) as server:
        error = await fails(server.url)
    assert isinstance(error, RateLimitError | ServerError)
    assert error.retry_after == 12.0


# -- connections ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("transport")
async def test_a_refused_connection_names_host_and_port() -> None:
    """Nothing listens there: unreachable, and not a timeout as the SDK would have it."""
    port = free_port()
    error = await fails(f"http://127.0.0.1:{port}/v1")
    assert type(error) is UnreachableError
    assert f"127.0.0.1:{port}" in str(error)


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("cut", [0, 40])
async def test_a_reset_in_the_answer_is_unreachable(cut: int) -> None:
    """A server that dies before or within its answer gives a retryable error and no half answer."""
    with picky(answer=Reply(completion(), cut=cut)) as server:
        error = await fails(server.url)
    assert type(error) is UnreachableError
    assert error.retryable


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("reply", [Reply(completion(), delay_s=5.0), Reply(completion(), drip_s=0.2)])
async def test_slow_and_dripping_answers_end_at_the_time_limit(reply: Reply) -> None:
    """The limit holds for the whole attempt, also against a server that keeps sending a byte now and then."""
    with picky(answer=reply) as server:
        started = time.monotonic()
        error = await fails(server.url, timeout_s=0.4)
        waited = time.monotonic() - started
    assert type(error) is BackendTimeoutError
    assert "0.4 s" in str(error)
    assert waited < 4.0


@pytest.mark.usefixtures("transport")
async def test_a_server_that_does_not_speak_http_is_unreachable() -> None:
    """A port of something else gives one of our errors, not an exception of an HTTP library."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        error = await fails(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    assert type(error) is UnreachableError


async def test_a_cancelled_call_is_cancelled() -> None:
    """Cancellation is not an error of the backend: it passes through."""
    with picky(answer=Reply(completion(), delay_s=5.0)) as server:
        backend = OpenAIBackend(OpenAIOptions("m", server.url))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.generate(PROMPT), 0.2)
        await backend.aclose()


# -- anything at all --------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "code", "param", "type", "detail", "n_ctx"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.integers(300, 599), JSON | st.text(max_size=2000))
def test_any_error_body_gives_one_line_of_ours(status: int, body: object) -> None:
    """Whatever a server sends with an error status, an error of our tree comes out: one line, not too long."""
    error = error_of(Refusal.of_body(status, body), "host:1")
    assert isinstance(error, BackendError)
    assert len(str(error).splitlines()) <= 1
    assert len(str(error)) < MESSAGE_LIMIT + 120


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_the_window_is_told_from_the_prompts_length(window: int, prompt: int) -> None:
    """The sentence holds both numbers, with thousands marked or not; the right one is read."""
    said = "This model's maximum context length is {} tokens. However, you requested {} tokens."
    assert window_in(said.format(window, prompt)) == window
    assert window_in(said.format(f"{window:,}", f"{prompt:,}")) == window
    assert window_in(json.dumps({"message": f"prompt is too long: {prompt} tokens > {window} maximum"})) == window
