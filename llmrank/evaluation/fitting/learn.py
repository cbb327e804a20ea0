"""Interactions and the sections of retrievers go in; a folder with all of them trained, and trees over their scores, comes out.

The trees learn what to make of each part from users whose last item is hidden: the parts are trained without it, score it
among items drawn at random, and LambdaMART learns to put it first. A tenth of these users is kept apart and measured. Then
the parts are trained anew on everything. Nothing of a user who is ranked later is needed but the history.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from llmrank.catalog import Catalog
from llmrank.embedder_kinds import asks_others, vectors_of
from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.data.timelines import Cutting, Timelines
from llmrank.evaluation.data.training import rows_without, taken
from llmrank.evaluation.fitting.example import Example
from llmrank.evaluation.fitting.trees import fit_trees
from llmrank.fusion import TreeModel
from llmrank.interactions import Interactions
from llmrank.protocols import Retriever
from llmrank.retrieval import collaborative
from llmrank.retrieval.learned import write_learned
from llmrank.sections import kind_of, make, mapping_of
from llmrank.types import Event, Item, ResolvedRequest

Report: TypeAlias = Callable[[str], None]
BuildEmbedding: TypeAlias = Callable[[str, Mapping[str, Any]], Retriever]

APART = 10
"""Every so many-th of the users whose last item is hidden is measured and not learned from."""

LEAST_USERS = 20

DEFAULT_PARTS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {"kind": "popularity"},
    "item-knn": {"kind": "item-knn"},
    "transitions": {"kind": "transitions"},
    "pmi": {"kind": "pmi"},
    "pmi-last": {"kind": "pmi", "last": 1},
    "als": {"kind": "als"},
    "text": {"kind": "embedding"},
    "text-last": {"kind": "embedding", "last": 1},
}
"""What is combined where nothing is said: what is popular, what goes together, what follows, and what reads alike."""


@dataclass(frozen=True, slots=True)
class LearnOptions:
    """How the trees learn.

    Args:
        users: Of so many users, drawn at random, the last item is hidden; fewer if there are not so many with two items.
        negatives: How many items that a user never chose stand beside the hidden one, drawn uniformly.
        shorten: This share of the lists shows only the last 0, 1 or 2 items of the history: so that new users are learned of.
        rounds: How many trees.
        k: The places that count.
        seed: Of all that is drawn.
    """

    users: int = 10_000
    negatives: int = 19
    shorten: float = 0.2
    rounds: int = 300
    k: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("users", LEAST_USERS), ("negatives", 1), ("rounds", 1), ("k", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or value < least:
                raise ConfigError(f"must be at least {least}", field=f"learned.{name}", value=value, fix="or leave it out")
        if not 0 <= self.shorten <= 1:
            raise ConfigError("must be a share from 0 to 1", field="learned.shorten", value=self.shorten, fix="try 0.2")


@dataclass(frozen=True, slots=True)
class Part:
    """A part to be trained or, of kind ``embedding``, to be built: its section, and the options of a kind that learns."""

    name: str
    section: Mapping[str, Any]
    kind: str
    options: Any = None


def parts_of(sections: Mapping[str, Any] | None, where: str = "parts") -> tuple[Part, ...]:
    """The checked parts of a learned retriever; by default `DEFAULT_PARTS`.

    Raises:
        ConfigError: a kind is unknown, an option of one is unknown or wrong, or two parts ask different embedders.
    """
    parts: list[Part] = []
    for name, inner in (sections or DEFAULT_PARTS).items():
        section = mapping_of(inner, f"{where}.{name}")
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError("becomes a file's name", field=where, value=name, fix="use letters, digits, - and _ only")
        options = dict(section)
        kind = kind_of(options, f"{where}.{name}", ("embedding", *collaborative.MODEL_KINDS))
        made = None
        if kind != "embedding":
            made = make(collaborative.MODEL_KINDS[kind].options_type, options, f"{where}.{name}", also=("kind",))
        parts.append(Part(name, section, kind, made))
    _check_embedders(parts, where)
    return tuple(parts)


def embedder_of(parts: Sequence[Part]) -> dict[str, Any] | None:
    """The embedder to name where the folder of these parts is loaded: the one that asks a server or a file, if any does."""
    named = [section for _, section in _embedders(parts)]
    asking = [section for section in named if asks_others(section)]
    return dict((asking or named)[0]) if named else None


def _embedders(parts: Sequence[Part]) -> list[tuple[str, Mapping[str, Any]]]:
    """The sections `embedder` that parts name, each with the part's name."""
    sections = ((part.name, part.section.get("embedder")) for part in parts if part.kind == "embedding")
    return [(name, mapping_of(section, f"{name}.embedder")) for name, section in sections if section is not None]


