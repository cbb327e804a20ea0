"""One shard: the same rankings as `rank_many`, whole or not at all, nothing paid twice, and one clear error for a bad file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrank import Catalog, Item, Ranker, RankRequest
from llmrank.errors import AuthenticationError, BackendError, ContentFilterError, DatasetError, QuotaError, ServerError
from llmrank.evaluation.records import full_record
from llmrank.scale import schema
from llmrank.scale.schema import read_records
from llmrank.scale.shard import ShardReport, rank_shard
from llmrank.strategies.listwise import Listwise
from llmrank.types import Prompt, Usage
from llmrank.writer import PromptOptions, PromptWriter
from tests.servers.picky import PickyServer, Reply, Request, completion
from tests.unit.scripted import ScriptedBackend, shown

ROOT = Path(__file__).parents[2]
CATALOG = Catalog(Item(str(number), f"Film {number}") for number in range(1, 21))
TYPES = {"user_id": pa.string(), "history": pa.list_(pa.string()), "candidates": pa.list_(pa.string())}
WALL_CLOCK = ("seconds", "latency")


def backwards(prompt: Prompt) -> str:
    """The candidates by title, the last one first."""
    return " > ".join(f"[{label}]" for label, _ in sorted(shown(prompt).items(), key=lambda pair: pair[1], reverse=True))


def build(script: Callable[[Prompt], Any] = backwards, **options: Any) -> tuple[Ranker, ScriptedBackend]:
    """A Ranker that a function answers, and its backend."""
    backend = ScriptedBackend(script)
    return Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG, **options), backend


def write(path: Path, rows: Sequence[Mapping[str, Any]], **types: Any) -> Path:
    """A shard with these rows; `types` are those of further columns."""
    kinds = {**TYPES, **types}
    pq.write_table(pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items()}), path)
    return path


def users(count: int, first: int = 0) -> list[dict[str, Any]]:
    """So many users, all different."""
    return [
        {"user_id": f"u{n}", "history": [str(1 + n % 17)], "candidates": [str(1 + (n + k) % 20) for k in (1, 2, 3 + n // 20)]}
        for n in range(first, first + count)
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    """A ranked shard without what depends on the clock."""
    table = pq.read_table(path)
    found: list[dict[str, Any]] = table.drop_columns([name for name in WALL_CLOCK if name in table.column_names]).to_pylist()
    return found


def ids() -> st.SearchStrategy[list[str | None]]:
    return st.lists(st.sampled_from(["1", "2", "3", "4", "5", "nobody", None]), max_size=5)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.none() | ids(), st.none() | ids(), st.none() | st.integers(-1, 3)), max_size=12))
def test_a_shard_has_the_rankings_of_rank_many(
    tmp_path_factory: pytest.TempPathFactory, users: list[tuple[list[str | None] | None, list[str | None] | None, int | None]]
) -> None:
    """Row by row and in order, whatever the rows are: histories that are null, unknown ids, duplicates, no candidates."""
    folder = tmp_path_factory.mktemp("shard")
    asked = [
        {"user_id": f"u{n}", "history": history, "candidates": candidates, "top_k": top_k}
        for n, (history, candidates, top_k) in enumerate(users)
    ]
    source = write(folder / "in.parquet", asked, top_k=pa.int64())
    ranker, _ = build()
    with ranker, pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "BATCH_ROWS", 3)
        report = rank_shard(source, folder / "out.parquet", config={}, ranker=ranker, keep="record")
        requests: list[Any] = [
            RankRequest(row["history"] or (), row["candidates"], None, row["user_id"], row["top_k"])  # type: ignore[arg-type]
            for row in asked
        ]
        rankings = list(ranker.rank_many(requests))
    found = rows(folder / "out.parquet")
    assert [row["user_id"] for row in found] == [row["user_id"] for row in asked]
    assert [row["item_ids"] for row in found] == [ranking.item_ids for ranking in rankings]
    assert [row["status"] for row in found] == [ranking.status for ranking in rankings]
    assert [row["filled"] for row in found] == [list(ranking.filled) for ranking in rankings]
    assert [row["calls"] for row in found] == [ranking.usage.calls for ranking in rankings]
    assert report.rows == len(asked)
    assert Counter(report.statuses) == Counter(ranking.status for ranking in rankings)

    def comparable(record: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in record.items() if name not in ("latency", "usage")}

    records = [comparable(record) for record in read_records(folder / "out.parquet")]
    expected = [comparable(full_record(ranking, trace=False)) for ranking in rankings]
    assert records == [each | ({"top_k": None} if "top_k" in each else {}) for each in expected]


def test_other_columns_come_out_as_they_went_in(tmp_path: Path) -> None:
    """Values and types of the columns that ranking does not need, over several batches."""
    nested = pa.struct({"day": pa.date32(), "tags": pa.list_(pa.dictionary(pa.int8(), pa.string()))})
    asked = [row | {"case": n, "more": {"day": None, "tags": ["a"] * (n % 3)}} for n, row in enumerate(users(20))]
    source = write(tmp_path / "in.parquet", asked, case=pa.int16(), more=nested)
    ranker, _ = build()
    with ranker, pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "BATCH_ROWS", 7)
        rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker)
    given_table, found = pq.read_table(source), pq.read_table(tmp_path / "out.parquet")
    assert found.column_names[:3] == ["user_id", "case", "more"]
    for name in ("user_id", "case", "more"):
        assert found.column(name).to_pylist() == given_table.column(name).to_pylist()
        assert found.schema.field(name).type == given_table.schema.field(name).type
    assert "history" not in found.column_names


@pytest.mark.parametrize(
    ("kinds", "as_given"),
    [
        ({"user_id": pa.int64(), "history": pa.list_(pa.int32()), "candidates": pa.list_(pa.uint16())}, int),
        (
            {"user_id": pa.large_string(), "history": pa.large_list(pa.large_string()), "candidates": pa.list_(pa.string(), 3)},
            str,
        ),
        ({"user_id": pa.dictionary(pa.int8(), pa.string()), "history": pa.null()}, str),
    ],
)
def test_ids_may_be_of_other_types(tmp_path: Path, kinds: dict[str, Any], as_given: Callable[[str], Any]) -> None:
    """Integers, large and dictionary-encoded strings and lists of them stand for the same ids."""
    history = None if kinds.get("history") == pa.null() else [as_given("4")]
    asked = [{"user_id": as_given("7"), "history": history, "candidates": [as_given(each) for each in "123"]}]
    source = write(tmp_path / "in.parquet", asked, **kinds)
    ranker, backend = build()
    with ranker:
        rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker)
    (row,) = rows(tmp_path / "out.parquet")
    assert (row["user_id"], row["item_ids"]) == ("7", ["3", "2", "1"])
    assert ("Film 4" in str(backend.prompts[0].messages)) == (history is not None)


def test_queries_and_top_k_are_read(tmp_path: Path) -> None:
    """A query reaches the model; the row's own `top_k` comes before the caller's."""
    asked = [{**users(1)[0], "query": "something with robots", "top_k": 1}, {**users(1)[0], "query": None, "top_k": None}]
    source = write(tmp_path / "in.parquet", asked, query=pa.string(), top_k=pa.int32())
    ranker, backend = build()
    with ranker:
        rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker, top_k=2)
    assert [len(row["item_ids"]) for row in rows(tmp_path / "out.parquet")] == [1, 2]
    assert sorted("robots" in str(prompt.messages) for prompt in backend.prompts) == [False, True]


def test_a_bad_row_stops_no_other(tmp_path: Path) -> None:
    """It has the status ``error``, its error by class and message, and no items."""
    asked = users(3)
    asked[1]["candidates"] = ["1", "nobody"]
    ranker, _ = build()
    with ranker:
        report = rank_shard(write(tmp_path / "in.parquet", asked), tmp_path / "out.parquet", config={}, ranker=ranker)
    found = rows(tmp_path / "out.parquet")
    assert [row["status"] for row in found] == ["ok", "error", "ok"]
    assert found[1]["error"].startswith("UnknownItemError: candidates[1]: not in the catalogue")
    assert found[1]["item_ids"] == []
    assert (report.errors, report.unanswered) == ({"UnknownItemError": 1}, 0)


def damaged(path: Path) -> None:
    """A Parquet file whose footer is whole, with rubbish where the pages are."""
    write(path, users(50))
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 3] = os.urandom(len(content) // 3 - 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b""), "cannot be read as Parquet"),
        (lambda path: path.write_text("user_id,history\n"), "cannot be read as Parquet"),
        (lambda path: path.write_bytes(write(path, users(9)).read_bytes()[:-20]), "cannot be read as Parquet"),
        (damaged, "cannot be read as Parquet"),
        (lambda path: pq.write_table(pa.table({"user_id": ["u"], "histroy": [["1"]]}), path), "history: .*a column is missing"),
        (
            lambda path: write(path, [{"user_id": 1.5}], user_id=pa.float64()),
            "user_id: .*wrong type.*double.*strings or integers",
        ),
        (lambda path: write(path, [{"history": "1"}], history=pa.string()), "history: .*wrong type.*lists"),
        (lambda path: write(path, users(1), query=pa.int8()), "query: .*wrong type"),
        (lambda path: write(path, users(1), status=pa.string()), "status: .*the name is taken"),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    """Nothing is asked for it, and nothing is left under the target's name nor beside it but kept answers."""
    spoil(tmp_path / "in.parquet")
    ranker, backend = build()
    with ranker, pytest.raises(DatasetError, match=said) as raised:
        rank_shard(tmp_path / "in.parquet", tmp_path / "out" / "out.parquet", config={}, ranker=ranker)
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not backend.prompts
    assert not [path for path in tmp_path.rglob("*out.parquet*") if "answers" not in path.name]


