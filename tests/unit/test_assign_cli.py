"""`llmrank ab assign`: whose variant is it, and do the shares come out as the weights say."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from llmrank import cli
from llmrank.experiment.online.assignment import OnlineOptions, assign

EXPERIMENT = """
name: recency
variants:
  plain: {backend: {kind: local}}
  recency: {backend: {kind: local}, prompt: {template: listwise/recency}}
online: {weights: {plain: 3, recency: 1}, traffic: 0.5, force: {tester: recency}, reading: {metrics: {buy: {kind: mean}}}}
"""
OPTIONS = OnlineOptions({"plain": 3, "recency": 1}, "plain", "recency", traffic=0.5, force={"tester": "recency"})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiment.yaml").write_text(EXPERIMENT, encoding="utf-8")
    Path("ids.txt").write_text("user-3\n\n  user-4  \n", encoding="utf-8")


def run(arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The status, standard output and standard error of ``llmrank ab assign <arguments>``."""
    monkeypatch.setattr(sys, "argv", ["llmrank", "ab", "assign", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


def test_each_user_has_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """User, variant and reason with tabs between; first those of the command line, then those of the file."""
    status, out, err = run("experiment.yaml tester user-1 user-2 --file ids.txt", capsys, monkeypatch)
    users = ["tester", "user-1", "user-2", "user-3", "user-4"]
    found = [assign(OPTIONS, user) for user in users]
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"{each.unit}\t{each.variant}\t{each.reason}" for each in found]
    assert out.startswith("tester\trecency\tforced\n")


def test_ids_may_come_by_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``--file -`` reads standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("tester\n"))
    assert run("experiment.yaml --file -", capsys, monkeypatch) == (0, "tester\trecency\tforced\n", "")


def test_lines_may_be_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One object a line, with whether the user is exposed."""
    _, out, _ = run("experiment.yaml tester --json", capsys, monkeypatch)
    assert json.loads(out) == {"unit": "tester", "variant": "recency", "exposed": False, "reason": "forced"}


def test_shares_stand_beside_weights(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who take part; who does not is counted by reason."""
    status, out, _ = run("experiment.yaml --check 2000", capsys, monkeypatch)
    assert status == 0
    head, plain, recency, outside = (line.split() for line in out.splitlines())
    assert head == ["variant", "weight", "share", "ids"]
    assert (plain[:2], recency[:2]) == (["plain", "75.00%"], ["recency", "25.00%"])
    assert abs(float(plain[2].rstrip("%")) - 75) < 4
    assert int(plain[3]) + int(recency[3]) + int(outside[2].replace(",", "")) == 2000
    assert outside[:2] == ["outside", "traffic:"]
    _, out, _ = run("experiment.yaml --check 2000 --json", capsys, monkeypatch)
    record = json.loads(out)
    assert [each["ids"] for each in record["variants"]] == [int(plain[3]), int(recency[3])]
    assert record["ids"] == 2000
    assert [each["weight"] for each in record["variants"]] == [0.75, 0.25]
    assert list(record["out"]) == ["outside traffic"]


def test_nobody_takes_part_behind_the_kill_switch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The check shows that, too, and divides by nothing."""
    Path("off.yaml").write_text(EXPERIMENT.replace("traffic: 0.5", "enabled: false"), encoding="utf-8")
    status, out, _ = run("off.yaml --check 10", capsys, monkeypatch)
    assert status == 0
    assert out.splitlines()[-1] == "disabled: 10 of 10 ids (100.00%)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("experiment.yaml", "USER: there is nobody to assign; give ids, --file FILE or --check N"),
        ("experiment.yaml user-1 --check 5", "USER: stands beside ids; give either ids or --check N"),
        ("experiment.yaml --file none.txt", "--file: cannot be read (No such file or directory)"),
        ("none.yaml user-1", "experiment: cannot be read"),
        ("wrong.yaml user-1", "online.trafic: unknown key; did you mean 'traffic'?"),
        ("experiment.yaml --file latin.txt", "--file: is not UTF-8"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 2, with what is wrong and what to do."""
    Path("wrong.yaml").write_text(EXPERIMENT.replace("traffic:", "trafic:"), encoding="utf-8")
    Path("latin.txt").write_bytes("Zoë\n".encode("latin-1"))
    status, out, err = run(arguments, capsys, monkeypatch)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
