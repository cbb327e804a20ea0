"""The registry of prompts: what was asked can be found and rendered again, whatever happens to files, writers and disks."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank.errors import ConfigError, DatasetError, InputError
from llmrank.lint import sample_values
from llmrank.registry import Registry, Result, Version
from llmrank.template import Templates, fingerprint

PACKAGED = Templates()
NAMES = PACKAGED.names()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty one."""
    return Registry(tmp_path / "sub" / "prompts.registry.jsonl")


def own(folder: Path, text: str) -> Templates:
    """Templates with one of one's own that says `text`, before the packaged ones."""
    folder.mkdir(exist_ok=True)
    block = '{% include "_history.jinja" %}{% include "_candidates.jinja" %}'
    (folder / "mine.jinja").write_text(f"{{# Mine. #}}{{% block user %}}{text} {block}{{% endblock %}}", encoding="utf-8")
    return Templates(folder)


@pytest.mark.parametrize("name", NAMES)
def test_every_template_renders_from_its_registered_texts_as_from_its_files(registry: Registry, name: str) -> None:
    """Name, fingerprint, kind, steps, description and every step's prompt are the same; only where it is from differs."""
    template = PACKAGED.get(name)
    version = registry.add(template, "as it is")
    again = registry.template(version)
    assert again.fingerprint == template.fingerprint == version.fingerprint == fingerprint(template.sources)
    assert (again.name, again.kind, again.steps, again.description) == (
        template.name,
        template.kind,
        template.steps,
        template.description,
    )
    values = sample_values(template)
    for step in template.steps:
        assert again.render(values, step.name) == template.render(values, step.name)
    assert again.origin != template.origin


