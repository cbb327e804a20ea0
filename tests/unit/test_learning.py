"""What rankers of a suite learn before they rank: from what, how often, where it is kept, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmrank.errors import ConfigError, DatasetError
from llmrank.evaluation.folder import RunFolder
from llmrank.evaluation.run import Evaluation, RunOptions, evaluate
from llmrank.evaluation.running import contenders, on_ray, session
from llmrank.evaluation.running.learning import needs_training, trained
from llmrank.interactions import Interactions
from llmrank.prices import Prices
from tests.unit import fake_retrievers
from tests.unit.fake_retrievers import FakeOptions, Trained
from tests.unit.small_suite import write_data

RANKER: dict[str, Any] = {
    "backend": {"kind": "local"},
    "retrievers": {"crowd": {"kind": "item-knn"}, "text": {"kind": "embedding"}},
}


@pytest.fixture(autouse=True)
def done(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """What was trained, with the small models."""
    return fake_retrievers.install(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the small suite's files."""
    write_data(tmp_path / "data")
    return tmp_path / "data"


def suite(data: Path, *, split: str = "leave-last-out", **rankers: Any) -> dict[str, Any]:
    """Baselines over the small suite's data."""
    given = {"cases": str(data / "cases.jsonl")} if split == "given" else {}
    candidates = {} if split == "given" else {"candidates": {"source": "sampled", "n": 6}}
    return {
        "items": str(data / "items.jsonl"),
        "interactions": str(data / "interactions.csv"),
        "protocol": {"split": split, **candidates},
        "rankers": {"random": {"baseline": "random"}, **rankers},
        "metrics": ["ndcg@3"],
        "resamples": 200,
        **given,
    }


def run(asked: dict[str, Any], out: Path, **options: Any) -> Evaluation:
    """A run without its report."""
    return evaluate(asked, out, RunOptions(report=False, **options))


@pytest.mark.parametrize(
    ("config", "needs"),
    [
        ({"baseline": "random"}, False),
        ({"baseline": "popularity"}, False),
        ({"baseline": "popularity", "half_life_days": 30.0}, True),
        ({"baseline": "embedding", "keep": 5}, False),
        ({"baseline": "item-knn"}, True),
        ({"baseline": "item-knn", "neighbours": 3}, True),
        ({"baseline": "item-knn", "path": "crowd.npz"}, False),
        ({"baseline": "fusion", "retrievers": {"a": {"kind": "embedding"}}}, False),
        ({"baseline": "fusion", "retrievers": {"a": {"kind": "transitions"}}}, True),
        ({"backend": {"kind": "local"}}, False),
        ({"backend": {"kind": "local"}, "retrievers": None}, False),
        (RANKER, True),
        ({"backend": {"kind": "local"}, "retrievers": {"crowd": {"kind": "item-knn", "path": "crowd.npz"}}}, False),
    ],
)
def test_what_has_to_learn(config: dict[str, Any], needs: bool) -> None:
    """Kinds that learn and name no model: as a baseline, in a fusion, or a Ranker's retriever; plain popularity is counted."""
    assert needs_training(config) is needs


@pytest.mark.parametrize("split", ["leave-last-out", "given"])
def test_a_run_trains_on_what_may_be_learned_from(tmp_path: Path, data: Path, done: Trained, split: str) -> None:
    """Exactly what popularity counts, frozen in the folder, and never what a case asks for."""
    made = run(suite(data, split=split, knn={"baseline": "item-knn", "neighbours": 3}), tmp_path / "run")
    (found,) = done
    kind, options, learned = found
    assert (kind, options) == ("item-knn", FakeOptions(neighbours=3))
    folder = RunFolder(tmp_path / "run")
    assert folder.popularity is not None
    pairs = {(row.user_id, row.item_id) for row in learned.rows()}
    counts = dict.fromkeys(folder.popularity.counts, 0)
    for _, item_id in pairs:
        counts[item_id] += 1
    assert counts == folder.popularity.counts
    assert not pairs & {(case.user_id, item_id) for case in folder.cases() for item_id in case.relevant}
    assert isinstance(folder.training, Interactions)
    assert list(folder.training.rows()) == list(learned.rows())
    assert made.summary is not None
    assert made.summary["rankers"]["knn"]["status"]["ok"] == made.planned


