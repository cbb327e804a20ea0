"""Offline experiments: what must not go wrong between two sessions, and what their figures are made of."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.measures.measure import parse_measure
from llmrank.evaluation.running.session import RunOptions
from llmrank.experiment import analyse, run_experiment
from llmrank.experiment.effects import effects
from llmrank.experiment.guarding import guardrails
from llmrank.experiment.measured import Measured, Rankings
from llmrank.experiment.run import ExperimentRun, _means
from llmrank.experiment.spec import Spec, load_spec
from llmrank.experiment.stopping import reading
from tests.unit.small_experiment import experiment, variant
from tests.unit.small_suite import write_data

BASELINES = {"random": {"baseline": "random"}, "popular": {"baseline": "popularity"}, "given": {"baseline": "given"}}


pytestmark = pytest.mark.usefixtures("suite_key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the small suite's files."""
    write_data(tmp_path / "data", cases=24)
    return tmp_path / "data"


def baselines(data: Path, **changes: Any) -> dict[str, Any]:
    """An experiment that asks no model."""
    return experiment(data, "", **{"variants": BASELINES, **changes})


def run(spec: dict[str, Any], out: Path, **options: Any) -> ExperimentRun:
    """A run without its report."""
    return run_experiment(spec, out, RunOptions(report=False, **options))


def rankings(values: list[float], **changes: Any) -> Rankings:
    """Rankings with these values of NDCG@10, which took nothing."""
    n = len(values)
    none = np.zeros(n, dtype=np.int64)
    columns: dict[str, Any] = {
        "values": {"ndcg@10": np.array(values)},
        "failed": np.zeros(n, dtype=np.bool_),
        "usd": np.zeros(n),
        "seconds": np.full(n, np.nan),
        "calls": none,
        "prompt_tokens": none,
        "completion_tokens": none,
        "tops": (),
    }
    return Rankings(**{**columns, **changes})


def table(users: list[int], **variants: Rankings) -> Measured:
    """Rows of these users, each a case of its own."""
    numbers = np.array(users, dtype=np.int64)
    zeros = np.zeros_like(numbers)
    return Measured((parse_measure("ndcg@10"),), numbers, zeros, zeros, zeros + 3, variants, max(users) + 1)


def spec(**changes: Any) -> Spec:
    """An experiment with two variants that are never asked."""
    variants = {"plain": {"baseline": "random"}, "bold": {"baseline": "popularity"}}
    return Spec("small", variants, **{"metrics": ("ndcg@10",), "resamples": 200, **changes})


def test_a_plan_is_that_of_the_file_as_it_is(tmp_path: Path, data: Path) -> None:
    """A file that was changed after a dry run gets a plan of its own, even where its users stay the same."""
    first = run_experiment(baselines(data, effect=0.05), tmp_path / "ab", dry_run=True).plan
    second = run_experiment(baselines(data, effect=0.5), tmp_path / "ab", dry_run=True).plan
    assert first.needed is not None
    assert second.needed is not None
    assert second.needed < first.needed
    run(baselines(data, effect=0.5), tmp_path / "ab")
    assert run(baselines(data, effect=0.5), tmp_path / "ab").plan == second


def test_who_was_chosen_stays_chosen(tmp_path: Path, data: Path) -> None:
    """Once the finalists are known a later session keeps them, whatever became of the development run."""
    chosen = baselines(data, selection={"users": 8, "least": 4})
    done = run(chosen, tmp_path / "ab")
    before = analyse(done.folder)
    (name,) = before.variants
    (other,) = {"popular", "given"} - {name}
    logs = done.folder.path / "development" / "results"
    ours, theirs = ((logs / f"{each}.jsonl").read_bytes() for each in (name, other))
    (logs / f"{name}.jsonl").write_bytes(theirs)
    (logs / f"{other}.jsonl").write_bytes(ours)
    assert analyse(run(chosen, tmp_path / "ab").folder).variants == (name,)


def test_a_manifest_that_is_gone_is_missed(tmp_path: Path, data: Path) -> None:
    """Without its manifest a folder with results could go on as another experiment; it is refused."""
    done = run(baselines(data), tmp_path / "ab")
    done.folder.manifest_path.unlink()
    with pytest.raises(DatasetError, match=r"experiment\.json"):
        run(baselines(data, primary="hit@1"), tmp_path / "ab")


def test_a_report_is_of_what_was_frozen(tmp_path: Path, data: Path) -> None:
    """Cases that were edited are refused by the analysis, too, not only by the next run."""
    done = run(baselines(data), tmp_path / "ab")
    path = done.folder.cases("confirmation")
    path.write_text(path.read_text(encoding="utf-8").replace("u1", "u2"), encoding="utf-8")
    with pytest.raises(DatasetError, match="frozen"):
        analyse(done.folder)


