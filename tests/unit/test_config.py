"""Configuration: YAML or a dict in, a Ranker out; each mistake gives one error that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank import Catalog, Item, Ranker
from llmrank.backends.base import BackendBase
from llmrank.backends.guard import Limits
from llmrank.backends.local import LocalOptions
from llmrank.config import CAPABILITIES, build_backend, build_embedder, load_config
from llmrank.errors import CapabilityError, CatalogError, ConfigError, InputError, LLMRankError, SetupError
from llmrank.protocols import Backend
from llmrank.retrieval.prefilter import PrefilterOptions
from llmrank.sections import load_yaml

CATALOG = Catalog([Item("1", "One", {"year": 2001}), Item("2", "Two")])
URL = "http://127.0.0.1:9/v1"
OPENAI = {"kind": "openai", "model": "m", "base_url": URL}

# Every key of the fixed configuration, with its documented value.
WHOLE = """
backend:   {kind: openai, model: gpt-4.1-mini, base_url: null, api_key_env: SOME_API_KEY, max_concurrency: 64}
prompt:    {template: listwise/recency, history: 20, fields: [title]}
strategy:  {kind: listwise}
prefilter: null
fusion:    {llm: 1.0}
limits:    {max_attempts: 6, deadline_s: 60}
cache:     {path: null}
"""


def test_the_documented_configuration_builds_a_ranker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A YAML file with every documented key builds; its values arrive."""
    monkeypatch.setenv("SOME_API_KEY", "sk-test")
    path = tmp_path / "ranker.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    with Ranker.from_config(path, catalog=CATALOG) as ranker:
        assert ranker.backend.kind == "openai"
        assert ranker.backend.model == "gpt-4.1-mini"
        assert ranker.max_concurrency == 64
        assert ranker.strategy.name == "listwise"
        assert ranker.catalog is CATALOG


def test_the_least_configuration_is_a_backend() -> None:
    """All sections but `backend` have defaults; null is the same as leaving a section out."""
    with Ranker.from_config({"backend": OPENAI, "prompt": None, "strategy": None, "cache": None}) as ranker:
        assert ranker.strategy.name == "listwise"
        assert ranker.prefilter is None
        assert ranker.fusion is None


