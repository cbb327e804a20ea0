"""Conditions on attributes: each operator, missing values, spelling, whole catalogues and lists, and what is relaxed."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.errors import RequestError
from llmrank.retrieval.constraints import AttributeTable, Constraint, Narrowed, categories_of, meets, narrow, number_of
from llmrank.retrieval.subset import Subset
from llmrank.types import Item
from llmrank.wish import Operator

FILMS = (
    Item("alien", "Alien", {"year": 1979, "genres": ["Horror", "Sci-Fi"], "price": "$9.99"}),
    Item("airplane", "Airplane!", {"year": 1980, "genres": ["Comedy"], "price": "4.50"}),
    Item("ghosts", "Ghostbusters", {"year": 1984, "genres": ["Comedy", "Horror"], "price": "12"}),
    Item("heat", "Heat", {"year": 1995, "genres": ("Crime",)}),
    Item("home", "Home video", {"title2": "x"}),
)
TABLE = AttributeTable(FILMS)


def left(*constraints: Constraint) -> list[str]:
    return [item.id for item in narrow(FILMS, TABLE, hard=constraints).candidates]


@pytest.mark.parametrize(
    ("attribute", "op", "value", "ids"),
    [
        ("year", "=", 1980, ["airplane"]),
        ("year", "!=", 1980, ["alien", "ghosts", "heat", "home"]),
        ("year", "<", 1980, ["alien"]),
        ("year", "<=", 1980, ["alien", "airplane"]),
        ("year", ">", 1984, ["heat"]),
        ("year", ">=", 1984, ["ghosts", "heat"]),
        ("year", "in", [1979, 1995], ["alien", "heat"]),
        ("year", "not in", [1979, 1995], ["airplane", "ghosts", "home"]),
        ("price", "<", 10, ["alien", "airplane"]),
        ("genres", "=", "comedy", ["airplane", "ghosts"]),
        ("genres", "!=", "HORROR", ["airplane", "heat", "home"]),
        ("genres", "in", ["Sci-Fi", "Crime"], ["alien", "heat"]),
        ("genres", "not in", ["Comedy", "Crime"], ["alien", "home"]),
    ],
)
def test_each_operator(attribute: str, op: Operator, value: Any, ids: list[str]) -> None:
    """A person can check these; the home video lacks every attribute, and so meets the negative conditions alone."""
    assert left(Constraint(attribute, op, value)) == ids


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year>=1990", ("year", ">=", 1990)),
        (" year < 1990.5 ", ("year", "<", 1990.5)),
        ("genre!=Horror", ("genre", "!=", "Horror")),
        ("play time=-3", ("play time", "=", -3)),
        ("title = War in space", ("title", "=", "War in space")),
        ("genres in Comedy, Sci-Fi,2", ("genres", "in", ("Comedy", "Sci-Fi", 2))),
        ("genres not  in Film-Noir", ("genres", "not in", ("Film-Noir",))),
        ("isbn=12345678901234567890", ("isbn", "=", "12345678901234567890")),
        ("code = nan", ("code", "=", "nan")),
    ],
)
def test_a_condition_as_people_write_it(text: str, expected: tuple[Any, ...]) -> None:
    """An attribute, an operator and a value, which is a number if it reads as one; long digits lose none."""
    found = Constraint.parse(text)
    assert (found.attribute, found.op, found.value) == expected
    assert Constraint.from_record(json.loads(json.dumps(found.record()))) == found


@pytest.mark.parametrize(
    "text", ["", "year", "year>=", ">=1990", "year=>1990", "year==1990", "year<old", "genres in ,", "x ! 3"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    """With one error of the field `constraints`."""
    with pytest.raises(RequestError, match="constraints: "):
        Constraint.parse(text)


@given(st.text())
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    """Nothing else is raised, and what is read can be written down."""
    try:
        found = Constraint.parse(text)
    except RequestError:
        return
    assert Constraint.from_record(found.record()) == found


def test_several_conditions_hold_together() -> None:
    """All of them, not one of them."""
    assert left(Constraint("genres", "=", "Comedy"), Constraint("year", ">", 1980)) == ["ghosts"]


VALUES = st.sampled_from(["Comedy", "comedy ", "Horror", "Drame", "Dramé", "", "1990", "2000"]) | st.integers(1990, 1995)
ATTRIBUTE = st.none() | VALUES | st.lists(VALUES, max_size=3) | st.just(math.nan)
CONSTRAINTS = st.builds(
    lambda op, values: Constraint("x", op, values if op in ("in", "not in") else values[0]),
    st.sampled_from([op for op in get_args(Operator) if op not in ("<", "<=", ">", ">=")]),
    st.lists(VALUES.filter(lambda value: value != ""), min_size=1, max_size=3),
) | st.builds(lambda op, value: Constraint("x", op, value), st.sampled_from(["<", "<=", ">", ">="]), st.integers(1990, 1995))


@given(st.lists(ATTRIBUTE, min_size=1, max_size=12), CONSTRAINTS)
def test_the_columns_say_what_the_items_say(values: list[Any], constraint: Constraint) -> None:
    """The vectorised answer for a whole catalogue is that of looking at one item after the other, or both refuse."""
    items = tuple(Item(str(place), "t", {"x": value}) for place, value in enumerate(values))
    table = AttributeTable(items)
    if "x" not in table:
        assert not any(categories_of(value) for value in values)
        return
    try:
        mask = table.mask(constraint)
    except RequestError:
        with pytest.raises(RequestError):
            table.check(constraint)
        return
    assert mask.tolist() == [meets(item, constraint, table.kind("x")) for item in items]


@given(st.lists(ATTRIBUTE, min_size=1, max_size=12), CONSTRAINTS)
def test_a_condition_and_its_contrary_part_the_items(values: list[Any], constraint: Constraint) -> None:
    """Each item meets exactly one of ``=`` and ``!=``, and of ``in`` and ``not in``."""
    contrary: dict[str, Operator] = {"=": "!=", "!=": "=", "in": "not in", "not in": "in"}
    table = AttributeTable(tuple(Item(str(place), "t", {"x": value}) for place, value in enumerate(values)))
    if constraint.op in contrary and "x" in table:
        try:
            mask = table.mask(constraint)
        except RequestError:
            return
        assert (mask != table.mask(Constraint("x", contrary[constraint.op], constraint.value))).all()


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1995, 1995.0),
        ("1995", 1995.0),
        ("$9.99", 9.99),
        ("1,299.00 €", 1299.0),
        (np.float32(2.5), 2.5),
        (math.nan, None),
        (math.inf, None),
        (True, None),
        ("1995-06-01", None),
        ("", None),
        ([1995], None),
        (None, None),
    ],
)
def test_what_counts_as_a_number(value: object, number: float | None) -> None:
    """Numbers as files and data frames hold them; dates, truth values and lists are none."""
    assert number_of(value) == number


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("Action|Sci-Fi", ("Action", "Sci-Fi")),
        (["a", None, " ", "b"], ("a", "b")),
        (np.array(["a", "b"]), ("a", "b")),
        ({"b", "a"}, ("a", "b")),
        (math.nan, ()),
        (None, ()),
        (7, ("7",)),
    ],
)
def test_what_counts_as_categories(value: object, texts: tuple[str, ...]) -> None:
    """A text, a list of any kind, or texts with bars between; what is empty is none."""
    assert categories_of(value) == texts


def test_a_few_odd_rows_make_no_category() -> None:
    """One "unknown" among a hundred years: they are years, and that item lacks one."""
    items = tuple(Item(str(place), "t", {"year": "unknown" if place == 7 else 1900 + place}) for place in range(100))
    table = AttributeTable(items)
    assert table.kind("year") == "number"
    assert not table.mask(Constraint("year", ">", 0))[7]
    assert table.mask(Constraint("year", "!=", 1950))[7]


def test_what_a_catalogue_has_is_described() -> None:
    """The range of numbers, the most frequent categories first, and how many there are besides."""
    year, genres = TABLE.describe("year"), TABLE.describe("genres", most=2)
    assert (year.kind, year.low, year.high, year.whole) == ("number", 1979.0, 1995.0, True)
    assert (genres.kind, genres.values, genres.others) == ("category", ("Comedy", "Horror"), 2)
    assert not TABLE.describe("price").whole


def test_a_whole_catalogue_is_narrowed_without_a_copy() -> None:
    """What is left knows its places in the catalogue, so that vectors kept for the whole can be used."""
    narrowed = narrow(FILMS, TABLE, hard=[Constraint("year", "<", 1990)])
    assert isinstance(narrowed.candidates, Subset)
    assert narrowed.candidates.places.tolist() == [0, 1, 2]
    assert (narrowed.candidates[1], list(narrowed.candidates[1:])) == (FILMS[1], list(FILMS[1:3]))
    assert narrowed.left_out == 2


def test_a_list_is_narrowed_by_its_own_attributes() -> None:
    """A caller's own Item under a catalogue's id is judged by what the caller says of it; the kind is the catalogue's."""
    own = (Item("alien", "Alien", {"year": "2003"}), FILMS[3])
    narrowed = narrow(own, TABLE, hard=[Constraint("year", ">", 2000)])
    assert narrowed.candidates == (own[0],)
    assert narrow(own, None, hard=[Constraint("year", ">", 2000)]).candidates == (own[0],)