def test_no_secret_of_the_embedder_is_kept(tmp_path: Path, data: Path) -> None:
    """A header, and what stands before the @ of an address, is a digest in the manifest; a change of it is seen."""
    embedder = {
        "kind": "openai",
        "model": "small",
        "headers": {"Authorization": "Bearer hush"},
        "base_url": "http://a:hush@b/v1",
    }
    run(baselines(data, embedder=embedder), tmp_path / "ab")
    run(baselines(data, embedder=embedder), tmp_path / "ab")
    assert not any("hush" in path.read_text(errors="ignore") for path in (tmp_path / "ab").rglob("*") if path.is_file())
    embedder["headers"] = {"Authorization": "Bearer other"}
    with pytest.raises(ConfigError, match=r"`embedder\.headers\.Authorization` changed"):
        run(baselines(data, embedder=embedder), tmp_path / "ab")


def test_one_undefined_value_does_not_choose() -> None:
    """A user for whom a measure is not defined with some variant is left out for all; the others choose."""
    nan = math.nan
    found = table([0, 1, 2], plain=rankings([0.2, nan, 0.4]), bold=rankings([0.6, 1.0, 0.8]))
    assert _means(found, ["plain", "bold"], "ndcg@10") == pytest.approx({"plain": 0.3, "bold": 0.7})


def test_a_user_counts_once() -> None:
    """A user with many cases weighs as much as one with a single case, in means, wins and p."""
    users = [0, 0, 0, 1, 2]
    found = table(users, plain=rankings([0.5] * 5), bold=rankings([1.0, 1.0, 1.0, 0.25, 0.25]))
    (effect,) = effects(spec(), found)
    assert effect.variant_mean == pytest.approx(0.5)
    assert effect.control_mean == pytest.approx(0.5)
    assert effect.difference.mean == pytest.approx(0.0)
    assert (effect.difference.wins, effect.difference.losses) == (1, 2)
    assert (effect.difference.n, effect.difference.clusters) == (3, 3)


def test_pairs_are_of_the_same_rankings() -> None:
    """A ranking whose value is undefined with one variant is no reason to compare the user's other rankings with it."""
    control = rankings([0.2, 0.8] * 200)
    variant = rankings([0.2, math.nan] * 200)
    found = table(sorted([*range(200)] * 2), plain=control, bold=variant)
    seen = reading(spec(sequential=None), found, "bold", parse_measure("ndcg@10"))
    assert seen.low < 0 < seen.high
    (effect,) = effects(spec(), found)
    assert effect.difference.ties == 200


def test_what_asks_no_model_is_not_slow() -> None:
    """A baseline's latency is known and small, so its guardrail is not unclear; where it stands as the control, neither."""
    asked = rankings([0.5] * 60, seconds=np.linspace(1.0, 2.0, 60), calls=np.ones(60, dtype=np.int64))
    quick = rankings([0.5] * 60, seconds=np.full(60, 1e-4))
    (guard,) = guardrails(spec(guardrails={"latency_p95": 0.1}), table([*range(60)], plain=asked, bold=quick), 10)
    assert guard.result.verdict == "kept"
    (guard,) = guardrails(spec(guardrails={"latency_p95": 0.1}), table([*range(60)], plain=quick, bold=asked), 10)
    assert guard.result.verdict == "broken"


def test_a_baseline_has_a_latency(tmp_path: Path, data: Path) -> None:
    """A guardrail on the latency of variants that ask no model is read; the table of costs has none for them."""
    findings = analyse(run(baselines(data, guardrails={"latency_p95": 5.0}), tmp_path / "ab").folder)
    assert {each.result.verdict for each in findings.guardrails} == {"kept"}
    assert {each.latency_p95 for each in findings.costs} == {None}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"alpha": 0.5}, "alpha"),
        ({"resamples": 50}, "resamples"),
        ({"selection": {"users": 4, "budget": 0}}, "selection.budget"),
    ],
)
def test_what_would_fail_after_all_is_paid_fails_before(data: Path, change: dict[str, Any], field: str) -> None:
    """Options that the analysis cannot use are refused where the file is read, under the file's own names."""
    with pytest.raises(ConfigError) as error:
        load_spec(baselines(data, **change))
    assert error.value.field == field


def test_a_plan_forecasts_the_users_that_decide(tmp_path: Path, data: Path) -> None:
    """Where variants are chosen first, both the race and the comparison are forecast; the control takes no part in the race."""
    variants = {name: variant("http://127.0.0.1:9/v1", name) for name in ("plain", "bold", "tame")}
    asked = experiment(data, "", variants=variants, selection={"users": 8, "least": 4})
    lines = run_experiment(asked, tmp_path / "ab", dry_run=True).plan.lines
    for start, calls in (("bold, on all development users:", 8), ("plain:", 16), ("bold, if it is chosen:", 16)):
        (line,) = (each for each in lines if each.startswith(start))
        assert f"{calls} calls" in line or f"{calls} prompts" in line, line
    assert not any(each.startswith("plain, on") for each in lines)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"selection": {"users": 8, "budget": 3, "least": 4}}, "selection.budget"),
        ({"variants": {**BASELINES, "new": {"baseline": "newest"}}}, "variants.new.baseline"),
    ],
)
def test_a_dry_run_finds_what_the_run_would(tmp_path: Path, data: Path, change: dict[str, Any], field: str) -> None:
    """A race that cannot be afforded and a variant that cannot be built are told by a dry run, by the file's keys."""
    with pytest.raises(ConfigError) as error:
        run_experiment(baselines(data, **change), tmp_path / "ab", dry_run=True)
    assert error.value.field == field
