"""Many shards: a stream of requests is split, an engine ranks the shards, and what fails is tried again and reported."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank import Constraint, Event, Item, Ranker, RankRequest, cli
from llmrank.backends.replay import RecordingBackend
from llmrank.errors import ConfigError, DatasetError, QuotaError, RequestError, SetupError
from llmrank.fusion import Band, WeightedSum
from llmrank.fusion.file import FusionFile, write_fusion
from llmrank.scale import shard
from llmrank.scale.engines import RayOptions, rank_shards
from llmrank.scale.recipe import make_recipe
from llmrank.scale.schema import count_rows, read_records
from llmrank.scale.shard import ShardReport
from llmrank.scale.split import split_requests
from llmrank.strategies.listwise import Listwise
from llmrank.writer import PromptOptions, PromptWriter
from tests.unit.scripted import ScriptedBackend
from tests.unit.test_shard import CATALOG, backwards, rows, users, write

REQUESTS = [RankRequest(row["history"], row["candidates"], user_id=row["user_id"]) for row in users(23)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: items, cases, a configuration that answers from a recording of every case's prompt."""
    monkeypatch.chdir(tmp_path)
    items = "".join(json.dumps({"id": item.id, "title": item.title}) + "\n" for item in CATALOG)
    Path("items.jsonl").write_text(items, encoding="utf-8")
    cases = ({"user_id": each.user_id, "history": each.history, "candidates": each.candidates} for each in REQUESTS)
    Path("cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases), encoding="utf-8")
    Path("ranker.yaml").write_text("backend: {kind: replay, path: answers.jsonl}\n", encoding="utf-8")
    backend = RecordingBackend(ScriptedBackend(backwards), "answers.jsonl")
    with Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG) as ranker:
        assert {ranking.status for ranking in ranker.rank_many(REQUESTS)} == {"ok"}
    return tmp_path


def run(shards: list[Path], out: str = "out", **options: Any) -> list[ShardReport]:
    """The reports of a run over shards with the folder's configuration."""
    return list(rank_shards(shards, out, config="ranker.yaml", catalog="items.jsonl", **options))


@settings(max_examples=25)
@given(count=st.integers(0, 30), length=st.integers(1, 12))
def test_requests_are_split_in_order(tmp_path_factory: pytest.TempPathFactory, count: int, length: int) -> None:
    """All shards but the last are of the length asked for; together they hold every request once, numbered, in order."""
    folder = tmp_path_factory.mktemp("split")
    asked = [RankRequest([str(n)], None if n % 3 else ["1"], f"q{n}", f"u{n}", n or None) for n in range(count)]
    shards = split_requests(iter(asked), folder, length)
    assert shards == sorted(folder.iterdir())
    lengths = [pq.read_metadata(path).num_rows for path in shards]
    assert sum(lengths) == count == count_rows(shards)
    assert all(each == length for each in lengths[:-1])
    found = [row for path in shards for row in pq.read_table(path).to_pylist()]
    assert [row.pop("case") for row in found] == list(range(count))
    names = ("history", "candidates", "query", "user_id", "top_k")
    assert found == [{name: getattr(each, name) for name in names} for each in asked]
    before = [path.read_bytes() for path in shards]
    assert split_requests(asked, folder, length) == shards
    assert [path.read_bytes() for path in shards] == before


def test_another_split_is_not_mixed_in(tmp_path: Path) -> None:
    """A folder that holds other shards is refused and stays as it is: rankings of both would mix."""
    shards = split_requests(REQUESTS, tmp_path, 5)
    before = [path.read_bytes() for path in shards]
    with pytest.raises(DatasetError, match="holds other requests"):
        split_requests(REQUESTS[1:], tmp_path, 5)
    with pytest.raises(DatasetError, match="is of another split"):
        split_requests(REQUESTS[:10], tmp_path, 5)
    assert [path.read_bytes() for path in shards] == before


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (RankRequest([Item("1", "One")], ["2"]), "history: a shard holds ids only"),
        (RankRequest([Event("1", timestamp=3.0)], ["2"]), "history: a shard holds ids only"),
        (RankRequest(["1"], [Item("2", "Two")]), "candidates: a shard holds ids only"),
        (RankRequest(["1"], ["2"], query="half \ud800 a pair"), "cannot be written as Parquet"),
        (RankRequest(["1"], ["2"], constraints=[Constraint("year", ">", 3)]), "which a shard cannot hold"),
        (RankRequest(["1"], ["2"], top_k="3"), "cannot be written as Parquet"),  # type: ignore[arg-type]
    ],
)
def test_what_a_shard_cannot_hold_is_refused(tmp_path: Path, request_: RankRequest, said: str) -> None:
    """Rather than left out silently: Items, times and ratings, and what is no text."""
    with pytest.raises(RequestError, match=said):
        split_requests([RankRequest([Event("1")], ["2"]), request_], tmp_path)
    assert not list(tmp_path.iterdir())


