"""What holds of every answer: any text gives a permutation, a perfect answer in any usual form gives its exact order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from llmrank.answer import parse_answer
from llmrank.labels import LabelStyle, make_labels

GAMES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "games" / "items.jsonl"

FEW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

Form = Callable[[list[str], list[str]], str]
"""Writes an answer from the labels and the titles in ranking order."""

LABEL_FORMS: dict[str, Form] = {
    "order": lambda labels, titles: " > ".join(f"[{label}]" for label in labels),
    "chain": lambda labels, titles: "Ranking: " + " > ".join(labels) + ".",
    "arrows": lambda labels, titles: " → ".join(labels),
    "json": lambda labels, titles: json.dumps({"ranking": labels}),
    "fenced json": lambda labels, titles: "Here you go:\n```json\n" + json.dumps(labels, indent=1) + "\n```",
    "commas": lambda labels, titles: ", ".join(labels),
    "lines": lambda labels, titles: "\n".join(f"[{label}]" for label in labels),
    "numbered": lambda labels, titles: "\n".join(f"{rank}. [{label}]" for rank, label in enumerate(labels, 1)),
    "numbered bare": lambda labels, titles: "\n".join(f"{rank}) {label}" for rank, label in enumerate(labels, 1)),
    "numbered from 0": lambda labels, titles: "\n".join(f"{rank}. [{label}]" for rank, label in enumerate(labels)),
    "preamble": lambda labels, titles: (
        f"The top {len(labels)} of {len(labels)} are:\n\n"
        + "\n".join(f"{rank}. **[{label}]**" for rank, label in enumerate(labels, 1))
    ),
    "thought": lambda labels, titles: (
        f"<think>Is {labels[-1]} > {labels[0]}? 1. [{labels[-1]}]</think>\n" + " > ".join(f"[{label}]" for label in labels)
    ),
}
"""Forms without titles."""

BOTH_FORMS: dict[str, Form] = {
    "numbered": lambda labels, titles: "\n".join(
        f"{rank}. [{label}] {title}" for rank, (label, title) in enumerate(zip(labels, titles, strict=True), 1)
    ),
    "bracketed lines": lambda labels, titles: "\n".join(f"[{a}] {b}" for a, b in zip(labels, titles, strict=True)),
    "bullets": lambda labels, titles: "\n".join(f"- **[{a}]** {b}" for a, b in zip(labels, titles, strict=True)),
    "objects": lambda labels, titles: json.dumps(
        {"ranking": [{"label": a, "title": b} for a, b in zip(labels, titles, strict=True)]}
    ),
    "ranked objects": lambda labels, titles: json.dumps(
        [{"rank": rank, "label": a, "title": b} for rank, (a, b) in enumerate(zip(labels, titles, strict=True), 1)]
    ),
}
"""Forms with labels and titles."""

TITLE_FORMS: dict[str, Form] = {
    "numbered": lambda labels, titles: "\n".join(f"{rank}. {title}" for rank, title in enumerate(titles, 1)),
    "numbered bold": lambda labels, titles: "\n".join(f"{rank}) **{title}**" for rank, title in enumerate(titles, 1)),
    "numbered from 0": lambda labels, titles: "\n".join(f"{rank}. {title}" for rank, title in enumerate(titles)),
    "bullets": lambda labels, titles: "\n".join(f"- {title}" for title in titles),
    "json": lambda labels, titles: json.dumps({"ranking": titles}),
    "objects": lambda labels, titles: json.dumps([{"title": title} for title in titles]),
}
"""Forms with titles only."""

# Titles that look like labels, ranks, years, separators or each other.
ODD_TITLES = [
    "A", "B", "1", "2", "I", "M", "X-Men", "It", "Up", "9", "12 Monkeys", "2001: A Space Odyssey", "10 (1979)",
    "2 Fast 2 Furious", "The A-Team", "A Bug's Life (1998) - Animation", "Plan 9 from Outer Space", "Vitamin C",
    "Toy Story", "Toy Story 2", "Toy Story 3", "Alien", "Aliens", "Alien 3", "Alien (1979)", "Alien (1992)",
    "Alien vs. Predator", "Halo 3 - Xbox 360", "Halo 3 - Xbox One", "Halo 3", "Good, the Bad and the Ugly, The (1966)",
    "Birdcage, The", "Sense & Sensibility", "Tom Clancy&#39;s Rainbow Six", "Pokémon: Red", "Pokemon Blue",
    "Kiss Kiss Bang Bang", "Game [Old Version]", "Game (New Version)", "Left > Right", "Up, Down", "千と千尋の神隠し", "Amélie",
    "Mr. & Mrs. Smith", "$9.99", "...And Justice for All", "Who's Afraid?", '"Q" - A Life', "500 Days of Summer",
    "One > Two > Three", "1. First Blood", "The Last Seduction", "First, Do No Harm", "Seven (a.k.a. Se7en) (1995)",
    "A Man and a Woman", "The The", "An",
]  # fmt: skip


def shuffled(count: int, data: st.DataObject) -> list[int]:
    """A random order of `count` candidates."""
    return data.draw(st.permutations(range(count)))


def written(form: Form, labels: tuple[str, ...], titles: list[str], order: list[int]) -> str:
    """The perfect answer with this order."""
    return form([labels[index] for index in order], [titles[index] for index in order])


FRAGMENTS = st.sampled_from([
    "[", "]", "{", "}", '"', "'", ">", ",", ":", "\n", " ", "1. ", "2) ", "- ", "|", "*", "A", "B", "I", "a", "3", "0", "12",
    "Alien", "Aliens", "<think>", "</think>", "Final answer:", "```json\n", '{"ranking": [', "&gt;", "→", "Ａ", "the ",
    "(1979)",    "\\", "\\u00", "II. ", "rank", "=", "\u0345", "﷽",
])  # fmt: skip


@MANY
@given(
    text=st.one_of(st.text(max_size=200), st.lists(FRAGMENTS, max_size=60).map("".join)),
    count=st.integers(1, 100),
    numeric=st.booleans(),
)
def test_any_text_gives_a_permutation(text: str, count: int, numeric: bool) -> None:
    """Whatever stands in the answer: no exception, every candidate once, and a status that fits the number ranked."""
    labels = make_labels(count, "numbers" if numeric else "auto")
    titles = [ODD_TITLES[index % len(ODD_TITLES)] for index in range(count)]
    for expected in ("order", "json", "label", "free"):
        answer = parse_answer(text, labels=labels, titles=titles, history_titles=["Alien", "Brazil"], expected=expected)
        assert sorted(answer.order) == list(range(count))
        assert (answer.status == "fallback") == (answer.ranked == 0)
        assert answer.missing == tuple(sorted(answer.missing))
        assert len(answer.invented) <= 20
        if answer.status in {"repaired", "fallback"}:
            assert answer.repairs


@FEW
@given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=30), data=st.data())
def test_any_titles_give_a_permutation(texts: list[str], data: st.DataObject) -> None:
    """Titles may be any text too; an answer that names them gives each candidate once."""
    labels = make_labels(len(texts), "numbers")
    order = shuffled(len(texts), data)
    answer = parse_answer(
        written(TITLE_FORMS["numbered"], labels, texts, order), labels=labels, titles=texts, history_titles=texts[:3]
    )
    assert sorted(answer.order) == list(range(len(texts)))


@pytest.mark.parametrize("numeric", [False, True], ids=["letters", "numbers"])
@pytest.mark.parametrize("form", LABEL_FORMS)
@FEW
@given(data=st.data())
def test_perfect_labels_give_their_order(form: str, numeric: bool, data: st.DataObject) -> None:
    """A perfect answer made of labels gives exactly its order and is ok, whatever the titles are."""
    count = data.draw(st.integers(2, 100 if numeric else 26))
    labels = make_labels(count, "numbers" if numeric else "letters")
    titles = data.draw(st.lists(st.sampled_from(ODD_TITLES), min_size=count, max_size=count))
    order = shuffled(count, data)
    answer = parse_answer(written(LABEL_FORMS[form], labels, titles, order), labels=labels, titles=titles)
    assert answer.order == tuple(order)
    assert (answer.ranked, answer.status, answer.invented) == (count, "ok", ())


@pytest.mark.parametrize("numeric", [False, True], ids=["letters", "numbers"])
@pytest.mark.parametrize("form", BOTH_FORMS)
@FEW
@given(data=st.data())
def test_perfect_labels_with_titles_give_their_order(form: str, numeric: bool, data: st.DataObject) -> None:
    """A perfect answer of labels with titles gives exactly its order and is ok, with many equal and look-alike titles."""
    count = data.draw(st.integers(2, 40 if numeric else 26))
    labels = make_labels(count, "numbers" if numeric else "letters")
    titles = data.draw(st.lists(st.sampled_from(ODD_TITLES), min_size=count, max_size=count))
    order = shuffled(count, data)
    answer = parse_answer(written(BOTH_FORMS[form], labels, titles, order), labels=labels, titles=titles)
    assert answer.order == tuple(order)
    assert (answer.ranked, answer.status, answer.invented) == (count, "ok", ())


@pytest.mark.parametrize("numeric", [False, True], ids=["letters", "numbers"])
@pytest.mark.parametrize("form", TITLE_FORMS)
@FEW
@given(data=st.data())
def test_perfect_titles_give_their_order(form: str, numeric: bool, data: st.DataObject) -> None:
    """A perfect answer made of titles gives exactly its order; of equal titles each is ranked once, at the places written."""
    titles = data.draw(st.lists(st.sampled_from(ODD_TITLES), min_size=5, max_size=26))
    # Where most titles are labels themselves, nothing in the answer tells whether labels or titles were written.
    assume(sum(len(title) <= 2 for title in titles) * 2 < len(titles))
    labels = make_labels(len(titles), "numbers" if numeric else "letters")
    order = shuffled(len(titles), data)
    text = written(TITLE_FORMS[form], labels, titles, order)
    answer = parse_answer(text, labels=labels, titles=titles)
    assert answer.ranked == len(titles)
    assert [titles[index] for index in answer.order] == [titles[index] for index in order]
    if len(set(titles)) == len(titles):
        assert answer.invented == ()


@FEW
@given(data=st.data(), count=st.integers(2, 60))
def test_a_truncated_answer_ranks_a_prefix(data: st.DataObject, count: int) -> None:
    """Wherever a perfect answer is cut off, what was ranked is a prefix of its order: "1" is not taken for "12"."""
    labels = make_labels(count)
    titles = [f"Film {index} of {count}" for index in range(count)]
    order = shuffled(count, data)
    form = data.draw(st.sampled_from(sorted(LABEL_FORMS)))
    text = written(LABEL_FORMS[form], labels, titles, order)
    answer = parse_answer(text[: data.draw(st.integers(0, len(text)))], labels=labels, titles=titles)
    assert answer.order[: answer.ranked] == tuple(order[: answer.ranked])


def titles_of(path: Path) -> list[str]:
    """The titles of an item file."""
    return [json.loads(line)["title"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_real_titles_of_games_with_their_duplicates() -> None:
    """Every form gives its order, also in lists full of a large catalogue's equal titles and their neighbours."""
    if not GAMES.is_file():
        pytest.skip("the games data is not on this machine (../shared/data/games/items.jsonl)")
    assert lists_of_equal_titles_are_read(titles_of(GAMES)) > 300