def test_a_whole_target_is_left_alone(tmp_path: Path) -> None:
    """The same source, configuration and catalogue ask nothing again; the report comes from the file."""
    source = write(tmp_path / "in.parquet", users(5))
    ranker, backend = build()
    with ranker:
        first = rank_shard(source, tmp_path / "out.parquet", config={"strategy": None}, ranker=ranker)
        before = (tmp_path / "out.parquet").stat()
        again = rank_shard(source, tmp_path / "out.parquet", config={"limits": {"max_attempts": 9}}, ranker=ranker)
    assert len(backend.prompts) == 5
    assert (tmp_path / "out.parquet").stat().st_mtime_ns == before.st_mtime_ns
    assert (first.outcome, again.outcome) == ("ranked", "kept")
    assert (again.rows, again.statuses, again.cost, again.errors) == (5, {"ok": 5}, first.cost, {})
    assert first.spent.calls == 5
    assert again.spent == Usage()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config": {"prompt": {"history": 3}}}, "was made from another config"),
        ({"keep": "record"}, "another config"),
        ({"top_k": 2}, "another config"),
        ({"catalog": Catalog([*CATALOG, Item("21", "New")])}, "another catalog"),
        ({"source": "other.parquet"}, "another source"),
    ],
)
def test_a_target_made_from_something_else_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """What differs is named, and nothing is overwritten unless everything is to be ranked again."""
    write(tmp_path / "in.parquet", users(2))
    write(tmp_path / "other.parquet", users(3))
    ranker, _ = build()
    with ranker:
        rank_shard(tmp_path / "in.parquet", tmp_path / "out.parquet", config={}, ranker=ranker)
        content = (tmp_path / "out.parquet").read_bytes()
        source = tmp_path / changes.pop("source", "in.parquet")
        arguments: dict[str, Any] = {"config": {}, "ranker": ranker, **changes}
        with pytest.raises(DatasetError, match=said):
            rank_shard(source, tmp_path / "out.parquet", **arguments)
        assert (tmp_path / "out.parquet").read_bytes() == content
        report = rank_shard(source, tmp_path / "out.parquet", redo="everything", **arguments)
    assert report.outcome == "ranked"
    assert (tmp_path / "out.parquet").read_bytes() != content


