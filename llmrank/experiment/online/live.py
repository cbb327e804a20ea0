"""An experiment file and users' ids go in; each user's Ranker comes out, and what the user was shown is logged."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from llmrank.errors import CapabilityError, ClosedError, ConfigError, InputError, RequestError, SetupError, nearest
from llmrank.experiment.online.assignment import Assignment, OnlineOptions, assign, online_of
from llmrank.experiment.online.event import Event, click, exposure, impression, outcome
from llmrank.experiment.online.events import EventLog
from llmrank.experiment.online.interleaving import Interleaved, team_draft
from llmrank.experiment.online.reading_options import reading_of
from llmrank.types import Item, Ranking

if TYPE_CHECKING:
    from llmrank.backends.lending import BackendPool
    from llmrank.catalog import Catalog
    from llmrank.experiment.spec import Spec
    from llmrank.ranker import Ranker

OnLogError: TypeAlias = Literal["warn", "raise"]

REMEMBERED = 100_000
"""Of how many users a process remembers that it logged their exposure; for others it writes the same event again."""

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InterleavedRanking:
    """What one user is shown at one time.

    Attributes:
        items: The items, in the order in which they are shown.
        teams: For each item, whose pick it was: ``a`` (the control), ``b``, or None.
        variants: The variants' names by team; None where the user does not take part and sees one variant's ranking.
        rankings: What was ranked, by variant.
    """

    items: tuple[Item, ...]
    teams: tuple[Literal["a", "b"] | None, ...]
    variants: Mapping[str, str] | None
    rankings: Mapping[str, Ranking]

    @property
    def item_ids(self) -> list[str]:
        """The ids, in the order in which they are shown."""
        return [item.id for item in self.items]


class Experiment:
    """An A/B test of Rankers on live users. Threads may share it.

    Assignment is a function of the user's id and the options, without any I/O; only what is logged touches the disk. Closing it
    (or leaving a ``with`` block) closes its Rankers.

    Args:
        name: The experiment's, as in its log.
        rankers: The variants' Rankers, by name.
        options: Who gets which variant: `OnlineOptions`, or a mapping like the section ``online`` of an experiment file. None:
            every user takes part, and variants have equal shares.
        control: The variant of those who do not take part; None for the first (or that of the options).
        log: Where exposures, outcomes, impressions and clicks go; None: nothing is logged.
        on_log_error: What is done when the log cannot be written: ``warn`` (by `logging`, and counted in `unlogged`; users get
            their rankings all the same) or ``raise``.

    Raises:
        ConfigError: the options do not fit the variants, or a value is wrong.
    """

    def __init__(
        self,
        name: str,
        rankers: Mapping[str, Ranker],
        options: OnlineOptions | Mapping[str, Any] | None = None,
        *,
        control: str | None = None,
        log: EventLog | None = None,
        on_log_error: OnLogError = "warn",
    ) -> None:
        if not rankers:
            raise ConfigError("names no variant", field="rankers", fix="name at least one: {plain: Ranker(...)}")
        if on_log_error not in get_args(OnLogError):
            raise ConfigError("unknown", field="on_log_error", value=on_log_error, fix="use warn or raise")
        self.name = name
        self.rankers: Mapping[str, Ranker] = dict(rankers)
        self.log = log
        self.on_log_error = on_log_error
        self.unlogged = 0
        """How many events could not be written since the start."""
        self._closed = False
        self._lock = threading.Lock()
        self._logged: dict[str, str] = {}  # the last variant that each user's exposure was logged for, oldest first
        self._closing = ExitStack()
        if control is None and not isinstance(options, OnlineOptions):
            control = next(iter(self.rankers))
        self._options = self._checked(options, control)
        for ranker in self.rankers.values():
            self._closing.callback(ranker.close)

    @classmethod
    def from_config(
        cls,
        config: str | Path | Mapping[str, Any] | Spec,
        *,
        catalog: Catalog | str | Path | None = None,
        log: EventLog | str | Path | None = None,
        on_log_error: OnLogError = "warn",
    ) -> Experiment:
        """Builds all variants' Rankers from an experiment file, so that a mistake in any of them is found at the start.

        Args:
            config: The file or a dict of the same form. Its `name`, `variants`, `control` and `online` count here.
            catalog: Where ids are looked up: a Catalog, an item file, or None for what each variant's configuration names.
            log: An EventLog, or the path of one, which is then closed with the experiment.
            on_log_error: As above.

        Raises:
            ConfigError: the file is wrong, or a variant's configuration is; also if a variant is a baseline.
            SetupError: a package, key or file that a variant needs is missing.
            CapabilityError: a variant's strategy needs what its backend cannot do.
        """
        from llmrank.backends.lending import BackendPool
        from llmrank.catalog import Catalog
        from llmrank.experiment.spec import load_spec

        spec = load_spec(config)
        options = online_of(spec.online, tuple(spec.variants), spec.base, spec.name)
        reading_of(
            (spec.online or {}).get("reading"), spec.alpha
        )  # nobody looks at it before there is a log, so it is checked now
        if isinstance(catalog, str | Path):
            catalog = Catalog.load(catalog)
        with ExitStack() as opened:
            own_log = None
            if isinstance(log, str | Path):
                log = own_log = opened.enter_context(EventLog.open(log))
            pool = BackendPool()  # variants with the same backend, which differ in their prompts, share one
            rankers = {name: opened.enter_context(_built(name, each, catalog, pool)) for name, each in spec.variants.items()}
            built = cls(spec.name, rankers, options, log=log, on_log_error=on_log_error)
            if own_log is not None:
                built._closing.callback(own_log.close)
            opened.pop_all()  # all went well: what was opened is closed with the experiment
        return built

    @property
    def options(self) -> OnlineOptions:
        """Who gets which variant, as it is now."""
        return self._options

    def update(self, options: OnlineOptions | Mapping[str, Any] | None) -> None:
        """Puts other options in place at once, for all threads: a call uses the old ones or the new ones, never a mixture.

        Args:
            options: As for the constructor; a mapping keeps the control. Whatever it leaves out is the default again, also the
                salt: the experiment's name.

        Raises:
            ConfigError: they do not fit the variants, a value is wrong, or the salt or the layer's name is another one, which
                would deal all users anew in the middle of an experiment; then the old ones stay.
        """
        with self._lock:
            new = self._checked(options, None if isinstance(options, OnlineOptions) else self._options.control)
            old_layer, new_layer = (each.layer.name if each.layer else None for each in (self._options, new))
            for name, old, its in (("salt", self._options.salt, new.salt), ("layer", old_layer, new_layer)):
                if old != its:
                    fix = f"keep {old!r}, or begin another experiment"
                    raise ConfigError("deals all users anew while they are asked", field=f"online.{name}", value=its, fix=fix)
            self._options = new

    def kill(self) -> None:
        """The kill switch: from now on everybody in this process gets the control, and nobody is exposed."""
        with self._lock:
            self._options = replace(self._options, enabled=False)

    def assign(self, user_id: str) -> Assignment:
        """A user's variant and whether the user takes part. Nothing is logged.

        Raises:
            RequestError: the id is empty or no text.
        """
        return assign(self._options, user_id)

    def variant_for(self, user_id: str) -> str:
        """The name of a user's variant. Nothing is logged: call `expose` when the user is about to see it."""
        return self.assign(user_id).variant

    def ranker_for(self, user_id: str) -> Ranker:
        """The Ranker of a user's variant, for a ranking that the user is about to see: this logs the exposure (`expose`).

        Raises:
            ClosedError: the experiment was closed.
        """
        if self._closed:  # before an exposure is logged of what nobody will see
            raise ClosedError(f"the experiment {self.name} was closed; open it anew")
        return self.rankers[self.expose(user_id).variant]

    def expose(self, user_id: str) -> Assignment:
        """Assigns a user and logs the exposure, if the user takes part: once in this process, and as one event in all.

        Raises:
            RequestError: the id is empty or no text.
            OSError, ClosedError: the log cannot be written, and `on_log_error` is ``raise``.
        """
        found = self.assign(user_id)
        new = found.exposed and self.log is not None and self._logged.get(user_id) != found.variant
        if new and self._write(exposure(self.name, user_id, found.variant)):
            self._remember(found)
        return found

    def outcome(self, user_id: str, name: str, value: float = 1.0, *, event_id: str) -> None:
        """Logs what a user did: a purchase, an amount, minutes watched.

        Args:
            user_id: The user; outcomes of users who do not take part are logged and do not count.
            name: What it is called: a metric's `event`.
            value: Its amount.
            event_id: What makes it this one and no other, such as the number of the order: with it, repeating is safe.

        Raises:
            InputError: an argument cannot be stored.
            OSError, ClosedError: the log cannot be written, and `on_log_error` is ``raise``.
        """
        self._write(outcome(self.name, user_id, name, value, event_id=event_id))

    def interleave(
        self, user_id: str, impression_id: str, *, against: str | None = None, **arguments: Any
    ) -> InterleavedRanking:
        """Ranks with the control and another variant at once, and lets both draft one list (`team_draft`).

        The impression is logged; give clicks on it to `click`. Use it in place of `ranker_for`, not beside it: every user who
        takes part sees both variants. One who does not gets one variant's ranking, and nothing is logged.

        Args:
            user_id: The user.
            impression_id: Of this list, another one for each list that is shown.
            against: The other variant; may be left out if there is only one.
            arguments: Of `Ranker.rank`: `history`, `candidates`, `query`, `top_k`, `constraints`.

        Raises:
            RequestError: an id is wrong, or it is not clear which variant is meant; also as `Ranker.rank` does.
            BackendError: one of the rankings failed.
            OSError, ClosedError: the log cannot be written, and `on_log_error` is ``raise``.
        """
        found, names, salt = self._asked(user_id, against)
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            futures = [pool.submit(self.rankers[name].rank, user_id=user_id, **arguments) for name in names]
            rankings = [future.result() for future in futures]
        return self._drafted(found, salt, impression_id, dict(zip(names, rankings, strict=True)), arguments.get("top_k"))

    async def ainterleave(
        self, user_id: str, impression_id: str, *, against: str | None = None, **arguments: Any
    ) -> InterleavedRanking:
        """`interleave`, for callers that have an event loop."""
        found, names, salt = self._asked(user_id, against)
        ranked = [self.rankers[name].arank(user_id=user_id, **arguments) for name in names]
        rankings = await asyncio.gather(*ranked, return_exceptions=True)  # both end before an error goes on
        by_name: dict[str, Ranking] = {}
        for name, each in zip(names, rankings, strict=True):
            if isinstance(each, BaseException):
                raise each
            by_name[name] = each
        return self._drafted(found, salt, impression_id, by_name, arguments.get("top_k"))

    def click(self, user_id: str, impression_id: str, item_id: str) -> None:
        """Logs a click on an item of an interleaved list; several on one item of one list are one.

        Raises:
            InputError: an argument cannot be stored.
            OSError, ClosedError: the log cannot be written, and `on_log_error` is ``raise``.
        """
        self._write(click(self.name, user_id, impression_id, item_id))

    def close(self) -> None:
        """Closes the Rankers, and the log if `from_config` opened it. May be called twice."""
        self._closed = True
        self._closing.close()

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _checked(self, options: OnlineOptions | Mapping[str, Any] | None, control: str | None) -> OnlineOptions:
        if not isinstance(options, OnlineOptions):
            options = online_of(options, tuple(self.rankers), control or "", self.name)
        elif control is not None and control != options.control:
            fix = f"leave it out, or put {control!r} into the options"
            raise ConfigError("the options have another one", field="control", value=options.control, fix=fix)
        if different := set(options.weights) ^ set(self.rankers):
            name = min(different)
            what = "there is no Ranker of this name" if name in options.weights else "is missing"
            raise ConfigError(what, field=f"online.weights.{name}", fix=nearest(name, self.rankers))
        return options

    def _asked(self, user_id: str, against: str | None) -> tuple[Assignment, tuple[str, ...], str]:
        """Who asks, the names of the variants that rank for this user, and the salt of the coins."""
        options = self._options
        others = [name for name in self.rankers if name != options.control]
        if against is None and len(others) != 1:
            fix = f"one of {', '.join(others)}"
            raise RequestError("say which variant meets the control", field="against", fix=fix)
        if against is not None and against not in others:
            raise RequestError("is no variant beside the control", field="against", value=against, fix=nearest(against, others))
        found = assign(options, user_id)
        names = (options.control, against or others[0]) if found.exposed else (found.variant,)
        return found, names, options.salt

    def _drafted(
        self, found: Assignment, salt: str, impression_id: str, rankings: Mapping[str, Ranking], top_k: int | None
    ) -> InterleavedRanking:
        items = {ranked.id: ranked.item for ranking in rankings.values() for ranked in ranking.items}
        if len(rankings) == 1:
            return InterleavedRanking(tuple(items.values()), (None,) * len(items), None, rankings)
        a, b = rankings
        # As a list, so that no two users and impressions are alike when joined.
        seed = json.dumps([salt, found.unit, impression_id])
        drafted: Interleaved = team_draft(rankings[a].item_ids, rankings[b].item_ids, k=top_k, seed=seed)
        variants = {"a": a, "b": b}
        self._write(impression(self.name, found.unit, impression_id, drafted.items, drafted.teams, variants))
        return InterleavedRanking(tuple(items[each] for each in drafted.items), drafted.teams, variants, rankings)

    def _write(self, event: Event) -> bool:
        """Whether an event was written."""
        if self.log is None:
            return False
        try:
            self.log.write(event)
        except Exception as error:  # whatever a disk or a database comes up with, it must not cost a user's ranking
            if self.on_log_error == "raise":
                raise
            with self._lock:
                self.unlogged += 1
            _LOGGER.warning("experiment %s: an event (%s) could not be logged: %s", self.name, event.kind, error)
            return False
        return True

    def _remember(self, found: Assignment) -> None:
        with self._lock:
            self._logged.pop(found.unit, None)
            self._logged[found.unit] = found.variant
            if len(self._logged) > REMEMBERED:
                del self._logged[next(iter(self._logged))]


def _built(name: str, config: Mapping[str, Any], catalog: Catalog | None, pool: BackendPool) -> Ranker:
    """A variant's Ranker; errors say which variant is meant."""
    from llmrank.config import build_ranker

    if "baseline" in config:
        fix = "a live variant is a Ranker's configuration: {backend: ...}"
        raise ConfigError("baselines rank in evaluations only", field=f"variants.{name}", value=config["baseline"], fix=fix)
    try:
        return build_ranker(config, catalog=catalog, pool=pool)
    except InputError as error:
        field = f"variants.{name}.{error.field}" if error.field else f"variants.{name}"
        raise type(error)(error.message, field=field, value=error.value, fix=error.fix) from error
    except (CapabilityError, SetupError) as error:
        raise type(error)(f"variants.{name}: {error}") from error