def test_all_shards_are_ranked_and_then_kept(folder: Path) -> None:
    """Each once, with the rankings of one Ranker; a second run keeps them, and looks at no configuration's model."""
    shards = split_requests(REQUESTS, "in", 5)
    done: list[int] = []
    reports = run(shards, keep="record", on_rows=done.append)
    assert [report.outcome for report in reports] == ["ranked"] * 5
    assert [report.source.name for report in reports] == [path.name for path in shards]
    assert sum(done) == 23
    records = [record for report in reports for record in read_records(report.target)]
    assert [record["case"] for record in records] == list(range(23))
    with Ranker.from_config("ranker.yaml", catalog="items.jsonl") as ranker:
        expected = [ranking.item_ids for ranking in ranker.rank_many(REQUESTS)]
    assert [[item["id"] for item in record["items"]] for record in records] == expected
    again = run(shards, keep="record")
    assert [report.outcome for report in again] == ["kept"] * 5
    assert [report.cost for report in again] == [report.cost for report in reports]


def test_a_run_that_was_broken_off_goes_on(folder: Path) -> None:
    """Shards that were whole are kept, the others ranked."""
    shards = split_requests(REQUESTS, "in", 5)
    reports = rank_shards(shards, "out", config="ranker.yaml", catalog="items.jsonl")
    first = [next(reports), next(reports)]
    reports.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(list(Path("out").glob("*.parquet"))) == len(first)
    assert Counter(report.outcome for report in run(shards)) == {"kept": 2, "ranked": 3}


def test_a_failed_shard_is_tried_again_and_then_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong once is mended by another attempt; what goes wrong always is reported, and stops no other shard."""
    shards = split_requests(REQUESTS, "in", 5)
    shards[3].write_bytes(b"PAR1 no more")
    rank, tried = shard.ShardRanker.rank, Counter[str]()

    def flaky(self: shard.ShardRanker, source: Path, target: Path, on_row: Any = None) -> ShardReport:
        tried[source.name] += 1
        report = rank(self, source, target, on_row)
        if tried[source.name] < 2 and source.name == shards[1].name:
            target.unlink()
            raise DatasetError("cannot be written (No space left on device)")
        return report

    monkeypatch.setattr(shard.ShardRanker, "rank", flaky)
    done: list[int] = []
    reports = run(shards, attempts=3, on_rows=done.append)
    assert [report.outcome for report in reports] == ["ranked", "ranked", "ranked", "failed", "ranked"]
    assert [report.attempts for report in reports] == [1, 2, 1, 3, 1]
    assert "cannot be read as Parquet" in str(reports[3].error)
    assert sum(done) == sum(report.rows for report in reports) == 18


def test_nothing_is_asked_if_a_target_is_of_another_configuration(folder: Path) -> None:
    """All targets are looked at first, so that no money is spent before the mistake is seen."""
    shards = split_requests(REQUESTS, "in", 5)
    run(shards[-1:])
    with pytest.raises(DatasetError, match="was made from another config"):
        run(shards, keep="record")
    assert len(list(Path("out").iterdir())) == 1


def test_a_ranker_that_cannot_be_made_fails_the_run(folder: Path) -> None:
    """A wrong configuration is one error, not one a shard."""
    shards = split_requests(REQUESTS, "in", 5)
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl"):
        list(rank_shards(shards, "out", config={"backend": {"kind": "replay", "path": "nowhere.jsonl"}}, catalog="items.jsonl"))
    with pytest.raises(ConfigError, match="catalog: is missing"):
        list(rank_shards(shards, "out", config="ranker.yaml"))


def test_what_no_shard_could_do_better_with_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty account is not tried three times a shard."""
    tried: list[Path] = []

    def rank(self: shard.ShardRanker, source: Path, target: Path, on_row: Any = None) -> ShardReport:
        tried.append(source)
        raise QuotaError("no credit left")

    monkeypatch.setattr(shard.ShardRanker, "rank", rank)
    with pytest.raises(QuotaError, match="no credit left"):
        run(split_requests(REQUESTS, "in", 5))
    assert len(tried) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "rey"}, "engine: unknown"),
        ({"attempts": 0}, "attempts: must be at least 1"),
        ({"keep": "traces"}, "keep: unknown .*did you mean 'trace'"),
        ({"redo": "error"}, "redo: unknown .*did you mean 'errors'"),
    ],
)
def test_wrong_options_are_named(folder: Path, options: dict[str, Any], said: str) -> None:
    """A value that is not known is refused."""
    with pytest.raises(ConfigError, match=said):
        run(split_requests(REQUESTS, "in", 5), **options)