@pytest.mark.parametrize("content", [b"PAR1 torn", None])
def test_a_target_that_is_no_ranked_shard_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """A torn file, or somebody's own Parquet file, is not overwritten."""
    source = write(tmp_path / "in.parquet", users(2))
    target = tmp_path / "out.parquet"
    if content is None:
        write(target, users(1))
    else:
        target.write_bytes(content)
    before = target.read_bytes()
    ranker, backend = build()
    with ranker, pytest.raises(DatasetError, match=r"no ranked shard|cannot be read as Parquet"):
        rank_shard(source, target, config={}, ranker=ranker)
    assert target.read_bytes() == before
    assert not backend.prompts


def test_what_killed_runs_left_is_cleared(tmp_path: Path) -> None:
    """A part of a file that was under way when its process died is not taken for a result, and goes."""
    source = write(tmp_path / "in.parquet", users(2))
    target = tmp_path / "out[1].parquet"
    (tmp_path / f".{target.name}.0badcafe.part").write_bytes(b"PAR1")
    ranker, _ = build()
    with ranker:
        assert rank_shard(source, target, config={}, ranker=ranker).outcome == "ranked"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", target.name]


def test_what_a_backend_failed_to_answer_can_be_asked_again(tmp_path: Path) -> None:
    """The answers stay beside the target; ranking the errors again asks for nothing else, and then they go."""
    source = write(tmp_path / "in.parquet", users(6))
    down = [True]

    def script(prompt: Prompt) -> str | BackendError:
        return ContentFilterError("refused") if down[0] and "4" in prompt.item_ids else backwards(prompt)

    ranker, backend = build(script)
    answers = tmp_path / ".out.parquet.answers.sqlite"
    with ranker:
        first = rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker)
        assert first.unanswered == first.errors["ContentFilterError"] == 3
        assert answers.exists()
        asked = len(backend.prompts)
        assert rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker).outcome == "kept"
        assert len(backend.prompts) == asked
        down[0] = False
        again = rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker, redo="errors")
        assert len(backend.prompts) == asked + 3
        assert (again.outcome, again.spent.calls, again.cost.calls, dict(again.statuses)) == ("ranked", 3, 6, {"ok": 6})
        assert rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker, redo="errors").outcome == "kept"
        rank_shard(source, tmp_path / "whole.parquet", config={}, ranker=ranker)
    assert rows(tmp_path / "out.parquet") == rows(tmp_path / "whole.parquet")
    assert not answers.exists()


