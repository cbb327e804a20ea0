"""The name of a measure (``ndcg@10``) goes in, a Measure comes out: what it needs, what it says, and how it is computed.

A measure of *relevance* or of a *list* has a value for each case and its mean, with an interval, for a ranker; a measure of the
*run* has one value for a ranker. A ranking is an order, in which no two items share a place: no measure ever breaks a tie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from llmrank.errors import ConfigError, nearest
from llmrank.evaluation.cases import Case
from llmrank.evaluation.measures import beyond
from llmrank.evaluation.measures.beyond import Known, RunTally
from llmrank.evaluation.measures.metrics import hit_rate_at, map_at, mrr_at, ndcg_at, precision_at, recall_at

About: TypeAlias = Literal["relevance", "list", "run"]
Need: TypeAlias = Literal["interactions", "embedder"]
Direction: TypeAlias = Literal["higher", "lower", "neither"]
Unit: TypeAlias = Literal["share", "bits", "users", "ratio", "distance"]

CaseScorer: TypeAlias = Callable[[Sequence[str], Case], float]
"""A ranking and its case go in, a number comes out; NaN where the measure is not defined."""

_Relevance: TypeAlias = Callable[[Sequence[str], Collection[str], int | None], float]
_OfList: TypeAlias = Callable[[Sequence[str], Known], float]


@dataclass(frozen=True, slots=True)
class Family:
    """Measures that differ in k only.

    Attributes:
        about: ``relevance`` of the items, the ``list`` that a user is shown, or all lists of the ``run``.
        text: What it says and who defined it; ``{first}`` stands for the places that count.
        direction: Which values are better: ``higher``, ``lower``, or ``neither`` (it depends on what is wanted).
        unit: ``share`` (0 to 1), ``bits``, ``users`` (a count), ``ratio`` (0: no difference) or ``distance`` (1 - cosine).
        needs: What a run must know to compute it; None: the ranking and its case will do.
        relevance, of_list, of_run: The one of the three that computes it.
    """

    about: About
    text: str
    direction: Direction = "higher"
    unit: Unit = "share"
    needs: Need | None = None
    relevance: _Relevance | None = None
    of_list: _OfList | None = None
    of_run: Callable[[Known], RunTally] | None = None


FAMILIES: Mapping[str, Family] = {
    "ndcg": Family(
        "relevance",
        "Normalised discounted cumulative gain: each relevant item among {first} gains 1 / log2(place + 1); divided by the "
        "gain of the best order (Järvelin and Kekäläinen 2002, discount of Burges et al. 2005).",
        relevance=ndcg_at,
    ),
    "hit": Family("relevance", "Hit rate: share of cases with a relevant item among {first}.", relevance=hit_rate_at),
    "recall": Family("relevance", "Share of the relevant items that stand among {first}.", relevance=recall_at),
    "precision": Family("relevance", "Share of {first} that are relevant.", relevance=precision_at),
    "mrr": Family(
        "relevance",
        "Mean reciprocal rank: 1 / place of the first relevant item, 0 if none is among {first} (Voorhees 1999).",
        relevance=mrr_at,
    ),
    "map": Family(
        "relevance",
        "Mean average precision: precision at each relevant item among {first}, summed and divided by the number of relevant "
        "items (as trec_eval's map_cut).",
        relevance=map_at,
    ),
    "novelty": Family(
        "list",
        "Mean self-information of {first}: -log2((n + 1) / (users + 1)), where n of the users chose the item before "
        "(Zhou et al. 2010, smoothed).",
        unit="bits",
        needs="interactions",
        of_list=beyond.novelty,
    ),
    "popularity": Family(
        "list",
        "Average recommendation popularity: by how many users {first} were chosen before (Yin et al. 2012).",
        direction="neither",
        unit="users",
        needs="interactions",
        of_list=beyond.mean_popularity,
    ),
    "new_items": Family(
        "list",
        "Share of {first} that no user chose before.",
        direction="neither",
        needs="interactions",
        of_list=beyond.new_items,
    ),
    "diversity": Family(
        "list",
        "Intra-list diversity: mean of 1 - cosine of the embeddings over all pairs of {first} (Smyth and McClave 2001).",
        unit="distance",
        needs="embedder",
        of_list=beyond.diversity,
    ),
    "coverage": Family(
        "run",
        "Catalogue coverage: share of the catalogue that stands among {first} of any case (Ge et al. 2010). Few cases or few "
        "candidates bound it: compare it with that of a random order.",
        of_run=beyond.Coverage,
    ),
    "gini": Family(
        "run",
        "Gini index of how often each item of the catalogue stands among {first}: 0 equally often, 1 one item takes all "
        "(Shani and Gunawardana 2011).",
        direction="lower",
        of_run=beyond.Gini,
    ),
    "popularity_lift": Family(
        "run",
        "Popularity lift: mean popularity of {first} divided by that of the users' own histories, minus 1; 0 is no popularity "
        "bias (Abdollahpouri et al. 2020, all users as one group).",
        direction="neither",
        unit="ratio",
        needs="interactions",
        of_run=beyond.PopularityLift,
    ),
}
"""All that can be measured, by name."""

ALIASES: Mapping[str, str] = {"hr": "hit", "hit_rate": "hit"}

_PLACES = re.compile(r"[1-9][0-9]{0,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Measure:
    """A family and k, the number of places that count (None: all of the ranking)."""

    family: str
    k: int | None = None

    @property
    def name(self) -> str:
        """As in tables and files: ``ndcg@10``."""
        return self.family if self.k is None else f"{self.family}@{self.k}"

    @property
    def about(self) -> About:
        """What it is about; see `Family`."""
        return FAMILIES[self.family].about

    @property
    def per_case(self) -> bool:
        """True if each case has a value of its own."""
        return self.about != "run"

    @property
    def needs(self) -> Need | None:
        """What a run must know to compute it."""
        return FAMILIES[self.family].needs

    @property
    def direction(self) -> Direction:
        """Which values are better."""
        return FAMILIES[self.family].direction

    @property
    def unit(self) -> Unit:
        """What its values are."""
        return FAMILIES[self.family].unit

    @property
    def description(self) -> str:
        """One or two sentences with the source, for a table's footnote."""
        first = "all ranked items" if self.k is None else "the first item" if self.k == 1 else f"the first {self.k} items"
        return FAMILIES[self.family].text.format(first=first)

    def scorer(self, known: Known) -> CaseScorer:
        """What computes the value of a case. Only for a measure that has one (`per_case`)."""
        family, k = FAMILIES[self.family], self.k
        if family.relevance is not None:
            relevance = family.relevance
            return lambda ranking, case: relevance(ranking, case.relevant, k)
        if family.of_list is not None:
            of_list = family.of_list
            return lambda ranking, case: of_list(ranking[:k], known)
        raise TypeError(f"{self.name} is a measure of a whole run")

    def tally(self, known: Known) -> RunTally:
        """What adds up the value of a run. Only for a measure that has no value of a case."""
        of_run = FAMILIES[self.family].of_run
        if of_run is None:
            raise TypeError(f"{self.name} is a measure of a case")
        return of_run(known)


