"""Evaluation runs by shards: what is asked, and what is noted as paid, over sessions that differ or were killed.

Ray itself is not here: the shards are ranked in this process. `tests/integration/test_eval_ray.py` has a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from llmrank.evaluation.cases import Case
from llmrank.evaluation.run import Evaluation, RunOptions, evaluate
from llmrank.evaluation.running.shards import RankerShards
from llmrank.scale import engines
from tests.servers.picky import PickyServer, Reply, Request
from tests.unit.small_suite import KEY, KEY_ENV, USD, server, suite, write_data

CASES = 12
IN_FLIGHT = 2
RANK_SHARDS = engines.rank_shards


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def rank_here(patch: pytest.MonkeyPatch, *, killed_at_row: int | None = None, killed_at_shard: int | None = None) -> None:
    """Ranks the shards of Ray's engine in this process, which "is killed" when a row or a shard is done, counted from 1."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if done == killed_at_row:
            raise Killed

    def rank_shards(*arguments: Any, **options: Any) -> Iterator[Any]:
        with closing(RANK_SHARDS(*arguments, **options | {"engine": "local"}, on_rows=count)) as reports:  # type: ignore[type-var]
            for number, report in enumerate(reports, start=1):
                if number == killed_at_shard:
                    raise Killed
                yield report

    patch.setattr(engines, "rank_shards", rank_shards)