def test_real_titles_of_films_with_their_duplicates(ml_100k: Path) -> None:
    """The same with films whose years are not shown, which everybody can fetch."""
    assert lists_of_equal_titles_are_read(titles_of(ml_100k / "items.jsonl")) > 20


def lists_of_equal_titles_are_read(titles: list[str]) -> int:
    """Asserts that lists of titles that stand more than once, and of what follows them, are read; how many such there are."""
    places: dict[str, list[int]] = {}
    for index, title in enumerate(titles):
        places.setdefault(title, []).append(index)
    doubles = [indices for indices in places.values() if len(indices) > 1]
    for start in range(0, len(doubles), 10):
        group = [index for indices in doubles[start : start + 10] for index in indices[:2]]
        group += [index + 1 for index in group[:6] if index + 1 not in group and index + 1 < len(titles)]
        shown = [titles[index] for index in group]
        styles: tuple[LabelStyle, ...] = ("letters", "numbers") if start % 60 == 0 else ("numbers",)
        for style in styles:
            labels = make_labels(len(shown), style)
            order = sorted(range(len(shown)), key=lambda place: (place * 7 + start) % 29)
            for name, form in [("order", LABEL_FORMS["order"]), *BOTH_FORMS.items()]:
                answer = parse_answer(written(form, labels, shown, order), labels=labels, titles=shown)
                assert (answer.order, answer.status) == (tuple(order), "ok"), (name, answer.repairs)
            for name, form in TITLE_FORMS.items():
                answer = parse_answer(written(form, labels, shown, order), labels=labels, titles=shown)
                assert answer.ranked == len(shown), (name, answer.repairs)
                assert [shown[index] for index in answer.order] == [shown[index] for index in order], name
    return len(doubles)
