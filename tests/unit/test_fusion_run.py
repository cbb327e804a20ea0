"""Fitting a fusion on a run: what results keep of a fusion, the command, and runs that test it on what it has seen."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmrank.cli import main
from llmrank.errors import ConfigError, DatasetError, UnreachableError
from llmrank.evaluation import FitOptions, RunOptions, evaluate, fit_fusion
from llmrank.evaluation.cases import Case
from llmrank.evaluation.fitting.provenance import overlap, user_key
from llmrank.evaluation.fitting.run import examples_of
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.records import ranking_record
from llmrank.fusion import Fusion, WeightedSum
from llmrank.fusion.file import read_fusion
from llmrank.fusion_kinds import fusion_of
from llmrank.scale.recipe import make_recipe
from llmrank.types import Ranking
from tests.unit.small_run import ranking, write_run
from tests.unit.small_suite import KEY, KEY_ENV, server, suite, write_data

PARTS = ("llm", "crowd")
FUSION = Fusion(dict.fromkeys(PARTS, 1.0), PARTS)
ITEMS = "abcdef"


def cases(count: int) -> list[Case]:
    """One relevant candidate each, at every place in turn; histories of 0 to 3 events."""
    return [
        Case(f"u{number}", tuple("gh" * 2)[: number % 4], tuple(ITEMS), (ITEMS[number % len(ITEMS)],))
        for number in range(count)
    ]


def fused(case: Case, seed: int) -> Ranking:
    """What a model without taste ranked, with a crowd that mostly knows what is relevant."""
    draw = random.Random(seed)  # noqa: S311  # the same on every run
    order = draw.sample(ITEMS, len(ITEMS))
    crowd = [draw.gauss(2.0 * (item in case.relevant), 1.0) for item in order]
    return FUSION.apply(ranking(case, order), {"crowd": crowd}, len(case.history))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of a ranker with a fusion, and of one without."""
    asked = cases(40)
    rankers = {
        "fused": [fused(case, seed) for seed, case in enumerate(asked)],
        "plain": [ranking(case, ITEMS) for case in asked],
    }
    return write_run(tmp_path / "run", asked, rankers)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Runs the command line in this process; gives its exit status."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["llmrank", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_records_hold_what_each_part_gave_and_its_own_score() -> None:
    """For items that a fusion ordered; others have neither key."""
    case = cases(1)[0]
    items = ranking_record(fused(case, 0))["items"]
    assert all(set(item["parts"]) == set(item["scores"]) == set(PARTS) for item in items)
    assert all(item["score"] == pytest.approx(sum(item["parts"].values())) for item in items)
    assert sorted(item["scores"]["llm"] for item in items) == [1, 2, 3, 4, 5, 6]  # linear in the model's rank
    assert json.loads(json.dumps(items)) == items
    plain = ranking_record(ranking(case, ITEMS))["items"][0]
    assert plain == {"rank": 1, "id": "a", "score": None, "ranked_by": "model"}


def test_parts_without_a_weight_are_recorded_too() -> None:
    """So that weights for them can be fitted without asking again."""
    case = cases(1)[0]
    after = Fusion({"llm": 1.0}, PARTS).apply(ranking(case, ITEMS), {"crowd": [0.5] * 6}, 0)
    assert set(after.items[0].parts) == {"llm"}
    assert after.items[0].scores == {"llm": 6.0, "crowd": 0.5}


def test_a_run_is_fitted(run: RunFolder) -> None:
    """The crowd knows more, and gets more weight; the figures of a part alone are those of its own order."""
    found = fit_fusion(run, "fused", FitOptions(resamples=100))
    combination = found.fusion.combination
    assert isinstance(combination, WeightedSum)
    assert combination.bands[0].weights["crowd"] > 0.7
    assert found.source == {"run": "run", "ranker": "fused", "protocol": "made by hand"}
    assert found.notes == ()
    assert len(found.users) == 40
    examples, _ = examples_of(run, "fused")
    assert [each.history_length for each in examples[:5]] == [0, 1, 2, 3, 0]
    assert all(sum(each.relevant) == 1 and each.missed == 0 for each in examples)


