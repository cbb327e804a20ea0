"""Texts go in, the vectors that ``/v1/embeddings`` of any OpenAI-compatible server gives for them come out.

The client is the synchronous one: an embedder is called in a thread, and has no loop to wait in.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from llmrank.backends._openai_errors import translate
from llmrank.backends._openai_transport import OPENAI_URL, PLACEHOLDER_KEY, checked_url, is_local, public_url
from llmrank.errors import BackendError, ConfigError, DeadlineError, ServerError, SetupError
from llmrank.retrieval.text import well_formed
from llmrank.retrieval.vectors import Vectors, normalise

if TYPE_CHECKING:
    from tenacity import RetryCallState


@dataclass(frozen=True, slots=True)
class OpenAIEmbedderOptions:
    """How to ask an embedding server.

    Args:
        model: The model's name, as the server knows it.
        base_url: Where the API is, with its ``/v1``; None for ``OPENAI_BASE_URL`` or else OpenAI itself.
        api_key_env: The environment variable that holds the key.
        dimensions: Asks for shorter vectors, where the model can; None for the model's own length.
        batch_size: Texts in one request.
        max_concurrency: Requests at once.
        timeout_s: The most seconds that one attempt may wait for the server.
        max_attempts, deadline_s: Bounds on the attempts for one request and on their time together, in seconds.
        initial_wait_s, max_wait_s: The wait before the second attempt, and the longest wait between two.
        extra_body: Further fields of the request, as they are (``{"input_type": "passage"}``).
    """

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    dimensions: int | None = None
    batch_size: int = 256
    max_concurrency: int = 4
    timeout_s: float = 60.0
    max_attempts: int = 6
    deadline_s: float = 120.0
    initial_wait_s: float = 0.5
    max_wait_s: float = 20.0
    extra_body: Mapping[str, Any] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("must name a model", field="prefilter.embedder.model", value=self.model, fix="give its name")
        for name in ("dimensions", "batch_size", "max_concurrency", "timeout_s", "max_attempts", "deadline_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(
                    "must be positive", field=f"prefilter.embedder.{name}", value=value, fix="give a number above 0"
                )


class OpenAIEmbedder:
    """Asks an embedding server, in batches, several at once; safe to use from several threads.

    Args:
        options: See `OpenAIEmbedderOptions`.

    Raises:
        SetupError: the SDK or the key is missing.
        ConfigError: the URL is not one.
    """

    def __init__(self, options: OpenAIEmbedderOptions) -> None:
        if importlib.util.find_spec("openai") is None:
            raise SetupError("the package 'openai' is missing: pip install 'openai[aiohttp]'")
        import openai

        self._options = options
        url = checked_url(options.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL)
        self._url, self._address = public_url(url), urlsplit(public_url(url)).netloc
        self._key = os.environ.get(options.api_key_env, "").strip()
        if not self._key and not is_local(url):
            raise SetupError(f"no API key for {self._address}: set the environment variable {options.api_key_env}")
        self._client = openai.OpenAI(
            api_key=self._key or PLACEHOLDER_KEY, base_url=url, timeout=options.timeout_s, max_retries=0
        )
        # Whoever forgets `close` still leaves no open socket behind.
        self._close = weakref.finalize(self, self._client.close)
        self._closed = threading.Event()
        self._dimension = options.dimensions
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.model!r})"

    @property
    def model(self) -> str:
        """Model and address: two servers may know different models by one name."""
        length = f" {self._options.dimensions}" if self._options.dimensions else ""
        extra = f" {sorted(self._options.extra_body.items())}" if self._options.extra_body else ""
        return f"{self._options.model}{length}{extra} at {self._url}"

    @property
    def dimension(self) -> int:
        """The length of a vector, known from the first answer; asks the server for one if there was none yet.

        Raises:
            BackendError: the server did not answer.
        """
        if self._dimension is None:
            self.embed(["."])
        if self._dimension is None:
            raise ServerError(f"{self._address}: no vector came back")
        return self._dimension

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit vector a text, shape (len(texts), dimension); zero for an empty text, which servers refuse.

        Raises:
            BackendError: the server did not answer in the attempts and the time allowed, or refused; or `close` was called.
        """
        filled = [at for at, text in enumerate(texts) if text.strip()]
        size = self._options.batch_size
        batches = [[well_formed(texts[at]) for at in filled[start : start + size]] for start in range(0, len(filled), size)]
        answers = self._all(batches)
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if answers:
            vectors[filled] = np.concatenate(answers)
        return vectors

    def close(self) -> None:
        """Closes the connections and asks nothing more; what waits in other threads ends in an error. May be called twice."""
        self._closed.set()
        self._close()

    def _all(self, batches: list[list[str]]) -> list[Vectors]:
        if len(batches) <= 1 or self._options.max_concurrency == 1:
            return [self._batch(batch) for batch in batches]
        with ThreadPoolExecutor(self._options.max_concurrency, thread_name_prefix="llmrank-embed") as pool:
            # After the first failure `map` cancels what has not begun: it need not be paid for.
            return list(pool.map(self._batch, batches))

    def _batch(self, texts: list[str]) -> Vectors:
        from tenacity import Retrying, retry_if_exception, sleep_using_event, stop_after_attempt

        options = self._options
        attempts = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, BackendError) and error.retryable),
            stop=stop_after_attempt(options.max_attempts),
            wait=self._wait(),  # which also ends it at the deadline
            sleep=sleep_using_event(self._closed),  # so that `close` ends it, too
            reraise=True,
        )
        return attempts(self._once, texts)

    def _wait(self) -> Callable[[RetryCallState], float]:
        from tenacity import wait_random_exponential

        backoff = wait_random_exponential(multiplier=self._options.initial_wait_s, max=self._options.max_wait_s)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if state.attempt_number >= self._options.max_attempts:
                return 0.0  # tenacity asks for the wait before it finds that no attempt is left
            seconds = max(backoff(state), getattr(error, "retry_after", None) or 0.0)
            spent = state.seconds_since_start or 0.0
            if spent + seconds > self._options.deadline_s:
                message = f"the next attempt would begin {spent + seconds:.1f} s after the first, beyond deadline_s"
                raise DeadlineError(f"{message} ({self._options.deadline_s:g}); last: {error}") from error
            return seconds

        return wait

    def _once(self, texts: list[str]) -> Vectors:
        if self._closed.is_set():
            raise BackendError(f"{self._address} is not asked any more: the embedder is closed")
        try:
            answer = self._client.embeddings.create(model=self._options.model, input=texts, **self._fields())
            rows = sorted(answer.data, key=lambda row: row.index)
            vectors = normalise(np.asarray([row.embedding for row in rows], dtype=np.float32))
        except (ValueError, TypeError, AttributeError) as error:
            # The SDK does not check answers: what is not of the protocol shows only when it is used.
            raise ServerError(f"{self._address} answered with something that is no list of embeddings: {error}") from error
        except Exception as error:
            ours = translate(error, self._address, secret=self._key)
            if ours is None:
                raise
            raise ours from error
        return self._checked(vectors, len(texts))

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self._options.dimensions:
            fields["dimensions"] = self._options.dimensions
        if self._options.extra_body:
            fields["extra_body"] = dict(self._options.extra_body)
        return fields

    def _checked(self, vectors: Vectors, count: int) -> Vectors:
        if vectors.ndim != 2 or len(vectors) != count:
            raise ServerError(f"{self._address} gave {len(vectors)} embeddings for {count} texts")
        with self._lock:
            if self._dimension is None:
                self._dimension = vectors.shape[1]
            if vectors.shape[1] != self._dimension:
                raise ServerError(f"{self._address} gave vectors of {vectors.shape[1]} numbers instead of {self._dimension}")
        return vectors
