"""A rule list goes in, a real HTTP server on the loopback that is as picky as real providers comes out.

Each rule is a function of a request that returns a `Reply`, or None to leave it to the next one; a request that no rule takes
is answered like a chat completion. The error bodies are those that providers sent in public bug reports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server sends back.

    Attributes:
        body: JSON (anything but bytes) or the raw bytes.
        delay_s: Waits so long first.
        cut: Sends only so many bytes of the body and then resets the connection.
        drip_s: Sends the body byte by byte, with so long a pause after each.
    """

    body: object = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: int | None = None
    drip_s: float = 0.0


Rule: TypeAlias = Callable[[Request], Reply | None]


def completion(content: object = "[A] > [B]", **changes: Any) -> dict[str, Any]:
    """A chat completion; `changes` replace fields of its choice or (``usage``, ``model``) of the whole; None leaves one out."""
    whole: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "picky-1",
        "usage": {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
    }
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    for name, value in changes.items():
        place = whole if name in {"usage", "model"} else choice
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    return {**whole, "choices": [choice]}


def openai_error(message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> Reply:
    """An error in OpenAI's own form."""
    kind = "invalid_request_error"
    return Reply({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)


def without(*names: str, reply: Callable[[str], Reply]) -> Rule:
    """Refuses requests that have one of the fields `names`."""

    def rule(request: Request) -> Reply | None:
        return next((reply(name) for name in names if name in request.body), None)

    return rule


def _unsupported(name: str) -> Reply:
    return openai_error(
        f"Unsupported parameter: '{name}' is not supported with this model.", param=name, code="unsupported_parameter"
    )


def o_series(request: Request) -> Reply | None:
    """OpenAI's o1, o3, gpt-5: another name for the limit, only the default temperature, no log-probabilities."""
    body = request.body
    if "max_tokens" in body:
        return openai_error(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            param="max_tokens",
            code="unsupported_parameter",
        )
    if body.get("temperature", 1) != 1:
        return openai_error(
            f"Unsupported value: 'temperature' does not support {body['temperature']:.1f} with this model. "
            "Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        )
    return _unsupported("logprobs") if body.get("logprobs") else None


def o1_mini_roles(request: Request) -> Reply | None:
    """o1-mini: no system role, and no developer either."""
    for at, message in enumerate(request.body.get("messages", [])):
        if message["role"] in {"system", "developer"}:
            return openai_error(
                f"Unsupported value: 'messages[{at}].role' does not support '{message['role']}' with this model.",
                param=f"messages[{at}].role",
                code="unsupported_value",
            )
    return None


def o1_roles(request: Request) -> Reply | None:
    """A model that takes developers, and no system role."""
    return o1_mini_roles(request) if any(m["role"] == "system" for m in request.body.get("messages", [])) else None


def no_logprobs_forbidden(request: Request) -> Reply | None:
    """o1-preview in 2024: log-probabilities are forbidden with 403, without a code."""
    if request.body.get("logprobs"):
        return openai_error("You are not allowed to request logprobs from this model.", status=403)
    return None


#: Azure at API version 2024-08: names the argument in prose alone.
azure_2024 = without(
    "max_completion_tokens", reply=lambda name: openai_error(f"Unrecognized request argument supplied: {name}")
)


def json_schema_model(request: Request) -> Reply | None:
    """OpenAI models before structured outputs."""
    if request.body.get("response_format", {}).get("type") == "json_schema":
        return openai_error(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more about "
            "supported models at the Structured Outputs guide: https://platform.openai.com/docs/guides/structured-outputs",
            param="response_format",
        )
    return None


def deepseek_format(request: Request) -> Reply | None:
    """DeepSeek: json_object only."""
    if request.body.get("response_format", {}).get("type") == "json_schema":
        return openai_error("This response_format type is unavailable now")
    return None


def json_word(request: Request) -> Reply | None:
    """OpenAI: json_object only if the prompt speaks of JSON."""
    if request.body.get("response_format", {}).get("type") == "json_object":
        return openai_error(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            param="messages",
        )
    return None


def no_counts(request: Request) -> Reply | None:
    """Azure: schemas, but no minItems and maxItems."""
    found = [word for word in ("minItems", "maxItems") if word in json.dumps(request.body)]
    if found:
        return openai_error(
            "Invalid schema for response_format 'ranking': In context=('properties', 'ranking'), "
            f"'{found[0]}' is not permitted.",
            param="response_format",
        )
    return None


def _pydantic(name: str, value: object) -> dict[str, Any]:
    return {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": value}


def mistral(request: Request) -> Reply | None:
    """Mistral: 422, the field's name only in pydantic's locations; it calls seeds otherwise and gives no log-probabilities."""
    unknown = [name for name in ("max_completion_tokens", "seed", "logprobs", "top_logprobs") if name in request.body]
    if not unknown:
        return None
    detail = [_pydantic(name, request.body[name]) for name in unknown]
    body = {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error", "param": None, "code": None}
    return Reply(body, 422)


#: vLLM of 2024: pydantic's complaint as the repr of a Python list, without the level `error`.
old_vllm = without(
    "max_completion_tokens",
    "response_format",
    reply=lambda name: Reply(
        {
            "object": "error",
            "message": f"[{{'type': 'extra_forbidden', 'loc': ('body', '{name}'), 'msg': 'Extra inputs are not permitted'}}]",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        400,
    ),
)


def gemini(request: Request) -> Reply | None:
    """Gemini's compatible address: the error in a list, several fields in one sentence each."""
    unknown = [name for name in ("seed", "logprobs", "top_logprobs") if name in request.body]
    if not unknown:
        return None
    said = "\n".join(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.' for name in unknown)
    return Reply([{"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}], 400)


#: Groq in 2024: the parameter in back quotes, nothing in the fields.
groq = without("logprobs", reply=lambda name: openai_error(f"`{name}` is not supported with this model"))


def qwen_top_five(request: Request) -> Reply | None:
    """Alibaba's Qwen: at most five alternatives a token."""
    if (asked := request.body.get("top_logprobs", 0)) > 5:
        said = (
            f"<400> InternalError.Algo.InvalidParameter: Invalid 'top_logprobs': {asked}. Expected an integer in range [0, 5]"
        )
        return Reply(
            {"error": {"message": said, "type": "invalid_request_error", "param": None, "code": "InvalidParameter"}}, 400
        )
    return None


def vllm_max_logprobs(request: Request) -> Reply | None:
    """A vLLM 0.32 started with --max-logprobs 10."""
    if (asked := request.body.get("top_logprobs", 0)) > 10:
        said = f"Requested sample logprobs of {asked}, which is greater than max allowed: 10"
        return Reply({"error": {"message": said, "type": "BadRequestError", "param": "logprobs", "code": 400}}, 400)
    return None


def tgi_temperature(request: Request) -> Reply | None:
    """Text Generation Inference: a temperature of 0 is refused, others are taken."""
    if request.body.get("temperature") == 0:
        said = "Input validation error: `temperature` must be strictly positive"
        return Reply({"error": said, "error_type": "validation"}, 422)
    return None


def llama_cpp_gemma(request: Request) -> Reply | None:
    """llama.cpp with a chat template that raises: reported as the server's own failure."""
    if any(message["role"] == "system" for message in request.body.get("messages", [])):
        return Reply({"error": {"code": 500, "message": "System role not supported", "type": "server_error"}}, 500)
    return None


class PickyServer:
    """Answers by rules, and keeps every request. Use it as a context manager.

    Args:
        rules: Asked in order; the first Reply is sent. The last resort is `answer`.
        answer: What a request that no rule takes gets.
    """

    def __init__(self, rules: Sequence[Rule] = (), answer: Reply | None = None) -> None:
        self.rules = list(rules)
        self.answer = answer or Reply(completion())
        self.requests: list[Request] = []
        self.port = 0
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="picky-server", daemon=True)

    @property
    def url(self) -> str:
        """The base URL for a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests so far."""
        return [request.body for request in self.requests if request.path.endswith("/chat/completions")]

    def __enter__(self) -> PickyServer:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            self.connections += 1
            try:
                while await self._turn(reader, writer):
                    pass
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass  # the client has gone, or the test is over: either ends the conversation
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._stop.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _turn(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False if the connection is over."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, path, headers, json.loads(raw) if raw else {})
        self.requests.append(request)
        reply = next((reply for rule in self.rules if (reply := rule(request)) is not None), self.answer)
        if reply.delay_s:
            await asyncio.sleep(reply.delay_s)
        await self._send(writer, reply)
        return reply.cut is None

    async def _send(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **reply.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {reply.status} Status\r\n{lines}\r\n".encode("latin-1"))
        for byte in (body[at : at + 1] for at in range(len(body) if reply.drip_s else 0)):
            writer.write(byte)
            await writer.drain()
            await asyncio.sleep(reply.drip_s)
        if not reply.drip_s:
            writer.write(body if reply.cut is None else body[: reply.cut])
        await writer.drain()
        if reply.cut is not None:
            await asyncio.sleep(0.05)  # lets what was sent arrive before the reset does
            connection: socket.socket = writer.get_extra_info("socket")
            # Zero linger: closing sends RST instead of FIN, as a crashed server or a proxy does.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def picky(*rules: Rule, answer: Reply | None = None) -> Iterator[PickyServer]:
    """A server with these rules for the length of a ``with`` block."""
    with PickyServer(rules, answer) as server:
        yield server


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
