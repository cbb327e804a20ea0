"""`llmrank train`: what it prints, the file it leaves, and one line for whatever is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from llmrank import cli
from llmrank.cli.train import KINDS
from llmrank.retrieval.collaborative import MODEL_KINDS, load_model
from llmrank.retrieval.collaborative.item_knn import ItemKnnOptions
from tests.unit.collaborative_data import scores

HISTORIES = {"1": ["a", "b"], "2": ["a", "b", "c"], "3": ["d"]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file of interactions."""
    monkeypatch.chdir(tmp_path)
    lines = (json.dumps({"user_id": user, "history": items}) + "\n" for user, items in HISTORIES.items())
    Path("log.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def run(arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The status, standard output and standard error of ``llmrank train <arguments>``."""
    monkeypatch.setattr(sys, "argv", ["llmrank", "train", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


@pytest.mark.usefixtures("folder")
def test_a_model_is_trained_and_saved(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the options given, read as YAML; one line tells what was learned from, how long it took, and the file."""
    status, out, err = run(
        "item-knn --interactions log.jsonl --out models/crowd.npz --set neighbours=3 --set last=null --set shrinkage=0.5",
        capsys,
        monkeypatch,
    )
    assert status == 0, err
    assert out.startswith("item-knn: 3 users, 4 items, 6 interactions; ")
    assert out.endswith(" MB: models/crowd.npz\n")
    assert "training item-knn" in err
    model = load_model("models/crowd.npz")
    assert model.options == ItemKnnOptions(neighbours=3, last=None, shrinkage=0.5)
    found = scores(model, ["a"], ["b", "c", "d"])
    assert found[0] > found[1] > found[2] == 0


@pytest.mark.usefixtures("folder")
def test_what_was_left_out_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On stderr, as a note."""
    status, _, err = run("ease -i log.jsonl -o ease.npz --set max_items=2", capsys, monkeypatch)
    assert status == 0
    assert "note: 2 of 4 items, the least popular, were left out (ease.max_items)\n" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("item-kn -i log.jsonl -o m.npz", "kind: no such kind of model (got 'item-kn'); did you mean 'item-knn'?"),
        ("item-knn -i log.jsonl -o m.npz --set neighbors=3", "item-knn.neighbors: unknown key; did you mean 'neighbours'?"),
        ("item-knn -i log.jsonl -o m.npz --set neighbours=many", "item-knn.neighbours: "),
        ("item-knn -i log.jsonl -o m.npz --set neighbours=0", "item-knn.neighbours: must be a whole number of at least 1"),
        ("item-knn -i log.jsonl -o m.npz --set neighbours", "--set: is no key and value (got 'neighbours')"),
        (
            "item-knn -i log.jsonl -o m.npz --set neighbours=3 --set last=2 --set neighbours=3",
            "--set neighbours: is given twice (got '3'); keep one of neighbours=3 and neighbours=3",
        ),
        (
            "learned -i log.jsonl -o m --items log.jsonl --set users=30 --set users=40",
            "--set users: is given twice (got '40'); keep one of users=30 and users=40",
        ),
        ("item-knn -i log.jsonl -o m.npz --set neighbours={", "--set: the value is not YAML"),
        ("item-knn -i log.jsonl -o m.bin", "--out: must end in .npz (got 'm.bin'); write m.npz"),
        ("item-knn -i none.jsonl -o m.npz", "interactions: none.jsonl: cannot be read"),
        ("popularity -i log.jsonl -o m.npz --set half_life_days=30", "popularity.half_life_days: log.jsonl has no times"),
        ("popularity -i log.jsonl -o log.jsonl/m.npz", "cannot write log.jsonl/m.npz"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(
    arguments: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Field, value and remedy; no file is left."""
    status, _, err = run(arguments, capsys, monkeypatch)
    assert status == 2
    assert err.splitlines()[-1].startswith(f"llmrank: {said}")
    assert [each.name for each in folder.iterdir()] == ["log.jsonl"]


def test_the_help_names_every_kind() -> None:
    """The help's list is kept by hand, for it must not import what it lists."""
    assert KINDS.replace(" or ", ", ").split(", ") == [*MODEL_KINDS, "learned"]