def test_a_catalogue_may_be_named(tmp_path: Path) -> None:
    """`catalog: {path: ...}` loads the item file; one given in code comes first."""
    (tmp_path / "items.jsonl").write_text('{"id": "7", "title": "Seven"}\n', encoding="utf-8")
    config = {"backend": OPENAI, "catalog": {"path": str(tmp_path / "items.jsonl")}}
    with Ranker.from_config(config) as ranker:
        assert ranker.catalog is not None
        assert "7" in ranker.catalog
    with Ranker.from_config(config, catalog=CATALOG) as ranker:
        assert ranker.catalog is CATALOG
    with pytest.raises(CatalogError):
        Ranker.from_config({"backend": OPENAI}, catalog=tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"backnd": OPENAI}, "backnd: unknown key; did you mean 'backend'"),
        ({"backend": {**OPENAI, "modle": "m"}}, r"backend\.modle: unknown key; did you mean 'model'"),
        ({"backend": {**OPENAI, "max_concurency": 3}}, r"did you mean 'max_concurrency'"),
        ({"backend": {**OPENAI, "max_concurrency": "many"}}, r"backend\.max_concurrency: .*'many'"),
        ({"backend": {**OPENAI, "max_concurrency": 0}}, r"backend\.max_concurrency"),
        ({"backend": {"kind": "opnai", "model": "m"}}, r"backend\.kind: unknown kind .*did you mean 'openai'"),
        ({"backend": {"model": "m"}}, r"backend\.kind: is missing; use one of: openai"),
        ({"backend": {"kind": "openai"}}, r"backend\.model: is missing"),
        ({"backend": "openai"}, "backend: must be a mapping"),
        ({}, "backend: is missing"),
        ({"backend": OPENAI, "prompt": {"templat": "x"}}, r"prompt\.templat: unknown key; did you mean 'template'"),
        ({"backend": OPENAI, "prompt": {"template": "listwise/recncy"}}, "did you mean 'listwise/recency'"),
        ({"backend": OPENAI, "prompt": {"fields": ["title", "yaer"]}}, r"prompt\.fields: no item .*'yaer'.*'year'"),
        ({"backend": OPENAI, "strategy": {"kind": "listwise", "windw": 4}}, "did you mean 'window'"),
        ({"backend": OPENAI, "strategy": {"kind": "listwise", "window": 1}}, r"strategy\.window"),
        ({"backend": OPENAI, "strategy": {"kind": "listwize"}}, "did you mean 'listwise'"),
        ({"backend": OPENAI, "strategy": {"kind": "pointwise", "choices": [True, False]}}, r"choices\.0: .*put them in quotes"),
        ({"backend": OPENAI, "prompt": {"template": 5}}, r"prompt\.template: .*YAML reads yes, no and numbers"),
        ({"backend": OPENAI, "limits": {"max_attempt": 1}}, "did you mean 'max_attempts'"),
        ({"backend": OPENAI, "limits": {"max_attempts": 0}}, r"limits\.max_attempts"),
        ({"backend": OPENAI, "limits": {"on_error": "ignore"}}, r"limits\.on_error"),
        ({"backend": OPENAI, "cache": {"pth": "x"}}, "did you mean 'path'"),
        ({"backend": OPENAI, "cache": {"path": "/dev/null/x.sqlite"}}, r"cache\.path"),
        ({"backend": {"kind": "replay", "path": "r.jsonl", "record": OPENAI}, "cache": {"path": "a.sqlite"}}, r"cache\.path"),
        ({"backend": OPENAI, "fusion": {"lm": 1.0}}, "did you mean 'llm'"),
        ({"backend": OPENAI, "fusion": {"prefilter": 1.0}}, r"fusion\.prefilter"),
        ({"backend": OPENAI, "prefilter": {"kep": 5}}, "did you mean 'keep'"),
        ({"backend": OPENAI, "prefilter": {"embedder": {"kind": "wordlama"}}}, "did you mean 'wordllama'"),
        ({"backend": OPENAI, "prefilter": False}, "prefilter: must be a mapping"),
        ({"backend": OPENAI, "prefilter": {"keep": True}}, r"prefilter\.keep: .*integer .got True"),
        ({"backend": OPENAI, "prefilter": {"decay": True}}, r"prefilter\.decay: .*number .got True"),
        ({"backend": OPENAI, "prompt": {"history": True}}, r"prompt\.history: .*integer .got True"),
        ({"backend": OPENAI, "prompt": {"history": "5"}}, r"prompt\.history: .*integer .got '5'"),
        ({"backend": {**OPENAI, "max_concurrency": True}}, r"backend\.max_concurrency: .*integer .got True"),
        ({"backend": OPENAI, "limits": {"deadline_s": True}}, r"limits\.deadline_s: .*number .got True"),
        ({"backend": OPENAI, "strategy": {"kind": "listwise", "repair": 1}}, r"strategy\.repair: .*boolean .got 1"),
    ],
)
def test_a_mistake_is_named_with_its_remedy(config: dict[str, Any], said: str) -> None:
    """Unknown keys name the nearest, wrong values name the field; always one line, before anything is asked."""
    with pytest.raises(InputError, match=said) as raised:
        Ranker.from_config(config, catalog=CATALOG)
    assert "\n" not in str(raised.value)


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    """A missing file, broken YAML and YAML that is no mapping are told apart."""
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("backend: {kind: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(broken)
    broken.write_text("- just\n- a list\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="mapping"):
        load_config(broken)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend: {kind: local}\nprompt: {}\nbackend: {kind: openai}\n", "line 3: the key 'backend' .* first in line 1"),
        ("prompt:\n  history: 20\n  'history': 5\n", "line 3: the key 'history' .* first in line 2"),
        ("fusion: [{a: {llm: 1, llm: 1}}]\n", "line 1: the key 'llm'"),
        ("1: a\n1: b\n", "line 2: the key '1'"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """Key, line and file are named, however deep it is: of two values one would be lost."""
    path = tmp_path / "twice.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{said}.*twice.yaml.*keep one"):
        load_config(path)


def test_a_key_may_override_what_an_alias_brings(tmp_path: Path) -> None:
    """That is what ``<<`` is for; and equal keys of different mappings have nothing to do with each other."""
    path = tmp_path / "merged.yaml"
    path.write_text(
        "a: {b: &first {k: 1, m: 1}, c: &second {<<: *first, k: 2}}\nd: {<<: *second, k: 3}\n'1': x\n1: y\n", encoding="utf-8"
    )
    found = {"a": {"b": {"k": 1, "m": 1}, "c": {"k": 2, "m": 1}}, "d": {"k": 3, "m": 1}, "1": "x", 1: "y"}
    assert load_yaml(path, "config") == found


def test_a_date_that_does_not_exist_is_no_traceback(tmp_path: Path) -> None:
    """YAML takes it for a date."""
    path = tmp_path / "date.yaml"
    path.write_text("cut: 2020-13-01\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"not YAML .*month"):
        load_yaml(path, "suite")


def test_configurations_nested_without_end_are_refused(tmp_path: Path) -> None:
    """Not a traceback of the YAML parser."""
    path = tmp_path / "deep.yaml"
    path.write_text("[" * 2_000, encoding="utf-8")
    with pytest.raises(ConfigError, match="not YAML"):
        load_config(path)


def test_whole_numbers_serve_where_any_number_does() -> None:
    """`deadline_s: 60` is as good as 60.0."""
    with Ranker.from_config({"backend": {**OPENAI, "timeout_s": 60}, "limits": {"deadline_s": 60}}) as ranker:
        assert ranker.backend.kind == "openai"


def test_an_empty_prefilter_section_is_a_prefilter_with_defaults() -> None:
    """Only null, or no section, means none."""
    with Ranker.from_config({"backend": OPENAI, "prefilter": {}}) as ranker:
        assert ranker.prefilter is not None
        assert ranker.prefilter.options == PrefilterOptions()


class InProcess(BackendBase):
    """Stands for a model in this process, which a test does not want to load."""

    def __init__(self, options: LocalOptions) -> None:
        super().__init__("local", "by-hand")

    @property
    def remote(self) -> bool:
        """No server."""
        return False

    @property
    def concurrency(self) -> int:
        """One at a time."""
        return 1


@pytest.mark.parametrize(
    ("backend", "limits", "expected"),
    [
        ({"kind": "local"}, {}, None),
        ({"kind": "local"}, {"max_attempts": 2}, None),
        ({"kind": "local"}, {"deadline_s": 5}, 5.0),
        ({"kind": "replay", "record": {"kind": "local"}}, {"max_attempts": 2}, None),
        ({"kind": "replay", "record": OPENAI}, {"max_attempts": 2}, 60.0),
        (OPENAI, {}, 60.0),
        (OPENAI, {"deadline_s": None}, None),
    ],
)
def test_a_model_in_this_process_has_no_deadline(
    backend: dict[str, Any],
    limits: dict[str, Any],
    expected: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither by itself nor while it is recorded, unless the configuration names one; other limits do not change that."""
    seen: list[Limits] = []

    def guard(inner: Backend, *, limits: Limits, **others: Any) -> Backend:
        seen.append(limits)
        return inner

    monkeypatch.setattr("llmrank.ranker.guard", guard)
    monkeypatch.setattr("llmrank.backends.local.LocalBackend", InProcess)
    if backend["kind"] == "replay":
        backend = {**backend, "path": str(tmp_path / "answers.jsonl")}
    with Ranker.from_config({"backend": backend, "limits": limits}):
        assert seen[0].deadline_s == expected


@pytest.mark.parametrize(("outer", "inner", "expected"), [({}, 3, 3), (5, {}, 5), (5, 3, 3), ({}, {}, 64)])
def test_a_recorded_backend_keeps_its_concurrency(outer: Any, inner: Any, expected: int, tmp_path: Path) -> None:
    """`max_concurrency` counts in the block that is recorded, and in the one around it."""
    record = {**OPENAI, **({"max_concurrency": inner} if inner else {})}
    backend = {"kind": "replay", "path": str(tmp_path / "answers.jsonl"), "record": record}
    with Ranker.from_config({"backend": {**backend, **({"max_concurrency": outer} if outer else {})}}) as ranker:
        assert ranker.max_concurrency == expected
    assert record == {**OPENAI, **({"max_concurrency": inner} if inner else {})}


def test_precomputed_vectors_may_have_a_fallback(tmp_path: Path) -> None:
    """A section of another kind embeds the queries; its mistakes are named, and a model of another size is refused."""
    np.savez(tmp_path / "v.npz", vectors=np.eye(2, 64), ids=np.array(["1", "2"]))
    precomputed = {"kind": "precomputed", "vectors": str(tmp_path / "v.npz")}
    fallback: dict[str, Any] = {"kind": "wordllama", "dimension": 64, "store": None}
    embedder = build_embedder({**precomputed, "fallback": fallback})
    assert embedder.embed(["something nice"]).any()
    assert build_embedder({**precomputed, "fallback": None}).model == "v.npz"
    for wrong, said in [
        ({**fallback, "dimension": 128}, "have 128 numbers, those on disk 64"),
        ({**fallback, "dimensoin": 64}, r"fallback\.dimensoin: unknown key; did you mean 'dimension'"),
        ({"kind": "precomputed", "vectors": "v.npz"}, r"fallback\.kind: unknown kind"),
        ({}, r"fallback\.kind: is missing; use one of: wordllama, openai"),
        ("wordllama", "fallback: must be a mapping"),
    ]:
        with pytest.raises(ConfigError, match=said):
            build_embedder({**precomputed, "fallback": wrong})


def test_a_strategy_that_the_backend_cannot_serve_is_refused() -> None:
    """Scoring needs a backend that scores; the message names those that do."""
    with pytest.raises(CapabilityError, match="vllm, vllm-inprocess, local"):
        Ranker.from_config({"backend": OPENAI, "strategy": {"kind": "likelihood"}})


def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key one line says which environment variable to set."""
    monkeypatch.delenv("SOME_API_KEY", raising=False)
    with pytest.raises(SetupError, match="SOME_API_KEY"):
        Ranker.from_config({"backend": {"kind": "openai", "model": "m", "api_key_env": "SOME_API_KEY"}})


@pytest.mark.parametrize(
    "section",
    [OPENAI, {"kind": "vllm", "base_url": URL, "model": "m"}, {"kind": "vllm-inprocess", "model": "m"}, {"kind": "local"}],
    ids=lambda section: section["kind"],
)
def test_the_table_of_capabilities_is_true(section: dict[str, Any]) -> None:
    """What the error message says of other backends is what they say of themselves."""
    try:
        backend = build_backend(section)
    except SetupError as error:
        pytest.skip(f"not on this machine: {error}")
    assert backend.capabilities == CAPABILITIES[section["kind"]]


def test_the_same_ranker_by_another_backend_is_one_block(tmp_path: Path) -> None:
    """Only the block `backend` changes when a ranker moves from an API to a vLLM server or to a recording."""
    rest = {"prompt": {"template": "listwise/recency"}, "strategy": {"kind": "listwise", "window": 10}}
    recording = {"kind": "replay", "path": str(tmp_path / "answers.jsonl"), "record": OPENAI}
    for block, kind in ((OPENAI, "openai"), ({"kind": "vllm", "base_url": URL, "model": "m"}, "vllm"), (recording, "openai")):
        with Ranker.from_config({"backend": block, **rest}) as ranker:
            assert ranker.backend.kind == kind


def test_every_error_is_of_the_tree() -> None:
    """One `except LLMRankError` catches whatever a configuration can do wrong."""
    assert issubclass(ConfigError, LLMRankError)
    assert ConfigError.exit_status == 2