def _check_embedders(parts: Sequence[Part], where: str) -> None:
    """Refuses two embedders that ask somebody: who loads the folder names one."""
    asking = [(name, each) for name, each in _embedders(parts) if asks_others(each, f"{where}.{name}.embedder")]
    for name, section in asking[1:]:
        if section != asking[0][1]:
            raise ConfigError(
                f"is another embedder than that of {asking[0][0]}",
                field=f"{where}.{name}.embedder",
                value=vectors_of(section),
                fix="let all parts that need a server or a file name the same one",
            )


def learn(
    interactions: Interactions,
    catalog: Catalog,
    out: str | Path,
    *,
    parts: Sequence[Part] | None = None,
    options: LearnOptions | None = None,
    embedding: BuildEmbedding,
    report: Report = lambda text: None,
) -> dict[str, Any]:
    """Trains a learned retriever and writes its folder, which appears when it is whole.

    Args:
        interactions: Who chose what, and when (or in which order): never what the retriever is to be tested on.
        catalog: The items; negatives are drawn from it, texts read from it.
        out: The folder; it must not exist.
        parts: What is combined; see `parts_of`.
        options: How; see `LearnOptions`.
        embedding: Builds a part of kind ``embedding`` from its name and section.
        report: Told what is being done, a line at a time.

    Returns:
        What it was trained on and how well it did on the users apart, as JSON values (``trained`` of the folder's file).

    Raises:
        ConfigError: the folder exists.
        DatasetError: too few users have two items.
        SetupError: a package that training needs is missing.
    """
    out, options, parts = Path(out), options or LearnOptions(), parts or parts_of(None)
    if out.exists():
        raise ConfigError("is there already", field="--out", value=str(out), fix="name another folder, or remove it")
    began = time.perf_counter()
    hidden = _Hidden.draw(interactions, catalog, options)
    built = {part.name: embedding(part.name, part.section) for part in parts if part.kind == "embedding"}
    report(f"hiding the last item of {len(hidden.users):,} users")
    before = {**built, **_trained(parts, hidden.rest, report)}
    examples = list(_examples(hidden, before, interactions, options))
    told = [example for number, example in enumerate(examples) if number % APART]
    apart = [example for number, example in enumerate(examples) if not number % APART]
    report(f"fitting {options.rounds} trees on {len(told):,} lists")
    names = tuple(part.name for part in parts)
    trees = fit_trees(told, names, options.k, options.rounds, options.seed)
    trained = {
        "users": len(told),
        "users_apart": len(apart),
        f"ndcg@{options.k}_apart": _ndcg(trees, apart, options.k),
        "parts_apart": {name: _part_ndcg(name, apart, options.k) for name in names},
        "options": asdict(options),
    }
    report("training the parts on everything")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        # Where vectors were had is nobody else's: neither address nor key's name nor path goes into the folder.
        sections = {each.name: _portable(each) for each in parts}
        for name, model in _trained(parts, interactions, report).items():
            model.save(part / f"{name}.npz")
            sections[name] = {"kind": model.kind, "path": f"{name}.npz"}
        trained["seconds"] = round(time.perf_counter() - began, 1)
        write_learned(part, sections, trees, trained)
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return trained


def _portable(part: Part) -> dict[str, Any]:
    """A part's section as its folder holds it."""
    if part.kind != "embedding":
        return dict(part.section)
    return {**part.section, "embedder": vectors_of(part.section.get("embedder") or {})}


def _trained(
    parts: Sequence[Part], interactions: Interactions, report: Report
) -> dict[str, collaborative.CollaborativeModel[Any]]:
    """A model for each part that learns; parts that differ only in how a history is read share what was learned."""
    learned: dict[tuple[Any, ...], collaborative.CollaborativeModel[Any]] = {}
    models: dict[str, collaborative.CollaborativeModel[Any]] = {}
    for part in parts:
        if part.options is None:
            continue
        reading = collaborative.MODEL_KINDS[part.kind].reading
        key = part.kind, tuple(getattr(part.options, each.name) for each in fields(part.options) if each.name not in reading)
        if key not in learned:
            began = time.perf_counter()
            learned[key] = collaborative.train(part.kind, interactions, part.options)
            report(f"trained {part.kind} in {time.perf_counter() - began:.1f} s")
        models[part.name] = learned[key].read_by(part.options).named(part.name)
    return models