def test_a_version_outlives_its_files(registry: Registry, tmp_path: Path) -> None:
    """A template and a partial of one's own are registered; the files change; both versions render as each was."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "_event.jinja").write_text("* {{ event.text }}\n", encoding="utf-8")
    first = own(folder, "Rank well.").get("mine")
    old = registry.add(first)
    (folder / "_event.jinja").unlink()
    second = own(folder, "Rank better.").get("mine")
    new = registry.add(second)
    (folder / "mine.jinja").unlink()
    assert [version.fingerprint for version in registry.versions("mine")] == [first.fingerprint, second.fingerprint]
    values = sample_values(first)
    for version, template, word in ((old, first, "* The Fugitive"), (new, second, "- The Fugitive")):
        rendered = registry.template(version.reference).render(values)
        assert rendered == template.render(values)
        assert word in str(rendered)


def test_what_is_there_already_is_not_added_again(registry: Registry) -> None:
    """The same version with the same note adds no line; with another note, one short line."""
    template = PACKAGED.get("listwise/recency")
    registry.add(template, "first")
    size = registry.path.stat().st_size
    registry.add(template, "first")
    registry.add(template)
    assert registry.path.stat().st_size == size
    version = registry.add(template, "  second\n")
    assert version.notes == ("first", "second")
    assert registry.path.stat().st_size - size < 300
    assert registry.versions() == (version,)


def test_versions_are_found_by_the_beginning_of_their_fingerprint(registry: Registry) -> None:
    """With or without the name; at least four digits; never a guess between two."""
    version = registry.add(PACKAGED.get("listwise/recency"))
    for digits in (version.fingerprint, version.fingerprint[:4]):
        for reference in (f"listwise/recency@{digits}", digits, f"@{digits}"):
            assert registry.find(reference) == version
    with pytest.raises(InputError, match="at least 4 of its 12 hexadecimal digits"):
        registry.find(f"listwise/recency@{version.fingerprint[:3]}")
    with pytest.raises(InputError, match=f"of listwise/recency it has {version.reference}"):
        registry.find("listwise/recency@0000")
    with pytest.raises(InputError, match="did you mean 'listwise/recency'"):
        registry.find(f"listwise/recncy@{version.fingerprint}")
    with pytest.raises(InputError, match="no version of a template"):
        registry.find("listwise/recency")


def test_an_ambiguous_beginning_is_refused_with_what_it_may_mean(registry: Registry, tmp_path: Path) -> None:
    """Two versions that begin alike are both named."""
    seen: dict[str, str] = {}
    for number in range(2000):  # of so many fingerprints, two begin with the same four digits
        text = f"{{% block user %}}{number}{{% endblock %}}"
        digits = fingerprint({"mine.jinja": text, "_item.jinja": ""})
        if digits[:4] in seen:
            break
        seen[digits[:4]] = text
    found = [
        registry.add(Templates.of_sources({"mine.jinja": each, "_item.jinja": ""}).get("mine"))
        for each in (seen[digits[:4]], text)
    ]
    with pytest.raises(InputError, match="more than one version begins so") as refused:
        registry.find(f"mine@{digits[:4]}")
    assert all(version.reference in str(refused.value) for version in found)


def test_results_are_kept_with_their_version(registry: Registry) -> None:
    """The same again adds nothing; a new figure of the same experiment and measure takes the place of the old one."""
    version = registry.add(PACKAGED.get("listwise/recency"))

    def note(value: float, users: int, experiment: str = "recency", measure: str = "ndcg@10") -> Version:
        ends = (value - 0.02, value + 0.02)
        return registry.result(
            version.fingerprint, experiment=experiment, measure=measure, value=value, users=users, interval=ends
        )

    assert version.best_known is None
    note(0.35, 200)
    size = registry.path.stat().st_size
    note(0.35, 200)
    assert registry.path.stat().st_size == size
    note(0.36, 400, experiment="again")
    found = note(0.37, 400, experiment="later")
    assert [each.value for each in found.results] == [0.35, 0.36, 0.37]
    assert found.best_known is not None
    assert found.best_known.value == 0.37
    found = note(0.34, 250)
    assert [(each.experiment, each.value) for each in found.results] == [("again", 0.36), ("later", 0.37), ("recency", 0.34)]
    assert found.results[-1].interval == pytest.approx((0.32, 0.36))


@pytest.mark.parametrize(("value", "users", "field"), [(math.nan, 10, "value"), (math.inf, 10, "value"), (0.3, 0, "users")])
def test_a_result_that_is_none_is_refused(registry: Registry, value: float, users: int, field: str) -> None:
    """Not a number, or from nobody: one error that names the field, and nothing is written."""
    version = registry.add(PACKAGED.get("listwise/recency"))
    size = registry.path.stat().st_size
    with pytest.raises(ConfigError) as refused:
        registry.result(version.reference, experiment="x", measure="ndcg@10", value=value, users=users)
    assert refused.value.field == field
    assert registry.path.stat().st_size == size


def test_a_result_of_what_is_not_registered_is_refused(registry: Registry) -> None:
    """A result needs its version."""
    with pytest.raises(InputError, match="it is empty: llmrank prompts register NAME"):
        registry.result("d3618c46b8e9", experiment="x", measure="ndcg@10", value=0.3, users=10)


def test_a_damaged_entry_is_one_clear_error(registry: Registry) -> None:
    """A text that was changed no longer has its fingerprint; other versions are as good as before."""
    bad, good = registry.add(PACKAGED.get("listwise/recency")), registry.add(PACKAGED.get("listwise/sequential"))
    text = registry.path.read_text(encoding="utf-8")
    registry.path.write_text(text.replace("What is recent says more", "What is recent says less", 1), encoding="utf-8")
    with pytest.raises(DatasetError, match=f"entry of {bad.reference} .*is damaged.*restore the file") as refused:
        registry.template(bad.reference)
    assert "\n" not in str(refused.value)
    assert [version.intact for version in registry.versions()] == [False, True]
    assert registry.template(good.reference).fingerprint == good.fingerprint


def test_texts_that_are_no_template_are_a_damaged_entry(registry: Registry) -> None:
    """Whoever forges the fingerprint too gets an error, not a template."""
    sources = {"other.jinja": "{% block user %}x{% endblock %}", "_item.jinja": ""}
    entry = {"kind": "version", "name": "mine", "fingerprint": fingerprint(sources), "time": "", "note": "", "sources": sources}
    registry.path.parent.mkdir()
    registry.path.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="is damaged"):
        registry.template(f"mine@{fingerprint(sources)}")


@pytest.mark.parametrize(
    "line",
    [
        "garbage",
        "[]",
        "{}",
        '{"kind": "other", "name": "a", "fingerprint": "b"}',
        "[" * 100_000,
        '"\\ud800"',
        '{"kind": "note", "name": "a", "fingerprint": "b", "note": "c"}',
        '{"kind": "version", "name": 1, "fingerprint": "b"}',
    ],
    ids=str.__len__,
)
def test_a_line_that_is_no_entry_is_named(registry: Registry, line: str) -> None:
    """The file and the line, and what to do; nothing is written behind it."""
    registry.add(PACKAGED.get("listwise/recency"))
    with registry.path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    before = registry.path.read_bytes()
    with pytest.raises(DatasetError, match=r"jsonl: line 2 is no entry of a registry; restore"):
        registry.versions()
    with pytest.raises(DatasetError, match="line 2"):
        registry.add(PACKAGED.get("listwise/sequential"))
    assert registry.path.read_bytes() == before


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 20_000))
def test_a_torn_last_line_is_repaired_and_told(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Wherever a kill stopped a write, what stood before is there, the next write says what it cut off, and loses nothing."""
    registry = Registry(tmp_path_factory.mktemp("torn") / "registry.jsonl")
    first, second = PACKAGED.get("listwise/recency"), PACKAGED.get("listwise/sequential")
    registry.add(first, "kept")
    whole = registry.path.stat().st_size
    registry.add(second)
    data = registry.path.read_bytes()
    end = whole + min(cut, len(data) - whole - 1)
    registry.path.write_bytes(data[:end])
    assert [version.name for version in registry.versions()] == ["listwise/recency"]
    assert registry.told == []
    registry.add(second, "again")
    assert [version.notes for version in registry.versions()] in ([("kept",), ("again",)], [("kept",), ()])
    assert registry.template(second.fingerprint).fingerprint == second.fingerprint
    assert len(registry.told) == 1
    if end == len(data) - 1:  # the line was whole but for its end
        assert "gave the last line the end" in registry.told[0]
    else:
        assert f"cut off a last line that was not written to its end ({end - whole:,} bytes)" in registry.told[0]


