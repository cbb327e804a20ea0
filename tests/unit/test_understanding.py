"""How a sentence is read: the question, its answer, what of it stands, and what is left if nothing can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank.budget import Budget, EstimateCounter
from llmrank.codec import cache_key
from llmrank.driver import advance
from llmrank.errors import BackendError, ConfigError, ContextLengthError, ServerError, TemplateError
from llmrank.retrieval.constraints import AttributeTable, Constraint
from llmrank.types import Completion, Event, Item, Prompt, Ranking, ResolvedRequest
from llmrank.understanding import Understanding, UnderstandingOptions, Wish
from llmrank.understanding.reader import UNREADABLE, claimed, object_in, read_wish
from llmrank.understanding.schema import wish_schema
from llmrank.writer import PromptOptions

GENRES = ("Comedy", "Horror", "Sci-Fi", "Drama", "Romance", "Animation", "Children's")
FILMS = tuple(
    Item(
        str(place),
        f"Film {place}",
        {"year": 1930 + place, "genres": [GENRES[place % 7], GENRES[(place + 1) % 7]], "price": 5.5},
    )
    for place in range(70)
)
TABLE = AttributeTable(FILMS)
ATTRIBUTES = tuple(TABLE.describe(name) for name in ("year", "genres", "price"))
WIDE = Budget(8000, EstimateCounter())


def condition(attribute: str, op: str, value: object) -> dict[str, object]:
    return {"attribute": attribute, "op": op, "value": value}


def read(sentence: str, **answer: object) -> Wish:
    return read_wish(sentence, json.dumps(answer), ATTRIBUTES, TABLE.spellings)


def kept(sentence: str, *conditions: dict[str, object]) -> list[str]:
    return [str(constraint) for constraint in read(sentence, constraints=conditions).constraints]


def test_a_sentence_is_taken_apart() -> None:
    """Wishes, titles, dislikes and constraints of an answer that says what the sentence says."""
    wish = read(
        "something like Alien but funny, not gory, newer than 1980",
        wishes=["funny"],
        like=["Alien"],
        dislikes=["gory"],
        constraints=[condition("year", ">", 1980)],
    )
    assert wish == Wish(
        "something like Alien but funny, not gory, newer than 1980",
        ("funny",),
        ("Alien",),
        ("gory",),
        (Constraint("year", ">", 1980),),
    )
    assert wish.text == "funny, Alien"


@pytest.mark.parametrize(
    ("sentence", "conditions", "constraints"),
    [
        ("a comedy", [condition("genres", "=", "Comedy")], ["genres = Comedy"]),
        ("a comedy", [condition("Genres", "==", "comedies?")], []),
        ("a comedy", [condition("genres", "=", "comdey")], []),  # of six letters, too far away
        ("an animation", [condition("genres", "=", "Animaton")], ["genres = Animation"]),
        ("some scifi", [condition("genres", "=", "scifi")], ["genres = Sci-Fi"]),
        ("for children", [condition("genres", "in", ["Childrens"])], ["genres = Children's"]),
        ("no horror", [condition("genres", "!=", "Horror")], ["genres != Horror"]),
        ("no horror", [condition("genres", "=", "Horror")], []),
        ("horror", [condition("genres", "!=", "Horror")], []),
        ("no horror", [condition("genres", "not in", ["Horror", "Drama"])], ["genres not in Horror"]),
        ("comedy or drama", [condition("genres", "in", ["Comedy", "Drama"])], ["genres in Comedy, Drama"]),
        (
            "comedy or drama",
            [condition("genres", "=", "Comedy"), condition("genres", "=", "Drama")],
            ["genres in Comedy, Drama"],
        ),
        ("comedy or drama", [condition("genres", "=", "Comedy")], []),
        ("a comedy or something light", [condition("genres", "=", "Comedy")], []),
        ("a romantic comedy", [condition("genres", "=", ["Romance", "Comedy"])], ["genres = Romance", "genres = Comedy"]),
        ("a comedy", [condition("genres", "in", ["Comedy", "Romance"])], ["genres = Comedy"]),
        ("from the 80s", [condition("year", "=", "1980s")], ["year >= 1980", "year <= 1989"]),
        ("from the 80s", [condition("year", ">=", 1980), condition("year", "<", 1990)], ["year >= 1980", "year < 1990"]),
        ("from the 80s", [condition("year", "=", 1985)], []),
        ("newer than 1980", [condition("year", "<", 1980)], []),
        ("newer than 1980", [condition("year", ">", "1980")], ["year > 1980"]),
        ("under 6 euros", [condition("price", "<", 6)], ["price < 6"]),
        ("something funny", [condition("genres", "=", "Comedy"), condition("year", ">=", 1990)], []),
        ("a comedy", [condition("genres", "<", "Comedy")], []),
        ("a comedy", [condition("director", "=", "Comedy")], []),
        ("a comedy", [condition("year", "=", "Comedy")], []),
        ("a comedy", [condition("genres", "about", "Comedy")], []),
    ],
)
def test_which_constraints_stand(sentence: str, conditions: list[dict[str, object]], constraints: list[str]) -> None:
    """Those that the sentence states and the catalogue knows, in the catalogue's spelling; a note tells every other one."""
    wish = read(sentence, constraints=conditions)
    assert [str(each) for each in wish.constraints] == constraints
    merged = any(" in " in text and "not in" not in text for text in constraints)
    if not merged and len(constraints) < sum(len(v) if isinstance(v := each["value"], list) else 1 for each in conditions):
        assert wish.notes


