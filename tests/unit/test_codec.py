"""The stored form: every completion and error comes back equal, and keys change with all that shapes an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrank import errors
from llmrank.codec import (
    _COMPLETION,
    NOT_SHAPING,
    SHAPING,
    CodecError,
    cache_key,
    canonical,
    document_key,
    dump_completion,
    dump_error,
    dump_prompt,
    load_completion,
    load_error,
)
from llmrank.errors import BackendError, ContextLengthError, RateLimitError, ServerError
from llmrank.types import Completion, ContinuationScore, Message, Prompt, Usage

TEXT = st.text(st.characters(exclude_categories=()), max_size=30)  # half surrogate pairs included
FLOATS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**60)

COMPLETIONS = st.builds(
    Completion,
    text=st.none() | TEXT,
    finish_reason=st.none() | TEXT,
    usage=st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, FLOATS),
    scores=st.lists(st.builds(ContinuationScore, FLOATS, COUNTS), max_size=3).map(tuple),
    label_logprobs=st.none() | st.dictionaries(TEXT, FLOATS, max_size=3),
    reasoning=st.none() | TEXT,
    model=TEXT,
    notes=st.lists(TEXT, max_size=2).map(tuple),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*_COMPLETION, "seconds"]), inner, max_size=3),
    max_leaves=10,
)


@given(COMPLETIONS)
def test_a_completion_comes_back_equal(completion: Completion) -> None:
    """Texts, counts, floats to the last bit and infinities survive strict JSON, in ASCII."""
    text = canonical(dump_completion(completion))
    assert text.isascii()
    assert load_completion(json.loads(text)) == completion


def test_nan_comes_back() -> None:
    """A NaN, which JSON lacks and which equals nothing, comes back as one."""
    document = json.loads(canonical(dump_completion(Completion(scores=(ContinuationScore(float("nan"), 3),)))))
    assert load_completion(document).scores[0].logprob != load_completion(document).scores[0].logprob


@given(JSON)
def test_anything_else_is_refused(document: Any) -> None:
    """Any JSON value whatever is either a completion, which is then written as one again, or a CodecError."""
    try:
        completion = load_completion(document)
    except CodecError:
        return
    assert set(dump_completion(completion)) <= set(document)


def test_every_field_is_classified() -> None:
    """A field that is added to Prompt or Completion has to be given its place in the stored form."""
    assert {field.name for field in fields(Prompt)} == SHAPING.keys() | NOT_SHAPING
    assert not SHAPING.keys() & NOT_SHAPING
    assert {field.name for field in fields(Completion)} == set(_COMPLETION)


OTHER: Mapping[str, Any] = {
    "messages": (Message("user", "another"),),
    "prefix": "another",
    "continuations": ("another",),
    "labels": ("X",),
    "item_ids": ("603",),
    "answer": "json",
    "schema": {"type": "object"},
    "max_tokens": 513,
    "temperature": 0.5,
    "seed": 0,
    "sample": 1,
    "label_logprobs": True,
    "fingerprint": "another",
    "shared": True,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Prompt)])
def test_the_key_changes_with_what_shapes_the_answer(name: str) -> None:
    """Each field changes both keys, except the ids, the fingerprint and `shared`, which change neither."""
    prompt = Prompt(messages=(Message("user", "hello"),))
    other = replace(prompt, **{name: OTHER[name]})
    shapes = name not in NOT_SHAPING
    assert (cache_key(prompt, {}) != cache_key(other, {})) is shapes
    assert (document_key(dump_prompt(prompt)) != document_key(dump_prompt(other))) is shapes


def test_another_schema_is_another_question() -> None:
    """Two prompts that differ within their schemas alone have keys of their own; both are hashable all the same."""
    one, other = (Prompt(answer="object", schema={"properties": {"a": {"enum": [value]}}}) for value in ("x", "y"))
    assert cache_key(one, {}) != cache_key(other, {})
    assert len({one, other}) == 2


def test_the_key_of_the_cache_knows_the_backend() -> None:
    """Another identity is another key; the order of its settings is not."""
    prompt = Prompt(messages=(Message("user", "hello"),))
    assert cache_key(prompt, {"model": "a"}) != cache_key(prompt, {"model": "b"})
    assert cache_key(prompt, {"a": 1, "b": 2}) == cache_key(prompt, {"b": 2, "a": 1})


def test_keys_stay_as_they_are() -> None:
    """Recordings outlive versions: the key of this prompt is a constant. If it must change, raise `SCHEMA`."""
    prompt = Prompt(
        messages=(Message("system", "Rank."), Message("user", "[A] Amélie")), labels=("A",), answer="order", max_tokens=64
    )
    assert document_key(dump_prompt(prompt)) == "9a0b465242ab3d4f360c3af8f1e8b3572923e445a01adf0a518055340c0aafb5"


def test_the_text_of_a_number_does_not_matter() -> None:
    """Temperature 1 and 1.0 are one temperature."""
    assert dump_prompt(Prompt(temperature=1)) == dump_prompt(Prompt(temperature=1.0))
    assert canonical(dump_prompt(Prompt(temperature=1))) == canonical(dump_prompt(Prompt(temperature=1.0)))


def all_errors(cls: type[BackendError] = BackendError) -> list[type[BackendError]]:
    """BackendError and all below it that llmrank defines."""
    return [cls, *(e for below in cls.__subclasses__() if below.__module__ == errors.__name__ for e in all_errors(below))]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_an_error_comes_back_as_its_class(cls: type[BackendError]) -> None:
    """Each class of the tree comes back as itself, with its message."""
    loaded = load_error(json.loads(canonical(dump_error(cls("no: Amélie")))))
    assert type(loaded) is cls
    assert str(loaded) == "no: Amélie"


def test_an_errors_numbers_come_back() -> None:
    """`retry_after` and `window` survive."""
    limit = load_error(dump_error(RateLimitError("429", retry_after=2.5)))
    length = load_error(dump_error(ContextLengthError("too long", window=4096)))
    assert isinstance(limit, RateLimitError)
    assert isinstance(length, ContextLengthError)
    assert (limit.retry_after, length.window) == (2.5, 4096)


def test_what_an_error_took_comes_back() -> None:
    """A cost survives; an error without one is stored as before there were any, and is read with none."""
    error = ServerError("502").retold(usage=Usage(retries=2, seconds=3.5), spared=Usage(retries=1))
    loaded = load_error(json.loads(canonical(dump_error(error))))
    assert (loaded.usage, loaded.spared) == (error.usage, error.spared)
    plain = dump_error(ServerError("502"))
    assert plain == {"kinds": ["ServerError", "BackendError"], "message": "502"}
    assert load_error(plain).usage == load_error(plain).spared == Usage()


def test_an_unknown_class_becomes_the_nearest_known() -> None:
    """A class of somebody else's backend comes back as the class of ours that it is derived from."""

    class GatewayError(ServerError):
        pass

    assert type(load_error(dump_error(GatewayError("502")))) is ServerError


@pytest.mark.parametrize(
    "document",
    [None, {}, {"kinds": ["KeyError"], "message": "x"}, {"kinds": ["ServerError"]}, {"kinds": ["InputError"], "message": "x"}],
)
def test_what_is_no_error_is_refused(document: Any) -> None:
    """Only classes of backend errors are made from a file."""
    with pytest.raises(CodecError):
        load_error(document)
