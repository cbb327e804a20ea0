"""The embedded backend where it cannot work: one line that says why. (What it answers is tested in integration.)"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmrank.backends import _llama, local
from llmrank.backends.local import LocalBackend, LocalOptions
from llmrank.errors import BackendError, ConfigError, SetupError
from llmrank.types import Message, Prompt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "smolm2-135m-instruct"}, r"backend\.model: no such embedded model .*did you mean 'smollm2-135m-instruct'"),
        ({"context_window": 0}, r"backend\.context_window: is too small"),
        ({"slots": 0}, r"backend\.slots: is too small"),
        ({"n_threads": 0}, r"backend\.n_threads: must be positive"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    """The field, the value, the fix."""
    with pytest.raises(ConfigError, match=message):
        LocalOptions(**options)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the backend is made, not at the first prompt."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'llmrank\[local\]'"):
        LocalBackend()


def test_a_missing_file_is_refused_when_the_backend_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is not looked up among the names."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=r"backend\.model: no such file .*smollm2-135m-instruct"):
        LocalBackend(LocalOptions(model=str(tmp_path / "none.gguf")))


async def test_a_failed_fetch_is_not_tried_again_for_every_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first prompt's error is the error of all."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    tried: list[str] = []

    def fail(model: str) -> Path:
        tried.append(model)
        raise SetupError("no network")

    monkeypatch.setattr(local, "fetch_weights", fail)
    backend = LocalBackend()
    prompt = Prompt(messages=(Message("user", "hi"),))
    for _ in range(3):
        with pytest.raises(SetupError, match="no network"):
            await backend.generate(prompt)
    await backend.aclose()
    assert tried == ["smollm2-135m-instruct"]
    with pytest.raises(BackendError, match="closed"):
        await backend.generate(prompt)


async def test_a_prompt_that_nobody_waits_for_any_more_does_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while it queues, it is never started; cancelled while it runs, it is told."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    backend = LocalBackend()
    monkeypatch.setattr(backend, "_loaded", lambda: SimpleNamespace())
    started = asyncio.Event()
    loop = asyncio.get_running_loop()
    told: list[bool] = []

    def work(llama: Any, cancelled: Any) -> None:
        loop.call_soon_threadsafe(started.set)
        told.append(cancelled.wait(timeout=10))

    running = asyncio.create_task(backend._run(work))
    await started.wait()
    queued = asyncio.create_task(backend._run(lambda llama, cancelled: told.append(False)))
    await asyncio.sleep(0)
    queued.cancel()
    running.cancel()
    await asyncio.gather(queued, running, return_exceptions=True)
    await backend.aclose()
    assert told == [True]


def test_the_engine_is_imported_with_sleeping_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings hold while the library is loaded, what the user set stays, and nothing is left behind."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    with _llama._environment({"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}):
        assert (os.environ["OMP_WAIT_POLICY"], os.environ["GOMP_SPINCOUNT"]) == ("passive", "7")
    assert "OMP_WAIT_POLICY" not in os.environ
    assert os.environ["GOMP_SPINCOUNT"] == "7"
