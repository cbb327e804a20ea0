"""Requests go in, the lines of a Batch API's input file come out; the lines of its output and error files become answers.

The form is OpenAI's (https://platform.openai.com/docs/api-reference/batch/request-input); vLLM's ``run-batch`` reads and
writes it too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmrank.codec import canonical
from llmrank.errors import BadRequestError, DatasetError

MOST_REQUESTS: Final = 50_000
"""The most requests that OpenAI takes in one file."""

MOST_BYTES: Final = 200_000_000
"""The most bytes that OpenAI takes in one file (it says 200 MB)."""

NOT_PROCESSED: Final = 0
"""The status of an answer that says that the request was not processed: its batch expired or was cancelled."""

_UNPROCESSED_CODES: Final = {"batch_expired", "batch_cancelled"}


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One line of an input file.

    Attributes:
        key: 32 bytes (SHA-256) that are the same when the same is asked; its hexadecimal digits are the ``custom_id``.
        line: The line, with its end.
    """

    key: bytes
    line: bytes

    @classmethod
    def of(cls, body: Mapping[str, Any], *, url: str, sample: int = 0) -> BatchRequest:
        """The request for a body.

        Args:
            body: What a server would be sent.
            url: The path of the endpoint, as the Batch API names it: ``/v1/chat/completions``.
            sample: Tells repeated samples of one body apart.

        Raises:
            BadRequestError: a text has half a surrogate pair, which would make the whole file invalid.
        """
        asked = {"url": url, "sample": sample, "body": body}
        key = hashlib.sha256(canonical(asked).encode()).digest()
        document = {"custom_id": key.hex(), "method": "POST", "url": url, "body": body}
        try:
            line = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        except UnicodeEncodeError as error:
            raise BadRequestError(f"the prompt holds a character that cannot be sent: {error}") from error
        return cls(key, line)


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What a batch says to one request.

    Attributes:
        key: The request's; None if the ``custom_id`` is none of ours.
        status: The HTTP status, or `NOT_PROCESSED`.
        body: The decoded answer, or the error's.
    """

    key: bytes | None
    status: int
    body: Any


def read_keys(path: Path) -> Iterator[bytes]:
    """The keys of the requests in an input file of ours, in order."""
    with path.open("rb") as file:
        for line in file:
            yield bytes.fromhex(json.loads(line)["custom_id"])


def read_answers(path: Path) -> Iterator[BatchAnswer]:
    """The answers in an output or error file, in its order.

    Raises:
        DatasetError: a line is not an answer; file and line are named. A file that is just being written is told by this.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _answer(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise DatasetError(
                    f"{path}, line {number}: not an answer of a batch ({error})",
                    field="batch",
                    fix="is the file whole? Put it there again, or delete it to have its requests answered anew",
                ) from error


def _answer(document: Mapping[str, Any]) -> BatchAnswer:
    key, error, response = _key(document["custom_id"]), document.get("error"), document.get("response")
    if response is None:
        if error is None:
            raise ValueError("neither a response nor an error")
        if isinstance(error, Mapping) and error.get("code") in _UNPROCESSED_CODES:
            return BatchAnswer(key, NOT_PROCESSED, None)
        return BatchAnswer(key, 500, {"error": error})
    status = response.get("status_code", 200)
    if not isinstance(status, int):
        raise TypeError(f"status_code must be a number, not {status!r:.40}")
    # vLLM puts an error's body beside the response.
    body = error if response.get("body") is None else response["body"]
    if status == 200 and not (isinstance(body, Mapping) and isinstance(body.get("choices"), list)):
        return BatchAnswer(key, 502, body)
    return BatchAnswer(key, status, body)


def _key(custom_id: object) -> bytes | None:
    try:
        return bytes.fromhex(str(custom_id))
    except ValueError:
        return None
