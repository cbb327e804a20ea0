# ruff: noqa: ASYNC240 - files of a few lines, in tests that do nothing else meanwhile
"""Recordings: what is recorded comes back, what is not is refused, and a bad file is named with its line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from llmrank.backends.guard import Limits, guard
from llmrank.backends.replay import RecordingBackend, ReplayBackend
from llmrank.errors import (
    BackendError,
    ConfigError,
    DatasetError,
    RateLimitError,
    ReplayMissError,
    ServerError,
    UnreachableError,
)
from llmrank.protocols import ModelInfo
from llmrank.types import Completion, Message, Prompt, Usage
from tests.unit.scripted import ScriptedBackend
from tests.unit.test_codec import COMPLETIONS
from tests.unit.virtual_time import now, run

ANSWER = Completion("[B] > [A]", "stop", Usage(prompt_tokens=100, completion_tokens=9, calls=1), model="m")


def prompt(text: str = "Rank: Amélie\nAlien", **others: Any) -> Prompt:
    """A chat of one message."""
    return Prompt(messages=(Message("user", text),), **others)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the recording is; the folder does not exist yet."""
    return tmp_path / "new" / "answers.jsonl"


async def record(path: Path, *pairs: tuple[Prompt, Completion | BackendError]) -> None:
    """Records the answers, one after another."""
    script = iter([answer for _, answer in pairs])
    backend = RecordingBackend(ScriptedBackend(lambda _: next(script), loglik=lambda a, b: -1.5, window=4096), path)
    for asked, answer in pairs:
        if isinstance(answer, BackendError):
            with pytest.raises(type(answer)):
                await backend.generate(asked)
        else:
            await backend.generate(asked)
    await backend.aclose()


async def test_what_was_recorded_comes_back(path: Path) -> None:
    """Answers and scores are replayed with their usage, under the recorded model, capabilities and window."""
    server = ScriptedBackend(lambda prompt: ANSWER, loglik=lambda prefix, text: -len(text) / 3, window=4096)
    recorder = RecordingBackend(server, path)
    scoring = Prompt(prefix="Films:\n", continuations=("Alien", "Heat"))
    generated, scored = await recorder.generate(prompt()), await recorder.score(scoring)
    await recorder.aclose()

    replay = ReplayBackend(path)
    assert await replay.generate(prompt()) == generated == ANSWER
    assert await replay.score(scoring) == scored
    assert (replay.kind, replay.model, replay.capabilities) == ("replay", server.model, server.capabilities)
    assert await replay.info() == ModelInfo(context_window=4096)
    assert not replay.remote
    assert server.closed == 1


async def test_a_recording_is_for_people(path: Path) -> None:
    """One JSON line a prompt, after a header that names the model; texts stand as they are; no ids, no fingerprint."""
    await record(path, (prompt(item_ids=("603",), fingerprint="f00"), ANSWER))
    header, line = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert header == {
        "recording": 1,
        "kind": "scripted",
        "model": "by-hand",
        "capabilities": ["generate", "score"],
        "context_window": 4096,
        "identity": {"kind": "scripted"},
    }
    assert line["prompt"] == {"messages": [{"role": "user", "content": "Rank: Amélie\nAlien"}]}
    assert line["answer"]["text"] == "[B] > [A]"
    assert "Amélie" in path.read_text(encoding="utf-8")
    assert "603" not in path.read_text(encoding="utf-8")
    assert "f00" not in path.read_text(encoding="utf-8")


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(COMPLETIONS)
def test_any_answer_can_be_recorded(tmp_path: Path, completion: Completion) -> None:
    """Any text, line separators and half surrogate pairs included, survives the file."""
    path = tmp_path / "answers.jsonl"
    path.unlink(missing_ok=True)
    asked = prompt(completion.text or "x")
    asyncio.run(record(path, (asked, completion)))
    assert asyncio.run(ReplayBackend(path).generate(asked)) == completion