def test_targets_do_not_overwrite_one_another(folder: Path) -> None:
    """Two sources of one name, or sources in the folder of the targets, are refused."""
    shards = split_requests(REQUESTS, "in", 50)
    other = Path(shutil.copytree("in", "other")) / shards[0].name
    with pytest.raises(DatasetError, match="two shards have one name"):
        run([*shards, other])
    with pytest.raises(DatasetError, match="would overwrite the shard"):
        run(shards, "in")


def test_ray_options_are_checked() -> None:
    """No workers, or a negative share of a machine, is refused."""
    for options in ({"workers": 0}, {"num_cpus": -1}, {"num_gpus": -0.5}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            RayOptions(**options)


def test_an_item_file_that_changed_is_refused(folder: Path) -> None:
    """A worker whose item file is another one than the run began with does not rank."""
    recipe = make_recipe("ranker.yaml", "items.jsonl")
    with Path("items.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "99", "title": "New"}\n')
    with pytest.raises(ConfigError, match="is not the item file that the run began with"):
        recipe.build()


def test_with_cache_leaves_the_ranker_as_it_was(tmp_path: Path) -> None:
    """Answers are kept for the length of the block; the Ranker's own backend stays open and asks again after it."""
    backend = ScriptedBackend(backwards)
    with Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG) as ranker:
        with ranker.with_cache(tmp_path / "answers.sqlite") as cached:
            for _ in range(2):
                assert cached.rank(["1"], ["2", "3"]).item_ids == ["3", "2"]
        assert (len(backend.prompts), backend.closed) == (1, 0)
        assert ranker.rank(["1"], ["2", "3"]).usage.calls == 1
    assert backend.closed == 1


def command(arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """The status and standard error of ``llmrank rank <arguments>``."""
    monkeypatch.setattr(sys, "argv", ["llmrank", "rank", "-c", "ranker.yaml", "--items", "items.jsonl", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code, capsys.readouterr().err


@pytest.fixture(params=["cases.jsonl --rows 5 --engine local", "shards", "shards --engine local", "shards/part-00000.parquet"])
def cases(request: pytest.FixtureRequest, folder: Path) -> str:
    """Cases in each form that the command line takes."""
    split_requests(REQUESTS, "shards", 50 if request.param.endswith("parquet") else 10)
    return str(request.param)


def test_the_command_ranks_shards(cases: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSONL file that it splits, a folder, or one Parquet file: all users in order, the counts at the end, and it resumes."""
    status, err = command(f"--cases {cases} --out out -k 2", capsys, monkeypatch)
    assert status == 0
    assert "23 ranked: 23 ok" in err
    assert "23 calls now, 23 in all" in err
    found = [row for path in sorted(Path("out").glob("*.parquet")) for row in rows(path)]
    assert [row["user_id"] for row in found] == [f"u{n}" for n in range(23)]
    assert all(len(row["item_ids"]) == 2 for row in found)
    status, err = command(f"--cases {cases} --out out -k 2", capsys, monkeypatch)
    assert status == 0
    assert "kept" in err
    assert "0 calls now, 23 in all" in err


def test_the_command_reports_failures(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row or a shard that failed gives status 1; what may help is said."""
    Path("shards").mkdir()
    asked = users(3)
    asked[1]["candidates"] = ["18", "19"]  # which the recording has no answer to
    write(Path("shards/a.parquet"), asked)
    Path("shards/b.parquet").write_bytes(b"no Parquet")
    status, err = command("--cases shards --out out --keep trace", capsys, monkeypatch)
    assert status == 1
    assert "failed: b.parquet, tried 3 times: shard: cannot be read as Parquet" in err
    assert "2 shards: 1 failed, 1 ranked" in err
    assert "3 ranked: 1 error, 2 ok" in err
    assert "errors: 1 ReplayMissError" in err
    assert "1 rows lack an answer; --retry-errors asks again for them" in err
    Path("shards/b.parquet").unlink()
    status, err = command("--cases shards --out out --keep trace --retry-errors", capsys, monkeypatch)
    assert (status, "1 shards: 1 ranked" in err, "0 calls now" in err) == (1, True, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--cases shards --out items.jsonl", "--out: is a file"),
        ("--cases shards", "--out: is missing"),
        ("--engine local --out out", "--cases: is missing"),
        ("--cases shards --out out --engine rey", "--engine: unknown (got 'rey'); did you mean 'ray'?"),
        ("--cases shards --out out --keep traces", "--keep: unknown (got 'traces'); did you mean 'trace'?"),
        ("--cases shards --out out --workers 2", "--workers: goes with Ray"),
        ("--cases shards --out out --rows 2", "--rows: goes with a JSONL file"),
        ("--cases empty --out out", "--cases: holds no Parquet file"),
        ("--cases shards --out shards", "would overwrite the shard"),
        ("--cases cases.jsonl --rows 2", "--rows: goes with shards"),
        ("--history 1 --candidates 2,3 --retry-errors", "--retry-errors: goes with shards"),
        ("--cases shards --out out --query x", "cannot be joined with --cases"),
        ("--cases nowhere.parquet --out out", "nowhere.parquet"),
    ],
)
def test_wrong_arguments_are_one_line(
    folder: Path, arguments: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2 (1 for a shard that failed) and one line that says what to do."""
    split_requests(REQUESTS, "shards", 10)
    Path("empty").mkdir()
    status, err = command(arguments, capsys, monkeypatch)
    assert status == (1 if "nowhere" in arguments else 2)
    assert said in err


def test_ray_that_is_missing_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package, the command says how to install it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    status, err = command("--cases cases.jsonl --out out --engine ray", capsys, monkeypatch)
    assert status == 2
    assert "pip install 'llmrank[ray]'" in err
    with pytest.raises(SetupError, match="ray is not installed"):
        run(split_requests(REQUESTS, "in", 5), "elsewhere", engine="ray")


def test_a_model_may_be_moved_and_not_changed(tmp_path: Path) -> None:
    """What a recipe's digest knows of a model, a learned folder and a fusion is their content, not where they lie."""

    def digest(folder: Path) -> str | None:
        retrievers = {"crowd": {"kind": "item-knn", "path": str(folder / "crowd.npz")}}
        retrievers["all"] = {"kind": "learned", "path": str(folder / "all")}
        fusion = {"path": str(folder / "fusion.json")}
        config = {"backend": {"kind": "local"}, "retrievers": retrievers, "fusion": fusion}
        return make_recipe(config, CATALOG).digests["config"]

    here, there = tmp_path / "here", tmp_path / "there"
    (here / "all").mkdir(parents=True)
    (here / "crowd.npz").write_bytes(b"a model")
    (here / "all" / "learned.json").write_text("{}")
    write_fusion(here / "fusion.json", FusionFile(WeightedSum((Band({"crowd": 1.0}),))))
    before = digest(here)
    here.rename(there)
    assert digest(there) == before
    seen = {before}
    for name in ("crowd.npz", "all/learned.json", "all/more.npz"):
        (there / name).write_text("another")
        seen.add(digest(there))
    write_fusion(there / "fusion.json", FusionFile(WeightedSum((Band({"crowd": 2.0}),))))
    seen.add(digest(there))
    assert len(seen) == 5
