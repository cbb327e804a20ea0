"""A path and a JSON body go in, the decoded JSON of an OpenAI-compatible server comes out, or one of llmrank's errors.

The HTTP layer under the backends ``openai`` and ``vllm``. It knows addresses, keys, connections and event loops; it knows
nothing of prompts.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import json
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from llmrank.backends._openai_errors import Refusal, causes, error_of, translate
from llmrank.errors import BackendError, BackendTimeoutError, BadRequestError, ConfigError, ServerError, SetupError

if TYPE_CHECKING:
    import openai

T = TypeVar("T")

OPENAI_URL: Final = "https://api.openai.com/v1"
PLACEHOLDER_KEY: Final = "none"
"""Sent to a server in one's own machine or network that has no key; the SDK refuses to send nothing."""


class Transport(Protocol):
    """What carries requests to one server: a connection, or the files of a batch."""

    @property
    def base_url(self) -> str:
        """Where the API is, with its ``/v1``."""
        ...

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        ...

    @property
    def public_url(self) -> str:
        """The base URL without credentials and query."""
        ...

    @property
    def root(self) -> str:
        """The base URL without its ``/v1``."""
        ...

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Sends JSON and returns the answer's object. Raises BackendError."""
        ...

    async def get(self, path: str) -> Any:
        """Fetches JSON. Raises BackendError."""
        ...

    async def aclose(self) -> None:
        """Closes what is open. May be called twice."""
        ...