async def test_each_line_is_there_at_once(path: Path) -> None:
    """An answer is in the file before it is returned: a run that is killed keeps what it had."""
    recorder = RecordingBackend(ScriptedBackend(lambda prompt: ANSWER), path)
    await recorder.generate(prompt())
    assert await ReplayBackend(path).generate(prompt()) == ANSWER
    await recorder.aclose()


async def test_recording_many_at_once(path: Path) -> None:
    """A hundred concurrent prompts give a header and a hundred whole lines."""
    recorder = RecordingBackend(ScriptedBackend(lambda prompt: prompt.messages[0].content * 500, delay=0.001), path)
    await asyncio.gather(*[recorder.generate(prompt(str(number))) for number in range(100)])
    await recorder.aclose()
    assert len(path.read_text(encoding="utf-8").splitlines()) == 101
    replay = ReplayBackend(path)
    for number in range(100):
        assert (await replay.generate(prompt(str(number)))).text == str(number) * 500


async def test_what_was_not_recorded_is_refused(path: Path) -> None:
    """The error shows the prompt's beginning, what differs from a recorded prompt of the same text, and how to record."""
    await record(path, (prompt(), ANSWER))
    replay = ReplayBackend(path)
    with pytest.raises(
        ReplayMissError, match=r"begins 'Something else'; record it with backend: \{kind: replay, path: .*record:"
    ):
        await replay.generate(prompt("Something else"))
    with pytest.raises(ReplayMissError, match=r"the same text is recorded, but with another max_tokens, sample\)"):
        await replay.generate(prompt(max_tokens=64, sample=2))


async def test_an_error_is_replayed_as_its_class(path: Path) -> None:
    """A recorded error is raised again, each time as a new object."""
    await record(path, (prompt(), RateLimitError("429: slow down", retry_after=20)))
    replay = ReplayBackend(path)
    with pytest.raises(RateLimitError, match="429: slow down") as first:
        await replay.generate(prompt())
    with pytest.raises(RateLimitError) as second:
        await replay.generate(prompt())
    assert first.value.retry_after == 20
    assert first.value is not second.value


def test_a_replayed_error_is_not_waited_for(path: Path) -> None:
    """Retries around a recording ask it once: it has nothing else to say."""

    async def main() -> None:
        await record(path, (prompt(), RateLimitError("429", retry_after=20)))
        with pytest.raises(RateLimitError, match=r"^429$"):
            await guard(ReplayBackend(path)).generate(prompt())
        assert now() < 0.01

    run(main())


def test_an_answer_supersedes_errors(path: Path) -> None:
    """Recorded inside the guard, a prompt that was answered at its second attempt is replayed as answered."""

    async def main() -> None:
        script: Iterator[Any] = iter([UnreachableError("reset"), ANSWER])
        backend = guard(RecordingBackend(ScriptedBackend(lambda prompt: next(script)), path), limits=Limits(jitter=False))
        await backend.generate(prompt())
        await backend.aclose()
        assert len(path.read_text().splitlines()) == 3
        assert await ReplayBackend(path).generate(prompt()) == ANSWER

    run(main())


async def test_the_last_answer_counts_at_temperature_0(path: Path) -> None:
    """A prompt recorded anew has its new answer, whatever the order of asking."""
    await record(path, (prompt(), ANSWER))
    await record(path, (prompt(), replace(ANSWER, text="new")), (prompt("other"), ServerError("500")))
    replay = ReplayBackend(path)
    assert [(await replay.generate(prompt())).text for _ in range(2)] == ["new", "new"]


async def test_samples_come_back_in_their_order(path: Path) -> None:
    """Samples told apart by number have their own answers; equal ones come in recorded order, and then the last again."""
    warm = prompt(temperature=1.0)
    texts = ["first", "second", "third"]
    await record(
        path,
        *[(replace(warm, sample=number), Completion(text)) for number, text in enumerate(texts)],
        *[(replace(warm, sample=9), Completion(text)) for text in texts],
    )
    replay = ReplayBackend(path)
    assert [(await replay.generate(replace(warm, sample=number))).text for number in (2, 0, 1)] == ["third", "first", "second"]
    assert [(await replay.generate(replace(warm, sample=9))).text for _ in range(4)] == [*texts, "third"]