def test_what_is_odd_in_a_run_is_said(tmp_path: Path) -> None:
    """Rankings without parts' scores, without an answer, and without anything relevant among their candidates."""
    asked = cases(20)
    made = [fused(case, seed) for seed, case in enumerate(asked)]
    made[0] = ranking(asked[0], ITEMS)
    failed = ranking(asked[1], ITEMS, "error", error=UnreachableError("gone"))
    made[1] = FUSION.apply(failed, {"crowd": [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]}, 1)
    made[2] = replace(made[2], items=tuple(item for item in made[2].items if item.id not in asked[2].relevant))
    folder = write_run(tmp_path / "run", asked, {"fused": made})
    found = fit_fusion(folder, "fused", FitOptions(resamples=100, least_users=1))
    assert found.notes == (
        "1 of 20 rankings have no parts' scores and were left out",
        "1 of 20 rankings have no readable answer: the model gave nothing to them",
        "1 of 20 rankings have nothing relevant among their candidates, so that no fusion gains there",
    )
    assert found.slices[0].cases == 19


def test_a_run_that_cannot_be_fitted_is_refused(run: RunFolder, tmp_path: Path) -> None:
    """A ranker that is not there (the nearest is named), one without a fusion, and a folder without a run."""
    with pytest.raises(ConfigError, match="did you mean 'fused'"):
        fit_fusion(run, "fusde")
    with pytest.raises(DatasetError, match=r"hold no parts' scores.*give its configuration a `fusion`"):
        fit_fusion(run, "plain")
    with pytest.raises(DatasetError, match=r"there is no manifest\.json"):
        fit_fusion(tmp_path / "nothing", "fused")


def test_users_that_a_fusion_was_fitted_on_are_noticed(run: RunFolder, tmp_path: Path) -> None:
    """With all of their cases: another history, other candidates or another label do not hide a user."""
    path = tmp_path / "fusion.json"
    fit_fusion(run, "fused", FitOptions(resamples=100)).save(path)
    asked = cases(44)
    assert overlap(path, asked) == 40
    assert overlap(path, [replace(case, history=(), candidates=("a", "b"), query="films") for case in asked]) == 40
    assert overlap(path, [replace(case, relevant=("z",)) for case in asked]) == 40
    assert overlap(path, [replace(case, user_id=f"new {case.user_id}") for case in asked]) == 0


def test_a_user_with_several_cases_stands_on_one_side(tmp_path: Path) -> None:
    """Fitted on one case of a user, a fusion has been fitted on the user: one digest, and the user's other case is no test."""
    asked = [replace(case, user_id=f"u{number // 2}") for number, case in enumerate(cases(40))]
    folder = write_run(tmp_path / "run", asked, {"fused": [fused(case, seed) for seed, case in enumerate(asked)]})
    found = fit_fusion(folder, "fused", FitOptions(resamples=100))
    assert len(found.users) == 20
    ones = asked[::2]
    first = write_run(tmp_path / "first", ones, {"fused": [fused(case, seed) for seed, case in enumerate(ones)]})
    path = tmp_path / "fusion.json"
    fit_fusion(first, "fused", FitOptions(resamples=100)).save(path)
    assert overlap(path, asked[1::2]) == 20


def test_a_fusion_of_an_older_version_tells_its_cases(tmp_path: Path) -> None:
    """Its file has digests of user and label: as far as these go, the same case is still noticed."""
    path = tmp_path / "fusion.json"
    section = {"kind": "weights", "method": "zscore", "bands": [{"up_to": None, "weights": {"llm": 1.0}}]}
    old = hashlib.blake2b(b'["u1", ["a", "b"]]', digest_size=8).hexdigest()
    path.write_text(json.dumps({"format": 1, "fusion": section, "fitted": {"keys": [old]}}), encoding="utf-8")
    case = replace(cases(1)[0], user_id="u1", relevant=("b", "a", "b"))
    assert overlap(path, [case, replace(case, relevant=("a",)), replace(case, user_id="u2")]) == 1