def test_what_is_not_stated_becomes_a_wish_or_a_dislike() -> None:
    """A category that the model concludes orders candidates, and leaves none out; the notes name it. A number is only noted."""
    wish = read(
        "something funny, nothing scary",
        wishes=["funny"],
        dislikes=["scary"],
        constraints=[condition("genres", "=", "Comedy"), condition("genres", "!=", "Horror"), condition("year", ">", 1990)],
    )
    assert (wish.wishes, wish.dislikes, wish.constraints) == (("funny", "Comedy"), ("scary", "Horror"), ())
    assert [word for word in ("Comedy", "Horror", "year > 1990") if not any(word in note for note in wish.notes)] == []


def test_a_wish_that_the_sentence_rejects_is_none() -> None:
    """A model that puts "horror" among the wishes of "no horror" does not send the user there, and the contrary neither."""
    wish = read("funny, no horror", wishes=["horror", "funny"], dislikes=["funny", "horror"])
    assert (wish.wishes, wish.dislikes) == (("funny",), ("horror",))
    assert len(wish.notes) == 2


def test_a_sentence_that_rejects_nothing_has_no_dislikes() -> None:
    """What a model makes up as a dislike would push away what is wanted."""
    wish = read("like Alien but funny", dislikes=["funny", "romance"])
    assert wish.dislikes == ()
    assert len(wish.notes) == 2


@pytest.mark.parametrize(
    ("sentence", "title", "named"),
    [
        ("a comedy from the 80s", "a comedy from the 80s", False),
        ("something like alien", "Alien", True),
        ("a comedy, such as Airplane!", "Airplane!", True),
        ("Airplane or Hot Shots, please", "Hot Shots", True),
        ("not a dog", "a dog", False),
    ],
)
def test_words_of_the_sentence_are_no_title_by_themselves(sentence: str, title: str, named: bool) -> None:
    """A small model gives the whole sentence for a title; that must not hide what the sentence says outright."""
    wish = read(sentence, like=[title], constraints=[condition("genres", "=", "Comedy")])
    assert (wish.like == (title,)) is named
    assert (Constraint("genres", "=", "Comedy") in wish.constraints) is ("comedy" in sentence)


def test_only_titles_that_the_sentence_names_are_examples() -> None:
    """Without regard to case, punctuation and articles; a title that the model adds is left out, with a note."""
    wish = read("something like the matrix or toy story", like=["The Matrix", "Toy Story", "Blade Runner"])
    assert wish.like == ("The Matrix", "Toy Story")
    assert "Blade Runner" in wish.notes[0]


@pytest.mark.parametrize(
    "text", [None, "", "I would watch Alien.", "[1, 2]", '{"ranking": ["A"]}', '<think>{"wishes": []}</think> nothing']
)
def test_what_cannot_be_read_leaves_the_sentence(text: str | None) -> None:
    """No object with any of the members: the sentence as it stands, no constraint, and a note."""
    assert read_wish("no horror", text, ATTRIBUTES, TABLE.spellings) == Wish("no horror", notes=(UNREADABLE,))


@pytest.mark.parametrize(
    "text",
    [
        '<think>Hm {"wishes": ["x"]}</think>{"wishes": ["funny"]}',
        'Sure!\n```json\n{"wishes": ["funny",]}\n```',
        "{'wishes': ['funny'], 'like': ['Ali",
        '{"wishes": "funny"}',
    ],
)
def test_an_answer_need_not_be_clean(text: str) -> None:
    """Reasoning, fences, trailing commas, single quotes, an end that is cut off, a text in place of a list."""
    assert read_wish("something funny", text, ATTRIBUTES, TABLE.spellings).wishes == ("funny",)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 3000)
    | st.floats()
    | st.sampled_from(["year", "genres", "=", "in", "Comedy", "80s", ""]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["wishes", "like", "dislikes", "constraints", "attribute", "op", "value"]), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from(["a comedy from the 80s, no horror", "funny", "x"]))
