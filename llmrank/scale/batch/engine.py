"""A Ranker, requests and a folder go in, Rankings come out in order, their prompts answered by files of a batch API.

Flows are deterministic. So every request's flow is run as far as the answers reach that are known; the prompts that lack one
are written to files, a *wave*; when its answers are back, all flows are started anew and go further; until none lacks an
answer. Windows, repairs and templates of several steps take a wave a step.

All state is on disk, and memory does not grow with the number of requests::

    DIR/batch.json        what the folder belongs to: the model and its settings, the window, the dialects that refusals taught
    DIR/answers.sqlite    what the server said to each request, errors too
    DIR/wave-0001/        the first wave's files (see `wave`)

Kill it at any moment and run it again with the same arguments: it goes on, and no batch is made twice.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias

from llmrank._portal import Portal
from llmrank.backends._negotiation import Dialect
from llmrank.backends._openai_errors import Refusal, error_of
from llmrank.backends._openai_transport import OpenAITransport
from llmrank.backends.cache import HIT, CachedBackend
from llmrank.backends.openai import OpenAIBackend
from llmrank.backends.vllm import VLLMBackend
from llmrank.backends.wrapper import BackendWrapper
from llmrank.budget import Budget
from llmrank.cache import AnswerCache
from llmrank.codec import cache_key
from llmrank.driver import advance
from llmrank.errors import AnswersPendingError, BackendError, CapabilityError, ClosedError, ConfigError, LLMRankError
from llmrank.ranker import Ranker
from llmrank.scale.batch.api import BatchAPI
from llmrank.scale.batch.files import NOT_PROCESSED, BatchAnswer, read_answers, read_keys
from llmrank.scale.batch.jobs import WaveRunner
from llmrank.scale.batch.journal import Journal
from llmrank.scale.batch.offline import KnownDialects, StoredTransport, UnansweredError, batchable, offline
from llmrank.scale.batch.options import BatchOptions, BatchProgress
from llmrank.scale.batch.store import AnswerStore
from llmrank.scale.batch.wave import TAKEN, Part, Wave, WaveWriter, load_wave, waves
from llmrank.types import Completion, Prompt, Ranking, RankRequest

PRICE_FACTOR: Final = 0.5
"""What a token costs in a batch at OpenAI, of its ordinary price."""

OnProgress: TypeAlias = Callable[[BatchProgress], None]
OnAnswer: TypeAlias = Callable[[Prompt, Completion], None]


def batch_rank(
    ranker: Ranker,
    requests: Callable[[], Iterable[RankRequest]],
    folder: str | Path,
    options: BatchOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    on_answer: OnAnswer | None = None,
) -> Iterator[Ranking]:
    """Ranks a stream of requests by a batch API: one Ranking a request, in the order of the requests.

    As with `Ranker.rank_many`, whatever is wrong with one request, or remains an error after `max_rounds`, becomes a Ranking
    with status ``error``; the others go on. Prompts of a batch wait for nobody: `Usage.seconds` and `latency` are 0. A prompt
    that several requests share is asked once, and counted with each of them.

    The Ranker's answer cache, if it has one, is read and filled: what a live run has paid for is not put into a file, and a
    live run afterwards finds what the batch brought. Answers out of this folder count as calls in `Ranking.usage`, also when
    an earlier process fetched them.

    Which settings a model refuses, a live call finds out in seconds and a batch in a wave: rank one request live first, with
    the same Ranker, where that may be so.

    Args:
        ranker: Its backend is of kind ``openai`` or ``vllm``. It stays open.
        requests: Gives all requests, the same in the same order, each time it is called; once a wave.
        folder: Where the state is kept; made if it is missing. One for each Ranker.
        options: How.
        on_progress: Called with what has changed. An exception that it raises ends the run, which may go on later.
        on_answer: Called with each answer that the batch brought and that the Ranker's answer cache does not have yet, just
            before it is put there: once for each, also over several runs. (Without a cache, in every wave anew.) At OpenAI it
            costs `PRICE_FACTOR` times the ordinary price.

    Returns:
        An iterator; all work is done as it is read. Rankings come as soon as all those before them are done.

    Raises:
        CapabilityError: the backend or the strategy cannot be put into files; or, as it is read, the server has no Batch API.
        ConfigError: the backend names no model; or, as it is read, the folder belongs to another model, or another process is
            at work in it.
        AnswersPendingError: as it is read: the answers are not there yet, and nobody here waits for them.
        BackendError: as it is read: the Batch API refuses; what was answered before is kept.
    """
    return _Run(ranker, requests, Path(folder), options or BatchOptions(), on_progress, on_answer).rankings()


class _Run:
    """One process's work on a folder."""

    def __init__(
        self,
        ranker: Ranker,
        requests: Callable[[], Iterable[RankRequest]],
        folder: Path,
        options: BatchOptions,
        on_progress: OnProgress | None,
        on_answer: OnAnswer | None,
    ) -> None:
        self._ranker, self._requests, self._folder, self._options = ranker, requests, folder, options
        self._live, self._caches = _unwrapped(ranker)
        self._on_progress: OnProgress = on_progress or (lambda progress: None)
        self._on_answer: OnAnswer = on_answer or (lambda prompt, answer: None)
        self._progress = BatchProgress()

    def rankings(self) -> Iterator[Ranking]:
        from filelock import FileLock, Timeout

        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(self._folder / ".lock", timeout=0))
            except Timeout as error:
                fix = "wait for it, or use a folder of your own"
                raise ConfigError("another process is at work here", field="batch", value=str(self._folder), fix=fix) from error
            self._portal = Portal()
            stack.callback(self._portal.finish, _nothing)
            self._store = AnswerStore(self._folder / "answers.sqlite")
            stack.callback(self._store.close)
            if self._options.retry_errors:
                self._store.forget_errors()
            self._open()
            yield from self._waves()

    def _open(self) -> None:
        """Begins the folder or goes on with it, and makes the backend that answers from it."""
        options, live = self._options, self._live
        self._journal = Journal(self._folder)
        begun = self._journal.begun
        first = live.chat.negotiator.dialect if isinstance(live, OpenAIBackend) else Dialect.for_url(live.transport.base_url)
        self._dialects = KnownDialects(self._journal.dialects if begun else [first])
        self._transport = StoredTransport(
            self._store, live.transport, url=options.endpoint, reachable=options.via == "openai" and not begun
        )
        self._backend = offline(live, self._transport, self._dialects)
        told = self._portal.call(self._backend.info)
        # The first run's window stays: the prompts of a later run must be the same, wherever it runs.
        window = self._journal.window if begun else told.context_window
        self._budget = Budget.of(replace(told, context_window=window), self._backend.model)
        self._journal.begin(self._backend.identity, self._budget.counter.name, window, self._dialects.dialects)

    def _waves(self) -> Iterator[Ranking]:
        number = 0
        for path in waves(self._folder):
            wave = load_wave(path)
            number = wave.number
            if wave.open_parts:
                self._settle(wave)
        ranked = 0
        while True:
            number += 1
            self._store.begin_wave()
            with WaveWriter(
                self._folder,
                number,
                most_requests=self._options.requests_per_file,
                most_bytes=self._options.bytes_per_file,
            ) as writer:
                in_order = True
                for request in islice(self._requests(), ranked, None):
                    ranking = self._advance(request, writer)
                    in_order = in_order and ranking is not None
                    if in_order and ranking is not None:
                        ranked += 1
                        self._progress = replace(self._progress, ranked=ranked)
                        yield ranking
                self._journal.learn(self._dialects.dialects)  # first: what is asked must be put the same way later
                wave_written = writer.finish()
            if wave_written is None:
                self._on_progress(self._progress)
                return
            self._settle(wave_written)

    def _advance(self, request: RankRequest, writer: WaveWriter) -> Ranking | None:
        """The Ranking of a request, or None if answers are missing; the prompts that lack one are written."""
        try:
            outcome = advance(self._ranker.flow(request, self._budget), lambda prompt: self._answer(prompt, writer))
        except (CapabilityError, ClosedError):
            raise  # true of every request
        except LLMRankError as error:
            return Ranking(
                (), status="error", error=error, strategy=self._ranker.strategy.name, user_id=getattr(request, "user_id", None)
            )
        return outcome if isinstance(outcome, Ranking) else None

    def _answer(self, prompt: Prompt, writer: WaveWriter) -> Completion | BackendError | None:
        if prompt.kind == "score":
            raise CapabilityError(_NO_SCORES.format(self._ranker.strategy.name))
        self._transport.sample = prompt.sample
        try:
            answer = self._portal.call(self._backend.generate, prompt)
        except UnansweredError as missing:
            if (kept := self._cached(prompt)) is not None:
                return replace(kept, usage=HIT, spared=kept.usage + kept.spared)
            if self._store.ask(missing.request.key):
                writer.add(missing.request)
            return None
        except BackendError as error:
            return error
        # What is measured while a kept answer is read is not what it took.
        answer = replace(answer, usage=replace(answer.usage, seconds=0.0))
        if self._cached(prompt) is None:
            self._on_answer(prompt, answer)
            self._cache(prompt, answer)
        return answer

    def _cached(self, prompt: Prompt) -> Completion | None:
        """What one of the Ranker's own answer caches has."""
        if not self._caches:
            return None
        key = self._key(prompt)
        try:
            return next((found[key] for cache in self._caches if key in (found := cache.get([key]))), None)
        except sqlite3.Error as error:
            raise _broken(error) from error

    def _cache(self, prompt: Prompt, answer: Completion) -> None:
        """Keeps an answer where a live run would have kept it."""
        if not ((answer.text and answer.text.strip()) or answer.label_logprobs):
            return
        try:
            for cache in self._caches:
                cache.put({self._key(prompt): answer})
        except sqlite3.Error as error:
            raise _broken(error) from error

    def _key(self, prompt: Prompt) -> bytes:
        return cache_key(prompt, self._backend.identity)

    def _settle(self, wave: Wave) -> None:
        """Comes back when all answers to a wave are kept."""

        def report() -> None:
            self._progress = replace(
                self._progress,
                wave=wave.number,
                requests=wave.requests,
                states=Counter(part.state for part in wave.parts),
                unknown=sum(part.unknown for part in wave.parts),
            )
            self._on_progress(self._progress)

        report()
        if self._options.via == "files":
            self._settle_by_hand(wave, report)
            return
        transport = self._live.transport
        if not isinstance(transport, OpenAITransport):
            raise CapabilityError("the backend has no connection of its own; write files instead (via: files)")
        runner = WaveRunner(
            wave,
            BatchAPI(transport, endpoint=self._options.endpoint, window=self._options.completion_window),
            self._journal.id,
            lambda part: self._take(wave, part),
            self._options.patience,
            report,
        )
        self._portal.call(runner.run)

    def _settle_by_hand(self, wave: Wave, report: Callable[[], None]) -> None:
        waiting = []
        for part in wave.open_parts:
            if wave.output_path(part).exists() or wave.error_path(part).exists():
                self._take(wave, part)
                part.state = TAKEN
                wave.save()
                report()
            else:
                waiting.append(part)
        if waiting:
            asked, answered = wave.input_path(waiting[0]), wave.output_path(waiting[0])
            others = f" (and {len(waiting) - 1} more files like it)" if len(waiting) > 1 else ""
            command = ["vllm", "run-batch", "-i", str(asked), "-o", str(answered), "--model", self._backend.model]
            raise AnswersPendingError(
                f"{sum(part.requests for part in waiting):,} requests wait for their answers: have {asked}{others} answered "
                f"into {answered}, for instance by `{shlex.join(command)}`, then run this again"
            )

    def _take(self, wave: Wave, part: Part) -> None:
        address = self._live.transport.address

        def transient(answer: BatchAnswer) -> bool:
            if answer.status == NOT_PROCESSED:
                return True
            return error_of(Refusal.of_body(answer.status, answer.body), address).retryable

        paths = [path for path in (wave.error_path(part), wave.output_path(part)) if path.exists()]
        part.unknown = self._store.take(
            f"{wave.name}/{part.number}",
            read_keys(wave.input_path(part)),
            (answer for path in paths for answer in read_answers(path)),
            transient=transient,
            most_rounds=None if part.state in {"failed", "cancelled"} else self._options.max_rounds,
        )


