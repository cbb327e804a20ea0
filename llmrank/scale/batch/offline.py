"""A live backend and kept answers go in; a backend comes out that answers from them, and says what is still to be asked.

The backend is of the live one's own class, and only its connection is another: so bodies are built, refusals met, long lists
decoded in several calls and answers read by the same code as in a live run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from llmrank.backends._negotiation import Agreed, Body, Dialect, lesson_of
from llmrank.backends._openai_errors import Refusal, Refused, error_of
from llmrank.backends._openai_transport import Transport
from llmrank.backends.openai import OpenAIBackend
from llmrank.backends.vllm import VLLMBackend
from llmrank.codec import load_error
from llmrank.errors import BackendError, ModelNotFoundError
from llmrank.scale.batch.files import BatchRequest
from llmrank.scale.batch.store import OWN_ERROR, AnswerStore

T = TypeVar("T")


class UnansweredError(Exception):
    """No answer is known yet to `request`. Not one of llmrank's tree: no strategy may take it for an answer."""

    def __init__(self, request: BatchRequest) -> None:
        super().__init__(request.key.hex())
        self.request = request


class StoredTransport:
    """Carries requests to the kept answers in place of a server.

    Args:
        store: The answers.
        live: The server's own connection: its address is part of what the backend is. It is asked only in `get`.
        url: The path of the endpoint, as the Batch API names it.
        reachable: False if the server is not to be asked even for its list of models.
    """

    def __init__(self, store: AnswerStore, live: Transport, *, url: str, reachable: bool) -> None:
        self._store, self._live, self._url, self._reachable = store, live, url, reachable
        self.sample = 0
        """Which sample of its prompt the next request belongs to: the body alone does not tell."""

    @property
    def base_url(self) -> str:
        """The server's."""
        return self._live.base_url

    @property
    def address(self) -> str:
        """The server's."""
        return self._live.address

    @property
    def public_url(self) -> str:
        """The server's."""
        return self._live.public_url

    @property
    def root(self) -> str:
        """The server's."""
        return self._live.root

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The kept answer.

        Raises:
            UnansweredError: there is none.
            BackendError: it is an error.
        """
        request = BatchRequest.of(body, url=self._url, sample=self.sample)
        kept = self._store.get(request.key)
        if kept is None:
            raise UnansweredError(request)
        if kept.status == OWN_ERROR:
            raise load_error(kept.body)
        if kept.status != 200:
            refusal = Refusal.of_body(kept.status, kept.body)
            raise error_of(refusal, self.address) from Refused(refusal)
        answer: dict[str, Any] = kept.body
        return answer

    async def get(self, path: str) -> Any:
        """Asks the server, if there is one. Raises BackendError."""
        if not self._reachable:
            raise ModelNotFoundError(f"prompts travel in files: name in the backend's options what {path} would tell")
        return await self._live.get(path)

    async def aclose(self) -> None:
        """Nothing is open; the live connection is its backend's."""


class KnownDialects:
    """The dialects that a server's refusals taught, in the order in which they were.

    A live call is put in the dialect known last. What is answered out of files is asked anew in every pass, and must find what
    was paid for before the last lesson: so each prompt looks for its answer in all of them, and asks in the last.

    Args:
        dialects: At least one; each is the one before it with rungs taken off.
    """

    def __init__(self, dialects: Sequence[Dialect]) -> None:
        self._dialects = list(dialects)

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """All of them."""
        return tuple(self._dialects)

    @property
    def dialect(self) -> Dialect:
        """The one known last."""
        return self._dialects[-1]

    async def converse(self, build: Callable[[Dialect], Body], send: Callable[[Body], Awaitable[T]]) -> Agreed[T]:
        """The first answer that is known to a request.

        Raises:
            UnansweredError: none is known; it has the request in the dialect known last.
            BackendError: what was answered, if it was no refusal of a setting.
        """
        refusals = place = 0
        while True:
            dialect = self._dialects[place]
            body = build(dialect)
            place += 1
            try:
                return Agreed(await send(body), dialect, refusals)
            except UnansweredError:
                if place == len(self._dialects):
                    raise
            except BackendError as error:
                lesson = lesson_of(dialect, error, body)
                if lesson is None:
                    raise
                refusals += 1
                learned = self.dialect.meet(lesson)
                if learned != self.dialect:
                    self._dialects.append(learned)


def offline(
    live: OpenAIBackend | VLLMBackend, transport: StoredTransport, dialects: KnownDialects
) -> OpenAIBackend | VLLMBackend:
    """A backend with the options of `live` that answers from what `transport` keeps.

    Its `generate` raises UnansweredError for what is not known.
    """
    if isinstance(live, OpenAIBackend):
        return OpenAIBackend(live.options, transport=transport, negotiator=dialects)
    return VLLMBackend(live.options, transport=transport, negotiator=dialects)


def batchable(backend: object) -> OpenAIBackend | VLLMBackend | None:
    """The backend, if its prompts can be put into files."""
    return backend if isinstance(backend, OpenAIBackend | VLLMBackend) else None