@dataclass(frozen=True, slots=True)
class _Hidden:
    """Users whose last item is hidden.

    Attributes:
        users: Their places in `Interactions.users`.
        histories: What each chose before, as places in `Interactions.items`, oldest first.
        targets: The hidden item of each.
        rest: The interactions without these.
        items: The items by their places; None for one that the catalogue lacks.
        pool: The catalogue's items, from which negatives are drawn.
    """

    users: Sequence[int]
    histories: Sequence[Sequence[int]]
    targets: Sequence[int]
    rest: Interactions
    items: Sequence[Item | None]
    pool: Sequence[Item]

    @classmethod
    def draw(cls, interactions: Interactions, catalog: Catalog, options: LearnOptions) -> _Hidden:
        timelines = Timelines(interactions)
        known = {item.id: item for item in catalog.items}
        items = [known.get(item_id) for item_id in interactions.items]
        order = list(range(len(interactions.users)))
        _random(options.seed, "users").shuffle(order)
        users, histories, targets = [], [], []
        for user in order:
            halves = timelines.split(user, Cutting(1))
            if halves.relevant and items[halves.relevant[0]] is not None:
                users.append(user)
                histories.append([place for place in halves.before if items[place] is not None])
                targets.append(halves.relevant[0])
            if len(users) == options.users:
                break
        if len(users) < LEAST_USERS:
            fix = "learn from more interactions, or weigh the parts by hand"
            raise DatasetError(f"only {len(users)} users chose two items", field="interactions", fix=fix)
        codes = np.array(users, dtype=np.int64) * len(interactions.items) + np.array(targets, dtype=np.int64)
        rest = taken(interactions, rows_without(interactions, timelines, codes))
        return cls(users, histories, targets, rest, items, catalog.items)


def _examples(
    hidden: _Hidden, parts: Mapping[str, Retriever], interactions: Interactions, options: LearnOptions
) -> Iterator[Example]:
    for user, history, target in zip(hidden.users, hidden.histories, hidden.targets, strict=True):
        user_id = interactions.users[user]
        dice = _random(options.seed, user_id)
        wanted = hidden.items[target]
        if wanted is None:
            continue
        events = [item for place in history if (item := hidden.items[place]) is not None]
        chosen = {item.id for item in events} | {wanted.id}
        candidates = _negatives(hidden.pool, chosen, options.negatives, dice)
        candidates.insert(dice.randrange(len(candidates) + 1), wanted)
        if dice.random() < options.shorten:
            events = events[max(0, len(events) - dice.randrange(3)) :]
        request = ResolvedRequest(tuple(map(Event, events)), candidates, user_id=user_id)
        scores = {name: part.score(request, candidates).tolist() for name, part in parts.items()}
        yield Example(user_id, len(events), scores, [item is wanted for item in candidates])


def _negatives(pool: Sequence[Item], chosen: set[str], count: int, dice: random.Random) -> list[Item]:
    """Items that the user never chose, each once; fewer if there are not so many."""
    if len(pool) - len(chosen) <= 2 * count:
        others = [item for item in pool if item.id not in chosen]
        return dice.sample(others, min(count, len(others)))
    found: dict[str, Item] = {}
    while len(found) < count:
        item = pool[dice.randrange(len(pool))]
        if item.id not in chosen:
            found[item.id] = item
    return list(found.values())


def _ndcg(trees: TreeModel, examples: Sequence[Example], k: int) -> float:
    return _mean([_gain(trees.sums(each.scores, each.history_length).tolist(), each.relevant, k) for each in examples])


def _part_ndcg(name: str, examples: Sequence[Example], k: int) -> float:
    return _mean([_gain(each.scores[name], each.relevant, k) for each in examples])


def _gain(scores: Sequence[float], relevant: Sequence[bool], k: int) -> float:
    """NDCG of the one relevant candidate; equals share the mean of their places."""
    own = scores[relevant.index(True)]
    place = sum(score > own for score in scores) + (sum(score == own for score in scores) - 1) / 2
    return 1 / math.log2(place + 2) if place < k else 0.0


def _mean(values: Sequence[float]) -> float:
    return round(math.fsum(values) / len(values), 4)


def _random(seed: int, what: str) -> random.Random:
    return random.Random(f"{seed}:{what}".encode(errors="surrogatepass"))  # noqa: S311  # sampling, not secrets