@contextmanager
def killed(**moment: int) -> Iterator[None]:
    """What is run in the block is killed at that moment."""
    with pytest.MonkeyPatch.context() as patch:
        rank_here(patch, **moment)
        with pytest.raises(Killed):
            yield


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_ENV, KEY)
    rank_here(monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The folder of the small suite's files."""
    write_data(tmp_path / "data", CASES)
    return tmp_path / "data"


@pytest.fixture
def live() -> Iterator[PickyServer]:
    """A server that ranks backwards."""
    with server() as running:
        yield running


def model_only(data: Path, url: str) -> dict[str, Any]:
    """The small suite without its baselines."""
    asked = suite(data, url)
    return asked | {"rankers": {"model": asked["rankers"]["model"]}}


def by_shards(asked: dict[str, Any], out: Path, **others: Any) -> Evaluation:
    """A session with Ray's engine."""
    return evaluate(asked, out, RunOptions(engine="ray", report=False, **others))


def orders(run: Evaluation) -> list[Any]:
    """The cases with what was ranked, in the order of the file."""
    return [(each["case"], each["status"], [item["id"] for item in each["items"]]) for each in run.folder.results("model")]


def noted(out: Path) -> list[Any]:
    """The lines of what was spent."""
    return [json.loads(line) for line in (out / "spent.jsonl").read_text(encoding="utf-8").splitlines()]


def calls(out: Path) -> int:
    """How many answers were noted as paid."""
    return sum(line["calls"] for line in noted(out))


def test_sessions_with_limits_and_other_rows_ask_each_case_once(tmp_path: Path, data: Path, live: PickyServer) -> None:
    """A limit is kept within a shard, rows may change, what the local engine ranked is not asked again, and all ends alike."""
    asked, out = model_only(data, live.url), tmp_path / "run"
    by_shards(asked, out, limit=2, rows=500)
    assert len(live.bodies) == 2
    by_shards(asked, out, limit=6, rows=3)
    assert len(live.bodies) == 6
    evaluate(asked, out, RunOptions(limit=8, report=False))
    assert len(live.bodies) == 8
    done = by_shards(asked, out, rows=5)
    assert len(live.bodies) == CASES
    assert calls(out) == CASES
    local = evaluate(asked, tmp_path / "local", RunOptions(report=False))
    assert orders(done) == orders(local)


@pytest.mark.parametrize("resumed", [{}, {"rows": 3}])
def test_a_killed_session_goes_on_and_its_money_is_noted(
    tmp_path: Path, data: Path, live: PickyServer, resumed: dict[str, int]
) -> None:
    """Only what was in flight is asked twice, and every answer that is used is noted once, whoever paid for it."""
    asked, out = model_only(data, live.url), tmp_path / "run"
    with killed(killed_at_row=7):
        by_shards(asked, out, rows=6)
    assert len(live.bodies) >= 7
    done = by_shards(asked, out, **resumed)
    assert CASES <= len(live.bodies) <= CASES + IN_FLIGHT
    assert len(orders(done)) == CASES
    assert calls(out) == CASES
    assert done.usd == pytest.approx(CASES * USD)
    by_shards(asked, out)
    assert calls(out) == CASES


def test_a_shard_that_was_whole_when_the_session_was_killed_is_collected(tmp_path: Path, data: Path, live: PickyServer) -> None:
    """Nothing is asked again for a ranked shard whose records are not in the results yet; what it cost is noted."""
    asked, out = model_only(data, live.url), tmp_path / "run"
    with killed(killed_at_shard=1):
        by_shards(asked, out)
    assert len(live.bodies) == CASES
    assert not (out / "spent.jsonl").exists()
    done = by_shards(asked, out)
    assert len(live.bodies) == CASES
    assert done.usd == pytest.approx(CASES * USD)


def test_a_limit_after_a_kill_is_kept_and_loses_no_answer(tmp_path: Path, data: Path, live: PickyServer) -> None:
    """A shard of which only some cases are wanted now is not ranked; they begin with the answers that were kept of it."""
    asked, out = model_only(data, live.url), tmp_path / "run"
    with killed(killed_at_row=5):
        by_shards(asked, out)
    before = len(live.bodies)
    done = by_shards(asked, out, limit=3)
    assert len(live.bodies) == before
    assert len(orders(done)) == 3
    assert calls(out) == 3
    by_shards(asked, out, limit=8)
    assert len(live.bodies) <= max(before, 8) + IN_FLIGHT
    by_shards(asked, out)
    assert len(live.bodies) <= CASES + IN_FLIGHT
    assert calls(out) == CASES


def test_failures_are_asked_again_alone(tmp_path: Path, data: Path) -> None:
    """A retry asks for the failures below its limit and for nothing else, again and again, and notes what that cost."""
    broken = {"Film 16", "Film 17"}  # shown by 7 cases

    def failing(request: Request) -> Reply | None:
        shown = str(request.body.get("messages"))
        return Reply({"error": {"message": "broken"}}, 500) if any(title in shown for title in broken) else None

    out = tmp_path / "run"
    with server(failing) as running:
        asked = model_only(data, running.url)
        first = by_shards(asked, out, rows=5)
        failed = [case for case, status, _ in orders(first) if status == "error"]
        assert len(running.bodies) == CASES
        assert first.failures == len(failed) > 4
        by_shards(asked, out, rows=5)
        assert len(running.bodies) == CASES  # a failure is a result until it is asked for again
        broken.clear()
        few = by_shards(asked, out, retry_errors=True, limit=failed[2])
        assert len(running.bodies) == CASES + 2
        assert [case for case, status, _ in orders(few) if status == "error"] == failed[2:]
        assert calls(out) == CASES - len(failed) + 2
        with killed(killed_at_shard=1):
            by_shards(asked, out, retry_errors=True)
        done = by_shards(asked, out, retry_errors=True)
    assert len(running.bodies) == CASES + len(failed)
    assert done.failures == 0
    assert calls(out) == CASES
    assert {status for _, status, _ in orders(done)} == {"ok"}


def test_a_request_with_a_mistake_does_not_hide_the_model(tmp_path: Path, data: Path, live: PickyServer) -> None:
    """The price of a shard is that of the model of its rows, though the first of them could not be ranked by any."""
    lines = (data / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"candidates": None})
    (data / "cases.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    items = [{"id": f"i{number}", "title": f"Film {number}"} for number in range(3000)]
    (data / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    done = by_shards(model_only(data, live.url), tmp_path / "run")
    assert done.failures == 1
    assert [line["model"] for line in noted(tmp_path / "run")] == ["picky-1"]
    assert done.usd == pytest.approx((CASES - 1) * USD)


def test_a_cache_of_the_users_own_costs_a_second_run_nothing(tmp_path: Path, data: Path, live: PickyServer) -> None:
    """What another run paid for is not noted as this one's, even when this one was killed."""
    asked = model_only(data, live.url)
    asked["rankers"]["model"]["cache"] = {"path": str(tmp_path / "answers.sqlite")}
    by_shards(asked, tmp_path / "first")
    with killed(killed_at_shard=1):
        by_shards(asked, tmp_path / "second")
    done = by_shards(asked, tmp_path / "second")
    assert len(live.bodies) == CASES
    assert len(orders(done)) == CASES
    assert done.usd == 0.0


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, CASES - 1), min_size=1),  # wanted
            st.integers(1, CASES),  # rows
            st.sets(st.integers(0, CASES - 1)),  # what fails
            st.integers(0, CASES),  # shards that are ranked before the kill
            st.booleans(),  # collected and noted, too
        ),
        max_size=5,
    )
)
def test_a_plan_asks_for_what_is_wanted_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, sessions: list[tuple[set[int], int, set[int], int, bool]]
) -> None:
    """Whatever earlier sessions wanted and left: each wanted case is taken from one shard, and shards to rank hold no other."""
    cases = [Case(f"u{number}", (), ("a", "b"), ("a",)) for number in range(CASES)]
    shards = RankerShards(tmp_path_factory.mktemp("shards"))
    for wanted, rows, failing, count, collected in sessions:
        taken = shards.plan(wanted, cases, rows)
        assert sorted(case for each in taken.values() for case in each) == sorted(wanted)
        for place, (shard, mine) in enumerate(taken.items()):
            target = shards.ranked / shard.name
            held = pq.read_table(shard).column("case").to_pylist()
            assert mine <= set(held)
            if not target.exists():
                assert mine == set(held)
                if place < count:
                    target.parent.mkdir(exist_ok=True)
                    status = ["error" if case in failing else "ok" for case in held]
                    pq.write_table(pa.table({"case": held, "status": status, "calls": [1] * len(held)}), target)
            elif shards.is_noted(shard):
                found = pq.read_table(target).to_pylist()
                assert {row["status"] for row in found if row["case"] in mine} == {"ok"}
            if place < count and collected:
                shards.note(shard)