@pytest.mark.parametrize("error", [QuotaError("no credit left"), AuthenticationError("wrong key")])
def test_what_no_row_could_do_better_with_ends_the_shard(tmp_path: Path, error: BackendError) -> None:
    """An empty account makes no errors of the other rows: what was answered is kept, and the shard goes on when mended."""
    source = write(tmp_path / "in.parquet", users(10))
    broken = [True]
    answered: list[Prompt] = []

    def script(prompt: Prompt) -> str | BackendError:
        if broken[0] and len(answered) >= 4:
            return error
        answered.append(prompt)
        return backwards(prompt)

    ranker, _ = build(script, max_concurrency=1)
    with ranker:
        with pytest.raises(type(error), match=str(error)):
            rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker)
        assert not (tmp_path / "out.parquet").exists()
        broken[0] = False
        report = rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker)
    assert (len(answered), report.spent.calls, report.spent.cache_hits) == (10, 6, 4)
    assert report.statuses == {"ok": 10}


def test_a_named_answer_cache_is_used_instead(tmp_path: Path) -> None:
    """A Ranker with a cache of its own keeps its answers there, and they stay; the rows count what they had cost."""
    source = write(tmp_path / "in.parquet", users(3))
    ranker, backend = build(cache=tmp_path / "mine.sqlite")
    with ranker:
        rank_shard(source, tmp_path / "one.parquet", config={}, ranker=ranker)
        report = rank_shard(source, tmp_path / "two.parquet", config={}, ranker=ranker)
        assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "mine.sqlite").exists()
    assert len(backend.prompts) == 3
    assert (report.spent.calls, report.spent.cache_hits, report.cost.calls) == (0, 3, 3)
    assert rows(tmp_path / "one.parquet") == rows(tmp_path / "two.parquet")