class OpenAITransport:
    """Connections to one server: a client an event loop, opened at its first request, closed at the loop's end or by `aclose`.

    Args:
        base_url: Where the API is, with its ``/v1``; None for ``OPENAI_BASE_URL`` or else OpenAI itself. User and password in
            it become Basic authorization.
        api_key_env: The environment variable that holds the key.
        timeout_s: The most seconds that one request may take, from its start to the last byte of the answer.
        organization, project: OpenAI's headers of that name.
        headers: Further headers; never shown, for they may hold secrets.
        query: Further query parameters (``api-version``).

    Raises:
        SetupError: the SDK or the key is missing.
        ConfigError: the URL is not one.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout_s: float = 60.0,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> None:
        # Found before anything is asked of it: a run of a thousand users should not start without its SDK.
        if importlib.util.find_spec("openai") is None:
            raise SetupError("the package 'openai' is missing: pip install 'openai[aiohttp]'")
        url = checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        # Credentials go into a header: HTTP libraries write whole URLs into their logs.
        self._base_url = url if "@" not in urlsplit(url).netloc else public_url(url)
        self.timeout_s = timeout_s
        self._key = os.environ.get(api_key_env, "").strip()
        self._organization, self._project = organization, project
        self._headers, self._query = {**basic_auth(url), **(headers or {})}, dict(query or {})
        authorized = any(name.lower() in {"authorization", "api-key", "x-api-key"} for name in self._headers)
        if not self._key and not authorized and not is_local(self.base_url):
            raise SetupError(f"no API key for {self.address}: set the environment variable {api_key_env}")
        # Not a WeakKeyDictionary: an open connection refers to its loop, so a weak key would never die.
        # Entries leave when their client closes.
        self._clients: dict[asyncio.AbstractEventLoop, _Client] = {}
        weakref.finalize(self, _abandon, self._clients).atexit = False

    def __repr__(self) -> str:
        return f"OpenAITransport({self.public_url!r})"

    @property
    def base_url(self) -> str:
        """Where the API is, with its ``/v1``; without credentials."""
        return self._base_url

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        parts = urlsplit(self.base_url)
        host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
        return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    @property
    def public_url(self) -> str:
        """The base URL without credentials and query."""
        return public_url(self.base_url)

    @property
    def root(self) -> str:
        """The base URL without its ``/v1``: where servers keep what is not OpenAI's (``/tokenize``, ``/health``)."""
        return self.base_url.removesuffix("/v1")

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Sends JSON and returns the answer's object.

        Args:
            path: Below the base URL (``/chat/completions``), or a whole URL (``transport.root + "/tokenize"``).
            body: The JSON to send.

        Raises:
            BackendError: one of its subclasses; `refusal_of` has the server's words.
        """
        payload = await self._request("post", path, dict(body))
        return self._object(payload)

    async def get(self, path: str) -> Any:
        """Fetches JSON (an object or a list). Raises BackendError."""
        return await self._request("get", path, None)

    async def aclose(self) -> None:
        """Closes this loop's client, and lets every other loop that still runs close its own as soon as it comes to it.

        That is not waited for: the other loop's thread may be the very one that waits for this call. The client of a loop
        which has ended is closed already.
        """
        here = self._clients.get(asyncio.get_running_loop())
        if here is not None:
            await here.close()
        _abandon(self._clients)

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        async def send(client: openai.AsyncOpenAI) -> Any:
            if method == "post":
                payload = await client.post(path, cast_to=object, body=body)
            else:
                payload = await client.get(path, cast_to=object)
            # The SDK decodes only what is declared to be JSON; some proxies declare everything to be text.
            return json.loads(payload) if isinstance(payload, str) and payload.lstrip()[:1] in {"{", "["} else payload

        return await self.call(send, timeout_s=self.timeout_s)

    async def call(self, use: Callable[[openai.AsyncOpenAI], Awaitable[T]], *, timeout_s: float) -> T:
        """Does something with this loop's client of the SDK.

        Args:
            use: What to do.
            timeout_s: The most seconds for all of it; the SDK's own limits hold for each read, and a server that drips bytes
                would never meet them.

        Raises:
            BackendError: one of its subclasses; `refusal_of` has the server's words.
        """
        client = await self._client()
        try:
            async with asyncio.timeout(timeout_s) as limit:
                return await use(client)
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise BackendTimeoutError(f"{self.address} did not answer within {timeout_s:g} s") from error
            if isinstance(error, UnicodeEncodeError):  # half a surrogate pair, from a catalogue with broken escapes
                raise BadRequestError(f"the prompt holds a character that cannot be sent: {error}") from error
            if isinstance(error, ValueError):  # the answer looks like JSON, and is not
                raise ServerError(f"{self.address} answered with broken JSON: {error}") from error
            ours = translate(error, self.address, secret=self._key)
            if ours is None:
                raise
            if self._key and any(self._key in str(link) for link in causes(error)):
                raise ours from None  # a server that repeats the key must not bring it into a traceback
            raise ours from error

    def _object(self, payload: Any) -> dict[str, Any]:
        if not isinstance(payload, dict):
            shown = " ".join(str(payload).split())[:120]
            raise ServerError(f"{self.address} answered 200 with something that is not a JSON object: {shown!r}")
        if payload.get("error"):
            # OpenRouter and proxies like it: the error of the server behind them arrives with status 200.
            raise self._hidden_error(payload)
        return payload

    def _hidden_error(self, payload: Mapping[str, Any]) -> BackendError:
        inner = payload["error"]
        code = inner.get("code") if isinstance(inner, Mapping) else None
        status = code if isinstance(code, int) and 400 <= code <= 599 else 500
        return error_of(Refusal.of_body(status, payload), self.address, secret=self._key)

    async def _client(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)  # another loop never touches this one's entry, and here nothing else runs meanwhile
        if client is None:
            client = self._clients[loop] = _Client(self._open(), self._clients, loop)
            await client.begin()
        return client.sdk

    def _open(self) -> openai.AsyncOpenAI:
        import openai

        # It takes less CPU a request than the default transport, where its package is installed.
        make = openai.DefaultAioHttpClient if importlib.util.find_spec("aiohttp") else openai.DefaultAsyncHttpxClient
        return openai.AsyncOpenAI(
            api_key=self._key or PLACEHOLDER_KEY,
            base_url=self.base_url,
            organization=self._organization,
            project=self._project,
            default_headers=self._headers,
            default_query=self._query,
            timeout=self.timeout_s,
            max_retries=0,  # llmrank's own retries stand around every backend alike
            http_client=make(timeout=self.timeout_s),
        )


class _Client:
    """The SDK's client on one event loop. It closes with the loop.

    Args:
        sdk: The client.
        clients: Where it is kept; it takes itself out.
        loop: The loop that is running.
    """

    def __init__(
        self, sdk: openai.AsyncOpenAI, clients: dict[asyncio.AbstractEventLoop, _Client], loop: asyncio.AbstractEventLoop
    ) -> None:
        self.sdk = sdk
        self._lifetime = _lifetime(sdk, clients, loop)

    async def begin(self) -> None:
        """Lets the loop close the client when it ends.

        The first step of an asynchronous generator registers it with the running loop, which finishes it at its end
        (`asyncio.run`, anyio's portal): the one hook that asyncio has for this. So a user who never calls `aclose` leaves
        no open sockets behind.
        """
        await anext(self._lifetime)

    async def close(self) -> None:
        """Closes the connections. May be called twice."""
        await self._lifetime.aclose()


async def _lifetime(
    sdk: openai.AsyncOpenAI, clients: dict[asyncio.AbstractEventLoop, _Client], loop: asyncio.AbstractEventLoop
) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        clients.pop(loop, None)  # first: who finds it there may close it
        await sdk.close()


def _abandon(clients: dict[asyncio.AbstractEventLoop, _Client]) -> None:
    """Lets the loops that still run close their clients; waits for none of them."""

    def close(loop: asyncio.AbstractEventLoop) -> None:
        if (client := clients.get(loop)) is not None:  # it may have begun to close meanwhile, for another reason
            task = loop.create_task(client.close())
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    for loop in list(clients):
        with contextlib.suppress(RuntimeError):  # that loop has ended, and has closed its client then
            loop.call_soon_threadsafe(close, loop)


_closing: set[asyncio.Task[None]] = set()
"""What `_abandon` began: a loop itself holds its tasks only weakly."""


def checked_url(url: str) -> str:
    """The URL without a slash at its end. Raises ConfigError if it is not an http(s) URL with a host."""
    parts = urlsplit(url)
    try:
        well_formed = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # the port is not a number
        well_formed = False
    if not well_formed:
        shown = url if "@" not in url else "..." + url.rpartition("@")[2]
        raise ConfigError("is not an http(s) URL", field="base_url", value=shown, fix="write it like http://127.0.0.1:8000/v1")
    return url.rstrip("/")


def public_url(url: str) -> str:
    """The URL without user, password, query and fragment: what may be shown and stored."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def basic_auth(url: str) -> dict[str, str]:
    """The header for the user and password in a URL (RFC 7617); empty if it has none."""
    parts = urlsplit(url)
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def is_local(url: str) -> bool:
    """True for this machine and private networks, where servers often ask for no key."""
    host = urlsplit(url).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host
    return address.is_loopback or address.is_private
