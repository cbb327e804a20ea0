"""A catalogue and cases go in; what a memorisation probe asks about comes out: titles in halves, histories, and controls."""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmrank.catalog import Catalog
from llmrank.evaluation.cases import Case
from llmrank.sanitize import clean_text
from llmrank.types import Item

MIN_WORDS = 4
"""Titles of fewer words are not asked for: half of them says too little."""

MIN_HISTORY, SHOWN_HISTORY = 3, 20
"""The shortest history that is asked about, and how many of its events, the most recent, are shown."""

OTHERS = 9
"""With how many other ends the true one is compared when likelihoods are."""


@dataclass(frozen=True, slots=True)
class HalvedTitle:
    """A title in two halves, and the second halves of others: the control's and those that the true one is compared with."""

    beginning: str
    rest: str
    other: str
    decoys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AskedHistory:
    """A history, the same in another order, what came next, and what did not.

    Both orders end with the same item: who looks only at what was chosen last does as well with either.
    """

    shown: tuple[Item, ...]
    shuffled: tuple[Item, ...]
    next: Item
    decoys: tuple[Item, ...]


def draw_titles(catalog: Catalog, count: int, seed: int) -> list[HalvedTitle]:
    """Titles in halves, each with second halves of others that make no title of the catalogue with its beginning.

    Args:
        catalog: Whose titles. Those that differ in letters' case or signs only count once.
        count: How many, at most.
        seed: Of the draw.
    """
    if not count:
        return []
    known = {normal(item.title): clean_text(item.title).split(" ") for item in catalog}
    halves = [_halves(words) for words in known.values() if len(words) >= MIN_WORDS]
    generator = random.Random(f"{seed}:titles")  # noqa: S311  # sampling, not secrets
    generator.shuffle(halves)
    by_length: defaultdict[int, list[str]] = defaultdict(list)
    for _, rest in halves:
        by_length[len(rest.split(" "))].append(rest)
    every = [rest for _, rest in halves]
    found = []
    for beginning, rest in halves[:count]:
        # Of as many words as the true one where there are enough: a short text is likelier than a long one.
        alike = by_length[len(rest.split(" "))]
        pool = alike if len(alike) > 2 * OTHERS else every
        drawn = dict.fromkeys(generator.sample(pool, min(len(pool), 8 * OTHERS)))
        others = [each for each in drawn if each != rest and normal(f"{beginning} {each}") not in known]
        if len(others) > OTHERS:
            found.append(HalvedTitle(beginning, rest, others[0], tuple(others[1 : OTHERS + 1])))
    return found


def _halves(words: Sequence[str]) -> tuple[str, str]:
    half = (len(words) + 1) // 2
    return " ".join(words[:half]), " ".join(words[half:])


def draw_histories(catalog: Catalog, cases: Iterable[Case], count: int, seed: int) -> list[AskedHistory]:
    """Histories with what came next, drawn in one pass over the cases (algorithm R; Vitter 1985, "Random sampling with a
    reservoir").

    Args:
        catalog: Whose items. Cases with others are left out, and so are those with few different items in their history.
        cases: Read to the end; `relevant[0]` is what came next.
        count: How many, at most.
        seed: Of the draw.
    """
    if not count:
        return []
    generator = random.Random(f"{seed}:histories")  # noqa: S311  # sampling, not secrets
    drawn: list[Case] = []
    for number, case in enumerate(case for case in cases if _usable(case, catalog)):
        if number < count:
            drawn.append(case)
        elif (place := generator.randrange(number + 1)) < count:
            drawn[place] = case
    made = (_history(catalog, case, seed) for case in drawn)
    return [each for each in made if each is not None]


def _usable(case: Case, catalog: Catalog) -> bool:
    shown = case.history[-SHOWN_HISTORY:]
    if len(set(shown)) < MIN_HISTORY or not case.relevant or case.relevant[0] in shown:
        return False
    return all(item_id in catalog for item_id in (*shown, case.relevant[0]))


def _history(catalog: Catalog, case: Case, seed: int) -> AskedHistory | None:
    """None for a user who has nearly all of the catalogue."""
    # Bytes draw what their text does, but may hold half surrogate pairs, as ids of JSON do.
    generator = random.Random(f"{seed}:{case.user_id}".encode(errors="surrogatepass"))  # noqa: S311  # sampling, not secrets
    shown = tuple(catalog[item_id] for item_id in case.history[-SHOWN_HISTORY:])
    # A history has 3 different items or more, so that there is another order of all but the last.
    *before, last = shown
    others = before
    while [item.id for item in others] == [item.id for item in before]:
        others = generator.sample(before, len(before))
    had = {*case.history, *case.relevant}
    decoys: dict[str, Item] = {}
    for _ in range(100 * OTHERS):
        item = catalog.items[generator.randrange(len(catalog))]
        if item.id not in had:
            decoys[item.id] = item
        if len(decoys) == OTHERS:
            return AskedHistory(shown, (*others, last), catalog[case.relevant[0]], tuple(decoys.values()))
    return None


def normal(text: str) -> str:
    """A text for comparison: letters and digits in lower case without accents, all else one space."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(char))
    return " ".join("".join(char if char.isalnum() else " " for char in plain).split())