def parse_measure(name: object) -> Measure:
    """Reads a measure's name: a family (`FAMILIES`, or ``hr`` and ``hit_rate`` for ``hit``), ``@``, and k.

    Measures of relevance take all places without k; those of lists and runs need one, for all rankers show all candidates.

    Raises:
        ConfigError: there is no such measure (the nearest is named), or k is missing or no number from 1 on.
    """
    text = name.strip().casefold() if isinstance(name, str) else ""
    stem, at, places = text.partition("@")
    family = ALIASES.get(stem, stem)
    if family not in FAMILIES:
        raise ConfigError("no such measure", field="metrics", value=name, fix=nearest(stem, (*FAMILIES, *ALIASES)))
    if at and not _PLACES.fullmatch(places):
        fix = f"write {family}@10, or any other whole number from 1 to 999999"
        raise ConfigError("no number of places", field="metrics", value=name, fix=fix)
    measure = Measure(family, int(places) if at else None)
    if measure.k is None and measure.about != "relevance":
        fix = f"say how many items a user sees: {family}@10"
        raise ConfigError("needs a number of places", field="metrics", value=name, fix=fix)
    return measure


def check_measures(
    names: Iterable[str], *, has_popularity: bool, has_vectors: bool = True, primary: str | None = None
) -> tuple[Measure, ...]:
    """Reads the names of measures and checks that a run can compute them, before anything is spent.

    Args:
        names: Such as ``ndcg@10``; one that stands twice, perhaps under another alias, counts once.
        has_popularity: True if the run has interactions to learn from.
        has_vectors: True if there is an embedder.
        primary: The measure that decides; it must have a value for each case.

    Raises:
        ConfigError: as for `parse_measure`; or a measure needs what the run lacks, and the message says what to add.
    """
    measures = tuple(dict.fromkeys(map(parse_measure, names)))
    there = {"interactions": has_popularity, "embedder": has_vectors}
    remedies = {
        "interactions": ("needs to know who chose what before", "name `interactions` in the suite, or drop it"),
        "embedder": ("needs the items' vectors", "configure an `embedder` (pip install 'llmrank[local]' has one), or drop it"),
    }
    for measure in measures:
        if measure.needs is not None and not there[measure.needs]:
            problem, fix = remedies[measure.needs]
            raise ConfigError(problem, field="metrics", value=measure.name, fix=fix)
    if primary is not None and not parse_measure(primary).per_case:
        usable = [measure.name for measure in measures if measure.per_case]
        fix = f"use one of {', '.join(usable)}" if usable else "add ndcg@10 to the metrics"
        raise ConfigError("has no value for a single case", field="primary", value=primary, fix=fix)
    return measures