def test_the_command_fits_and_writes(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints what the fusion is worth for users apart beside in sample, each part and equal weights, and the weights."""
    out = tmp_path / "fusion.json"
    assert command(monkeypatch, "fusion", "fit", run.path, "--ranker", "fused", "--out", out, "--bands", "0,2") == 0
    said = capsys.readouterr().out
    for text in ("cross-validated", "in sample", "equal weights", "crowd", "llm", "Ordered by", "Weights", "made by hand"):
        assert text in said
    assert "they share weights with those of" in said
    assert f"written: {out}" in said
    file = read_fusion(out)
    assert file.fitted["bands"] == [0, 2]
    fusion = fusion_of({"path": str(out)}, PARTS)
    assert fusion is not None
    assert fusion.needs == {"crowd"}
    assert command(monkeypatch, "fusion", "fit", run.path, "-r", "fused", "-o", out, "--method", "linear", "-m", "ndcg@5") == 0
    assert "NDCG@5" in capsys.readouterr().out
    assert read_fusion(out).fitted["method"] == "linear"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "wieghts"], "did you mean 'weights'"),
        (["--bands", "few"], "--bands: are no lengths of histories"),
        (["--bands", "5,2"], "bands: are no lengths of histories"),
        (["--metric", "hit@1"], "nothing that a fusion can be fitted for"),
        (["--folds", "41"], "folds: there are 40 users only"),
    ],
)
def test_a_mistake_in_the_command_is_one_line(
    run: RunFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    """Status 2, and no file."""
    out = tmp_path / "fusion.json"
    assert command(monkeypatch, "fusion", "fit", run.path, "--ranker", "fused", "--out", out, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_one_line(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as a folder under the name of the file."""
    (tmp_path / "fusion.json").mkdir()
    status = command(monkeypatch, "fusion", "fit", run.path, "--ranker", "fused", "--out", tmp_path / "fusion.json")
    assert status != 0
    error = capsys.readouterr().err
    assert error.startswith("llmrank: cannot write ")
    assert error.count("\n") == 1


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, Any]]:
    """A suite whose model has a fusion that was fitted on half of its users."""
    monkeypatch.setenv(KEY_ENV, KEY)
    write_data(tmp_path)
    path = tmp_path / "fusion.json"
    lines = (tmp_path / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    seen = [each["user_id"] for each in map(json.loads, lines[:6])]
    section = {"kind": "weights", "method": "zscore", "bands": [{"up_to": None, "weights": {"llm": 1.0}}]}
    document = {"format": 1, "fusion": section, "fitted": {"users": [user_key(user_id) for user_id in seen]}}
    path.write_text(json.dumps(document), encoding="utf-8")
    with server() as running:
        small = suite(tmp_path, running.url)
        model = {**small["rankers"]["model"], "fusion": {"path": str(path)}}
        yield {**small, "rankers": {"popularity": {"baseline": "popularity"}, "model": model}}


def test_a_run_says_that_it_tests_a_fusion_on_what_it_was_fitted_on(asked: Mapping[str, Any], tmp_path: Path) -> None:
    """In the notes of the summary, for as long as the ranker is asked for."""
    options = RunOptions(report=False)
    done = evaluate(asked, tmp_path / "run", options)
    assert done.summary is not None
    note = (
        "the fusion of model was fitted on users with the ids of 6 of the 12 cases: "
        "if they are the same people, these are no test of it"
    )
    assert note in done.summary["notes"]
    assert done.folder.manifest["rankers"]["model"]["fusion"]
    without = evaluate({**asked, "rankers": {"popularity": {"baseline": "popularity"}}}, tmp_path / "run", options)
    assert without.summary is not None
    assert note not in without.summary["notes"]


def test_a_fusions_file_that_changed_is_another_ranker(asked: Mapping[str, Any], tmp_path: Path) -> None:
    """A run does not go on with it, so that results of two fusions do not mix; nor do shards."""
    evaluate(asked, tmp_path / "run", RunOptions(limit=2, report=False))
    config = asked["rankers"]["model"]
    before = make_recipe(config, tmp_path / "items.jsonl").digests
    path = tmp_path / "fusion.json"
    path.write_text(path.read_text(encoding="utf-8").replace("zscore", "minmax"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ranker 'model' \(fusion\) changed"):
        evaluate(asked, tmp_path / "run")
    assert make_recipe(config, tmp_path / "items.jsonl").digests["config"] != before["config"]
    path.unlink()
    with pytest.raises(ConfigError, match=r"fusion\.path: cannot be read"):
        evaluate(asked, tmp_path / "run")


@pytest.mark.parametrize("fitted", [{"users": 5}, {"users": [["a"]]}, {"users": None}, {"keys": "abc"}])
def test_a_fusions_file_without_digests_is_refused(fitted: dict[str, Any], tmp_path: Path) -> None:
    """A file that was edited, or is a stranger's, ends a run with one clear error."""
    path = tmp_path / "fusion.json"
    section = {"kind": "weights", "method": "zscore", "bands": [{"up_to": None, "weights": {"llm": 1.0}}]}
    path.write_text(json.dumps({"format": 1, "fusion": section, "fitted": fitted}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"fusion\.path: `fitted\.(users|keys)` is no list of digests"):
        overlap(path, [])
