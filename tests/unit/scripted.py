"""A backend whose answers a test writes by hand, for tests of what stands above backends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from llmrank.backends.base import BackendBase
from llmrank.errors import BackendError
from llmrank.protocols import ModelInfo
from llmrank.types import Capability, Completion, ContinuationScore, Prompt, Usage

Script = Callable[[Prompt], "str | Completion | BackendError | None"]


def shown(prompt: Prompt) -> dict[str, str]:
    """Label -> text of the candidates that a prompt shows, read from the prompt as a model would."""
    text = "\n".join(message.content for message in prompt.messages)
    lines = [line.strip() for line in text.splitlines()]
    return {label: line.partition("] ")[2] for label in prompt.labels for line in lines if line.startswith(f"[{label}] ")}


class ScriptedBackend(BackendBase):
    """Answers chats by a function of the prompt, scores continuations by another.

    Args:
        script: The text to answer, a Completion, or an error to raise.
        loglik: The log-likelihood of a continuation after a prefix; None if this backend cannot score.
        window: The context window it reports.
        delay: Seconds before each answer.
    """

    def __init__(
        self,
        script: Script = lambda prompt: None,
        *,
        loglik: Callable[[str, str], float] | None = None,
        window: int | None = None,
        delay: float = 0.0,
    ) -> None:
        super().__init__("scripted", "by-hand")
        self._script, self._loglik, self._window, self._delay = script, loglik, window, delay
        self.prompts: list[Prompt] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.closed = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset({"generate"}) if self._loglik is None else frozenset({"generate", "score"})

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"kind": "scripted"}

    async def info(self) -> ModelInfo:
        return ModelInfo(context_window=self._window)

    async def generate(self, prompt: Prompt) -> Completion:
        answer = await self._answered(prompt, self._script)
        if isinstance(answer, BackendError):
            raise answer
        if isinstance(answer, Completion):
            return answer
        return Completion(answer, "stop", Usage(prompt_tokens=100, completion_tokens=10, calls=1), model="by-hand")

    async def score(self, prompt: Prompt) -> Completion:
        loglik = self._loglik
        assert loglik is not None
        scores = [ContinuationScore(loglik(prompt.prefix, text), len(text.split())) for text in prompt.continuations]
        await self._answered(prompt, lambda _: None)
        return Completion(scores=tuple(scores), usage=Usage(prompt_tokens=50, calls=1), model="by-hand")

    async def _answered(self, prompt: Prompt, script: Script) -> str | Completion | BackendError | None:
        self.prompts.append(prompt)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._delay)
            return script(prompt)
        finally:
            self.in_flight -= 1

    async def aclose(self) -> None:
        self.closed += 1