def test_a_model_is_trained_once(tmp_path: Path, data: Path, done: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """By all rankers that have it, and by all sessions; other options are another model. How long it took is told and kept."""
    rankers: dict[str, Any] = {
        "one": {"baseline": "item-knn", "neighbours": 3},
        "two": {"baseline": "fusion", "retrievers": {"crowd": {"kind": "item-knn", "neighbours": 3}}},
        "three": {"baseline": "item-knn"},
        "same": {"baseline": "item-knn", "neighbours": 10},  # the default, said aloud
    }
    run(suite(data, **rankers), tmp_path / "run", limit=3)
    run(suite(data, **rankers), tmp_path / "run")
    assert [options.neighbours for _, options, _ in done] == [3, 10]
    assert "trained item-knn in " in capsys.readouterr().err
    models = tmp_path / "run" / "models"
    assert len(list(models.glob("*.npz"))) == 2
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in models.glob("*.json")]
    assert {(note["kind"], note["options"]["neighbours"]) for note in notes} == {("item-knn", 3), ("item-knn", 10)}
    (size,) = {(note["users"], note["items"], note["interactions"]) for note in notes}
    assert size == (len(done[0][2].users), len(done[0][2].items), len(done[0][2]))
    assert all(note["seconds"] >= 0 for note in notes)


def test_a_ranker_that_learns_may_be_added(tmp_path: Path, data: Path, done: Trained) -> None:
    """What may be learned from is made anew from the same sources then, as it would have been at the beginning."""
    run(suite(data), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert folder.training is None
    assert not (tmp_path / "run" / "data" / "training.npz").exists()
    asked = suite(data, knn={"baseline": "item-knn"})
    run(asked, tmp_path / "run")
    run(asked, tmp_path / "other")
    one, other = (list(learned.rows()) for _, _, learned in done)
    assert one == other
    assert "training.npz" in RunFolder(tmp_path / "run").manifest["frozen"]


def test_a_model_file_that_changed_is_another_ranker(tmp_path: Path, data: Path) -> None:
    """A run does not go on with it, or its results would be of two models; one that an older version began may go on."""
    model = tmp_path / "crowd.npz"
    model.write_text('{"kind": "item-knn", "options": {}, "counts": []}')
    section = {"retrievers": {"crowd": {"kind": "item-knn", "path": str(model)}}}
    asked = suite(data, mixed={"baseline": "fusion", **section})
    run(asked, tmp_path / "run", limit=2)
    manifest = tmp_path / "run" / "manifest.json"
    begun = manifest.read_text(encoding="utf-8")
    model.write_text('{"kind": "item-knn", "options": {}, "counts": [ ]}')
    with pytest.raises(ConfigError, match=r"ranker 'mixed' \(files\.retrievers\.crowd\.path\) changed"):
        run(asked, tmp_path / "run")
    older = json.loads(begun)
    del older["rankers"]["mixed"]["files"]
    manifest.write_text(json.dumps(older), encoding="utf-8")
    run(asked, tmp_path / "run")


def test_frozen_training_data_that_were_edited_are_refused(tmp_path: Path, data: Path) -> None:
    """Like all that was frozen."""
    asked = suite(data, knn={"baseline": "item-knn"})
    run(asked, tmp_path / "run", limit=2)
    path = tmp_path / "run" / "data" / "training.npz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="not what was frozen"):
        run(asked, tmp_path / "run")


def test_training_data_of_a_session_that_was_killed_are_not_trusted(tmp_path: Path, data: Path, done: Trained) -> None:
    """A file that the manifest does not know is made anew."""
    run(suite(data), tmp_path / "run")
    (tmp_path / "run" / "data" / "training.npz").write_bytes(b"half of it")
    run(suite(data, knn={"baseline": "item-knn"}), tmp_path / "run")
    assert len(done) == 1


def test_a_split_that_is_not_the_old_one_trains_nothing(tmp_path: Path, data: Path, done: Trained) -> None:
    """Where the same sources give other counts than those that were frozen, as after a change of this code, that is said."""
    run(suite(data), tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))
    path = tmp_path / "run" / "data" / "popularity.json"
    path.write_text('{"users": 1, "counts": {"i1": 1}}', encoding="utf-8")
    manifest["frozen"]["popularity.json"] = frozen_digest(path)
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ConfigError, match="not what it was when this run began"):
        run(suite(data, knn={"baseline": "item-knn"}), tmp_path / "run")
    assert not done


