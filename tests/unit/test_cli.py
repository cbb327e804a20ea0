"""The command line: one line and a status for whatever is wrong, tables and JSON for what is right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from llmrank import Catalog, Ranker, RankRequest, cli
from llmrank.backends.replay import RecordingBackend
from llmrank.errors import BackendError, ContentFilterError
from llmrank.strategies.listwise import Listwise
from llmrank.types import Prompt
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import ScriptedBackend, shown

ITEMS = "".join(
    json.dumps({"id": str(number), "title": f"Film {number}", "year": 1990 + number}) + "\n" for number in range(1, 10)
)
CASES = [
    {"user_id": "u1", "history": ["1"], "candidates": ["2", "3", "4"], "relevant": ["3"]},
    {"user_id": "u2", "history": ["1", "2"], "candidates": ["5", "6"], "relevant": ["6"]},
]


def backwards(prompt: Prompt) -> str | BackendError:
    if "9" in prompt.item_ids:
        return ContentFilterError("refused")
    if "7" in prompt.item_ids:
        return "[A]"
    return " > ".join(f"[{label}]" for label, _ in sorted(shown(prompt).items(), key=lambda pair: pair[1], reverse=True))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with items, cases, a recording of a scripted model, and configurations; the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("items.jsonl").write_text(ITEMS, encoding="utf-8")
    Path("cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in CASES), encoding="utf-8")
    Path("ranker.yaml").write_text("backend: {kind: replay, path: answers.jsonl}\n", encoding="utf-8")
    backend = RecordingBackend(ScriptedBackend(backwards), "answers.jsonl")
    with Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=Catalog.load("items.jsonl")) as ranker:
        requests = [RankRequest(["1"], ["2", "3", "4"]), RankRequest(["1", "2"], ["5", "6"]), RankRequest(["1"], ["8", "9"])]
        requests.append(RankRequest(["1"], ["5", "6", "7"]))
        assert [ranking.status for ranking in ranker.rank_many(requests)] == ["ok", "ok", "error", "partial"]
    return tmp_path


def run(arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The status, standard output and standard error of ``llmrank <arguments>``."""
    monkeypatch.setattr(sys, "argv", ["llmrank", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    return left.value.code if isinstance(left.value.code, int) else 0, out, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "rank -c ranker.yaml --items items.jsonl --history 1 --candidates 2,77",
            r"candidates[1]: not in the catalogue (got '77')",
        ),
        ("rank -c ranker.yaml --items items.jsonl --history 1 --candidates 2,2", "the same id stands twice"),
        ("rank -c ranker.yaml --items items.jsonl --history 1 --candidates ,", "there is nothing to rank"),
        ("rank -c ranker.yaml --items bad.jsonl --history 1 --candidates 2", "bad.jsonl, line 2: not JSON"),
        ("rank -c ranker.yaml --items nowhere.jsonl --history 1 --candidates 2", "no such item file"),
        ("rank -c ranker.yaml --history 1 --candidates 2", "--items"),
        ("rank -c typo.yaml --items items.jsonl --candidates 2", "backend.kindd: unknown key; did you mean 'kind'?"),
        ("rank -c nowhere.yaml --items items.jsonl --candidates 2", "cannot be read"),
        ("rank -c gone.yaml --items items.jsonl --candidates 2,3", "127.0.0.1:9 cannot be reached"),
        ("rank -c broken.yaml --items items.jsonl --candidates 2,3", "mine"),
        ("rank -c small.yaml --items items.jsonl --candidates 2,3", "window of 100"),
        ("rank -c ranker.yaml --items items.jsonl --cases cases.jsonl --history 1", "cannot be joined with --cases"),
        ("rank -c ranker.yaml --items items.jsonl --cases bad.jsonl", "bad.jsonl"),
        ("rank -c ranker.yaml --items items.jsonl --candidates 2,3 --out x", "--out"),
        ("rank -c ranker.yaml --items items.jsonl --history 3 --candidates 2,4", "answers.jsonl has no answer"),
        ("rank -c filtered.yaml --items items.jsonl --history 77", "history[0]: not in the catalogue"),
        ("rank --top-k 0 -c ranker.yaml", "--top-k"),
        ("rank -c ranker.yaml --items items.jsonl --candidates 2 --constraint year", "--constraint: is no condition"),
        ("rank -c ranker.yaml --items items.jsonl --candidates 2 --constraint year=>3", "--constraint: unknown operator"),
        ("rank -c ranker.yaml --items items.jsonl --candidates 2 --constraint year>=new", "'>=' needs a finite number"),
        ("rank -c ranker.yaml --items items.jsonl --candidates 2 --constraint yaer>=3", "did you mean 'year'?"),
        ("rank -c ranker.yaml --items items.jsonl --candidates 2 --constraint year>=2999", "no candidate meets year >= 2999"),
        ("rank -c ranker.yaml --items items.jsonl --cases cases.jsonl --constraint year>3", "cannot be joined with --cases"),
        ("rank", "--config"),
        ("rnk", "rnk"),
        ("prompts show listwise/recncy", "did you mean 'listwise/recency'?"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong: status 2, nothing on stdout, and one line on stderr that names it."""
    Path("bad.jsonl").write_text('{"id": "1", "title": "One", "user_id": "u", "history": [], "candidates": ["1"]}\n{oops\n')
    Path("typo.yaml").write_text("backend: {kindd: local}\n")
    Path("gone.yaml").write_text(
        "backend: {kind: openai, model: m, base_url: 'http://127.0.0.1:9/v1', context_window: 800}\nlimits: {max_attempts: 1}\n"
    )
    Path("filtered.yaml").write_text(
        "backend: {kind: replay, path: answers.jsonl}\nprefilter: {embedder: {kind: precomputed, vectors: v.npz}}\n"
    )
    np.savez("v.npz", vectors=np.eye(9, dtype=np.float32), ids=[str(number) for number in range(1, 10)])
    Path("own").mkdir()
    Path("own/mine.jinja").write_text("{% block user %}{{ nonsense }}{% endblock %}")
    Path("broken.yaml").write_text(
        "backend: {kind: replay, path: answers.jsonl}\nprompt: {template: mine, directories: [own]}\n"
    )
    Path("small.yaml").write_text("backend: {kind: openai, model: m, base_url: 'http://127.0.0.1:9/v1', context_window: 100}\n")
    status, out, err = run(arguments, capsys, monkeypatch)
    assert (status, out) == (2, "")
    assert err.startswith("llmrank: ")
    assert err.count("\n") == 1
    assert said in err


def test_constraints_leave_candidates_out(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is asked: several together, for one request as for a line of a file."""
    arguments = "rank -c ranker.yaml --items items.jsonl --history 1 --candidates 1,2,3,4,9"
    status, out, _ = run(f"{arguments} --constraint year<=1994 --constraint year!=1991", capsys, monkeypatch)
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[1:4]] == [["1", "4"], ["2", "3"], ["3", "2"]]
    assert "left out: 2 that do not meet the constraints" in out
    condition = {"attribute": "year", "op": "in", "value": [1992, 1993, 1994]}
    case = {**CASES[0], "candidates": ["1", "2", "3", "4", "9"], "constraints": [condition]}
    Path("cases.jsonl").write_text(json.dumps(case) + "\n", encoding="utf-8")
    status, out, _ = run("rank -c ranker.yaml --items items.jsonl --cases cases.jsonl", capsys, monkeypatch)
    assert status == 0
    ranking = json.loads(out)
    assert [item["id"] for item in ranking["items"]] == ["4", "3", "2"]
    assert ranking["cut"]["constrained"] == 2


def test_a_ranking_is_a_table(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One request prints ranks, ids and titles, and what it took; `--show-prompt` also what the model read."""
    status, out, _ = run("rank -c ranker.yaml --items items.jsonl --history 1 --candidates 2,3,4", capsys, monkeypatch)
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()[1:4]] == [["1", "4"], ["2", "3"], ["3", "2"]]
    assert "status ok" in out
    _, out, _ = run("rank -c ranker.yaml --items items.jsonl --history 1 --candidates 2,3,4 --show-prompt", capsys, monkeypatch)
    assert "[A] Film 2" in out
    assert "[C] > [B] > [A]" in out
    _, out, _ = run("rank -c ranker.yaml --items items.jsonl --history 1 --candidates 5,6,7", capsys, monkeypatch)
    assert "* not ranked by the model, in the order given: 6, 7" in out  # there is no prefilter


def test_json_is_one_object(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--json` prints what a program needs, and nothing else."""
    status, out, _ = run(
        "rank -c ranker.yaml --items items.jsonl --history 1 --candidates 2,3,4 -k 2 --json", capsys, monkeypatch
    )
    row = json.loads(out)
    assert status == 0
    assert ([item["id"] for item in row["items"]], row["status"], row["model"]) == (["4", "3"], "ok", "by-hand")


def test_a_file_of_cases_gives_a_file_of_rankings(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each case becomes a line, in order; the file appears when it is whole."""
    status, out, _ = run("rank -c ranker.yaml --items items.jsonl --cases cases.jsonl --out out.jsonl", capsys, monkeypatch)
    rows = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (status, out) == (0, "")
    assert [(row["user_id"], [item["id"] for item in row["items"]]) for row in rows] == [
        ("u1", ["4", "3", "2"]),
        ("u2", ["6", "5"]),
    ]
    assert sorted(path.name for path in folder.glob("out*")) == ["out.jsonl"]


def test_cases_may_come_out_of_a_pipe(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be read only once is ranked all the same, and messages name it as the caller did."""
    text = Path("cases.jsonl").read_text(encoding="utf-8")
    os.mkfifo("pipe")
    for content in (text, text + "{oops\n"):
        writer = threading.Thread(target=Path("pipe").write_text, args=(content,))
        writer.start()
        status, out, err = run("rank -c ranker.yaml --items items.jsonl --cases pipe", capsys, monkeypatch)
        writer.join()
        if content == text:
            assert (status, [json.loads(line)["user_id"] for line in out.splitlines()]) == (0, ["u1", "u2"])
        else:
            assert (status, out) == (2, "")
            assert "pipe, line 3: not JSON" in err


def test_standard_input_may_be_the_cases(folder: Path) -> None:
    """`/dev/stdin` works for a pipe and for a file."""
    command = [sys.executable, "-c", "from llmrank.cli import main; main()", "rank", "-c", "ranker.yaml"]
    command += ["--items", "items.jsonl", "--cases", "/dev/stdin"]
    with Path("cases.jsonl").open("rb") as file:
        from_file = subprocess.run(command, stdin=file, capture_output=True, check=True)
    from_pipe = subprocess.run(command, input=Path("cases.jsonl").read_bytes(), capture_output=True, check=True)
    for done in (from_file, from_pipe):
        assert [json.loads(line)["user_id"] for line in done.stdout.splitlines()] == ["u1", "u2"]


@pytest.mark.parametrize("out", ["cases.jsonl", "../{name}/cases.jsonl", "link.jsonl", "hard.jsonl", "cases"])
def test_the_cases_are_not_written_over(
    out: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--out` under any name of the file of cases, or whose half-written form would be that file, is refused."""
    Path("link.jsonl").symlink_to("cases.jsonl")
    Path("hard.jsonl").hardlink_to("cases.jsonl")
    Path("cases.part").symlink_to("cases.jsonl")
    before = Path("cases.jsonl").read_bytes()
    where = out.format(name=folder.name)
    status, _, err = run(f"rank -c ranker.yaml --items items.jsonl --cases cases.jsonl --out {where}", capsys, monkeypatch)
    assert status == 2
    assert "--out: would overwrite --cases" in err
    assert Path("cases.jsonl").read_bytes() == before


def test_half_a_surrogate_pair_is_no_traceback(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON may hold it in ids, titles and queries, and UTF-8 cannot: JSON goes out escaped, a table shows it escaped."""
    half = "\ud83d"
    with Path("items.jsonl").open("a") as file:
        file.write(json.dumps({"id": half, "title": f"Broken {half}"}) + "\n")
    Path("cases.jsonl").write_text(json.dumps({"user_id": half, "candidates": [half, "2"], "query": half}) + "\n")
    Path("record.yaml").write_text("backend: {kind: replay, path: answers.jsonl}\nlimits: {on_error: fallback}\n")
    arguments = "rank -c record.yaml --items items.jsonl --cases cases.jsonl"
    _, out, _ = run(f"{arguments} --out out.jsonl", capsys, monkeypatch)
    _, out, _ = run(arguments, capsys, monkeypatch)
    for text in (out, Path("out.jsonl").read_text(encoding="utf-8")):
        assert json.loads(text)["user_id"] == half
        assert json.loads(text)["items"][0]["id"] == half
    _, out, _ = run(f"rank -c record.yaml --items items.jsonl --candidates 2,{half} --json", capsys, monkeypatch)
    assert json.loads(out)["items"][1]["id"] == half
    _, out, _ = run(f"rank -c record.yaml --items items.jsonl --candidates 2,{half}", capsys, monkeypatch)
    assert "Broken \\ud83d" in out


def test_a_terminal_without_unicode_is_served(folder: Path) -> None:
    """Where stdout is ASCII, JSON is escaped and a table shows what can be shown."""
    with Path("items.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "é", "title": "Amélie"}, ensure_ascii=False) + "\n")
    Path("record.yaml").write_text("backend: {kind: replay, path: answers.jsonl}\nlimits: {on_error: fallback}\n")
    command = [sys.executable, "-c", "from llmrank.cli import main; main()", "rank", "-c", "record.yaml"]
    command += ["--items", "items.jsonl", "--candidates", "2,é"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    table = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert b"Am\\xe9lie" in table.stdout
    row = subprocess.run([*command, "--json"], capture_output=True, env=environment, check=False)
    assert [item["id"] for item in json.loads(row.stdout)["items"]] == ["2", "é"]


def test_a_run_with_failures_ends_with_status_1(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case that fails stands in the output with its error; the others are ranked; the status says so."""
    bad = [CASES[0], {"user_id": "u3", "history": ["1"], "candidates": ["8", "9"]}, {"user_id": "u4", "candidates": ["77"]}]
    Path("cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in bad), encoding="utf-8")
    status, out, err = run("rank -c ranker.yaml --items items.jsonl --cases cases.jsonl", capsys, monkeypatch)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1
    assert [row["status"] for row in rows] == ["ok", "error", "error"]
    assert rows[1]["error"].startswith("ContentFilterError")
    assert rows[2]["error"].startswith("UnknownItemError")
    assert "2 error, 1 ok" in err


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`--version` prints it and leaves."""
    from llmrank import __version__

    assert run("--version", capsys, monkeypatch) == (0, f"{__version__}\n", "")