_NO_SCORES: Final = (
    "strategy {!r} scores continuations, which no batch API does; use one that asks in a chat (listwise), or run it live"
)


def _unwrapped(ranker: Ranker) -> tuple[OpenAIBackend | VLLMBackend, list[AnswerCache]]:
    """The backend that talks to the server, and the answer caches around it."""
    backend: Any = ranker.backend
    caches = []
    while isinstance(backend, BackendWrapper):
        if isinstance(backend, CachedBackend):
            caches.append(backend.cache)
        backend = backend.inner
    live = batchable(backend)
    if live is None:
        raise CapabilityError(
            f"backend {ranker.backend.kind!r} cannot be asked by files; the kinds that can: openai, vllm; or run it live"
        )
    if isinstance(live, VLLMBackend) and not live.options.model:
        fix = "name the model as its server or run-batch will serve it"
        raise ConfigError("is missing: prompts that travel in files cannot ask which it is", field="backend.model", fix=fix)
    if "score" in ranker.strategy.needs:
        raise CapabilityError(_NO_SCORES.format(ranker.strategy.name))
    return live, caches


def _broken(error: sqlite3.Error) -> ConfigError:
    # Not passed over as in a live run: nothing is lost by stopping here.
    fix = "mend or remove the file and run again; all answers are in the batch's folder"
    return ConfigError(f"the answer cache failed ({error})", field="cache.path", fix=fix)


async def _nothing() -> None:
    """The portal's last act: ending its loop closes the connections that were opened on it."""
