"""`llmrank prompts register | history | show | diff | export` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmrank.cli.prompts import prompts_app
from llmrank.errors import DatasetError, InputError
from llmrank.registry import Registry
from llmrank.template import Templates, fingerprint

MINE = '{{# Mine. #}}{{% block user %}}{} {{% include "_history.jinja" %}}{{% include "_candidates.jinja" %}}{{% endblock %}}'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and in it a folder of templates with one of one's own."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "mine"
    made.mkdir()
    (made / "mine.jinja").write_text(MINE.format("Rank well."), encoding="utf-8")
    return made


def run(*arguments: str) -> Result:
    """Runs the command; a refusal is in `exception`, which `llmrank` turns into one line and status 2."""
    return CliRunner().invoke(prompts_app, list(arguments))


def digits(folder: Path, name: str = "mine") -> str:
    """The fingerprint of a template as it is now."""
    return Templates(folder).get(name).fingerprint


def test_a_month_of_a_prompt(folder: Path) -> None:
    """Registered, changed, registered again: both versions are listed, shown, compared, and written back as they were."""
    first = digits(folder)
    added = run("register", "mine", "--note", "the first try", "--dir", "mine")
    assert added.exit_code == 0
    assert added.stdout == f"mine@{first} added to prompts.registry.jsonl\n"
    (folder / "mine.jinja").write_text(MINE.format("Rank better."), encoding="utf-8")
    second = digits(folder)
    run("register", "mine", "--note", "better words", "--dir", "mine")
    assert f"mine@{second} is in prompts.registry.jsonl" in run("register", "mine", "--dir", "mine").stdout
    Registry().result(
        first, experiment="words", measure="ndcg@10", value=0.3456, users=400, interval=(0.31, 0.38), date="2026-11-01"
    )

    lines = run("history", "mine").stdout.splitlines()
    assert [line.split()[2] for line in lines] == [f"mine@{first}", f"mine@{second}"]
    assert lines[0].endswith("ndcg@10 0.346 [0.310, 0.380] from 400 users (words, 2026-11-01)  the first try")
    assert lines[1].endswith("better words")
    assert "no result" in lines[1]

    (folder / "mine.jinja").unlink()
    assert "Rank well." in run("show", f"mine@{first}").stdout
    rendered = run("show", f"mine@{second[:6]}", "--rendered").stdout
    assert "Rank better. " in rendered
    assert "The Fugitive" in rendered
    changed = run("diff", f"mine@{first}", f"mine@{second}").stdout.splitlines()
    assert changed[0] == f"--- mine  {first}"
    assert changed[1] == f"+++ mine  {second}"
    assert [line[:13] for line in changed if line.startswith(("-R", "+R"))] == ["-Rank well. M", "+Rank better."]

    assert run("export", f"mine@{first}", "--out", "old").exit_code == 0
    assert digits(Path("old")) == first


def test_a_version_is_compared_with_the_files_of_today(folder: Path) -> None:
    """One side of a diff is registered, the other read from the folder."""
    run("register", "mine", "--dir", "mine")
    old = digits(folder)
    (folder / "mine.jinja").write_text(MINE.format("Rank better."), encoding="utf-8")
    lines = run("diff", f"mine@{old}", "mine", "--dir", "mine").stdout.splitlines()
    assert lines[:2] == [f"--- mine  {old}", f"+++ mine  {digits(folder)}"]
    assert "no difference" in run("diff", f"mine@{old}", f"mine@{old}").stdout


def test_another_file_can_be_named(folder: Path) -> None:
    """--registry works with every command, and the default file is not made."""
    there = ("--registry", "kept/all.jsonl")
    run("register", "listwise/recency", *there)
    reference = f"listwise/recency@{digits(folder, 'listwise/recency')}"
    assert reference in run("history", *there).stdout
    assert "==> listwise/recency.jinja <==" in run("show", reference, *there).stdout
    assert run("diff", reference, "listwise/sequential", *there).stdout.startswith("--- listwise/recency")
    assert run("export", reference, "--out", "out", *there).exit_code == 0
    assert not Path("prompts.registry.jsonl").exists()


def test_a_repair_is_told(folder: Path) -> None:
    """What a kill left of a line is cut off with a word on stderr."""
    run("register", "listwise/recency")
    with Path("prompts.registry.jsonl").open("a") as file:
        file.write('{"kind": "ver')
    result = run("register", "listwise/sequential")
    assert "cut off a last line that was not written to its end (13 bytes)" in result.stderr
    assert len(run("history").stdout.splitlines()) == 2


def test_an_empty_registry_says_how_to_begin(folder: Path) -> None:
    """No file is no error."""
    result = run("history")
    assert result.exit_code == 0
    assert "llmrank prompts register NAME" in result.stdout


def test_a_damaged_version_is_marked_and_not_exported(folder: Path) -> None:
    """History says which entry is damaged; show and export refuse it."""
    run("register", "mine", "--dir", "mine", "--note", "fine once")
    path = Path("prompts.registry.jsonl")
    path.write_text(path.read_text(encoding="utf-8").replace("Rank well.", "Rank ill."), encoding="utf-8")
    assert "DAMAGED: its texts are not those of its fingerprint; fine once" in run("history").stdout
    for command in (("show",), ("export", "--out", "x")):
        result = run(*command, f"mine@{digits(folder)}")
        assert isinstance(result.exception, DatasetError)
    assert not Path("x").exists()


@pytest.mark.parametrize("file", ["../evil.jinja", "/evil.jinja", "a/../../evil.jinja"])
def test_nothing_is_written_outside_of_the_folder(folder: Path, file: str) -> None:
    """A registry may come from somebody else: an entry whose file names lead elsewhere is refused, and nothing is written."""
    sources = {"mine.jinja": f"{{% include {file!r} %}}{{% block user %}}x{{% endblock %}}", "_item.jinja": "", file: ""}
    entry = {"kind": "version", "name": "mine", "fingerprint": fingerprint(sources), "time": "", "note": "", "sources": sources}
    Path("prompts.registry.jsonl").write_text(json.dumps(entry) + "\n", encoding="utf-8")
    result = run("export", f"mine@{fingerprint(sources)}", "--out", "out")
    assert isinstance(result.exception, InputError)
    assert "outside of the folder" in str(result.exception)
    assert not Path("out").exists()


def test_other_texts_are_not_overwritten(folder: Path) -> None:
    """A file that says something else stays; the same again is fine."""
    run("register", "mine", "--dir", "mine")
    reference = f"mine@{digits(folder)}"
    assert run("export", reference, "--out", "mine").exit_code == 0
    (folder / "mine.jinja").write_text("something else", encoding="utf-8")
    result = run("export", reference, "--out", "mine")
    assert isinstance(result.exception, InputError)
    assert "is there already, with another text" in str(result.exception)
    assert (folder / "mine.jinja").read_text(encoding="utf-8") == "something else"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "mine@12"), "at least 4 of its 12 hexadecimal digits"),
        (("show", "mine@1234"), "it is empty: llmrank prompts register NAME"),
        (("register", "mine"), "no such template"),
        (("export", "mine", "--out", "x"), "write NAME@FINGERPRINT"),
    ],
)
def test_bad_input_is_one_error_of_ours(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """What names no version or no template is told in one line."""
    result = run(*arguments)
    assert isinstance(result.exception, InputError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_history_of_an_unknown_name(folder: Path) -> None:
    """The nearest name is proposed."""
    run("register", "listwise/recency")
    result = run("history", "listwise/recncy")
    assert isinstance(result.exception, InputError)
    assert "did you mean 'listwise/recency'?" in str(result.exception)