def frozen_digest(path: Path) -> str:
    """As the manifest has it."""
    from llmrank.scale.recipe import file_digest

    return file_digest(path)


def without_interactions(asked: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in asked.items() if key != "interactions"}


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({"baseline": "item-knn"}, without_interactions, r"rankers\.x: has to learn.*name `interactions`"),
        (
            {"baseline": "fusion", "retrievers": {"a": {"kind": "item-knn"}}},
            without_interactions,
            r"rankers\.x\.retrievers\.a: has to learn",
        ),
        ({"baseline": "item-knn", "neighbors": 3}, dict, r"rankers\.x\.neighbors.*did you mean 'neighbours'"),
        (
            {"baseline": "fusion", "retrievers": {"a": {"kind": "item-knn", "neighbours": 0}}},
            dict,
            r"rankers\.x\.retrievers\.a\.neighbours.*at least 1",
        ),
    ],
)
def test_what_cannot_learn_is_refused_before_anything(
    tmp_path: Path, data: Path, config: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]], message: str
) -> None:
    """By its section: nothing to learn from, and options that the kind does not have; no data are frozen."""
    with pytest.raises(ConfigError, match=message):
        run(change(suite(data, split="given", x=config)), tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()


def test_a_path_is_a_model_of_ones_own(tmp_path: Path, data: Path, done: Trained) -> None:
    """It needs no interactions, and is used as it is."""
    run(suite(data, knn={"baseline": "item-knn"}), tmp_path / "first")
    (model,) = (tmp_path / "first" / "models").glob("*.npz")
    asked = without_interactions(suite(data, split="given", knn={"baseline": "item-knn", "path": str(model)}))
    assert run(asked, tmp_path / "second").failures == 0
    assert len(done) == 1


def test_a_rankers_retrievers_get_the_paths_of_trained_models(
    tmp_path: Path, data: Path, done: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Absolute ones; what learns nothing, or names a model, stays; the suite's own configuration is not changed."""
    run(suite(data, knn={"baseline": "item-knn"}), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    folder = RunFolder("run")
    built: list[Any] = []
    monkeypatch.setattr(contenders, "build_ranker", lambda config, **more: built.append(config))
    contenders.build_contender("r", RANKER, folder, seed=0, prices=Prices.load(None), meter=None)
    (config,) = built
    (model,) = (tmp_path / "run" / "models").glob("*.npz")
    assert config == {
        "backend": {"kind": "local"},
        "retrievers": {"crowd": {"kind": "item-knn", "path": str(model)}, "text": {"kind": "embedding"}},
    }
    assert RANKER["retrievers"]["crowd"] == {"kind": "item-knn"}
    assert len(done) == 1
    assert trained({"baseline": "random"}, folder, "r") == {"baseline": "random"}


def test_ray_s_workers_are_sent_the_paths(tmp_path: Path, data: Path, done: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they build their Rankers from has nothing left to train."""
    asked = suite(data, knn={"baseline": "item-knn"})
    made = run(asked, tmp_path / "run")
    sent: list[Any] = []

    def ask_on_ray(folder: RunFolder, name: str, config: Any, wanted: set[int], **more: Any) -> Any:
        sent.append(config)
        yield from ()

    monkeypatch.setattr(session, "ask_on_ray", ask_on_ray)
    assert on_ray.ask_on_ray is not ask_on_ray
    from llmrank.evaluation.running.opened import OpenContenders
    from llmrank.evaluation.suite import Suite

    options = RunOptions(engine="ray")
    ray = session.Session(Suite({"model": RANKER}), made.folder, options, Prices.load(None), OpenContenders())
    with ray._log("model") as log, ray._meter() as meter:
        ray._rank_all("model", log, meter, log.outstanding(ray.planned))
    (config,) = sent
    (model,) = (tmp_path / "run" / "models").glob("*.npz")
    assert config["retrievers"]["crowd"] == {"kind": "item-knn", "path": str(model.absolute())}
    assert len(done) == 1


def test_a_run_that_began_before_a_key_was_known_goes_on(tmp_path: Path, data: Path) -> None:
    """Null and left out are the same, also in a manifest of an older version."""
    run(suite(data), tmp_path / "run", limit=2)
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["suite"]["protocol"]["last_history"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert run(suite(data), tmp_path / "run").stopped is None