def test_traces_are_kept_on_request(tmp_path: Path) -> None:
    """`keep` decides whether a row holds all that is known of its ranking, and the prompts with their answers."""
    source = write(tmp_path / "in.parquet", [row | {"case": n} for n, row in enumerate(users(2))], case=pa.int64())
    ranker, _ = build()
    with ranker:
        for keep in ("columns", "record", "trace"):
            rank_shard(source, tmp_path / keep, config={}, ranker=ranker, keep=keep)
    with pytest.raises(DatasetError, match="holds no records"):
        list(read_records(tmp_path / "columns"))
    with pytest.raises(DatasetError, match="no ranked shard"):
        list(read_records(source))
    assert all("trace" not in record for record in read_records(tmp_path / "record"))
    traced = list(read_records(tmp_path / "trace"))
    assert [record["case"] for record in traced] == [0, 1]
    assert all(record["trace"][0]["text"].startswith("[") for record in traced)


def test_text_that_parquet_cannot_hold_is_escaped(tmp_path: Path) -> None:
    """Half a surrogate pair in an error does not lose the shard."""
    source = write(tmp_path / "in.parquet", users(1))
    ranker, _ = build(lambda prompt: ContentFilterError("half \ud800 a pair"))
    with ranker:
        rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker, keep="trace")
    (row,) = rows(tmp_path / "out.parquet")
    assert row["error"] == "ContentFilterError: half \\ud800 a pair"


