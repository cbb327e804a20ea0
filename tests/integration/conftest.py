"""Fixtures of the tests against real components."""

from __future__ import annotations

from tests.integration.vllm_server import vllm_python_and_model, vllm_server

__all__ = ["vllm_python_and_model", "vllm_server"]
