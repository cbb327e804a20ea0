"""Requests that wait for an answer go in, a wave comes out: a folder of input files, and how far each of them is.

::

    DIR/wave-0001/in-0001.jsonl      requests; the files answering them stand beside it:
    DIR/wave-0001/out-0001.jsonl     output file
    DIR/wave-0001/err-0001.jsonl     error file, where there is one
    DIR/wave-0001/wave.json          how far each file is

A wave appears under its name when all its input files are whole, and not before.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from llmrank.errors import ConfigError
from llmrank.files import write_whole
from llmrank.scale.batch.files import BatchRequest

State: TypeAlias = str
"""``new``, ``uploaded``, ``submitting`` (asked to be made; whether it was is not known), one of the Batch API's own
(``validating``, ``in_progress``, ``finalizing``, ``cancelling`` and those in `ENDED`), or ``taken``: all answers are kept."""

ENDED: Final = frozenset({"completed", "expired", "cancelled", "failed"})
"""The states of a batch that will not change any more."""

TAKEN: Final = "taken"


@dataclass(slots=True)
class Part:
    """One input file of a wave.

    Attributes:
        number: From 1.
        requests: How many it has.
        sha256: Of its bytes.
        state: See `State`.
        input_file_id, batch_id, output_file_id, error_file_id: The Batch API's names for what belongs to it.
        problem: Why the batch failed, in the server's words.
        unknown: How many answers were to requests that are not in the file.
    """

    number: int
    requests: int
    sha256: str
    state: State = "new"
    input_file_id: str | None = None
    batch_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    problem: str | None = None
    unknown: int = 0


@dataclass(slots=True)
class Wave:
    """The input files that are under way together, and their states on disk.

    Attributes:
        folder: Where they are.
        number: From 1.
        created: When it was written, in Unix seconds.
        parts: Its files.
    """

    folder: Path
    number: int
    created: float
    parts: list[Part] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many requests it has."""
        return sum(part.requests for part in self.parts)

    @property
    def open_parts(self) -> list[Part]:
        """Those whose answers are not kept yet."""
        return [part for part in self.parts if part.state != TAKEN]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    def input_path(self, part: Part) -> Path:
        """Where the requests of a part are."""
        return self.folder / f"in-{part.number:04}.jsonl"

    def output_path(self, part: Part) -> Path:
        """Where its answers are, or are to be put."""
        return self.folder / f"out-{part.number:04}.jsonl"

    def error_path(self, part: Part) -> Path:
        """Where its errors are, if the batch has a file of them."""
        return self.folder / f"err-{part.number:04}.jsonl"

    def save(self) -> None:
        """Writes the states down."""
        document = {"number": self.number, "created": self.created, "parts": [asdict(part) for part in self.parts]}
        write_whole(self.folder / "wave.json", [json.dumps(document, indent=1) + "\n"])


def waves(folder: Path) -> list[Path]:
    """The folders of the waves that were begun, in order."""
    return sorted(path for path in folder.glob("wave-????") if path.is_dir())


def load_wave(folder: Path) -> Wave:
    """The wave of a folder.

    Raises:
        ConfigError: its states cannot be read.
    """
    try:
        document = json.loads((folder / "wave.json").read_text(encoding="utf-8"))
        parts = [Part(**part) for part in document["parts"]]
        if not all(type(part.number) is int for part in parts):  # it becomes the name of files, and may be a stranger's
            raise TypeError("a part without a number")
        return Wave(folder, document["number"], document["created"], parts)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"wave.json cannot be read ({error})", field="batch", value=str(folder), fix="begin in a new folder"
        ) from error


class WaveWriter:
    """Writes a wave's input files, as large as the limits allow. Use it as a context manager: what is not finished goes.

    Args:
        folder: The batch's folder.
        number: The wave's number.
        most_requests, most_bytes: The limits of one file. A single request that is larger has a file of its own.
    """

    def __init__(self, folder: Path, number: int, *, most_requests: int, most_bytes: int) -> None:
        self._final = folder / f"wave-{number:04}"
        self._draft = folder / f"wave-{number:04}.part"
        self._most_requests, self._most_bytes = most_requests, most_bytes
        self._wave = Wave(self._draft, number, time.time())
        self._file: BinaryIO | None = None
        self._written = 0
        self._hash = hashlib.sha256()

    def __enter__(self) -> WaveWriter:
        shutil.rmtree(self._draft, ignore_errors=True)  # of a process that was killed as it wrote
        self._draft.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        shutil.rmtree(self._draft, ignore_errors=True)

    def add(self, request: BatchRequest) -> None:
        """Writes one request."""
        parts = self._wave.parts
        full = parts and (parts[-1].requests >= self._most_requests or self._written + len(request.line) > self._most_bytes)
        if not parts or full:
            self._close()
            parts.append(Part(len(parts) + 1, 0, ""))
            self._written, self._hash = 0, hashlib.sha256()
        if self._file is None:
            self._file = self._wave.input_path(parts[-1]).open("wb")
        self._file.write(request.line)
        self._hash.update(request.line)
        self._written += len(request.line)
        parts[-1].requests += 1

    def finish(self) -> Wave | None:
        """The wave, on disk under its name; None if nothing was added."""
        self._close()
        if not self._wave.parts:
            return None
        self._wave.save()
        self._draft.replace(self._final)
        self._wave.folder = self._final
        return self._wave

    def _close(self) -> None:
        if self._file is None:
            return
        self._wave.parts[-1].sha256 = self._hash.hexdigest()
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._file = None