def test_a_full_disk_leaves_the_file_as_it_was(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails halfway is taken back, and is one clear error."""
    registry.add(PACKAGED.get("listwise/recency"))
    before = registry.path.read_bytes()

    def fail(number: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DatasetError, match="cannot be written"):
        registry.add(PACKAGED.get("listwise/sequential"))
    assert registry.path.read_bytes() == before


def _write(path: Path, worker: int) -> None:
    registry = Registry(path)
    for number in range(8):
        text = f"{{% block user %}}{worker} {number}{{% endblock %}}"
        version = registry.add(Templates.of_sources({"mine.jinja": text, "_item.jinja": ""}).get("mine"), f"by {worker}")
        registry.result(version.reference, experiment=f"e{worker}", measure="ndcg@10", value=number / 10, users=10)
        registry.add(PACKAGED.get("listwise/recency"), f"note {number} of {worker}")


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    """Four processes write at once: every version, note and result is there once, and the shared version is one."""
    path = tmp_path / "registry.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(path, number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        assert worker.exitcode == 0
    versions = Registry(path).versions()
    mine = [version for version in versions if version.name == "mine"]
    assert len(mine) == len({version.fingerprint for version in mine}) == 32
    assert all(version.intact and len(version.notes) == len(version.results) == 1 for version in mine)
    (shared,) = [version for version in versions if version.name == "listwise/recency"]
    assert sorted(shared.notes) == sorted(f"note {number} of {worker}" for number in range(8) for worker in range(4))


def test_any_text_comes_back(registry: Registry) -> None:
    """Characters that end lines elsewhere, quotes and emoji are texts like any other; half a surrogate pair is replaced."""
    text = '{% block user %}a\u2028b\x85c\r"\\ 👩‍🚀 \u202e{% endblock %}\n'
    template = Templates.of_sources({"mine.jinja": text, "_item.jinja": ""}).get("mine")
    version = registry.add(template, "line\u2028two \udcff")
    assert version.sources["mine.jinja"] == text
    assert version.notes == ("line\u2028two ?",)
    assert registry.template(version).render({}) == template.render({})


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    """A folder where the file should be, for reading and for writing."""
    registry = Registry(tmp_path)
    with pytest.raises(DatasetError, match="cannot be read"):
        registry.versions()
    with pytest.raises(DatasetError, match="cannot be written"):
        registry.add(PACKAGED.get("listwise/recency"))
    assert Registry(tmp_path / "none.jsonl").versions() == ()


def test_the_best_known_result_is_that_from_most_users() -> None:
    """Of results from equally many users the last one is known best, whatever its value."""
    results = tuple(
        Result("e", f"m{number}", value, None, users, "")
        for number, (value, users) in enumerate([(0.9, 10), (0.3, 40), (0.2, 40)])
    )
    found = Version("a", "b", "", {}, (), results).best_known
    assert found is not None
    assert found.value == 0.2
