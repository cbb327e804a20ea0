"""What of an embedder's section shapes vectors, and whose section is built where a folder of somebody else names one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmrank.embedder_kinds import asks_others, embedder_for, vectors_of
from llmrank.errors import ConfigError

SERVER: dict[str, Any] = {"kind": "openai", "model": "m", "base_url": "https://theirs.example.com/v1", "api_key_env": "HOME"}
OWN: dict[str, Any] = {"kind": "openai", "model": "m", "base_url": "https://mine.example.com/v1", "store": None}


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({}, {"kind": "wordllama", "dimension": 256}),
        ({"kind": "wordllama", "dimension": 64, "store": "/theirs"}, {"kind": "wordllama", "dimension": 64}),
        ({"kind": "wordllama", "headers": {"Authorization": "secret"}}, {"kind": "wordllama", "dimension": 256}),
        (SERVER | {"timeout_s": 5, "store": "/theirs"}, {"kind": "openai", "model": "m"}),
        (SERVER | {"dimensions": None, "extra_body": {}}, {"kind": "openai", "model": "m"}),
        (
            SERVER | {"dimensions": 8, "extra_body": {"input_type": "passage"}},
            {"kind": "openai", "model": "m", "dimensions": 8, "extra_body": {"input_type": "passage"}},
        ),
        ({"kind": "precomputed", "vectors": "/a/b/v.npy", "keys": "/a/items.jsonl"}, {"kind": "precomputed", "model": "v.npy"}),
        ({"kind": "precomputed", "vectors": "/a/b/v.npy", "model": "e5"}, {"kind": "precomputed", "model": "e5"}),
    ],
)
def test_what_shapes_vectors_is_told_without_places(section: dict[str, Any], told: dict[str, Any]) -> None:
    """Kind, model and dimensions; neither address nor key's name, path or timeout. It is JSON, and tells itself."""
    assert vectors_of(section) == told
    assert vectors_of(told) == told
    assert json.loads(json.dumps(told)) == told


def test_an_unknown_kind_is_refused() -> None:
    """Under the section's name, with the nearest that there is."""
    with pytest.raises(ConfigError, match=r"here\.kind: unknown kind \(got 'opnai'\); did you mean 'openai'"):
        vectors_of({"kind": "opnai"}, "here")


def test_only_static_vectors_ask_nobody() -> None:
    """A server and a file are others; the default is not."""
    assert [asks_others(each) for each in ({}, {"kind": "wordllama"}, SERVER, {"kind": "precomputed", "vectors": "v.npz"})] == [
        False,
        False,
        True,
        True,
    ]


def test_the_users_own_section_is_built() -> None:
    """As it is, with its own address, if it makes the same vectors; nothing of the folder's comes into it."""
    assert embedder_for(SERVER, OWN, "embedder") == OWN
    store = {"kind": "wordllama", "store": "/mine"}
    assert embedder_for({"kind": "wordllama", "dimension": 256, "store": "/theirs"}, store, "embedder") == store


def test_of_a_folders_own_only_static_vectors_are_built() -> None:
    """Without its `store`, which would be written to."""
    theirs = {"kind": "wordllama", "dimension": 64, "store": "/theirs"}
    assert embedder_for(theirs, None, "embedder") == {"kind": "wordllama", "dimension": 64}


@pytest.mark.parametrize(
    ("made_with", "own", "message"),
    [
        (SERVER, None, r'^retrievers\.all\.embedder: is missing: .*\{"kind": "openai", "model": "m"\}.*a base_url and api_key'),
        ({"kind": "precomputed", "vectors": "v.npz"}, None, r"^retrievers\.all\.embedder: is missing: .*a file of vectors"),
        (
            SERVER,
            OWN | {"model": "n"},
            r"embedder\.model: is not what the folder was made with \(got 'n'\); write model: .m.",
        ),
        (SERVER, OWN | {"dimensions": 8}, r"embedder\.dimensions: is not what .* \(got 8\); leave it out"),
        ({}, OWN, r"embedder\.kind: is not what .* \(got 'openai'\); write kind: .wordllama."),
        (SERVER, {"kind": "wordllama"}, r"embedder\.kind: is not what .* \(got 'wordllama'\); write kind: \"openai\""),
    ],
)
def test_what_is_missing_or_other_is_refused(made_with: dict[str, Any], own: dict[str, Any] | None, message: str) -> None:
    """In one line with key, value and remedy; the address that the folder names is not repeated."""
    with pytest.raises(ConfigError, match=message) as caught:
        embedder_for(made_with, own, "retrievers.all.embedder")
    assert "theirs" not in str(caught.value)