def test_any_object_is_read(answer: Any, sentence: str) -> None:
    """Whatever a model writes: a Wish of clean texts comes out, whose constraints the catalogue can look up."""
    wish = read_wish(sentence, json.dumps({"wishes": [], "constraints": answer}), ATTRIBUTES, TABLE.spellings)
    for constraint in wish.constraints:
        TABLE.check(constraint)
    assert read_wish(sentence, json.dumps(answer), ATTRIBUTES, TABLE.spellings).query == sentence


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    """Nothing fails, and of a sentence that states nothing no constraint comes."""
    assert read_wish("something funny", text, ATTRIBUTES, TABLE.spellings).constraints == ()
    object_in(text)


CONDITIONS = st.builds(
    condition,
    st.sampled_from(["year", "genres", "price"]),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "in", "not in"]),
    st.sampled_from([*GENRES, 1980, 1990, 6, ["Comedy", "Drama"]]),
)


@given(st.lists(CONDITIONS, max_size=5), st.sampled_from(["a comedy from before 1990", "no horror", "comedy or drama", "x"]))
def test_reading_never_adds_a_constraint(conditions: list[dict[str, object]], sentence: str) -> None:
    """Each category and number of a constraint that stands is one that the model gave for that attribute."""
    text = json.dumps({"constraints": conditions})
    given_values = {(each.attribute, value) for each in claimed(text, ATTRIBUTES, TABLE.spellings) for value in each.values}
    wish = read_wish(sentence, text, ATTRIBUTES, TABLE.spellings)
    assert {(each.attribute, value) for each in wish.constraints for value in each.values} <= given_values


def test_the_schema_has_what_backends_enforce() -> None:
    """Every member is required, nothing else may be there; categories are those of the catalogue where all are shown."""
    schema = wish_schema(ATTRIBUTES)
    assert schema["required"] == ["wishes", "like", "dislikes", "constraints"]
    forms = schema["properties"]["constraints"]["items"]["anyOf"]
    assert [form["properties"]["attribute"]["enum"] for form in forms] == [["year"], ["genres"], ["genres"], ["price"]]
    assert set(forms[1]["properties"]["value"]["enum"]) == set(GENRES)

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node["required"] == list(node["properties"])
                assert node["additionalProperties"] is False
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(schema)
    assert (
        "enum"
        not in wish_schema([TABLE.describe("genres", most=2)])["properties"]["constraints"]["items"]["anyOf"][0]["properties"][
            "value"
        ]
    )
    assert "constraints" not in wish_schema([])["properties"]


def asked(understanding: Understanding, request: ResolvedRequest, answer: Completion | BackendError | None) -> Any:
    """The Wish, or the prompts if `answer` is None."""

    def flow() -> Any:
        wish = yield from understanding.flow(request, TABLE, WIDE)
        return Ranking((), wish=wish)

    outcome = advance(flow(), lambda prompt: answer)
    return outcome.wish if isinstance(outcome, Ranking) else outcome


MOVIES = PromptOptions(variables={"domain": "movies"})
REQUEST = ResolvedRequest((), FILMS, "a comedy, newer than 1980")


def test_one_question_is_asked() -> None:
    """It shows the sentence and the attributes, asks for an object by its schema, and knows neither candidates nor history."""
    understanding = Understanding(UnderstandingOptions(attributes=("year", "genres", "none such")), MOVIES)
    (prompt,) = asked(understanding, REQUEST, None)
    text = "\n".join(message.content for message in prompt.messages)
    assert "<wish>a comedy, newer than 1980</wish>" in text
    assert "- year: a number from 1930 to 1999" in text
    assert "- genres: " in text
    assert "none such" not in text
    assert "Film" not in text
    assert (prompt.answer, prompt.max_tokens, prompt.labels) == ("object", 512, ())
    assert prompt.fingerprint == understanding.writer.fingerprint
    seen = ResolvedRequest((Event(FILMS[0]),), FILMS[:3], REQUEST.query, user_id="u")
    assert asked(understanding, seen, None) == (prompt,)


