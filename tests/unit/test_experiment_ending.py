"""The end of an experiment: until then its runs are sealed, after it its decision stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmrank.cli import ended
from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.comparing.compare import compare
from llmrank.evaluation.fitting.run import fit_fusion
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.positioning.study import positions
from llmrank.evaluation.run import RunOptions, evaluate, finish
from llmrank.evaluation.seal import is_sealed, seal, unseal
from llmrank.experiment import ExperimentFolder, publish, run_experiment
from tests.servers.picky import Reply, Request, openai_error
from tests.unit.small_experiment import asks, experiment, forwards_for
from tests.unit.small_suite import USD, server, write_data

pytestmark = pytest.mark.usefixtures("suite_key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_data(folder, cases=12)
    return folder


def run(spec: dict[str, Any], out: Path, **options: Any) -> Any:
    return run_experiment(spec, out, RunOptions(report=False, **options))


READERS: dict[str, Callable[[Path, Any], object]] = {
    "eval report": lambda path, suite: finish(RunFolder(path), report=False),
    "eval compare": lambda path, suite: compare([RunFolder(path)]),
    "eval run": lambda path, suite: evaluate(suite, path, RunOptions(report=False)),
    "eval positions": lambda path, suite: positions(suite, path, at=[1, 2]),
    "fusion fit": lambda path, suite: fit_fusion(path, "bold"),
}


def test_nobody_reads_a_stage_before_the_end(tmp_path: Path, data: Path) -> None:
    """Each way to read a run, or to go on with it, is refused with the one that is right; after the end it is a run."""
    with server(forwards_for("bold")) as running:
        spec = experiment(data, running.url)
        done = run(spec, tmp_path / "ab", budget_usd=15 * USD)
        stage = tmp_path / "ab" / "confirmation"
        assert done.stopped is not None
        assert list(RunFolder(stage).results("plain"))
        suite = done.folder.spec.suite(
            ("plain", "bold"), items=done.folder.frozen("items.jsonl"), cases=done.folder.cases("confirmation")
        )
        before = len(running.bodies)
        for read in READERS.values():
            with pytest.raises(DatasetError, match=r"experiment forwards, which is not complete.*llmrank ab report") as error:
                read(stage, suite)
            assert str(tmp_path / "ab") in error.value.fix
        assert len(running.bodies) == before
        assert not (stage / "summary.json").exists()
        with pytest.raises(DatasetError, match="ranked"):
            publish(done.folder)
        assert is_sealed(stage)
        assert run(spec, tmp_path / "ab").stopped is None
        assert not is_sealed(stage)
        assert finish(RunFolder(stage), report=False)["rankers"]["bold"]["cases"] == 12
        assert compare([RunFolder(stage)]).as_dict()


def test_who_was_killed_at_the_end_reads_by_the_report(tmp_path: Path, data: Path) -> None:
    """A run that ranked everything and could not say so is unsealed by `llmrank ab report`; both stages are."""
    with server(forwards_for("bold")) as running:
        done = run(experiment(data, running.url), tmp_path / "ab")
    for stage in ("development", "confirmation"):
        seal(tmp_path / "ab" / stage, "forwards")
    publish(done.folder)
    assert not any(is_sealed(tmp_path / "ab" / stage) for stage in ("development", "confirmation"))


def test_a_look_is_not_the_end(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An always-valid experiment may be reported any time; its stage stays sealed, and failures may be asked again."""

    def failing(request: Request) -> Reply | None:
        return openai_error("no") if down and asks(request, "bold") else None

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    down = True
    with server(failing, forwards_for("bold")) as running:
        spec = experiment(data, running.url, sequential={"every": 4, "least": 4})
        with monkeypatch.context() as patched:
            patched.setattr("llmrank.experiment.run.stopped_at", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run(spec, tmp_path / "ab")
        assert publish(ExperimentFolder(tmp_path / "ab")).users == 4
        assert is_sealed(tmp_path / "ab" / "confirmation")
        down = False
        done = run(spec, tmp_path / "ab", retry_errors=True)
        assert (done.stopped, done.failures) == (None, 0)
        assert not is_sealed(tmp_path / "ab" / "confirmation")


def test_a_published_decision_stands(tmp_path: Path, data: Path) -> None:
    """What failed may be asked again until the decision is published, then never: that takes a new folder."""

    def failing(request: Request) -> Reply | None:
        return openai_error("no") if down and asks(request, "bold") else None

    down = True
    with server(failing, forwards_for("bold")) as running:
        spec = experiment(data, running.url)
        assert run(spec, tmp_path / "ab").failures == 12
        down = False
        assert run(spec, tmp_path / "ab", retry_errors=True).failures == 0  # nobody has seen anything yet
        down = True
        done = run(spec, tmp_path / "other")
        findings = publish(done.folder).as_dict()
        down = False
        before = len(running.bodies)
        with pytest.raises(ConfigError, match=r"retry_errors: the decision is published.*--out"):
            run(spec, tmp_path / "other", retry_errors=True)
        assert len(running.bodies) == before
        assert run(spec, tmp_path / "other").stopped is None  # without it, there is nothing left to ask
        assert publish(done.folder).as_dict() == findings
        assert run(spec, tmp_path / "new", retry_errors=True).failures == 0


def test_a_seal_is_put_once_and_taken_away(tmp_path: Path) -> None:
    """It says whose it is; what is not sealed may be unsealed."""
    seal(tmp_path / "run", "one")
    seal(tmp_path / "run", "other")
    assert '"one"' in (tmp_path / "run" / "sealed.json").read_text(encoding="utf-8")
    unseal(tmp_path / "run")
    unseal(tmp_path / "run")
    assert not is_sealed(tmp_path / "run")


def test_the_command_does_not_advise_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """After a decision, it says that failures count; before, how to ask again."""
    from typer import Exit

    for published, said in ((True, "2 rankings failed and count as failed"), (False, "2 rankings failed; --retry-errors")):
        with pytest.raises(Exit) as end:
            ended.end_run(2, published=published)
        assert end.value.exit_code == 1
        assert said in capsys.readouterr().err
