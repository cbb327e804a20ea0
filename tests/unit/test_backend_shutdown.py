"""Backends close while Python ends, when no thread can be started any more: no error, no waiting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import asyncio, atexit, importlib.util, sys
from types import SimpleNamespace

from llmrank.backends.cache import CachedBackend
from llmrank.backends.local import LocalBackend
from llmrank.backends.replay import RecordingBackend
from llmrank.backends.vllm_inprocess import VLLMInProcessBackend, VLLMInProcessOptions, _Engine, _Reply
from llmrank.cache import AnswerCache
from llmrank.types import Completion, Message, Prompt
from tests.unit.scripted import ScriptedBackend

kind, use, folder = sys.argv[1:]
importlib.util.find_spec = lambda name: object()
if kind == "cache":
    cache = AnswerCache(folder + "/answers.sqlite")
    backend = CachedBackend(ScriptedBackend(lambda prompt: "[A]"), cache)
elif kind == "recording":
    backend = RecordingBackend(ScriptedBackend(lambda prompt: "[A]"), folder + "/recording.jsonl")
elif kind == "local":
    backend = LocalBackend()
    backend._load = lambda: SimpleNamespace(close=lambda: print("freed", flush=True))
    backend._generate = lambda llama, prompt, cancelled: Completion("[A]")
else:
    _Engine.__init__ = lambda self, options: None
    _Engine.run = lambda self, tasks: [_Reply(text="[A]") for _ in tasks]
    _Engine.close = lambda self: print("freed", flush=True)
    backend = VLLMInProcessBackend(VLLMInProcessOptions("m"))

atexit.register(lambda: asyncio.run(backend.aclose()))
if use == "used":
    assert asyncio.run(backend.generate(Prompt((Message("user", "x"),)))).text == "[A]"
print("end", flush=True)
"""


@pytest.mark.parametrize("use", ["used", "never used"])
@pytest.mark.parametrize("kind", ["cache", "recording", "local", "vllm-inprocess"])
def test_a_backend_closes_while_python_ends(kind: str, use: str, tmp_path: Path) -> None:
    """`asyncio.run(backend.aclose())` out of an atexit callback frees what there is to free, and complains of nothing."""
    run = subprocess.run(
        [sys.executable, "-X", "dev", "-c", SCRIPT, kind, use, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    frees = use == "used" and kind in {"local", "vllm-inprocess"}
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == ("end\nfreed\n" if frees else "end\n")
    assert not list(tmp_path.glob("*-wal"))  # SQLite leaves it behind if the file was not closed
