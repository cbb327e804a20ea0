"""Files and batches of an OpenAI-compatible Batch API: paths and ids go in, a batch's state and its files come out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from llmrank.backends._openai_transport import OpenAITransport
from llmrank.errors import CapabilityError, ModelNotFoundError

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

TRANSFER_S: Final = 1800.0
"""The most seconds for one file of up to 200 MB, up or down."""

CALL_S: Final = 60.0
"""The most seconds for any other call."""

_TAG: Final = "llmrank"


@dataclass(frozen=True, slots=True)
class BatchState:
    """What the server says of a batch.

    Attributes:
        id: Its name at the server.
        status: ``validating``, ``in_progress``, ``finalizing``, ``completed``, ``expired``, ``cancelling``, ``cancelled``,
            ``failed``.
        output_file_id, error_file_id: Its files, once it has ended.
        codes, problem: Why it failed: the errors' codes, and the first one's message.
    """

    id: str
    status: str
    output_file_id: str | None = None
    error_file_id: str | None = None
    codes: frozenset[str] = frozenset()
    problem: str = ""


class BatchAPI:
    """The Batch API of one server.

    Args:
        transport: The connection.
        endpoint: The path that the requests are for: ``/v1/chat/completions``.
        window: The time that the server is given, as it names it: ``24h``.
    """

    def __init__(self, transport: OpenAITransport, *, endpoint: str, window: str) -> None:
        self._transport, self._endpoint, self._window = transport, endpoint, window

    async def upload(self, path: Path) -> str:
        """Uploads an input file and returns its id. Raises BackendError; CapabilityError if the server takes no files."""

        async def use(client: openai.AsyncOpenAI) -> str:
            with path.open("rb") as file:
                return (await client.files.create(file=file, purpose="batch", timeout=TRANSFER_S)).id

        try:
            return await self._transport.call(use, timeout_s=TRANSFER_S)
        except ModelNotFoundError as error:
            raise self._incapable(error) from error

    async def create(self, input_file_id: str, tag: str) -> BatchState:
        """Makes a batch that carries `tag`. Raises BackendError; CapabilityError if the server makes no batches."""

        async def use(client: openai.AsyncOpenAI) -> Batch:
            return await client.batches.create(
                input_file_id=input_file_id,
                endpoint=cast('Literal["/v1/chat/completions"]', self._endpoint),  # Azure's has no /v1
                completion_window=cast('Literal["24h"]', self._window),  # other servers have other ones
                metadata={_TAG: tag},
                timeout=CALL_S,
            )

        try:
            return _state(await self._transport.call(use, timeout_s=CALL_S))
        except ModelNotFoundError as error:
            raise self._incapable(error) from error

    async def retrieve(self, batch_id: str) -> BatchState:
        """How far a batch is. Raises BackendError."""

        async def use(client: openai.AsyncOpenAI) -> Batch:
            return await client.batches.retrieve(batch_id, timeout=CALL_S)

        return _state(await self._transport.call(use, timeout_s=CALL_S))

    async def find(self, tag: str, *, since: float) -> BatchState | None:
        """The newest batch that carries `tag` and has not failed.

        Args:
            tag: What it was made with.
            since: Unix seconds; batches are listed newest first, and those older than this are not looked at.

        Raises:
            BackendError: they cannot be listed.
        """
        async for batch in self._listed():
            if batch.created_at and batch.created_at < since:
                return None
            if (batch.metadata or {}).get(_TAG) == tag and batch.status != "failed":
                return _state(batch)
        return None

    async def download(self, file_id: str, path: Path) -> None:
        """Fetches a file; it appears under its name when it is whole. Raises BackendError."""
        part = path.with_name(f".{path.name}.part")

        async def use(client: openai.AsyncOpenAI) -> None:
            async with client.files.with_streaming_response.content(file_id, timeout=TRANSFER_S) as answer:
                with part.open("wb") as file:
                    async for chunk in answer.iter_bytes(1 << 20):
                        file.write(chunk)

        try:
            await self._transport.call(use, timeout_s=TRANSFER_S)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    async def _listed(self) -> AsyncIterator[Batch]:
        after: dict[str, Any] = {}
        while True:

            async def use(client: openai.AsyncOpenAI, after: dict[str, Any] = after) -> Any:
                return await client.batches.list(limit=100, timeout=CALL_S, **after)

            page = await self._transport.call(use, timeout_s=CALL_S)
            for batch in page.data:
                yield batch
            if not page.data or not page.has_next_page():
                return
            after = {"after": page.data[-1].id}

    def _incapable(self, error: ModelNotFoundError) -> CapabilityError:
        return CapabilityError(f"{self._transport.address} has no Batch API ({error}); write files for it instead (via: files)")


def _state(batch: Batch) -> BatchState:
    errors = (batch.errors.data if batch.errors else None) or []
    return BatchState(
        id=batch.id,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        codes=frozenset(error.code for error in errors if error.code),
        problem=next((f"{error.message} (line {error.line})" if error.line else str(error.message) for error in errors), ""),
    )
