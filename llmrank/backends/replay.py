"""Prompts go in; recorded answers come out (`ReplayBackend`), or another backend's answers, recorded (`RecordingBackend`)."""

from __future__ import annotations

import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from llmrank.backends._recording import FORMAT, Header, load_recording, located, other_settings, parse_header, text_key
from llmrank.backends.base import BackendBase
from llmrank.backends.wrapper import Ask, BackendWrapper
from llmrank.codec import Json, document_key, dump_completion, dump_error, dump_prompt, load_error
from llmrank.errors import BackendError, ConfigError, DatasetError, ReplayMissError, SetupError, shorten
from llmrank.protocols import Backend, ModelInfo
from llmrank.types import Capability, Completion, Prompt


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Where the recording is, and what makes it.

    Args:
        path: The recording.
        record: The configuration of the backend to record; None to answer from the recording.
    """

    path: str
    record: Mapping[str, Any] | None = None


class ReplayBackend(BackendBase):
    """Answers from a recording, with the model name, the capabilities and the window of the model that was recorded.

    The same prompt recorded several times: an answer supersedes errors; at temperature 0 the last answer counts; above it the
    answers come in recorded order, and then the last one again. (Samples that `Prompt.sample` tells apart are different
    prompts, each with its own answer.)

    Args:
        path: The recording.

    Raises:
        ConfigError: there is no such file.
        DatasetError: a line is malformed; file and line are named.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        self._recording = load_recording(self.path)
        self._asked: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        super().__init__("replay", self._recording.header.model)

    @property
    def header(self) -> Header:
        """What the recording says of the backend that answered."""
        return self._recording.header

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those of the recorded backend."""
        return self.header.capabilities

    @property
    def identity(self) -> Mapping[str, Any]:
        """Kind, model and a digest of the recording: other answers, another identity."""
        return {"kind": self.kind, "model": self.model, "recording": self._recording.digest}

    @property
    def remote(self) -> bool:
        """No server is asked."""
        return False

    async def info(self) -> ModelInfo:
        """The recorded window. How the recorded model counts tokens is not known here."""
        return ModelInfo(context_window=self.header.context_window)

    async def generate(self, prompt: Prompt) -> Completion:
        """The recorded answer. Raises the recorded error (never `retryable` now), or ReplayMissError."""
        return self._replay(prompt)

    async def score(self, prompt: Prompt) -> Completion:
        """The recorded scores. Raises the recorded error (never `retryable` now), or ReplayMissError."""
        return self._replay(prompt)

    def _replay(self, prompt: Prompt) -> Completion:
        document = dump_prompt(prompt)
        key = document_key(document)
        outcomes = self._recording.outcomes.get(key)
        if outcomes is None:
            raise ReplayMissError(self._miss(document))
        with self._lock:
            turn = self._asked[key]
            self._asked[key] += 1
        outcome = outcomes[min(turn, len(outcomes) - 1)]
        if isinstance(outcome, Completion):
            return outcome
        error = load_error(outcome)  # a new object each time: raised errors gather tracebacks
        error.retryable = False  # whatever its class: asking a recording again does not help
        raise error

    def _miss(self, document: dict[str, Json]) -> str:
        messages = document.get("messages")
        beginning = messages[-1]["content"] if messages else document.get("prefix", "")
        message = f"{self.path} has no answer to the prompt that begins {shorten(beginning, 60)}"
        recorded = self._recording.settings.get(text_key(document))
        if recorded is not None:
            asked = other_settings(document)
            names = sorted(name for name in asked.keys() | recorded.keys() if asked.get(name) != recorded.get(name))
            message += f" (the same text is recorded, but with another {', '.join(names)})"
        return f"{message}; record it with backend: {{kind: replay, path: {self.path}, record: {{kind: ...}}}}"


class RecordingBackend(BackendWrapper):
    """Asks `inner` and appends every answer and every BackendError to a recording, each as soon as it is there.

    Inside the guard it sees each attempt: an answer supersedes the errors before it when it is replayed; an attempt that the
    deadline cuts off, and an answer out of the cache, never come by here. So record without a cache, or put this outside.
    Safe under concurrency: several loops and threads may ask, and several processes may append.

    Args:
        inner: The backend to record.
        path: The recording; made, with its folders, if it is missing, else continued.

    Raises:
        ConfigError: the file cannot be written.
        DatasetError: the file exists and is no recording, or its last line is cut off.
    """

    def __init__(self, inner: Backend, path: str | Path) -> None:
        super().__init__(inner)
        self.path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._begun = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = self.path.open("a+b")
        except OSError as error:
            raise ConfigError(
                f"cannot be written ({error.strerror})", field="backend.path", value=str(path), fix="name a file that can be"
            ) from error
        try:
            self._recorded = self._read_header()
        except BaseException:
            self._file.close()
            raise

    async def around(self, prompt: Prompt, ask: Ask) -> Completion:
        """Asks and records.

        Raises:
            BackendError: the inner backend's, recorded. (While the model is not known, because the inner backend's `info`
                fails, nothing is recorded.)
            ConfigError: the recording is of another model.
            SetupError: the file cannot be written any more.
        """
        await self._begin()
        document = dump_prompt(prompt)
        line: dict[str, Json] = {"key": document_key(document), "prompt": document}
        try:
            answer = await ask(prompt)
        except BackendError as error:
            self._append(line | {"error": dump_error(error)})
            raise
        self._append(line | {"answer": dump_completion(answer)})
        return answer

    async def aclose(self) -> None:
        """Closes the inner backend and the file."""
        try:
            await super().aclose()
        finally:
            with self._lock:
                self._file.close()

    async def _begin(self) -> None:
        """Writes the header before the first prompt, or compares it with the one that is there."""
        if self._begun:
            return
        window = (await self._inner.info()).context_window  # first: some backends learn their model's name by it
        with self._lock:
            if self._begun:
                return
            if self._recorded is None:
                self._write(
                    {
                        "recording": FORMAT,
                        "kind": self.kind,
                        "model": self.model,
                        "capabilities": sorted(self.capabilities),
                        "context_window": window,
                        "identity": dict(self.identity),
                    }
                )
            elif (self._recorded.kind, self._recorded.model) != (self.kind, self.model):
                there = f"{self._recorded.kind} model {self._recorded.model!r}"
                raise ConfigError(
                    f"is a recording of {there}, not of {self.kind} model {self.model!r}",
                    field="backend.path",
                    value=str(self.path),
                    fix="record into another file",
                )
            self._begun = True

    def _append(self, line: Mapping[str, Json]) -> None:
        with self._lock:
            self._write(line)

    def _write(self, line: Mapping[str, Json]) -> None:
        # For people, text stays as it is; only half surrogate pairs, which UTF-8 cannot hold, are escaped.
        text = re.sub(
            "[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", json.dumps(line, ensure_ascii=False, allow_nan=False)
        )
        try:
            # One write of one whole line to a file opened for appending: lines of several processes do not mix.
            self._file.write(text.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise SetupError(
                f"the recording {self.path} cannot be written: {error.strerror}; make room or name another"
            ) from error

    def _read_header(self) -> Header | None:
        """The header of the file that is there; None if it is empty."""
        self._file.seek(0)
        first = self._file.readline()
        if not first:
            return None
        self._file.seek(-1, os.SEEK_END)
        if self._file.read(1) != b"\n":
            raise DatasetError(f"{self.path}: the last line is cut off", field="backend.path", fix="delete that line")
        with located(self.path, 1):
            return parse_header(json.loads(first))