def test_what_nothing_meets_is_relaxed() -> None:
    """A soft condition that nothing meets beside those before it goes, and is named; those after it are kept if they can be."""
    soft = (Constraint("genres", "=", "Comedy"), Constraint("year", ">", 1990), Constraint("year", "<", 1985))
    narrowed = narrow(FILMS, TABLE, soft=soft)
    assert [item.id for item in narrowed.candidates] == ["airplane", "ghosts"]
    assert narrowed.constraints == (soft[0], soft[2])
    assert narrowed.notes == ("no candidate meets year > 1990 and genres = Comedy: year > 1990 was left out",)


def test_of_two_that_exclude_each_other_the_last_goes() -> None:
    """What the user says first holds."""
    first, last = Constraint("year", ">", 1990), Constraint("year", "<", 1985)
    assert narrow(FILMS, TABLE, soft=[first, last]).constraints == (first,)
    assert narrow(FILMS, TABLE, soft=[last, first]).constraints == (last,)


@given(
    st.lists(
        st.sampled_from([("year", op, year) for op in ("<", ">", "=") for year in (1978, 1980, 1990, 2020)])
        | st.sampled_from([("genres", op, value) for op in ("=", "!=") for value in ("Comedy", "Crime", "None such")]),
        max_size=6,
    )
)
def test_soft_conditions_never_leave_nothing(given_constraints: list[tuple[str, Operator, Any]]) -> None:
    """Whatever they are; those that are kept hold for every item left, in their order, and each other one is named."""
    soft = tuple(Constraint(*each) for each in given_constraints)
    narrowed = narrow(FILMS, TABLE, soft=soft)
    assert len(narrowed.candidates) > 0
    rest = iter(soft)
    assert all(each in rest for each in narrowed.constraints)
    assert all(meets(item, each, TABLE.kind(each.attribute)) for item in narrowed.candidates for each in narrowed.constraints)
    assert len(narrowed.notes) == len(soft) - len(narrowed.constraints)