async def test_a_recording_is_of_one_model(path: Path) -> None:
    """Continuing the recording of another model is refused before anything is asked or written; recordings of one add up."""

    class Other(ScriptedBackend):
        @property
        def model(self) -> str:
            return "another"

    await record(path, (prompt(), ANSWER))
    before = path.read_text()
    server = Other(lambda prompt: ANSWER)
    recorder = RecordingBackend(server, path)
    with pytest.raises(
        ConfigError, match=r"backend\.path: is a recording of scripted model 'by-hand', not of scripted model 'another'"
    ):
        await recorder.generate(prompt())
    await recorder.aclose()
    assert (server.prompts, path.read_text()) == ([], before)

    path.write_text(before + before)
    assert await ReplayBackend(path).generate(prompt()) == ANSWER


async def test_another_recording_is_another_backend(path: Path) -> None:
    """The identity, and so the answer cache's key, changes with the recording's content."""
    await record(path, (prompt(), ANSWER))
    first = ReplayBackend(path).identity
    assert first == ReplayBackend(path).identity
    await record(path, (prompt("more"), ANSWER))
    assert ReplayBackend(path).identity != first


BREAKS: dict[str, tuple[Callable[[str], str], str]] = {
    "not JSON": (lambda line: "oops", r"line 3: .*(JSON|Expecting)"),
    "cut off": (lambda line: line[:40], r"line 3: "),
    "another form": (lambda line: '{"text": 1}', r"line 3: no object with a prompt"),
    "edited prompt": (lambda line: line.replace("other", "edited"), r"line 3: the key does not belong to the prompt"),
    "edited answer": (lambda line: line.replace('"usage"', '"sauce"'), r"line 3: an answer has no field 'sauce'"),
    "no answer": (lambda line: line.replace('"answer"', '"reply"'), r"line 3: an error must be an object"),
    "a header of another model": (
        lambda line: '{"recording": 1, "kind": "openai", "model": "x", "capabilities": []}',
        r"line 3: a second header, of openai model 'x'",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
async def test_a_malformed_line_is_named(path: Path, name: str) -> None:
    """A line that is not as it was recorded is a DatasetError with file, line and what to do."""
    change, message = BREAKS[name]
    await record(path, (prompt(), ANSWER), (prompt("other"), ANSWER))
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], change(lines[2])]) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"answers\.jsonl, {message}.*delete that line"):
        ReplayBackend(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"key": 1}\n', "line 1: not the header"),
        (b"\xff\n", "line 1: "),
        (b'{"recording": 2}\n', "line 1: not the header"),
        (b'{"recording": 1, "kind": "x", "model": "y", "capabilities": ["fly"]}\n', "line 1: the header's capabilities"),
        (b'{"recording": 1, "kind": "x", "capabilities": []}\n', "line 1: the header lacks kind or model"),
    ],
)
def test_a_file_that_is_no_recording(tmp_path: Path, content: bytes, message: str) -> None:
    """A file without a proper header is refused."""
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        ReplayBackend(path)


def test_a_missing_recording(tmp_path: Path) -> None:
    """No file: a ConfigError that says how to make it."""
    with pytest.raises(ConfigError, match=r"backend\.path: cannot be read .*; record it first with backend: \{kind: replay"):
        ReplayBackend(tmp_path / "none.jsonl")


async def test_a_recording_that_cannot_be_continued(tmp_path: Path) -> None:
    """A folder, another kind of file, and a file whose last line is cut off are refused before anything is asked."""
    with pytest.raises(ConfigError, match=r"backend\.path: cannot be written"):
        RecordingBackend(ScriptedBackend(), tmp_path)
    text = tmp_path / "text"
    text.write_text("hello\n")
    with pytest.raises(DatasetError, match=r"text, line 1: "):
        RecordingBackend(ScriptedBackend(), text)
    path = tmp_path / "answers.jsonl"
    await record(path, (prompt(), ANSWER))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DatasetError, match="the last line is cut off"):
        RecordingBackend(ScriptedBackend(), path)
