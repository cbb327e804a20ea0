"""What a sentence says outright: which categories it wants and which not, and which numbers it bounds in which direction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.retrieval.constraints import Attribute, Constraint
from llmrank.understanding.evidence import Evidence, Sign, decade_of

YEAR = Attribute("year", "number", 1930, 2024, whole=True)
PRICE = Attribute("price_eur", "number", 0.5, 80.0)
RUNTIME = Attribute("runtime", "number", 60, 240, whole=True)
RATING = Attribute("avgRating", "number", 1.0, 5.0)
PLAYERS = Attribute("players", "number", 1, 8, whole=True)


@pytest.mark.parametrize(
    ("sentence", "category", "sign"),
    [
        ("a comedy", "Comedy", "wanted"),
        ("Comedies, please", "Comedy", "wanted"),
        ("COMEDY", "comedy", "wanted"),
        ("a romantic evening film", "Romance", "wanted"),
        ("an animated film", "Animation", "wanted"),
        ("some good scifi", "Sci-Fi", "wanted"),
        ("science fiction", "Sci-Fi", "wanted"),
        ("sci-fi", "Sci-Fi", "wanted"),
        ("a film noir", "Film-Noir", "wanted"),
        ("for the children", "Children's", "wanted"),
        ("un film d'époque", "Epoque", None),
        ("something funny", "Comedy", None),
        ("for two kids", "Children's", None),
        ("a fantastic story", "Fantasy", None),
        ("with great music", "Musical", None),
        ("a dramatic turn", "Drama", None),
        ("warm and kind", "War", None),
        ("the west", "Western", None),
        ("science, not fiction", "Sci-Fi", None),
        ("not horror", "Horror", "unwanted"),
        ("no horror movies", "Horror", "unwanted"),
        ("nothing scary, without horror", "Horror", "unwanted"),
        ("I don't like horror", "Horror", "unwanted"),
        ("I don’t like horror", "Horror", "unwanted"),
        ("I hate horror", "Horror", "unwanted"),
        ("anything but horror", "Horror", "unwanted"),
        ("I'm tired of horror", "Horror", "unwanted"),
        ("horror-free", "Horror", "unwanted"),
        ("no comedy or horror", "Horror", "unwanted"),
        ("not horror but comedy", "Comedy", "wanted"),
        ("no horror. A comedy", "Comedy", "wanted"),
        ("nothing but comedies", "Comedy", "wanted"),
        ("not only a comedy", "Comedy", "wanted"),
        ("a comedy instead of horror", "Horror", "unwanted"),
        ("a comedy instead of horror", "Comedy", "wanted"),
        # In doubt, and so neither:
        ("no horror, comedy", "Comedy", "unsure"),
        ("no horror and comedy", "Comedy", "unsure"),
        ("maybe a comedy", "Comedy", "unsure"),
        ("preferably comedy", "Comedy", "unsure"),
        ("I don't mind horror", "Horror", "unsure"),
        ("not necessarily a comedy", "Comedy", "unsure"),
        ("a comedy, but no comedy with cats", "Comedy", "unsure"),
    ],
)
def test_what_is_said_of_a_category(sentence: str, category: str, sign: Sign | None) -> None:
    """A category counts by its name or an inflection of it; a negation reaches to the end of its part of the sentence."""
    assert Evidence(sentence).says(category) == sign


@pytest.mark.parametrize(
    ("sentence", "attribute", "yes", "no"),
    [
        ("newer than 2010", YEAR, ["> 2010", ">= 2010", ">= 2011"], ["< 2010", "= 2010", ">= 2000", "> 2011", "!= 2010"]),
        ("not older than 1990", YEAR, [">= 1990", "> 1990", "> 1989"], ["<= 1990", "< 1990"]),
        ("nothing before 1990", YEAR, [">= 1990"], ["< 1990"]),
        ("no later than 1999", YEAR, ["<= 1999", "< 1999"], [">= 1999"]),
        ("before 1980", YEAR, ["< 1980", "<= 1979"], ["<= 1970", "> 1980"]),
        ("from 1995", YEAR, ["= 1995", "in 1995"], [">= 1995", "= 1996"]),
        ("from 1995 on", YEAR, [">= 1995"], ["<= 1995"]),
        ("from 1995 onwards", YEAR, [">= 1995"], ["= 1995"]),
        ("1995 or later", YEAR, [">= 1995"], ["<= 1995"]),
        ("a 1995 movie", YEAR, ["= 1995"], [">= 1995"]),
        ("not from 1995", YEAR, ["!= 1995", "not in 1995"], ["= 1995"]),
        ("about 1995", YEAR, [], ["= 1995", ">= 1995"]),
        ("in nineteen ninety-five", YEAR, ["= 1995"], []),
        ("after two thousand ten", YEAR, [], ["= 2010", "< 2000"]),
        ("between 1990 and 1995", YEAR, [">= 1990", "<= 1995"], ["= 1990", "<= 1990", ">= 1995"]),
        ("1990-1995", YEAR, [">= 1990", "<= 1995"], []),
        ("from 1990 to 1995", YEAR, [">= 1990", "<= 1995"], ["= 1990"]),
        ("from the 80s", YEAR, [">= 1980", "> 1979", "<= 1989", "< 1990"], ["= 1980", "<= 1985", ">= 1985", "< 1980"]),
        ("an 80's movie", YEAR, [">= 1980", "<= 1989"], []),
        ("eighties", YEAR, [">= 1980", "<= 1989"], []),
        ("the 1980s", YEAR, [">= 1980", "<= 1989"], []),
        ("the nineteen eighties", YEAR, [">= 1980", "<= 1989"], []),
        ("the 20th century", YEAR, [">= 1900", "<= 1999"], []),
        ("the 80s or 90s", YEAR, [">= 1980", "<= 1999"], ["<= 1989", ">= 1990"]),
        ("since the 90s", YEAR, [">= 1990"], ["<= 1999"]),
        ("before the eighties", YEAR, ["< 1980", "<= 1979"], ["<= 1989", ">= 1980"]),
        ("after the 80s", YEAR, [">= 1990", "> 1989"], [">= 1980", "<= 1989"]),
        ("not from the 80s", YEAR, [], [">= 1980", "<= 1989", "> 1989"]),
        ("20s jazz", YEAR, [], [">= 1920", ">= 2020"]),
        ("Blade Runner 2049", YEAR, [], ["= 2049", ">= 2049"]),
        ("something recent", YEAR, [], [">= 2015"]),
        ("for my 10 year old", YEAR, [], [">= 10", "<= 10", "= 10"]),
        ("under 2000 euros", YEAR, [], ["<= 2000", "< 2000"]),
        ("under 20 euros", PRICE, ["< 20", "<= 20"], ["> 20", "= 20", "<= 19"]),
        ("under €20", PRICE, ["< 20"], ["> 20"]),
        ("at most 19,99 €", PRICE, ["<= 19.99"], []),
        ("cheaper than twenty", PRICE, ["< 20"], []),
        ("no horror, under 20 euros", PRICE, ["< 20"], []),
        ("not more than 20 dollars", PRICE, ["<= 20"], [">= 20"]),
        ("20 dollars or less", PRICE, ["<= 20"], [">= 20"]),
        ("under 20", PRICE, [], ["< 20"]),
        ("newer than 2010", PRICE, [], ["> 2010", "< 2010"]),
        ("under 90 minutes", PRICE, [], ["< 90"]),
        ("under 90 minutes", RUNTIME, ["< 90", "<= 90"], ["> 90"]),
        ("shorter than two hours", RUNTIME, ["< 120"], ["< 200"]),
        ("at least 4 stars", RATING, [">= 4"], ["<= 4", ">= 3"]),
        ("rated 4+", RATING, [">= 4"], ["<= 4"]),
        ("for 4 players", PLAYERS, ["= 4"], [">= 4", "<= 4"]),
        ("for two kids", PLAYERS, [], ["= 2"]),
        ("2 or more players", PLAYERS, [">= 2"], ["= 2"]),
    ],
)
def test_what_is_said_of_a_number(sentence: str, attribute: Attribute, yes: list[str], no: list[str]) -> None:
    """A number counts for an attribute that it can be of, in the direction of the words around it, and for nothing else."""
    evidence = Evidence(sentence)
    assert [text for text in yes if not evidence.supports(constraint(attribute, text), attribute)] == []
    assert [text for text in no if evidence.supports(constraint(attribute, text), attribute)] == []


def constraint(attribute: Attribute, text: str) -> Constraint:
    op, _, number = text.rpartition(" ")
    value = float(number)
    return Constraint(attribute.name, op, (value,) if op in ("in", "not in") else value)  # type: ignore[arg-type]  # one of them


def test_titles_are_no_evidence() -> None:
    """A category or a year that stands in the title of an example is not asked for."""
    sentence = "something like Scary Movie from 2000 or War of the Worlds"
    titles = ["Scary Movie from 2000", "War of the Worlds"]
    assert Evidence(sentence).says("War") == "wanted"
    assert Evidence(sentence, titles).says("War") is None
    assert Evidence(sentence, titles).bounds == ()


@pytest.mark.parametrize(
    ("sentence", "linked", "open_ended"),
    [
        ("comedy or drama", {"Comedy": {"Drama"}, "Drama": {"Comedy"}}, set()),
        ("a comedy or a drama", {"Comedy": {"Drama"}, "Drama": {"Comedy"}}, set()),
        ("comedy, drama or western", {"Comedy": {"Drama"}, "Drama": {"Comedy", "Western"}, "Western": {"Drama"}}, set()),
        ("comedy or something light", {}, {"Comedy"}),
        ("something light or a comedy", {}, {"Comedy"}),
        ("romantic comedy or drama", {"Comedy": {"Drama"}, "Drama": {"Comedy"}}, {"Romance"}),
        ("comedy and drama", {}, set()),
        ("a comedy from 1990 or later", {}, set()),
        ("a comedy from the 80s or 90s", {}, set()),
    ],
)
def test_alternatives(sentence: str, linked: dict[str, set[str]], open_ended: set[str]) -> None:
    """What stands on either side of an "or" belongs together; what stands beside anything else is open."""
    found, opened = Evidence(sentence).alternatives(["Comedy", "Drama", "Western", "Romance"])
    assert {value: others for value, others in found.items() if others} == linked
    assert opened == open_ended


@pytest.mark.parametrize(
    ("sentence", "negates"),
    [("something like Alien but funny", False), ("funny, not scary", True), ("nothing but comedies", False), ("no", True)],
)
def test_whether_anything_is_unwanted(sentence: str, negates: bool) -> None:
    """Only a sentence with a negation can have dislikes."""
    assert Evidence(sentence).negates is negates


@pytest.mark.parametrize(
    ("text", "span"),
    [("1980s", (1980, 1989)), ("the eighties", (1980, 1989)), ("'90s", (1990, 1999)), ("1980", None), ("80s or 90s", None)],
)
def test_a_decade_by_itself(text: str, span: tuple[int, int] | None) -> None:
    """As a model may write it where a number belongs."""
    assert decade_of(text) == span


@given(st.text(max_size=80) | st.text("0123456789.,-$ aosnrthdy'", max_size=40))
def test_any_sentence_can_be_read(sentence: str) -> None:
    """Whatever people write, nothing fails."""
    evidence = Evidence(sentence, [sentence[:10]])
    assert evidence.says("Comedy") in (None, "wanted", "unwanted", "unsure")
    assert evidence.supports(Constraint("year", ">=", 1990), YEAR) in (True, False)
    assert isinstance(evidence.negates, bool)
    evidence.alternatives(["Comedy", sentence])


@given(st.integers(1930, 2024), st.sampled_from(["funny", "about a dog", "for two kids", "like Alien"]))
def test_a_year_that_the_sentence_lacks_is_never_supported(year: int, sentence: str) -> None:
    """Whatever a model makes up."""
    for op in ("=", "!=", "<", "<=", ">", ">="):
        assert not Evidence(sentence).supports(Constraint("year", op, year), YEAR)