def test_a_shard_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are read as the Ranker takes them: never more than a batch beyond those that are ranked and those in flight."""
    source = write(tmp_path / "in.parquet", users(60))
    monkeypatch.setattr(schema, "BATCH_ROWS", 5)
    ahead: list[int] = []
    read = ranked = 0
    batches = schema.ShardReader.batches

    def counting(reader: schema.ShardReader) -> Iterator[Any]:
        nonlocal read
        for batch in batches(reader):
            read += batch.num_rows
            yield batch

    def count(_: object) -> None:
        nonlocal ranked
        ranked += 1
        ahead.append(read - ranked)

    monkeypatch.setattr(schema.ShardReader, "batches", counting)
    ranker, _ = build(max_concurrency=2)
    with ranker:
        rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker, on_row=count)
    assert ranked == read == 60
    assert max(ahead) <= 4 + 5


def test_errors_of_a_row_do_not_reach_the_caller(tmp_path: Path) -> None:
    """A server that is away fails rows, not the shard, whatever the Ranker does for single requests (`on_error`)."""
    source = write(tmp_path / "in.parquet", users(2))
    backend = ScriptedBackend(lambda prompt: ServerError("down"))
    with Ranker(backend, Listwise(PromptWriter(PromptOptions())), catalog=CATALOG) as ranker:
        ranker.backend = backend  # without retries, which would wait
        report = rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker)
    assert (report.statuses, report.unanswered) == ({"error": 2}, 2)
    assert [len(row["item_ids"]) for row in rows(tmp_path / "out.parquet")] == [3, 3]  # in the order given


PROGRAM = """
import sys
from llmrank.scale.shard import rank_shard
report = rank_shard(sys.argv[1], sys.argv[2], config=sys.argv[3])
print(report.outcome, report.spent.calls, report.spent.cache_hits, report.cost.calls)
"""


def answer_backwards(request: Request) -> Reply | None:
    """A chat answered as `backwards` does, after a while."""
    text = "\n".join(str(message["content"]) for message in request.body.get("messages", []))
    labels = [line.strip()[:3] for line in text.splitlines() if line.strip()[:1] == "[" and line.strip()[2:4] == "] "]
    return Reply(completion(" > ".join(reversed(labels))), delay_s=0.02) if labels else None


def test_a_killed_shard_pays_for_nothing_twice(tmp_path: Path) -> None:
    """kill -9 in mid-shard, then again: the rows are those of a run in one go; only what was in flight is asked twice."""
    (tmp_path / "items.jsonl").write_text(
        "".join(json.dumps({"id": item.id, "title": item.title}) + "\n" for item in CATALOG), encoding="utf-8"
    )
    source, in_flight = write(tmp_path / "in.parquet", users(60)), 2

    def run(target: Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "OPENAI_API_KEY": "none"}
        command = [sys.executable, "-c", PROGRAM, str(source), str(target), str(tmp_path / "ranker.yaml")]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    with PickyServer([answer_backwards]) as server:
        backend = {"kind": "openai", "model": "picky-1", "base_url": server.url, "max_concurrency": in_flight}
        config = {"backend": {**backend, "context_window": 4096}, "catalog": {"path": str(tmp_path / "items.jsonl")}}
        (tmp_path / "ranker.yaml").write_text(json.dumps(config), encoding="utf-8")
        target = tmp_path / "out.parquet"
        with run(target) as first:
            give_up = time.monotonic() + 30
            while len(server.bodies) < 15 and time.monotonic() < give_up:
                time.sleep(0.01)
            first.send_signal(signal.SIGKILL)
        asked_before = len(server.bodies)
        assert 15 <= asked_before < 60
        assert not target.exists()
        with run(target) as second:
            outcome, calls, hits, cost = second.communicate(timeout=60)[0].split()
        asked = Counter(json.dumps(body["messages"]) for body in server.bodies)
        assert len(asked) == 60
        assert asked.total() <= 60 + in_flight
        assert (outcome, int(cost)) == ("ranked", 60)
        assert int(hits) >= asked_before - in_flight
        assert int(calls) + int(hits) == 60
        with run(tmp_path / "whole.parquet") as whole:
            assert whole.communicate(timeout=60)[0].startswith("ranked 60 0")
    assert rows(target) == rows(tmp_path / "whole.parquet")
    assert all(row["status"] == "ok" for row in rows(target))
    assert not list(tmp_path.glob(".*"))


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """Without pyarrow, or ray, the message has the command that installs it."""
    for package, extra in (("pyarrow", "data"), ("ray", "ray")):
        code = (
            f"import sys; sys.modules[{package!r}] = None\n"
            "from llmrank.errors import SetupError\n"
            "try:\n"
            "    from llmrank.scale.ray_engine import _ray\n"
            "    _ray()\n"
            "except SetupError as error:\n"
            "    print(error)\n"
        )
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert f"pip install 'llmrank[{extra}]'" in run.stdout


def test_a_report_says_what_it_is_of(tmp_path: Path) -> None:
    """Source and target stand in it, and the time that it took."""
    source = write(tmp_path / "in.parquet", [])
    ranker, _ = build()
    with ranker:
        report = rank_shard(source, tmp_path / "out.parquet", config={}, ranker=ranker)
    assert isinstance(report, ShardReport)
    assert (report.source, report.target, report.rows, report.attempts) == (source, tmp_path / "out.parquet", 0, 1)
    assert report.seconds > 0
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
