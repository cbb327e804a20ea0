"""The Ranker: a RankRequest goes in; it is resolved, prefiltered, ranked by a strategy, fused; a Ranking comes out."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmrank._portal import Portal, wait
from llmrank.backends.guard import CachedBackend, Limits, guard
from llmrank.budget import Budget
from llmrank.cache import AnswerCache
from llmrank.catalog import Catalog
from llmrank.driver import run_flow
from llmrank.errors import BackendError, CapabilityError, ClosedError, ConfigError, LLMRankError, RequestError, nearest
from llmrank.fusion import PARTS, Fusion
from llmrank.protocols import Backend, Flow, Retriever, Strategy
from llmrank.resolve import resolve
from llmrank.strategies.outcome import failed
from llmrank.types import Completion, Constraint, Event, Item, Prompt, Ranking, RankRequest, ResolvedRequest, Wish

if TYPE_CHECKING:
    from llmrank.backends.lending import Lent
    from llmrank.retrieval.constraints import AttributeTable, Narrowed
    from llmrank.retrieval.prefilter import Prefilter, Selection
    from llmrank.understanding import Understanding

OnError: TypeAlias = Literal["raise", "fallback"]

MOST_UNFILTERED = 1000
"""The largest catalogue that is ranked whole without a prefilter."""


class Ranker:
    """Ranks candidates for users by prompting a language model.

    Synchronous and asynchronous calls may be mixed, from any thread. Use it as a context manager, or call `close`.

    Args:
        backend: Reaches the model. Retries, a concurrency limit and the answer cache are put around it here.
        strategy: Turns a request into prompts and their answers into an order.
        catalog: Where ids are looked up; without one, requests hold Items.
        retrievers: What else scores candidates (item-kNN, popularity, ...), as parts of the fusion under their names.
        prefilter: Shortens candidate lists before the model is asked; None ranks them as they are.
        owns_retrieval: True closes the prefilter and the retrievers with the Ranker. By default they stay open, for several
            Rankers may share them; the backend is always closed.
        understanding: Reads what the query of a request says, before anything else is done: what it constrains leaves
            candidates out, and what it wants is what the prefilter looks for. None takes queries as they stand.
        fusion: Weights of the scores of the model, the prefilter and the retrievers in the final order; None for the model's
            order alone.
        limits: How often and how long one prompt is tried; by default 6 times and, if a server answers, 60 seconds.
        cache: Path of the answer cache (SQLite), or None.
        max_concurrency: The most prompts in flight at once; None for what the backend finds right (`concurrency`).
        on_error: What `rank` and `arank` do when the backend does not answer: ``raise`` its error, or return the
            ``fallback`` order with status ``error``. `rank_many` and `arank_many` always return a Ranking.
        lent: What goes with a backend that several Rankers share (`backends.lending.BackendPool`): its concurrency limit, in
            place of `max_concurrency`, and the event loop of the synchronous calls. None for a backend of its own.

    Raises:
        CapabilityError: the strategy, or the understanding of queries, needs what the backend cannot do.
        ConfigError: the fusion weighs a part that this Ranker does not have; the cache cannot be opened.
    """

    def __init__(
        self,
        backend: Backend,
        strategy: Strategy,
        *,
        catalog: Catalog | None = None,
        retrievers: Sequence[Retriever] = (),
        prefilter: Prefilter | None = None,
        owns_retrieval: bool = False,
        understanding: Understanding | None = None,
        fusion: Fusion | None = None,
        limits: Limits | None = None,
        cache: str | Path | None = None,
        max_concurrency: int | None = None,
        on_error: OnError = "raise",
        lent: Lent | None = None,
    ) -> None:
        require(strategy, backend)
        if understanding is not None and "generate" not in backend.capabilities:
            raise CapabilityError(f"to read queries (understanding) needs generate, which backend {backend.kind!r} cannot do")
        if on_error not in ("raise", "fallback"):
            raise ConfigError("unknown", field="limits.on_error", value=on_error, fix="use raise or fallback")
        _check_parts(fusion, retrievers, prefilter)
        if lent is not None:
            max_concurrency = lent.gate.max_concurrency
        self.max_concurrency = backend.concurrency if max_concurrency is None else max_concurrency
        self.backend: Backend = guard(
            backend,
            limits=limits or (Limits() if backend.remote else Limits(deadline_s=None)),
            max_concurrency=self.max_concurrency,
            cache=None if cache is None else AnswerCache(cache),
            gate=None if lent is None else lent.gate,
        )
        self.strategy = strategy
        self.catalog = catalog
        self.retrievers: Mapping[str, Retriever] = {each.name: each for each in retrievers}
        self.prefilter = prefilter
        self.understanding = understanding
        self._attributes: AttributeTable | None = None
        self.fusion = fusion
        self.on_error = on_error
        self._portal = Portal(None if lent is None else lent.thread)
        # A Ranker that nobody closed still frees its connections and its thread, at the latest when Python ends.
        owned = (*([prefilter] if prefilter is not None else []), *retrievers) if owns_retrieval else ()
        self._finalizer = weakref.finalize(self, _shut_down, self._portal, self.backend, owned)

    @classmethod
    def from_config(cls, config: str | Path | Mapping[str, Any], *, catalog: Catalog | str | Path | None = None) -> Ranker:
        """Builds a Ranker from a YAML file or a dict of the same form (docs/configuration.md has all keys).

        Args:
            config: A path, or the configuration itself.
            catalog: Where ids are looked up: a Catalog, an item file, or None for the one named in the configuration.

        Raises:
            ConfigError: a key is unknown (the nearest is named) or a value is wrong.
            SetupError: a package, key or file that the configuration needs is missing.
        """
        from llmrank.config import build_ranker

        return build_ranker(config, catalog=catalog)

    def rank(
        self,
        history: Sequence[str | Item | Event] = (),
        candidates: Sequence[str | Item] | None = None,
        query: str | None = None,
        top_k: int | None = None,
        user_id: str | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> Ranking:
        """Ranks candidates for one user.

        Args:
            history: What the user chose before, oldest first: catalogue ids, Items or Events. May be empty.
            candidates: What to rank: catalogue ids or Items; None for the whole catalogue.
            query: What the user says they want, in a sentence.
            top_k: How many items to return; None for all that were ranked.
            user_id: Comes back on the Ranking; never shown to the model.
            constraints: What every item returned has to be, such as ``Constraint("year", ">=", 1990)``.

        Raises:
            RequestError, UnknownItemError: the request cannot be ranked as it stands, or nothing meets the constraints.
            BudgetError: not even two candidates fit the model's window.
            BackendError: the backend did not answer (unless `on_error` is ``fallback``).
        """
        return self._portal.call(self._rank_strictly, RankRequest(history, candidates, query, user_id, top_k, constraints))

    async def arank(
        self,
        history: Sequence[str | Item | Event] = (),
        candidates: Sequence[str | Item] | None = None,
        query: str | None = None,
        top_k: int | None = None,
        user_id: str | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> Ranking:
        """`rank`, for callers that have an event loop."""
        return await self._rank_strictly(RankRequest(history, candidates, query, user_id, top_k, constraints))

    def rank_many(self, requests: Iterable[RankRequest]) -> Iterator[Ranking]:
        """Ranks a stream of requests: one Ranking a request, in the order of the requests.

        Requests are read ahead of the Rankings, as many as keep the backend busy: at most twice `max_concurrency` are held at
        once. Whatever is wrong with one request (also bad input) becomes a Ranking with status ``error`` and its `error`; the
        others go on. If reading a request fails, the Rankings of those before it come first, then that exception. Closing the
        iterator, or Ctrl-C, cancels what is in flight.
        """
        pending: deque[Future[Ranking]] = deque()
        source = iter(requests)
        failure: Exception | None = None
        try:
            while failure is None:
                try:
                    request = next(source)
                except StopIteration:
                    break
                except Exception as error:  # whatever it is, it is raised again behind what was paid for
                    failure = error
                    break
                pending.append(self._portal.submit(self._rank_or_report, request))
                while pending and (pending[0].done() or len(pending) >= 2 * self.max_concurrency):
                    yield wait(pending.popleft())
            while pending:
                yield wait(pending.popleft())
        finally:
            for future in pending:
                future.cancel()
        if failure is not None:
            raise failure

    async def arank_many(self, requests: Iterable[RankRequest] | AsyncIterable[RankRequest]) -> AsyncIterator[Ranking]:
        """`rank_many`, for callers that have an event loop.

        The requests may come from an asynchronous iterable too; then a Ranking does not wait for the next request.
        """
        self._refuse_closed()
        pending: deque[asyncio.Task[Ranking]] = deque()
        source = _each(requests)
        reading: asyncio.Task[RankRequest] | None = asyncio.create_task(_next(source))
        failure: Exception | None = None
        try:
            while reading is not None or pending:
                room = len(pending) < 2 * self.max_concurrency
                awaited: set[asyncio.Task[Any]] = {*([reading] if reading is not None and room else ()), *list(pending)[:1]}
                await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                if reading is not None and reading.done() and room:
                    try:
                        pending.append(asyncio.create_task(self._rank_or_report(reading.result())))
                        reading = asyncio.create_task(_next(source))
                    except StopAsyncIteration:
                        reading = None
                    except Exception as error:  # whatever it is, it is raised again behind what was paid for
                        reading, failure = None, error
                while pending and pending[0].done():
                    yield pending[0].result()
                    pending.popleft()
        finally:
            tasks = [*pending, *([reading] if reading is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await source.aclose()
        if failure is not None:
            raise failure

    @contextmanager
    def with_cache(self, path: str | Path) -> Iterator[Ranker]:
        """For the length of a block, this Ranker with one more answer cache in front; it shares the model and all else.

        Args:
            path: Path of the answer cache (SQLite). It is closed with the block.

        Raises:
            ConfigError: the cache cannot be opened.
        """
        with closing(AnswerCache(path)) as cache:
            ranker = copy(self)  # the finalizer stays the original's
            ranker.backend = CachedBackend(self.backend, cache)
            yield ranker

    def close(self) -> None:
        """Frees connections, threads and memory. May be called twice."""
        self._finalizer()

    async def aclose(self) -> None:
        """`close`, for callers that have an event loop."""
        await self.backend.aclose()
        await asyncio.to_thread(self._finalizer)

    def __enter__(self) -> Ranker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Ranker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _rank_strictly(self, request: RankRequest) -> Ranking:
        self._refuse_closed()
        ranking = await self._rank(resolve(request, self.catalog))
        return ranking.raise_for_status() if self.on_error == "raise" else ranking

    def _refuse_closed(self) -> None:
        if not self._finalizer.alive:
            raise ClosedError("this Ranker has been closed; make a new one")

    async def _rank_or_report(self, request: RankRequest) -> Ranking:
        try:
            return await self._rank(resolve(request, self.catalog))
        except LLMRankError as error:
            return Ranking(
                (), status="error", error=error, strategy=self.strategy.name, user_id=getattr(request, "user_id", None)
            )

    async def _rank(self, request: ResolvedRequest) -> Ranking:
        if request.constraints or self._understands(request):
            return await self._rank_narrowed(request)
        found = await asyncio.to_thread(self._select, request) if self._retrieves else self._select(request)
        request = found.request
        if found.error is not None:
            return self._finish(found, failed(request.candidates, found.error, strategy=self.strategy.name, fingerprint=""))
        try:
            info = await self.backend.info()
            counter = info.counter
            budget = Budget.of(info, self.backend.model)
            flow = self.asked(request, budget)
            ranking = await run_flow(flow, self.backend, in_thread=counter is not None and counter.remote)
        except BackendError as error:  # the server is not there to tell its model's window or to count tokens
            ranking = _unreached(request, error, self.strategy)
        return self._finish(found, ranking)

    async def _rank_narrowed(self, request: ResolvedRequest) -> Ranking:
        """The same for a request whose candidates are constrained, or whose query is read first."""
        try:
            budget = Budget.of(await self.backend.info(), self.backend.model)
            # In a thread: between two questions the prefilter computes, and the attributes of a catalogue are looked through.
            return await run_flow(self._whole(request, budget), self.backend, in_thread=True)
        except BackendError as error:  # as in `_rank`
            return await asyncio.to_thread(self._unasked, request, error)

    def _unasked(self, request: ResolvedRequest, error: BackendError) -> Ranking:
        """The Ranking of a request about which the server could not be asked anything: what the caller constrains holds."""
        request, narrowed = self._narrowed(request, None)
        found = self._select(request)
        return _told(self._finish(found, _unreached(found.request, error, self.strategy)), narrowed, None)

    def flow(self, request: RankRequest, budget: Budget) -> Flow:
        """One request as a flow, for those who answer its prompts in another way than by asking the backend one by one.

        `llmrank.driver.advance` runs it. The reading of the query, prefilter and fusion are part of it; an embedding server may
        be asked.

        Args:
            request: What to rank.
            budget: The window and the token counter that the prompts are written for.

        Raises:
            RequestError, UnknownItemError: the request cannot be ranked as it stands.
        """
        self._refuse_closed()
        return (yield from self._whole(resolve(request, self.catalog), budget))

    def _whole(self, request: ResolvedRequest, budget: Budget) -> Flow:
        request, narrowed = yield from self.understood(request, budget)
        found = self._select(request)
        if found.error is not None:
            ranking = failed(found.request.candidates, found.error, strategy=self.strategy.name, fingerprint="")
        else:
            ranking = yield from self.asked(found.request, budget)
        return _told(self._finish(found, ranking), narrowed, request.wish)

    def understood(
        self, request: ResolvedRequest, budget: Budget
    ) -> Generator[Sequence[Prompt], Sequence[Completion | BackendError], tuple[ResolvedRequest, Narrowed]]:
        """What comes first: the query is read, where it is to be, and candidates that do not meet constraints are left out.

        Args:
            request: What to rank.
            budget: The window and the token counter that the prompt about the query is written for.

        Returns:
            The request with its `wish` and fewer candidates, and what was left out.

        Raises:
            RequestError: nothing meets the constraints of the request.
        """
        wish = None
        if self.understanding is not None and self._understands(request):
            wish = yield from self.understanding.flow(request, self._table(request), budget)
        return self._narrowed(request, wish)

    def _understands(self, request: ResolvedRequest) -> bool:
        return self.understanding is not None and self.understanding.applies(request)

    def _narrowed(self, request: ResolvedRequest, wish: Wish | None) -> tuple[ResolvedRequest, Narrowed]:
        from llmrank.retrieval.constraints import narrow
        from llmrank.retrieval.subset import Subset

        seen = self.prefilter is not None and self.prefilter.options.drop_seen
        narrowed = narrow(
            request.candidates,
            None if self.catalog is None else self._table(request),
            hard=request.constraints,
            soft=() if wish is None else wish.constraints,
            unwanted={item.id for item in request.history_items} if seen else (),
        )
        candidates = narrowed.candidates
        if self.prefilter is None and isinstance(candidates, Subset):
            if len(candidates) > MOST_UNFILTERED:
                _refuse_unfiltered(len(candidates))
            candidates = tuple(candidates)
        wish = None if wish is None else replace(wish, constraints=narrowed.constraints)
        return replace(request, candidates=candidates, wish=wish), narrowed

    def _table(self, request: ResolvedRequest) -> AttributeTable:
        """The attributes of the catalogue; without one, those of the request's own items."""
        from llmrank.retrieval.constraints import AttributeTable

        if self.catalog is None:
            return AttributeTable(request.candidates)
        if self._attributes is None:
            self._attributes = AttributeTable(self.catalog.items)
        return self._attributes

    def asked(self, request: ResolvedRequest, budget: Budget) -> Flow:
        """What the model is asked for a request that is resolved and shortened: the strategy's flow, without fusion.

        Args:
            request: What to rank.
            budget: The window and the token counter that the prompts are written for.
        """
        return self.strategy.flow(self.request_asked(request), budget)

    def request_asked(self, request: ResolvedRequest) -> ResolvedRequest:
        """The request as the strategy gets it: what the fusion may bring to the first places has to be ranked, too."""
        return replace(request, top_k=None) if self.fusion is not None and self.fusion.needs else request

    @property
    def _retrieves(self) -> bool:
        """Whether something is computed before the model is asked."""
        return self.prefilter is not None or bool(self._weighed)

    @property
    def _weighed(self) -> Sequence[Retriever]:
        """The retrievers whose scores the fusion needs."""
        needs = frozenset() if self.fusion is None else self.fusion.needs
        return [each for name, each in self.retrievers.items() if name in needs]

    def _select(self, request: ResolvedRequest) -> _Found:
        """What is asked about, and all that is known of it without the model; with the error, if a server does not answer."""
        selection = None
        if self.prefilter is None:
            if self.catalog is not None and request.candidates is self.catalog.items:
                _refuse_unfiltered(len(self.catalog))
        else:
            try:
                selection = self.prefilter.select(request)
            except BackendError as error:
                selection = self.prefilter.as_given(request)
                return _Found(replace(request, candidates=selection.candidates), selection, error=error)
            request = replace(request, candidates=selection.candidates)
        scores = {} if selection is None else {"prefilter": _by_id(request.candidates, selection.scores)}
        try:
            for each in self._weighed:
                scores[each.name] = _by_id(request.candidates, each.score(request, request.candidates).tolist())
        except BackendError as error:
            return _Found(request, selection, error=error)
        return _Found(request, selection, scores)

    def _finish(self, found: _Found, ranking: Ranking) -> Ranking:
        cut = ranking.cut
        notes = ranking.notes
        request, selection = found.request, found.selection
        if selection is not None:
            cut = replace(cut, seen=selection.seen, prefiltered=selection.dropped)
            notes += selection.notes
        if self.fusion is not None and found.error is None:
            ids = [each.id for each in ranking.items]
            scores = {name: [by_id[item_id] for item_id in ids] for name, by_id in found.scores.items()}
            ranking = self.fusion.apply(ranking, scores, len(request.history))
        elif self.fusion is not None and self.fusion.needs:
            notes += ("the fusion was left out: not all of its parts have scores for this request",)
        return replace(
            ranking,
            items=ranking.items[: request.top_k],
            shown=tuple(item.id for item in request.candidates),
            cut=cut,
            notes=notes,
            model=ranking.model or self.backend.model,
            user_id=request.user_id,
        )


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known before the model is asked.

    Attributes:
        request: With the candidates that the model is asked about.
        selection: What the prefilter kept, if there is one.
        scores: For each part but the model its scores by item id.
        error: Why a part has none.
    """

    request: ResolvedRequest
    selection: Selection | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    error: BackendError | None = None


def _by_id(items: Sequence[Item], scores: Sequence[float]) -> dict[str, float]:
    return {item.id: score for item, score in zip(items, scores, strict=True)}


def _check_parts(fusion: Fusion | None, retrievers: Sequence[Retriever], prefilter: Prefilter | None) -> None:
    """Refuses retrievers of one name, and a fusion that weighs a part which is not there."""
    names = [each.name for each in retrievers]
    twice = next((name for name in names if names.count(name) > 1 or name in PARTS), None)
    if twice is not None:
        raise ConfigError("two parts have this name", field="retrievers", value=twice, fix="give each a name of its own")
    if fusion is None:
        return
    if prefilter is None and "prefilter" in fusion.needs:
        raise ConfigError(
            "there is no prefilter whose scores could be weighed",
            field="fusion.prefilter",
            value=list(fusion.parts),
            fix="configure a prefilter, or leave this weight out",
        )
    missing = sorted(fusion.needs - {"prefilter", *names})
    if missing:
        raise ConfigError(
            "there is no retriever of this name", field=f"fusion.{missing[0]}", fix=nearest(missing[0], [*PARTS, *names])
        )


def require(strategy: Strategy, backend: Backend) -> None:
    """Refuses a strategy that needs what a backend cannot do.

    Raises:
        CapabilityError: names what is lacking and the kinds of backend that have it.
    """
    lacking = sorted(strategy.needs - backend.capabilities)
    if lacking:
        from llmrank.config import kinds_that_can

        able = ", ".join(kinds_that_can(strategy.needs)) or "none that is built in"
        raise CapabilityError(
            f"strategy {strategy.name!r} needs {', '.join(lacking)}, which backend {backend.kind!r} "
            f"(model {backend.model!r}) cannot do; backends that can: {able}"
        )


def _unreached(request: ResolvedRequest, error: BackendError, strategy: Strategy) -> Ranking:
    """The Ranking of a request about which the server could not be asked anything, with the time that it was waited for."""
    ranking = failed(request.candidates, error, strategy=strategy.name, fingerprint="")
    return replace(ranking, usage=error.usage, spared=error.spared, latency=error.usage.seconds + error.spared.seconds)


def _told(ranking: Ranking, narrowed: Narrowed, wish: Wish | None) -> Ranking:
    """The Ranking with what came of its query and its constraints."""
    return replace(
        ranking,
        cut=replace(ranking.cut, constrained=narrowed.left_out),
        notes=(*(() if wish is None else wish.notes), *narrowed.notes, *ranking.notes),
        wish=wish,
    )


def _refuse_unfiltered(count: int) -> None:
    """A whole catalogue without a prefilter is more likely a slip than a wish, and each prompt of it costs."""
    if count > MOST_UNFILTERED:
        raise RequestError(
            f"{count:,} items of the catalogue would be shown to the model",
            field="candidates",
            fix="configure a prefilter, or give the candidates",
        )


async def _next(source: AsyncIterator[RankRequest]) -> RankRequest:
    return await anext(source)


async def _each(requests: Iterable[RankRequest] | AsyncIterable[RankRequest]) -> AsyncGenerator[RankRequest, None]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


def _shut_down(portal: Portal, backend: Backend, retrieval: Sequence[object]) -> None:
    for part in retrieval:  # first, so that nobody waits for a catalogue that is being embedded
        close = getattr(part, "close", None)
        if close is not None:
            close()
    portal.finish(backend.aclose)
