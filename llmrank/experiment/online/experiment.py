"""A user's id goes in, the Ranker of their variant comes out, and that they were exposed is logged: an experiment in a service."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from llmrank.catalog import Catalog
from llmrank.errors import ClosedError, ConfigError, InputError
from llmrank.experiment.online.assignment import Assigner, Assignment
from llmrank.experiment.online.events import EventLog
from llmrank.experiment.online.interleaving import Interleaved, team_draft
from llmrank.experiment.online.options import OnlineOptions, online_of
from llmrank.experiment.online.rankers import build_rankers
from llmrank.ranker import Ranker
from llmrank.sections import load_yaml
from llmrank.types import Constraint, Event, Item, RankedItem, Ranking, RankRequest

if TYPE_CHECKING:
    from llmrank.experiment.online.reading import Covariates, OnlineReading

OnLogError: TypeAlias = Literal["raise", "warn"]

_LOGGER = logging.getLogger("llmrank.experiment")


@dataclass(frozen=True, slots=True)
class Impression:
    """An interleaved list that one user is shown.

    Attributes:
        id: The impression's, for `Experiment.click`.
        unit: The user's id.
        items: The ids, best first.
        interleaved: The same with whose each one is; nobody's for a user who does not take part.
        variants: Who a and b are.
        assignment: Of the user: whether they take part, and why not.
        rankings: What each variant ranked, by name; the control's alone (a tester's: the forced one's) for a user who does not
            take part.
    """

    id: str
    unit: str
    items: tuple[str, ...]
    interleaved: Interleaved
    variants: tuple[str, str]
    assignment: Assignment
    rankings: Mapping[str, Ranking]

    @property
    def ranked_items(self) -> list[RankedItem]:
        """The items themselves, in the order shown, with new ranks; scores are left out, as those of two rankers are no order."""
        found = {each.id: each for ranking in self.rankings.values() for each in ranking.items}
        return [RankedItem(found[name].item, rank) for rank, name in enumerate(self.items, start=1)]


class Experiment:
    """An A/B test of rankers on live users. All methods may be called from any thread.

    Args:
        name: The experiment's, and the salt of its assignment unless the options name another.
        rankers: By variant.
        options: Who takes part.
        control: Whom whoever does not take part gets; None for the first of `rankers`.
        log: Where exposures and outcomes go: an open log, which stays open, or the path of one, which is closed with the
            experiment; None logs nothing (then nothing can be read).
        on_log_error: What is done when the log cannot be written. ``raise``: the error is raised, and a user gets no ranker
            rather than an exposure that nobody knows of. ``warn``: users are served, a warning goes to the logger
            ``llmrank.experiment``, and `unlogged` counts; the exposure is logged at the user's next request that it can be.
        owns_rankers: True closes them with the experiment.

    Raises:
        ConfigError: an option names no variant, there are fewer than two, or the log cannot be opened.
    """

    def __init__(
        self,
        name: str,
        rankers: Mapping[str, Ranker],
        options: OnlineOptions | None = None,
        *,
        control: str | None = None,
        log: EventLog | str | Path | None = None,
        on_log_error: OnLogError = "raise",
        owns_rankers: bool = False,
    ) -> None:
        if on_log_error not in ("raise", "warn"):
            raise ConfigError("unknown", field="on_log_error", value=on_log_error, fix="use raise or warn")
        self.name, self.rankers, self.on_log_error = name, rankers, on_log_error
        self.control = next(iter(rankers), "") if control is None else control
        self._assigner = Assigner(name, tuple(rankers), self.control, options)
        self._owns_log = isinstance(log, str | Path)
        self.log = EventLog.open(log) if isinstance(log, str | Path) else log
        self._owns_rankers = owns_rankers
        self._lock = threading.Lock()
        self._unlogged = 0
        self._closed = False

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any],
        *,
        catalog: Catalog | str | Path | None = None,
        log: EventLog | str | Path | None = None,
        on_log_error: OnLogError = "raise",
        lazy: bool = False,
    ) -> Experiment:
        """Builds the rankers and the experiment from an experiment's YAML file, or a dict of the same form.

        Args:
            config: `name`, `variants` (configurations of rankers, or paths of their files, relative to this one), `control`
                (by default the first variant) and `online`. Other keys are those of offline experiments, and are left alone.
            catalog: Where ids are looked up, for all variants; None for the one that each configuration names.
            log, on_log_error: As for the class.
            lazy: True builds a variant's ranker when it is first asked for; a mistake in its configuration is found now, what
                only building it shows (a missing key or package, a model that does not load) then.

        Raises:
            ConfigError: a key is unknown or a value is wrong, in any variant.
            SetupError, CapabilityError: a variant's ranker cannot be built; the variant is named.
        """
        folder = Path()
        if isinstance(config, str | Path):
            folder = Path(config).parent
            config = load_yaml(config, "experiment")
        name, variants, control = experiment_of(config)
        options = online_of(config.get("online"), tuple(variants), control, name)
        rankers = build_rankers(variants, folder=folder, catalog=catalog, lazy=lazy)
        try:
            return cls(name, rankers, options, control=control, log=log, on_log_error=on_log_error, owns_rankers=True)
        except BaseException:
            rankers.close()
            raise

    @property
    def options(self) -> OnlineOptions:
        """Those that hold now."""
        return self._assigner.options

    @property
    def unlogged(self) -> int:
        """How many events could not be logged, where `on_log_error` is ``warn``."""
        return self._unlogged

    def assign(self, user_id: str) -> Assignment:
        """What a user gets. Nothing is logged: who only looks is not exposed."""
        return self._assigner.assign(user_id)

    def variant_for(self, user_id: str) -> str:
        """The name of a user's variant; logs that they are exposed to it, once."""
        return self.expose(user_id).variant

    def ranker_for(self, user_id: str) -> Ranker:
        """The Ranker of a user's variant; logs that they are exposed to it, once.

        Call it where the ranking is about to be used: a user who is logged and never sees it hides the effect.

        Raises:
            InputError: the id is no text.
            ClosedError: the experiment is closed.
            OSError, sqlite3.Error: the log cannot be written, and `on_log_error` is ``raise``.
        """
        if self._closed:
            raise ClosedError("this Experiment has been closed; make a new one")
        return self.rankers[self.expose(user_id).variant]

    def expose(self, user_id: str) -> Assignment:
        """What a user gets; logs that they are exposed to it, once. For services that have rankers of their own."""
        assignment = self.assign(user_id)
        if assignment.exposed and self.log is not None:
            with self._logging(f"the exposure of user {user_id!r}"):
                self.log.expose(assignment)
        return assignment

    def outcome(
        self, user_id: str, name: str, value: float = 1.0, *, id: str | None = None, time: datetime | None = None  # noqa: A002
    ) -> None:
        """Logs what a user did, whether they take part (yet) or not: the log says who was exposed, and what was before counts as a
        covariate.

        Args:
            user_id: Whose.
            name: What: ``click``, ``purchase``.
            value: How much.
            id: Of what happened, such as the order's number, so that it may be sent again.
            time: When; None for now.

        Raises:
            ConfigError: the experiment has no log.
            InputError: the id or the value is wrong, or `id` was given for something else.
            OSError, sqlite3.Error: the log cannot be written, and `on_log_error` is ``raise``.
        """
        log = self._needs_log()
        with self._logging(f"the outcome {name!r} of user {user_id!r}"):
            log.outcome(user_id, name, value, id=id, experiment=self.name, time=time)

    def kill(self) -> None:
        """Switches the experiment off: from now on everybody gets the control, and nobody is exposed."""
        with self._lock:
            self._assigner = self._with(replace(self.options, enabled=False))

    def update(self, options: OnlineOptions) -> None:
        """Puts other options in the place of those that hold, at once: a call uses the old ones or the new ones, never both.

        Args:
            options: All of them: ``replace(experiment.options, traffic=0.5)``.

        Raises:
            ConfigError: an option names no variant, or salt or layer's name is another, which would deal all users anew.
        """
        with self._lock:
            old = self._assigner
            new = self._with(options)
            if new.salt != old.salt:
                fix = f"keep {old.salt!r}, or begin a new experiment"
                raise ConfigError("would deal all users anew", field="online.salt", value=new.salt, fix=fix)
            if new.options.layer and old.options.layer and new.options.layer.name != old.options.layer.name:
                fix = f"keep {old.options.layer.name!r}, or begin a new experiment"
                raise ConfigError("would move users", field="online.layer.name", value=new.options.layer.name, fix=fix)
            self._assigner = new

    def interleave(
        self,
        user_id: str,
        *,
        history: Sequence[str | Item | Event] = (),
        candidates: Sequence[str | Item] | None = None,
        query: str | None = None,
        top_k: int | None = None,
        constraints: Sequence[Constraint] = (),
        variant: str | None = None,
        impression: str | None = None,
    ) -> Impression:
        """Ranks with the control and with one other variant, both at once, and shows the user a team draft of the two.

        Weights play no part: whoever takes part is shown both. The impression is logged; log what is chosen by `click`.

        Args:
            user_id: Who is shown it.
            history, candidates, query, constraints: As for `Ranker.rank`.
            top_k: How many items to show; both rank all that they can.
            variant: Whom the control is compared with; None for the only other one.
            impression: An id of the impression that comes again if the same page is shown again: the list is the same then, if
                the rankings are. None makes a new one.

        Raises:
            InputError: `variant` is none, or is left out where there are several; or as for `Ranker.rank`.
            BackendError: as for `Ranker.rank`, of either ranker.
            OSError, sqlite3.Error: the log cannot be written, and `on_log_error` is ``raise``.
        """
        request = RankRequest(history, candidates, query, user_id, None, constraints)
        names, assignment, asked = self._pair(user_id, variant)
        with ThreadPoolExecutor(max(1, len(asked) - 1)) as pool:
            others = [pool.submit(_rank, self.rankers[name], request) for name in asked[1:]]
            rankings = [_rank(self.rankers[asked[0]], request), *(other.result() for other in others)]
        return self._drafted(assignment, names, dict(zip(asked, rankings, strict=True)), top_k, impression)

    async def ainterleave(
        self,
        user_id: str,
        *,
        history: Sequence[str | Item | Event] = (),
        candidates: Sequence[str | Item] | None = None,
        query: str | None = None,
        top_k: int | None = None,
        constraints: Sequence[Constraint] = (),
        variant: str | None = None,
        impression: str | None = None,
    ) -> Impression:
        """`interleave`, for callers that have an event loop. The log is written in a thread."""
        request = RankRequest(history, candidates, query, user_id, None, constraints)
        names, assignment, asked = self._pair(user_id, variant)
        rankers = [self.rankers[name] for name in asked]
        rankings = await asyncio.gather(
            *(each.arank(history, candidates, query, None, user_id, constraints) for each in rankers)
        )
        found = dict(zip(asked, rankings, strict=True))
        return await asyncio.to_thread(self._drafted, assignment, names, found, top_k, impression)

    def click(self, impression: Impression, item: str) -> None:
        """Logs that a user chose an item of an interleaved list.

        Raises:
            ConfigError: the experiment has no log.
            InputError: the item was not shown.
            OSError, sqlite3.Error: the log cannot be written, and `on_log_error` is ``raise``.
        """
        if item not in impression.items:
            raise InputError("was not shown", field="item", value=item, fix="give an id of Impression.items")
        log = self._needs_log()
        if impression.assignment.exposed:
            with self._logging(f"the click of user {impression.unit!r}"):
                log.click(impression.unit, impression.id, item, experiment=self.name)

    def read(self, covariates: Covariates | None = None, *, now: datetime | None = None) -> OnlineReading:
        """What the log says of this experiment; `llmrank.experiment.online.reading.read_log` says more.

        Raises:
            ConfigError: the experiment has no log, or a metric's covariate is not given.
            DatasetError: the log holds what is no event.
        """
        from llmrank.experiment.online.reading import read_log

        shares = self._assigner.shares
        return read_log(
            self._needs_log(), self.name, shares, self.control, self.options.reading, covariates=covariates, now=now
        )

    def close(self) -> None:
        """Closes the rankers and the log that it owns. May be called twice."""
        self._closed = True
        if self._owns_rankers:
            for ranker in _built(self.rankers):
                ranker.close()
        if self._owns_log and self.log is not None:
            self.log.close()

    async def aclose(self) -> None:
        """`close`, for callers that have an event loop."""
        self._closed = True
        if self._owns_rankers:
            for ranker in _built(self.rankers):
                await ranker.aclose()
        if self._owns_log and self.log is not None:
            await asyncio.to_thread(self.log.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _with(self, options: OnlineOptions) -> Assigner:
        return Assigner(self.name, tuple(self.rankers), self.control, options)

    def _pair(self, user_id: str, variant: str | None) -> tuple[tuple[str, str], Assignment, tuple[str, ...]]:
        """The two variants, the user's assignment, and which variants have to rank."""
        if self._closed:
            raise ClosedError("this Experiment has been closed; make a new one")
        others = [name for name in self.rankers if name != self.control]
        if variant is None and len(others) > 1:
            raise InputError("is missing", field="variant", fix=f"say which: {', '.join(others)}")
        chosen = others[0] if variant is None else variant
        if chosen not in others:
            fix = f"use one of: {', '.join(others)}"
            raise InputError("is no variant beside the control", field="variant", value=chosen, fix=fix)
        assignment = self.assign(user_id)
        names = (self.control, chosen)
        return names, assignment, names if assignment.exposed else (assignment.variant,)

    def _drafted(
        self,
        assignment: Assignment,
        names: tuple[str, str],
        rankings: Mapping[str, Ranking],
        top_k: int | None,
        impression: str | None,
    ) -> Impression:
        made = uuid.uuid4().hex if impression is None else impression
        if assignment.exposed:
            salt = self._assigner.salt
            drafted = team_draft(*(rankings[name] for name in names), k=top_k, seed=(salt, assignment.unit, made))
        else:
            items = tuple(rankings[assignment.variant].item_ids[:top_k])
            drafted = Interleaved(items, (None,) * len(items))
        if assignment.exposed and self.log is not None:
            with self._logging(f"the impression of user {assignment.unit!r}"):
                self.log.impression(assignment.unit, made, drafted, names, experiment=self.name)
        return Impression(made, assignment.unit, drafted.items, drafted, names, assignment, rankings)

    def _needs_log(self) -> EventLog:
        if self.log is None:
            raise ConfigError("is missing", field="log", fix='give the experiment one: log="events.sqlite"')
        return self.log

    @contextmanager
    def _logging(self, what: str) -> Iterator[None]:
        """Does with errors of the log what was asked for; a caller's mistake is always raised."""
        import sqlite3

        try:
            yield
        except (OSError, sqlite3.Error) as error:
            if self.on_log_error == "raise":
                raise
            with self._lock:
                self._unlogged += 1
            _LOGGER.warning("%s could not be logged: %s", what, error)


def experiment_of(config: object) -> tuple[str, Mapping[str, Any], str]:
    """Name, variants and control of an experiment's configuration.

    Raises:
        ConfigError: one of them is missing or is of another form.
    """
    if not isinstance(config, Mapping):
        fix = "its keys: name, variants, control, online"
        raise ConfigError("must be a mapping", field="experiment", value=config, fix=fix)
    name, variants = config.get("name"), config.get("variants")
    if not isinstance(name, str) or not name:
        raise ConfigError("must be a text", field="name", value=name, fix="give the experiment a name")
    if not isinstance(variants, Mapping) or not all(isinstance(each, str) for each in variants):
        fix = "write variants: {plain: {backend: ...}, recency: {backend: ...}}"
        raise ConfigError("must be rankers by name", field="variants", value=variants, fix=fix)
    control = config.get("control")
    return name, variants, next(iter(variants), "") if control is None else control


def _rank(ranker: Ranker, request: RankRequest) -> Ranking:
    return ranker.rank(
        request.history, request.candidates, request.query, None, request.user_id, request.constraints
    )


def _built(rankers: Mapping[str, Ranker]) -> Sequence[Ranker]:
    from llmrank.experiment.online.rankers import Rankers

    return rankers.built if isinstance(rankers, Rankers) else list(rankers.values())
