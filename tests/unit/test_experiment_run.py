"""Offline experiments: what is frozen, asked, resumed, refused and found, with a real server on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.cases import read_cases
from llmrank.evaluation.running.session import RunOptions
from llmrank.experiment import ExperimentFolder, analyse, load_spec, publish, run_experiment
from llmrank.experiment.run import ExperimentRun
from llmrank.registry import Registry
from tests.servers.picky import PickyServer, Reply, Request, openai_error
from tests.unit.small_experiment import asked, asks, experiment, forwards_for, variant
from tests.unit.small_suite import USD, server, write_data

pytestmark = pytest.mark.usefixtures("suite_key")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the small suite's files: relevant items mostly stand early."""
    folder = tmp_path / "data"
    write_data(folder, cases=24)
    cases = [json.loads(line) for line in (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    for number, case in enumerate(cases):
        case["relevant"] = [case["candidates"][number % 2 if number % 8 else 5]]
    (folder / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    return folder


@pytest.fixture
def running() -> Iterator[PickyServer]:
    """A server that ranks backwards, but forwards for the variant `bold`."""
    with server(forwards_for("bold")) as found:
        yield found


def run(spec: dict[str, Any], out: Path, **options: Any) -> ExperimentRun:
    """A run without its report, which takes seconds."""
    return run_experiment(spec, out, RunOptions(report=False, **options))


def test_every_variant_ranks_the_same_frozen_cases(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """Users, candidates and orders are the same for all, and the folder alone suffices afterwards."""
    done = run(experiment(data, running.url), tmp_path / "ab")
    assert (done.stopped, done.failures) == (None, 0)
    assert asked(running) == 48
    for path in data.iterdir():
        path.unlink()
    stage = done.folder.run("confirmation")
    shown = {name: [record["shown"] for record in stage.results(name)] for name in ("plain", "bold")}
    assert len(shown["plain"]) == 24
    assert shown["plain"] == shown["bold"]
    assert done.usd == pytest.approx(24 * USD + 24 * (USD + 110 * 10.0 / 1_000_000))
    assert analyse(ExperimentFolder(tmp_path / "ab")).users == 24


def test_the_better_variant_is_found_and_said(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """The one that keeps the early relevant items early is shipped; means and difference are those of a count by hand."""
    findings = analyse(run(experiment(data, running.url), tmp_path / "ab").folder)
    assert findings.decision.outcome == "ship"
    assert findings.decision.variant == "bold"
    effect = findings.effect("bold")
    # Of 24 relevant items 3 stand last (the control's hits), 12 second and 9 first (the variant's hits).
    hits = next(each for each in findings.effects if each.measure.name == "hit@1")
    assert hits.control_mean == pytest.approx(3 / 24)
    assert hits.variant_mean == pytest.approx(9 / 24)
    assert effect.difference.low > 0
    assert effect.adjusted < 0.05
    assert (effect.correction, hits.correction) == ("holm", "bh")
    assert [each.variant for each in findings.costs] == ["plain", "bold"]
    assert findings.disagreements[0].variant_value > findings.disagreements[0].control_value


def test_a_second_run_asks_nothing_and_finds_the_same(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """Everything is on disk: the same command again sends no request, and its findings are equal."""
    first = analyse(run(experiment(data, running.url), tmp_path / "ab").folder)
    second = analyse(run(experiment(data, running.url), tmp_path / "ab").folder)
    assert asked(running) == 48
    assert second == first


def test_a_fixed_sample_is_not_read_before_it_is_complete(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """A run that ran out of money has no findings, says so, and goes on to the same end as one that never stopped."""
    spec = experiment(data, running.url)
    stopped = run(spec, tmp_path / "ab", budget_usd=30 * USD)
    assert stopped.stopped is not None
    assert stopped.findings is None
    with pytest.raises(DatasetError, match=r"ranked"):
        analyse(stopped.folder)
    whole = analyse(run(spec, tmp_path / "ab").folder)
    assert asked(running) == 48
    other = analyse(run(spec, tmp_path / "other").folder)
    assert whole.effects == other.effects
    assert whole.manifest == other.manifest


def test_nothing_that_decides_changes_after_the_first_answer(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """Once something was asked, another measure, sample, level or margin is refused, and what differs is named."""
    run(experiment(data, running.url), tmp_path / "ab")
    changes: dict[str, Any] = {
        "primary": "hit@1",
        "users": 10,
        "alpha": 0.1,
        "effect": 0.5,
        "guardrails": {"failures": 0.1},
        "seed": 1,
        "control": "bold",
        "repeats": {"orders": 2},
    }
    for name, value in changes.items():
        with pytest.raises(ConfigError, match=name):
            run(experiment(data, running.url, **{name: value}), tmp_path / "ab")
    assert asked(running) == 48
    run(experiment(data, running.url, prices={"picky-1": {"input": 1.0, "output": 1.0}}), tmp_path / "ab")


def test_a_dry_run_asks_nothing_and_says_what_could_be_shown(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """The plan has users, money and the detectable difference; for a wanted one, how many users it takes."""
    done = run_experiment(experiment(data, running.url, effect=0.05), tmp_path / "ab", dry_run=True)
    assert asked(running) == 0
    assert done.findings is None
    assert done.plan.detectable is not None
    assert done.plan.needed is not None
    assert done.plan.needed > 24
    assert done.plan.detectable > 0.05
    text = "\n".join(done.plan.lines)
    assert "24 users" in text
    assert "USD" in text
    # A mistake that was found in time binds nobody.
    run_experiment(experiment(data, running.url, effect=0.5, users=20), tmp_path / "ab", dry_run=True)


def test_failures_count_and_break_a_guardrail(tmp_path: Path, data: Path) -> None:
    """A variant whose answers cannot be read is never left out: its users count, and its guardrail is broken."""

    def silent(request: Request) -> Reply | None:
        return openai_error("no") if asks(request, "bold") else None

    with server(silent) as running:
        done = run(experiment(data, running.url, guardrails={"failures": 0.05}), tmp_path / "ab")
    findings = analyse(done.folder)
    assert done.failures == 24
    assert findings.users == 24
    assert findings.costs[1].failures == 24
    assert findings.guardrails[0].result.verdict == "broken"
    assert findings.decision.outcome != "ship"


def test_guardrails_watch_cost_coverage_and_latency(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """A variant that is better but twice as dear is not shipped where the margin is 10 %."""
    margins = {"cost": "10 %", "failures": 0.5, "coverage@3": 0.9, "latency_p95": 60.0}
    findings = analyse(run(experiment(data, running.url, guardrails=margins), tmp_path / "ab").folder)
    verdicts = {each.name: each.result.verdict for each in findings.guardrails}
    assert verdicts["cost (USD a ranking)"] == "broken"
    assert verdicts["failures"] == verdicts["latency (p95)"] == verdicts["Coverage@3"] == "kept"
    assert (findings.decision.outcome, findings.decision.variant) == ("keep", "bold")
    assert "cost" in findings.decision.sentence


def test_repeats_count_a_user_once(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """Each case is asked in several orders, the same for all variants; n is users, and the order's variance is told."""
    done = run(experiment(data, running.url, repeats={"orders": 3}), tmp_path / "ab")
    assert asked(running) == 2 * 72
    cases = list(read_cases(done.folder.cases("confirmation")))
    assert len({case.candidates for case in cases[:3]}) == 3
    assert len({case.user_id for case in cases[:3]}) == 1
    findings = analyse(done.folder)
    assert (findings.users, findings.rankings) == (24, 72)
    assert findings.effect("bold").difference.clusters == 24
    assert findings.variation is not None
    assert findings.variation.order is not None
    assert findings.variation.sampling is None


def test_samples_have_seeds_of_their_own(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """Two samples of each order are two prompts with other seeds; a variant that never samples is refused."""
    variants = {name: variant(running.url, name, temperature=0.7) for name in ("plain", "bold")}
    findings = analyse(
        run(experiment(data, running.url, variants=variants, repeats={"samples": 2}, users=5), tmp_path / "ab").folder
    )
    assert asked(running) == 2 * 2 * 5
    assert {request["seed"] for request in running.bodies} == {0, 1}
    assert (findings.users, findings.rankings) == (5, 10)
    assert any("ignore seeds" in note for note in findings.notes)
    with pytest.raises(ConfigError, match="temperature"):
        run(experiment(data, running.url, repeats={"samples": 2}), tmp_path / "other")


def test_halving_chooses_on_users_of_their_own(tmp_path: Path, data: Path) -> None:
    """Of four variants the one that is better goes on; no development user decides, and no development figure is told."""
    names = ["plain", "bold", "tame", "grey", "flat"]
    with server(forwards_for("bold")) as running:
        variants = {name: variant(running.url, name) for name in names}
        selection = {"users": 12, "least": 4, "finalists": 1}
        done = run(experiment(data, running.url, variants=variants, selection=selection), tmp_path / "ab")
        findings = analyse(done.folder)
        assert findings.variants == ("bold",)
        assert findings.users == 12
        first, second = (
            {case.user_id for case in read_cases(done.folder.cases(stage))} for stage in ("development", "confirmation")
        )
        assert not first & second
        assert len(first) == len(second) == 12
        halved = asked(running)
        assert halved < 4 * 12 + 2 * 12
        assert findings.selection[-1].kept == ("bold",)
        run(experiment(data, running.url, variants=variants, selection=selection), tmp_path / "ab")
        assert asked(running) == halved


def test_an_always_valid_experiment_stops_early(tmp_path: Path, data: Path) -> None:
    """Where one variant is always right and the other never, few users decide; it may be looked at any time."""
    cases = [json.loads(line) for line in (data / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    for case in cases:
        case["relevant"] = case["candidates"][:1]
    many = [{**case, "user_id": f"{case['user_id']}-{copy}"} for copy in range(4) for case in cases]
    (data / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in many), encoding="utf-8")
    with server(forwards_for("bold")) as running:
        spec = experiment(data, running.url, sequential={"every": 8, "least": 8})
        findings = analyse(run(spec, tmp_path / "ab").folder)
        assert findings.reading == "always valid"
        assert findings.planned == 96
        assert findings.users < 96
        assert findings.stopped_early is not None
        assert "bold is better" in findings.stopped_early
        assert findings.decision.outcome == "ship"
        before = asked(running)
        assert before <= 2 * findings.users  # users with equal questions share an answer
        run(spec, tmp_path / "ab")
        assert asked(running) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": {"one": {"baseline": "random"}}}, "two variants"),
        ({"control": "plian"}, "plain"),
        ({"variants": {"a": {"baseline": "random"}, "b": {"backend": {"kind": "local"}, "promt": {}}}}, "promt"),
        ({"users": 40}, "more users"),
        ({"guardrails": {"failure": 0.1}}, "failures"),
        ({"guardrails": {"failures": "much"}}, "margin"),
        ({"guardrails": {"failures": 0}}, "finite sample"),
        ({"guardrails": {"gini@10": 0.1}}, "coverage"),
        ({"primary": "gini@3"}, "metrics"),
        ({"metrics": ["coverage@3"]}, "each user"),
        ({"repeats": {"order": 2}}, "orders"),
        ({"selection": {"users": 4}}, "finalists"),
        ({"sequential": {"every": 0}}, "every"),
        ({"name": "a b"}, "letters"),
        ({"alpha": 5}, "alpha"),
    ],
)
def test_a_mistake_is_one_clear_error(tmp_path: Path, data: Path, change: dict[str, Any], message: str) -> None:
    """What is wrong is named before anything is asked."""
    with pytest.raises(ConfigError, match=message):
        run(experiment(data, "http://127.0.0.1:9/v1", **change), tmp_path / "ab")


def test_what_ran_can_be_found_and_rendered_again(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """Every variant's template is kept with its files; the result is noted beside it when the experiment is published."""
    shared = Registry(tmp_path / "prompts.jsonl")
    variants = {"plain": variant(running.url, "plain"), "bold": variant(running.url, "bold", template="listwise/sequential")}
    done = run_experiment(
        experiment(data, running.url, variants=variants), tmp_path / "ab", RunOptions(report=False), registries=[shared]
    )
    findings = publish(done.folder, shared)
    for registry in (shared, Registry(done.folder.path / "prompts.jsonl")):
        versions = {version.name: version for version in registry.versions()}
        assert set(versions) >= {"listwise/recency", "listwise/sequential"}
        (result,) = versions["listwise/sequential"].results
        assert result.value == findings.effect("bold").variant_mean
        assert (result.experiment, result.users) == ("forwards: bold", 24)
        assert registry.template(versions["listwise/sequential"]).fingerprint == versions["listwise/sequential"].fingerprint


def test_a_variant_may_be_the_path_of_a_rankers_file(tmp_path: Path, data: Path) -> None:
    """As in a suite, relative to the experiment's file."""
    (tmp_path / "plain.yaml").write_text("baseline: popularity\n", encoding="utf-8")
    spec = {**experiment(data, "http://127.0.0.1:9"), "variants": {"plain": "plain.yaml", "random": {"baseline": "random"}}}
    (tmp_path / "experiment.yaml").write_text(json.dumps(spec), encoding="utf-8")
    assert load_spec(tmp_path / "experiment.yaml").variants["plain"] == {"baseline": "popularity"}


def test_a_limit_is_refused(tmp_path: Path, data: Path) -> None:
    """A part of the sample is another experiment."""
    with pytest.raises(ConfigError, match="users"):
        run(experiment(data, "http://127.0.0.1:9/v1"), tmp_path / "ab", limit=5)


def test_frozen_cases_that_were_edited_are_refused(tmp_path: Path, data: Path, running: PickyServer) -> None:
    """Who changes a frozen file is told, and nothing goes on."""
    done = run(experiment(data, running.url), tmp_path / "ab")
    path = done.folder.cases("confirmation")
    path.write_text(path.read_text(encoding="utf-8").replace("u1", "u2"), encoding="utf-8")
    with pytest.raises(DatasetError, match="frozen"):
        run(experiment(data, running.url), tmp_path / "ab")
