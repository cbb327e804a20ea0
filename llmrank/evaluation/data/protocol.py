"""Interactions (or given cases) and a protocol go in, cases and what may be learned from come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

import numpy as np

from llmrank.catalog import Catalog
from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.cases import Case
from llmrank.evaluation.data.candidates import Chooser, Listed, MostPopular, Nearest, Sampled, Shuffled, whole_catalogue
from llmrank.evaluation.data.questions import GivenQuestions, LoggedQuestions, Questions
from llmrank.evaluation.data.tally import Tally
from llmrank.evaluation.data.timelines import Cutting
from llmrank.evaluation.folder import Popularity
from llmrank.interactions import Interactions
from llmrank.protocols import Embedder

Splitting: TypeAlias = Literal["given", "leave-last-out", "last-n", "temporal"]
Source: TypeAlias = Literal["given", "sampled", "retrieved", "full"]


@dataclass(frozen=True, slots=True)
class CandidateOptions:
    """Where a case's candidates come from.

    Attributes:
        source: ``given`` (as in the case file), ``sampled`` (the relevant items and others that the user never chose),
            ``retrieved`` (the first that a retriever finds; the relevant ones are not guaranteed to be among them), or
            ``full`` (the whole catalogue: rankers with a prefilter only). None: ``given`` for given cases, else ``sampled``.
        n: How many are sampled (the relevant ones included) or retrieved.
        by: What draws or finds them. Sampled: ``uniform`` or ``popularity``. Retrieved: ``embedding``, ``popularity``, or the
            name of a list in the case file's `retrieved`. None: ``uniform``, or ``embedding``.
        shuffle: True shuffles given and retrieved candidates. Sampled ones are always shuffled.
    """

    source: Source | None = None
    n: int = 20
    by: str | None = None
    shuffle: bool = False

    def __post_init__(self) -> None:
        _at_least("candidates.n", self.n, 1)


@dataclass(frozen=True, slots=True)
class ProtocolOptions:
    """How cases are made: the section `protocol` of a suite.

    Attributes:
        split: ``given`` (a case file), ``leave-last-out`` (a user's last item is to be found), ``last-n`` (the last `n` items),
            or ``temporal`` (what users chose after `cut`, from what all chose before).
        n: For ``last-n`` how many items; for ``temporal`` the most items after the cut that count as relevant, None for all.
        cut: For ``temporal``: an ISO date, Unix seconds, or a part of all interactions between 0 and 1 (0.9: the last tenth is
            asked for). A time without a zone is in UTC. What happened at the cut itself lies after it.
        min_history: Users with fewer items in their history are left out. Given cases all stay.
        users: A random sample of so many users (seeded); None for all. A larger one holds a smaller one, in the same order.
        last_history: Only so many items of each history, the last ones, are shown (0: none), as if the user were new; what is
            hidden of users who are asked about is not learned from either. None for all. `min_history` is of whole histories.
        candidates: What is to be ranked.
    """

    split: Splitting = "leave-last-out"
    n: int | None = None
    cut: float | str | date | None = None
    min_history: int = 1
    users: int | None = None
    last_history: int | None = None
    candidates: CandidateOptions = field(default_factory=CandidateOptions)

    def __post_init__(self) -> None:
        _at_least("min_history", self.min_history, 0)
        for name in ("n", "users"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if self.last_history is not None:
            _at_least("last_history", self.last_history, 0)
        if self.split == "last-n" and self.n is None:
            _refuse("n", "is missing", None, "say how many last items are to be found")
        if self.n is not None and self.split in ("given", "leave-last-out"):
            _refuse("n", f"is not of split {self.split}", self.n, "leave it out, or use last-n")
        if (self.cut is None) == (self.split == "temporal"):
            _refuse("cut", "is for split temporal, which needs it", self.cut, "for instance cut: 0.9, or cut: 2020-01-31")
        if isinstance(self.cut, str | date):
            _seconds(self.cut)
        self._check_candidates()

    def _check_candidates(self) -> None:
        source, by = self.source, self.candidates.by
        if source == "given" and self.split != "given":
            _refuse("candidates.source", "only a case file gives candidates", source, "sampled, retrieved or full")
        if source in ("given", "full") and by is not None:
            _refuse("candidates.by", f"nothing is drawn or retrieved where candidates are {source}", by, "leave it out")
        if source == "sampled" and by not in (None, "uniform", "popularity"):
            _refuse("candidates.by", "nothing draws so", by, "uniform or popularity")
        if source == "retrieved" and self.split != "given" and by not in (None, "embedding", "popularity"):
            _refuse("candidates.by", "only a case file lists more", by, "embedding or popularity")
        if self.last_history == 0 and source == "retrieved" and self.split != "given" and by in (None, "embedding"):
            why = "nothing is near to users of whom nothing is shown"
            _refuse("candidates.by", why, by, "retrieve by popularity, or show some of the history with last_history")

    @property
    def source(self) -> Source:
        """Where candidates come from, the default filled in."""
        return self.candidates.source or ("given" if self.split == "given" else "sampled")


class Split:
    """Cases, and what may be learned from.

    Attributes:
        sentence: How the cases were made: what is printed on every table.
        training: How popular the items are in what may be learned from; None without interactions. It may be learned from
            what was chosen before what any case asks for (whether it is ranked or not), and with `last_history` from nothing
            that is hidden of users who are asked about.
        count: How many cases there are.
        population: How many there would be of all users.
    """

    def __init__(self, questions: Questions, choose: Chooser, tally: Callable[[], Tally], sentence: str) -> None:
        self._questions, self._choose, self._new_tally = questions, choose, tally
        self._tally = tally()
        self.sentence = sentence
        self.training: Popularity | None = questions.training
        self.count, self.population = questions.count, questions.population

    @property
    def cases(self) -> Iterator[Case]:
        """The cases, one at a time. Each reading of this attribute begins a pass of its own; all passes give the same."""
        tally = self._tally = self._new_tally()
        for question in self._questions:
            case = Case(
                question.user_id,
                question.history,
                self._choose(question),
                question.relevant,
                question.query,
                question.constraints,
            )
            tally.add(case)
            yield case

    @cached_property
    def training_interactions(self) -> Interactions | None:
        """What may be learned from: exactly what `training` counts; None without interactions.

        Each pair of user and item stands once, in the row of its first time; the rows are sorted by user, and a user's by time
        as in the cases' histories. Users and items without any are not part of it. It is made when it is first read.
        """
        return self._questions.training_interactions()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know, a sentence each: complete when `cases` was read to its end."""
        return (*self._questions.notes, *self._tally.notes())


def make_cases(
    options: ProtocolOptions,
    *,
    catalog: Catalog,
    interactions: Interactions | None = None,
    cases: str | Path | None = None,
    seed: int = 0,
    embedder: Embedder | None = None,
    fields: Sequence[str] = ("title",),
) -> Split:
    """Makes cases as a protocol says.

    Cases made from interactions stand in an order that `seed` hashes from the users' ids, so that any first ones are a random
    sample. So do given cases where `options.users` is set; otherwise they stay in the order of the file.

    Args:
        options: The protocol.
        catalog: All items.
        interactions: What cases are made of, and what may be learned from.
        cases: A case file, for split ``given``.
        seed: Of the sample of users, the candidates and their order.
        embedder: For candidates retrieved by ``embedding``.
        fields: What of an item is embedded.

    Returns:
        The cases, made one at a time when they are read.

    Raises:
        ConfigError: the options do not fit what is there; the key is named.
        DatasetError: the data cannot be read, or do not allow it.
        UnknownItemError: a case names an item that the catalogue lacks.
    """
    asked = options.candidates
    questions, splitting = _questions(options, catalog, interactions, cases, seed)
    if options.source == "sampled" and asked.n <= questions.most_relevant:
        why = f"leaves no room beside the {questions.most_relevant} relevant items of a case"
        _refuse("candidates.n", why, asked.n, "ask for more candidates, or fewer relevant items with protocol.n")
    choose, choosing = _chooser(options, catalog, questions.training, seed, embedder, fields)
    order_tells = options.source == "given" and not asked.shuffle
    wanted = asked.n if options.source == "retrieved" else None
    showing = () if options.last_history is None else (_showing(options.last_history, learns=interactions is not None),)
    sentence = "; ".join([splitting, *showing, choosing, *questions.words, f"seed {seed}"])
    return Split(questions, choose, lambda: Tally(wanted=wanted, order_tells=order_tells), sentence[0].upper() + sentence[1:])


def training_of(
    options: ProtocolOptions,
    *,
    catalog: Catalog,
    interactions: Interactions | None = None,
    cases: str | Path | None = None,
    seed: int = 0,
) -> tuple[Interactions, Popularity] | None:
    """What may be learned from, as in the `Split` of the same arguments, without choosing any candidates; None if nothing may.

    Raises:
        LLMRankError: as for `make_cases`.
    """
    questions, _ = _questions(options, catalog, interactions, cases, seed)
    found = questions.training_interactions()
    return None if found is None or questions.training is None else (found, questions.training)


def _questions(
    options: ProtocolOptions,
    catalog: Catalog,
    interactions: Interactions | None,
    cases: str | Path | None,
    seed: int,
) -> tuple[Questions, str]:
    """The questions, and how they were made in words."""
    asked = options.candidates
    questions: Questions
    if interactions is not None:
        _check_items(interactions, catalog)
    if options.split == "given":
        if cases is None:
            _refuse("split", "needs a case file", "given", "name one in `cases`, or choose another split")
        retrieved = asked.by if asked.by not in (None, "embedding", "popularity") and options.source == "retrieved" else None
        sampled = options.source == "sampled"
        questions = GivenQuestions(
            cases,
            catalog,
            interactions,
            retrieved=retrieved,
            sampled=sampled,
            users=options.users,
            seed=seed,
            last_history=options.last_history,
        )
        splitting = "given cases"
    else:
        if interactions is None:
            _refuse(
                "split", "makes cases of interactions", options.split, "name `interactions`, or a case file and split given"
            )
        cutting, splitting = _cutting(options, interactions)
        questions = LoggedQuestions(interactions, cutting, users=options.users, seed=seed, last_history=options.last_history)
    if not questions.count:
        _refuse("split", "leaves no case", options.split, "check the data, min_history, n and cut")
    if options.last_history is not None and questions.training is not None and not questions.training.counts:
        why = "leaves nothing to learn from, as it hides the histories of all users who are asked about"
        _refuse("last_history", why, options.last_history, "ask about a sample of the users: protocol.users")
    return questions, splitting


def _showing(last: int, *, learns: bool) -> str:
    """What is shown of the histories, in words."""
    items = f"the last {last} items" if last > 1 else "the last item"
    shown = f"only {items} of each history {'are' if last > 1 else 'is'} shown" if last else "no history is shown"
    return f"{shown}, and what is hidden of users who are asked about is not learned from" if learns else shown


def _cutting(options: ProtocolOptions, interactions: Interactions) -> tuple[Cutting, str]:
    """Where users' items are cut, and that in words."""
    least = options.min_history
    after = f" after at least {least} others" if least > 1 else ""
    if options.split == "leave-last-out":
        return Cutting(1, min_history=least), f"leave-last-out: a user's last item{after} is to be found"
    if options.split == "last-n":
        last = options.n or 1
        return Cutting(last, min_history=least), f"last-n: a user's last {last} items{after} are to be found"
    moment = _moment(options.cut, interactions)
    first = "all items" if options.n is None else f"the first {options.n} items"
    cut = datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    words = f"temporal: {first} that a user chose from {cut} on{after} are to be found, from what all chose before"
    return Cutting(None, moment, options.n, least), words


def _chooser(
    options: ProtocolOptions,
    catalog: Catalog,
    training: Popularity | None,
    seed: int,
    embedder: Embedder | None,
    fields: Sequence[str],
) -> tuple[Chooser, str]:
    """What chooses the candidates, and that in words."""
    asked, source = options.candidates, options.source
    if source == "full":
        return whole_catalogue, f"all {len(catalog):,} items are candidates"
    item_ids = [item.id for item in catalog]
    counts = training.counts if training is not None else None
    if asked.by == "popularity" and counts is None:
        _refuse("candidates.by", "needs interactions to count", "popularity", "name `interactions`")
    choose: Chooser
    if source == "sampled":
        weights = counts if asked.by == "popularity" else None
        drawn = "uniformly" if weights is None else "with probability proportional to their training count plus 1"
        words = f"{asked.n} candidates, shuffled: the relevant ones and others that the user never chose, drawn {drawn}"
        return Sampled(item_ids, asked.n, seed, weights), words
    if source == "given":
        choose, words = Listed(), "candidates as given"
    else:
        choose, by = _retriever(asked, item_ids, counts, seed, catalog, embedder, fields)
        words = f"{asked.n} candidates retrieved by {by}, without those seen; relevant ones are not guaranteed among them"
    if asked.shuffle:
        return Shuffled(choose, seed), f"{words}, shuffled"
    return choose, f"{words}, in the {'file' if source == 'given' else 'retriever'}'s order"


def _retriever(
    asked: CandidateOptions,
    item_ids: Sequence[str],
    counts: dict[str, int] | None,
    seed: int,
    catalog: Catalog,
    embedder: Embedder | None,
    fields: Sequence[str],
) -> tuple[Chooser, str]:
    if asked.by == "popularity" and counts is not None:
        return MostPopular(item_ids, asked.n, seed, counts), "training popularity"
    if asked.by not in (None, "embedding"):
        return Listed(asked.n), f"{asked.by} (as listed in the case file)"
    if embedder is None:
        _refuse("candidates.by", "needs an embedder", "embedding", "give one, or retrieve by popularity")
    from llmrank.retrieval.prefilter import Prefilter, PrefilterOptions

    prefilter = Prefilter(embedder, PrefilterOptions(keep=asked.n, fields=tuple(fields)), catalog.items)
    return Nearest(prefilter, catalog), f"embedding ({embedder.model} of {', '.join(fields)})"


def _moment(cut: float | str | date | None, interactions: Interactions) -> float:
    """The cut in Unix seconds."""
    times = interactions.timestamp
    if times is None:
        _refuse("split", f"needs times, which {interactions.name} has not", "temporal", "use leave-last-out or last-n")
    if cut is None or not len(times):
        _refuse("cut", "there is nothing to cut", cut, "check the data")
    moment = _seconds(cut) if isinstance(cut, str | date) else float(cut)
    if not isinstance(cut, str | date) and 0 < cut < 1:
        place = min(len(times) - 1, int(cut * len(times)))
        moment = float(np.partition(times, place)[place])
    first, last = float(times.min()), float(times.max())
    if not first < moment <= last:
        _refuse("cut", f"lies outside of the interactions' times, {first:.0f} to {last:.0f} (Unix seconds)", cut, "cut: 0.9")
    return moment


def _seconds(cut: str | date) -> float:
    """An ISO date, perhaps with a time, in Unix seconds; in UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(cut if isinstance(cut, str) else cut.isoformat())
    except ValueError:
        _refuse("cut", "is not an ISO date", cut, "for instance 2020-01-31, or 2020-01-31T12:00:00")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _check_items(interactions: Interactions, catalog: Catalog) -> None:
    unknown = [place for place, item_id in enumerate(interactions.items) if item_id not in catalog]
    if unknown:
        user_id = interactions.users[interactions.user[np.flatnonzero(interactions.item == unknown[0])[0]]]
        raise DatasetError(
            f"{interactions.name}: {len(unknown)} of {len(interactions.items)} items are not in the catalogue, the first of "
            f"user {user_id!r}",
            field="item_id",
            value=interactions.items[unknown[0]],
            fix="add them to the item file, or leave their interactions out",
        )


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        _refuse(name, f"must be a whole number of at least {least}", value, "try 20")


def _refuse(name: str, why: str, value: object, fix: str) -> NoReturn:
    raise ConfigError(why, field=f"protocol.{name}", value=value, fix=fix)