def test_what_was_seen_does_not_count_as_left() -> None:
    """If only seen items meet a soft condition, it is relaxed: the prefilter leaves them out."""
    narrowed = narrow(FILMS, TABLE, soft=[Constraint("genres", "=", "Crime")], unwanted={"heat"})
    assert narrowed == Narrowed(FILMS, 0, (), narrowed.notes)
    assert len(narrowed.notes) == 1


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Constraint("year", "~", 1990), ["unknown operator", "got '~'"]),  # type: ignore[arg-type]  # the error is the test
        (lambda: Constraint("year", ">", "new"), ["'>' needs a finite number", "got 'new'"]),
        (lambda: Constraint("year", ">", math.nan), ["needs a finite number"]),
        (lambda: Constraint("genres", "in", "Comedy"), ["'in' needs a list of values"]),
        (lambda: Constraint("genres", "in", ()), ["'in' needs a list of values"]),
        (lambda: Constraint("", "=", 1), ["needs the name of an attribute"]),
        (lambda: left(Constraint("yaer", "=", 1990)), ["no item has this attribute", "did you mean 'year'?"]),
        (lambda: left(Constraint("genres", ">", 3)), ["'genres' holds texts", "use =, !=, in or not in"]),
        (lambda: left(Constraint("year", "=", "Comedy")), ["'year' holds numbers", "got 'Comedy'"]),
        (lambda: left(Constraint("year", ">", 2050)), ["no candidate meets year > 2050", "loosen one"]),
    ],
)
def test_bad_conditions_give_one_clear_error(make: Any, parts: list[str]) -> None:
    """What is wrong, which value, and what to do about it."""
    with pytest.raises(RequestError) as caught:
        make()
    assert all(part in str(caught.value) for part in ["constraints", *parts])


def test_a_condition_reads_like_one() -> None:
    """As notes and the command line show it."""
    assert str(Constraint("year", ">=", 1990.0)) == "year >= 1990"
    assert str(Constraint("genres", "not in", {"b", "a"})) == "genres not in a, b"  # type: ignore[arg-type]  # a set does, too
