"""A text or a chat goes in, the token ids or their number come out, as the vLLM server's own tokenizer sees them.

Every llmrank TokenCounter is synchronous, so this asks ``/tokenize`` with the standard library: no event loop, no SDK.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from llmrank.backends._openai_errors import Refusal, error_of
from llmrank.errors import BackendTimeoutError, ModelNotFoundError, ServerError, UnreachableError
from llmrank.types import Message

T = TypeVar("T")

REMEMBERED: Final = 65_536
"""Texts whose tokens are kept. A catalogue's items come back with every user; their ids are a few hundred bytes each."""


class NoTokenizerError(ModelNotFoundError):
    """The server has no ``/tokenize``: it is another than vLLM, or a gateway that passes on ``/v1`` alone."""


class ServerTokenizer:
    """The tokenizer behind one vLLM server's ``/tokenize``; a TokenCounter. Safe to use from several threads.

    Args:
        root: The server's address without ``/v1``.
        model: The model's name at the server.
        headers: The authorization, if the server wants one.
        secret: The key: replaced wherever the server repeats it.
        timeout_s: The most seconds that the server may take to answer.
    """

    remote = True

    def __init__(self, root: str, model: str, *, headers: Mapping[str, str], secret: str, timeout_s: float) -> None:
        self._url = root.rstrip("/") + "/tokenize"
        self._model = model
        self._headers = {"Content-Type": "application/json", **headers}
        self._secret = secret
        self._timeout_s = timeout_s
        self._ids: _Remembered[tuple[int, ...]] = _Remembered(REMEMBERED)
        self._counts: _Remembered[int] = _Remembered(REMEMBERED)

    @property
    def name(self) -> str:
        """The address that counts."""
        return self._url

    def count(self, text: str) -> int:
        """The number of tokens of a text, without special tokens (the first of a prompt, see `ids`). Raises BackendError."""
        return len(self.ids(text))

    def count_messages(self, messages: Sequence[Message]) -> int:
        """The number of prompt tokens of a chat, with all that the server's chat template adds. Raises BackendError."""
        chat = [{"role": message.role, "content": message.content} for message in messages]
        return self._counts.get(tuple(messages), lambda: int(self._ask({"messages": chat})["count"]))

    def ids(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """The token ids of a text.

        Args:
            text: Any text; words that look like special tokens become those, as in a prompt.
            special: True adds what the tokenizer puts around a prompt (its first token), if it does so.

        Raises:
            BackendError: the server does not answer, or has no ``/tokenize``.
        """
        ask = {"prompt": text, "add_special_tokens": special}
        return self._ids.get((text, special), lambda: tuple(self._ask(ask)["tokens"]))

    async def ids_of_all(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The token ids of several texts, without special tokens; those not yet known are asked for in threads."""
        unknown = [text for text in dict.fromkeys(texts) if (text, False) not in self._ids]
        found = dict(zip(unknown, await asyncio.gather(*(asyncio.to_thread(self.ids, text) for text in unknown)), strict=True))
        return [found[text] if text in found else self.ids(text) for text in texts]

    def _ask(self, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked when the address was read
            self._url,
            json.dumps({"model": self._model, **body}).encode(),
            self._headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310  # see above
                answer = json.load(response)
            if not isinstance(answer, dict) or not {"count", "tokens"} <= answer.keys():
                raise ServerError(f"{self._url} answered 200 with something that is not a list of tokens")
            return answer
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            refusal = Refusal.of_body(error.code, _decoded(said))
            if error.code in (404, 405) and "model" not in said.lower():
                hint = "if this is not a vLLM server, use the backend kind openai"
                raise NoTokenizerError(f"there is no {self._url}: {hint}") from error
            ours = error_of(refusal, self._url, secret=self._secret, headers=dict(error.headers.items()))
            raise ours from error
        except TimeoutError as error:
            raise BackendTimeoutError(f"{self._url} did not answer within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), TimeoutError):
                raise BackendTimeoutError(f"{self._url} did not answer within {self._timeout_s:g} s") from error
            raise UnreachableError(f"{self._url} cannot be reached: {getattr(error, 'reason', error)}") from error
        except ValueError as error:
            raise ServerError(f"{self._url} answered with broken JSON: {error}") from error


class _Remembered(Generic[T]):
    """The values of the keys asked for last, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, T] = OrderedDict()
        self._lock = threading.Lock()  # never held while a value is made

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The key's value; made, and kept, if it is not known."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._limit:
                self._values.popitem(last=False)
        return value


def _decoded(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text  # an HTML page, or plain words: they are shown as they are
