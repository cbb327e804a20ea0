"""How prompts are put into files and who answers those: what a batch is told, and what it tells of its progress."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from llmrank.errors import ConfigError
from llmrank.scale.batch.files import MOST_BYTES, MOST_REQUESTS
from llmrank.scale.batch.jobs import Patience

Via: TypeAlias = Literal["openai", "files"]


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How prompts are put into files, and who answers those.

    Attributes:
        via: ``openai`` submits the files to the Batch API of the backend's server; ``files`` leaves them to be answered by
            something else (vLLM's ``run-batch``) and stops until the answers are there.
        requests_per_file, bytes_per_file: The limits of one file.
        endpoint: The path that the requests are for; some servers (Azure) name it without ``/v1``.
        completion_window: The time that the server is given.
        max_rounds: In how many batches one request is asked that expires, gets lost or fails for passing reasons.
        wait: False submits what there is to submit, looks once, and stops with AnswersPendingError.
        retry_errors: True asks again what the folder keeps an error to.
        poll_s, poll_most_s: Seconds between two looks at a batch: at first, and at most.
        trouble_s: For how many seconds the server may be out of reach before it is given up.
        queue_s: For how many seconds the account's queue may be too full to take a batch.

    Raises:
        ConfigError: a value is out of its range.
    """

    via: Via = "openai"
    requests_per_file: int = MOST_REQUESTS
    bytes_per_file: int = MOST_BYTES
    endpoint: str = "/v1/chat/completions"
    completion_window: str = "24h"
    max_rounds: int = 3
    wait: bool = True
    retry_errors: bool = False
    poll_s: float = 15.0
    poll_most_s: float = 300.0
    trouble_s: float = 3600.0
    queue_s: float = 172_800.0

    def __post_init__(self) -> None:
        if self.via not in ("openai", "files"):
            raise ConfigError("unknown", field="batch.via", value=self.via, fix="use openai or files")
        for name in ("requests_per_file", "bytes_per_file", "max_rounds"):
            if getattr(self, name) < 1:
                raise ConfigError("is too small", field=f"batch.{name}", value=getattr(self, name), fix="give at least 1")
        for name in ("poll_s", "poll_most_s", "trouble_s", "queue_s"):
            if not 0 <= (seconds := getattr(self, name)) < math.inf:
                raise ConfigError("is no time", field=f"batch.{name}", value=seconds, fix="give seconds from 0 on")

    @property
    def patience(self) -> Patience:
        """Its part for the jobs."""
        return Patience(self.poll_s, self.poll_most_s, self.trouble_s, self.queue_s, self.wait)


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        wave: The wave's number, from 1; 0 before the first.
        requests: How many requests it has.
        states: How many of its files are in which state (see `wave.State`).
        ranked: How many requests to the Ranker have been answered so far.
        unknown: How many answers of this wave were to requests that are not in its files.
    """

    wave: int = 0
    requests: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    ranked: int = 0
    unknown: int = 0