def test_other_attributes_are_another_question() -> None:
    """The answer cache keeps them apart, though the prompt of categories that are cut off may look the same."""
    one, other = (
        asked(Understanding(UnderstandingOptions(attributes=attributes), MOVIES), REQUEST, None)[0]
        for attributes in (("year",), ("year", "genres"))
    )
    assert cache_key(one, {}) != cache_key(other, {})
    assert cache_key(one, {}) != cache_key(Prompt(messages=one.messages, answer="object", fingerprint=one.fingerprint), {})


def test_the_answer_is_read() -> None:
    """With the backend's own notes before those of the reading."""
    text = json.dumps({"wishes": [], "constraints": [condition("genres", "=", "Comedy"), condition("year", "<", 1980)]})
    understanding = Understanding(UnderstandingOptions(attributes=("year", "genres")), MOVIES)
    wish = asked(understanding, REQUEST, Completion(text, notes=("the server enforces no JSON schema",)))
    assert wish.constraints == (Constraint("genres", "=", "Comedy"),)
    assert wish.notes[0] == "the server enforces no JSON schema"
    assert "year < 1980" in wish.notes[1]


@pytest.mark.parametrize("error", [ServerError("it broke"), ContextLengthError("too long", window=10)])
def test_an_error_leaves_the_sentence(error: BackendError) -> None:
    """Whatever the error: no constraint, and a note with the reason."""
    wish = asked(Understanding(None, MOVIES), REQUEST, error)
    assert (wish.text, wish.constraints) == (REQUEST.query, ())
    assert str(error) in wish.notes[0]


def test_a_window_that_is_too_small_leaves_the_sentence() -> None:
    """Then nothing is asked at all."""
    flow = Understanding(None, MOVIES).flow(REQUEST, TABLE, Budget(600, EstimateCounter()))
    with pytest.raises(StopIteration) as stopped:
        next(flow)
    assert stopped.value.value.text == REQUEST.query
    assert "was not read" in stopped.value.value.notes[0]


@pytest.mark.parametrize(
    ("when", "new", "known"), [("no-history", True, False), ("always", True, True), ("never", False, False)]
)
def test_when_a_query_is_read(when: Any, new: bool, known: bool) -> None:
    """By default only that of a user without a history; a request without a query never."""
    understanding = Understanding(UnderstandingOptions(when=when), MOVIES)
    assert understanding.applies(REQUEST) is new
    assert understanding.applies(ResolvedRequest((Event(FILMS[0]),), FILMS, "x")) is known
    assert not understanding.applies(ResolvedRequest((), FILMS))


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: UnderstandingOptions(when="sometimes"), "understanding.when"),  # type: ignore[arg-type]  # the error is the test
        (lambda: UnderstandingOptions(attributes="year"), "understanding.attributes"),  # type: ignore[arg-type]  # as above
        (lambda: UnderstandingOptions(values=0), "understanding.values"),
        (lambda: UnderstandingOptions(max_tokens=0), "understanding.max_tokens"),
        (lambda: Understanding(UnderstandingOptions(template="listwise/sequential")), "understanding.template"),
        (lambda: Understanding(UnderstandingOptions(template="likelihood/query")), "understanding.template"),
    ],
)
def test_wrong_options_are_refused(make: Any, part: str) -> None:
    """One error that names the key."""
    with pytest.raises(ConfigError, match=part):
        make()


def test_a_template_that_does_not_exist_is_refused() -> None:
    """As everywhere."""
    with pytest.raises(TemplateError, match="no such template"):
        Understanding(UnderstandingOptions(template="understanding/wsih"))


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (Wish("a funny film"), "a funny film"),
        (Wish("a funny film for kids", ("funny",), ("Toy Story",)), "funny, Toy Story"),
        (Wish("a funny film", ("comedy", "light")), "a funny film, comedy, light"),
        (Wish("from the nineties", ("the Marvel universe",)), "from the nineties, the Marvel universe"),
    ],
)
def test_the_sentence_stands_before_wishes_in_other_words(wish: Wish, text: str) -> None:
    """A paraphrase helps and what is made up does little harm: items are compared with the user's words, too."""
    assert wish.text == text


def test_an_unwanted_category_needs_a_negation() -> None:
    """A model that denies every genre in a sentence that denies nothing is not believed, not even as a dislike."""
    text = '{"constraints": [{"attribute": "genres", "op": "!=", "value": "Drama"}]}'
    assert read_wish("something newer than 1990", text, ATTRIBUTES, TABLE.spellings).dislikes == ()
    assert read_wish("something newer, nothing sad", text, ATTRIBUTES, TABLE.spellings).dislikes == ("Drama",)
