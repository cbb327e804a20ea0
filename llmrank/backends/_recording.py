"""A recording, a JSONL file of prompts with their answers, goes in; what to answer to which prompt comes out.

It is for people and for tests without a model. Its first line is the header: what model answered. Each further line is one
prompt with its answer or error::

    {"recording": 1, "kind": "openai", "model": "gpt-4.1-mini", "capabilities": ["generate"], "context_window": 1047576, ...}
    {"key": "9f...", "prompt": {"messages": [...], "max_tokens": 64}, "answer": {"text": "[B] > [A]", ...}}
    {"key": "c1...", "prompt": {"prefix": "...", "continuations": [...]}, "error": {"kinds": ["RateLimitError", ...], ...}}

The key depends on the prompt alone, not on the backend, so that a recording answers wherever the same is asked.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from llmrank.codec import CodecError, Json, document_key, load_completion, load_error
from llmrank.errors import ConfigError, DatasetError
from llmrank.types import Capability, Completion

FORMAT = 1
"""The version of the file's form; stands in the header."""

CAPABILITIES: tuple[Capability, ...] = get_args(Capability)

_TEXT = frozenset({"messages", "prefix", "continuations"})


@dataclass(frozen=True, slots=True)
class Header:
    """A recording's first line: the backend that answered, as it named itself."""

    kind: str
    model: str
    capabilities: frozenset[Capability]
    identity: Mapping[str, Json]
    context_window: int | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory.

    Attributes:
        header: Its first line.
        outcomes: By key, what to answer: completions, or errors as `load_error` reads them.
        settings: By text (messages, prefix, continuations), the other fields of a prompt recorded with it.
        digest: The SHA-256 of the file.
    """

    header: Header
    outcomes: Mapping[str, list[Completion | dict[str, Json]]]
    settings: Mapping[str, dict[str, Json]]
    digest: str


def load_recording(path: Path) -> Recording:
    """Reads a recording whole and checks every line.

    Of a prompt recorded several times, an answer supersedes errors, and at temperature 0 the last answer counts.

    Raises:
        ConfigError: the file cannot be read.
        DatasetError: a line is malformed, or there is none.
    """
    header: Header | None = None
    answers: dict[str, list[Completion]] = defaultdict(list)
    failures: dict[str, dict[str, Json]] = {}
    settings: dict[str, dict[str, Json]] = {}
    digest = hashlib.sha256()
    try:
        with path.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                digest.update(raw)
                with located(path, number):
                    line = json.loads(raw)
                    if header is None or (isinstance(line, dict) and "recording" in line):
                        header = parse_header(line, header)
                        continue
                    key, document, outcome = _parse_line(line)
                settings[text_key(document)] = other_settings(document)
                if not isinstance(outcome, Completion):
                    failures[key] = outcome
                elif document.get("temperature", 0) == 0:
                    answers[key] = [outcome]
                else:
                    answers[key].append(outcome)
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror})",
            field="backend.path",
            value=str(path),
            fix=f"record it first with backend: {{kind: replay, path: {path}, record: {{kind: ...}}}}",
        ) from error
    if header is None:
        raise DatasetError(f"{path} is empty", field="backend.path", fix="record it anew")
    outcomes: dict[str, list[Completion | dict[str, Json]]] = {key: [failure] for key, failure in failures.items()}
    outcomes.update((key, list(completions)) for key, completions in answers.items())
    return Recording(header, outcomes, settings, digest.hexdigest())


@contextmanager
def located(path: Path, number: int) -> Iterator[None]:
    """Turns what is wrong with a line into a DatasetError that names the file and the line."""
    try:
        yield
    except (ValueError, RecursionError) as error:  # json's errors, bad UTF-8 and CodecError are all ValueErrors
        raise DatasetError(
            f"{path}, line {number}: {error}", field="backend.path", fix="delete that line or record the file anew"
        ) from error


def parse_header(line: Json, earlier: Header | None = None) -> Header:
    """The header in a line. Recordings of one model may be put together, so it may come again (`earlier` is the one before).

    Raises:
        CodecError: the line is no header, or one of another model.
    """
    if not isinstance(line, dict) or line.get("recording") != FORMAT:
        raise CodecError(f"not the header of a recording (it has a field 'recording' that is {FORMAT})")
    kind, model, capabilities = line.get("kind"), line.get("model"), line.get("capabilities")
    window, identity = line.get("context_window"), line.get("identity", {})
    if not (isinstance(kind, str) and isinstance(model, str) and isinstance(identity, dict)):
        raise CodecError("the header lacks kind or model, or its identity is no object")
    if not isinstance(capabilities, list) or any(name not in CAPABILITIES for name in capabilities):
        raise CodecError(f"the header's capabilities must be a list of {', '.join(CAPABILITIES)}")
    if window is not None and (not isinstance(window, int) or isinstance(window, bool)):
        raise CodecError("the header's context_window must be a whole number or null")
    if earlier is not None and (earlier.kind, earlier.model) != (kind, model):
        raise CodecError(f"a second header, of {kind} model {model!r} after {earlier.kind} model {earlier.model!r}")
    return Header(kind, model, frozenset(capabilities), identity, window)


def _parse_line(line: Json) -> tuple[str, dict[str, Json], Completion | dict[str, Json]]:
    """Key, prompt and outcome in a line; an error stays a JSON value, but is known to be readable."""
    if not isinstance(line, dict) or not isinstance(line.get("prompt"), dict):
        raise CodecError("no object with a prompt in it")
    document: dict[str, Json] = line["prompt"]
    key = document_key(document)
    if line.get("key") != key:
        raise CodecError("the key does not belong to the prompt, which was edited")
    if "answer" in line:
        return key, document, load_completion(line["answer"])
    load_error(line.get("error"))
    return key, document, line["error"]


def text_key(document: Mapping[str, Json]) -> str:
    """A key of what a prompt says, whatever its other settings; `document` is as `dump_prompt` gives it."""
    return document_key({name: value for name, value in document.items() if name in _TEXT})


def other_settings(document: Mapping[str, Json]) -> dict[str, Json]:
    """The settings of a prompt beside what it says."""
    return {name: value for name, value in document.items() if name not in _TEXT}
